//! `Leftover`: what a fetch left that was stopped, found below a folder, and removed when the user says so.
//!
//! Owns the question whether a folder is a part folder of ours that nobody uses: its name and what is in it have to say so,
//! down to the last file, and its lock has to be free. Follows no link and makes nothing. Called by the verb `clean`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cap_std::ambient_authority;
use cap_std::fs::Dir;

use super::os::{self, Kind};
use super::part;
use super::{StorageError, beneath, disk};
use crate::content::{Name, PATH_DEPTH_MAX, ShareId};

/// A part folder of ours that nobody uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Where it lies.
    pub path: PathBuf,
    /// Which share was fetched.
    pub share: ShareId,
    /// What the share is called: hostile text.
    pub name: Name,
    /// Bytes of disk it takes.
    pub bytes: u64,
    /// When something in it was written last.
    pub changed: SystemTime,
}

/// Why something that is named like a part folder is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untouched {
    /// A fetch has it.
    InUse,
    /// Another user's.
    NotOurs,
    /// Something in it was not made by a fetch, or something is missing that every fetch makes.
    Unlike,
}

impl fmt::Display for Untouched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InUse => "a fetch is using it",
            Self::NotOurs => "it belongs to another user",
            Self::Unlike => "it is not just what a fetch leaves",
        })
    }
}

/// What was found below a folder.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// In path order.
    pub found: Vec<Leftover>,
    /// Named like a part folder, in path order.
    pub untouched: Vec<(PathBuf, Untouched)>,
    /// Folders that could not be looked into.
    pub failed: Vec<StorageError>,
}

/// Where to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// In the folder itself.
    Folder,
    /// Also in all folders below it, up to the depth that shares have.
    Below,
}

impl Leftovers {
    /// Looks for part folders in `folder`. One that cannot be looked into is told and passed over.
    pub fn look(&mut self, folder: &Path, reach: Reach) {
        let name = folder
            .file_name()
            .filter(|name| part::is_part_folder_name(name));
        if let Some(name) = name {
            let parent = match folder.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
            match open_folder(parent) {
                Ok(parent) => self.inspect(&parent, name, folder.to_path_buf()),
                Err(error) => self.failed.push(StorageError::reading(parent, error)),
            }
            return;
        }
        match open_folder(folder) {
            Ok(dir) => self.walk(&dir, folder, reach, 0),
            Err(error) => self.failed.push(StorageError::reading(folder, error)),
        }
    }

    fn walk(&mut self, dir: &Dir, path: &Path, reach: Reach, depth: usize) {
        let names = match names_in(dir) {
            Ok(names) => names,
            Err(error) => return self.failed.push(StorageError::reading(path, error)),
        };
        for name in names {
            let below = if path == Path::new(".") {
                PathBuf::from(&name)
            } else {
                path.join(&name)
            };
            if part::is_part_folder_name(&name) {
                self.inspect(dir, &name, below);
                continue;
            }
            let is_folder = || {
                os::stat_in(dir, Path::new(&name))
                    .is_ok_and(|stat| stat.is_some_and(|stat| stat.kind == Kind::Folder))
            };
            if reach == Reach::Below && depth < PATH_DEPTH_MAX && is_folder() {
                match beneath::open_folder_in(dir, &name) {
                    Ok(inner) => self.walk(&inner, &below, reach, depth + 1),
                    Err(error) => self.failed.push(StorageError::reading(&below, error)),
                }
            }
        }
    }

    fn inspect(&mut self, parent: &Dir, name: &OsStr, path: PathBuf) {
        match Opened::open(parent, name, &path) {
            Ok(Ok(opened)) => self.found.push(opened.leftover),
            Ok(Err(reason)) => self.untouched.push((path, reason)),
            Err(error) => self.failed.push(StorageError::reading(&path, error)),
        }
    }
}

impl Leftover {
    /// Removes it, after all was looked at once more; `Err` in the result when it is to be left alone after all.
    ///
    /// # Errors
    /// [`StorageError::Read`], [`StorageError::Write`], [`StorageError::NotFound`].
    pub fn remove(&self) -> Result<Result<(), Untouched>, StorageError> {
        let reading = |error| StorageError::reading(&self.path, error);
        let parent = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let Some(name) = self.path.file_name() else {
            return Ok(Err(Untouched::Unlike));
        };
        let parent = open_folder(parent).map_err(reading)?;
        let opened = match Opened::open(&parent, name, &self.path).map_err(reading)? {
            Ok(opened) => opened,
            Err(reason) => return Ok(Err(reason)),
        };
        let remove = || {
            for name in opened.names.iter().filter(|name| *name != part::LOCK) {
                disk::remove_file_if_any(&opened.dir, Path::new(name))?;
            }
            // Last: until then nobody else can take the folder over.
            disk::remove_file_if_any(&opened.dir, Path::new(part::LOCK))?;
            disk::remove_folder(&parent, Path::new(name))
        };
        remove().map(Ok).map_err(|source| StorageError::Write {
            path: self.path.clone(),
            source,
        })
    }

    /// How long nothing in it has been written.
    #[must_use]
    pub fn age(&self, now: SystemTime) -> Duration {
        now.duration_since(self.changed).unwrap_or_default()
    }
}

/// A leftover whose lock is ours until this is dropped.
struct Opened {
    leftover: Leftover,
    dir: Dir,
    /// Files in it, all of them of ours.
    names: Vec<OsString>,
    _lock: File,
}

impl Opened {
    fn open(parent: &Dir, name: &OsStr, path: &Path) -> io::Result<Result<Self, Untouched>> {
        match os::stat_in(parent, Path::new(name))? {
            Some(stat) if stat.kind == Kind::Folder => {}
            _ => return Ok(Err(Untouched::Unlike)),
        }
        if !os::is_ours(parent, Path::new(name))? {
            return Ok(Err(Untouched::NotOurs));
        }
        let dir = beneath::open_folder_in(parent, name)?;
        let names = names_in(&dir)?;
        let mut bytes = 0_u64;
        let mut changed_ns = 0;
        for name in &names {
            let stat = os::stat_in(&dir, Path::new(name))?;
            let Some(stat) = stat.filter(|stat| stat.kind == Kind::File) else {
                return Ok(Err(Untouched::Unlike));
            };
            if !part::is_own_name(name) || !os::is_ours(&dir, Path::new(name))? {
                return Ok(Err(Untouched::Unlike));
            }
            bytes = bytes.saturating_add(stat.allocated);
            changed_ns = stat.signature.mtime_ns.max(changed_ns);
        }
        if !names.iter().any(|name| name == part::LOCK) {
            return Ok(Err(Untouched::Unlike));
        }
        let lock = beneath::open_file_in(&dir, OsStr::new(part::LOCK))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Err(Untouched::InUse)),
            // Where there are no locks nobody can tell whether it is in use.
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let Some((share, title)) =
            part::share_in(&dir).filter(|(share, _)| part::name_of(share).as_str() == name)
        else {
            return Ok(Err(Untouched::Unlike));
        };
        let since = u64::try_from(changed_ns).unwrap_or(0);
        Ok(Ok(Self {
            leftover: Leftover {
                path: path.to_path_buf(),
                share,
                name: title,
                bytes,
                changed: SystemTime::UNIX_EPOCH + Duration::from_nanos(since),
            },
            dir,
            names,
            _lock: lock,
        }))
    }
}

/// Opens the folder at a path that the user wrote: links in it are followed.
fn open_folder(path: &Path) -> io::Result<Dir> {
    Dir::open_ambient_dir(path, ambient_authority())
}

/// Names in a folder, sorted.
fn names_in(dir: &Dir) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in dir.entries()? {
        names.push(entry?.file_name());
    }
    names.sort_unstable();
    Ok(names)
}
