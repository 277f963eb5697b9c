//! `SourceStore`: a share's bytes in the user's own files, where they lie.
//!
//! Reads only. Owns the open handles and the knowledge of what each file looked like when it was hashed; it never serves a
//! byte of a file that looks otherwise. Made by `import`, read by `node`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk;
use super::hashing::Readable;
use super::os::{self, Signature};
use super::recent::Recent;
use super::{PieceStore, StorageError};
use crate::content::{FileIndex, Geometry, PieceIndex, Verified};

/// Handles kept open per share. Peers ask in runs, so few files are warm at a time, and many shares must fit into the
/// usual limit of 1,024 open files.
const OPEN_FILES_MAX: usize = 32;

/// Where a file lies and what it looked like.
#[derive(Debug)]
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    pub(super) signature: Signature,
}

/// A share's bytes in the user's own files. See [`PieceStore`].
#[derive(Debug)]
pub struct SourceStore {
    geometry: Geometry,
    files: Vec<SourceFile>,
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
        let source = &self.files[file.as_usize()];
        let stat = os::stat_path(&source.path).map_err(|error| self.failed(file, error))?;
        self.compare(file, &stat.signature)
    }

    fn compare(&self, file: FileIndex, now: &Signature) -> Result<(), StorageError> {
        let source = &self.files[file.as_usize()];
        if *now == source.signature {
            return Ok(());
        }
        self.open.forget(&file);
        Err(StorageError::SourceChanged {
            path: source.path.clone(),
        })
    }

    fn handle(&self, file: FileIndex) -> Result<Arc<File>, StorageError> {
        if let Some(handle) = self.open.get(&file) {
            return Ok(handle);
        }
        let handle = Arc::new(self.open(file)?);
        self.open.insert(file, Arc::clone(&handle));
        Ok(handle)
    }
}

impl Readable for SourceStore {
    fn open(&self, file: FileIndex) -> Result<File, StorageError> {
        // By path first: opening a fifo that took the name would block.
        self.check(file)?;
        let handle = File::open(&self.files[file.as_usize()].path)
            .map_err(|error| self.failed(file, error))?;
        let stat = os::stat_file(&handle).map_err(|error| self.failed(file, error))?;
        self.compare(file, &stat.signature)?;
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
        let handle = self.handle(span.file)?;
        disk::read_exact_at(&handle, into, span.offset)
            .map_err(|error| self.failed(span.file, error))?;
        // After the read: a writer moves the times before it moves bytes, so equal times now mean the old bytes.
        let stat = os::stat_file(&handle).map_err(|error| self.failed(span.file, error))?;
        self.compare(span.file, &stat.signature)
    }

    fn write_piece(&self, _piece: Verified<'_>) -> Result<Option<FileIndex>, StorageError> {
        // Every piece is held already.
        Ok(None)
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
