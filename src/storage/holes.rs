//! Holes of sparse files: found without reading them when a file is read, and left when one is written.
//!
//! Decides nothing about pieces. A file system that cannot tell its holes calls everything data, and is read. Called by
//! `hashing` and `fetch`.
//! Source: lseek(2), `SEEK_DATA`.

use std::fs::File;
use std::io;
use std::ops::Range;

use super::disk;
use super::os;

/// Bytes that are left out together, at a multiple of as many: what nearly all file systems give space in.
const BLOCK_LEN: usize = 4096;

static ZERO_BLOCK: [u8; BLOCK_LEN] = [0; BLOCK_LEN];

/// An open file that is asked where its holes are, from front to back. Moves the file's own position.
#[derive(Debug)]
pub(super) struct Holes {
    /// Has more bytes than it takes space on the disk: another file is not asked.
    is_sparse: bool,
    /// The last hole found, as far as it was looked at.
    hole: Range<u64>,
}

impl Holes {
    /// What there is to know before anything is asked.
    pub(super) fn of(file: &File) -> Self {
        // Who cannot tell is read.
        let is_sparse = os::stat_file(file).is_ok_and(|stat| stat.allocated < stat.signature.len);
        Self {
            is_sparse,
            hole: 0..0,
        }
    }

    /// Whether all of `range`, within the length of the file, lies in a hole.
    pub(super) fn cover(&mut self, file: &File, range: &Range<u64>) -> bool {
        if !self.is_sparse {
            return false;
        }
        let known = &self.hole;
        if known.start > range.start || known.end <= range.start {
            match os::data_from(file, range.start) {
                Ok(data) => self.hole = range.start..data,
                Err(error) => {
                    tracing::debug!(%error, "holes cannot be told: everything is read");
                    self.is_sparse = false;
                    return false;
                }
            }
        }
        range.end <= self.hole.end
    }
}

/// Writes `bytes` at `offset`, a multiple of the block length, where the file reads as zeros or as these bytes already, and
/// leaves out blocks of zeros. A last block that is left out does not make the file longer.
pub(super) fn write_around(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let (mut rest, mut offset) = (bytes, offset);
    while !rest.is_empty() {
        let zeros = len_while(rest, is_zeros);
        let data = len_while(&rest[zeros..], |block| !is_zeros(block));
        let run = &rest[zeros..zeros + data];
        disk::write_all_at(file, run, offset + zeros as u64)?;
        rest = &rest[zeros + data..];
        offset += (zeros + data) as u64;
    }
    Ok(())
}

/// Bytes of the first blocks that are `wanted`.
fn len_while(bytes: &[u8], wanted: impl Fn(&[u8]) -> bool) -> usize {
    let blocks = bytes.chunks(BLOCK_LEN);
    blocks
        .take_while(|block| wanted(block))
        .map(<[u8]>::len)
        .sum()
}

fn is_zeros(block: &[u8]) -> bool {
    *block == ZERO_BLOCK[..block.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A file of 3 MiB with a MiB of data in the middle.
    fn sparse() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * MIB).unwrap();
        file.write_all_at(&vec![1; MIB as usize], MIB).unwrap();
        file
    }

    #[test]
    fn holes_are_told_from_data_and_from_what_is_not_there() {
        let file = sparse();
        let cases = [
            (0..MIB, true),
            (0..MIB + 1, false),
            (MIB / 2..MIB, true),
            (MIB..MIB + 4096, false),
            (MIB..3 * MIB, false),
            (2 * MIB..3 * MIB, true),
            (3 * MIB - 1..3 * MIB, true),
            (0..4096, true),
            (2 * MIB..3 * MIB + 1, false),
            (4 * MIB..5 * MIB, false),
        ];
        let mut holes = Holes::of(&file);
        for (range, expected) in &cases {
            assert_eq!(holes.cover(&file, range), *expected, "{range:?}");
            let mut fresh = Holes::of(&file);
            assert_eq!(fresh.cover(&file, range), *expected, "{range:?} first");
        }
    }

    #[test]
    fn zeros_that_take_space_are_data() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![0; MIB as usize], 0).unwrap();
        assert!(!Holes::of(&file).cover(&file, &(0..MIB)));
    }

    #[test]
    fn blocks_of_zeros_are_left_out_and_nothing_else_is() {
        let block = BLOCK_LEN;
        let mut bytes = vec![0; 20 * block + 100];
        for (at, byte) in [
            (3 * block, 1),
            (5 * block - 1, 2),
            (6 * block + 7, 3),
            (11 * block, 4),
            (20 * block + 99, 5),
        ] {
            bytes[at] = byte;
        }
        for len in [bytes.len(), 20 * block, 12 * block, 3 * block, 1] {
            let file = tempfile::tempfile().unwrap();
            file.set_len(MIB).unwrap();
            let offset = 64 * 1024;
            write_around(&file, &bytes[..len], offset).unwrap();
            let mut found = vec![9; len];
            file.read_exact_at(&mut found, offset).unwrap();
            assert_eq!(found, bytes[..len], "{len} bytes");
            let blocks = bytes[..len].chunks(block);
            let data = blocks.filter(|block| !is_zeros(block)).count();
            let taken = file.metadata().unwrap().blocks() * 512;
            assert!(taken <= (data * block) as u64, "{len} bytes take {taken}");
        }
    }
}
