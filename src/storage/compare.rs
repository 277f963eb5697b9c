//! Compares local files with a share, for `verify`: which are as in the share, which differ, which are missing.
//!
//! Reads what has the right length, on all cores, and changes nothing. Links are never followed out of the place. What
//! lies there beside the share is nobody's business. Times and modes are no part of the comparison. Called by `cli`.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::beneath::Beneath;
use super::hashing::{Watch, visit_pieces};
use super::os::Kind;
use super::survey::{Finals, OtherState, other_state};
use super::{StorageError, Target};
use crate::content::{EntryKind, FileIndex, Layout, Manifest, PieceHashes, PieceIndex};

/// How an entry of a share compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As in the share.
    Same,
    /// Something else lies there.
    Differs,
    /// Nothing lies there.
    Missing,
}

/// Compares what lies at `path`, the share itself or for a share of one file also the folder it lies in, with the share.
/// Gives a verdict for each entry of the manifest. `progress` gets bytes read and bytes to read, from several threads.
///
/// # Errors
/// [`StorageError::NotFound`] when there is nothing at `path`; [`StorageError::Read`] for what cannot be read;
/// [`StorageError::Cancelled`] soon after `cancel` is set.
pub fn compare(
    manifest: &Manifest,
    hashes: &PieceHashes,
    path: &Path,
    progress: &(dyn Fn(u64, u64) + Sync),
    cancel: &AtomicBool,
) -> Result<Vec<Verdict>, StorageError> {
    let metadata = std::fs::metadata(path).map_err(|source| StorageError::reading(path, source))?;
    // `.` and `..` have no name that could stand for the result; what they stand for has.
    let real = std::fs::canonicalize(path).map_err(|source| StorageError::reading(path, source))?;
    let is_folder_of_file = metadata.is_dir() && manifest.layout() == Layout::File;
    let target = Target {
        output: (!is_folder_of_file).then(|| real.clone()),
        dir: real,
        overwrite: false,
    };
    let place = target.place(manifest.name(), manifest.layout())?;
    let root = Beneath::open(&place.folder)?.ok_or_else(|| StorageError::NotFound {
        path: path.to_path_buf(),
    })?;
    let geometry = manifest.geometry();
    let mut verdicts = Vec::with_capacity(manifest.entries().len());
    // Place among the entries and number of each file that has to be read.
    let mut to_read = Vec::new();
    let mut file = 0;
    for entry in manifest.entries() {
        let at = place.path_of(&entry.path);
        let is_blocked = |error| match error {
            // A link or a file where a folder belongs: what should be below it is not there.
            StorageError::Blocked { .. } => Ok(None),
            error => Err(error),
        };
        let verdict = match entry.kind {
            EntryKind::File { len: 1.., .. } => match root.stat(&at).or_else(is_blocked)? {
                None => Verdict::Missing,
                Some(stat)
                    if stat.kind == Kind::File
                        && stat.signature.len == geometry.file_len(FileIndex::new(file)) =>
                {
                    to_read.push((verdicts.len(), FileIndex::new(file)));
                    Verdict::Same
                }
                Some(_) => Verdict::Differs,
            },
            _ => match other_state(&root, &at, &entry.kind, false) {
                Ok(OtherState::Made) => Verdict::Same,
                Ok(OtherState::Missing) | Err(StorageError::Blocked { .. }) => Verdict::Missing,
                Ok(OtherState::InTheWay | OtherState::Replaceable) => Verdict::Differs,
                Err(error) => return Err(error),
            },
        };
        verdicts.push(verdict);
        file += u32::from(matches!(entry.kind, EntryKind::File { .. }));
    }

    let from = Finals {
        root: &root,
        place: &place,
        manifest,
    };
    let pieces: Vec<_> = to_read
        .iter()
        .flat_map(|(_, file)| geometry.file_pieces(*file))
        .map(PieceIndex::new)
        .collect();
    let total = to_read
        .iter()
        .map(|(_, file)| geometry.file_len(*file))
        .sum();
    let report = |bytes| progress(bytes, total);
    let watch = Watch {
        progress: &report,
        cancel,
    };
    let good = visit_pieces(geometry, &pieces, &from, &watch, |piece, bytes| {
        Ok(bytes.are(piece, geometry, hashes))
    })?;
    let mut good = good.into_iter();
    for (place, file) in to_read {
        let count = geometry.file_pieces(file).len();
        // All of them are taken, whatever the first says.
        let bad = good.by_ref().take(count).filter(|good| !good).count();
        if bad > 0 {
            verdicts[place] = Verdict::Differs;
        }
    }
    Ok(verdicts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::storage::{ImportOptions, Imported, import};

    fn imported(path: &Path) -> Imported {
        let never = AtomicBool::new(false);
        let paths = [path.to_path_buf()];
        import(&paths, &ImportOptions::default(), &|_| {}, &never).unwrap()
    }

    fn verdicts(share: &Imported, path: &Path) -> Vec<Verdict> {
        let never = AtomicBool::new(false);
        compare(&share.manifest, &share.hashes, path, &|_, _| {}, &never).unwrap()
    }

    #[test]
    fn every_difference_is_found_and_nothing_else() {
        use Verdict::{Differs, Missing, Same};
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("top");
        fs::create_dir_all(top.join("sub")).unwrap();
        fs::create_dir_all(top.join("void")).unwrap();
        let large = vec![3_u8; 300_000];
        fs::write(top.join("a"), &large).unwrap();
        fs::write(top.join("b"), b"b").unwrap();
        fs::write(top.join("none"), b"").unwrap();
        fs::write(top.join("sub/c"), b"c").unwrap();
        symlink("b", top.join("to-b")).unwrap();
        let share = imported(&top);
        assert_eq!(verdicts(&share, &top), [Same; 6]);
        fs::write(top.join("more"), b"not of the share").unwrap();
        assert_eq!(verdicts(&share, &top), [Same; 6]);

        let mut flipped = large.clone();
        flipped[299_999] ^= 1;
        fs::write(top.join("a"), &flipped).unwrap();
        fs::write(top.join("b"), b"bb").unwrap();
        fs::write(top.join("none"), b"some").unwrap();
        fs::remove_dir_all(top.join("sub")).unwrap();
        symlink("/etc", top.join("sub")).unwrap();
        fs::remove_file(top.join("to-b")).unwrap();
        symlink("a", top.join("to-b")).unwrap();
        fs::remove_dir(top.join("void")).unwrap();
        let expected = [Differs, Differs, Differs, Missing, Differs, Missing];
        assert_eq!(verdicts(&share, &top), expected);
    }

    #[test]
    fn a_share_of_one_file_is_found_by_path_and_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one");
        fs::write(&path, b"one").unwrap();
        let share = imported(&path);
        let copy = folder.path().join("copy");
        fs::write(&copy, b"one").unwrap();
        for at in [path.as_path(), folder.path(), &copy] {
            assert_eq!(verdicts(&share, at), [Verdict::Same], "{}", at.display());
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(verdicts(&share, folder.path()), [Verdict::Missing]);
        let never = AtomicBool::new(false);
        let error = compare(&share.manifest, &share.hashes, &path, &|_, _| {}, &never);
        assert!(matches!(error, Err(StorageError::NotFound { .. })));
    }
}
