//! Import: turns files and folders of the user into a manifest, its piece hashes and a store that reads them in place.
//!
//! Reads every byte once, on all cores, unless it lies in a hole or the state of this host knows the file's hashes (`cache`);
//! copies none. Changes nothing on disk but that state. What becomes an entry is decided in `scan`. Called by the verbs `seed`, `link` and `ls`.
//! Source: BEP 52 (roots and layers).

mod cache;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use rayon::prelude::*;

use super::StorageError;
use super::disk;
use super::globs::Globs;
use super::hashing::{OnFailure, PieceBytes, Readable, Watch, visit_pieces_partly};
use super::os::{self, Kind};
use super::scan::{Found, Scan, SkipReason, Skipped, scan};
use super::source::{SourceFile, SourceStore};
use crate::content::{
    Digest, Entry, EntryKind, FileIndex, Geometry, Layout, Manifest, Name, PieceHashes, PieceIndex,
    RelativePath, hash_piece, hash_zeros, layer_root, piece_len_for,
};

use cache::Cache;

/// How to import.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Name of the share; by default that of the first path.
    pub name: Option<Name>,
    /// What to leave out, matched against paths in the share.
    pub exclude: Globs,
    /// Leave out what no share can hold or nobody can read, instead of ending with [`StorageError::CannotShare`].
    pub skip_unshareable: bool,
    /// Folder with the state of this host: files hashed in an earlier run are not read again. Reads everything if `None`.
    pub state: Option<PathBuf>,
}

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportProgress {
    /// Looking for files.
    Scan {
        /// Found so far.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Reading and hashing them.
    Hash {
        /// Hashed so far; reports of several threads may arrive slightly out of order.
        bytes: u64,
        /// Of how many.
        total: u64,
    },
}

/// A share made of local files.
#[derive(Debug)]
pub struct Imported {
    /// What it is.
    pub manifest: Manifest,
    /// The hash of every piece.
    pub hashes: PieceHashes,
    /// Its bytes.
    pub store: SourceStore,
    /// What was left out, in path order.
    pub skipped: Vec<Skipped>,
    /// Entries left out by [`ImportOptions::exclude`], a folder with all that is in it as one.
    pub excluded: u64,
}

/// Makes a share of `paths`.
///
/// One file makes a share of that file, one folder a share of its content, several paths a folder with one entry each. A
/// path that is a link is followed; below it a link is kept when it stays inside and skipped otherwise. Equal trees make
/// equal manifests whatever the order of the paths below the first. `progress` is called from several threads.
///
/// # Errors
/// [`StorageError::NotFound`], [`StorageError::Read`], [`StorageError::NotAFileOrFolder`] for what cannot be read;
/// [`StorageError::EqualNames`], [`StorageError::NoName`], [`StorageError::NotUtf8`], [`StorageError::SourceName`] for
/// paths that give no name; [`StorageError::CannotShare`] for everything below them that cannot be named or read, or
/// changes meanwhile; [`StorageError::TooManyEntries`], [`StorageError::Unshareable`] for what no share can describe;
/// [`StorageError::Cancelled`] soon after `cancel` is set.
pub fn import(
    paths: &[PathBuf],
    options: &ImportOptions,
    progress: &(dyn Fn(ImportProgress) + Sync),
    cancel: &AtomicBool,
) -> Result<Imported, StorageError> {
    let looked = SystemTime::now();
    let found = |files, bytes| progress(ImportProgress::Scan { files, bytes });
    let Scan {
        name,
        layout,
        files,
        others,
        mut skipped,
        refused,
        excluded,
    } = scan(
        paths,
        options.name.as_ref(),
        &options.exclude,
        &found,
        cancel,
    )?;
    // The first path is the one the share is named after; with several there is no single place.
    let result = paths.first().cloned().unwrap_or_default();
    let is_all = layout == Layout::File;
    let mut share = Sources::of(files);
    let mut kept = Kept::default();
    let skips = options.skip_unshareable && !is_all;
    // Again without the files that failed, until none does.
    let mut refused = refused;
    let (store, geometry, digests) = loop {
        let lens: Vec<u64> = share.files.iter().map(|file| file.signature.len).collect();
        let geometry = Geometry::new(piece_len_for(&lens), &lens).map_err(|reason| {
            StorageError::Unshareable {
                reason: reason.into(),
            }
        })?;
        let mut cache = Cache::open(
            options.state.as_deref(),
            &geometry,
            &share.files,
            &share.devices,
        );
        let store = SourceStore::new(
            geometry.clone(),
            mem::take(&mut share.files),
            result.clone(),
        );
        let work = Work {
            geometry: &geometry,
            store: &store,
            skips,
            progress,
            cancel,
        };
        let is_refused = !refused.is_empty() && !skips;
        let hashed = work.hash(looked, &mut cache, &kept, is_refused)?;
        if hashed.failed.is_empty() && (skips || refused.is_empty()) {
            break (store, geometry, hashed.digests);
        }
        for (file, error) in &hashed.failed {
            refused.push(Skipped {
                path: store.path(*file).to_owned(),
                reason: SkipReason::of(error),
            });
        }
        if !skips {
            refused.sort_by(|left, right| left.path.cmp(&right.path));
            return Err(StorageError::CannotShare {
                things: refused,
                is_all,
            });
        }
        let failed: BTreeSet<_> = hashed.failed.iter().map(|(file, _)| *file).collect();
        kept = Kept::of(&geometry, &hashed, &failed);
        share.files = store.into_files();
        share.leave_out(&failed);
    };
    if store.is_empty() && others.is_empty() && !refused.is_empty() {
        return Err(StorageError::CannotShare {
            things: refused,
            is_all: true,
        });
    }
    skipped.extend(refused);

    let (manifest, hashes) = describe(name, layout, &geometry, share.described, others, digests)?;
    Ok(Imported {
        manifest,
        hashes,
        store,
        skipped,
        excluded,
    })
}

/// The files of a share to be, each list in path order.
struct Sources {
    files: Vec<SourceFile>,
    devices: Vec<u64>,
    /// Path in the share, and whether its owner may run it.
    described: Vec<(RelativePath, bool)>,
}

impl Sources {
    fn of(found: Vec<Found>) -> Self {
        let mut sources = Self {
            files: Vec::with_capacity(found.len()),
            devices: Vec::with_capacity(found.len()),
            described: Vec::with_capacity(found.len()),
        };
        for file in found {
            sources.files.push(SourceFile {
                path: file.source,
                signature: file.signature,
                device: file.device,
            });
            sources.devices.push(file.device);
            sources.described.push((file.path, file.executable));
        }
        sources
    }

    fn leave_out(&mut self, failed: &BTreeSet<FileIndex>) {
        fn keep<T>(list: &mut Vec<T>, failed: &BTreeSet<FileIndex>) {
            let mut file = 0;
            list.retain(|_| {
                file += 1;
                !failed.contains(&FileIndex::new(file - 1))
            });
        }
        keep(&mut self.files, failed);
        keep(&mut self.devices, failed);
        keep(&mut self.described, failed);
    }
}

/// The hashes of an attempt in which some files failed, for the next without those files.
#[derive(Default)]
struct Kept {
    piece_len: u32,
    /// One for each file of the next attempt; `None` where it was not read to its end.
    layers: Vec<Option<Vec<Digest>>>,
}

impl Kept {
    fn of(geometry: &Geometry, hashed: &Hashed, failed: &BTreeSet<FileIndex>) -> Self {
        let files = (0..geometry.file_count()).map(FileIndex::new);
        let layers = files
            .filter(|file| !failed.contains(file))
            .map(|file| {
                let pieces = geometry.file_pieces(file);
                let layer = &hashed.digests[pieces.start as usize..pieces.end as usize];
                hashed.is_whole[file.as_usize()].then(|| layer.to_vec())
            })
            .collect();
        Self {
            piece_len: geometry.piece_len(),
            layers,
        }
    }

    /// Puts what is known of `file` among `digests`; whether that is all of it.
    fn fill(&self, geometry: &Geometry, file: FileIndex, digests: &mut [Digest]) -> bool {
        let Some(Some(layer)) = self.layers.get(file.as_usize()) else {
            return false;
        };
        let pieces = geometry.file_pieces(file);
        let same = self.piece_len == geometry.piece_len() && layer.len() == pieces.len();
        if same {
            digests[pieces.start as usize..pieces.end as usize].copy_from_slice(layer);
        }
        same
    }
}

/// What an attempt to hash all files came to.
struct Hashed {
    /// One for each piece; zero where it is not known.
    digests: Vec<Digest>,
    /// For each file, whether its digests are all there.
    is_whole: Vec<bool>,
    /// Files that cannot be shared, in order, each once.
    failed: Vec<(FileIndex, StorageError)>,
}

/// One attempt to hash all files.
struct Work<'a> {
    geometry: &'a Geometry,
    store: &'a SourceStore,
    /// Files that fail are left out, so the others are read to the end.
    skips: bool,
    progress: &'a (dyn Fn(ImportProgress) + Sync),
    cancel: &'a AtomicBool,
}

impl Work<'_> {
    /// Hashes what neither `cache` nor `kept` knows. When `is_refused`, something else stands in the way already: nothing
    /// is hashed, and all that fails at a look is told.
    ///
    /// # Errors
    /// [`StorageError::Cancelled`].
    fn hash(
        &self,
        looked: SystemTime,
        cache: &mut Cache,
        kept: &Kept,
        is_refused: bool,
    ) -> Result<Hashed, StorageError> {
        let geometry = self.geometry;
        let from = Importing { store: self.store };
        let (mut digests, mut unknown) = cache.known(geometry);
        unknown.retain(|file| !kept.fill(geometry, *file, &mut digests));
        let mut failed = BTreeMap::new();
        let empty = unknown.iter().filter(|file| geometry.file_len(**file) == 0);
        failed.extend(self.look_at(empty.copied(), &from)?);
        let mut hashed = vec![0_usize; geometry.file_count() as usize];
        let mut is_stopped = is_refused || !(failed.is_empty() || self.skips);
        if !is_stopped {
            is_stopped =
                self.hash_pieces(&unknown, &from, &mut digests, &mut hashed, &mut failed)?;
        }
        // Once more at the end: a write behind the reading head would otherwise show only when the piece is served. What was
        // read whole before something failed, or a signal came, need not be read by the next run.
        let pieces_of = |file: FileIndex| geometry.file_pieces(file).len();
        let mut good = Vec::with_capacity(unknown.len());
        for &file in &unknown {
            if failed.contains_key(&file) || hashed[file.as_usize()] != pieces_of(file) {
                continue;
            }
            match self.store.check(file) {
                Ok(()) => good.push(file),
                Err(error) => drop(failed.insert(file, error)),
            }
        }
        cache.keep(looked, geometry, &good, &digests);
        if self.cancel.load(Ordering::Relaxed) && is_stopped {
            return Err(StorageError::Cancelled);
        }
        if is_stopped {
            // One is enough to end it; the user wants to hear of all at once.
            let good: BTreeSet<_> = good.iter().copied().collect();
            let rest = unknown.iter().copied();
            let rest = rest.filter(|file| !good.contains(file) && !failed.contains_key(file));
            let rest: Vec<_> = rest.collect();
            failed.extend(self.look_at(rest.into_iter(), &from)?);
        }
        let mut is_whole = vec![true; geometry.file_count() as usize];
        for file in &unknown {
            is_whole[file.as_usize()] = false;
        }
        for file in good {
            is_whole[file.as_usize()] = true;
        }
        Ok(Hashed {
            digests,
            is_whole,
            failed: failed.into_iter().collect(),
        })
    }

    /// Hashes the pieces of `files`; whether it stopped at one that failed.
    fn hash_pieces(
        &self,
        files: &[FileIndex],
        from: &Importing<'_>,
        digests: &mut [Digest],
        hashed: &mut [usize],
        failed: &mut BTreeMap<FileIndex, StorageError>,
    ) -> Result<bool, StorageError> {
        let geometry = self.geometry;
        let pieces: Vec<_> = files
            .iter()
            .flat_map(|file| geometry.file_pieces(*file))
            .map(PieceIndex::new)
            .collect();
        let total = files.iter().map(|file| geometry.file_len(*file)).sum();
        let report = |bytes| (self.progress)(ImportProgress::Hash { bytes, total });
        let watch = Watch {
            progress: &report,
            cancel: self.cancel,
        };
        let on_failure = if self.skips {
            OnFailure::LeaveFile
        } else {
            OnFailure::Stop
        };
        let visited = visit_pieces_partly(
            geometry,
            &pieces,
            from,
            &watch,
            on_failure,
            |piece, bytes| {
                let width = geometry.width_of(piece);
                Ok(match bytes {
                    PieceBytes::Read(bytes) => hash_piece(bytes, width),
                    PieceBytes::Hole => hash_zeros(geometry.len_of(piece), width),
                })
            },
        );
        for (place, digest) in visited.answers {
            let piece = pieces[place];
            digests[piece.as_usize()] = digest;
            hashed[geometry.locate(piece).file.as_usize()] += 1;
        }
        let mut is_stopped = false;
        for (place, error) in visited.failed {
            is_stopped |= !self.skips || matches!(error, StorageError::Cancelled);
            if !matches!(error, StorageError::Cancelled) {
                let file = geometry.locate(pieces[place]).file;
                failed.entry(file).or_insert(error);
            }
        }
        Ok(is_stopped)
    }

    /// Opens each of `files`, on all cores, and gives those that fail at that.
    fn look_at(
        &self,
        files: impl Iterator<Item = FileIndex>,
        from: &Importing<'_>,
    ) -> Result<Vec<(FileIndex, StorageError)>, StorageError> {
        let files: Vec<_> = files.collect();
        let failed = files.into_par_iter().filter_map(|file| {
            if self.cancel.load(Ordering::Relaxed) {
                return Some((file, StorageError::Cancelled));
            }
            from.look(file).err().map(|error| (file, error))
        });
        let failed: Vec<_> = failed.collect();
        if self.cancel.load(Ordering::Relaxed) {
            return Err(StorageError::Cancelled);
        }
        Ok(failed)
    }
}

/// The user's files while they become a share: a file is as long as its file system says, or it is refused.
struct Importing<'a> {
    store: &'a SourceStore,
}

impl Importing<'_> {
    /// That the file can be opened and has the length it is said to have.
    fn look(&self, file: FileIndex) -> Result<(), StorageError> {
        if self.store.len_of(file) > 0 {
            return self.open(file).map(drop);
        }
        let path = self.store.path(file);
        let failed = |error| self.store.failed(file, error);
        // By path first, and without waiting: some files of length 0 have bytes when something happens.
        let stat = os::stat_path(path).map_err(failed)?;
        if stat.kind != Kind::File {
            return self.store.check(file);
        }
        let handle = os::open_without_waiting(path).map_err(failed)?;
        self.check_len(file, &handle)
    }

    /// Reads from the last byte to one beyond: exactly one has to be there.
    fn check_len(&self, file: FileIndex, handle: &File) -> Result<(), StorageError> {
        let len = self.store.len_of(file);
        let mut bytes = [0; 2];
        let (from, expected) = match len {
            0 => (0, 0),
            len => (len - 1, 1),
        };
        let found = match disk::read_at(handle, &mut bytes[..=expected], from) {
            // It has bytes, only not now.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => expected + 1,
            found => found.map_err(|error| self.store.failed(file, error))?,
        };
        if found == expected {
            return Ok(());
        }
        let stat = os::stat_file(handle).map_err(|error| self.store.failed(file, error))?;
        let path = self.store.path(file).to_owned();
        Err(if stat.signature.len == len {
            StorageError::FalseLength {
                path,
                is_longer: found > expected,
            }
        } else {
            StorageError::SourceChanged { path }
        })
    }
}

impl Readable for Importing<'_> {
    fn open(&self, file: FileIndex) -> Result<File, StorageError> {
        let handle = self.store.open(file)?;
        self.check_len(file, &handle)?;
        Ok(handle)
    }

    fn failed(&self, file: FileIndex, source: io::Error) -> StorageError {
        self.store.failed(file, source)
    }
}

/// Puts the manifest together from what was found and hashed. `files` are path and executable bit, in the geometry's order.
fn describe(
    name: Name,
    layout: Layout,
    geometry: &Geometry,
    files: Vec<(RelativePath, bool)>,
    others: Vec<Entry>,
    digests: Vec<Digest>,
) -> Result<(Manifest, PieceHashes), StorageError> {
    let mut entries = others;
    entries.reserve(files.len());
    for (file, (path, executable)) in (0_u32..).zip(files) {
        let file = FileIndex::new(file);
        let pieces = geometry.file_pieces(file);
        let layer = &digests[pieces.start as usize..pieces.end as usize];
        let root = match layer {
            [] => None,
            [only] => Some(*only),
            layer => Some(layer_root(layer, geometry.piece_width())),
        };
        let kind = EntryKind::File {
            len: geometry.file_len(file),
            root,
            executable,
        };
        entries.push(Entry { path, kind });
    }
    let manifest = Manifest::new(name, layout, entries)
        .map_err(|reason| StorageError::Unshareable { reason })?;
    assert_eq!(
        manifest.geometry(),
        geometry,
        "the same rule over the same files in the same order"
    );
    let hashes = PieceHashes::from_digests(&manifest, digests)
        .map_err(|reason| StorageError::Hashes { reason })?;
    Ok((manifest, hashes))
}

#[cfg(test)]
mod tests;
