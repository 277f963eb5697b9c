//! The task of one share: takes what sessions, storage and discovery tell, one input after the other.
//!
//! Owns the engine of the share. Until the share is ready, `readiness` collects manifest, hashes and store; `peers`
//! knows who is linked; afterwards every decision is the engine's and is carried out in `perform.rs`. It never waits
//! for a peer, a disk or a channel. Started by [`super::NodeHandle`].

mod numbers;
mod peers;
mod readiness;
mod rereading;
mod syncing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::numbers::Numbers;
use self::peers::Linked;
pub(super) use self::readiness::{Fetch, Outcome, set_ready};
use self::rereading::Rereading;
use self::syncing::Syncing;
use super::exchange::Exchange;
use super::hub::Hub;
use super::share::{Checked, SessionId, Share, ShareInput};
use super::status::{NodeEvent, Phase, ShareStatus, Tried};
use super::{FetchError, perform, report};
use crate::content::{Multiaddr, PeerId, PieceIndex};
use crate::engine::{DownCause, Input, PeerKey, StallCause, Time, Transfer};

/// How often surfaces get a new picture.
const STATUS_EVERY: Duration = Duration::from_millis(200);

/// Inputs taken before time and status are looked at again.
const BATCH_MAX: usize = 64;

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
    pub(super) syncing: Syncing,
    pub(super) rereading: Rereading,
    pub(super) phase: Phase,
    pub(super) comparing: (u64, u64),
    pub(super) stalled: Option<StallCause>,
    pub(super) last_verified: Instant,
    pub(super) find_at: Instant,
    pub(super) find_pause: Duration,
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
            syncing: Syncing::default(),
            rereading: Rereading::new(now),
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
        if self.syncing.is_wanted() {
            perform::sync_last(&self).await;
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
            self.syncing.deadline(),
            self.rereading.deadline(),
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
        if self.syncing.begins(now) {
            perform::sync(self);
        }
        self.reread(now);
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
                why: self.withheld(),
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
            ShareInput::Message {
                session, message, ..
            } => self.on_message(session, message),
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
            ShareInput::Unreadable { piece, error } => self.on_unreadable(piece, error),
            ShareInput::Found { file, first, count } => self.on_found(file, first, count),
            ShareInput::Reread {
                file,
                outcome,
                took,
            } => self.on_reread(file, outcome, took),
            ShareInput::RereadEnded => self.on_reread_ended(),
            ShareInput::Looked(changed) => self.on_looked(changed),
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
            ShareInput::Reusable(pieces) => {
                if let Some(fetch) = &mut self.fetch {
                    fetch.reusable = Some(pieces);
                }
            }
            ShareInput::Reused { piece, outcome } => self.on_reused(piece, outcome),
            ShareInput::Finished(finished) => self.on_finished(finished),
            ShareInput::Synced(Ok(())) => self.syncing.ended(),
            ShareInput::Synced(Err(error)) => self.fail(FetchError::Storage(error)),
            ShareInput::Stop => self.stop.cancel(),
        }
    }

    fn on_checked(&mut self, session: SessionId, piece: PieceIndex, outcome: Checked) {
        let Some(ready) = self.share.ready.get() else {
            return;
        };
        let bytes = ready.geometry().len_of(piece);
        let is_withheld = self
            .rereading
            .withholds(ready.geometry().locate(piece).file);
        let is_new = !is_withheld
            && self
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
            Checked::Stored { whole } => {
                if is_kept {
                    self.numbers.held_bytes += u64::from(bytes);
                    self.numbers.givers.insert(peer);
                    self.last_verified = Instant::now();
                    self.syncing.stored(self.last_verified, u64::from(bytes));
                    self.stalled = None;
                    self.hub.tell(NodeEvent::PieceStored {
                        peer,
                        piece: piece.get(),
                        bytes,
                    });
                }
                if let Some(path) = whole {
                    self.hub.tell(NodeEvent::FileComplete { path });
                }
                // One that came late, of a file that changed since it was whole, proves nothing about that file.
                if !is_withheld {
                    self.engine(Input::PieceStored { peer: key, piece });
                    self.tell_leading();
                }
            }
        }
    }

    // -- the engine -------------------------------------------------------------------------------

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
