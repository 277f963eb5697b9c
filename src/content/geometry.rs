//! `Geometry`: how files become pieces. Every file begins on a new piece, an empty file has none.
//!
//! Owns the arithmetic between pieces, files and offsets, and the rule for the piece length. Holds lengths only: no
//! names, no hashes, no bytes. Built by `manifest.rs`; asked by everybody.
//!
//! Source: BEP 52 (pieces aligned to files); limits from the protocol document.

use std::{fmt, ops::Range, sync::Arc};

use super::merkle::LEAF_LEN;

/// Shortest piece: one leaf.
pub const PIECE_LEN_MIN: u32 = LEAF_LEN;
/// Longest piece, in bytes: it is held whole in memory until it is verified.
pub const PIECE_LEN_MAX: u32 = 16 * 1024 * 1024;
/// Most pieces of a share: a bitfield of them is 512 KiB, their hashes 128 MiB.
pub const PIECE_COUNT_MAX: u32 = 1 << 22;
/// Most files of a share.
pub const FILE_COUNT_MAX: u32 = 1 << 20;

/// Pieces a small share is split into, about: enough to be fetched from many peers at once.
const PIECE_COUNT_WISHED: u64 = 4096;
/// Below this the cost of asking outweighs the gain of forwarding early.
const PIECE_LEN_DEFAULT_MIN: u32 = 64 * 1024;
/// Above this a piece takes long to arrive, and cannot be forwarded until it has.
const PIECE_LEN_DEFAULT_MAX: u32 = 1024 * 1024;
/// More pieces than this, and longer pieces are the smaller evil.
const PIECE_COUNT_COMFORTABLE: u64 = 1 << 20;

const _: () =
    assert!(PIECE_LEN_MIN <= PIECE_LEN_DEFAULT_MIN && PIECE_LEN_DEFAULT_MAX <= PIECE_LEN_MAX);
const _: () = assert!(PIECE_COUNT_COMFORTABLE <= PIECE_COUNT_MAX as u64);
const _: () = assert!(
    (PIECE_COUNT_MAX as u64)
        .checked_mul(PIECE_LEN_MAX as u64)
        .is_some()
);

/// A piece of a share, counted from 0 over all files. In range for the share it was made for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PieceIndex(u32);

impl PieceIndex {
    /// For indexes known to be in range; [`Geometry::piece`] is the gate for those that are not.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number, for indexing.
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PieceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A file of a share, counted from 0 over its files in path order; folders and symlinks do not count, empty files do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileIndex(u32);

impl FileIndex {
    /// For indexes known to be in range; [`Geometry::file`] is the gate for those that are not.
    #[must_use]
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number, for indexing.
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for FileIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Where the bytes of a piece are: always within one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PieceSpan {
    /// The file.
    pub file: FileIndex,
    /// First byte within the file; a multiple of the piece length.
    pub offset: u64,
    /// Bytes, 1 up to the piece length.
    pub len: u32,
}

/// Why lengths do not make a share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GeometryError {
    /// Not a power of two from 16 KiB to 16 MiB.
    #[error(
        "piece length {piece_len} is not a power of two from {PIECE_LEN_MIN} to {PIECE_LEN_MAX}"
    )]
    PieceLen {
        /// The length, in bytes.
        piece_len: u32,
    },
    /// More than 2^20 files.
    #[error("{count} files where at most {FILE_COUNT_MAX} are allowed")]
    TooManyFiles {
        /// The number of files.
        count: usize,
    },
    /// More than 2^22 pieces.
    #[error("{count} pieces where at most {PIECE_COUNT_MAX} are allowed")]
    TooManyPieces {
        /// The number of pieces, or the largest number when that is larger still.
        count: u64,
    },
}

/// The layout of a share's bytes in pieces. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Geometry {
    piece_len: u32,
    total_len: u64,
    file_lens: Arc<[u64]>,
    /// First piece of each file, and the piece count at the end; an empty file has its successor's.
    first_pieces: Arc<[u32]>,
}

impl Geometry {
    /// Splits files of `file_lens` bytes, in path order, into pieces of `piece_len` bytes.
    ///
    /// # Errors
    /// When a limit of [`GeometryError`] is exceeded.
    pub fn new(piece_len: u32, file_lens: &[u64]) -> Result<Self, GeometryError> {
        if !piece_len.is_power_of_two() || !(PIECE_LEN_MIN..=PIECE_LEN_MAX).contains(&piece_len) {
            return Err(GeometryError::PieceLen { piece_len });
        }
        if file_lens.len() > FILE_COUNT_MAX as usize {
            return Err(GeometryError::TooManyFiles {
                count: file_lens.len(),
            });
        }
        let count = piece_count(file_lens, piece_len);
        if count > u64::from(PIECE_COUNT_MAX) {
            return Err(GeometryError::TooManyPieces { count });
        }
        let mut first_pieces = Vec::with_capacity(file_lens.len() + 1);
        let mut next = 0;
        for len in file_lens {
            first_pieces.push(next);
            next += len.div_ceil(u64::from(piece_len)) as u32;
        }
        first_pieces.push(next);
        Ok(Self {
            piece_len,
            // So many pieces of so many bytes fit 64 bits.
            total_len: file_lens.iter().sum(),
            file_lens: file_lens.into(),
            first_pieces: first_pieces.into(),
        })
    }

    /// Bytes of every piece but the last of a file.
    #[must_use]
    pub fn piece_len(&self) -> u32 {
        self.piece_len
    }

    /// Pieces of the share; 0 when it has no bytes.
    #[must_use]
    pub fn piece_count(&self) -> u32 {
        self.first_pieces[self.file_lens.len()]
    }

    /// Files of the share, empty ones included.
    #[must_use]
    pub fn file_count(&self) -> u32 {
        self.file_lens.len() as u32
    }

    /// Bytes of all files.
    #[must_use]
    pub fn total_len(&self) -> u64 {
        self.total_len
    }

    /// The piece of this number, when there is one: the gate for numbers from outside.
    #[must_use]
    pub fn piece(&self, index: u32) -> Option<PieceIndex> {
        (index < self.piece_count()).then_some(PieceIndex(index))
    }

    /// The file of this number, when there is one: the gate for numbers from outside.
    #[must_use]
    pub fn file(&self, index: u32) -> Option<FileIndex> {
        (index < self.file_count()).then_some(FileIndex(index))
    }

    /// All pieces, in order.
    pub fn pieces(&self) -> impl Iterator<Item = PieceIndex> + use<> {
        (0..self.piece_count()).map(PieceIndex)
    }

    /// Where the bytes of `piece` are.
    ///
    /// # Panics
    /// When `piece` is of another share and out of range.
    #[must_use]
    pub fn locate(&self, piece: PieceIndex) -> PieceSpan {
        assert!(
            piece.0 < self.piece_count(),
            "piece {piece} of {}",
            self.piece_count()
        );
        // Of several files with the same first piece, all but the last are empty.
        let file = self.first_pieces.partition_point(|first| *first <= piece.0) - 1;
        let offset = u64::from(piece.0 - self.first_pieces[file]) * u64::from(self.piece_len);
        let len = (self.file_lens[file] - offset).min(u64::from(self.piece_len)) as u32;
        PieceSpan {
            file: FileIndex(file as u32),
            offset,
            len,
        }
    }

    /// Bytes of `piece`: 1 up to the piece length.
    ///
    /// # Panics
    /// As [`locate`](Self::locate).
    #[must_use]
    pub fn len_of(&self, piece: PieceIndex) -> u32 {
        self.locate(piece).len
    }

    /// Leaves of the subtree whose root is the hash of `piece`, a power of two.
    ///
    /// In a file longer than a piece, those of a whole piece; else those of the file's own tree.
    ///
    /// # Panics
    /// As [`locate`](Self::locate).
    ///
    /// Source: BEP 52, files of at most one piece have no layer.
    #[must_use]
    pub fn width_of(&self, piece: PieceIndex) -> u32 {
        let span = self.locate(piece);
        if self.file_len(span.file) > u64::from(self.piece_len) {
            self.piece_width()
        } else {
            span.len.div_ceil(LEAF_LEN).next_power_of_two()
        }
    }

    /// Leaves under a whole piece.
    #[must_use]
    pub fn piece_width(&self) -> u32 {
        self.piece_len / LEAF_LEN
    }

    /// Bytes of `file`.
    ///
    /// # Panics
    /// When `file` is of another share and out of range.
    #[must_use]
    pub fn file_len(&self, file: FileIndex) -> u64 {
        self.file_lens[file.as_usize()]
    }

    /// The numbers of the pieces of `file`; empty for an empty file.
    ///
    /// # Panics
    /// When `file` is of another share and out of range.
    #[must_use]
    pub fn file_pieces(&self, file: FileIndex) -> Range<u32> {
        self.first_pieces[file.as_usize()]..self.first_pieces[file.as_usize() + 1]
    }
}

/// The piece length for files of these lengths, in bytes.
///
/// The smallest power of two that makes about 4,096 pieces, from 64 KiB to 1 MiB; beyond, up to 16 MiB, only while
/// there would be more than 2^20 pieces. A pure function of the lengths, so that equal trees make equal shares.
#[must_use]
pub fn piece_len_for(file_lens: &[u64]) -> u32 {
    let total = file_lens
        .iter()
        .fold(0_u64, |total, len| total.saturating_add(*len));
    let wished = total.div_ceil(PIECE_COUNT_WISHED).clamp(
        u64::from(PIECE_LEN_DEFAULT_MIN),
        u64::from(PIECE_LEN_DEFAULT_MAX),
    );
    let mut piece_len = (wished as u32).next_power_of_two();
    while piece_len < PIECE_LEN_MAX && piece_count(file_lens, piece_len) > PIECE_COUNT_COMFORTABLE {
        piece_len *= 2;
    }
    piece_len
}

fn piece_count(file_lens: &[u64], piece_len: u32) -> u64 {
    let counts = file_lens
        .iter()
        .map(|len| len.div_ceil(u64::from(piece_len)));
    counts.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Numbers, *};

    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    const TIB: u64 = MIB * MIB;

    #[test]
    fn pieces_cover_every_byte_of_every_file_once_and_in_order() {
        let mut numbers = Numbers::seeded(5);
        for _ in 0..200 {
            let piece_len = PIECE_LEN_MIN << numbers.below(4);
            let file_lens: Vec<u64> = (0..numbers.below(12))
                .map(|_| match numbers.below(4) {
                    0 => 0,
                    1 => u64::from(numbers.below(piece_len)),
                    2 => u64::from(piece_len) * u64::from(numbers.below(4)),
                    _ => u64::from(numbers.below(piece_len * 5)),
                })
                .collect();
            let geometry = Geometry::new(piece_len, &file_lens).unwrap();

            let mut pieces = geometry.pieces();
            for (index, len) in (0..).zip(&file_lens) {
                let file = geometry.file(index).unwrap();
                assert_eq!(geometry.file_len(file), *len);
                let mut offset = 0;
                while offset < *len {
                    let piece = pieces.next().unwrap();
                    let span_len = (len - offset).min(u64::from(piece_len)) as u32;
                    let span = PieceSpan {
                        file,
                        offset,
                        len: span_len,
                    };
                    assert_eq!(geometry.locate(piece), span);
                    assert_eq!(geometry.len_of(piece), span_len);
                    assert!(geometry.file_pieces(file).contains(&piece.get()));
                    offset += u64::from(span_len);
                }
                let count = len.div_ceil(u64::from(piece_len)) as usize;
                assert_eq!(geometry.file_pieces(file).len(), count);
            }
            assert_eq!(pieces.next(), None);
            assert_eq!(geometry.total_len(), file_lens.iter().sum::<u64>());
            assert_eq!(geometry.piece(geometry.piece_count()), None);
            assert_eq!(geometry.file(geometry.file_count()), None);
        }
    }

    #[test]
    fn a_file_longer_than_a_piece_has_whole_subtrees_and_others_just_enough_leaves() {
        let leaf = u64::from(LEAF_LEN);
        let cases: [(u64, &[u32]); 8] = [
            (1, &[1]),
            (leaf, &[1]),
            (leaf + 1, &[2]),
            (2 * leaf + 1, &[4]),
            (4 * leaf, &[4]),
            (4 * leaf + 1, &[4, 4]),
            (8 * leaf, &[4, 4]),
            (9 * leaf, &[4, 4, 4]),
        ];
        for (len, widths) in cases {
            let geometry = Geometry::new(4 * LEAF_LEN, &[len]).unwrap();
            let found: Vec<u32> = geometry
                .pieces()
                .map(|piece| geometry.width_of(piece))
                .collect();
            assert_eq!(found, widths, "{len} bytes");
        }
    }

    #[test]
    fn the_piece_length_follows_the_total_length() {
        let cases = [
            (0, 64 * KIB),
            (1, 64 * KIB),
            (256 * MIB, 64 * KIB),
            (256 * MIB + 1, 128 * KIB),
            (512 * MIB, 128 * KIB),
            (1024 * MIB, 256 * KIB),
            (1024 * MIB + 1, 512 * KIB),
            (4096 * MIB, MIB),
            (4096 * MIB + 1, MIB),
            (TIB, MIB),
            (TIB + 1, 2 * MIB),
            (2 * TIB + 1, 4 * MIB),
            (16 * TIB, 16 * MIB),
            (64 * TIB, 16 * MIB),
            (u64::MAX, 16 * MIB),
        ];
        for (total, piece_len) in cases {
            assert_eq!(
                u64::from(piece_len_for(&[total])),
                piece_len,
                "{total} bytes"
            );
        }
        assert_eq!(u64::from(piece_len_for(&[512 * MIB; 8])), MIB);
        assert_eq!(u64::from(piece_len_for(&[u64::MAX; 3])), 16 * MIB);
    }

    #[test]
    fn limits_are_refused_beyond_and_kept_within() {
        for piece_len in [
            0,
            1,
            LEAF_LEN - 1,
            LEAF_LEN / 2,
            3 * LEAF_LEN,
            PIECE_LEN_MAX * 2,
            u32::MAX,
        ] {
            let error = Err(GeometryError::PieceLen { piece_len });
            assert_eq!(Geometry::new(piece_len, &[1]), error);
        }
        let many = vec![0; FILE_COUNT_MAX as usize + 1];
        let error = Err(GeometryError::TooManyFiles { count: many.len() });
        assert_eq!(Geometry::new(PIECE_LEN_MIN, &many), error);
        assert!(Geometry::new(PIECE_LEN_MIN, &many[1..]).is_ok());

        let most = u64::from(PIECE_COUNT_MAX) * u64::from(PIECE_LEN_MIN);
        assert!(Geometry::new(PIECE_LEN_MIN, &[most]).is_ok());
        let error = Err(GeometryError::TooManyPieces {
            count: u64::from(PIECE_COUNT_MAX) + 1,
        });
        assert_eq!(Geometry::new(PIECE_LEN_MIN, &[most, 1]), error);
        assert!(Geometry::new(PIECE_LEN_MAX, &[u64::MAX, u64::MAX]).is_err());
    }

    #[test]
    fn a_share_without_bytes_has_no_piece() {
        for file_lens in [&[][..], &[0], &[0, 0, 0]] {
            let geometry = Geometry::new(PIECE_LEN_MIN, file_lens).unwrap();
            assert_eq!((geometry.piece_count(), geometry.total_len()), (0, 0));
            assert_eq!(geometry.piece(0), None);
        }
    }
}
