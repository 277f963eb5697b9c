//! `SourceStore`: a share's bytes in the user's own files, where they lie.
//!
//! Reads only. Owns the open handles and the knowledge of what each file looked like when it was hashed; it never serves a
//! byte of a file that looks otherwise, until that was read and hashed again. Made by `import`, read by `node`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk;
use super::hashing::Readable;
use super::os::{self, Kind, Signature};
use super::recent::Recent;
use super::standing::{Doubt, Expected, Look, Standings, Subject, reread};
use super::{PieceStore, Reread, StorageError};
use crate::content::{FileIndex, Geometry, PieceHashes, PieceIndex, Verified};

/// Handles kept open per share. Peers ask in runs, so few files are warm at a time, and many shares must fit into the
/// usual limit of 1,024 open files.
const OPEN_FILES_MAX: usize = 32;

/// Where a file lies and what it looked like.
#[derive(Debug)]
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    pub(super) signature: Signature,
    pub(super) device: u64,
}

/// A share's bytes in the user's own files. See [`PieceStore`].
#[derive(Debug)]
pub struct SourceStore {
    geometry: Geometry,
    files: Vec<SourceFile>,
    /// Those of them that were found changed.
    standings: Standings,
    open: Recent<FileIndex, Arc<File>>,
    result: PathBuf,
}

impl SourceStore {
    /// `files` in the order of the manifest; `result` is what [`PieceStore::finish`] returns.
    pub(super) fn new(geometry: Geometry, files: Vec<SourceFile>, result: PathBuf) -> Self {
        assert_eq!(
            files.len(),
            geometry.file_count() as usize,
            "one source per file of the manifest"
        );
        Self {
            geometry,
            files,
            standings: Standings::default(),
            open: Recent::new(OPEN_FILES_MAX),
            result,
        }
    }

    /// Where the file lies.
    ///
    /// # Panics
    /// When `file` is not of this share.
    #[must_use]
    pub fn path(&self, file: FileIndex) -> &Path {
        &self.files[file.as_usize()].path
    }

    /// Whether it has no file.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Length of the file when it was looked at first.
    pub(super) fn len_of(&self, file: FileIndex) -> u64 {
        self.files[file.as_usize()].signature.len
    }

    /// The files it was made of.
    pub(super) fn into_files(self) -> Vec<SourceFile> {
        self.files
    }

    /// Looks at one file by its path: `Ok` when it is still the one that was imported.
    ///
    /// # Errors
    /// [`StorageError::SourceChanged`] when it is not or is gone, [`StorageError::Read`] when nobody can tell.
    ///
    /// # Panics
    /// When `file` is not of this share.
    pub fn check(&self, file: FileIndex) -> Result<(), StorageError> {
        let stat = os::stat_path(self.path(file)).map_err(|error| self.failed(file, error))?;
        self.compare(file, &self.first(file), &stat)
    }

    /// How the file looked when it was imported.
    fn first(&self, file: FileIndex) -> Look {
        let source = &self.files[file.as_usize()];
        Look::new(source.signature, source.device)
    }

    fn compare(&self, file: FileIndex, look: &Look, now: &os::Stat) -> Result<(), StorageError> {
        if look.is(now) {
            return Ok(());
        }
        self.open.forget(&file);
        Err(self.changed(file))
    }

    fn changed(&self, file: FileIndex) -> StorageError {
        StorageError::SourceChanged {
            path: self.path(file).to_path_buf(),
        }
    }

    /// Opens a regular file by its path.
    fn open_path(&self, file: FileIndex) -> Result<File, StorageError> {
        let path = self.path(file);
        let failed = |source| StorageError::reading(path, source);
        // By path first: opening a fifo that took the name would block.
        if os::stat_path(path).map_err(failed)?.kind != Kind::File {
            return Err(self.changed(file));
        }
        File::open(path).map_err(failed)
    }

    /// Reads a piece from `handle`, and looks at the file afterwards.
    fn read_from(
        &self,
        handle: &File,
        piece: PieceIndex,
        expected: &Expected,
        into: &mut [u8],
    ) -> Result<(), StorageError> {
        let span = self.geometry.locate(piece);
        let failed = |source| StorageError::reading(self.path(span.file), source);
        disk::read_exact_at(handle, into, span.offset).map_err(failed)?;
        // After the read: a writer moves the times before it moves bytes, so equal times now mean the old bytes.
        let stat = os::stat_file(handle).map_err(failed)?;
        self.compare(span.file, &expected.look, &stat)
    }

    fn read_expected(
        &self,
        piece: PieceIndex,
        expected: &Expected,
        into: &mut [u8],
    ) -> Result<(), StorageError> {
        let file = self.geometry.locate(piece).file;
        // One that was kept open may lead to what lay at the path before.
        if let Some(handle) = self.open.get(&file)
            && self.read_from(&handle, piece, expected, into).is_ok()
        {
            return Ok(());
        }
        let handle = Arc::new(self.open_path(file)?);
        self.read_from(&handle, piece, expected, into)?;
        self.open.insert(file, handle);
        Ok(())
    }

    /// The file is not as it was expected to be.
    fn doubt(&self, file: FileIndex, changes: u64, error: &StorageError) {
        self.open.forget(&file);
        let pieces = self.geometry.file_pieces(file).len() as u32;
        let why = Doubt::of(error);
        self.standings
            .doubt(file, pieces, self.first(file), changes, why);
    }
}

impl Readable for SourceStore {
    fn open(&self, file: FileIndex) -> Result<File, StorageError> {
        // By path first: opening a fifo that took the name would block.
        self.check(file)?;
        let handle = File::open(self.path(file)).map_err(|error| self.failed(file, error))?;
        let stat = os::stat_file(&handle).map_err(|error| self.failed(file, error))?;
        self.compare(file, &self.first(file), &stat)?;
        Ok(handle)
    }

    fn failed(&self, file: FileIndex, source: io::Error) -> StorageError {
        let path = self.files[file.as_usize()].path.clone();
        match source.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::UnexpectedEof => StorageError::SourceChanged { path },
            _ => StorageError::Read { path, source },
        }
    }
}

impl PieceStore for SourceStore {
    fn read_piece(&self, piece: PieceIndex, into: &mut [u8]) -> Result<(), StorageError> {
        let span = self.geometry.locate(piece);
        assert_eq!(
            into.len(),
            span.len as usize,
            "the buffer is as long as the piece"
        );
        let file = span.file;
        let place = piece.get() - self.geometry.file_pieces(file).start;
        let Some(expected) = self.standings.expected(file, place, self.first(file)) else {
            return Err(self.changed(file));
        };
        let read = self.read_expected(piece, &expected, into);
        read.inspect_err(|error| self.doubt(file, expected.changes, error))
    }

    fn write_piece(&self, _piece: Verified<'_>) -> Result<Option<FileIndex>, StorageError> {
        // Every piece is held already.
        Ok(None)
    }

    fn look(&self, file: FileIndex) -> Result<(), StorageError> {
        let Some(expected) = self.standings.look(file, self.first(file)) else {
            return Ok(());
        };
        let path = self.path(file);
        let stat = os::stat_path(path).map_err(|source| StorageError::reading(path, source));
        let looked = stat.and_then(|stat| self.compare(file, &expected.look, &stat));
        looked.inspect_err(|error| self.doubt(file, expected.changes, error))
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
            geometry: &self.geometry,
            hashes,
            file,
            open: &|| self.open_path(file),
        };
        reread(&subject, tell)
    }

    fn finish(&self) -> Result<PathBuf, StorageError> {
        Ok(self.result.clone())
    }

    fn modified(&self) -> Vec<i64> {
        let time = |source: &SourceFile| i64::try_from(source.signature.mtime_ns).unwrap_or(0);
        self.files.iter().map(time).collect()
    }

    fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }
}
