//! `Room`: what a fetch is going to take of its file system, in bytes and in inodes, and whether that much is left.
//!
//! Owns the sum over everything that gets made: part files, folders above entries, links, empty files, the part folder and
//! its own files. A share without one byte can fill a disk with folders. Only looks; what pieces take is `survey`'s
//! number. Called by `opening` before anything is made.

use std::path::Path;

use super::StorageError;
use super::os::{Kind, Space};
use super::survey::{Survey, Surveyor};
use crate::content::{EntryKind, FileIndex, Layout};

/// Most bytes left free on purpose, for the record and the file system's own needs.
const RESERVE_MAX: u64 = 16 * 1024 * 1024;
/// Part of the needed bytes that is left free, as a shift: 1/128 covers a record entry per 16 KiB piece and block maps.
const RESERVE_SHIFT: u32 = 7;
/// Bytes left free even for the smallest share: manifest, hashes, record and lock take a block each.
const RESERVE_MIN: u64 = 64 * 1024;
/// The part folder and, in it, the lock, manifest, hashes, record, and one of them while it is written.
const OWN_INODES: u64 = 6;
/// Bytes a name takes in its folder beside its own, about.
const NAME_COST: u64 = 12;
/// A link as long as this has a block of its own; a shorter one lies in its inode.
const LINK_IN_INODE_MAX: usize = 59;

const _: () = assert!(RESERVE_MIN <= RESERVE_MAX);

/// What a fetch will take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    /// Bytes of disk, in whole blocks.
    bytes: u64,
    /// Files, folders and links to be made.
    inodes: u64,
}

impl Room {
    /// What is still to be made of what `surveyor` was asked about and `survey` did not find.
    ///
    /// # Errors
    /// [`StorageError::Read`], [`StorageError::Blocked`] when it cannot be told what is there.
    pub(super) fn needed(surveyor: &Surveyor<'_>, survey: &Survey) -> Result<Self, StorageError> {
        let mut walk = Walk {
            surveyor,
            folders: Vec::new(),
            is_top_there: false,
            room: Self::default(),
            name_bytes: 0,
            made_folders: 0,
        };
        walk.top()?;
        let mut files = 0_u32;
        let mut has_pieces = false;
        for (place, entry) in surveyor.manifest.entries().iter().enumerate() {
            let file = match entry.kind {
                EntryKind::File { .. } => Some(FileIndex::new(files)),
                EntryKind::Symlink { .. } | EntryKind::EmptyFolder => None,
            };
            files += u32::from(file.is_some());
            if !surveyor.chosen.has_entry(place) {
                continue;
            }
            let path = entry.path.as_str();
            let is_folder_there = walk.folders_above(path)?;
            match (&entry.kind, file) {
                (EntryKind::File { len: 1.., .. }, Some(file)) => {
                    if survey.files[file.as_usize()].published.is_none() {
                        has_pieces = true;
                        walk.part_file(path, file)?;
                    }
                }
                _ if is_folder_there && walk.lies_there(path)? => {}
                (EntryKind::EmptyFolder, _) => walk.folder(path),
                (EntryKind::Symlink { target }, _) => {
                    walk.name(path);
                    if target.len() > LINK_IN_INODE_MAX {
                        walk.room.bytes += surveyor.block;
                    }
                }
                _ => walk.name(path),
            }
        }
        // Each new folder has a block that holds names already.
        let in_blocks = (walk.made_folders + 1).saturating_mul(surveyor.block);
        let names = walk.name_bytes.saturating_sub(in_blocks);
        let mut room = walk.room;
        room.bytes = room.bytes.saturating_add(survey.needed);
        room.bytes = room
            .bytes
            .saturating_add(names.next_multiple_of(surveyor.block));
        if has_pieces && surveyor.part.is_none() {
            room.inodes += OWN_INODES;
        }
        Ok(room)
    }

    /// That all of it fits, with a little left for the record and the file system itself.
    ///
    /// # Errors
    /// [`StorageError::DiskFull`], [`StorageError::NoInodes`]: naming `result`.
    pub(super) fn check(self, result: &Path, space: Space) -> Result<(), StorageError> {
        let Self { bytes, inodes } = self;
        if let Some(free) = space.inodes
            && inodes > free
        {
            return Err(StorageError::NoInodes {
                path: result.to_path_buf(),
                needed: inodes,
                free,
            });
        }
        let reserve = (RESERVE_MIN + (bytes >> RESERVE_SHIFT)).min(RESERVE_MAX);
        if bytes > 0 && bytes.saturating_add(reserve) > space.free {
            return Err(StorageError::DiskFull {
                path: result.to_path_buf(),
                needed: bytes,
                free: Some(space.free),
            });
        }
        Ok(())
    }
}

/// A walk over the chosen entries in path order, and what it has added up.
struct Walk<'a> {
    surveyor: &'a Surveyor<'a>,
    /// Folders above the entry looked at last, outermost first: where the path of each ends, and whether it exists.
    folders: Vec<(String, bool)>,
    is_top_there: bool,
    room: Room,
    name_bytes: u64,
    made_folders: u64,
}

impl Walk<'_> {
    /// The folder that has the share's name.
    fn top(&mut self) -> Result<(), StorageError> {
        if self.surveyor.manifest.layout() == Layout::File {
            self.is_top_there = self.surveyor.root.is_some();
            return Ok(());
        }
        let name = Path::new(&self.surveyor.place.name);
        let found = self.surveyor.root.map(|root| root.stat(name)).transpose()?;
        self.is_top_there = found.flatten().is_some();
        if !self.is_top_there {
            self.folder(self.surveyor.manifest.name().as_str());
        }
        Ok(())
    }

    /// Adds the folders above `path` that are missing, each once; whether its own exists.
    fn folders_above(&mut self, path: &str) -> Result<bool, StorageError> {
        let is_above = |folder: &str| {
            path.strip_prefix(folder)
                .is_some_and(|rest| rest.starts_with('/'))
        };
        while self
            .folders
            .last()
            .is_some_and(|(folder, _)| !is_above(folder))
        {
            self.folders.pop();
        }
        let known = self
            .folders
            .last()
            .map_or(0, |(folder, _)| folder.len() + 1);
        let ends: Vec<_> = path[known..]
            .match_indices('/')
            .map(|(end, _)| known + end)
            .collect();
        for end in ends {
            let folder = &path[..end];
            let is_there = self.is_folder_there() && self.lies_there(folder)?;
            if !is_there {
                self.folder(folder);
            }
            self.folders.push((folder.to_owned(), is_there));
        }
        Ok(self.is_folder_there())
    }

    /// Whether the folder looked at last exists.
    fn is_folder_there(&self) -> bool {
        self.folders
            .last()
            .map_or(self.is_top_there, |(_, is_there)| *is_there)
    }

    /// Whether anything lies at `path` of the share.
    fn lies_there(&self, path: &str) -> Result<bool, StorageError> {
        let Some(root) = self.surveyor.root else {
            return Ok(false);
        };
        let path = self.surveyor.place.path_at(path);
        Ok(root.stat(&path)?.is_some())
    }

    fn part_file(&mut self, path: &str, file: FileIndex) -> Result<(), StorageError> {
        let begun = self
            .surveyor
            .part
            .map(|part| part.stat_file(file))
            .transpose()?;
        let is_begun = begun.flatten().is_some_and(|stat| stat.kind == Kind::File);
        self.name(path);
        self.room.inodes -= u64::from(is_begun);
        Ok(())
    }

    fn folder(&mut self, path: &str) {
        self.name(path);
        self.made_folders += 1;
        self.room.bytes = self.room.bytes.saturating_add(self.surveyor.block);
    }

    /// Something new that has this path.
    fn name(&mut self, path: &str) {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.name_bytes += name.len() as u64 + NAME_COST;
        self.room.inodes += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(free: u64, inodes: Option<u64>) -> Space {
        Space {
            free,
            inodes,
            block: 4096,
        }
    }

    #[test]
    fn bytes_and_inodes_have_to_fit_both_and_unknown_numbers_of_inodes_always_do() {
        let room = Room {
            bytes: 1 << 20,
            inodes: 100,
        };
        let result = Path::new("share");
        assert!(room.check(result, space(2 << 20, Some(100))).is_ok());
        assert!(room.check(result, space(2 << 20, None)).is_ok());
        let error = room.check(result, space(1 << 20, Some(100))).unwrap_err();
        assert!(matches!(error, StorageError::DiskFull { .. }), "{error:?}");
        let error = room.check(result, space(2 << 20, Some(99))).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("needs 100 files and folders"), "{text}");
        assert!(text.contains("room for 99 (`df -i`)"), "{text}");
        // Who needs nothing is refused nowhere.
        assert!(Room::default().check(result, space(0, Some(0))).is_ok());
    }
}
