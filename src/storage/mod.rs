//! Where bytes live: a share's files where the user keeps them, and the folder a fetch writes to.
//!
//! Owns import, positioned reads and writes over many files, opens that cannot leave the target, and resuming. Knows no
//! peers, decides nothing about pieces, and has no async: all of it blocks and is called from threads meant for that. It
//! writes only bytes that arrive as [`Verified`]. Called by `node` and by the offline verbs in `cli`.

mod beneath;
mod chosen;
mod compare;
mod disk;
mod error;
mod fetch;
mod globs;
mod hashing;
mod holes;
mod import;
mod leftovers;
mod memory;
mod naming;
mod opening;
mod os;
mod part;
mod recent;
mod record;
mod replayed;
mod reuse;
mod room;
mod scan;
mod scratch;
mod source;
mod standing;
mod state;
mod survey;
mod target;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use crate::content::{FileIndex, PieceHashes, PieceIndex, Verified};

pub use chosen::Chosen;
pub use compare::{Verdict, compare};
pub use error::{ErrorClass, StorageError, names_text, shown};
pub use fetch::FetchStore;
pub use globs::Globs;
pub use import::{ImportOptions, ImportProgress, Imported, import};
pub use leftovers::{Leftover, Leftovers, Reach, Untouched};
pub use memory::MemoryStore;
pub use part::{PartFolder, Resumable};
#[doc(hidden)] // Only for the tests that feed it what a disk may hold.
pub use replayed::{Replayed, replayed};
pub use reuse::{Reusable, Reused};
pub use scan::{SkipReason, Skipped};
pub use scratch::Scratch;
pub use source::SourceStore;
pub use state::{KnownPeer, KnownPeers, KnownShares};
pub use target::{IllegalName, IllegalReason, Target, unportable_names};

/// How a file was read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reread {
    /// To its end.
    Read {
        /// Pieces of it that match.
        intact: u32,
        /// Whether all of it could be read; what could not may be readable later.
        is_readable: bool,
    },
    /// It changed meanwhile, and is to be read again.
    ChangedAgain,
    /// It was changed just now: whether it changes again could not be told yet. Nothing was read.
    TooYoung {
        /// When that can be told.
        wait: Duration,
    },
    /// The caller asked to stop.
    Stopped,
}

/// The bytes of one share. Every method may be called from several threads at once.
pub trait PieceStore: Send + Sync {
    /// Fills `into` with the bytes of `piece`; `into` is exactly as long as the piece.
    ///
    /// The bytes are those on disk: not hashed again, but known not to come from a file that changed. Of a file that is being
    /// fetched, pieces of zeros are not read.
    ///
    /// # Errors
    /// [`StorageError::SourceChanged`] when the file is not the one that was imported or published: its length, times,
    /// inode or device moved; nothing of it can be read until [`Self::reread`] found it to match. [`StorageError::NotFound`]
    /// when it is not there. [`StorageError::NotHeld`] when the piece was never stored. [`StorageError::Read`] for the rest.
    ///
    /// # Panics
    /// When the piece is not of this share or `into` has another length.
    fn read_piece(&self, piece: PieceIndex, into: &mut [u8]) -> Result<(), StorageError>;

    /// Stores the piece, then records it as held. `Some(file)` when that made the file whole; its final name comes with the
    /// next [`Self::sync`]. A piece held already is not written again: `Ok(None)`.
    ///
    /// When another thread is writing the same piece this waits for it, so after `Ok` the piece can always be read.
    ///
    /// # Errors
    /// [`StorageError::DiskFull`], [`StorageError::Write`]: the piece is not held, the store stays usable unless a sync
    /// has failed.
    ///
    /// # Panics
    /// When the piece is not of this share.
    fn write_piece(&self, piece: Verified<'_>) -> Result<Option<FileIndex>, StorageError>;

    /// Looks at a file without reading it.
    ///
    /// # Errors
    /// As [`Self::read_piece`], with the same consequence. One that was found changed before and was not read again is no
    /// error.
    fn look(&self, _file: FileIndex) -> Result<(), StorageError> {
        Ok(())
    }

    /// How often the file was found changed since its pieces were verified first.
    fn changes(&self, _file: FileIndex) -> u64 {
        0
    }

    /// Reads a file again that was found changed. Each piece that matches can be read from then on; `tell` hears of it, and
    /// its `false` ends the work. Takes one core and as long as hashing the file takes.
    ///
    /// # Errors
    /// The file cannot be opened: as [`Self::read_piece`].
    fn reread(
        &self,
        _file: FileIndex,
        _hashes: &PieceHashes,
        _tell: &mut dyn FnMut(PieceIndex) -> bool,
    ) -> Result<Reread, StorageError> {
        Ok(Reread::Stopped)
    }

    /// When all chosen pieces are held: makes what has no bytes (folders, links, empty files), removes the part folder, and
    /// returns the path of the result. Doing it again changes nothing. The result is on the disk itself before the record
    /// goes that could tell what a power loss took.
    ///
    /// # Errors
    /// [`StorageError::Incomplete`] while pieces are missing; otherwise as [`Self::sync`].
    fn finish(&self) -> Result<PathBuf, StorageError>;

    /// Last change of each file, nanoseconds since 1970, in the order of the manifest; empty when nobody knows.
    fn modified(&self) -> Vec<i64> {
        Vec::new()
    }

    /// Tells what [`Self::modified`] is to be, and files get these times when they get their names, or at the end. A hint:
    /// what lies in the future becomes now, and a file that takes no time keeps its own.
    fn set_modified(&self, _times: Vec<u64>) {}

    /// Brings everything stored so far to the disk itself, so that a power loss keeps it, and then gives whole files their
    /// final names.
    ///
    /// # Errors
    /// [`StorageError::Write`], [`StorageError::DiskFull`] when the system says no; what was stored since the last success
    /// then counts as not held, for nobody knows what reached the disk, and nothing more is stored by this store.
    /// [`StorageError::TargetDiffers`], [`StorageError::Blocked`]: somebody else took a final name meanwhile; the store
    /// stays usable.
    fn sync(&self) -> Result<(), StorageError>;
}
