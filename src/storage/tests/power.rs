//! What a crash leaves on a disk: from a list of operations to the folders and files that a machine finds at its next start.
//!
//! There is a live image (all operations) and a durable one (what a completed sync covers); a crash leaves something in
//! between, and [`Loss`] chooses what. A rename is one step also between two folders, as in every journal. Decides
//! nothing about right and wrong: `crashes` does.
//! Source: Pillai et al., OSDI 2014 (ALICE); the crash model of redb.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

use rand::RngExt;
use rand::rngs::StdRng;

use super::watching::{Event, Id, Watcher};
use crate::storage::os::Signature;

/// Which names survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Those made before some moment, all folders alike: one journal. A synced file brings its own name along, and
    /// whatever came before that.
    Ordered,
    /// In each folder those made before some moment of its own; only the sync of a folder makes its names last.
    ByFolder,
}

/// What a crash takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// A killed process: nothing.
    Nothing,
    /// A killed process in the middle of the last write.
    HalfOfLastWrite,
    /// Everything unsynced.
    All(Names),
    /// Every unsynced byte and no name.
    Bytes,
    /// Everything unsynced from the event of this number on, and nothing before it.
    From(usize),
    /// Whatever chance says: writes lost, kept or torn, lengths and names too.
    Chance(Names),
}

/// What lies on a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    /// By folder and name.
    names: BTreeMap<(Id, String), Id>,
    nodes: HashMap<Id, Node>,
}

#[derive(Clone, Debug)]
enum Node {
    Folder,
    Link(String),
    File {
        bytes: Vec<u8>,
        /// What the file looked like last.
        look: Option<Signature>,
    },
}

impl Image {
    /// What a crash before event `at` leaves of `events`, which began in the empty folder `top`.
    pub(super) fn after(events: &[Event], loss: Loss, chance: &mut StdRng) -> Self {
        let mut image = Self::default();
        let kept = kept_names(events, loss, chance);
        for (event, _) in events.iter().zip(kept).filter(|(_, kept)| *kept) {
            image.rename(event);
        }
        let mut changes: BTreeMap<Id, Vec<usize>> = BTreeMap::new();
        for (at, event) in events.iter().enumerate() {
            if let Event::Write { id, .. } | Event::SetLen { id, .. } | Event::Seen { id, .. } =
                event
            {
                changes.entry(*id).or_default().push(at);
            }
        }
        // Once the fetch has told that a piece is stored, its write is over.
        let is_look = |event: &Event| matches!(event, Event::Seen { .. });
        let last = events.iter().rposition(|event| !is_look(event));
        for (id, changes) in changes {
            if let Some(Node::File { bytes, look }) = image.nodes.get_mut(&id) {
                let mut fate = Fate::of(events, id, loss, chance);
                for at in changes {
                    let half = loss == Loss::HalfOfLastWrite && Some(at) == last;
                    fate.apply(&events[at], at, half, bytes, chance);
                }
                fate.shorten(bytes, chance);
                *look = fate.look;
            }
        }
        image
    }

    /// Makes it below `top`, an empty folder, and lets `watcher` take the copies for what they are copies of.
    pub(super) fn lay_out(&self, top: &Path, watcher: &mut Watcher) {
        self.lay_out_folder(TOP, top, watcher);
    }

    fn lay_out_folder(&self, folder: Id, path: &Path, watcher: &mut Watcher) {
        let range = (folder, String::new())..(Id(folder.0 + 1), String::new());
        for ((_, name), id) in self.names.range(range) {
            let path = path.join(name);
            match &self.nodes[id] {
                Node::Folder => {
                    fs::create_dir(&path).unwrap();
                    self.lay_out_folder(*id, &path, watcher);
                }
                Node::Link(says) => symlink(says, &path).unwrap(),
                Node::File { bytes, look } => {
                    let file = File::create(&path).unwrap();
                    file.write_all_at(bytes, 0).unwrap();
                    if let Some(look) = look {
                        watcher.disguise(file.metadata().unwrap().ino(), *look);
                    }
                }
            }
        }
    }

    /// Applies an event that changes names.
    fn rename(&mut self, event: &Event) {
        let (dir, name, id, node) = match event {
            Event::Make { dir, name, id } => {
                let (bytes, look) = (Vec::new(), None);
                (dir, name, id, Node::File { bytes, look })
            }
            Event::MakeFolder { dir, name, id } => (dir, name, id, Node::Folder),
            Event::MakeLink {
                dir,
                name,
                id,
                says,
            } => (dir, name, id, Node::Link(says.clone())),
            Event::Rename {
                from,
                from_name,
                to,
                to_name,
            } => {
                let moved = self.names.remove(&(*from, from_name.clone()));
                let moved = moved.expect("what is renamed was made before in that folder");
                self.names.insert((*to, to_name.clone()), moved);
                return;
            }
            Event::RemoveFile { dir, name } | Event::RemoveFolder { dir, name, .. } => {
                self.names.remove(&(*dir, name.clone()));
                return;
            }
            _ => return,
        };
        self.names.insert((*dir, name.clone()), *id);
        self.nodes.insert(*id, node);
    }
}

/// The folder that was there before everything: its inode number is the first that a watcher is asked for.
const TOP: Id = Id(0);

/// For each event whether its change of names survives.
fn kept_names(events: &[Event], loss: Loss, chance: &mut StdRng) -> Vec<bool> {
    let names = match loss {
        Loss::Nothing | Loss::HalfOfLastWrite | Loss::Bytes => return vec![true; events.len()],
        Loss::From(_) => Names::Ordered,
        Loss::All(names) | Loss::Chance(names) => names,
    };
    let durable = match names {
        Names::Ordered => durable_in_order(events),
        Names::ByFolder => durable_by_folder(events),
    };
    match loss {
        Loss::From(from) => (0..events.len())
            .map(|at| at < from || durable[at])
            .collect(),
        Loss::Chance(Names::Ordered) => {
            let least = durable.iter().filter(|durable| **durable).count();
            let most = chance.random_range(least..=events.len());
            (0..events.len()).map(|at| at < most).collect()
        }
        Loss::Chance(Names::ByFolder) => {
            let ends: BTreeMap<Id, usize> = folders(events)
                .into_iter()
                .map(|folder| (folder, chance.random_range(0..=events.len() * 4 / 3)))
                .collect();
            let kept = (0..events.len())
                .map(|at| durable[at] || touched(&events[at]).iter().all(|id| at < ends[id]))
                .collect();
            without_orphans(events, kept)
        }
        _ => durable,
    }
}

fn folders(events: &[Event]) -> BTreeSet<Id> {
    events.iter().flat_map(touched).collect()
}

/// Folders whose names an event changes.
fn touched(event: &Event) -> Vec<Id> {
    match event {
        Event::Make { dir, .. }
        | Event::MakeFolder { dir, .. }
        | Event::MakeLink { dir, .. }
        | Event::RemoveFile { dir, .. } => vec![*dir],
        // An empty folder goes: its own names must have gone before.
        Event::RemoveFolder { dir, id, .. } => vec![*dir, *id],
        Event::Rename { from, to, .. } if from == to => vec![*from],
        Event::Rename { from, to, .. } => vec![*from, *to],
        _ => Vec::new(),
    }
}

/// One journal: everything before the last sync of a folder or of everything, and before the last making of a file that was
/// synced since.
fn durable_in_order(events: &[Event]) -> Vec<bool> {
    let mut end = 0;
    let mut made: HashMap<Id, usize> = HashMap::new();
    for (at, event) in events.iter().enumerate() {
        match event {
            Event::Make { id, .. } => {
                made.insert(*id, at + 1);
            }
            Event::SyncData { id } => end = end.max(made.get(id).copied().unwrap_or(0)),
            Event::SyncFolder { .. } | Event::SyncFileSystem => end = at,
            _ => {}
        }
    }
    (0..events.len()).map(|at| at < end).collect()
}

fn durable_by_folder(events: &[Event]) -> Vec<bool> {
    let mut durable = vec![false; events.len()];
    for (at, event) in events.iter().enumerate() {
        for before in 0..at {
            durable[before] |= match event {
                Event::SyncFileSystem => true,
                Event::SyncFolder { id } => touched(&events[before]).contains(id),
                _ => false,
            };
        }
    }
    with_what_they_need(events, durable)
}

/// Adds what a surviving change cannot do without: in each of its folders whatever came before, and for a rename, which is
/// one step, both folders themselves. Else the sync of a folder does not make its own name last.
fn with_what_they_need(events: &[Event], mut kept: Vec<bool>) -> Vec<bool> {
    let (mut earlier, mut reachable) = (BTreeSet::new(), BTreeSet::new());
    for at in (0..events.len()).rev() {
        let touched = touched(&events[at]);
        let is_way = matches!(&events[at], Event::MakeFolder { id, .. } if reachable.contains(id));
        if touched.is_empty()
            || !(kept[at] || is_way || touched.iter().any(|id| earlier.contains(id)))
        {
            continue;
        }
        kept[at] = true;
        if is_way || matches!(events[at], Event::Rename { .. }) {
            reachable.extend(touched.iter().copied());
        }
        earlier.extend(touched);
    }
    kept
}

/// Takes away what has lost something it cannot do without: an earlier change of one of its folders, or the folder.
fn without_orphans(events: &[Event], mut kept: Vec<bool>) -> Vec<bool> {
    let mut stopped: BTreeSet<Id> = BTreeSet::new();
    for (at, event) in events.iter().enumerate() {
        let touched = touched(event);
        if !kept[at] || touched.iter().any(|id| stopped.contains(id)) {
            kept[at] = false;
            stopped.extend(touched);
            if let Event::MakeFolder { id, .. } = event {
                stopped.insert(*id);
            }
        }
    }
    kept
}

/// What becomes of the unsynced changes of one file.
struct Fate {
    loss: Loss,
    /// Changes before this event are on the disk.
    synced: usize,
    /// For [`Loss::Chance`]: whether all unsynced writes of the file go the same way.
    together: Option<bool>,
    /// Length that is on the disk.
    durable_len: usize,
    look: Option<Signature>,
}

impl Fate {
    fn of(events: &[Event], id: Id, loss: Loss, chance: &mut StdRng) -> Self {
        let is_sync = |event: &Event| match event {
            Event::SyncFileSystem => true,
            Event::SyncData { id: synced } => *synced == id,
            _ => false,
        };
        let together = match chance.random_range(0..3) {
            0 => Some(true),
            1 => Some(false),
            _ => None,
        };
        Self {
            loss,
            synced: events.iter().rposition(is_sync).unwrap_or(0),
            together,
            durable_len: 0,
            look: None,
        }
    }

    fn apply(
        &mut self,
        event: &Event,
        at: usize,
        half: bool,
        bytes: &mut Vec<u8>,
        chance: &mut StdRng,
    ) {
        let durable = at < self.synced;
        let kept = durable
            || match self.loss {
                Loss::Nothing | Loss::HalfOfLastWrite => true,
                Loss::All(_) | Loss::Bytes => false,
                Loss::From(from) => at < from,
                Loss::Chance(_) => self.together.unwrap_or_else(|| chance.random_bool(0.5)),
            };
        match event {
            Event::Seen { signature, .. } => {
                // Times reach the disk when they like, also those of a synced file.
                let is_lost = matches!(self.loss, Loss::Chance(_)) && chance.random_bool(0.1);
                self.look = Some(Signature {
                    ctime_ns: signature.ctime_ns - i128::from(is_lost),
                    ..*signature
                });
            }
            Event::SetLen { len, .. } if kept => bytes.resize(*len as usize, 0),
            Event::Write {
                offset,
                bytes: written,
                ..
            } => {
                let written = &written[..if half {
                    written.len() / 2
                } else {
                    written.len()
                }];
                let is_torn = !durable
                    && matches!(self.loss, Loss::Chance(_))
                    && self.together.is_none()
                    && chance.random_bool(0.3);
                if is_torn {
                    let sector = if chance.random_bool(0.5) { 512 } else { 4096 };
                    write_torn(bytes, *offset as usize, written, sector, chance);
                } else if kept {
                    write(bytes, *offset as usize, written);
                }
            }
            _ => {}
        }
        if durable {
            self.durable_len = bytes.len();
        }
    }

    /// Bytes may reach the disk when the length they need does not.
    fn shorten(&self, bytes: &mut Vec<u8>, chance: &mut StdRng) {
        if matches!(self.loss, Loss::Chance(_))
            && bytes.len() > self.durable_len
            && chance.random_bool(0.2)
        {
            bytes.truncate(chance.random_range(self.durable_len..=bytes.len()));
        }
    }
}

fn write(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(written);
}

/// Writes each sector or leaves it.
fn write_torn(
    bytes: &mut Vec<u8>,
    offset: usize,
    written: &[u8],
    sector: usize,
    chance: &mut StdRng,
) {
    let mut at = 0;
    while at < written.len() {
        let len = (sector - (offset + at) % sector).min(written.len() - at);
        if chance.random_bool(0.5) {
            write(bytes, offset + at, &written[at..at + len]);
        }
        at += len;
    }
}
