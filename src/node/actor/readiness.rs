//! From a share that is only known to one that is served: finding peers, metadata, the store, and the end of a fetch.
//!
//! Before the share is ready the actor dials whoever it hears of, and collects manifest and hashes; then the store
//! opens on a blocking thread and the engine takes over. Afterwards the only steps here are the share info, the
//! reader of a stream, and the last names.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rand::SeedableRng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::Actor;
use super::peers::Linked;
use crate::content::{Bitfield, Layout, Manifest, PeerId, PieceHashes, PieceIndex, ShareInfo};
use crate::engine::{DownCause, Input, Random, Transfer, TransferConfig};
use crate::node::config::FetchOptions;
use crate::node::hints::Hints;
use crate::node::metadata::{Bad, Metadata};
use crate::node::share::{ReadyShare, SessionId, ShareInput};
use crate::node::status::{Fetched, NodeEvent, Phase};
use crate::node::{FetchError, perform, report};
use crate::storage::{
    Chosen, FetchStore, KnownShares, PieceStore, Resumable, Reusable, Reused, StorageError,
};
use crate::wire::ShareMessage;

/// What only a fetch has.
pub(in crate::node) struct Fetch {
    pub(in crate::node) options: FetchOptions,
    pub(in crate::node) metadata: Metadata,
    /// Who waits, until it was told.
    pub(in crate::node) outcome: Option<Outcome>,
    /// What is fetched of the share, once the manifest is known.
    pub(in crate::node) chosen: Option<Chosen>,
    /// Pieces that are read from older files beside the target when the transfer begins.
    pub(in crate::node) reusable: Option<Bitfield>,
    pub(in crate::node) hints: Hints,
}

/// What is waited for, and by whom.
pub(in crate::node) enum Outcome {
    /// The share.
    Share(oneshot::Sender<Result<Fetched, FetchError>>),
    /// What is in it.
    Manifest(oneshot::Sender<Result<Manifest, FetchError>>),
    /// That, and the hashes of its pieces.
    Hashes(oneshot::Sender<Result<(Manifest, PieceHashes), FetchError>>),
}

impl Outcome {
    pub(super) fn fail(self, error: FetchError) {
        // Nobody waits for the outcome of a fetch whose handle is gone.
        match self {
            Self::Share(outcome) => drop(outcome.send(Err(error))),
            Self::Manifest(outcome) => drop(outcome.send(Err(error))),
            Self::Hashes(outcome) => drop(outcome.send(Err(error))),
        }
    }
}

impl Actor {
    /// Dials everybody heard of, and looks for more, until the engine takes over.
    pub(super) fn find(&mut self, now: Instant) {
        if now < self.find_at {
            return;
        }
        self.find_at = now + self.find_pause;
        self.find_pause = (self.find_pause * 2).min(Duration::from_secs(10));
        let peers: Vec<PeerId> = self.sources.keys().copied().collect();
        for peer in peers {
            if !self.linked.contains_key(&peer) && !self.dialled.contains_key(&peer) {
                perform::connect(self, peer);
            }
        }
        perform::look_up(self);
    }

    pub(super) fn ask_metadata(&mut self, now: Instant) {
        let is_ready = |linked: &&Linked| linked.is_ready;
        let sessions: Vec<SessionId> = self
            .linked
            .values()
            .filter(is_ready)
            .map(|linked| linked.session.id())
            .collect();
        let Some(fetch) = &mut self.fetch else { return };
        for ask in fetch.metadata.asks(now, &sessions) {
            let linked = self
                .sessions
                .get(&ask.session)
                .and_then(|peer| self.linked.get(peer));
            if let Some(linked) = linked {
                linked.session.expect_bytes(ask.bytes);
                linked.session.send(&self.share, ask.message);
            }
        }
    }

    pub(super) fn on_metadata(&mut self, session: SessionId, taken: Result<(), Bad>) {
        self.last_verified = Instant::now();
        if let Err(bad) = taken {
            match bad {
                Bad::Share(error) => return self.fail(FetchError::Share(error)),
                Bad::Answer(reason) => {
                    if let Some(peer) = self.sessions.get(&session).copied() {
                        perform::unlink(self, peer, Some((DownCause::Violation, reason)));
                    }
                }
            }
        } else if self.is_described() {
            self.stop.cancel();
            return;
        } else if let Some((manifest, hashes)) =
            self.fetch.as_mut().and_then(|fetch| fetch.metadata.take())
        {
            self.open_store(manifest, hashes, None);
        }
        self.ask_metadata(Instant::now());
    }

    /// Tells who only wants to know about the share, as soon as what was asked for is here.
    pub(super) fn is_described(&mut self) -> bool {
        let Some(fetch) = &mut self.fetch else {
            return false;
        };
        let is_manifest_here = fetch.metadata.manifest().is_some();
        let manifest_wanted = |outcome: &mut Outcome| matches!(outcome, Outcome::Manifest(_));
        let hashes_wanted = |outcome: &mut Outcome| matches!(outcome, Outcome::Hashes(_));
        // Nobody waits for the outcome of a fetch whose handle is gone.
        if is_manifest_here
            && let Some(Outcome::Manifest(outcome)) = fetch.outcome.take_if(manifest_wanted)
        {
            let manifest = fetch.metadata.manifest().cloned();
            let _ = outcome.send(manifest.ok_or(FetchError::Closed));
            return true;
        }
        if matches!(fetch.outcome, Some(Outcome::Hashes(_)))
            && let Some(described) = fetch.metadata.take()
            && let Some(Outcome::Hashes(outcome)) = fetch.outcome.take_if(hashes_wanted)
        {
            let _ = outcome.send(Ok(described));
            return true;
        }
        false
    }

    /// Asks for the share info once the store is there that can use it: before any piece, so that it comes before them.
    pub(super) fn ask_info(&mut self) {
        let Some(ready) = self.share.ready.get() else {
            return;
        };
        let is_ready = |linked: &&Linked| linked.is_ready;
        let linked = self.linked.values().filter(is_ready);
        let sessions: Vec<_> = linked.map(|linked| linked.session.id()).collect();
        let Some(fetch) = &mut self.fetch else { return };
        let Some(session) = fetch.hints.ask(&sessions) else {
            return;
        };
        let peer = self.sessions.get(&session);
        if let Some(linked) = peer.and_then(|peer| self.linked.get(peer)) {
            // Ten bytes for each file at most, version and count.
            let bytes_max = u64::from(ready.geometry().file_count()) * 10 + 16;
            linked.session.expect_bytes(bytes_max);
            linked.session.send(&self.share, ShareMessage::GetInfo);
        }
    }

    pub(super) fn on_info(&mut self, session: SessionId, place: (u32, u32), bytes: &[u8]) {
        let (Some(fetch), Some(ready)) = (&mut self.fetch, self.share.ready.get()) else {
            return;
        };
        let Some(whole) = fetch.hints.on_part(session, place, bytes) else {
            return;
        };
        if let Some(info) = ShareInfo::decode(&whole, ready.geometry().file_count())
            && (info.modified().next().is_some() || ready.geometry().file_count() == 0)
        {
            fetch.hints.settle();
            ready.store.set_modified(info.modified().collect());
        } else {
            self.ask_info();
        }
    }

    /// Opens the target on a blocking thread; the answer comes as [`ShareInput::Opened`].
    pub(in crate::node) fn open_store(
        &mut self,
        manifest: Manifest,
        hashes: PieceHashes,
        earlier: Option<Resumable>,
    ) {
        let Some(fetch) = &mut self.fetch else { return };
        if fetch.options.stream && manifest.layout() != Layout::File {
            self.fail(FetchError::NotOneFile);
            return;
        }
        let chosen = match Chosen::of(&manifest, &fetch.options.only) {
            Ok(chosen) => chosen,
            Err(error) => return self.fail(FetchError::Storage(error)),
        };
        fetch.chosen = Some(chosen.clone());
        let (folders, links) = (manifest.folder_count(), manifest.link_count());
        if fetch.options.only.is_empty() && folders + links > 0 {
            self.hub.tell(NodeEvent::Described {
                name: manifest.name().as_str().to_owned(),
                bytes: manifest.geometry().total_len(),
                files: manifest.geometry().file_count(),
                folders,
                links,
            });
        }
        let Some(fetch) = &mut self.fetch else { return };
        // A store opens once: what peers would still tell of the share while it does must not open it again.
        fetch.metadata.settle();
        self.phase = Phase::Verify;
        let (target, inputs) = (fetch.options.target.clone(), self.share.inputs.clone());
        let ready = Arc::clone(&self.share.ready);
        let memory = self.hub.memory.folder().to_owned();
        self.hub.shop.tasks.spawn_blocking(move || {
            let told = inputs.clone();
            // A hint for the eyes: a share too busy to hear it will hear the next one.
            let progress =
                move |bytes, of| drop(told.try_send(ShareInput::Comparing { bytes, of }));
            let opened = FetchStore::open(
                &target,
                manifest.clone(),
                hashes.clone(),
                chosen,
                earlier,
                &progress,
            );
            let mut older = None;
            let opened = opened.map(|(store, held)| {
                let store = Arc::new(store);
                let reusable = store.reusable(&hashes, &memory);
                let pieces = reusable.pieces(held.len());
                if pieces.count() > 0 {
                    let _ = inputs.blocking_send(ShareInput::Reusable(pieces));
                    older = Some((Arc::clone(&store), hashes.clone(), reusable));
                }
                set_ready(&ready, manifest, hashes, store);
                held
            });
            // The share has left: nobody waits for this.
            let _ = inputs.blocking_send(ShareInput::Opened(opened));
            // Afterwards: nobody waits for what later runs may find useful.
            if let Some(ready) = ready.get() {
                KnownShares::open(&memory).keep(&ready.manifest, &ready.hashes);
            }
            // Beside the transfer of the others.
            if let Some((store, hashes, reusable)) = older {
                reuse(&store, &hashes, &reusable, &inputs);
            }
        });
    }

    /// A piece was read from an older file beside the target.
    pub(in crate::node) fn on_reused(
        &mut self,
        piece: PieceIndex,
        outcome: Result<Reused, StorageError>,
    ) {
        let Some(ready) = self.share.ready.get() else {
            return;
        };
        let (first, count) = (piece, 1);
        match outcome {
            Err(error) => self.fail(FetchError::Storage(error)),
            Ok(Reused::Lost) => self.engine(Input::PiecesLost { first, count }),
            Ok(Reused::Stored(whole)) => {
                let bytes = u64::from(ready.geometry().len_of(piece));
                self.numbers.held_bytes += bytes;
                self.numbers.reused_bytes += bytes;
                self.last_verified = Instant::now();
                self.syncing.stored(self.last_verified, bytes);
                if let Some(file) = whole {
                    let path = ready.manifest.file(file).path.as_str().to_owned();
                    self.hub.tell(NodeEvent::FileComplete { path });
                }
                self.engine(Input::PiecesFound { first, count });
                self.tell_leading();
            }
        }
    }

    /// The engine takes over.
    pub(in crate::node) fn begin(&mut self, held: Bitfield) {
        let Some(ready) = self.share.ready.get() else {
            return;
        };
        let geometry = ready.geometry().clone();
        let fetch = self.fetch.as_ref();
        let chosen = fetch.and_then(|fetch| fetch.chosen.as_ref());
        let bytes_of = |pieces: &Bitfield| -> u64 {
            let is_chosen =
                |piece: &PieceIndex| chosen.is_none_or(|chosen| chosen.pieces().contains(*piece));
            let pieces = pieces.iter().filter(is_chosen);
            pieces.map(|piece| u64::from(geometry.len_of(piece))).sum()
        };
        self.numbers.held_bytes = bytes_of(&held);
        if fetch.is_some() {
            self.numbers.zero_bytes = bytes_of(&ready.hashes.zero_pieces(&geometry));
        }
        let config = TransferConfig {
            geometry,
            held,
            // A seed never downloads: what it loses it does not want back.
            wanted: match fetch {
                None => Some(Bitfield::new(ready.geometry().piece_count())),
                Some(_) => chosen.map(|chosen| chosen.pieces().clone()),
            },
            rechecking: fetch.and_then(|fetch| fetch.reusable.clone()),
            sequential: fetch.is_some_and(|fetch| fetch.options.sequential || fetch.options.stream),
            random: Random::from_rng(&mut rand::rng()),
        };
        let transfer = Transfer::new(self.now(), config);
        let complete = transfer.is_complete();
        self.transfer = Some(transfer);
        self.tell_leading();
        self.last_verified = Instant::now();
        if self.fetch.is_some() {
            // An earlier run may have left pieces unsynced, and whole files without their final names.
            self.syncing.stored(self.last_verified, 0);
        }
        self.phase = if complete { Phase::Seed } else { Phase::Fetch };
        let sources: Vec<_> = self
            .sources
            .iter()
            .map(|(peer, source)| (*peer, *source))
            .collect();
        for (peer, source) in sources {
            self.tell_candidate(peer, source);
        }
        let linked: Vec<(PeerId, bool)> = self
            .linked
            .iter()
            .map(|(peer, linked)| (*peer, linked.is_ready))
            .collect();
        for (peer, is_ready) in linked {
            if let Some(linked) = self.linked.get(&peer) {
                linked.session.send(&self.share, ShareMessage::Ready);
            }
            if is_ready {
                self.ask_info();
                self.up(peer);
            }
        }
        self.engine(Input::Tick);
        if complete && self.fetch.is_some() {
            self.finish();
        }
    }

    /// Tells the reader of a stream how far it can read.
    pub(super) fn tell_leading(&self) {
        let Some(transfer) = &self.transfer else {
            return;
        };
        let held = transfer.held();
        self.leading.send_if_modified(|leading| {
            let gap = held.first_zero(leading.unwrap_or(0));
            let now = Some(gap.map_or(held.len(), PieceIndex::get));
            let is_new = now > *leading;
            *leading = now.max(*leading);
            is_new
        });
    }

    /// Gives the last names on a blocking thread; the answer comes as [`ShareInput::Finished`].
    pub(in crate::node) fn finish(&mut self) {
        self.phase = Phase::Write;
        let (ready, inputs) = (Arc::clone(&self.share.ready), self.share.inputs.clone());
        self.hub.shop.tasks.spawn_blocking(move || {
            let store = &ready.get().expect("only a ready share finishes").store;
            // The share has left: nobody waits for this.
            let _ = inputs.blocking_send(ShareInput::Finished(store.finish()));
        });
    }

    pub(super) fn on_finished(&mut self, finished: Result<PathBuf, StorageError>) {
        match finished {
            Err(error) => self.fail(FetchError::Storage(error)),
            Ok(path) => {
                self.phase = Phase::Seed;
                report::publish(self);
                let (bytes, elapsed) = (self.total().unwrap_or(0), self.started.elapsed());
                if let Some(Outcome::Share(outcome)) =
                    self.fetch.as_mut().and_then(|fetch| fetch.outcome.take())
                {
                    // Nobody waits for the outcome of a fetch whose handle is gone.
                    let _ = outcome.send(Ok(Fetched {
                        path,
                        bytes,
                        elapsed,
                    }));
                }
            }
        }
    }
}

/// Reads pieces from older files and tells of each, until all are read or the share has left.
fn reuse(
    store: &FetchStore,
    hashes: &PieceHashes,
    reusable: &Reusable,
    inputs: &mpsc::Sender<ShareInput>,
) {
    let told = |piece, outcome| {
        let outcome = Ok(outcome);
        let told = inputs.blocking_send(ShareInput::Reused { piece, outcome });
        told.is_ok()
    };
    if let Err(error) = store.reuse(hashes, reusable, told) {
        // The piece does not matter: the fetch ends.
        let (piece, outcome) = (PieceIndex::new(0), Err(error));
        let _ = inputs.blocking_send(ShareInput::Reused { piece, outcome });
    }
}

/// Makes a share ready: from now on sessions move its bytes.
pub(in crate::node) fn set_ready(
    ready: &OnceLock<ReadyShare>,
    manifest: Manifest,
    hashes: PieceHashes,
    store: Arc<dyn PieceStore>,
) {
    let manifest_bytes = manifest.encode();
    // A share becomes ready once; a second time would be a bug, and the first stays.
    let is_first = ready
        .set(ReadyShare {
            manifest,
            manifest_bytes,
            hashes,
            store,
        })
        .is_ok();
    debug_assert!(is_first, "a share becomes ready once");
}
