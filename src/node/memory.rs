//! What a node remembers of peers from run to run: who was reached where, and for which share.
//!
//! One task gathers notes and writes them to the state of this host, on a blocking thread, soon after the first and then
//! ever more rarely; a note that finds no room is lost. Reading is separate and never waits for it. Called by `hub`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::content::{Multiaddr, PeerId};
use crate::storage::{KnownPeer, KnownPeers};

/// Notes that wait for the task. When full, further ones are dropped.
const NOTES_MAX: usize = 256;

/// From a note to its writing: first soon, since any process may be killed, then twice as long each time.
const WRITE_FIRST: Duration = Duration::from_millis(200);
const WRITE_LAST: Duration = Duration::from_secs(60);

/// Peers of which is known in this run where they were reached, and under which keys. More than are ever kept.
const PEERS_MAX: usize = 1_024;

/// Addresses noted of each.
const ADDRESSES_MAX: usize = 4;

/// A provider key, or [`KnownPeers::ANY`].
type Key = [u8; 32];

#[derive(Debug)]
enum Note {
    /// A dial of ours led to this peer.
    Reached { peer: PeerId, address: Multiaddr },
    /// The peer takes part in a share.
    Met { peer: PeerId, key: Key },
}

/// Takes notes, and reads what earlier runs noted; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    folder: PathBuf,
    notes: mpsc::Sender<Note>,
}

/// What the task of a [`Memory`] needs.
pub(super) struct Notes {
    folder: PathBuf,
    notes: mpsc::Receiver<Note>,
}

impl Memory {
    /// A memory in the folder of this host, and what its task runs on.
    pub(super) fn new(folder: PathBuf) -> (Self, Notes) {
        let (sender, notes) = mpsc::channel(NOTES_MAX);
        let memory = Self {
            folder: folder.clone(),
            notes: sender,
        };
        (memory, Notes { folder, notes })
    }

    /// A dial of ours led to `peer`, as its handshake proved.
    pub(super) fn reached(&self, peer: PeerId, address: Multiaddr) {
        // A hint for later runs: lost when there is no room.
        let _ = self.notes.try_send(Note::Reached { peer, address });
    }

    /// `peer` takes part in the share with this provider key.
    pub(super) fn met(&self, peer: PeerId, key: Key) {
        let _ = self.notes.try_send(Note::Met { peer, key });
    }

    /// Where what this host remembers lies.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The peers that earlier runs knew under `key`.
    pub(super) async fn recall(&self, key: Key) -> Vec<KnownPeer> {
        let folder = self.folder.clone();
        let recalled =
            tokio::task::spawn_blocking(move || KnownPeers::open(&folder).recall(&key)).await;
        recalled.unwrap_or_default()
    }
}

impl Notes {
    /// Gathers and writes until `ending`, and then once more.
    pub(super) async fn keep(mut self, ending: CancellationToken) {
        let mut gathered = Gathered::default();
        let mut pause = WRITE_FIRST;
        let mut write_at: Option<Instant> = None;
        while !ending.is_cancelled() {
            tokio::select! {
                () = ending.cancelled() => {}
                note = self.notes.recv() => match note {
                    Some(note) => gathered.take(note),
                    None => break,
                },
                () = tokio::time::sleep_until(write_at.unwrap_or_else(Instant::now)), if write_at.is_some() => {
                    write_at = None;
                    write(&self.folder, gathered.news()).await;
                    pause = (pause * 2).min(WRITE_LAST);
                }
            }
            if write_at.is_none() && gathered.has_news() {
                write_at = Some(Instant::now() + pause);
            }
        }
        while let Ok(note) = self.notes.try_recv() {
            gathered.take(note);
        }
        write(&self.folder, gathered.news()).await;
    }
}

async fn write(folder: &Path, news: Vec<(Key, KnownPeer)>) {
    if news.is_empty() {
        return;
    }
    let folder = folder.to_owned();
    let written = tokio::task::spawn_blocking(move || KnownPeers::open(&folder).remember(&news));
    if let Err(error) = written.await {
        tracing::warn!(%error, "peers are not remembered");
    }
}

/// The notes of this run.
#[derive(Debug, Default)]
struct Gathered {
    peers: BTreeMap<PeerId, Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    /// Last reached first.
    addresses: Vec<Multiaddr>,
    keys: BTreeSet<Key>,
    /// Keys under which the addresses are not written yet.
    unwritten: BTreeSet<Key>,
}

impl Gathered {
    fn take(&mut self, note: Note) {
        let (Note::Reached { peer, .. } | Note::Met { peer, .. }) = &note;
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(peer) {
            return;
        }
        let noted = self.peers.entry(*peer).or_default();
        match note {
            Note::Reached { address, .. } => {
                noted.keys.insert(KnownPeers::ANY);
                if !noted.addresses.contains(&address) {
                    noted.addresses.insert(0, address);
                    noted.addresses.truncate(ADDRESSES_MAX);
                    noted.unwritten.extend(noted.keys.iter().copied());
                }
            }
            Note::Met { key, .. } => {
                if noted.keys.insert(key) {
                    noted.unwritten.insert(key);
                }
            }
        }
    }

    /// A peer that came to us and was never reached is no news: nobody knows where it is.
    fn has_news(&self) -> bool {
        let is_news = |noted: &Noted| !noted.addresses.is_empty() && !noted.unwritten.is_empty();
        self.peers.values().any(is_news)
    }

    fn news(&mut self) -> Vec<(Key, KnownPeer)> {
        let mut news = Vec::new();
        for (&peer, noted) in &mut self.peers {
            if noted.addresses.is_empty() {
                continue;
            }
            for key in std::mem::take(&mut noted.unwritten) {
                let addresses = noted.addresses.clone();
                news.push((key, KnownPeer { peer, addresses }));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = [7; 32];

    fn address(port: u16) -> Multiaddr {
        let text = format!("/ip4/10.0.0.1/tcp/{port}");
        text.parse().expect("an address")
    }

    #[test]
    fn only_a_peer_that_was_reached_is_news_and_only_once() {
        let (mut gathered, peer) = (Gathered::default(), PeerId::random());
        gathered.take(Note::Met { peer, key: KEY });
        assert!(!gathered.has_news());
        assert_eq!(gathered.news(), []);
        let reached = |port| Note::Reached {
            peer,
            address: address(port),
        };
        gathered.take(reached(1));
        assert!(gathered.has_news());
        let of = |key, ports: &[u16]| {
            let addresses = ports.iter().map(|port| address(*port)).collect();
            (key, KnownPeer { peer, addresses })
        };
        assert_eq!(gathered.news(), [of(KnownPeers::ANY, &[1]), of(KEY, &[1])]);
        gathered.take(reached(1));
        gathered.take(Note::Met { peer, key: KEY });
        assert_eq!(gathered.news(), []);
        gathered.take(reached(2));
        assert_eq!(
            gathered.news(),
            [of(KnownPeers::ANY, &[2, 1]), of(KEY, &[2, 1])]
        );
    }

    #[test]
    fn notes_are_bounded() {
        let mut gathered = Gathered::default();
        for port in 0..2_000 {
            let (peer, address) = (PeerId::random(), address(port + 1));
            gathered.take(Note::Reached { peer, address });
        }
        assert_eq!(gathered.news().len(), PEERS_MAX);
    }

    #[tokio::test]
    async fn what_is_noted_is_recalled_by_the_next_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let (memory, notes) = Memory::new(folder.path().to_owned());
        let ending = CancellationToken::new();
        let peer = PeerId::random();
        memory.reached(peer, address(1));
        memory.met(peer, KEY);
        ending.cancel();
        notes.keep(ending).await;
        let (next, _) = Memory::new(folder.path().to_owned());
        let addresses = vec![address(1)];
        assert_eq!(next.recall(KEY).await, [KnownPeer { peer, addresses }]);
    }
}
