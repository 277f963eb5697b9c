//! `FetchStore`: writes verified pieces, publishes each file when it is whole, and remembers both.
//!
//! Owns the order that makes a kill harmless: bytes, then the record's entry, then the piece counts as held. It never
//! writes outside the target and never over a file of the user unless told to. How it begins is in `opening`, what makes a
//! power loss harmless and gives final names in `naming`. Called by `node`, from several threads.
//!
//! Nothing here waits for the disk itself but [`PieceStore::sync`] and [`PieceStore::finish`].

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::beneath::Beneath;
use super::disk;
use super::holes;
use super::os;
use super::part::{Content, PartFolder};
use super::recent::Recent;
use super::record::{Entry, Record};
use super::survey::FileState;
use super::target::Place;
use super::{Chosen, PieceStore, StorageError};
use crate::content::{Bitfield, FileIndex, Geometry, Manifest, PieceIndex, Verified};

/// Handles kept open per share: see `source`, and a fetch writes to few files at a time.
pub(super) const OPEN_FILES_MAX: usize = 32;

/// The files of a share being fetched. See [`PieceStore`].
#[derive(Debug)]
pub struct FetchStore {
    pub(super) manifest: Manifest,
    pub(super) chosen: Chosen,
    /// Pieces whose bytes are all zero: held without having been stored.
    pub(super) zeros: Bitfield,
    pub(super) place: Place,
    pub(super) overwrite: bool,
    pub(super) root: Beneath,
    /// Missing only when every chosen file had its final name at the start.
    pub(super) part: Option<PartFolder>,
    /// `None` without a part folder, and from [`PieceStore::finish`] on.
    pub(super) record: Mutex<Option<Record>>,
    pub(super) state: Mutex<State>,
    /// Last change of each file, nanoseconds since 1970, once somebody told.
    pub(super) times: OnceLock<Vec<u64>>,
    /// Told when a piece leaves `State::writing`.
    pub(super) written: Condvar,
    pub(super) open: Recent<FileIndex, Arc<File>>,
    /// One part file is begun at a time: what lies in it goes.
    pub(super) beginning: Mutex<()>,
    /// One write at a time to each file, as the system wants it: whoever waits there keeps a core busy. Files whose indices
    /// leave the same remainder share one.
    pub(super) turns: [Mutex<()>; WRITE_TURNS],
    /// One sync at a time: an entry that says "synced" must not overtake the sync of somebody else's files.
    pub(super) syncing: Mutex<Names>,
    /// Whether `finish` succeeded.
    pub(super) finished: Mutex<bool>,
}

/// Writes that may be under way at once, each to another file: more than there are cores.
pub(super) const WRITE_TURNS: usize = 64;

#[derive(Debug)]
pub(super) struct State {
    pub(super) held: Bitfield,
    /// Pieces some thread is writing now.
    pub(super) writing: BTreeSet<PieceIndex>,
    pub(super) files: Vec<FileState>,
    /// See [`super::survey::Survey::unclean`].
    pub(super) unclean: BTreeSet<PieceIndex>,
    /// Pieces written, or found in files of the user, since the last sync, also by an earlier run.
    pub(super) unsynced: BTreeSet<PieceIndex>,
    /// Whole files without their final names.
    pub(super) whole: BTreeSet<FileIndex>,
    /// A sync failed: nothing is stored any more, for nobody could tell later what reached the disk.
    pub(super) is_broken: bool,
}

/// What the disk knows of names.
#[derive(Debug)]
pub(super) struct Names {
    /// Folders made for this fetch above and including the target, whose own names it may not know.
    pub(super) made: Vec<PathBuf>,
    /// The part folder's own name and what is saved in it have reached it.
    pub(super) is_part_synced: bool,
    /// Folders of the result with new names, relative to the target.
    pub(super) changed: BTreeSet<PathBuf>,
}

impl FetchStore {
    /// Writes the claimed piece and records it.
    fn store(&self, piece: &Verified<'_>) -> Result<Option<FileIndex>, StorageError> {
        let index = piece.piece();
        let span = self.geometry().locate(index);
        let is_whole = self.geometry().file_pieces(span.file).len() == 1;
        let handle = if is_whole {
            Arc::new(self.create_part(span.file, Content::Drop)?)
        } else {
            self.part_handle(span.file)?
        };
        let is_unclean = self.state().unclean.contains(&index);
        let written = {
            let turn = self.turns[span.file.as_usize() % WRITE_TURNS].lock();
            let _turn = turn.unwrap_or_else(PoisonError::into_inner);
            if is_whole || is_unclean {
                disk::write_all_at(&handle, piece.bytes(), span.offset)
            } else {
                holes::write_around(&handle, piece.bytes(), span.offset)
            }
        };
        written.map_err(|source| self.write_failed(span.file, u64::from(span.len), source))?;
        // Now that it is open; a larger one gets it with its name.
        let is_timed = is_whole && self.give_time(span.file, &handle);
        {
            let mut state = self.state();
            let known = &mut state.files[span.file.as_usize()];
            known.is_timed |= is_timed;
            known.is_begun = true;
            state.unclean.remove(&index);
            // After the bytes and before the record: a sync that reads the record's end from here on covers them.
            state.unsynced.insert(index);
        }
        self.hold(index, span.file)
    }

    /// Records a written piece; gives its file when that is whole by it.
    fn hold(&self, piece: PieceIndex, file: FileIndex) -> Result<Option<FileIndex>, StorageError> {
        let mut record = self.record();
        // Under the lock of the record: what a failing sync takes back must not be recorded behind its back.
        if self.state().is_broken {
            return Err(self.broken());
        }
        if let Some(record) = &mut *record {
            record
                .append(Entry::Held(piece))
                .map_err(|source| self.record_failed(source))?;
        }
        let mut state = self.state();
        state.held.insert(piece);
        let known = &mut state.files[file.as_usize()];
        known.remaining -= 1;
        if known.remaining > 0 {
            return Ok(None);
        }
        state.whole.insert(file);
        Ok(Some(file))
    }

    /// The open part file of a file of several pieces, or of zeros; made at its full length, without taking space for it.
    pub(super) fn part_handle(&self, file: FileIndex) -> Result<Arc<File>, StorageError> {
        if let Some(handle) = self.open.get(&file) {
            return Ok(handle);
        }
        let handle = Arc::new(self.create_part(file, Content::Keep)?);
        self.begin(file, &handle)
            .map_err(|source| self.write_failed(file, 0, source))?;
        self.open.insert(file, Arc::clone(&handle));
        Ok(handle)
    }

    fn create_part(&self, file: FileIndex, content: Content) -> Result<File, StorageError> {
        let executable = self.manifest.file(file).executable;
        self.part().create_file(file, executable, content)
    }

    /// Gives a part file its length. The first time it also loses what it has: no piece in it is held, and pieces of zeros
    /// are not going to be written over it.
    fn begin(&self, file: FileIndex, handle: &File) -> io::Result<()> {
        let one_at_a_time = self.beginning.lock();
        let _one_at_a_time = one_at_a_time.unwrap_or_else(PoisonError::into_inner);
        let is_begun = self.state().files[file.as_usize()].is_begun;
        let found = os::stat_file(handle)?.signature.len;
        if !is_begun && found > 0 {
            disk::set_len(handle, 0)?;
            // The next run will rely on this one for it, whatever a power loss takes.
            disk::sync_data(handle)?;
        }
        let len = self.geometry().file_len(file);
        if found != len || !is_begun {
            disk::set_len(handle, len)?;
        }
        self.state().files[file.as_usize()].is_begun = true;
        Ok(())
    }

    /// Opens a file for reading wherever it lies now.
    pub(super) fn open_for_reading(
        &self,
        file: FileIndex,
        published: bool,
    ) -> Result<File, StorageError> {
        if !published {
            match self.part().open_file(file) {
                // Published between the look at the state and the open: it moves in one direction only.
                Err(StorageError::Read { source, .. })
                    if source.kind() == io::ErrorKind::NotFound => {}
                result => return result,
            }
        }
        let path = self.path_of(file);
        match self.root.open_file(&path) {
            Err(StorageError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(StorageError::SourceChanged {
                    path: self.root.shown(&path),
                })
            }
            result => result,
        }
    }

    /// Whether the part folder holds pieces of files that this fetch is not for: an earlier run got them, and a later one
    /// may want them.
    fn has_other_parts(&self) -> bool {
        let state = self.state();
        self.manifest.files().any(|(file, _)| {
            let known = &state.files[file.as_usize()];
            let pieces = self.geometry().file_pieces(file).len() as u32;
            known.published.is_none() && known.remaining < pieces
        })
    }

    pub(super) fn remove_part(&self, which: Which) {
        let Some(part) = &self.part else { return };
        if which == Which::Fresh && !part.is_fresh() {
            return;
        }
        *self.record() = None;
        self.open.clear();
        if let Err(error) = part.remove(&self.root) {
            // The result is whole: leftovers are no reason to call it failed.
            tracing::warn!(path = %part.shown().display(), %error, "part folder not removed");
        }
    }

    pub(super) fn append(&self, entry: Entry) -> Result<(), StorageError> {
        self.append_all(&[entry])
    }

    pub(super) fn append_all(&self, entries: &[Entry]) -> Result<(), StorageError> {
        let Some(record) = &mut *self.record() else {
            return Ok(());
        };
        record
            .append_all(entries)
            .map_err(|source| self.record_failed(source))
    }

    pub(super) fn record_failed(&self, source: io::Error) -> StorageError {
        StorageError::writing(
            self.part().shown().join("record"),
            &self.place.folder,
            0,
            source,
        )
    }

    pub(super) fn write_failed(
        &self,
        file: FileIndex,
        needed: u64,
        source: io::Error,
    ) -> StorageError {
        let path = self.root.shown(&self.path_of(file));
        StorageError::writing(path, &self.place.folder, needed, source)
    }

    pub(super) fn path_of(&self, file: FileIndex) -> PathBuf {
        self.place.path_of(self.manifest.file(file).path)
    }

    pub(super) fn geometry(&self) -> &Geometry {
        self.manifest.geometry()
    }

    pub(super) fn part(&self) -> &PartFolder {
        self.part
            .as_ref()
            .expect("there is a part folder while a file is not published")
    }

    // A panic under these locks is a broken invariant of ours; the values stay consistent enough to end in order.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn record(&self) -> MutexGuard<'_, Option<Record>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PieceStore for FetchStore {
    fn read_piece(&self, piece: PieceIndex, into: &mut [u8]) -> Result<(), StorageError> {
        let span = self.geometry().locate(piece);
        assert_eq!(
            into.len(),
            span.len as usize,
            "the buffer is as long as the piece"
        );
        let published = {
            let state = self.state();
            if !state.held.contains(piece) {
                return Err(StorageError::NotHeld { piece });
            }
            state.files[span.file.as_usize()].published
        };
        if published.is_none() && self.zeros.contains(piece) {
            // Its part file may not have been begun.
            into.fill(0);
            return Ok(());
        }
        let handle = match self.open.get(&span.file) {
            Some(handle) => handle,
            None => {
                let handle = Arc::new(self.open_for_reading(span.file, published.is_some())?);
                // A part file opened for reading must not be found by whoever writes to it next.
                if published.is_some() {
                    self.open.insert(span.file, Arc::clone(&handle));
                }
                handle
            }
        };
        let path = || self.root.shown(&self.path_of(span.file));
        disk::read_exact_at(&handle, into, span.offset)
            .map_err(|source| StorageError::reading(&path(), source))?;
        let Some(signature) = published else {
            return Ok(());
        };
        // After the read, as in `source`: under its final name the file is the user's, who may change it.
        let now =
            os::stat_file(&handle).map_err(|source| StorageError::reading(&path(), source))?;
        if now.signature == signature {
            return Ok(());
        }
        {
            // It may have got its time since we looked.
            let state = self.state();
            let published = state.files[span.file.as_usize()].published;
            let again = os::stat_file(&handle).map(|stat| stat.signature).ok();
            if again.is_some() && again == published {
                return Ok(());
            }
        }
        self.open.forget(&span.file);
        Err(StorageError::SourceChanged { path: path() })
    }

    fn write_piece(&self, piece: Verified<'_>) -> Result<Option<FileIndex>, StorageError> {
        let Some(_claim) = Claim::take(self, piece.piece()) else {
            return Ok(None);
        };
        self.store(&piece)
    }

    fn finish(&self) -> Result<PathBuf, StorageError> {
        let mut finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.place.shown();
        if *finished {
            return Ok(path);
        }
        let missing = {
            let state = self.state();
            let chosen = self.chosen.pieces().iter();
            chosen.filter(|piece| !state.held.contains(*piece)).count() as u32
        };
        if missing > 0 {
            return Err(StorageError::Incomplete { path, missing });
        }
        self.sync()?;
        self.make_others()?;
        self.give_times();
        // While the record still says what to read again should the power fail.
        self.sync_names()?;
        if !self.has_other_parts() {
            self.remove_part(Which::Any);
        }
        *finished = true;
        Ok(path)
    }

    fn modified(&self) -> Vec<i64> {
        let times = self.times.get().map_or(&[][..], Vec::as_slice);
        let signed = |time: &u64| i64::try_from(*time).unwrap_or(0);
        times.iter().map(signed).collect()
    }

    fn set_modified(&self, times: Vec<u64>) {
        if times.len() == self.geometry().file_count() as usize {
            // Who came first is believed: they are all hints.
            let _ = self.times.set(times);
        }
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.sync_and_name()
    }
}

/// Which part folders to remove.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Only one that this run made.
    Fresh,
    Any,
}

/// The right of one thread to write one piece; given back on drop, also when the write fails or panics.
pub(super) struct Claim<'a> {
    store: &'a FetchStore,
    piece: PieceIndex,
}

impl<'a> Claim<'a> {
    /// `None` when the piece is held; waits while another thread writes it.
    pub(super) fn take(store: &'a FetchStore, piece: PieceIndex) -> Option<Self> {
        let mut state = store.state();
        loop {
            if state.held.contains(piece) {
                return None;
            }
            if state.writing.insert(piece) {
                return Some(Self { store, piece });
            }
            state = store
                .written
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.store.state();
        state.writing.remove(&self.piece);
        drop(state);
        // A system call for each piece, small beside the write of it.
        self.store.written.notify_all();
    }
}
