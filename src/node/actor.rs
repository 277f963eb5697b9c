//! The task of one share: takes what sessions, storage and discovery tell, one input after the other.
//!
//! Owns the engine of the share and its links to peers. Before the share is ready (manifest, hashes and
//! store) it collects those; afterwards every decision is the engine's and is carried out in
//! `perform.rs`. It never waits for a peer, a disk or a channel. Started by [`super::NodeHandle`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rand::SeedableRng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::addresses::{is_loopback, via_of};
use super::config::FetchOptions;
use super::exchange::Exchange;
use super::hints::Hints;
use super::hub::Hub;
use super::metadata::{Bad, Metadata};
use super::session::{DataJob, Session};
use super::share::{Checked, ReadyShare, SessionId, Share, ShareInput};
use super::status::{Fetched, NodeEvent, Phase, ShareStatus, Tried};
use super::{FetchError, perform, report};
use crate::content::{
    Bitfield, FileIndex, LayerRange, Layout, Manifest, Multiaddr, PeerId, PieceHashes, PieceIndex,
    ShareInfo,
};
use crate::engine::{
    DownCause, Input, PeerKey, Random, StallCause, Time, Transfer, TransferConfig,
};
use crate::network::PeerRecord;
use crate::storage::{Chosen, FetchStore, PieceStore, Resumable, StorageError};
use crate::wire::ShareMessage;

/// How often surfaces get a new picture.
const STATUS_EVERY: Duration = Duration::from_millis(200);

/// A peer that was dialled and has not become ready after this long may be dialled again.
const READY_MAX: Duration = Duration::from_secs(10);

/// Pause between dials of a peer before the share is ready.
const FIND_PAUSE: Duration = Duration::from_secs(1);

/// Addresses remembered per peer, and outcomes of dials remembered for the error message.
const ADDRESSES_MAX: usize = 8;
const TRIED_MAX: usize = 64;

/// Ended sessions remembered.
const ENDED_MAX: usize = 128;

/// Inputs taken before time and status are looked at again.
const BATCH_MAX: usize = 64;

/// A peer with which the share is open.
pub(super) struct Linked {
    pub(super) session: Session,
    pub(super) is_ready: bool,
    /// Whether the engine knows it.
    pub(super) is_up: bool,
}

/// What only a fetch has.
pub(super) struct Fetch {
    pub(super) options: FetchOptions,
    pub(super) metadata: Metadata,
    /// Who waits, until it was told.
    pub(super) outcome: Option<Outcome>,
    /// What is fetched of the share, once the manifest is known.
    pub(super) chosen: Option<Chosen>,
    pub(super) hints: Hints,
}

/// What is waited for, and by whom.
pub(super) enum Outcome {
    /// The share.
    Share(oneshot::Sender<Result<Fetched, FetchError>>),
    /// What is in it.
    Manifest(oneshot::Sender<Result<Manifest, FetchError>>),
    /// That, and the hashes of its pieces.
    Hashes(oneshot::Sender<Result<(Manifest, PieceHashes), FetchError>>),
}

impl Outcome {
    fn fail(self, error: FetchError) {
        // Nobody waits for the outcome of a fetch whose handle is gone.
        match self {
            Self::Share(outcome) => drop(outcome.send(Err(error))),
            Self::Manifest(outcome) => drop(outcome.send(Err(error))),
            Self::Hashes(outcome) => drop(outcome.send(Err(error))),
        }
    }
}

/// The task of one share.
pub(super) struct Actor {
    pub(super) share: Share,
    pub(super) hub: Arc<Hub>,
    pub(super) inputs: mpsc::Receiver<ShareInput>,
    pub(super) stop: CancellationToken,
    pub(super) status: watch::Sender<ShareStatus>,
    /// Pieces held without a gap from the first; `None` until the store is open.
    pub(super) leading: watch::Sender<Option<u32>>,
    pub(super) started: Instant,
    pub(super) fetch: Option<Fetch>,
    pub(super) transfer: Option<Transfer>,
    pub(super) linked: BTreeMap<PeerId, Linked>,
    pub(super) exchange: Exchange,
    pub(super) sessions: BTreeMap<SessionId, PeerId>,
    /// Sessions that ended lately, for the checks still running.
    pub(super) ended: BTreeMap<SessionId, PeerId>,
    pub(super) keys: BTreeMap<PeerId, PeerKey>,
    pub(super) peers: Vec<PeerId>,
    pub(super) addresses: BTreeMap<PeerId, Vec<Multiaddr>>,
    pub(super) sources: BTreeMap<PeerId, crate::engine::Source>,
    /// Dials that have not led to a ready peer, with when to give up on each.
    pub(super) dialled: BTreeMap<PeerId, Instant>,
    pub(super) services: BTreeMap<(PeerId, PieceIndex), Arc<AtomicBool>>,
    pub(super) tried: BTreeMap<Multiaddr, String>,
    pub(super) numbers: Numbers,
    pub(super) phase: Phase,
    pub(super) comparing: (u64, u64),
    pub(super) stalled: Option<StallCause>,
    pub(super) last_verified: Instant,
    pub(super) find_at: Instant,
    pub(super) find_pause: Duration,
}

/// What is counted over the run.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// Bytes held; kept here so that a status need not add up pieces.
    pub(super) held_bytes: u64,
    pub(super) downloaded: u64,
    pub(super) wasted: u64,
    /// The piece that each session is sending, and its bytes that are here.
    pub(super) arriving: BTreeMap<SessionId, (PieceIndex, u64)>,
    pub(super) givers: BTreeSet<PeerId>,
    pub(super) completed: BTreeSet<PeerId>,
    pub(super) ever_linked: bool,
}

impl Numbers {
    /// Bytes of a piece arrived. A session sends one piece at a time: what it left unfinished is lost.
    fn on_bytes(&mut self, session: SessionId, piece: PieceIndex, bytes: u64) {
        self.downloaded += bytes;
        match self.arriving.get_mut(&session) {
            Some((of, here)) if *of == piece => *here += bytes,
            _ => {
                self.on_session_end(session);
                self.arriving.insert(session, (piece, bytes));
            }
        }
    }

    /// What a session left unfinished is lost.
    pub(super) fn on_session_end(&mut self, session: SessionId) {
        self.wasted += self.arriving.remove(&session).map_or(0, |(_, here)| here);
    }
}

/// What an actor is started with.
pub(super) struct Start {
    pub(super) share: Share,
    pub(super) hub: Arc<Hub>,
    pub(super) inputs: mpsc::Receiver<ShareInput>,
    pub(super) stop: CancellationToken,
    pub(super) status: watch::Sender<ShareStatus>,
    pub(super) leading: watch::Sender<Option<u32>>,
    pub(super) fetch: Option<Fetch>,
}

impl Actor {
    pub(super) fn new(start: Start) -> Self {
        let Start {
            share,
            hub,
            inputs,
            stop,
            status,
            leading,
            fetch,
        } = start;
        let now = Instant::now();
        Self {
            share,
            hub,
            inputs,
            stop,
            status,
            leading,
            started: now,
            phase: if fetch.is_some() {
                Phase::Find
            } else {
                Phase::Seed
            },
            fetch,
            transfer: None,
            linked: BTreeMap::new(),
            exchange: Exchange::default(),
            sessions: BTreeMap::new(),
            ended: BTreeMap::new(),
            keys: BTreeMap::new(),
            peers: Vec::new(),
            addresses: BTreeMap::new(),
            sources: BTreeMap::new(),
            dialled: BTreeMap::new(),
            services: BTreeMap::new(),
            tried: BTreeMap::new(),
            numbers: Numbers::default(),
            comparing: (0, 0),
            stalled: None,
            last_verified: now,
            find_at: now,
            find_pause: Duration::from_millis(500),
        }
    }

    /// Runs until the share is stopped or its fetch fails.
    pub(super) async fn run(mut self) {
        let mut status_at = Instant::now();
        let stop = self.stop.clone();
        loop {
            let now = Instant::now();
            self.on_time(now);
            if now >= status_at {
                status_at = now + STATUS_EVERY;
                report::publish(&self);
            }
            let wake = self.deadline(now).min(status_at);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                input = self.inputs.recv() => match input {
                    None | Some(ShareInput::Stop) => break,
                    Some(input) => self.take(input),
                },
                () = tokio::time::sleep_until(wake) => {}
            }
            for _ in 0..BATCH_MAX {
                match self.inputs.try_recv() {
                    Ok(ShareInput::Stop) => self.stop.cancel(),
                    Ok(input) => self.take(input),
                    Err(_) => break,
                }
            }
        }
        self.leave().await;
    }

    async fn leave(mut self) {
        let complete = self.holds_all();
        for linked in self.linked.values() {
            linked.session.close_share(&self.share, complete);
        }
        self.hub.shop.shares.remove(&self.share.id);
        self.hub
            .network
            .withdraw(self.share.id.provider_key())
            .await;
        if let Some(outcome) = self.fetch.as_mut().and_then(|fetch| fetch.outcome.take()) {
            outcome.fail(FetchError::Closed);
        }
        report::publish(&self);
    }

    /// Whether a peer may be told that we are complete: a fetch of some files that has them all is not.
    pub(super) fn holds_all(&self) -> bool {
        let transfer = self.transfer.as_ref();
        transfer.is_some_and(|transfer| transfer.held().is_full())
    }

    pub(super) fn now(&self) -> Time {
        Time::from_start(self.started.elapsed())
    }

    // -- time -------------------------------------------------------------------------------------

    fn deadline(&self, now: Instant) -> Instant {
        let engine = self.transfer.as_ref().and_then(|transfer| {
            let at = transfer.poll_timeout(self.now())?;
            Some(self.started + at.since_start())
        });
        let metadata = self
            .fetch
            .as_ref()
            .and_then(|fetch| fetch.metadata.deadline());
        let dialled = self.dialled.values().min().copied();
        let find = self.transfer.is_none().then_some(self.find_at);
        let exchange = self.exchange.deadline();
        let next = [
            engine,
            metadata,
            dialled,
            find,
            exchange,
            self.giving_up_at(),
        ]
        .into_iter()
        .flatten()
        .min();
        next.unwrap_or(now + STATUS_EVERY)
    }

    /// When the fetch fails for want of peers or bytes.
    fn giving_up_at(&self) -> Option<Instant> {
        let fetch = self
            .fetch
            .as_ref()
            .filter(|fetch| fetch.outcome.is_some())?;
        match self.phase {
            Phase::Find | Phase::Fetch if !self.numbers.ever_linked => {
                Some(self.started + fetch.options.timeout)
            }
            Phase::Find | Phase::Fetch => Some(self.last_verified + fetch.options.stall_timeout),
            Phase::Verify | Phase::Write | Phase::Seed => None,
        }
    }

    fn on_time(&mut self, now: Instant) {
        if self.giving_up_at().is_some_and(|at| at <= now) {
            self.give_up();
            return;
        }
        let late: Vec<PeerId> = self
            .dialled
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in late {
            self.dial_failed(peer);
        }
        perform::tell_peers(self, now);
        if self.transfer.is_some() {
            self.engine(Input::Tick);
        } else {
            self.find(now);
            self.ask_metadata(now);
        }
    }

    fn give_up(&mut self) {
        let error = if self.numbers.ever_linked {
            let (bytes, total) = (self.numbers.held_bytes, self.total().unwrap_or(0));
            let missing = self
                .transfer
                .as_ref()
                .map_or(0, |transfer| transfer.status(self.now()).without_holder);
            let after = self.last_verified.elapsed();
            FetchError::Stalled {
                after,
                bytes,
                total,
                missing,
            }
        } else {
            let outcome_of = |(address, outcome): (&Multiaddr, &String)| Tried {
                address: address.clone(),
                outcome: outcome.clone(),
            };
            FetchError::NoPeer {
                after: self.started.elapsed(),
                tried: self.tried.iter().map(outcome_of).collect(),
            }
        };
        self.fail(error);
    }

    pub(super) fn fail(&mut self, error: FetchError) {
        if let Some(outcome) = self.fetch.as_mut().and_then(|fetch| fetch.outcome.take()) {
            outcome.fail(error);
        }
        self.stop.cancel();
    }

    /// Bytes to be fetched, or to be served.
    pub(super) fn total(&self) -> Option<u64> {
        if let Some(chosen) = self.fetch.as_ref().and_then(|fetch| fetch.chosen.as_ref()) {
            return Some(chosen.total_len());
        }
        let ready = self
            .share
            .ready
            .get()
            .map(|ready| ready.geometry().total_len());
        let manifest = || {
            Some(
                self.fetch
                    .as_ref()?
                    .metadata
                    .manifest()?
                    .geometry()
                    .total_len(),
            )
        };
        ready.or_else(manifest)
    }

    // -- before the share is ready ----------------------------------------------------------------

    /// Dials everybody heard of, and looks for more, until the engine takes over.
    fn find(&mut self, now: Instant) {
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

    fn ask_metadata(&mut self, now: Instant) {
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

    fn on_metadata(&mut self, session: SessionId, taken: Result<(), Bad>) {
        self.last_verified = Instant::now();
        if let Err(Bad(reason)) = taken {
            if let Some(peer) = self.sessions.get(&session).copied() {
                perform::unlink(self, peer, Some((DownCause::Violation, reason)));
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
    fn is_described(&mut self) -> bool {
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
    fn ask_info(&mut self) {
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

    fn on_info(&mut self, session: SessionId, place: (u32, u32), bytes: &[u8]) {
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
    pub(super) fn open_store(
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
        self.phase = Phase::Verify;
        let (target, inputs) = (fetch.options.target.clone(), self.share.inputs.clone());
        let ready = Arc::clone(&self.share.ready);
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
            let opened = opened.map(|(store, held)| {
                set_ready(&ready, manifest, hashes, Arc::new(store));
                held
            });
            // The share has left: nobody waits for this.
            let _ = inputs.blocking_send(ShareInput::Opened(opened));
        });
    }

    /// The engine takes over.
    pub(super) fn begin(&mut self, held: Bitfield) {
        let Some(ready) = self.share.ready.get() else {
            return;
        };
        let geometry = ready.geometry().clone();
        let fetch = self.fetch.as_ref();
        let chosen = fetch.and_then(|fetch| fetch.chosen.as_ref());
        self.numbers.held_bytes = held
            .iter()
            .filter(|piece| chosen.is_none_or(|chosen| chosen.pieces().contains(*piece)))
            .map(|piece| u64::from(geometry.len_of(piece)))
            .sum();
        let config = TransferConfig {
            geometry,
            held,
            // A seed never downloads: what it loses it does not want back.
            wanted: match fetch {
                None => Some(Bitfield::new(ready.geometry().piece_count())),
                Some(_) => chosen.map(|chosen| chosen.pieces().clone()),
            },
            sequential: fetch.is_some_and(|fetch| fetch.options.sequential || fetch.options.stream),
            random: Random::from_rng(&mut rand::rng()),
        };
        let transfer = Transfer::new(self.now(), config);
        let complete = transfer.is_complete();
        self.transfer = Some(transfer);
        self.tell_leading();
        self.last_verified = Instant::now();
        self.phase = if complete { Phase::Seed } else { Phase::Fetch };
        let sources: Vec<_> = self
            .sources
            .iter()
            .map(|(peer, source)| (*peer, *source))
            .collect();
        for (peer, source) in sources {
            let peer = self.key(peer);
            self.engine(Input::Candidate { peer, source });
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
    fn tell_leading(&self) {
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
    pub(super) fn finish(&mut self) {
        self.phase = Phase::Write;
        let (ready, inputs) = (Arc::clone(&self.share.ready), self.share.inputs.clone());
        self.hub.shop.tasks.spawn_blocking(move || {
            let store = &ready.get().expect("only a ready share finishes").store;
            // The share has left: nobody waits for this.
            let _ = inputs.blocking_send(ShareInput::Finished(store.finish()));
        });
    }

    fn on_finished(&mut self, finished: Result<PathBuf, StorageError>) {
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

    // -- inputs -----------------------------------------------------------------------------------

    fn take(&mut self, input: ShareInput) {
        match input {
            ShareInput::Linked(session) => self.on_linked(session),
            ShareInput::Refused { peer } => {
                self.tried(&[], Some(peer), "does not have the share");
                self.dial_failed(peer);
            }
            ShareInput::Unlinked {
                session,
                cause,
                reason,
            } => self.on_unlinked(session, cause, reason),
            ShareInput::Message { session, message } => self.on_message(session, message),
            ShareInput::Manifest {
                session,
                total,
                offset,
                bytes,
            } => {
                let Some(fetch) = &mut self.fetch else { return };
                let taken =
                    fetch
                        .metadata
                        .on_manifest(Instant::now(), session, (total, offset), &bytes);
                self.on_metadata(session, taken);
            }
            ShareInput::Info {
                session,
                total,
                offset,
                bytes,
            } => self.on_info(session, (total, offset), &bytes),
            ShareInput::Hashes {
                session,
                file,
                first,
                digests,
            } => {
                let Some(fetch) = &mut self.fetch else { return };
                let taken = fetch.metadata.on_hashes(session, (file, first), &digests);
                self.on_metadata(session, taken);
            }
            ShareInput::Received {
                session,
                piece,
                bytes,
            } => {
                self.numbers.on_bytes(session, piece, u64::from(bytes));
                self.engine_of(session, |peer| Input::Received { peer, piece, bytes });
            }
            ShareInput::Arrived { session, piece } => {
                self.numbers.arriving.remove(&session);
                self.engine_of(session, |peer| Input::PieceArrived { peer, piece });
            }
            ShareInput::Checked {
                session,
                piece,
                outcome,
            } => self.on_checked(session, piece, outcome),
            ShareInput::Sent {
                session,
                piece,
                bytes,
            } => {
                self.engine_of(session, |peer| Input::Sent { peer, piece, bytes });
            }
            ShareInput::ServiceEnded {
                session,
                piece,
                how,
            } => {
                if let Some(peer) = self.sessions.get(&session) {
                    self.services.remove(&(*peer, piece));
                }
                self.engine_of(session, |peer| Input::ServiceEnded { peer, piece, how });
            }
            ShareInput::Unreadable { piece, error } => self.on_unreadable(piece, &error),
            ShareInput::Records { session, records } => self.on_records(session, records),
            ShareInput::BadRecords { session, reason } => {
                let linked = self
                    .peer_of(session)
                    .and_then(|peer| self.linked.get(&peer));
                if let Some(linked) = linked.filter(|linked| linked.session.id() == session) {
                    linked.session.end(DownCause::Violation, reason);
                }
            }
            ShareInput::Candidates { peers, source } => {
                for (peer, addresses) in peers {
                    self.on_candidate(peer, addresses, source);
                }
            }
            ShareInput::DialFailed { peer, tried } => {
                for (address, outcome) in tried {
                    self.tried(&[address], None, &outcome);
                }
                if let Some(peer) = peer {
                    self.dial_failed(peer);
                }
            }
            ShareInput::Comparing { bytes, of } => self.comparing = (bytes, of),
            ShareInput::Opened(Ok(held)) => self.begin(held),
            ShareInput::Opened(Err(error)) => self.fail(FetchError::Storage(error)),
            ShareInput::Finished(finished) => self.on_finished(finished),
            ShareInput::Stop => self.stop.cancel(),
        }
    }

    fn tried(&mut self, addresses: &[Multiaddr], peer: Option<PeerId>, outcome: &str) {
        let known = peer
            .and_then(|peer| self.addresses.get(&peer).cloned())
            .unwrap_or_default();
        for address in addresses.iter().chain(&known) {
            if self.tried.len() < TRIED_MAX || self.tried.contains_key(address) {
                self.tried.insert(address.clone(), outcome.to_owned());
            }
        }
    }

    fn on_candidate(
        &mut self,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        source: crate::engine::Source,
    ) {
        if peer == self.hub.shop.local_peer {
            return;
        }
        let known = self.addresses.entry(peer).or_default();
        // What was heard last is most likely true.
        for address in addresses.into_iter().rev() {
            known.retain(|other| *other != address);
            known.insert(0, address);
        }
        known.truncate(ADDRESSES_MAX);
        let is_new = !self.sources.contains_key(&peer);
        if is_new && self.sources.len() >= crate::engine::tuning::CANDIDATES_MAX {
            return;
        }
        self.sources.insert(peer, source);
        if self.transfer.is_some() {
            let peer = self.key(peer);
            self.engine(Input::Candidate { peer, source });
        } else if is_new && self.fetch.is_some() && !self.linked.contains_key(&peer) {
            perform::connect(self, peer);
        }
    }

    pub(super) fn dial_failed(&mut self, peer: PeerId) {
        if self.dialled.remove(&peer).is_none() {
            return;
        }
        if self.transfer.is_some() {
            let peer = self.key(peer);
            self.engine(Input::ConnectFailed { peer });
        } else {
            self.find_at = self.find_at.min(Instant::now() + FIND_PAUSE);
        }
    }

    fn on_linked(&mut self, session: Session) {
        let peer = session.peer();
        if self.linked.contains_key(&peer) {
            perform::forget(self, peer, DownCause::Closed, "replaced by a newer session");
        }
        self.numbers.ever_linked = true;
        self.hub.memory.met(peer, self.share.id.provider_key());
        if self.transfer.is_none() {
            self.last_verified = Instant::now();
        }
        self.sessions.insert(session.id(), peer);
        let address = session.remote_address().clone();
        let via = via_of(&address);
        self.hub
            .tell(NodeEvent::PeerConnected { peer, address, via });
        if self.transfer.is_some() {
            session.send(&self.share, ShareMessage::Ready);
        }
        self.linked.insert(
            peer,
            Linked {
                session,
                is_ready: false,
                is_up: false,
            },
        );
        self.dialled.insert(peer, Instant::now() + READY_MAX);
    }

    fn on_unlinked(&mut self, session: SessionId, cause: DownCause, reason: String) {
        let Some(peer) = self.sessions.get(&session).copied() else {
            return;
        };
        perform::forget(self, peer, cause, &reason);
    }

    fn on_message(&mut self, session: SessionId, message: ShareMessage) {
        let Some(peer) = self.sessions.get(&session).copied() else {
            return;
        };
        match message {
            ShareMessage::Ready => {
                if let Some(linked) = self.linked.get_mut(&peer) {
                    linked.is_ready = true;
                }
                self.ask_info();
                if self.transfer.is_some() {
                    self.up(peer);
                } else {
                    self.ask_metadata(Instant::now());
                }
            }
            ShareMessage::GetInfo => self.send_data(
                peer,
                DataJob::Info {
                    share: self.share.id,
                },
            ),
            ShareMessage::GetManifest => self.send_data(
                peer,
                DataJob::Manifest {
                    share: self.share.id,
                },
            ),
            ShareMessage::GetHashes { file, first, count } => {
                let range = LayerRange {
                    file: FileIndex::new(file),
                    first,
                    count,
                };
                self.send_data(
                    peer,
                    DataJob::Hashes {
                        share: self.share.id,
                        range,
                    },
                );
            }
            ShareMessage::Peers { records } => {
                let now = Instant::now();
                if self.exchange.may_speak(now, &peer) {
                    perform::check_records(self, session, records);
                }
            }
            message => self.engine_of(session, |peer| Input::Message { peer, message }),
        }
    }

    fn on_records(&mut self, session: SessionId, records: Vec<PeerRecord>) {
        let Some(from) = self.sessions.get(&session).copied() else {
            return;
        };
        let told = self.exchange.on_records(Instant::now(), &from, records);
        let source = crate::engine::Source::Exchange;
        self.hub.offer_in_turn(&self.share, told, source);
    }

    fn send_data(&self, peer: PeerId, job: DataJob) {
        if self.share.ready.get().is_some()
            && let Some(linked) = self.linked.get(&peer)
        {
            linked.session.send_data(job);
        }
    }

    fn up(&mut self, peer: PeerId) {
        let Some(linked) = self.linked.get_mut(&peer) else {
            return;
        };
        if !std::mem::replace(&mut linked.is_up, true) {
            let is_local = is_loopback(linked.session.remote_address());
            self.exchange.up(Instant::now(), peer, is_local);
            self.dialled.remove(&peer);
            let peer = self.key(peer);
            self.engine(Input::PeerUp { peer });
        }
    }

    fn on_checked(&mut self, session: SessionId, piece: PieceIndex, outcome: Checked) {
        let Some(ready) = self.share.ready.get() else {
            return;
        };
        let bytes = ready.geometry().len_of(piece);
        let is_new = self
            .transfer
            .as_ref()
            .is_some_and(|transfer| !transfer.held().contains(piece));
        let is_kept = is_new && matches!(outcome, Checked::Stored { .. });
        self.numbers.wasted += if is_kept { 0 } else { u64::from(bytes) };
        let Some(peer) = self.peer_of(session) else {
            return;
        };
        let key = self.key(peer);
        match outcome {
            Checked::Corrupt => {
                tracing::warn!(%peer, %piece, "a piece does not match its hash");
                self.engine(Input::PieceCorrupt { peer: key, piece });
            }
            Checked::Failed(error) => self.fail(FetchError::Storage(error)),
            Checked::Stored { published } => {
                if is_kept {
                    self.numbers.held_bytes += u64::from(bytes);
                    self.numbers.givers.insert(peer);
                    self.last_verified = Instant::now();
                    self.stalled = None;
                    self.hub.tell(NodeEvent::PieceStored {
                        peer,
                        piece: piece.get(),
                        bytes,
                    });
                }
                if let Some(path) = published {
                    self.hub.tell(NodeEvent::FilePublished { path });
                }
                self.engine(Input::PieceStored { peer: key, piece });
                self.tell_leading();
            }
        }
    }

    /// Who spoke in this session, also when it has ended: a piece may be checked after that.
    fn peer_of(&self, session: SessionId) -> Option<PeerId> {
        self.sessions
            .get(&session)
            .or_else(|| self.ended.get(&session))
            .copied()
    }

    fn on_unreadable(&mut self, piece: PieceIndex, error: &StorageError) {
        let Some(ready) = self.share.ready.get() else {
            return;
        };
        self.hub.tell(NodeEvent::SourceChanged {
            what: error.to_string(),
        });
        let geometry = ready.geometry();
        let lost = match error {
            StorageError::SourceChanged { .. } => geometry.file_pieces(geometry.locate(piece).file),
            _ => piece.get()..piece.get() + 1,
        };
        self.engine(Input::PiecesLost {
            first: PieceIndex::new(lost.start),
            count: lost.end - lost.start,
        });
    }

    /// A session is gone from the share; its peer is remembered for a while.
    pub(super) fn end_session(&mut self, session: SessionId) {
        self.numbers.on_session_end(session);
        if let Some(peer) = self.sessions.remove(&session) {
            self.ended.insert(session, peer);
            if self.ended.len() > ENDED_MAX {
                self.ended.pop_first();
            }
        }
    }

    // -- the engine -------------------------------------------------------------------------------

    /// The number of a peer for the engine; the same for the whole run.
    pub(super) fn key(&mut self, peer: PeerId) -> PeerKey {
        let peers = &mut self.peers;
        *self.keys.entry(peer).or_insert_with(|| {
            peers.push(peer);
            PeerKey(u32::try_from(peers.len() - 1).expect("fewer than 2^32 peers are met in a run"))
        })
    }

    fn engine_of(&mut self, session: SessionId, input: impl FnOnce(PeerKey) -> Input) {
        if let Some(peer) = self.sessions.get(&session).copied() {
            let input = input(self.key(peer));
            self.engine(input);
        }
    }

    /// Hands an input to the engine and carries out what it says.
    pub(super) fn engine(&mut self, input: Input) {
        let now = self.now();
        let Some(transfer) = &mut self.transfer else {
            return;
        };
        transfer.handle(now, input);
        while let Some(output) = self.transfer.as_mut().and_then(Transfer::poll_output) {
            perform::perform(self, output);
        }
    }
}

/// Makes a share ready: from now on sessions move its bytes.
pub(super) fn set_ready(
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
