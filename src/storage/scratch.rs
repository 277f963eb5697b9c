//! A folder of this process that is gone afterwards, for data that is wanted on its way only.
//!
//! Removed when dropped; what a killed process left is removed by the next one that makes a folder in the same place. A
//! lock tells the living from the dead. Called by `cli` for a fetch to stdout.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::StorageError;

/// A folder younger than this may belong to a process that has not locked it yet.
const AGE_MIN: Duration = Duration::from_secs(60);

/// A folder that lives as long as this value.
#[derive(Debug)]
pub struct Scratch {
    folder: tempfile::TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes a folder in `parent`, which is made when missing.
    ///
    /// # Errors
    /// [`StorageError::Write`], [`StorageError::DiskFull`].
    pub fn new(parent: &Path) -> Result<Self, StorageError> {
        let failed = |source| StorageError::writing(parent.to_path_buf(), parent, 0, source);
        fs::create_dir_all(parent).map_err(failed)?;
        remove_abandoned(parent);
        let folder = tempfile::tempdir_in(parent).map_err(failed)?;
        let lock = File::create(lock_of(folder.path())).map_err(failed)?;
        // Where there are no locks nobody takes the folder for abandoned either.
        let _ = lock.try_lock();
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn lock_of(folder: &Path) -> PathBuf {
    folder.join(".lock")
}

/// What cannot be looked at or removed stays: it costs space, and the next run tries again.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let is_old = fs::symlink_metadata(&path)
            .and_then(|metadata| metadata.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > AGE_MIN));
        let is_free = || {
            File::options()
                .write(true)
                .open(lock_of(&path))
                .is_ok_and(|lock| lock.try_lock().is_ok())
        };
        if is_old && is_free() {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_is_gone_afterwards_and_the_dead_are_buried() {
        let parent = tempfile::tempdir().unwrap();
        let long_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        let make = |name: &str| {
            let folder = parent.path().join(name);
            fs::create_dir(&folder).unwrap();
            fs::write(lock_of(&folder), b"").unwrap();
            fs::write(folder.join("data"), b"left").unwrap();
            folder
        };
        let [dead, young, living] = ["dead", "young", "living"].map(make);
        for folder in [&dead, &living] {
            File::open(folder).unwrap().set_modified(long_ago).unwrap();
        }
        let lock = File::open(lock_of(&living)).unwrap();
        lock.try_lock().unwrap();
        let scratch = Scratch::new(parent.path()).unwrap();
        assert!(!dead.exists() && young.exists() && living.exists());
        let path = scratch.path().to_path_buf();
        assert!(path.exists());
        drop(scratch);
        assert!(!path.exists());
    }
}
