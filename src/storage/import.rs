//! Import: turns files and folders of the user into a manifest, its piece hashes and a store that reads them in place.
//!
//! Reads every byte once, on all cores, unless it lies in a hole or the state of this host knows the file's hashes (`cache`);
//! copies none. Changes nothing on disk but that state. What becomes an entry is decided in `scan`. Called by the verbs `seed`, `link` and `ls`.
//! Source: BEP 52 (roots and layers).

mod cache;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use super::StorageError;
use super::globs::Globs;
use super::hashing::{PieceBytes, Visited, Watch, visit_pieces_partly};
use super::scan::{Scan, Skipped, scan};
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
/// [`StorageError::EqualNames`], [`StorageError::NoName`], [`StorageError::NotUtf8`], [`StorageError::SourceName`],
/// [`StorageError::Unshareable`] for what cannot be named; [`StorageError::SourceChanged`] when a file changes
/// meanwhile; [`StorageError::Cancelled`] soon after `cancel` is set.
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
        skipped,
        excluded,
    } = scan(
        paths,
        options.name.as_ref(),
        &options.exclude,
        &found,
        cancel,
    )?;

    let lens: Vec<u64> = files.iter().map(|file| file.signature.len).collect();
    let geometry =
        Geometry::new(piece_len_for(&lens), &lens).map_err(|reason| StorageError::Unshareable {
            reason: reason.into(),
        })?;

    let mut sources = Vec::with_capacity(files.len());
    let mut described = Vec::with_capacity(files.len());
    let mut devices = Vec::with_capacity(files.len());
    for file in files {
        sources.push(SourceFile {
            path: file.source,
            signature: file.signature,
        });
        devices.push(file.device);
        described.push((file.path, file.executable));
    }
    // The first path is the one the share is named after; with several there is no single place.
    let result = paths.first().cloned().unwrap_or_default();
    let mut cache = Cache::open(options.state.as_deref(), &geometry, &sources, &devices);
    let store = SourceStore::new(geometry.clone(), sources, result);

    let (mut digests, unknown) = cache.known(&geometry);
    let pieces: Vec<_> = unknown
        .iter()
        .flat_map(|file| geometry.file_pieces(*file))
        .map(PieceIndex::new)
        .collect();
    let total = unknown.iter().map(|file| geometry.file_len(*file)).sum();
    let report = |bytes| progress(ImportProgress::Hash { bytes, total });
    let watch = Watch {
        progress: &report,
        cancel,
    };
    let Visited { answers, failed } =
        visit_pieces_partly(&geometry, &pieces, &store, &watch, |piece, bytes| {
            let width = geometry.width_of(piece);
            Ok(match bytes {
                PieceBytes::Read(bytes) => hash_piece(bytes, width),
                PieceBytes::Hole => hash_zeros(geometry.len_of(piece), width),
            })
        });
    // Pieces of each unknown file that are hashed.
    let mut hashed = vec![0_usize; geometry.file_count() as usize];
    for (place, digest) in answers {
        let piece = pieces[place];
        digests[piece.as_usize()] = digest;
        hashed[geometry.locate(piece).file.as_usize()] += 1;
    }
    // Once more at the end: a write behind the reading head would otherwise show only when the piece is served. What was
    // read whole before something failed, or a signal came, need not be read by the next run.
    let is_whole = |file: &FileIndex| hashed[file.as_usize()] == geometry.file_pieces(*file).len();
    let (whole, mut failed) = (unknown.iter().copied().filter(is_whole), failed);
    let mut good = Vec::with_capacity(unknown.len());
    for file in whole {
        match store.check(file) {
            Ok(()) => good.push(file),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    cache.keep(looked, &geometry, &good, &digests);
    if let Some(error) = failed {
        return Err(error);
    }

    let (manifest, hashes) = describe(name, layout, &geometry, described, others, digests)?;
    Ok(Imported {
        manifest,
        hashes,
        store,
        skipped,
        excluded,
    })
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
