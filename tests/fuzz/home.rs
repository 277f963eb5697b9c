//! What lies on our own disk, where a crash or a hand may have left anything: the resume record and the settings.

use shoal::cli::check_settings;
use shoal::content::{Digest, Geometry, ShareId};
use shoal::storage::replayed;

use super::memory::frugal;

/// Bytes of a record before its first entry.
const HEADER_LEN: usize = 48;

/// Bytes of an entry of each kind without its checksum.
fn entry_len(kind: u8) -> Option<usize> {
    match kind {
        1 | 2 | 4 | 7 => Some(1 + 4),
        3 => Some(1 + 4 + 8 + 16 + 16 + 8),
        5 => Some(1 + 16),
        6 => Some(1 + 8),
        _ => None,
    }
}

/// `data` as entries, each with the checksum of its place, which no change would hit upon; what is no entry stays as it is.
fn signed(share: &ShareId, data: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(data.len() * 2);
    let mut rest = data;
    while let Some(len) = rest.first().copied().and_then(entry_len) {
        let Some((entry, after)) = rest.split_at_checked(len) else {
            break;
        };
        let offset = (HEADER_LEN + record.len()) as u64;
        let sum = Digest::of_parts(&[share.digest().as_bytes(), &offset.to_le_bytes(), entry]);
        record.extend_from_slice(entry);
        record.extend_from_slice(&sum.as_bytes()[..4]);
        rest = after;
    }
    record.extend_from_slice(rest);
    record
}

/// A resume record of a share of twelve pieces in three files, of this boot or another.
pub(super) fn resume_record(data: &[u8]) {
    let geometry = Geometry::new(16 << 10, &[100_000, 0, 70_000]).expect("a small share");
    let share = ShareId::from_digest(Digest::of(b"a share"));
    for (record, is_whole) in [(data.to_vec(), false), (signed(&share, data), true)] {
        let read = |bytes: &[u8], boot| {
            let measure = |read: &mut dyn FnMut()| frugal(bytes.len(), read);
            replayed(bytes, &share, &geometry, &[boot; 16], &measure)
        };
        let told = read(&record, 1);
        assert!(told.end <= record.len());
        if is_whole && data.len() >= 5 && entry_len(data[0]).is_some_and(|len| len <= data.len()) {
            assert!(told.end > 0, "a whole entry is read");
        }
        let is_there = |piece| geometry.piece(piece).is_some();
        assert!(told.held.iter().all(|piece| is_there(piece.get())));
        assert!(
            told.published
                .iter()
                .all(|file| file.get() < geometry.file_count())
        );
        // What may have been lost was there, and nothing of it is lost while the machine runs.
        assert!(
            told.doubtful_pieces
                .iter()
                .all(|piece| told.held.contains(piece))
        );
        assert!(
            told.doubtful_files
                .iter()
                .all(|file| told.published.contains(file))
        );
        // What follows the torn entry says nothing.
        assert_eq!(read(&record[..told.end], 1), told);
        let elsewhere = read(&record, 2);
        assert_eq!(
            (&elsewhere.held, &elsewhere.published),
            (&told.held, &told.published)
        );
    }
}

/// A settings file: refused with a reason, or read as keys with values, which the commands then take for defaults.
pub(super) fn settings(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match check_settings(&text) {
        Ok(keys) => {
            let known = |key: &String| {
                key.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'-' || byte.is_ascii_digit())
            };
            assert!(keys.iter().all(known), "{keys:?}");
        }
        Err(why) => assert!(!why.is_empty()),
    }
}
