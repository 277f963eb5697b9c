//! The resume record: which pieces a fetch has stored and which files it has published, appended as it happens.
//!
//! Survives SIGKILL at any instruction: every entry carries a checksum over its place, a torn tail ends the reading, and
//! nothing is ever rewritten. It never reads the data it speaks of. Entries not yet covered by a `Synced` entry are
//! reported as doubtful when the machine was started anew since, because a power loss may have kept the record and lost
//! the data. Called by `fetch` and `survey`.
//!
//! ```text
//! file  = magic "shoal record 1\n\0" (16) . share id (32) . entry*
//! entry = kind (1) . body . first 4 bytes of SHA-256(share id . offset of the entry as u64 . kind . body)
//! body  = Held: piece u32 | Dropped: piece u32 | Published: file u32, len u64, mtime i128, ctime i128, inode u64
//!       | Lost: file u32  | Boot: 16 bytes     | Synced: u64 offset up to which all entries are on disk
//!       | Adopted: file u32
//! ```
//! Numbers are little-endian.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};

use super::disk;
use super::os::{self, Signature};
use crate::content::{Digest, FileIndex, Geometry, PieceIndex, ShareId};

/// First bytes of the file; another version gets another number, and a reader that does not know it holds nothing.
const MAGIC: &[u8; 16] = b"shoal record 1\n\0";
/// Bytes before the first entry.
pub(super) const HEADER_LEN: usize = MAGIC.len() + 32;
/// Bytes of checksum per entry: a torn entry passes once in 2^32, and then only if it also names a valid piece.
const CHECK_LEN: usize = 4;
/// Longest entry without its checksum.
const ENTRY_LEN_MAX: usize = 1 + 4 + 8 + 16 + 16 + 8;

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// The piece's bytes were written to its part file.
    Held(PieceIndex),
    /// The piece is not held after all.
    Dropped(PieceIndex),
    /// The whole file lies under its final name and looked like this; all its pieces are held.
    Published(FileIndex, Signature),
    /// No piece of the file is held any more.
    Lost(FileIndex),
    /// The file under the final name, which the next entry calls published, is the user's own and only happens to be equal.
    Adopted(FileIndex),
    /// A run began under this boot identity.
    Boot([u8; 16]),
    /// What the entries before this offset speak of is on the disk itself.
    Synced(u64),
}

/// What a record says, in the end.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Pieces held in part files.
    pub(super) held: BTreeSet<PieceIndex>,
    /// Pieces that were held once and turned out not to be: nobody knows what lies in their places.
    pub(super) dropped: BTreeSet<PieceIndex>,
    /// Files published, as they looked then.
    pub(super) published: BTreeMap<FileIndex, Signature>,
    /// Those of them that were there before us.
    pub(super) adopted: BTreeSet<FileIndex>,
    /// Pieces of `held` that may not have survived a restart of the machine: read them before relying on them.
    pub(super) doubtful_pieces: BTreeSet<PieceIndex>,
    /// Files of `published` in the same position.
    pub(super) doubtful_files: BTreeSet<FileIndex>,
    /// Pieces, of published files too, that only the system's memory may have: to be synced before anybody says so of later
    /// ones.
    pub(super) unsynced: BTreeSet<PieceIndex>,
    /// When the last run was.
    pub(super) last_run: LastRun,
}

/// When the last run of a record was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LastRun {
    /// Nobody can tell: the system names no boots, or there was no run.
    #[default]
    Unknown,
    /// Since the machine was started: its memory has every write, the disk may not.
    ThisBoot,
    /// Before that: what can be read is on the disk.
    EarlierBoot,
}

/// An open record; the one writer of its file (the part folder's lock sees to that).
#[derive(Debug)]
pub(super) struct Record {
    file: File,
    salt: Digest,
    /// Where the next entry goes. Moves only when an entry is written whole: after a failed write the next one covers the
    /// torn bytes.
    offset: u64,
}

impl Record {
    /// Reads the record in `file` and makes it ready for appending. Whatever is unreadable counts as not recorded: an empty,
    /// foreign or damaged file becomes an empty record.
    ///
    /// # Errors
    /// Only those of the file calls themselves.
    pub(super) fn open(
        mut file: File,
        share: &ShareId,
        geometry: &Geometry,
        boot: &[u8; 16],
    ) -> io::Result<(Self, Replay)> {
        let salt = *share.digest();
        let mut bytes = Vec::new();
        disk::look(|| file.read_to_end(&mut bytes))?;
        let mut header = [0; HEADER_LEN];
        header[..MAGIC.len()].copy_from_slice(MAGIC);
        header[MAGIC.len()..].copy_from_slice(salt.as_bytes());
        if bytes.get(..HEADER_LEN) != Some(header.as_slice()) {
            disk::set_len(&file, 0)?;
            // On the disk too: see below.
            if !bytes.is_empty() {
                disk::sync_data(&file)?;
            }
            disk::write_all_at(&file, &header, 0)?;
            return Ok((
                Self {
                    file,
                    salt,
                    offset: HEADER_LEN as u64,
                },
                Replay::default(),
            ));
        }
        let (replay, end) = replay(&bytes, &salt, geometry, boot);
        // Bytes behind the torn entry could be whole entries of before a power loss; they must not come back to life behind
        // what is appended now, also not by another power loss.
        if end < bytes.len() {
            disk::set_len(&file, end as u64)?;
            disk::sync_data(&file)?;
        }
        Ok((
            Self {
                file,
                salt,
                offset: end as u64,
            },
            replay,
        ))
    }

    /// Appends `entry` with one write. When it fails the record is as before.
    pub(super) fn append(&mut self, entry: Entry) -> io::Result<()> {
        self.append_all(&[entry])
    }

    /// Appends all of `entries` with one write. When it fails the record is as before; a process killed in the middle of it
    /// leaves the first of them.
    pub(super) fn append_all(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(entries.len() * (ENTRY_LEN_MAX + CHECK_LEN));
        for entry in entries {
            let begin = bytes.len();
            entry.put(&mut bytes);
            let check = check_of(&self.salt, self.offset + begin as u64, &bytes[begin..]);
            bytes.extend_from_slice(&check);
        }
        if let Err(error) = disk::write_all_at(&self.file, &bytes, self.offset) {
            if entries.len() > 1 {
                // Whole entries may have been written: none must come to life behind the next one.
                let _ = disk::set_len(&self.file, self.offset);
            }
            return Err(error);
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Forgets everything, also on a disk without room for one more entry.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        disk::set_len(&self.file, HEADER_LEN as u64)?;
        self.offset = HEADER_LEN as u64;
        // What was cut must not come back behind what is appended now: see `open`.
        disk::sync_data(&self.file)
    }

    /// Where the next entry will begin.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Another handle of the same file, for syncing it without holding up the appends.
    pub(super) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

impl Entry {
    fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Held(piece) => put_u32(out, 1, piece.get()),
            Self::Dropped(piece) => put_u32(out, 2, piece.get()),
            Self::Published(file, signature) => {
                put_u32(out, 3, file.get());
                out.extend_from_slice(&signature.len.to_le_bytes());
                out.extend_from_slice(&signature.mtime_ns.to_le_bytes());
                out.extend_from_slice(&signature.ctime_ns.to_le_bytes());
                out.extend_from_slice(&signature.inode.to_le_bytes());
            }
            Self::Lost(file) => put_u32(out, 4, file.get()),
            Self::Adopted(file) => put_u32(out, 7, file.get()),
            Self::Boot(id) => {
                out.push(5);
                out.extend_from_slice(&id);
            }
            Self::Synced(offset) => {
                out.push(6);
                out.extend_from_slice(&offset.to_le_bytes());
            }
        }
    }
}

fn put_u32(out: &mut Vec<u8>, kind: u8, value: u32) {
    out.push(kind);
    out.extend_from_slice(&value.to_le_bytes());
}

fn check_of(salt: &Digest, offset: u64, entry: &[u8]) -> [u8; CHECK_LEN] {
    // One buffer on the stack: a record of a large share has millions of entries.
    let mut input = [0; 32 + 8 + ENTRY_LEN_MAX];
    input[..32].copy_from_slice(salt.as_bytes());
    input[32..40].copy_from_slice(&offset.to_le_bytes());
    input[40..40 + entry.len()].copy_from_slice(entry);
    let digest = Digest::of(&input[..40 + entry.len()]);
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&digest.as_bytes()[..CHECK_LEN]);
    check
}

/// A raw entry: kind and body, not yet checked against the share.
enum Raw {
    Piece { held: bool, index: u32 },
    Published { index: u32, signature: Signature },
    Lost { index: u32 },
    Adopted { index: u32 },
    Boot([u8; 16]),
    Synced(u64),
}

/// Reads entries until the bytes end or stop making sense; the second value is where.
pub(super) fn replay(
    bytes: &[u8],
    salt: &Digest,
    geometry: &Geometry,
    boot: &[u8; 16],
) -> (Replay, usize) {
    let mut state = Replay::default();
    // Offset of the entry behind each doubtful thing, for `Synced`.
    let mut pieces: BTreeMap<PieceIndex, u64> = BTreeMap::new();
    let mut files: BTreeMap<FileIndex, u64> = BTreeMap::new();
    let mut last_boot = None;
    let mut at = HEADER_LEN;
    while let Some((raw, len)) = read_entry(&bytes[at..], salt, at as u64) {
        let offset = at as u64;
        at += len;
        match raw {
            Raw::Piece { held, index } => {
                let Some(piece) = geometry.piece(index) else {
                    continue;
                };
                if held {
                    state.held.insert(piece);
                    state.dropped.remove(&piece);
                    pieces.insert(piece, offset);
                } else {
                    state.held.remove(&piece);
                    state.dropped.insert(piece);
                    pieces.remove(&piece);
                }
            }
            Raw::Published { index, signature } => {
                let Some(file) = file_at(geometry, index) else {
                    continue;
                };
                forget_pieces(geometry, file, &mut state, &mut pieces);
                state.published.insert(file, signature);
                files.insert(file, offset);
            }
            Raw::Lost { index } => {
                let Some(file) = file_at(geometry, index) else {
                    continue;
                };
                forget_pieces(geometry, file, &mut state, &mut pieces);
                state.published.remove(&file);
                state.adopted.remove(&file);
                files.remove(&file);
            }
            Raw::Adopted { index } => state.adopted.extend(file_at(geometry, index)),
            Raw::Boot(id) => last_boot = Some(id),
            Raw::Synced(upto) => {
                pieces.retain(|_, written| *written >= upto);
                files.retain(|_, written| *written >= upto);
            }
        }
    }
    state.last_run = match last_boot {
        None | Some(os::BOOT_UNKNOWN) => LastRun::Unknown,
        Some(_) if *boot == os::BOOT_UNKNOWN => LastRun::Unknown,
        Some(last) if last == *boot => LastRun::ThisBoot,
        Some(_) => LastRun::EarlierBoot,
    };
    if state.last_run != LastRun::EarlierBoot {
        let of_files = files.keys().flat_map(|file| geometry.file_pieces(*file));
        let of_files = of_files.filter_map(|index| geometry.piece(index));
        state.unsynced = pieces.keys().copied().chain(of_files).collect();
    }
    if state.last_run != LastRun::ThisBoot {
        state.doubtful_pieces = pieces.into_keys().collect();
        state.doubtful_files = files.into_keys().collect();
    }
    (state, at)
}

fn forget_pieces(
    geometry: &Geometry,
    file: FileIndex,
    state: &mut Replay,
    written: &mut BTreeMap<PieceIndex, u64>,
) {
    for piece in geometry
        .file_pieces(file)
        .filter_map(|index| geometry.piece(index))
    {
        state.held.remove(&piece);
        state.dropped.remove(&piece);
        written.remove(&piece);
    }
}

fn file_at(geometry: &Geometry, index: u32) -> Option<FileIndex> {
    (index < geometry.file_count()).then(|| FileIndex::new(index))
}

/// The entry at the front of `bytes` and its length with checksum; `None` when it is torn or wrong.
fn read_entry(bytes: &[u8], salt: &Digest, offset: u64) -> Option<(Raw, usize)> {
    let body_len = match bytes.first()? {
        1 | 2 | 4 | 7 => 4,
        3 => ENTRY_LEN_MAX - 1,
        5 => 16,
        6 => 8,
        _ => return None,
    };
    let entry = bytes.get(..1 + body_len)?;
    let check = bytes.get(1 + body_len..1 + body_len + CHECK_LEN)?;
    if check_of(salt, offset, entry) != check {
        return None;
    }
    let body = &entry[1..];
    let raw = match entry[0] {
        kind @ (1 | 2) => Raw::Piece {
            held: kind == 1,
            index: u32::from_le_bytes(array(body, 0)?),
        },
        3 => Raw::Published {
            index: u32::from_le_bytes(array(body, 0)?),
            signature: Signature {
                len: u64::from_le_bytes(array(body, 4)?),
                mtime_ns: i128::from_le_bytes(array(body, 12)?),
                ctime_ns: i128::from_le_bytes(array(body, 28)?),
                inode: u64::from_le_bytes(array(body, 44)?),
            },
        },
        4 => Raw::Lost {
            index: u32::from_le_bytes(array(body, 0)?),
        },
        5 => Raw::Boot(array(body, 0)?),
        7 => Raw::Adopted {
            index: u32::from_le_bytes(array(body, 0)?),
        },
        _ => Raw::Synced(u64::from_le_bytes(array(body, 0)?)),
    };
    Some((raw, 1 + body_len + CHECK_LEN))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::Path;

    const BOOT: [u8; 16] = [1; 16];
    const NEXT_BOOT: [u8; 16] = [2; 16];

    fn share() -> ShareId {
        ShareId::from_digest(Digest::of(b"some share"))
    }

    /// Three files: 4 pieces, 1 piece, 3 pieces.
    fn geometry() -> Geometry {
        Geometry::new(16 * 1024, &[60_000, 5, 40_000]).unwrap()
    }

    fn open(path: &Path, boot: &[u8; 16]) -> (Record, Replay) {
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .unwrap();
        Record::open(file, &share(), &geometry(), boot).unwrap()
    }

    fn signature(inode: u64) -> Signature {
        Signature {
            len: 40_000,
            mtime_ns: -5,
            ctime_ns: i128::MAX,
            inode,
        }
    }

    fn held(replay: &Replay) -> Vec<u32> {
        replay.held.iter().map(|piece| piece.get()).collect()
    }

    const P: fn(u32) -> PieceIndex = PieceIndex::new;
    const F: fn(u32) -> FileIndex = FileIndex::new;

    fn story() -> Vec<Entry> {
        vec![
            Entry::Boot(BOOT),
            Entry::Held(P(0)),
            Entry::Held(P(3)),
            Entry::Published(F(1), signature(7)),
            Entry::Held(P(5)),
            Entry::Held(P(6)),
            Entry::Held(P(7)),
            Entry::Published(F(2), signature(8)),
            Entry::Held(P(1)),
        ]
    }

    #[test]
    fn what_was_appended_is_replayed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let (mut record, replay) = open(&path, &BOOT);
        assert!(replay.held.is_empty() && replay.last_run == LastRun::Unknown);
        for entry in story() {
            record.append(entry).unwrap();
        }
        let (mut record, replay) = open(&path, &BOOT);
        assert_eq!(held(&replay), [0, 1, 3]);
        let published = BTreeMap::from([(F(1), signature(7)), (F(2), signature(8))]);
        assert_eq!(replay.published, published);
        assert!(replay.doubtful_pieces.is_empty() && replay.doubtful_files.is_empty());
        record.append(Entry::Lost(F(2))).unwrap();
        record.append(Entry::Dropped(P(3))).unwrap();
        record.append(Entry::Held(P(6))).unwrap();
        let (_, replay) = open(&path, &BOOT);
        assert_eq!(held(&replay), [0, 1, 6]);
        assert_eq!(replay.published.keys().copied().collect::<Vec<_>>(), [F(1)]);
    }

    #[test]
    fn a_record_cut_at_any_byte_holds_a_subset_and_takes_new_entries() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let (mut record, _) = open(&path, &BOOT);
        // Pieces only: here a longer record always holds more.
        let pieces = [4_u32, 0, 7, 2, 1, 6, 3];
        for piece in pieces {
            record.append(Entry::Held(P(piece))).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        for len in 0..=whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let (mut record, replay) = open(&path, &BOOT);
            let count = len.saturating_sub(HEADER_LEN) / (5 + CHECK_LEN);
            let mut expected = pieces[..count].to_vec();
            expected.sort_unstable();
            assert_eq!(held(&replay), expected, "cut at {len}");
            record.append(Entry::Held(P(5))).unwrap();
            expected.push(5);
            expected.sort_unstable();
            assert_eq!(
                held(&open(&path, &BOOT).1),
                expected,
                "appended after a cut at {len}"
            );
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_record_there_and_nothing_behind_it_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let (mut record, _) = open(&path, &BOOT);
        for piece in 0..8 {
            record.append(Entry::Held(P(piece))).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, bytes).unwrap();
            let (mut record, replay) = open(&path, &BOOT);
            let count = at.saturating_sub(HEADER_LEN) / (5 + CHECK_LEN);
            assert_eq!(
                replay.held.len(),
                if at < HEADER_LEN { 0 } else { count },
                "byte {at}"
            );
            record.append(Entry::Dropped(P(0))).unwrap();
            let later = open(&path, &BOOT).1;
            assert!(later.held.len() <= replay.held.len(), "byte {at}");
        }
    }

    #[test]
    fn a_record_of_another_share_or_version_or_of_garbage_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let (mut record, _) = open(&path, &BOOT);
        record.append(Entry::Held(P(1))).unwrap();
        let good = std::fs::read(&path).unwrap();
        let other_share = {
            let mut bytes = good.clone();
            bytes[20] ^= 1;
            bytes
        };
        let other_version = {
            let mut bytes = good.clone();
            bytes[13] = b'2';
            bytes
        };
        for bytes in [
            other_share,
            other_version,
            vec![0xff; 5000],
            b"shoal record".to_vec(),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let (mut record, replay) = open(&path, &BOOT);
            assert!(replay.held.is_empty());
            record.append(Entry::Held(P(2))).unwrap();
            assert_eq!(held(&open(&path, &BOOT).1), [2]);
        }
    }

    #[test]
    fn indexes_that_the_share_does_not_have_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let (mut record, _) = open(&path, &BOOT);
        for entry in [
            Entry::Held(P(8)),
            Entry::Published(F(3), signature(1)),
            Entry::Lost(F(u32::MAX)),
            Entry::Adopted(F(3)),
            Entry::Held(P(7)),
        ] {
            record.append(entry).unwrap();
        }
        let (_, replay) = open(&path, &BOOT);
        assert_eq!(held(&replay), [7]);
        assert!(replay.published.is_empty());
    }

    #[test]
    fn after_a_restart_of_the_machine_only_what_was_synced_is_beyond_doubt() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let (mut record, _) = open(&path, &BOOT);
        record.append(Entry::Boot(BOOT)).unwrap();
        record.append(Entry::Held(P(0))).unwrap();
        record.append(Entry::Published(F(1), signature(1))).unwrap();
        let synced = record.offset();
        // Written while the sync ran.
        record.append(Entry::Held(P(1))).unwrap();
        record.append(Entry::Synced(synced)).unwrap();
        record.append(Entry::Published(F(2), signature(2))).unwrap();
        let (_, replay) = open(&path, &BOOT);
        assert!(replay.doubtful_pieces.is_empty() && replay.doubtful_files.is_empty());
        let (mut record, replay) = open(&path, &NEXT_BOOT);
        assert_eq!(held(&replay), [0, 1]);
        assert_eq!(replay.doubtful_pieces, BTreeSet::from([P(1)]));
        assert_eq!(replay.doubtful_files, BTreeSet::from([F(2)]));
        let all = record.offset();
        record.append(Entry::Synced(all)).unwrap();
        let (_, replay) = open(&path, &NEXT_BOOT);
        assert!(replay.doubtful_pieces.is_empty() && replay.doubtful_files.is_empty());
    }

    #[test]
    fn what_is_unsynced_and_what_is_doubtful_depends_on_what_is_known_of_boots() {
        let none = os::BOOT_UNKNOWN;
        for (last, this, expected) in [
            (BOOT, BOOT, LastRun::ThisBoot),
            (BOOT, NEXT_BOOT, LastRun::EarlierBoot),
            (none, none, LastRun::Unknown),
            (BOOT, none, LastRun::Unknown),
            (none, BOOT, LastRun::Unknown),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("record");
            let (mut record, _) = open(&path, &last);
            record.append(Entry::Boot(last)).unwrap();
            record.append(Entry::Held(P(0))).unwrap();
            record.append(Entry::Synced(record.offset())).unwrap();
            record.append(Entry::Held(P(1))).unwrap();
            record.append(Entry::Published(F(2), signature(1))).unwrap();
            let (_, replay) = open(&path, &this);
            assert_eq!(replay.last_run, expected);
            let unsynced: Vec<_> = replay.unsynced.iter().map(|piece| piece.get()).collect();
            let is_unsynced = expected != LastRun::EarlierBoot;
            assert_eq!(unsynced, [1, 5, 6, 7].repeat(usize::from(is_unsynced)));
            let is_doubtful = expected != LastRun::ThisBoot;
            assert_eq!(replay.doubtful_pieces.contains(&P(1)), is_doubtful);
            assert_eq!(replay.doubtful_files.contains(&F(2)), is_doubtful);
            assert!(!replay.doubtful_pieces.contains(&P(0)));
        }
    }

    #[test]
    fn a_failed_append_leaves_the_record_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let (mut record, _) = open(&path, &BOOT);
        record.append(Entry::Held(P(0))).unwrap();
        let offset = record.offset();
        let writable = std::mem::replace(&mut record.file, File::open(&path).unwrap());
        record.append(Entry::Held(P(1))).unwrap_err();
        assert_eq!(record.offset(), offset);
        record.file = writable;
        record.append(Entry::Held(P(2))).unwrap();
        assert_eq!(held(&open(&path, &BOOT).1), [0, 2]);
    }
}
