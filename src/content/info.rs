//! `ShareInfo`: what is told about a share beside its manifest: when its files were changed last.
//!
//! Hints that nobody vouches for: no part of the share's id, clamped when they are read, and never a reason to refuse
//! anything. Called by `node/` for what peers send and ask.
//!
//! Source: the protocol document, "Content".

use super::encoding::{Cursor, Encode, encode};

/// Longest encoding in bytes: 2^20 files of 10 bytes each, and change.
pub const INFO_LEN_MAX: usize = 11 * 1024 * 1024;

/// Version of the encoding; another one is not understood, which costs the hints.
const VERSION: u8 = 1;

/// Hints about a share.
#[derive(Clone, PartialEq, Eq, Debug, Encode)]
pub struct ShareInfo {
    version: u8,
    /// Last change of each file, in the order of the manifest, nanoseconds since 1970; none when nobody knows.
    modified: Vec<i64>,
}

impl ShareInfo {
    /// `modified` has one time for each file of the manifest, in nanoseconds since 1970, or is empty.
    #[must_use]
    pub fn new(modified: Vec<i64>) -> Self {
        Self {
            version: VERSION,
            modified,
        }
    }

    /// Reads what a peer sent about a share of `file_count` files. `None` when it cannot be used.
    #[must_use]
    pub fn decode(bytes: &[u8], file_count: u32) -> Option<Self> {
        let mut cursor = Cursor::new(bytes, INFO_LEN_MAX).ok()?;
        let version: u8 = cursor.take().ok()?;
        let len: u64 = cursor.take().ok()?;
        // Looked at before there is room for it: a time of one byte takes eight here.
        if version != VERSION || (len != 0 && len != u64::from(file_count)) {
            return None;
        }
        let mut modified = Vec::with_capacity((len as usize).min(cursor.remaining()));
        for _ in 0..len {
            modified.push(cursor.take().ok()?);
        }
        cursor.finish().ok()?;
        Some(Self { version, modified })
    }

    /// The bytes that travel; never none.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Last change of each file, nanoseconds since 1970, not before that; empty when nobody knows.
    pub fn modified(&self) -> impl Iterator<Item = u64> + '_ {
        self.modified
            .iter()
            .map(|at| u64::try_from(*at).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_and_are_clamped_and_the_bytes_are_these() {
        let info = ShareInfo::new(vec![-5, 0, 1_000_000_000]);
        // Version, count, then zigzag numbers; 252 says four bytes follow, little-endian.
        let expected = [1, 3, 9, 0, 252, 0x00, 0x94, 0x35, 0x77];
        assert_eq!(info.encode(), expected);
        let read = ShareInfo::decode(&expected, 3).unwrap();
        assert_eq!(read, info);
        assert!(read.modified().eq([0, 0, 1_000_000_000]));
        assert_eq!(ShareInfo::new(Vec::new()).encode(), [1, 0]);
    }

    #[test]
    fn what_cannot_be_used_is_no_error_and_no_hint() {
        let good = ShareInfo::new(vec![1, 2]).encode();
        assert!(ShareInfo::decode(&good, 2).is_some());
        assert!(ShareInfo::decode(&[1, 0], 2).is_some());
        assert!(ShareInfo::decode(&good, 3).is_none());
        for len in 0..good.len() {
            assert!(ShareInfo::decode(&good[..len], 2).is_none(), "{len}");
        }
        let mut other = good;
        other[0] = 2;
        assert!(ShareInfo::decode(&other, 2).is_none());
        assert!(ShareInfo::decode(&[1, 253, 255, 255, 255, 255, 255, 255, 255, 127], 2).is_none());
    }
}
