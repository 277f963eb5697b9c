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
use super::os::{self, Signature};
use super::part::{Content, PartFolder};
use super::recent::Recent;
use super::record::{Entry, Record};
use super::standing::{Doubt, Expected, Look, Standings, Subject, reread};
use super::survey::FileState;
use super::target::Place;
use super::{Chosen, PieceStore, Reread, StorageError};
use crate::content::{Bitfield, FileIndex, Geometry, Manifest, PieceHashes, PieceIndex, Verified};

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
    /// Files that were found changed after they got their final names.
    pub(super) standings: Standings,
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

    /// Opens a file under its final name.
    fn open_published(&self, file: FileIndex) -> Result<File, StorageError> {
        let path = self.path_of(file);
        self.root.open_file(&path).map_err(|error| match error {
            StorageError::Read { path, source } => StorageError::reading(&path, source),
            error => error,
        })
    }

    /// Reads a piece of a file that has its final name: it is the user's, who may change it. `first` is how it looked then.
    fn read_published(
        &self,
        piece: PieceIndex,
        first: Signature,
        into: &mut [u8],
    ) -> Result<(), StorageError> {
        let span = self.geometry().locate(piece);
        let file = span.file;
        let place = piece.get() - self.geometry().file_pieces(file).start;
        let expected = self
            .standings
            .expected(file, place, Look::on_any_device(first))
            .ok_or_else(|| self.changed(file))?;
        let read = |handle: &File, into: &mut [u8]| {
            disk::read_exact_at(handle, into, span.offset).map_err(|source| {
                StorageError::reading(&self.root.shown(&self.path_of(file)), source)
            })?;
            self.compare_published(file, handle, &expected)
        };
        // One that was kept open may lead to what lay at the path before.
        if let Some(handle) = self.open.get(&file)
            && read(&handle, into).is_ok()
        {
            return Ok(());
        }
        self.open.forget(&file);
        let opened = self.open_published(file).and_then(|handle| {
            read(&handle, into)?;
            self.open.insert(file, Arc::new(handle));
            Ok(())
        });
        opened.inspect_err(|error| self.doubt(file, first, expected.changes, error))
    }

    /// After a read, as in `source`.
    fn compare_published(
        &self,
        file: FileIndex,
        handle: &File,
        expected: &Expected,
    ) -> Result<(), StorageError> {
        let stat = os::stat_file(handle).map_err(|source| {
            StorageError::reading(&self.root.shown(&self.path_of(file)), source)
        })?;
        if expected.look.is(&stat) {
            return Ok(());
        }
        // It may have got its time since we looked.
        let state = self.state();
        let published = state.files[file.as_usize()].published;
        let again = os::stat_file(handle).map(|stat| stat.signature).ok();
        if expected.changes == 0 && again.is_some() && again == published {
            return Ok(());
        }
        drop(state);
        Err(self.changed(file))
    }

    fn changed(&self, file: FileIndex) -> StorageError {
        StorageError::SourceChanged {
            path: self.root.shown(&self.path_of(file)),
        }
    }

    /// The file is not as it was expected to be.
    fn doubt(&self, file: FileIndex, first: Signature, changes: u64, error: &StorageError) {
        self.open.forget(&file);
        let pieces = self.geometry().file_pieces(file).len() as u32;
        let first = Look::on_any_device(first);
        let why = Doubt::of(error);
        self.standings.doubt(file, pieces, first, changes, why);
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
        match published {
            Some(first) => self.read_published(piece, first, into),
            None => {
                let handle = match self.open.get(&span.file) {
                    Some(handle) => handle,
                    // Not kept open: it must not be found by whoever writes to it next.
                    None => Arc::new(self.open_for_reading(span.file, false)?),
                };
                let path = || self.root.shown(&self.path_of(span.file));
                disk::read_exact_at(&handle, into, span.offset)
                    .map_err(|source| StorageError::reading(&path(), source))
            }
        }
    }

    fn look(&self, file: FileIndex) -> Result<(), StorageError> {
        let Some(first) = self.state().files[file.as_usize()].published else {
            return Ok(());
        };
        let Some(expected) = self.standings.look(file, Look::on_any_device(first)) else {
            return Ok(());
        };
        let looked = self
            .open_published(file)
            .and_then(|handle| self.compare_published(file, &handle, &expected));
        looked.inspect_err(|error| self.doubt(file, first, expected.changes, error))
    }

    fn changes(&self, file: FileIndex) -> u64 {
        self.standings.changes(file)
    }

    fn reread(
        &self,
        file: FileIndex,
        hashes: &PieceHashes,
        tell: &mut dyn FnMut(PieceIndex) -> bool,
    ) -> Result<Reread, StorageError> {
        let subject = Subject {
            standings: &self.standings,
            geometry: self.geometry(),
            hashes,
            file,
            open: &|| self.open_published(file),
        };
        reread(&subject, tell)
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
        let mut files = self.manifest.files();
        if let Some((file, _)) = files.find(|(file, _)| self.standings.lacks(*file)) {
            let path = self.root.shown(&self.path_of(file));
            return Err(StorageError::Edited { path });
        }
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
