//! What a resume record says, as plain values: the reader of `record` without a file.
//!
//! Decides and keeps nothing. For the tests that feed it arbitrary bytes; the product reads records through `record`.

use std::collections::BTreeSet;

use super::record::{self, Replay};
use crate::content::{FileIndex, Geometry, PieceIndex, ShareId};

/// What the entries of a record come to.
#[derive(Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Pieces held in part files.
    pub held: BTreeSet<PieceIndex>,
    /// Files published.
    pub published: BTreeSet<FileIndex>,
    /// Pieces of `held` that may not have survived a restart of the machine.
    pub doubtful_pieces: BTreeSet<PieceIndex>,
    /// Files of `published` in the same position.
    pub doubtful_files: BTreeSet<FileIndex>,
    /// Bytes of entries that were read; what follows is torn or wrong.
    pub end: usize,
}

/// What `entries`, the bytes behind the header of a record of `share`, say to a machine that was started as `boot`. `measure` is
/// given the reading itself to do.
pub fn replayed(
    entries: &[u8],
    share: &ShareId,
    geometry: &Geometry,
    boot: &[u8; 16],
    measure: &dyn Fn(&mut dyn FnMut()),
) -> Replayed {
    let mut bytes = vec![0; record::HEADER_LEN];
    bytes.extend_from_slice(entries);
    let mut read = (Replay::default(), 0);
    measure(&mut || read = record::replay(&bytes, share.digest(), geometry, boot));
    let (replay, end) = read;
    Replayed {
        held: replay.held,
        published: replay.published.into_keys().collect(),
        doubtful_pieces: replay.doubtful_pieces,
        doubtful_files: replay.doubtful_files,
        end: end - record::HEADER_LEN,
    }
}
