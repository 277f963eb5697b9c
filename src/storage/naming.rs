//! What a fetch does so that a power loss is harmless, and the final names, which come only after that.
//!
//! Owns the order: bytes to the disk, then the record's word for it, then the names; a final name never stands over bytes
//! that the disk may not have. After a failed sync it takes back what was to be synced and stores nothing more. Called by
//! `fetch` (`sync`, `finish`).
//! Source: Rebello et al., ATC 2020, on failed syncs; Pillai et al., OSDI 2014, on names.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use cap_std::ambient_authority;
use cap_std::fs::Dir;

use super::beneath::Replace;
use super::fetch::{FetchStore, Names};
use super::record::{Entry, Record};
use super::survey::{OtherState, other_state};
use super::{StorageError, disk, os, part};
use crate::content::{EntryKind, FileIndex, Layout, PieceIndex};

/// Unsynced files or folders above which one call for the whole file system is cheaper than one call each.
const SYNC_EACH_MAX: usize = 32;

/// Names given before the record hears of them: a process killed in between costs the next run a look at the bytes of so
/// many files, and each entry by itself would be a write for each file.
const NAMES_MAX: usize = 64;

/// Why a sync did not happen.
enum Failure {
    /// No file or folder was asked for: a later sync may succeed.
    NotTried(StorageError),
    /// The system may have dropped the bytes, or the names they are found by, and will report success next time: nobody can
    /// tell what is on the disk.
    Lost(StorageError),
}

impl FetchStore {
    /// Brings everything stored to the disk itself, then gives whole files their final names.
    pub(super) fn sync_and_name(&self) -> Result<(), StorageError> {
        let mut names = self.names();
        // In this order: whatever is recorded before `offset` was in `unsynced` before that, and is in `whole` after it.
        let whole = self.state().whole.clone();
        self.begin_zeros(&whole)?;
        let offset = self.record().as_ref().map(Record::offset);
        let pieces = {
            let mut state = self.state();
            if state.is_broken {
                return Err(self.broken());
            }
            std::mem::take(&mut state.unsynced)
        };
        if pieces.is_empty() && whole.is_empty() {
            return Ok(());
        }
        match self.sync_pieces(&pieces, &whole, &mut names) {
            Ok(()) => {}
            Err(Failure::NotTried(error)) => {
                self.state().unsynced.extend(pieces);
                return Err(error);
            }
            Err(Failure::Lost(error)) => {
                self.take_back_unsynced(pieces);
                return Err(error);
            }
        }
        if let Some(offset) = offset {
            self.append(Entry::Synced(offset))?;
            let record = self.record().as_ref().map(Record::handle).transpose();
            record
                .and_then(|record| record.map_or(Ok(()), |record| disk::sync_data(&record)))
                .map_err(|source| self.record_failed(source))?;
        }
        self.name(&whole, &mut names)
    }

    /// Brings the names in the result to the disk itself.
    pub(super) fn sync_names(&self) -> Result<(), StorageError> {
        let mut names = self.names();
        let failed = |source| {
            let folder = &self.place.folder;
            StorageError::writing(self.place.shown(), folder, 0, source)
        };
        if names.changed.len() > SYNC_EACH_MAX
            && disk::sync_file_system(self.root.dir()).map_err(failed)?
        {
            names.changed.clear();
            return Ok(());
        }
        while let Some(folder) = names.changed.first().cloned() {
            self.root.sync_folder(&folder)?;
            names.changed.remove(&folder);
        }
        Ok(())
    }

    /// The error of a store that stores nothing more.
    pub(super) fn broken(&self) -> StorageError {
        StorageError::Write {
            path: self.place.shown(),
            source: io::Error::other("an earlier write did not reach the disk"),
        }
    }

    /// Gives files their final names. One that cannot have its name leaves the others theirs.
    fn name(&self, files: &BTreeSet<FileIndex>, names: &mut Names) -> Result<(), StorageError> {
        let files: Vec<_> = files.iter().copied().collect();
        let mut result = Ok(());
        for files in files.chunks(NAMES_MAX) {
            let mut entries = Vec::with_capacity(files.len());
            for &file in files {
                match self.publish(file) {
                    Ok((path, entry)) => {
                        self.note_changed(&path, names);
                        entries.push(entry);
                    }
                    Err(error) => result = result.and(Err(error)),
                }
            }
            result = result.and(self.append_all(&entries));
        }
        result
    }

    /// Names that stood before this run are new as well: an earlier one may have been killed before it brought them to the
    /// disk, and the record that says so goes at the end.
    pub(super) fn note_found(&self) {
        let mut names = self.names();
        for (file, _) in self.manifest.files() {
            let is_found = self.state().files[file.as_usize()].published.is_some();
            if is_found {
                self.note_changed(&self.path_of(file), &mut names);
            }
        }
    }

    /// A name at `path` is new; folders on the way may be.
    fn note_changed(&self, path: &Path, names: &mut Names) {
        for folder in path.ancestors().skip(1) {
            if !names.changed.insert(folder.to_path_buf()) {
                break;
            }
        }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a whole file, whose bytes are on the disk, its final name; gives that, and what to record.
    fn publish(&self, file: FileIndex) -> Result<(PathBuf, Entry), StorageError> {
        let path = self.path_of(file);
        let handle = match self.open.get(&file) {
            Some(handle) => handle,
            None => Arc::new(self.part().open_file(file)?),
        };
        let is_timed = self.state().files[file.as_usize()].is_timed;
        // Before the name: nobody else looks at the file yet.
        let is_timed = is_timed || self.give_time(file, &handle);
        let replace = if self.overwrite {
            Replace::Allowed
        } else {
            Replace::Never
        };
        self.root
            .publish(self.part().dir(), &part::file_name(file), &path, replace)?;
        // After the rename, which moves the change time, and of what was renamed, whatever has that name by now.
        let signature = os::stat_file(&handle)
            .map_err(|source| StorageError::Read {
                path: self.root.shown(&path),
                source,
            })?
            .signature;
        {
            let mut state = self.state();
            state.whole.remove(&file);
            let known = &mut state.files[file.as_usize()];
            known.published = Some(signature);
            known.is_timed = is_timed;
        }
        self.open.forget(&file);
        Ok((path, Entry::Published(file, signature)))
    }

    /// Gives a file the time it has in the share; false when nobody told yet.
    pub(super) fn give_time(&self, file: FileIndex, handle: &File) -> bool {
        let Some(times) = self.times.get() else {
            return false;
        };
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(times[file.as_usize()]);
        // Of somebody else's file, or where times are not kept, it is not to be had.
        let _ = disk::set_time(handle, time.min(SystemTime::now()));
        true
    }

    /// Gives their times to files that were published before these were known.
    pub(super) fn give_times(&self) {
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

    /// Makes what has no bytes.
    pub(super) fn make_others(&self) -> Result<(), StorageError> {
        let mut names = self.names();
        if self.manifest.layout() == Layout::Folder {
            let folder = Path::new(&self.place.name);
            self.root.make_folder(folder)?;
            self.note_changed(folder, &mut names);
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
            self.note_changed(&path, &mut names);
        }
        Ok(())
    }

    /// Makes the part files of those of `whole` that nothing was written to: they are all zeros.
    fn begin_zeros(&self, whole: &BTreeSet<FileIndex>) -> Result<(), StorageError> {
        for &file in whole {
            if !self.state().files[file.as_usize()].is_begun {
                self.part_handle(file)?;
            }
        }
        Ok(())
    }

    /// Brings the bytes of `pieces`, files that are `whole`, and the names they are found by, to the disk itself.
    fn sync_pieces(
        &self,
        pieces: &BTreeSet<PieceIndex>,
        whole: &BTreeSet<FileIndex>,
        names: &mut Names,
    ) -> Result<(), Failure> {
        let files = pieces.iter().map(|piece| self.geometry().locate(*piece));
        // Of a file of zeros no piece was ever written.
        let files: BTreeSet<_> = files
            .map(|span| span.file)
            .chain(whole.iter().copied())
            .collect();
        if files.len() > SYNC_EACH_MAX {
            let whole = disk::sync_file_system(self.root.dir()).map_err(|source| {
                let path = self.place.shown();
                Failure::Lost(StorageError::writing(path, &self.place.folder, 0, source))
            })?;
            if whole {
                names.is_part_synced = true;
                names.changed.clear();
                return Ok(());
            }
        }
        self.sync_files(&files)?;
        self.sync_part(names).map_err(Failure::Lost)
    }

    /// Brings the bytes of `files` to the disk itself, one after the other.
    fn sync_files(&self, files: &BTreeSet<FileIndex>) -> Result<(), Failure> {
        for &file in files {
            let published = self.state().files[file.as_usize()].published.is_some();
            let handle = match self.open.get(&file) {
                Some(handle) => handle,
                None => match self.open_for_reading(file, published) {
                    Ok(handle) => Arc::new(handle),
                    // Removed by the user: nothing to bring anywhere, and the next run will see.
                    Err(StorageError::SourceChanged { .. }) => continue,
                    Err(error) => return Err(Failure::NotTried(error)),
                },
            };
            disk::sync_data(&handle)
                .map_err(|source| Failure::Lost(self.write_failed(file, 0, source)))?;
        }
        Ok(())
    }

    /// Brings the names of part files to the disk itself, and once in a run what was saved beside them and the names of the
    /// folders on the way.
    fn sync_part(&self, names: &mut Names) -> Result<(), StorageError> {
        let Some(part) = &self.part else {
            return Ok(());
        };
        if !names.is_part_synced {
            part.sync_saved()?;
            let failed = |source| {
                StorageError::writing(part.shown().to_path_buf(), &self.place.folder, 0, source)
            };
            disk::sync_folder(self.root.dir()).map_err(failed)?;
            for made in &names.made {
                let above = made.parent().filter(|above| !above.as_os_str().is_empty());
                let above = above.unwrap_or(Path::new("."));
                match disk::look(|| Dir::open_ambient_dir(above, ambient_authority())) {
                    Ok(above) => disk::sync_folder(&above).map_err(failed)?,
                    // Whom nobody lets look into the folder above cannot sync it either.
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            names.is_part_synced = true;
        }
        disk::sync_folder(part.dir()).map_err(|source| {
            StorageError::writing(part.shown().to_path_buf(), &self.place.folder, 0, source)
        })
    }

    /// After a failed sync: neither `pieces` nor what was stored meanwhile counts as held, now and for the next run.
    fn take_back_unsynced(&self, mut pieces: BTreeSet<PieceIndex>) {
        // The lock of the record first: see `hold`.
        let mut record = self.record();
        let (mut dropped, mut lost) = (Vec::new(), BTreeSet::new());
        {
            let mut state = self.state();
            state.is_broken = true;
            pieces.append(&mut state.unsynced);
            for piece in pieces {
                let file = self.geometry().locate(piece).file;
                let is_held = state.held.remove(piece);
                let known = &mut state.files[file.as_usize()];
                known.remaining += u32::from(is_held);
                if known.published.is_some() {
                    // Its pieces have no entries of their own.
                    lost.insert(file);
                } else {
                    dropped.push(piece);
                }
                state.whole.remove(&file);
            }
        }
        let Some(record) = &mut *record else { return };
        let dropped = dropped.into_iter().map(Entry::Dropped);
        let entries: Vec<_> = dropped.chain(lost.into_iter().map(Entry::Lost)).collect();
        if let Err(error) = record.append_all(&entries).or_else(|_| record.clear()) {
            tracing::warn!(%error, "the record still says that unsynced pieces are held");
        }
    }
}
