//! The hashes that this host knows of files it has hashed before: what `import` need not read. Asks `storage/state`, which
//! decides whether a file is still the one it was.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::content::{Digest, FileIndex, Geometry};
use crate::storage::os::Signature;
use crate::storage::source::SourceFile;
use crate::storage::state::{Known, State};

/// The hashes this host knows, for the files of one share.
pub(super) struct Cache {
    state: Option<State>,
    /// For each file of the share.
    files: Vec<CachedFile>,
}

struct CachedFile {
    path: PathBuf,
    signature: Signature,
    device: u64,
    piece_len: u32,
}

impl CachedFile {
    fn as_known(&self) -> Known<'_> {
        Known {
            path: &self.path,
            signature: &self.signature,
            device: self.device,
            piece_len: self.piece_len,
        }
    }
}

impl Cache {
    /// The cache in `folder`; without one, nothing is known.
    pub(super) fn open(
        folder: Option<&Path>,
        geometry: &Geometry,
        sources: &[SourceFile],
        devices: &[u64],
    ) -> Self {
        let Some(folder) = folder else {
            return Self {
                state: None,
                files: Vec::new(),
            };
        };
        let mut files = Vec::with_capacity(sources.len());
        for ((file, source), device) in (0..).zip(sources).zip(devices) {
            let is_one_piece = geometry.file_pieces(FileIndex::new(file)).len() == 1;
            files.push(CachedFile {
                // A path that cannot be made absolute is known by nobody.
                path: std::path::absolute(&source.path).unwrap_or_default(),
                signature: source.signature,
                device: *device,
                piece_len: if is_one_piece {
                    0
                } else {
                    geometry.piece_len()
                },
            });
        }
        Self {
            state: Some(State::open(folder)),
            files,
        }
    }

    /// A digest for each piece, zero where it is not known, and the files whose pieces are not.
    pub(super) fn known(&mut self, geometry: &Geometry) -> (Vec<Digest>, Vec<FileIndex>) {
        let mut digests = vec![Digest::ZERO; geometry.piece_count() as usize];
        let all = (0..geometry.file_count()).map(FileIndex::new);
        let Some(state) = &mut self.state else {
            return (digests, all.collect());
        };
        let files: Vec<_> = self.files.iter().map(CachedFile::as_known).collect();
        let mut unknown = Vec::new();
        for (file, found) in all.zip(state.known(&files)) {
            let pieces = geometry.file_pieces(file);
            let layer = &mut digests[pieces.start as usize..pieces.end as usize];
            match found {
                Some(found) if found.len() == layer.len() => layer.copy_from_slice(&found),
                _ => unknown.push(file),
            }
        }
        (digests, unknown)
    }

    /// Keeps what was hashed now.
    pub(super) fn keep(
        &mut self,
        looked: SystemTime,
        geometry: &Geometry,
        hashed: &[FileIndex],
        digests: &[Digest],
    ) {
        let Some(state) = &mut self.state else { return };
        let layer_of = |file: FileIndex| {
            let pieces = geometry.file_pieces(file);
            &digests[pieces.start as usize..pieces.end as usize]
        };
        let files: Vec<_> = hashed
            .iter()
            .filter(|file| geometry.file_len(**file) > 0)
            .map(|&file| (self.files[file.as_usize()].as_known(), layer_of(file)))
            .collect();
        state.keep(looked, &files);
    }
}
