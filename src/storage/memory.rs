//! `MemoryStore`: a share's bytes in memory, and small shares made of nothing.
//!
//! Keeps the contract of [`PieceStore`] without a disk. For tests of rooms that need a store and do not test storage.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{PieceStore, StorageError};
use crate::content::{
    Entry, EntryKind, FileIndex, Geometry, Layout, Manifest, Name, PieceHashes, PieceIndex,
    RelativePath, Verified, hash_piece, layer_root, piece_len_for,
};

/// A share's bytes in memory.
#[derive(Debug)]
pub struct MemoryStore {
    geometry: Geometry,
    pieces: Mutex<Vec<Option<Box<[u8]>>>>,
}

impl MemoryStore {
    /// A store that holds nothing yet.
    #[must_use]
    pub fn empty(geometry: &Geometry) -> Self {
        let pieces = vec![None; geometry.piece_count() as usize];
        Self {
            geometry: geometry.clone(),
            pieces: Mutex::new(pieces),
        }
    }

    /// A share of the folder `share` with these files (path and content), its hashes, and a store that holds all of it.
    ///
    /// # Panics
    /// When the names or paths break a rule of the content model: this is for tests.
    #[must_use]
    pub fn share_of(share: &str, files: &[(&str, &[u8])]) -> (Manifest, PieceHashes, Self) {
        let mut files: Vec<_> = files
            .iter()
            .map(|(path, bytes)| (RelativePath::parse(path).expect("a valid path"), *bytes))
            .collect();
        files.sort_by(|left, right| left.0.cmp(&right.0));
        let lens: Vec<u64> = files.iter().map(|(_, bytes)| bytes.len() as u64).collect();
        let geometry = Geometry::new(piece_len_for(&lens), &lens).expect("a small share");
        let store = Self::empty(&geometry);
        let mut digests = Vec::new();
        let mut entries = Vec::new();
        for (file, (path, bytes)) in (0..).zip(files) {
            let pieces = geometry.file_pieces(FileIndex::new(file));
            for piece in pieces.clone().map(PieceIndex::new) {
                let span = geometry.locate(piece);
                let bytes = &bytes[span.offset as usize..][..span.len as usize];
                digests.push(hash_piece(bytes, geometry.width_of(piece)));
                store.lock()[piece.as_usize()] = Some(bytes.into());
            }
            let layer = &digests[pieces.start as usize..];
            let root = match layer {
                [] => None,
                [only] => Some(*only),
                layer => Some(layer_root(layer, geometry.piece_width())),
            };
            let kind = EntryKind::File {
                len: bytes.len() as u64,
                root,
                executable: false,
            };
            entries.push(Entry { path, kind });
        }
        let name = Name::parse(share).expect("a valid name");
        let manifest = Manifest::new(name, Layout::Folder, entries).expect("a valid share");
        let hashes = PieceHashes::from_digests(&manifest, digests).expect("hashes of these bytes");
        (manifest, hashes, store)
    }

    // Every change under this lock is one assignment: a panic elsewhere cannot leave it half done.
    fn lock(&self) -> MutexGuard<'_, Vec<Option<Box<[u8]>>>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn missing(pieces: &[Option<Box<[u8]>>]) -> u32 {
        pieces.iter().filter(|piece| piece.is_none()).count() as u32
    }
}

impl PieceStore for MemoryStore {
    fn read_piece(&self, piece: PieceIndex, into: &mut [u8]) -> Result<(), StorageError> {
        let pieces = self.lock();
        let bytes = pieces[piece.as_usize()]
            .as_ref()
            .ok_or(StorageError::NotHeld { piece })?;
        into.copy_from_slice(bytes);
        Ok(())
    }

    fn write_piece(&self, piece: Verified<'_>) -> Result<Option<FileIndex>, StorageError> {
        let mut pieces = self.lock();
        let slot = &mut pieces[piece.piece().as_usize()];
        if slot.is_some() {
            return Ok(None);
        }
        *slot = Some(piece.bytes().into());
        let file = self.geometry.locate(piece.piece()).file;
        let all = self.geometry.file_pieces(file);
        let whole = Self::missing(&pieces[all.start as usize..all.end as usize]) == 0;
        Ok(whole.then_some(file))
    }

    fn finish(&self) -> Result<PathBuf, StorageError> {
        let path = PathBuf::from("memory");
        match Self::missing(&self.lock()) {
            0 => Ok(path),
            missing => Err(StorageError::Incomplete { path, missing }),
        }
    }

    fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_share_copied_piece_by_piece_is_whole() {
        let big: Vec<u8> = (0..300_000_u32).map(|at| (at / 3) as u8).collect();
        let files: [(&str, &[u8]); 3] = [("z/big", &big), ("a", b"small"), ("empty", b"")];
        let (manifest, hashes, from) = MemoryStore::share_of("s", &files);
        let geometry = manifest.geometry();
        let to = MemoryStore::empty(geometry);
        let missing = to.finish().unwrap_err();
        assert!(
            matches!(missing, StorageError::Incomplete { missing: 6, .. }),
            "{missing:?}"
        );
        let mut whole = Vec::new();
        for piece in geometry.pieces() {
            let mut bytes = vec![0; geometry.len_of(piece) as usize];
            assert!(matches!(
                to.read_piece(piece, &mut bytes),
                Err(StorageError::NotHeld { .. })
            ));
            from.read_piece(piece, &mut bytes).unwrap();
            let verified = hashes.verify(geometry, piece, &bytes).unwrap();
            whole.extend(to.write_piece(verified).unwrap());
            assert_eq!(to.write_piece(verified).unwrap(), None);
        }
        assert_eq!(whole, [FileIndex::new(0), FileIndex::new(2)]);
        to.finish().unwrap();
    }
}
