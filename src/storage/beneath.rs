//! Opens that cannot leave the folder the user named.
//!
//! Every name below the target is resolved one element at a time from an open folder handle, never following a link, so
//! a link that lies there already, or is put there during a download, cannot lead a write outside. It never resolves a
//! path from a remote by text. Called by `target`, `part` and `fetch`.
//! Source: openat2(2) `RESOLVE_BENEATH`, as cap-std uses it, with O_NOFOLLOW on top.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::StorageError;
use super::disk;
use super::os::{self, Kind, Stat};
use super::recent::Recent;

/// Folders kept open for the next file in them: files arrive in no order, but mostly a few folders at a time.
const OPEN_FOLDERS_MAX: usize = 24;

/// An open folder and what lies below it. Paths given to it are relative and consist of plain elements.
#[derive(Debug)]
pub(super) struct Beneath {
    dir: Arc<Dir>,
    path: PathBuf,
    folders: Recent<PathBuf, Arc<Dir>>,
}

/// Whether a name that is taken may be given to something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replace {
    Never,
    Allowed,
}

/// Whether missing folders on the way are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Make,
    Leave,
}

impl Beneath {
    /// Opens the folder at `path`; links in `path` itself are followed, for the user wrote them. `None` when nothing is there.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, StorageError> {
        match disk::look(|| Dir::open_ambient_dir(path, ambient_authority())) {
            Ok(dir) => Ok(Some(Self {
                dir: Arc::new(dir),
                path: path.to_path_buf(),
                folders: Recent::new(OPEN_FOLDERS_MAX),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                Err(StorageError::NotAFolder {
                    path: path.to_path_buf(),
                })
            }
            Err(source) => Err(StorageError::Read {
                path: path.to_path_buf(),
                source,
            }),
        }
    }

    /// The handle of the folder itself.
    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Where `path` lies for the user; for messages only.
    pub(super) fn shown(&self, path: &Path) -> PathBuf {
        self.path.join(path)
    }

    /// What lies at `path`; `None` when nothing does or a folder on the way is missing.
    ///
    /// # Errors
    /// [`StorageError::Blocked`] when a link or a file lies where a folder on the way should be.
    pub(super) fn stat(&self, path: &Path) -> Result<Option<Stat>, StorageError> {
        let Some((parent, name)) = self.parent(path, Missing::Leave)? else {
            return Ok(None);
        };
        os::stat_in(&parent, Path::new(name)).map_err(|source| StorageError::Read {
            path: self.shown(path),
            source,
        })
    }

    /// Opens the regular file at `path` for reading.
    ///
    /// # Errors
    /// [`StorageError::Read`] with `NotFound` when it is missing; [`StorageError::Blocked`] as in [`Self::stat`].
    pub(super) fn open_file(&self, path: &Path) -> Result<File, StorageError> {
        let failed = |source| StorageError::Read {
            path: self.shown(path),
            source,
        };
        let Some((parent, name)) = self.parent(path, Missing::Leave)? else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        open_file_in(&parent, name).map_err(failed)
    }

    /// Makes the folder at `path` and those above it; one that exists is left as it is.
    pub(super) fn make_folder(&self, path: &Path) -> Result<(), StorageError> {
        self.folder(path, Missing::Make).map(|_| ())
    }

    /// Brings the names in the folder at `path` to the disk itself; one that is not there any more has none.
    pub(super) fn sync_folder(&self, path: &Path) -> Result<(), StorageError> {
        let Some(dir) = self.folder(path, Missing::Leave)? else {
            return Ok(());
        };
        disk::sync_folder(&dir).map_err(|source| self.write_failed(path, source))
    }

    /// Gives the file `from/from_name` the name `path`, making the folders on the way.
    ///
    /// # Errors
    /// [`StorageError::TargetDiffers`] when the name is taken and `replace` is [`Replace::Never`], or a folder has it.
    pub(super) fn publish(
        &self,
        from: &Dir,
        from_name: &str,
        path: &Path,
        replace: Replace,
    ) -> Result<(), StorageError> {
        self.with_parent(path, |parent, name| match replace {
            Replace::Never => disk::rename_new(from, Path::new(from_name), parent, name),
            Replace::Allowed => disk::rename(from, Path::new(from_name), parent, name),
        })
    }

    /// Moves the file at `path` to `to/to_name`, the reverse of [`Self::publish`].
    pub(super) fn take_back(
        &self,
        path: &Path,
        to: &Dir,
        to_name: &str,
    ) -> Result<(), StorageError> {
        self.with_parent(path, |parent, name| {
            disk::rename(parent, name, to, Path::new(to_name))
        })
    }

    /// Makes an empty file at `path`, with the folders on the way.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub(super) fn make_empty_file(
        &self,
        path: &Path,
        executable: bool,
        replace: Replace,
    ) -> Result<(), StorageError> {
        self.with_parent(path, |parent, name| {
            if replace == Replace::Allowed {
                disk::remove_file_if_any(parent, name)?;
            }
            let mut options = OpenOptions::new();
            options
                .write(true)
                .create_new(true)
                .mode(mode_of(executable));
            disk::make_file(parent, name, &options).map(|_| ())
        })
    }

    /// Makes a link at `path` that says `target`; where it leads is not looked at.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub(super) fn make_link(
        &self,
        path: &Path,
        target: &str,
        replace: Replace,
    ) -> Result<(), StorageError> {
        self.with_parent(path, |parent, name| {
            if replace == Replace::Allowed {
                disk::remove_file_if_any(parent, name)?;
            }
            disk::make_link(target, parent, name)
        })
    }

    /// What the link at `path` says.
    pub(super) fn read_link(&self, path: &Path) -> Result<PathBuf, StorageError> {
        let failed = |source| StorageError::Read {
            path: self.shown(path),
            source,
        };
        let Some((parent, name)) = self.parent(path, Missing::Leave)? else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        parent.read_link_contents(name).map_err(failed)
    }

    /// Lets whoever may read the file at `path` run it too.
    pub(super) fn make_executable(&self, path: &Path) -> Result<(), StorageError> {
        let file = self.open_file(path)?;
        let change = || {
            let mut permissions = file.metadata()?.permissions();
            permissions.set_mode(permissions.mode() | (permissions.mode() & 0o444) >> 2);
            file.set_permissions(permissions)
        };
        change().map_err(|source| self.write_failed(path, source))
    }

    /// Runs `act` with the open parent of `path`. When a folder kept open was removed meanwhile, walks afresh and runs it
    /// once more: the user may tidy up below the target while a download runs.
    fn with_parent(
        &self,
        path: &Path,
        act: impl Fn(&Dir, &Path) -> io::Result<()>,
    ) -> Result<(), StorageError> {
        let mut again = true;
        loop {
            let Some((parent, name)) = self.parent(path, Missing::Make)? else {
                return Err(self.write_failed(path, io::ErrorKind::NotFound.into()));
            };
            match act(&parent, Path::new(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && again => {
                    again = false;
                    self.folders.clear();
                }
                result => return result.map_err(|source| self.write_failed(path, source)),
            }
        }
    }

    /// The error for a failed creation at `path`.
    fn write_failed(&self, path: &Path, source: io::Error) -> StorageError {
        let path = self.shown(path);
        match source.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::IsADirectory => {
                StorageError::TargetDiffers { path }
            }
            _ => StorageError::writing(path, &self.path, 0, source),
        }
    }

    /// The open folder that holds the last element of `path`, and that element.
    fn parent<'p>(
        &self,
        path: &'p Path,
        missing: Missing,
    ) -> Result<Option<(Arc<Dir>, &'p OsStr)>, StorageError> {
        let name = path
            .file_name()
            .expect("paths below a target end in a plain element");
        let above = path.parent().unwrap_or(Path::new(""));
        Ok(self.folder(above, missing)?.map(|dir| (dir, name)))
    }

    /// The open folder at `path`, walked element by element from the nearest one still open.
    fn folder(&self, path: &Path, missing: Missing) -> Result<Option<Arc<Dir>>, StorageError> {
        let Some(name) = path.file_name() else {
            assert!(
                path.as_os_str().is_empty(),
                "only the target itself has no last element"
            );
            return Ok(Some(Arc::clone(&self.dir)));
        };
        let key = path.to_path_buf();
        if let Some(dir) = self.folders.get(&key) {
            return Ok(Some(dir));
        }
        let above = path.parent().unwrap_or(Path::new(""));
        let Some(parent) = self.folder(above, missing)? else {
            return Ok(None);
        };
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotADirectory => StorageError::Blocked {
                path: self.shown(path),
            },
            _ if Errno::from_io_error(&source) == Some(Errno::LOOP) => StorageError::Blocked {
                path: self.shown(path),
            },
            _ => StorageError::writing(self.shown(path), &self.path, 0, source),
        };
        let dir = match open_folder_in(&parent, name) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if missing == Missing::Leave {
                    return Ok(None);
                }
                match disk::make_folder(&parent, Path::new(name)) {
                    Ok(()) => {}
                    // Another thread made it between the two calls.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(failed(error)),
                }
                open_folder_in(&parent, name).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        let dir = Arc::new(dir);
        self.folders.insert(key, Arc::clone(&dir));
        Ok(Some(dir))
    }
}

/// Mode a new file asks for; the system takes the user's umask off.
pub(super) fn mode_of(executable: bool) -> u32 {
    if executable { 0o777 } else { 0o666 }
}

/// Opens the folder `name`, one element, inside `dir`; a link is refused (`NotADirectory`).
pub(super) fn open_folder_in(dir: &Dir, name: &OsStr) -> io::Result<Dir> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(flags(OFlags::NOFOLLOW | OFlags::DIRECTORY));
    Ok(Dir::from_std_file(
        disk::look(|| dir.open_with(plain(name)?, &options))?.into_std(),
    ))
}

/// Opens the regular file `name`, one element, inside `dir` for reading; a link is refused, a fifo does not block.
pub(super) fn open_file_in(dir: &Dir, name: &OsStr) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK));
    let file = disk::look(|| dir.open_with(plain(name)?, &options))?.into_std();
    if os::stat_file(&file)?.kind == Kind::File {
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ))
    }
}

// The flag constants are unsigned, the option takes the C int; all of them lie in the low 31 bits.
pub(super) fn flags(flags: OFlags) -> i32 {
    i32::try_from(flags.bits()).expect("open flags fit in a C int")
}

/// Refuses what is not exactly one plain element, whoever called.
fn plain(name: &OsStr) -> io::Result<&Path> {
    let path = Path::new(name);
    let mut components = path.components();
    match (components.next(), components.next()) {
        (Some(Component::Normal(only)), None) if only == name => Ok(path),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Scene {
        _folder: tempfile::TempDir,
        outside: PathBuf,
        root: Beneath,
    }

    fn scene() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("inside");
        let outside = folder.path().join("outside");
        fs::create_dir(&inside).unwrap();
        fs::create_dir(&outside).unwrap();
        let root = Beneath::open(&inside).unwrap().unwrap();
        Scene {
            _folder: folder,
            outside,
            root,
        }
    }

    #[test]
    fn a_link_to_the_outside_is_never_followed() {
        let scene = scene();
        symlink(&scene.outside, scene.root.shown(Path::new("door"))).unwrap();
        scene.root.dir().write("part", "data").unwrap();
        let from =
            Dir::open_ambient_dir(scene.root.shown(Path::new("")), ambient_authority()).unwrap();
        let error = scene
            .root
            .publish(&from, "part", Path::new("door/stolen"), Replace::Allowed)
            .unwrap_err();
        assert!(matches!(error, StorageError::Blocked { .. }), "{error:?}");
        assert!(matches!(
            scene.root.stat(Path::new("door/x")),
            Err(StorageError::Blocked { .. })
        ));
        assert!(scene.root.make_folder(Path::new("door/new")).is_err());
        assert!(
            scene
                .root
                .make_link(Path::new("door/l"), "x", Replace::Never)
                .is_err()
        );
        assert!(
            scene
                .root
                .make_empty_file(Path::new("door/e"), false, Replace::Never)
                .is_err()
        );
        assert_eq!(fs::read_dir(&scene.outside).unwrap().count(), 0);
    }

    #[test]
    fn a_link_that_stays_inside_is_not_followed_either() {
        let scene = scene();
        scene.root.make_folder(Path::new("real")).unwrap();
        symlink("real", scene.root.shown(Path::new("alias"))).unwrap();
        let error = scene.root.make_folder(Path::new("alias/new")).unwrap_err();
        assert!(matches!(error, StorageError::Blocked { .. }), "{error:?}");
    }

    #[test]
    fn elements_that_climb_are_refused() {
        let scene = scene();
        for name in ["..", ".", "a/b", "/", "/etc", ""] {
            assert!(
                open_folder_in(scene.root.dir(), OsStr::new(name)).is_err(),
                "{name}"
            );
        }
    }

    #[test]
    fn a_folder_removed_meanwhile_is_made_again() {
        let scene = scene();
        scene
            .root
            .make_empty_file(Path::new("a/b/one"), false, Replace::Never)
            .unwrap();
        fs::remove_dir_all(scene.root.shown(Path::new("a"))).unwrap();
        scene
            .root
            .make_empty_file(Path::new("a/b/two"), false, Replace::Never)
            .unwrap();
        assert!(scene.root.shown(Path::new("a/b/two")).exists());
    }

    #[test]
    fn opening_a_fifo_for_reading_neither_blocks_nor_succeeds() {
        let scene = scene();
        let path = scene.root.shown(Path::new("pipe"));
        rustix::fs::mkfifoat(
            rustix::fs::CWD,
            &path,
            rustix::fs::Mode::from_raw_mode(0o600),
        )
        .unwrap();
        assert!(scene.root.open_file(Path::new("pipe")).is_err());
    }
}
