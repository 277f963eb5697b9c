//! The calls by which a fetch touches the disk, one function each: what it makes, writes, syncs, renames and removes.
//!
//! Adds nothing to the system's calls. It is narrow so that tests can stand in it: they write down the exact sequence, fail
//! any one call, and make every state that a crash can leave (`tests/watching`). In a program that is not a test
//! nobody does. Called by `beneath`, `part`, `record`, `opening` and `fetch`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::SystemTime;

use cap_std::fs::{Dir, OpenOptions};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::os;

/// What is about to happen.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation<'a> {
    /// Opens what exists, or only looks at it.
    Look,
    Read,
    /// Opens the file `name`, making it when it is missing.
    Make {
        dir: &'a Dir,
        name: &'a Path,
    },
    MakeFolder {
        dir: &'a Dir,
        name: &'a Path,
    },
    /// Makes a folder on the way to the target.
    MakeFolderAt {
        path: &'a Path,
    },
    MakeLink {
        dir: &'a Dir,
        name: &'a Path,
        says: &'a str,
    },
    Rename {
        from: &'a Dir,
        from_name: &'a Path,
        to: &'a Dir,
        to_name: &'a Path,
    },
    RemoveFile {
        dir: &'a Dir,
        name: &'a Path,
    },
    RemoveFolder {
        dir: &'a Dir,
        name: &'a Path,
    },
    Write {
        file: &'a File,
        bytes: &'a [u8],
        offset: u64,
    },
    SetLen {
        file: &'a File,
        len: u64,
    },
    SetTime,
    SyncData {
        file: &'a File,
    },
    SyncFolder {
        dir: &'a Dir,
    },
    SyncFileSystem,
}

/// Does what the operation says by running the closure, which is told the most bytes it may write; in a program that is not
/// a test the operation is not even made.
macro_rules! pass {
    ($operation:expr, $act:expr) => {{
        #[cfg(test)]
        let result = super::tests::watching::pass($operation, $act);
        #[cfg(not(test))]
        let result = direct($act);
        result
    }};
}

#[cfg(not(test))]
#[inline]
fn direct<T>(act: impl FnOnce(usize) -> io::Result<T>) -> io::Result<T> {
    act(usize::MAX)
}

/// The signature of a file, which a test's copy of a file takes over from what it is a copy of.
#[cfg(not(test))]
#[inline]
pub(super) fn seen(signature: os::Signature) -> os::Signature {
    signature
}

#[cfg(test)]
pub(super) use super::tests::watching::seen;

/// Runs a call that changes nothing: opens what exists, or looks at it.
pub(super) fn look<T>(act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    pass!(Operation::Look, |_| act())
}

/// Opens the file `name`; `options` say that it is made when missing, and perhaps emptied.
pub(super) fn make_file(dir: &Dir, name: &Path, options: &OpenOptions) -> io::Result<File> {
    pass!(Operation::Make { dir, name }, |_| {
        dir.open_with(name, options)
            .map(cap_std::fs::File::into_std)
    })
}

pub(super) fn make_folder(dir: &Dir, name: &Path) -> io::Result<()> {
    pass!(Operation::MakeFolder { dir, name }, |_| {
        dir.create_dir(name)
    })
}

pub(super) fn make_folder_at(path: &Path) -> io::Result<()> {
    pass!(Operation::MakeFolderAt { path }, |_| {
        std::fs::create_dir(path)
    })
}

/// Makes a link that says `says`; where it leads is not looked at.
pub(super) fn make_link(says: &str, dir: &Dir, name: &Path) -> io::Result<()> {
    pass!(Operation::MakeLink { dir, name, says }, |_| {
        Ok(rustix::fs::symlinkat(says, dir, name)?)
    })
}

/// Gives `from/from_name` the name `to/to_name`, replacing what has it.
pub(super) fn rename(from: &Dir, from_name: &Path, to: &Dir, to_name: &Path) -> io::Result<()> {
    pass!(
        Operation::Rename {
            from,
            from_name,
            to,
            to_name,
        },
        |_| from.rename(from_name, to, to_name)
    )
}

/// Gives `from/from_name` the name `to/to_name` and never replaces what has that name: see [`os::rename_new`].
pub(super) fn rename_new(from: &Dir, from_name: &Path, to: &Dir, to_name: &Path) -> io::Result<()> {
    pass!(
        Operation::Rename {
            from,
            from_name,
            to,
            to_name,
        },
        |_| os::rename_new(from, from_name, to, to_name)
    )
}

/// Removes the file or link `name`; nothing there is fine.
pub(super) fn remove_file_if_any(dir: &Dir, name: &Path) -> io::Result<()> {
    pass!(Operation::RemoveFile { dir, name }, |_| {
        match dir.remove_file(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    })
}

pub(super) fn remove_folder(dir: &Dir, name: &Path) -> io::Result<()> {
    pass!(Operation::RemoveFolder { dir, name }, |_| {
        dir.remove_dir(name)
    })
}

/// Fills `into` from `offset`; the file's own position is neither used nor moved, so threads may share the handle.
pub(super) fn read_exact_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    pass!(Operation::Read, |_| file.read_exact_at(into, offset))
}

/// As many bytes from `offset` as one call gives, 0 at the end of the file.
pub(super) fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    pass!(Operation::Read, |_| file.read_at(into, offset))
}

/// Writes all of `bytes` at `offset`, in as many calls as the system needs; threads may share the handle.
pub(super) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let (mut rest, mut offset) = (bytes, offset);
    while !rest.is_empty() {
        let written = pass!(
            Operation::Write {
                file,
                bytes: rest,
                offset,
            },
            |most: usize| file.write_at(&rest[..rest.len().min(most)], offset)
        );
        match written {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => {
                rest = &rest[len..];
                offset += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(super) fn set_len(file: &File, len: u64) -> io::Result<()> {
    pass!(Operation::SetLen { file, len }, |_| file.set_len(len))
}

pub(super) fn set_time(file: &File, time: SystemTime) -> io::Result<()> {
    pass!(Operation::SetTime, |_| file.set_modified(time))
}

/// Brings the bytes of `file`, and its length, to the disk itself. After an error nobody knows what reached it, and asking
/// again may be answered with success: the system counts the bytes as written.
pub(super) fn sync_data(file: &File) -> io::Result<()> {
    pass!(Operation::SyncData { file }, |_| file.sync_data())
}

/// Brings the names in `dir` to the disk itself, where the file system has such a call.
pub(super) fn sync_folder(dir: &Dir) -> io::Result<()> {
    pass!(Operation::SyncFolder { dir }, |_| {
        // The handle of a `Dir` may be one for paths only, which cannot be synced.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = match rustix::fs::openat(dir, ".", flags, Mode::empty()) {
            // Names may be made in a folder that may not be listed.
            Err(Errno::ACCESS) => return Ok(()),
            folder => folder?,
        };
        match rustix::fs::fsync(folder) {
            // Some network and user-space file systems keep names by other means.
            Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
            result => Ok(result?),
        }
    })
}

/// Asks the system to write everything it buffers for the file system of `dir`; `false` where it has no such call.
pub(super) fn sync_file_system(dir: &Dir) -> io::Result<bool> {
    pass!(Operation::SyncFileSystem, |_| os::sync_file_system(dir))
}
