//! The few file calls that std and cap-std lack or name differently on every system: stat signatures, rename
//! without replacing, free space, boot identity.
//!
//! Owns no state and decides nothing. Every other file of this room calls it; a port to a new system begins here.
//! Source: renameat2(2), statvfs(3), openat2(2), proc(5).

use std::fs::File;
use std::io;
use std::path::Path;

use cap_std::fs::Dir;
use rustix::fs::{Access, AtFlags, CWD, FileType, OFlags};
use rustix::io::Errno;

use super::disk;

/// What tells a changed file from an unchanged one without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    /// Length in bytes.
    pub(super) len: u64,
    /// Last change of the content, nanoseconds since 1970.
    pub(super) mtime_ns: i128,
    /// Last change of the content, the name or the mode, nanoseconds since 1970; no program can set it back.
    pub(super) ctime_ns: i128,
    /// Inode number: another one means another file took the name.
    pub(super) inode: u64,
}

/// What lies at a path; links are not followed unless the call says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Link,
    Special,
}

/// One `stat` answer, cut down to what this room asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    pub(super) kind: Kind,
    pub(super) signature: Signature,
    /// Any of the three executable bits.
    pub(super) executable: bool,
    /// Bytes of disk the file takes; less than its length when it is sparse.
    pub(super) allocated: u64,
    /// Which file system it lies on.
    pub(super) device: u64,
}

impl Stat {
    // The widths of these fields differ between systems: a cast that is idle here is needed there.
    #[allow(clippy::unnecessary_cast, clippy::cast_lossless)]
    fn from_raw(raw: &rustix::fs::Stat) -> Self {
        let kind = match FileType::from_raw_mode(raw.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Folder,
            FileType::Symlink => Kind::Link,
            _ => Kind::Special,
        };
        let nanoseconds = |seconds: i128, rest: i128| seconds * 1_000_000_000 + rest;
        Self {
            kind,
            signature: disk::seen(Signature {
                len: raw.st_size.max(0) as u64,
                mtime_ns: nanoseconds(raw.st_mtime as i128, raw.st_mtime_nsec as i128),
                ctime_ns: nanoseconds(raw.st_ctime as i128, raw.st_ctime_nsec as i128),
                inode: raw.st_ino as u64,
            }),
            executable: raw.st_mode & 0o111 != 0,
            allocated: raw.st_blocks.max(0) as u64 * 512,
            device: raw.st_dev as u64,
        }
    }
}

/// What `name`, one element, is inside `dir`; `None` when nothing has that name. A link is not followed.
pub(super) fn stat_in(dir: &Dir, name: &Path) -> io::Result<Option<Stat>> {
    disk::look(
        || match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(raw) => Ok(Some(Stat::from_raw(&raw))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        },
    )
}

/// Whether `name`, one element, inside `dir` belongs to this user. A link is not followed.
pub(super) fn is_ours(dir: &Dir, name: &Path) -> io::Result<bool> {
    let raw = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(raw.st_uid == rustix::process::geteuid().as_raw())
}

/// What an open file is now.
pub(super) fn stat_file(file: &File) -> io::Result<Stat> {
    disk::look(|| Ok(Stat::from_raw(&rustix::fs::fstat(file)?)))
}

/// What lies at `path`, links followed.
pub(super) fn stat_path(path: &Path) -> io::Result<Stat> {
    Ok(Stat::from_raw(&rustix::fs::stat(path)?))
}

/// What lies at `path`, a link counted as a link.
pub(super) fn stat_link(path: &Path) -> io::Result<Stat> {
    Ok(Stat::from_raw(&rustix::fs::lstat(path)?))
}

/// Opens the file at `path`, links followed, for reads that fail where they would wait.
pub(super) fn open_without_waiting(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?.into())
}

/// Gives `from/from_name` the name `to/to_name` and never replaces what has that name: `AlreadyExists` then.
///
/// Where the system or the file system has no such rename it links and unlinks, which refuses in the same way; where links
/// are missing too (FAT) it looks first and renames, the only case in which somebody else can come between.
pub(super) fn rename_new(from: &Dir, from_name: &Path, to: &Dir, to_name: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        match rustix::fs::renameat_with(
            from,
            from_name,
            to,
            to_name,
            rustix::fs::RenameFlags::NOREPLACE,
        ) {
            Ok(()) => return Ok(()),
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    match rustix::fs::linkat(from, from_name, to, to_name, AtFlags::empty()) {
        Ok(()) => return from.remove_file(from_name),
        Err(Errno::PERM | Errno::NOSYS | Errno::NOTSUP | Errno::MLINK) => {}
        Err(errno) => return Err(errno.into()),
    }
    if stat_in(to, to_name)?.is_some() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    from.rename(from_name, to, to_name)
}

/// Where data begins at or after `offset`, or the file ends: what lies before reads as zeros. A file system may call
/// everything data. Moves the file's own position.
///
/// # Errors
/// `Unsupported` where the system has no such call; what it says where the file system has none.
pub(super) fn data_from(file: &File, offset: u64) -> io::Result<u64> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        let found = disk::look(|| Ok(rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset))?));
        match found {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => {
                Ok(stat_file(file)?.signature.len)
            }
            found => found,
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
    {
        let _ = (file, offset);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Room on the file system of `path`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    /// Bytes this user may still write.
    pub(super) free: u64,
    /// Files take whole multiples of this many bytes; at least 1.
    pub(super) block: u64,
    /// Files and folders this user may still make; `None` where their number is not fixed.
    pub(super) inodes: Option<u64>,
}

/// Room left for this user; `None` when the file system does not say (some network and user-space ones).
pub(super) fn space_at(path: &Path) -> Option<Space> {
    let told = rustix::fs::statvfs(path).ok()?;
    if told.f_blocks == 0 {
        return None;
    }
    let block = told.f_frsize.max(1);
    Some(Space {
        free: told.f_bavail.saturating_mul(block),
        block,
        inodes: (told.f_files > 0).then_some(told.f_favail),
    })
}

/// Whether a failed write means that space or quota ran out.
pub(super) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOSPC | Errno::DQUOT)
    )
}

/// Whether a failed write means that this user's quota ran out.
pub(super) fn is_over_quota(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::DQUOT)
}

/// Whether this user may create names in the folder at `path`.
pub(super) fn check_writable(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::accessat(
        CWD,
        path,
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    )?)
}

/// Asks the system to write everything it buffers for the file system of `dir`; `false` where it has no such call.
pub(super) fn sync_file_system(dir: &Dir) -> io::Result<bool> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        // The handle of a `Dir` may be one for paths only, which cannot be synced.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(dir, ".", flags, rustix::fs::Mode::empty())?;
        rustix::fs::syncfs(folder)?;
        Ok(true)
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = dir;
        Ok(false)
    }
}

/// What [`boot_id`] says where the system does not tell: it may be another boot every time.
pub(super) const BOOT_UNKNOWN: [u8; 16] = [0; 16];

/// A value that differs after every start of the machine; [`BOOT_UNKNOWN`] where the system does not tell.
pub(super) fn boot_id() -> [u8; 16] {
    #[cfg(test)]
    if let Some(id) = super::tests::watching::boot_id() {
        return id;
    }
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let mut id = [0; 16];
    let mut digits = text.bytes().filter_map(|byte| (byte as char).to_digit(16));
    for byte in &mut id {
        let (Some(high), Some(low)) = (digits.next(), digits.next()) else {
            return BOOT_UNKNOWN;
        };
        *byte = (high * 16 + low) as u8;
    }
    id
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use cap_std::ambient_authority;

    #[test]
    fn a_rename_without_replacing_refuses_a_taken_name_and_moves_to_a_free_one() {
        let folder = tempfile::tempdir().unwrap();
        let dir = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
        dir.write("from", "new").unwrap();
        dir.write("taken", "old").unwrap();
        let refused = rename_new(&dir, Path::new("from"), &dir, Path::new("taken")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(dir.read_to_string("taken").unwrap(), "old");
        rename_new(&dir, Path::new("from"), &dir, Path::new("free")).unwrap();
        assert_eq!(dir.read_to_string("free").unwrap(), "new");
        assert!(stat_in(&dir, Path::new("from")).unwrap().is_none());
    }

    #[test]
    fn a_signature_moves_when_bytes_of_the_same_length_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"aaaa").unwrap();
        let before = stat_path(&path).unwrap().signature;
        assert_eq!(before.len, 4);
        let other = folder.path().join("g");
        std::fs::write(&other, b"bbbb").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_ne!(stat_path(&path).unwrap().signature, before);
    }

    #[test]
    fn the_machine_tells_free_space_and_one_boot_identity() {
        assert!(space_at(Path::new("/")).unwrap().block >= 1);
        assert_eq!(boot_id(), boot_id());
    }
}
