//! What is known of shared files that may have changed since their pieces were verified, and how they are read again.
//!
//! A file looks as it did or it does not: another look is a hint of a change, never a proof. From the hint on nothing of the
//! file is served until its pieces were read and hashed again; each that matches is served at once under the look that the
//! file has now. Owns no files and no handles. Called by `source` and `fetch`.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::disk;
use super::hashing::PieceBytes;
use super::holes::Holes;
use super::os::{self, Signature, Stat};
use super::{Reread, StorageError};
use crate::content::{Bitfield, FileIndex, Geometry, PieceHashes, PieceIndex};

/// A file that was changed less than this ago may be changed again without its times moving: the clock of Linux's file
/// systems ticks every 10 ms at most. Less could take one write for another, more delays what is read again.
pub(super) const TICK: Duration = Duration::from_millis(20);

/// The same where times are kept in whole seconds, two of them at worst (FAT).
const TICK_COARSE: Duration = Duration::from_millis(2_100);

/// How a file looks: equal looks mean equal bytes, as far as times tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    signature: Signature,
    /// Which file system it lies on; `None` where that was not noted.
    device: Option<u64>,
}

impl Look {
    pub(super) fn new(signature: Signature, device: u64) -> Self {
        Self {
            signature,
            device: Some(device),
        }
    }

    pub(super) fn of(stat: &Stat) -> Self {
        Self::new(stat.signature, stat.device)
    }

    /// A look of which the device was not noted.
    pub(super) fn on_any_device(signature: Signature) -> Self {
        Self {
            signature,
            device: None,
        }
    }

    /// Whether a file that looks like `stat` is the one that looked like this.
    pub(super) fn is(&self, stat: &Stat) -> bool {
        self.signature == stat.signature && self.device.is_none_or(|device| device == stat.device)
    }
}

/// A file that was found changed at least once.
#[derive(Debug)]
struct Standing {
    /// How often it was found changed.
    changes: u64,
    /// Under which look `intact` was verified; `None` when that is not to be believed any more.
    look: Option<Look>,
    /// Pieces that match, by their place in the file.
    intact: Bitfield,
    /// It was found changed and was not looked at since: nothing of it is served.
    is_doubted: bool,
}

/// What a read of a piece is to find, and what to say if it does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) look: Look,
    pub(super) changes: u64,
}

/// Why a file is doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It looks otherwise, or is not there. Should it look as before again, it is as before.
    Look,
    /// It cannot be read: only reading tells when it can be again.
    Read,
}

impl Doubt {
    pub(super) fn of(error: &StorageError) -> Self {
        match error {
            StorageError::Read { .. } => Self::Read,
            _ => Self::Look,
        }
    }
}

/// The files of a share that were found changed. Those that never were are not in here.
#[derive(Debug, Default)]
pub(super) struct Standings(Mutex<BTreeMap<FileIndex, Standing>>);

impl Standings {
    /// What a piece is to be read under; `None` while it is not known to match. `first` is how the file looked when all of
    /// its pieces were verified for the first time.
    pub(super) fn expected(&self, file: FileIndex, place: u32, first: Look) -> Option<Expected> {
        match self.lock().get(&file) {
            None => Some(Expected {
                look: first,
                changes: 0,
            }),
            Some(standing) => {
                let is_intact = standing.intact.contains(PieceIndex::new(place));
                let look = standing
                    .look
                    .filter(|_| is_intact && !standing.is_doubted)?;
                let changes = standing.changes;
                Some(Expected { look, changes })
            }
        }
    }

    /// How the file is to look now; `None` while it is doubted.
    pub(super) fn look(&self, file: FileIndex, first: Look) -> Option<Expected> {
        match self.lock().get(&file) {
            None => Some(Expected {
                look: first,
                changes: 0,
            }),
            Some(standing) if standing.is_doubted => None,
            Some(standing) => standing.look.map(|look| Expected {
                look,
                changes: standing.changes,
            }),
        }
    }

    /// How often the file was found changed.
    pub(super) fn changes(&self, file: FileIndex) -> u64 {
        self.lock().get(&file).map_or(0, |known| known.changes)
    }

    /// Whether pieces of the file are missing that were there: none of them can be told to match.
    pub(super) fn lacks(&self, file: FileIndex) -> bool {
        let is_lacking = |known: &Standing| known.is_doubted || !known.intact.is_full();
        self.lock().get(&file).is_some_and(is_lacking)
    }

    /// The file is not what was expected after `changes` earlier ones. Somebody else may have noticed the same.
    pub(super) fn doubt(
        &self,
        file: FileIndex,
        pieces: u32,
        first: Look,
        changes: u64,
        why: Doubt,
    ) {
        let mut standings = self.lock();
        let standing = standings.entry(file).or_insert_with(|| Standing {
            changes: 0,
            look: Some(first),
            intact: Bitfield::full(pieces),
            is_doubted: false,
        });
        if standing.changes != changes {
            return;
        }
        standing.changes += 1;
        standing.is_doubted = true;
        if why == Doubt::Read {
            standing.look = None;
        }
    }

    /// The file is read again under `look`: what was verified under the same one is believed. Gives the number of changes
    /// until now and the places of those pieces; `None` when the file was never doubted.
    fn begin(&self, file: FileIndex, stat: &Stat) -> Option<(u64, Bitfield)> {
        let mut standings = self.lock();
        let standing = standings.get_mut(&file)?;
        if standing.look.is_none_or(|look| !look.is(stat)) {
            standing.look = Some(Look::of(stat));
            standing.intact = Bitfield::new(standing.intact.len());
        }
        standing.is_doubted = false;
        Some((standing.changes, standing.intact.clone()))
    }

    /// A piece matches; false when the file was found changed meanwhile.
    fn found(&self, file: FileIndex, place: u32, changes: u64) -> bool {
        let mut standings = self.lock();
        let Some(standing) = standings.get_mut(&file) else {
            return false;
        };
        let is_as_begun = standing.changes == changes;
        if is_as_begun {
            standing.intact.insert(PieceIndex::new(place));
        }
        is_as_begun
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<FileIndex, Standing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is read again.
pub(super) struct Subject<'a> {
    pub(super) standings: &'a Standings,
    pub(super) geometry: &'a Geometry,
    pub(super) hashes: &'a PieceHashes,
    pub(super) file: FileIndex,
    /// Opens the file where it is to lie; fails on what is no regular file.
    pub(super) open: &'a dyn Fn() -> Result<File, StorageError>,
}

/// How long to wait before a file that looks like this is read, so that no write can go unnoticed afterwards.
fn unsettled(stat: &Stat, now: SystemTime) -> Option<Duration> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let changed = u64::try_from(stat.signature.ctime_ns).map(Duration::from_nanos);
    let changed = changed.ok()?;
    let tick = if changed.subsec_nanos() == 0 {
        TICK_COARSE
    } else {
        TICK
    };
    // What lies further in the future comes from another clock, which tells nothing of ours.
    let wait = (changed + tick).checked_sub(now)?;
    (wait > Duration::ZERO && wait <= tick).then_some(wait)
}

/// Reads a file again, each piece that is not known to match. `tell` hears of each piece that does, at once; its `false` ends
/// the work.
///
/// # Errors
/// The file cannot be opened.
pub(super) fn reread(
    subject: &Subject<'_>,
    tell: &mut dyn FnMut(PieceIndex) -> bool,
) -> Result<Reread, StorageError> {
    let Subject {
        standings,
        geometry,
        hashes,
        file,
        open,
    } = *subject;
    let handle = open()?;
    let Ok(stat) = os::stat_file(&handle) else {
        return Ok(Reread::ChangedAgain);
    };
    if let Some(wait) = unsettled(&stat, SystemTime::now()) {
        return Ok(Reread::TooYoung { wait });
    }
    let pieces = geometry.file_pieces(file);
    let Some((changes, mut intact)) = standings.begin(file, &stat) else {
        return Ok(Reread::Read {
            intact: pieces.len() as u32,
            is_readable: true,
        });
    };
    let changed_again = || {
        let pieces = pieces.len() as u32;
        standings.doubt(file, pieces, Look::of(&stat), changes, Doubt::Look);
        Ok(Reread::ChangedAgain)
    };
    let is_same = |handle: &File| os::stat_file(handle).is_ok_and(|now| Look::of(&stat).is(&now));
    let mut holes = Holes::of(&handle);
    let mut buffer = Vec::new();
    let mut is_readable = true;
    for (place, piece) in (0..).zip(pieces.clone().map(PieceIndex::new)) {
        if intact.contains(PieceIndex::new(place)) {
            if !tell(piece) {
                return Ok(Reread::Stopped);
            }
            continue;
        }
        let span = geometry.locate(piece);
        let end = span.offset + u64::from(span.len);
        if end > stat.signature.len {
            continue;
        }
        let bytes = if holes.cover(&handle, &(span.offset..end)) {
            PieceBytes::Hole
        } else {
            buffer.resize(span.len as usize, 0);
            if disk::read_exact_at(&handle, &mut buffer, span.offset).is_err() {
                is_readable = false;
                continue;
            }
            PieceBytes::Read(&buffer)
        };
        let is_match = bytes.are(piece, geometry, hashes);
        // After the read: a writer moves the times before it moves bytes, so equal times now mean the bytes that were read.
        if !is_same(&handle) {
            return changed_again();
        }
        if !is_match {
            continue;
        }
        if !standings.found(file, place, changes) {
            return Ok(Reread::ChangedAgain);
        }
        intact.insert(PieceIndex::new(place));
        if !tell(piece) {
            return Ok(Reread::Stopped);
        }
    }
    if !is_same(&handle) {
        return changed_again();
    }
    Ok(Reread::Read {
        intact: intact.count(),
        is_readable,
    })
}
