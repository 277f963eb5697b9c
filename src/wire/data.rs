//! The header before each slice of bytes on the data stream.
//!
//! Sixteen bytes at fixed places; exactly `len` raw bytes follow and are read straight into the buffer
//! of their piece. Slices of one piece follow each other in order; a slice of something else means that
//! the piece before was cut short. Called by the data reader and writer of `node/session`.
//! Source: `PROTOCOL.md`, "Data stream".

use super::ShareNumber;

/// Length of an encoded [`DataHeader`] in bytes.
pub const DATA_HEADER_LEN: usize = 16;

/// Most raw bytes behind one header. More would make a cancel slower, less costs more headers.
pub const SLICE_LEN_MAX: u32 = 256 * 1024;

/// What the bytes behind a header belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKind {
    /// Bytes of a piece.
    Piece {
        /// Which piece.
        piece: u32,
        /// Where in the piece these bytes begin.
        offset: u32,
    },
    /// Bytes of the encoded manifest.
    Manifest {
        /// Length of the whole encoded manifest in bytes.
        total: u32,
        /// Where in it these bytes begin.
        offset: u32,
    },
    /// Bytes of the encoded share info.
    Info {
        /// Length of the whole encoded info in bytes.
        total: u32,
        /// Where in it these bytes begin.
        offset: u32,
    },
    /// A whole answer to `GetHashes`: the hashes of the range, then its proof, 32 bytes each.
    Hashes {
        /// Index among the files of the manifest.
        file: u32,
        /// First piece of the range, counted in the file.
        first: u32,
    },
}

/// One slice: to which share and thing it belongs, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// The sender's number of the share.
    pub share: ShareNumber,
    /// What follows.
    pub kind: DataKind,
    /// Raw bytes behind this header: 1 ..= [`SLICE_LEN_MAX`], for hashes up to 2 KiB more for the proof.
    pub len: u32,
}

/// A data stream that does not follow the protocol: the remote's fault, it ends the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The first byte names no kind.
    #[error("data of unknown kind {0}")]
    Kind(u8),
    /// The reserved byte is not zero.
    #[error("reserved byte of a data header is {0}")]
    Reserved(u8),
    /// The length is zero or beyond the ceiling.
    #[error("slice of {0} bytes")]
    Length(u32),
}

const PIECE: u8 = 1;
const MANIFEST: u8 = 2;
const HASHES: u8 = 3;
const INFO: u8 = 4;

/// A proof has at most one hash for each level of a tree over 2^32 leaves.
const PROOF_LEN_MAX: u32 = 32 * 32;

impl DataHeader {
    /// The header as it travels.
    pub fn encode(&self) -> [u8; DATA_HEADER_LEN] {
        let (kind, a, b) = match self.kind {
            DataKind::Piece { piece, offset } => (PIECE, piece, offset),
            DataKind::Manifest { total, offset } => (MANIFEST, total, offset),
            DataKind::Hashes { file, first } => (HASHES, file, first),
            DataKind::Info { total, offset } => (INFO, total, offset),
        };
        let mut out = [0; DATA_HEADER_LEN];
        out[0] = kind;
        out[2..4].copy_from_slice(&self.share.0.to_be_bytes());
        out[4..8].copy_from_slice(&a.to_be_bytes());
        out[8..12].copy_from_slice(&b.to_be_bytes());
        out[12..16].copy_from_slice(&self.len.to_be_bytes());
        out
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`HeaderError`] when kind, reserved byte or length are not allowed.
    pub fn decode(bytes: &[u8; DATA_HEADER_LEN]) -> Result<Self, HeaderError> {
        let [
            kind,
            reserved,
            s0,
            s1,
            a0,
            a1,
            a2,
            a3,
            b0,
            b1,
            b2,
            b3,
            l0,
            l1,
            l2,
            l3,
        ] = *bytes;
        let a = u32::from_be_bytes([a0, a1, a2, a3]);
        let b = u32::from_be_bytes([b0, b1, b2, b3]);
        let len = u32::from_be_bytes([l0, l1, l2, l3]);
        if reserved != 0 {
            return Err(HeaderError::Reserved(reserved));
        }
        let (kind, len_max) = match kind {
            PIECE => (
                DataKind::Piece {
                    piece: a,
                    offset: b,
                },
                SLICE_LEN_MAX,
            ),
            MANIFEST => (
                DataKind::Manifest {
                    total: a,
                    offset: b,
                },
                SLICE_LEN_MAX,
            ),
            INFO => (
                DataKind::Info {
                    total: a,
                    offset: b,
                },
                SLICE_LEN_MAX,
            ),
            HASHES => (
                DataKind::Hashes { file: a, first: b },
                SLICE_LEN_MAX + PROOF_LEN_MAX,
            ),
            other => return Err(HeaderError::Kind(other)),
        };
        if len == 0 || len > len_max {
            return Err(HeaderError::Length(len));
        }
        Ok(Self {
            share: ShareNumber(u16::from_be_bytes([s0, s1])),
            kind,
            len,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_round_trip() {
        for kind in [
            DataKind::Piece {
                piece: 0x0102_0304,
                offset: 0x0506_0708,
            },
            DataKind::Manifest {
                total: 9,
                offset: 3,
            },
            DataKind::Hashes {
                file: 4,
                first: 8_192,
            },
            DataKind::Info {
                total: 11,
                offset: 4,
            },
        ] {
            let header = DataHeader {
                share: ShareNumber(0x0a0b),
                kind,
                len: 77,
            };
            assert_eq!(DataHeader::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn the_bytes_of_a_header_are_these() {
        let kind = DataKind::Piece {
            piece: 0x0102_0304,
            offset: 0x0004_0000,
        };
        let header = DataHeader {
            share: ShareNumber(5),
            kind,
            len: SLICE_LEN_MAX,
        };
        let expected = [
            1, 0, // kind: piece; reserved
            0, 5, // share number
            1, 2, 3, 4, // piece
            0, 4, 0, 0, // offset in the piece
            0, 4, 0, 0, // length of the slice
        ];
        assert_eq!(header.encode(), expected);
    }

    #[test]
    fn what_is_not_allowed_is_refused() {
        let good = DataHeader {
            share: ShareNumber(0),
            kind: DataKind::Piece {
                piece: 1,
                offset: 2,
            },
            len: 3,
        }
        .encode();
        let with = |at: usize, value: [u8; 4]| {
            let mut bytes = good;
            bytes[at..at + 4].copy_from_slice(&value);
            DataHeader::decode(&bytes)
        };
        assert_eq!(with(0, [9, 0, 0, 0]), Err(HeaderError::Kind(9)));
        assert_eq!(with(0, [1, 1, 0, 0]), Err(HeaderError::Reserved(1)));
        assert_eq!(with(12, [0; 4]), Err(HeaderError::Length(0)));
        assert_eq!(
            with(12, (SLICE_LEN_MAX + 1).to_be_bytes()),
            Err(HeaderError::Length(SLICE_LEN_MAX + 1))
        );
    }
}
