//! `FetchStore`: writes verified pieces, publishes each file when it is whole, and remembers both.
//!
//! Owns the order that makes a kill harmless: bytes, then the record's entry, then the piece counts as held; a file gets its
//! final name only with its last piece. It never writes outside the target and never over a file of the user unless told
//! to. How it begins is in `opening`. Called by `node`, from several threads.
//!
//! A file of one piece goes straight from its bytes to its final name, without an entry of its own for the piece: create,
//! write, rename, one append. Nothing here waits for the disk itself but [`PieceStore::sync`].

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use super::beneath::{Beneath, Replace};
use super::os;
use super::part::{self, Content, PartFolder};
use super::recent::Recent;
use super::record::{Entry, Record};
use super::survey::{FileState, OtherState, other_state};
use super::target::Place;
use super::{Chosen, PieceStore, StorageError};
use crate::content::{
    Bitfield, EntryKind, FileIndex, Geometry, Layout, Manifest, PieceIndex, Verified,
};

/// Handles kept open per share: see `source`, and a fetch writes to few files at a time.
pub(super) const OPEN_FILES_MAX: usize = 32;
/// Unsynced files above which one call for the whole file system is cheaper than one call each.
const SYNC_FILES_MAX: usize = 32;
/// The files of a share being fetched. See [`PieceStore`].
#[derive(Debug)]
pub struct FetchStore {
    pub(super) manifest: Manifest,
    pub(super) chosen: Chosen,
    pub(super) place: Place,
    pub(super) overwrite: bool,
    pub(super) root: Beneath,
    /// Missing only when every chosen piece was held at the start.
    pub(super) part: Option<PartFolder>,
    /// `None` without a part folder, and from [`PieceStore::finish`] on.
    pub(super) record: Mutex<Option<Record>>,
    pub(super) state: Mutex<State>,
    /// Last change of each file, nanoseconds since 1970, once somebody told.
    pub(super) times: OnceLock<Vec<u64>>,
    /// Told when a piece leaves `State::writing`.
    pub(super) written: Condvar,
    pub(super) open: Recent<FileIndex, Arc<File>>,
    /// One sync at a time: an entry that says "synced" must not overtake the sync of somebody else's files.
    pub(super) syncing: Mutex<()>,
    /// Whether `finish` succeeded.
    pub(super) finished: Mutex<bool>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) held: Bitfield,
    /// Pieces some thread is writing now.
    pub(super) writing: BTreeSet<PieceIndex>,
    pub(super) files: Vec<FileState>,
    /// Files written since the last sync.
    pub(super) unsynced: BTreeSet<FileIndex>,
}

impl FetchStore {
    /// Publishes whole files that are still part files: the run that wrote their last piece was killed before it could, or
    /// something was in the way.
    pub(super) fn publish_leftovers(&self) -> Result<(), StorageError> {
        let leftovers: Vec<_> = {
            let state = self.state();
            let whole = |file: &FileIndex| {
                let known = &state.files[file.as_usize()];
                self.chosen.has_file(*file)
                    && known.remaining == 0
                    && known.published.is_none()
                    && self.geometry().file_len(*file) > 0
            };
            (0..self.geometry().file_count())
                .map(FileIndex::new)
                .filter(whole)
                .collect()
        };
        for file in leftovers {
            let handle = self.part().open_file(file)?;
            self.publish(file, &handle)?;
        }
        Ok(())
    }

    /// Writes the claimed piece and records it.
    fn store(&self, piece: &Verified<'_>) -> Result<Option<FileIndex>, StorageError> {
        let index = piece.piece();
        let span = self.geometry().locate(index);
        let executable = self.manifest.file(span.file).executable;
        if self.geometry().file_pieces(span.file).len() == 1 {
            let handle = self
                .part()
                .create_file(span.file, executable, Content::Drop)?;
            self.write(&handle, span.file, 0, piece.bytes())?;
            self.publish(span.file, &handle)?;
            return Ok(Some(span.file));
        }
        let handle = self.part_handle(span.file, executable)?;
        self.write(&handle, span.file, span.offset, piece.bytes())?;
        self.append(Entry::Held(index))?;
        let whole = {
            let mut state = self.state();
            state.held.insert(index);
            let known = &mut state.files[span.file.as_usize()];
            known.remaining -= 1;
            known.remaining == 0
        };
        if !whole {
            return Ok(None);
        }
        self.publish(span.file, &handle)?;
        Ok(Some(span.file))
    }

    fn write(
        &self,
        handle: &File,
        file: FileIndex,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), StorageError> {
        os::write_all_at(handle, bytes, offset)
            .map_err(|source| self.write_failed(file, bytes.len() as u64, source))?;
        // After the bytes and before the record: a sync that reads the record's end from here on covers them.
        self.state().unsynced.insert(file);
        Ok(())
    }

    /// The open part file of a file of several pieces; made at its full length, without taking space for it.
    fn part_handle(&self, file: FileIndex, executable: bool) -> Result<Arc<File>, StorageError> {
        if let Some(handle) = self.open.get(&file) {
            return Ok(handle);
        }
        let handle = self.part().create_file(file, executable, Content::Keep)?;
        let len = self.geometry().file_len(file);
        let failed = |source| self.write_failed(file, 0, source);
        if os::stat_file(&handle).map_err(failed)?.signature.len != len {
            handle.set_len(len).map_err(failed)?;
        }
        let handle = Arc::new(handle);
        self.open.insert(file, Arc::clone(&handle));
        Ok(handle)
    }

    /// Gives a whole file its final name. `handle` is its part file.
    fn publish(&self, file: FileIndex, handle: &File) -> Result<(), StorageError> {
        let path = self.path_of(file);
        // Before the name: nobody else looks at the file yet.
        let is_timed = self.give_time(file, handle);
        let replace = if self.overwrite {
            Replace::Allowed
        } else {
            Replace::Never
        };
        self.root
            .publish(self.part().dir(), &part::file_name(file), &path, replace)?;
        // After the rename, which moves the change time.
        let signature = os::stat_file(handle)
            .map_err(|source| StorageError::Read {
                path: self.root.shown(&path),
                source,
            })?
            .signature;
        {
            let mut state = self.state();
            for piece in self.geometry().file_pieces(file) {
                state.held.insert(PieceIndex::new(piece));
            }
            let known = &mut state.files[file.as_usize()];
            known.remaining = 0;
            known.published = Some(signature);
            known.is_timed = is_timed;
        }
        self.open.forget(&file);
        self.append(Entry::Published(file, signature))
    }

    /// Gives a file the time it has in the share; false when nobody told yet.
    fn give_time(&self, file: FileIndex, handle: &File) -> bool {
        let Some(times) = self.times.get() else {
            return false;
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(times[file.as_usize()]);
        // Of somebody else's file, or where times are not kept, it is not to be had.
        let _ = handle.set_modified(time.min(SystemTime::now()));
        true
    }

    /// Gives their times to files that were published before these were known.
    fn give_times(&self) {
        if self.times.get().is_none() {
            return;
        }
        for (file, _) in self.manifest.files() {
            let is_due = {
                let known = &self.state().files[file.as_usize()];
                known.published.is_some() && !known.is_timed
            };
            let path = self.path_of(file);
            let Some(Ok(handle)) = is_due.then(|| self.root.open_file(&path)) else {
                continue;
            };
            let mut state = self.state();
            let known = &mut state.files[file.as_usize()];
            let is_ours = |handle: &File| {
                os::stat_file(handle).is_ok_and(|stat| Some(stat.signature) == known.published)
            };
            // Under the lock: who reads a piece meanwhile must not take the new times for a change.
            if is_ours(&handle) {
                self.give_time(file, &handle);
                known.is_timed = true;
                if let Ok(stat) = os::stat_file(&handle) {
                    known.published = Some(stat.signature);
                }
            }
            let published = known.published;
            drop(state);
            if let Some(signature) = published
                && let Err(error) = self.append(Entry::Published(file, signature))
            {
                tracing::warn!(%error, "new times not recorded");
            }
        }
    }

    /// Opens a file for reading wherever it lies now.
    fn open_for_reading(&self, file: FileIndex, published: bool) -> Result<File, StorageError> {
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

    /// Makes what has no bytes.
    fn make_others(&self) -> Result<(), StorageError> {
        if self.manifest.layout() == Layout::Folder {
            self.root.make_folder(Path::new(&self.place.name))?;
        }
        // Files are numbered in the order of the entries.
        let mut files = 0;
        for (place, entry) in self.manifest.entries().iter().enumerate() {
            files += u32::from(matches!(entry.kind, EntryKind::File { .. }));
            let has_bytes = matches!(entry.kind, EntryKind::File { len: 1.., .. });
            if has_bytes || !self.chosen.has_entry(place) {
                continue;
            }
            let path = self.place.path_of(&entry.path);
            let replace = match other_state(&self.root, &path, &entry.kind, self.overwrite)? {
                OtherState::Missing => Replace::Never,
                OtherState::Made => continue,
                OtherState::Replaceable => Replace::Allowed,
                OtherState::InTheWay => {
                    return Err(StorageError::TargetDiffers {
                        path: self.root.shown(&path),
                    });
                }
            };
            match &entry.kind {
                EntryKind::File { executable, .. } => {
                    self.root.make_empty_file(&path, *executable, replace)?;
                    let file = FileIndex::new(files - 1);
                    if let Ok(handle) = self.root.open_file(&path) {
                        self.give_time(file, &handle);
                    }
                }
                EntryKind::Symlink { target } => self.root.make_link(&path, target, replace)?,
                EntryKind::EmptyFolder => self.root.make_folder(&path)?,
            }
        }
        Ok(())
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

    /// Brings the bytes of `files` to the disk itself.
    fn sync_files(&self, files: &BTreeSet<FileIndex>) -> Result<(), SyncFailure> {
        if files.len() > SYNC_FILES_MAX {
            let whole = os::sync_file_system(self.root.dir()).map_err(|source| {
                let path = self.place.shown();
                SyncFailure::Lost(StorageError::writing(path, &self.place.folder, 0, source))
            })?;
            if whole {
                return Ok(());
            }
        }
        for &file in files {
            let published = self.state().files[file.as_usize()].published.is_some();
            let handle = match self.open.get(&file) {
                Some(handle) => handle,
                None => match self.open_for_reading(file, published) {
                    Ok(handle) => Arc::new(handle),
                    // Removed by the user: nothing to bring anywhere, and the next run will see.
                    Err(StorageError::SourceChanged { .. }) => continue,
                    Err(error) => return Err(SyncFailure::NotTried(error)),
                },
            };
            handle
                .sync_data()
                .map_err(|source| SyncFailure::Lost(self.write_failed(file, 0, source)))?;
        }
        Ok(())
    }

    pub(super) fn append(&self, entry: Entry) -> Result<(), StorageError> {
        let Some(record) = &mut *self.record() else {
            return Ok(());
        };
        record
            .append(entry)
            .map_err(|source| self.record_failed(source))
    }

    fn record_failed(&self, source: io::Error) -> StorageError {
        StorageError::writing(
            self.part().shown().join("record"),
            &self.place.folder,
            0,
            source,
        )
    }

    fn write_failed(&self, file: FileIndex, needed: u64, source: io::Error) -> StorageError {
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
        os::read_exact_at(&handle, into, span.offset)
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
        self.publish_leftovers()?;
        self.make_others()?;
        self.give_times();
        // While the record still says what to read again should the power fail.
        self.sync()?;
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
        let _one_at_a_time = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        // In this order: whatever is recorded before `offset` was in `unsynced` before that.
        let offset = self.record().as_ref().map(Record::offset);
        let files = std::mem::take(&mut self.state().unsynced);
        if files.is_empty() {
            return Ok(());
        }
        match self.sync_files(&files) {
            Ok(()) => {}
            Err(SyncFailure::NotTried(error)) => {
                self.state().unsynced.extend(files);
                return Err(error);
            }
            Err(SyncFailure::Lost(error)) => {
                for file in files {
                    self.append(Entry::Lost(file))?;
                }
                return Err(error);
            }
        }
        let Some(offset) = offset else { return Ok(()) };
        self.append(Entry::Synced(offset))?;
        let record = self.record().as_ref().map(Record::handle).transpose();
        match record.and_then(|record| record.map_or(Ok(()), |record| record.sync_data())) {
            Ok(()) => Ok(()),
            Err(source) => Err(self.record_failed(source)),
        }
    }
}

/// Why a sync did not happen.
enum SyncFailure {
    /// No file was asked for; a later sync may succeed.
    NotTried(StorageError),
    /// The system may have dropped the bytes, and will report success next time: nobody can tell what is on the disk.
    Lost(StorageError),
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
