//! The part folder: where an unfinished fetch keeps its lock, what it fetches, its record, and its part files.
//!
//! `DIR/.shoal-<first 16 characters of the share id>.part/` holds `lock`, `manifest`, `hashes`, `record`, and one part file
//! per unfinished file, named by the file's index in hex (a file's own name may be too long for any suffix). It is
//! found by share id alone, so the same command finds it again. Called by `fetch`; `node` asks it for an earlier run.
//!
//! Whoever holds the lock on `lock` owns the folder. The system drops the lock with the process, however that ends.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use rustix::fs::OFlags;

use super::beneath::{self, Beneath};
use super::disk;
use super::os::{self, Stat};
use super::{StorageError, Target};
use crate::content::{
    Digest, FileIndex, MANIFEST_LEN_MAX, Manifest, Name, PIECE_COUNT_MAX, PieceHashes, ShareId,
};

const PREFIX: &str = ".shoal-";
const SUFFIX: &str = ".part";
/// The file whose lock says that somebody uses the folder.
pub(super) const LOCK: &str = "lock";
/// Characters of the share id in the name: 80 bits, so two shares never meet in one folder.
const ID_LEN: usize = 16;
/// Length of one piece hash in `hashes`, which is nothing but all of them in order.
const DIGEST_LEN: usize = 32;
/// Times the lock is tried again because the folder was removed by its finishing owner in between.
const LOCK_ATTEMPTS: u32 = 3;

/// The part folder of one share, locked by this process.
#[derive(Debug)]
pub struct PartFolder {
    dir: Dir,
    /// Its one element below the target folder.
    name: String,
    shown: PathBuf,
    /// Holds the lock until it is closed.
    _lock: File,
    /// This process made the folder.
    fresh: bool,
}

/// What happens to the bytes of a part file that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Keep,
    Drop,
}

/// What an earlier run left: enough to go on without asking anybody for the manifest.
#[derive(Debug)]
pub struct Resumable {
    /// The manifest of the share; its id is the one that was asked for.
    pub manifest: Manifest,
    /// Its piece hashes, checked against it.
    pub hashes: PieceHashes,
    pub(super) root: Beneath,
    pub(super) part: PartFolder,
}

impl PartFolder {
    /// That the target folder exists and takes files, or can be made. Creates nothing. For before going online.
    ///
    /// # Errors
    /// [`StorageError::NotAFolder`], [`StorageError::NotWritable`], [`StorageError::OutputName`].
    pub fn check_target(target: &Target) -> Result<(), StorageError> {
        target.check()
    }

    /// Looks for what an earlier run of the same fetch left, and locks it. `None` when there is nothing, or nothing readable.
    ///
    /// # Errors
    /// [`StorageError::Busy`] when another process holds it; [`StorageError::Read`] when it cannot even be looked for.
    pub fn open_existing(
        target: &Target,
        share: &ShareId,
    ) -> Result<Option<Resumable>, StorageError> {
        let Some(root) = Beneath::open(&target.folder()?)? else {
            return Ok(None);
        };
        let Some(part) = Self::open(&root, share)? else {
            return Ok(None);
        };
        let Some((manifest, hashes)) = part.load(share) else {
            return Ok(None);
        };
        Ok(Some(Resumable {
            manifest,
            hashes,
            root,
            part,
        }))
    }

    /// Opens and locks the part folder of `share` below `root`; `None` when there is none.
    pub(super) fn open(root: &Beneath, share: &ShareId) -> Result<Option<Self>, StorageError> {
        let name = name_of(share);
        let shown = root.shown(Path::new(&name));
        for _ in 0..LOCK_ATTEMPTS {
            let dir = match beneath::open_folder_in(root.dir(), OsStr::new(&name)) {
                Ok(dir) => dir,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                    return Err(StorageError::Blocked { path: shown });
                }
                Err(source) => {
                    return Err(StorageError::Read {
                        path: shown,
                        source,
                    });
                }
            };
            match lock(&dir) {
                Ok(Some(lock)) => {
                    return Ok(Some(Self {
                        dir,
                        name,
                        shown,
                        _lock: lock,
                        fresh: false,
                    }));
                }
                Ok(None) => {}
                Err(TryLockError::WouldBlock) => return Err(StorageError::Busy { path: shown }),
                Err(TryLockError::Error(source)) => {
                    return Err(StorageError::writing(shown.join("lock"), &shown, 0, source));
                }
            }
        }
        Err(StorageError::Busy { path: shown })
    }

    /// Makes and locks the part folder of `share` below `root`.
    ///
    /// # Errors
    /// [`StorageError::Busy`] when it has come to exist: its maker is at work.
    pub(super) fn create(root: &Beneath, share: &ShareId) -> Result<Self, StorageError> {
        let name = name_of(share);
        let shown = root.shown(Path::new(&name));
        match disk::make_folder(root.dir(), Path::new(&name)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StorageError::Busy { path: shown });
            }
            Err(source) => return Err(StorageError::writing(shown.clone(), &shown, 0, source)),
        }
        match Self::open(root, share) {
            Ok(Some(part)) => Ok(Self {
                fresh: true,
                ..part
            }),
            Ok(None) => Err(StorageError::Busy { path: shown }),
            Err(error) => {
                // Another process may have locked it in between; then it is not empty, and stays.
                let _ = disk::remove_folder(root.dir(), Path::new(&name));
                Err(error)
            }
        }
    }

    /// Whether this process made the folder.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Where it lies, for messages.
    pub(super) fn shown(&self) -> &Path {
        &self.shown
    }

    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Saves what is fetched, unless it is there already.
    pub(super) fn save(
        &self,
        manifest: &Manifest,
        hashes: &PieceHashes,
    ) -> Result<(), StorageError> {
        let share = manifest.id();
        if !self.fresh && self.load(&share).is_some() {
            return Ok(());
        }
        let mut digests = Vec::with_capacity(hashes.as_slice().len() * DIGEST_LEN);
        for digest in hashes.as_slice() {
            digests.extend_from_slice(digest.as_bytes());
        }
        self.write_whole("manifest", &manifest.encode())?;
        self.write_whole("hashes", &digests)
    }

    /// What was saved, if it is whole and of this share.
    fn load(&self, share: &ShareId) -> Option<(Manifest, PieceHashes)> {
        saved_in(&self.dir).filter(|(manifest, _)| manifest.id() == *share)
    }

    /// Brings what was saved to the disk itself.
    pub(super) fn sync_saved(&self) -> Result<(), StorageError> {
        for name in ["manifest", "hashes"] {
            let synced = beneath::open_file_in(&self.dir, OsStr::new(name))
                .and_then(|file| disk::sync_data(&file));
            match synced {
                // Removed by somebody: the next run asks its peers for it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(|source| {
                    StorageError::writing(self.shown.join(name), &self.shown, 0, source)
                })?,
            }
        }
        Ok(())
    }

    /// Opens the record, making an empty one when there is none.
    pub(super) fn open_record(&self) -> Result<File, StorageError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true);
        self.open_with("record", &options)
    }

    /// Opens the part file of `file` for reading and writing, making it when there is none; `executable` decides the mode it
    /// is made with, and keeps when it is published.
    pub(super) fn create_file(
        &self,
        file: FileIndex,
        executable: bool,
        content: Content,
    ) -> Result<File, StorageError> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(content == Content::Drop);
        options
            .mode(beneath::mode_of(executable))
            .custom_flags(beneath::flags(OFlags::NOFOLLOW));
        self.open_with(&file_name(file), &options)
    }

    /// Opens the part file of `file` for reading.
    pub(super) fn open_file(&self, file: FileIndex) -> Result<File, StorageError> {
        let name = file_name(file);
        beneath::open_file_in(&self.dir, OsStr::new(&name)).map_err(|source| StorageError::Read {
            path: self.shown.join(name),
            source,
        })
    }

    /// What the part file of `file` is; `None` when there is none.
    pub(super) fn stat_file(&self, file: FileIndex) -> Result<Option<Stat>, StorageError> {
        let name = file_name(file);
        os::stat_in(&self.dir, Path::new(&name)).map_err(|source| StorageError::Read {
            path: self.shown.join(name),
            source,
        })
    }

    /// Removes the part file of `file`, if any.
    pub(super) fn remove_file(&self, file: FileIndex) -> Result<(), StorageError> {
        let name = file_name(file);
        disk::remove_file_if_any(&self.dir, Path::new(&name)).map_err(|source| {
            StorageError::Write {
                path: self.shown.join(name),
                source,
            }
        })
    }

    /// Removes the folder with everything in it. The lock file goes last: until then nobody else can take the folder over.
    pub(super) fn remove(&self, root: &Beneath) -> io::Result<()> {
        for entry in disk::look(|| self.dir.entries())? {
            let entry = entry?;
            let name = entry.file_name();
            if name == "lock" {
                continue;
            }
            if entry.file_type()?.is_dir() {
                self.dir.remove_dir_all(&name)?;
            } else {
                disk::remove_file_if_any(&self.dir, Path::new(&name))?;
            }
        }
        disk::remove_file_if_any(&self.dir, Path::new("lock"))?;
        match disk::remove_folder(root.dir(), Path::new(&self.name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn open_with(&self, name: &str, options: &OpenOptions) -> Result<File, StorageError> {
        match disk::make_file(&self.dir, Path::new(name), options) {
            Ok(file) => Ok(file),
            Err(source) => Err(StorageError::writing(
                self.shown.join(name),
                &self.shown,
                0,
                source,
            )),
        }
    }

    /// Gives `name` this content in one step: a killed process leaves the old one or the new one.
    fn write_whole(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let fresh = format!("{name}.new");
        let write = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true);
            let file = disk::make_file(&self.dir, Path::new(&fresh), &options)?;
            disk::write_all_at(&file, bytes, 0)?;
            disk::rename(&self.dir, Path::new(&fresh), &self.dir, Path::new(name))
        };
        write().map_err(|source| {
            StorageError::writing(
                self.shown.join(name),
                &self.shown,
                bytes.len() as u64,
                source,
            )
        })
    }
}

/// Name of a file's part file: its index in hex.
pub(super) fn file_name(file: FileIndex) -> String {
    format!("{:x}", file.get())
}

/// Whether a folder of this name is some share's part folder.
pub(super) fn is_part_folder_name(name: &OsStr) -> bool {
    let id = name
        .to_str()
        .and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
    id.is_some_and(|id| {
        id.len() == ID_LEN
            && id
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7'))
    })
}

/// Whether a fetch makes files of this name in its part folder.
pub(super) fn is_own_name(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    let is_index = (1..=8).contains(&name.len())
        && name
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let whole = name.strip_suffix(".new").unwrap_or(name);
    is_index || [LOCK, "manifest", "hashes", "record"].contains(&whole)
}

/// Which share the part folder `dir` is for, by the manifest in it, and what that share is called.
pub(super) fn share_in(dir: &Dir) -> Option<(ShareId, Name)> {
    let bytes = read_whole_in(dir, "manifest", MANIFEST_LEN_MAX)?;
    let manifest = Manifest::decode(&bytes).ok()?;
    Some((manifest.id(), manifest.name().clone()))
}

/// What the part folder `dir` is for, when all of that is whole.
pub(super) fn saved_in(dir: &Dir) -> Option<(Manifest, PieceHashes)> {
    let manifest = Manifest::decode(&read_whole_in(dir, "manifest", MANIFEST_LEN_MAX)?).ok()?;
    let bytes = read_whole_in(dir, "hashes", PIECE_COUNT_MAX as usize * DIGEST_LEN)?;
    let (digests, rest) = bytes.as_chunks::<DIGEST_LEN>();
    if !rest.is_empty() {
        return None;
    }
    let digests = digests.iter().map(|bytes| Digest::from_bytes(*bytes));
    let hashes = PieceHashes::from_digests(&manifest, digests.collect()).ok()?;
    Some((manifest, hashes))
}

fn read_whole_in(dir: &Dir, name: &str, len_max: usize) -> Option<Vec<u8>> {
    let file = beneath::open_file_in(dir, OsStr::new(name)).ok()?;
    let mut bytes = Vec::new();
    file.take(len_max as u64 + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() <= len_max).then_some(bytes)
}

/// What the part folder of `share` is called.
pub(super) fn name_of(share: &ShareId) -> String {
    format!("{PREFIX}{}{SUFFIX}", &share.to_string()[..ID_LEN])
}

/// Takes the lock of a part folder. `None` when the lock file was removed in between: its owner has just finished.
fn lock(dir: &Dir) -> Result<Option<File>, TryLockError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    let file = match disk::make_file(dir, Path::new("lock"), &options) {
        Ok(file) => file,
        // The folder itself was removed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TryLockError::Error(error)),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(TryLockError::WouldBlock),
        // Some network file systems have no locks. Fetching without is better than not at all.
        Err(TryLockError::Error(error)) => {
            tracing::warn!(%error, "no file locks here: two fetches at once would disturb each other");
        }
    }
    let ours = os::stat_file(&file)
        .map_err(TryLockError::Error)?
        .signature
        .inode;
    let there = os::stat_in(dir, Path::new("lock")).map_err(TryLockError::Error)?;
    Ok(there
        .is_some_and(|stat| stat.signature.inode == ours)
        .then_some(file))
}
