//! Stands between a fetch and the disk: writes down every operation, fails the one it is told to, and says which boot it is.
//!
//! Only the thread that called [`watch`] is watched; everybody else, and every program that is not a test, calls the system
//! as if it were not there. What it writes down is enough to make any state a crash can leave: see `power`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use cap_std::fs::Dir;
use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::content::PieceIndex;
use crate::storage::disk::Operation;
use crate::storage::os::Signature;

/// A file, folder or link, for as long as it exists; unlike an inode number never given out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(pub(super) u32);

/// What happened to the disk, or what the fetch told about it.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Make {
        dir: Id,
        name: String,
        id: Id,
    },
    MakeFolder {
        dir: Id,
        name: String,
        id: Id,
    },
    MakeLink {
        dir: Id,
        name: String,
        id: Id,
        says: String,
    },
    Rename {
        from: Id,
        from_name: String,
        to: Id,
        to_name: String,
    },
    RemoveFile {
        dir: Id,
        name: String,
    },
    RemoveFolder {
        dir: Id,
        name: String,
        id: Id,
    },
    Write {
        id: Id,
        offset: u64,
        bytes: Vec<u8>,
    },
    SetLen {
        id: Id,
        len: u64,
    },
    SyncData {
        id: Id,
    },
    SyncFolder {
        id: Id,
    },
    SyncFileSystem,
    /// A file looked like this.
    Seen {
        id: Id,
        signature: Signature,
    },
    /// The piece is stored: a killed process loses it no more.
    Stored(PieceIndex),
    /// These pieces are synced: a power loss loses them no more.
    Synced(Vec<PieceIndex>),
    /// The fetch is finished.
    Done,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failing {
    /// Nothing happens but the error.
    Clean(Errno),
    /// It happens, and yet the system reports an error.
    AfterAll(Errno),
    /// A write takes half of the bytes and says so; anything else is as it should be.
    Short,
}

/// Which syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    Any,
    OfFolder,
}

/// What one thread does to the disk.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    /// Operations so far, those that change nothing included.
    pub(super) count: usize,
    /// Which of them were syncs.
    syncs: Vec<usize>,
    /// The operation to fail, counted from 0, and how.
    pub(super) fault: Option<(usize, Failing)>,
    /// How the next sync of a kind fails.
    next_sync: Option<(Sync, Failing)>,
    /// What the operation that failed was.
    pub(super) failed: Option<String>,
    /// The file whose sync failed.
    pub(super) unsynced: Option<Id>,
    pub(super) events: Vec<Event>,
    pub(super) boot: [u8; 16],
    /// Identities by inode number: all files of a test lie on one file system.
    ids: HashMap<u64, Id>,
    ids_given: u32,
    /// What copies look like, by inode number.
    looks: HashMap<u64, Signature>,
}

thread_local! {
    static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
}

/// Runs `act` on this thread under `watcher`, and gives it back with what it saw.
pub(super) fn watch<T>(watcher: Watcher, act: impl FnOnce() -> T) -> (Watcher, T) {
    /// Also when `act` panics: the thread may go on.
    struct Unwatch;
    impl Drop for Unwatch {
        fn drop(&mut self) {
            WATCHER.with(|cell| cell.take());
        }
    }
    WATCHER.with(|cell| assert!(cell.replace(Some(watcher)).is_none(), "watched already"));
    let _unwatch = Unwatch;
    let result = act();
    let watcher = WATCHER.with(RefCell::take);
    (watcher.expect("nobody else takes it"), result)
}

fn with<T>(act: impl FnOnce(&mut Watcher) -> T) -> Option<T> {
    WATCHER.with(|cell| cell.borrow_mut().as_mut().map(act))
}

/// The boot that a watched thread runs in.
pub(in crate::storage) fn boot_id() -> Option<[u8; 16]> {
    with(|watcher| watcher.boot)
}

/// Lets the next sync of this kind of the watched thread fail.
pub(super) fn fail_next_sync(sync: Sync, failing: Failing) {
    with(|watcher| watcher.next_sync = Some((sync, failing)));
}

/// Notes what the fetch tells.
pub(super) fn tell(event: Event) {
    with(|watcher| watcher.events.push(event));
}

/// See `disk::seen`.
pub(in crate::storage) fn seen(real: Signature) -> Signature {
    with(|watcher| {
        let signature = match watcher.looks.get(&real.inode) {
            Some(look) => Signature {
                len: real.len,
                ..*look
            },
            None => real,
        };
        if let Some(&id) = watcher.ids.get(&real.inode) {
            watcher.events.push(Event::Seen { id, signature });
        }
        signature
    })
    .unwrap_or(real)
}

/// See `disk::pass`.
pub(in crate::storage) fn pass<T>(
    operation: Operation<'_>,
    act: impl FnOnce(usize) -> io::Result<T>,
) -> io::Result<T> {
    let failing = with(|watcher| {
        let number = watcher.count;
        watcher.count += 1;
        if matches!(
            operation,
            Operation::SyncData { .. } | Operation::SyncFolder { .. } | Operation::SyncFileSystem
        ) {
            watcher.syncs.push(number);
        }
        let is_sync = watcher.is_sync(number);
        let is_of_folder = matches!(operation, Operation::SyncFolder { .. });
        let of_sync = watcher
            .next_sync
            .take_if(|(sync, _)| is_sync && (*sync == Sync::Any || is_of_folder));
        let of_number = watcher.fault.filter(|(at, _)| *at == number);
        let of_sync = of_sync.map(|(_, failing)| failing);
        let failing = of_sync.or(of_number.map(|(_, failing)| failing))?;
        watcher.failed = Some(name_of(&operation).to_owned());
        Some(failing)
    });
    let Some(failing) = failing else {
        return act(usize::MAX);
    };
    // A short sync is a good one.
    let is_error = !matches!(failing, None | Some(Failing::Short));
    if let (true, Operation::SyncData { file }) = (is_error, &operation) {
        with(|watcher| watcher.unsynced = Some(watcher.file(file)));
    }
    let before = before(&operation);
    let most = match (failing, &operation) {
        (Some(Failing::Clean(errno)), operation) => {
            if let Operation::SyncData { file } = operation {
                with(|watcher| watcher.drop_unsynced(file));
            }
            return Err(errno.into());
        }
        (Some(Failing::Short), Operation::Write { bytes, .. }) => bytes.len().div_ceil(2),
        _ => usize::MAX,
    };
    let result = act(most)?;
    with(|watcher| watcher.note(&operation, before, most));
    match failing {
        Some(Failing::AfterAll(errno)) => Err(errno.into()),
        _ => Ok(result),
    }
}

/// What must be known from before an operation to write it down: the inode number and the length of what lies at its name.
fn before(operation: &Operation<'_>) -> Option<(u64, u64)> {
    match *operation {
        Operation::Make { dir, name }
        | Operation::RemoveFile { dir, name }
        | Operation::RemoveFolder { dir, name } => stat_at(dir, name),
        _ => None,
    }
}

impl Watcher {
    /// The identity of what has this inode number.
    pub(super) fn id_of(&mut self, inode: u64) -> Id {
        match self.ids.get(&inode) {
            Some(id) => *id,
            None => self.fresh_id(inode),
        }
    }

    fn fresh_id(&mut self, inode: u64) -> Id {
        let id = Id(self.ids_given);
        self.ids_given += 1;
        self.ids.insert(inode, id);
        // A number given out again is another file.
        self.looks.remove(&inode);
        id
    }

    /// Whether operation `number` was a sync.
    pub(super) fn is_sync(&self, number: usize) -> bool {
        self.syncs.binary_search(&number).is_ok()
    }

    pub(super) fn sync_count(&self) -> usize {
        self.syncs.len()
    }

    /// Makes whoever looks at the file with this inode number see `look`.
    pub(super) fn disguise(&mut self, inode: u64, look: Signature) {
        self.looks.insert(inode, look);
    }

    /// What a system may do after a failed sync: the pages count as written, and go. What was there before is not kept
    /// apart here; zeros are as wrong as it.
    fn drop_unsynced(&mut self, file: &File) {
        let id = self.file(file);
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let writable = File::options().write(true).open(own).unwrap();
        let is_sync = |event: &Event| match event {
            Event::SyncFileSystem => true,
            Event::SyncData { id: synced } => *synced == id,
            _ => false,
        };
        let from = self.events.iter().rposition(is_sync).unwrap_or(0);
        for event in &self.events[from..] {
            match event {
                Event::Write {
                    id: of,
                    offset,
                    bytes,
                } if *of == id => {
                    let zeros = vec![0; bytes.len()];
                    writable.write_all_at(&zeros, *offset).unwrap();
                }
                _ => {}
            }
        }
    }

    /// The name of this in its folder, as far as it was made under watch.
    pub(super) fn made_as(&self, wanted: Id) -> Option<&str> {
        self.events.iter().find_map(|event| match event {
            Event::Make { name, id, .. } if *id == wanted => Some(name.as_str()),
            _ => None,
        })
    }

    fn note(&mut self, operation: &Operation<'_>, before: Option<(u64, u64)>, most: usize) {
        let event = match *operation {
            Operation::Look | Operation::Read | Operation::SetTime => return,
            Operation::Make { dir, name } => {
                let (inode, len) = stat_at(dir, name).unwrap();
                if before.map(|(inode, _)| inode) != Some(inode) {
                    let (dir, id) = (self.dir(dir), self.fresh_id(inode));
                    let name = text(name);
                    Event::Make { dir, name, id }
                } else if len == 0 && before != Some((inode, 0)) {
                    let id = self.id_of(inode);
                    Event::SetLen { id, len: 0 }
                } else {
                    return;
                }
            }
            Operation::MakeFolder { dir, name } => {
                let id = self.fresh_id(inode_at(dir, name).unwrap());
                let (dir, name) = (self.dir(dir), text(name));
                Event::MakeFolder { dir, name, id }
            }
            Operation::MakeFolderAt { path } => {
                let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
                let dir = self.id_of(inode(path.parent().unwrap()));
                let id = self.fresh_id(inode(path));
                let name = text(Path::new(path.file_name().unwrap()));
                Event::MakeFolder { dir, name, id }
            }
            Operation::MakeLink { dir, name, says } => {
                let id = self.fresh_id(inode_at(dir, name).unwrap());
                Event::MakeLink {
                    dir: self.dir(dir),
                    name: text(name),
                    id,
                    says: says.to_owned(),
                }
            }
            Operation::Rename {
                from,
                from_name,
                to,
                to_name,
            } => Event::Rename {
                from: self.dir(from),
                from_name: text(from_name),
                to: self.dir(to),
                to_name: text(to_name),
            },
            Operation::RemoveFile { dir, name } => {
                if before.is_none() {
                    return;
                }
                let (dir, name) = (self.dir(dir), text(name));
                Event::RemoveFile { dir, name }
            }
            Operation::RemoveFolder { dir, name } => Event::RemoveFolder {
                dir: self.dir(dir),
                name: text(name),
                id: self.id_of(before.unwrap().0),
            },
            Operation::Write {
                file,
                bytes,
                offset,
            } => Event::Write {
                id: self.file(file),
                offset,
                bytes: bytes[..bytes.len().min(most)].to_vec(),
            },
            Operation::SetLen { file, len } => {
                let id = self.file(file);
                Event::SetLen { id, len }
            }
            Operation::SyncData { file } => Event::SyncData {
                id: self.file(file),
            },
            Operation::SyncFolder { dir } => Event::SyncFolder { id: self.dir(dir) },
            Operation::SyncFileSystem => Event::SyncFileSystem,
        };
        self.events.push(event);
    }

    fn file(&mut self, file: &File) -> Id {
        self.id_of(rustix::fs::fstat(file).unwrap().st_ino)
    }

    fn dir(&mut self, dir: &Dir) -> Id {
        self.id_of(rustix::fs::fstat(dir).unwrap().st_ino)
    }
}

fn inode_at(dir: &Dir, name: &Path) -> Option<u64> {
    stat_at(dir, name).map(|(inode, _)| inode)
}

fn stat_at(dir: &Dir, name: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.ok().map(|stat| (stat.st_ino, stat.st_size as u64))
}

fn text(name: &Path) -> String {
    name.to_str().unwrap().to_owned()
}

/// The first word of how it prints.
fn name_of(operation: &Operation<'_>) -> &'static str {
    match operation {
        Operation::Look => "look",
        Operation::Read => "read",
        Operation::Make { .. } => "make file",
        Operation::MakeFolder { .. } | Operation::MakeFolderAt { .. } => "make folder",
        Operation::MakeLink { .. } => "make link",
        Operation::Rename { .. } => "rename",
        Operation::RemoveFile { .. } | Operation::RemoveFolder { .. } => "remove",
        Operation::Write { .. } => "write",
        Operation::SetLen { .. } => "set length",
        Operation::SetTime => "set time",
        Operation::SyncData { .. } => "sync data",
        Operation::SyncFolder { .. } => "sync folder",
        Operation::SyncFileSystem => "sync file system",
    }
}
