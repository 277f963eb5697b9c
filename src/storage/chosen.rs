//! `Chosen`: the part of a share that a fetch is for.
//!
//! Decides by the user's patterns once, when the manifest is known; afterwards everybody asks here by index. Knows no
//! pieces' states and touches no file. Made by `node`, read by `opening`, `survey` and `fetch`.

use super::{Globs, StorageError};
use crate::content::{Bitfield, EntryKind, FileIndex, Manifest, PieceIndex};

/// Which entries of one share are fetched.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// One for each entry of the manifest.
    entries: Vec<bool>,
    /// One for each file of it.
    files: Vec<bool>,
    pieces: Bitfield,
    total_len: u64,
    file_count: u32,
}

impl Chosen {
    /// All of the share.
    #[must_use]
    pub fn all(manifest: &Manifest) -> Self {
        Self::by(manifest, |_, _| true)
    }

    /// What `only` matches; all of it when there is no pattern.
    ///
    /// # Errors
    /// [`StorageError::NothingChosen`] when nothing in the share matches.
    pub fn of(manifest: &Manifest, only: &Globs) -> Result<Self, StorageError> {
        if only.is_empty() {
            return Ok(Self::all(manifest));
        }
        let chosen = Self::by(manifest, |path, is_folder| {
            only.matches_within(path, is_folder)
        });
        if chosen.entries.contains(&true) {
            Ok(chosen)
        } else {
            Err(StorageError::NothingChosen)
        }
    }

    fn by(manifest: &Manifest, wants: impl Fn(&str, bool) -> bool) -> Self {
        let geometry = manifest.geometry();
        let mut chosen = Self {
            entries: Vec::with_capacity(manifest.entries().len()),
            files: Vec::with_capacity(geometry.file_count() as usize),
            pieces: Bitfield::new(geometry.piece_count()),
            total_len: 0,
            file_count: 0,
        };
        for entry in manifest.entries() {
            let is_folder = entry.kind == EntryKind::EmptyFolder;
            let is_chosen = wants(entry.path.as_str(), is_folder);
            chosen.entries.push(is_chosen);
            let EntryKind::File { len, .. } = entry.kind else {
                continue;
            };
            // Files are numbered in the order of the entries.
            let file = FileIndex::new(chosen.files.len() as u32);
            chosen.files.push(is_chosen);
            if is_chosen {
                chosen.total_len += len;
                chosen.file_count += 1;
                for piece in geometry.file_pieces(file) {
                    chosen.pieces.insert(PieceIndex::new(piece));
                }
            }
        }
        chosen
    }

    /// Their pieces.
    #[must_use]
    pub fn pieces(&self) -> &Bitfield {
        &self.pieces
    }

    /// Their bytes.
    #[must_use]
    pub fn total_len(&self) -> u64 {
        self.total_len
    }

    /// How many files they are.
    #[must_use]
    pub fn file_count(&self) -> u32 {
        self.file_count
    }

    /// Whether the entry at this place in the manifest is one of them.
    pub(super) fn has_entry(&self, place: usize) -> bool {
        self.entries[place]
    }

    pub(super) fn has_file(&self, file: FileIndex) -> bool {
        self.files[file.as_usize()]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::storage::MemoryStore;

    fn chosen(globs: &[&str]) -> Result<Chosen, StorageError> {
        let large = vec![7; 100_000];
        let files: [(&str, &[u8]); 4] = [
            ("a.txt", b"abc"),
            ("docs/b.txt", &large),
            ("docs/none", b""),
            ("z.bin", b"z"),
        ];
        let (manifest, ..) = MemoryStore::share_of("s", &files);
        Chosen::of(&manifest, &Globs::read(&[] as &[&Path], globs).unwrap())
    }

    #[test]
    fn pieces_and_totals_are_those_of_the_chosen_files() {
        let cases: &[(&[&str], u64, u32, &[u32])] = &[
            (&[], 100_004, 4, &[0, 1, 2, 3]),
            (&["*.txt"], 100_003, 2, &[0, 1, 2]),
            (&["docs/"], 100_000, 2, &[1, 2]),
            (&["*", "!docs/**"], 4, 2, &[0, 3]),
            (&["none"], 0, 1, &[]),
        ];
        for (globs, bytes, files, pieces) in cases {
            let chosen = chosen(globs).unwrap();
            let found: Vec<u32> = chosen.pieces().iter().map(PieceIndex::get).collect();
            assert_eq!(
                (chosen.total_len(), chosen.file_count(), found.as_slice()),
                (*bytes, *files, *pieces),
                "{globs:?}"
            );
        }
    }

    #[test]
    fn patterns_that_match_nothing_are_an_error() {
        assert!(matches!(
            chosen(&["*.jpg"]),
            Err(StorageError::NothingChosen)
        ));
    }
}
