//! One session per peer: opens them, takes those that peers begin, and decides which of two stays.
//!
//! Also keeps the nodes that the user named connected, and passes on what the network finds to the shares
//! it concerns. Source: `src/wire/PROTOCOL.md`, first section.

use std::cmp::Ordering::{Equal, Greater};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::addresses::{self, Machine, is_loopback};
use super::exchange::OwnRecords;
use super::memory::Memory;
use super::session::{Session, Shop};
use super::share::{SessionId, Share, ShareInput};
use super::status::{NodeEvent, Told};
use super::subnets::Subnets;
use crate::content::{Multiaddr, PeerId};
use crate::engine::{DownCause, Source};
use crate::network::{
    DialError, DialFailure, Lease, LiveRecord, NetworkEvent, NetworkHandle, PeerRecord,
    SessionStreams, live_neighbours,
};
use crate::storage::KnownPeers;

/// Two sessions with one peer that began within this time crossed on the way.
const CROSSING: Duration = Duration::from_secs(5);

/// Pauses between dials of a node that the user named.
const KEEP_MIN: Duration = Duration::from_millis(500);
const KEEP_MAX: Duration = Duration::from_secs(8);

/// How often the home is looked at for other live processes, at first and later.
const NEIGHBOURS_FIRST: Duration = Duration::from_millis(300);
const NEIGHBOURS_LATER: Duration = Duration::from_secs(2);
const NEIGHBOURS_FIRST_LOOKS: u32 = 10;

/// How long the subnets of this machine are believed: interfaces come and go, and lids close.
const SUBNETS_LAST: Duration = Duration::from_secs(10);

/// What the larger of two peer ids leaves the smaller to dial first when multicast or a third peer told of them. On a LAN a dial takes
/// milliseconds; a peer that is complete never dials, so all of this is lost when the larger one fetches.
const LARGER_WAITS: Duration = Duration::from_millis(250);

/// Peers found by multicast that are remembered, and addresses of each.
const NEARBY_MAX: usize = 256;
const NEARBY_ADDRESSES_MAX: usize = 8;

/// Nodes of earlier runs that are dialled at the start. One that answers is enough; more only make up for those gone.
const MET_AGAIN_MAX: usize = 8;

/// How long a node that does not speak our protocol is left alone, and how many of them are remembered.
const FOREIGN_PAUSE: Duration = Duration::from_secs(10 * 60);
const FOREIGN_MAX: usize = 1_024;

/// The sessions of a process.
pub(super) struct Hub {
    pub(super) network: NetworkHandle,
    pub(super) shop: Arc<Shop>,
    pub(super) events: broadcast::Sender<Told>,
    pub(super) ending: CancellationToken,
    sessions: Mutex<BTreeMap<PeerId, Session>>,
    /// One dial at a time for each peer.
    dials: Mutex<BTreeMap<PeerId, Arc<tokio::sync::Mutex<()>>>>,
    session_count: AtomicU64,
    /// Peers that multicast found, for shares that are opened later.
    nearby: Mutex<BTreeMap<PeerId, Vec<Multiaddr>>>,
    /// Nodes that speak libp2p and not our protocol, with until when they are left alone.
    foreign: Mutex<BTreeMap<PeerId, Instant>>,
    own_records: Mutex<Arc<OwnRecords>>,
    /// Which addresses are near, and when that was looked at.
    subnets: Mutex<Option<(Instant, Arc<Subnets>)>>,
    pub(super) memory: Memory,
    /// Held so that no other process takes this identity.
    lease: Mutex<Lease>,
}

impl Hub {
    pub(super) fn new(
        network: NetworkHandle,
        shop: Arc<Shop>,
        events: broadcast::Sender<Told>,
        memory: Memory,
        lease: Lease,
    ) -> Self {
        Self {
            network,
            shop,
            events,
            ending: CancellationToken::new(),
            sessions: Mutex::default(),
            dials: Mutex::default(),
            session_count: AtomicU64::new(0),
            nearby: Mutex::default(),
            foreign: Mutex::default(),
            own_records: Mutex::default(),
            subnets: Mutex::default(),
            memory,
            lease: Mutex::new(lease),
        }
    }

    pub(super) fn tell(&self, event: NodeEvent) {
        // Nobody listens: then nobody misses it.
        let _ = self.events.send(Told {
            at: std::time::SystemTime::now(),
            event,
        });
    }

    /// The subnets that this machine is in, not older than [`SUBNETS_LAST`].
    pub(super) fn subnets(&self) -> Arc<Subnets> {
        let now = Instant::now();
        let mut known = self.subnets.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((at, subnets)) if now.duration_since(*at) < SUBNETS_LAST => Arc::clone(subnets),
            _ => {
                let subnets = Arc::new(Subnets::look());
                *known = Some((now, Arc::clone(&subnets)));
                subnets
            }
        }
    }

    // -- sessions ---------------------------------------------------------------------------------

    fn live(&self, peer: &PeerId) -> Option<Session> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions
            .get(peer)
            .filter(|session| session.is_alive())
            .cloned()
    }

    /// The session with `peer`, opened if there is none.
    ///
    /// # Errors
    /// [`DialError`] names each address tried and what happened.
    pub(super) async fn session_with(
        self: &Arc<Self>,
        peer: PeerId,
        addresses: Vec<Multiaddr>,
    ) -> Result<Session, DialError> {
        if let Some(session) = self.live(&peer) {
            return Ok(session);
        }
        let turn = {
            let mut dials = self.dials.lock().unwrap_or_else(PoisonError::into_inner);
            dials.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(dials.entry(peer).or_default())
        };
        let _turn = turn.lock().await;
        if let Some(session) = self.live(&peer) {
            return Ok(session);
        }
        if self.is_foreign(&peer) {
            let tried = addresses
                .into_iter()
                .map(|address| (address, DialFailure::NotShoal))
                .collect();
            return Err(DialError { tried });
        }
        match self.network.open_session(Some(peer), addresses).await {
            Ok(streams) => Ok(self.adopt(streams)),
            Err(error) => {
                let is_foreign =
                    |(_, failure): &(_, DialFailure)| *failure == DialFailure::NotShoal;
                if error.tried.iter().any(is_foreign) {
                    self.remember_foreign(peer);
                }
                Err(error)
            }
        }
    }

    fn is_foreign(&self, peer: &PeerId) -> bool {
        let foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        foreign
            .get(peer)
            .is_some_and(|until| Instant::now() < *until)
    }

    fn remember_foreign(&self, peer: PeerId) {
        let now = Instant::now();
        let mut foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        foreign.retain(|_, until| now < *until);
        if foreign.len() < FOREIGN_MAX {
            foreign.insert(peer, now + FOREIGN_PAUSE);
        }
    }

    // -- our own records --------------------------------------------------------------------------

    /// What we say about ourselves to peers.
    pub(super) fn own_records(&self) -> Arc<OwnRecords> {
        let own = self
            .own_records
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&own)
    }

    /// Signs anew where we are; for the start, and when an address came or went.
    pub(super) async fn sign_records(&self) {
        let listeners = self.network.listeners().await;
        let chosen = addresses::for_link(&listeners, &Machine::look());
        self.network.prefer(chosen.clone()).await;
        let (local, wide): (Vec<_>, Vec<_>) = chosen.iter().cloned().partition(is_loopback);
        let mut records: Vec<_> = self.network.sign_record(&wide).into_iter().collect();
        if !local.is_empty() {
            records.extend(self.network.sign_record(&chosen));
        }
        let mut own = self
            .own_records
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let said = |records: &[PeerRecord]| -> Vec<Vec<Multiaddr>> {
            records
                .iter()
                .map(|record| record.addresses.clone())
                .collect()
        };
        if said(&own.records) != said(&records) {
            let version = own.version + 1;
            *own = Arc::new(OwnRecords { version, records });
        }
    }

    /// Shows other processes of this home where we are and which shares we have; for the start, when there is another share,
    /// and when an address came or went.
    pub(super) async fn publish(&self) {
        let listeners = self.network.listeners().await;
        let shares = self.shop.shares.all();
        let record = LiveRecord {
            peer: self.shop.local_peer,
            addrs: listeners.iter().map(addresses::bare).collect(),
            keys: shares.iter().map(|share| share.id.provider_key()).collect(),
        };
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        lease.publish(record);
    }

    /// Starts a session on these streams, unless another one with the same peer stays: then that one.
    ///
    /// Of two that crossed both sides keep the one of the greater standing. Where that is equal one side began both, and
    /// it alone ends one of them: the other side may hear of the two in either order.
    pub(super) fn adopt(self: &Arc<Self>, streams: SessionStreams) -> Session {
        if streams.dialled_by_us {
            self.memory
                .reached(streams.peer, streams.remote_address.clone());
        }
        let is_ours = streams.opened_by_us;
        let id = SessionId(self.session_count.fetch_add(1, Ordering::Relaxed));
        let fresh = Session::start(id, streams, Arc::clone(&self.shop));
        let (replaced, spare) = {
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            let before = sessions
                .get(&fresh.peer())
                .filter(|session| session.is_alive())
                .cloned();
            let order = before
                .as_ref()
                .filter(|before| fresh.began().duration_since(before.began()) < CROSSING)
                .map(|before| before.standing().cmp(&fresh.standing()));
            if let Some(before) = &before
                && (order == Some(Greater) || order == Some(Equal) && is_ours)
            {
                fresh.end(DownCause::Left, "another session stays");
                return before.clone();
            }
            sessions.insert(fresh.peer(), fresh.clone());
            match order {
                Some(Equal) => (None, before),
                _ => (before, None),
            }
        };
        if let Some(before) = replaced {
            // Nobody is to wait for an answer that was on its way in the other one.
            for share in self.shop.shares.all() {
                if before.has_opened(&share) {
                    fresh.open(&share);
                }
            }
            before.end(DownCause::Closed, "replaced by a newer session");
        }
        let hub = Arc::clone(self);
        let watched = fresh.clone();
        self.shop.tasks.spawn(async move {
            watched.ended().await;
            let mut sessions = hub.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            if sessions
                .get(&watched.peer())
                .is_some_and(|session| session.id() == watched.id())
            {
                sessions.remove(&watched.peer());
                if let Some(spare) = spare.filter(Session::is_alive) {
                    sessions.insert(spare.peer(), spare);
                }
            }
        });
        fresh
    }

    /// Says goodbye to everybody; bounded by the time a goodbye may take.
    pub(super) async fn leave_all(&self) {
        let sessions: Vec<Session> = {
            let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.values().cloned().collect()
        };
        futures::future::join_all(sessions.iter().map(Session::leave)).await;
    }

    // -- tasks ------------------------------------------------------------------------------------

    /// Passes on what the network reports until the node ends.
    pub(super) async fn route(self: Arc<Self>, mut events: mpsc::Receiver<NetworkEvent>) {
        let mut has_moved = false;
        loop {
            if has_moved && events.is_empty() {
                // Several interfaces come and go together.
                has_moved = false;
                self.sign_records().await;
                self.publish().await;
            }
            let event = tokio::select! {
                () = self.ending.cancelled() => return,
                event = events.recv() => event,
            };
            match event {
                None => return,
                Some(NetworkEvent::Listening { address }) => {
                    has_moved = true;
                    self.tell(NodeEvent::Listening { address })
                }
                Some(NetworkEvent::NotListening { .. }) => has_moved = true,
                Some(NetworkEvent::InboundSession(streams)) => drop(self.adopt(streams)),
                Some(NetworkEvent::Discovered {
                    peer, addresses, ..
                }) => self.on_nearby(peer, addresses),
                Some(NetworkEvent::Reached { peer, address }) => self.memory.reached(peer, address),
                Some(NetworkEvent::Providers { key, peers }) => {
                    if let Some(share) = self.shop.shares.by_provider_key(&key) {
                        let _ = share.inputs.try_send(ShareInput::Candidates {
                            peers,
                            source: Source::Dht,
                        });
                    }
                }
                Some(NetworkEvent::LookupDone { .. }) => {}
            }
        }
    }

    /// Multicast found somebody: a candidate of every share, now and later.
    fn on_nearby(self: &Arc<Self>, peer: PeerId, addresses: Vec<Multiaddr>) {
        {
            let mut nearby = self.nearby.lock().unwrap_or_else(PoisonError::into_inner);
            if nearby.len() >= NEARBY_MAX && !nearby.contains_key(&peer) {
                return;
            }
            let known = nearby.entry(peer).or_default();
            for address in addresses.into_iter().rev() {
                known.retain(|other| *other != address);
                known.insert(0, address);
            }
            known.truncate(NEARBY_ADDRESSES_MAX);
        }
        for share in self.shop.shares.all() {
            self.introduce_one(&share, peer);
        }
    }

    /// Offers a share that was opened now everybody whom multicast found before.
    pub(super) fn introduce(self: &Arc<Self>, share: &Share) {
        let peers: Vec<PeerId> = {
            let nearby = self.nearby.lock().unwrap_or_else(PoisonError::into_inner);
            nearby.keys().copied().collect()
        };
        for peer in peers {
            self.introduce_one(share, peer);
        }
    }

    fn introduce_one(self: &Arc<Self>, share: &Share, peer: PeerId) {
        let addresses = {
            let nearby = self.nearby.lock().unwrap_or_else(PoisonError::into_inner);
            nearby.get(&peer).cloned().unwrap_or_default()
        };
        self.offer_in_turn(share, vec![(peer, addresses)], Source::Lan);
    }

    /// Offers peers that probably hear of us at the same moment: the smaller of two peer ids dials first, so that they
    /// do not meet half-way.
    pub(super) fn offer_in_turn(
        self: &Arc<Self>,
        share: &Share,
        mut peers: Vec<(PeerId, Vec<Multiaddr>)>,
        source: Source,
    ) {
        peers.retain(|(peer, _)| !self.is_foreign(peer));
        let (first, later): (Vec<_>, Vec<_>) = peers
            .into_iter()
            .partition(|(peer, _)| self.shop.local_peer < *peer);
        if !first.is_empty() {
            let peers = first;
            // A hint: a share too busy to hear it will hear the next one.
            let _ = share
                .inputs
                .try_send(ShareInput::Candidates { peers, source });
        }
        if !later.is_empty() {
            let (hub, inputs) = (Arc::clone(self), share.inputs.clone());
            let candidates = ShareInput::Candidates {
                peers: later,
                source,
            };
            self.shop.tasks.spawn(async move {
                tokio::select! {
                    () = hub.ending.cancelled() => {}
                    () = tokio::time::sleep(LARGER_WAITS) => drop(inputs.try_send(candidates)),
                }
            });
        }
    }

    /// Keeps a node that the user named connected, and offers it to every share.
    pub(super) async fn keep(self: Arc<Self>, address: Multiaddr) {
        let mut pause = KEEP_MIN;
        loop {
            let opened = tokio::select! {
                () = self.ending.cancelled() => return,
                opened = self.network.open_session(None, vec![address.clone()]) => opened,
            };
            match opened {
                Ok(streams) => {
                    pause = KEEP_MIN;
                    let session = self.adopt(streams);
                    let peers = vec![(session.peer(), vec![address.clone()])];
                    self.offer(&peers, Source::Given).await;
                    tokio::select! {
                        () = self.ending.cancelled() => return,
                        () = session.ended() => {}
                    }
                }
                Err(error) => {
                    let tried = tried_of(&error);
                    for share in self.shop.shares.all() {
                        let _ = share.inputs.try_send(ShareInput::DialFailed {
                            peer: None,
                            tried: tried.clone(),
                        });
                    }
                }
            }
            tokio::select! {
                () = self.ending.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(KEEP_MAX);
        }
    }

    /// Dials some of the nodes that earlier runs reached, so that the DHT is there without anybody named.
    pub(super) async fn meet_again(self: Arc<Self>) {
        let known = self.memory.recall(KnownPeers::ANY).await;
        for known in known.into_iter().take(MET_AGAIN_MAX) {
            self.network.meet(known.peer, known.addresses).await;
        }
    }

    /// Offers a share the peers with which earlier runs shared it.
    pub(super) async fn remind(self: Arc<Self>, share: Share) {
        let known = self.memory.recall(share.id.provider_key()).await;
        let peers: Vec<_> = known
            .into_iter()
            .map(|known| (known.peer, known.addresses))
            .collect();
        if !peers.is_empty() {
            let source = Source::Remembered;
            // The share has left: nobody looks for peers.
            let _ = share
                .inputs
                .send(ShareInput::Candidates { peers, source })
                .await;
        }
    }

    /// Looks for other live processes of this home: all help the DHT, those with our shares are peers.
    pub(super) async fn watch_home(self: Arc<Self>, home: PathBuf) {
        let mut looks = 0;
        let mut known: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
        loop {
            let (folder, ourselves) = (home.clone(), self.shop.local_peer);
            let found =
                tokio::task::spawn_blocking(move || live_neighbours(&folder, &ourselves)).await;
            let found = found.unwrap_or_default();
            known.retain(|peer, _| found.iter().any(|record| record.peer == *peer));
            for record in found {
                if known.get(&record.peer) != Some(&record.addrs) {
                    self.network
                        .add_addresses(record.peer, record.addrs.clone())
                        .await;
                    known.insert(record.peer, record.addrs.clone());
                }
                for share in self.shop.shares.all() {
                    if record.keys.contains(&share.id.provider_key()) {
                        let peers = vec![(record.peer, record.addrs.clone())];
                        let _ = share.inputs.try_send(ShareInput::Candidates {
                            peers,
                            source: Source::Local,
                        });
                    }
                }
            }
            looks += 1;
            let pause = if looks < NEIGHBOURS_FIRST_LOOKS {
                NEIGHBOURS_FIRST
            } else {
                NEIGHBOURS_LATER
            };
            tokio::select! {
                () = self.ending.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn offer(&self, peers: &[(PeerId, Vec<Multiaddr>)], source: Source) {
        for share in self.shop.shares.all() {
            let input = ShareInput::Candidates {
                peers: peers.to_vec(),
                source,
            };
            // The share has left: nobody looks for peers.
            let _ = share.inputs.send(input).await;
        }
    }
}

/// The addresses of a failed dial with their outcomes in words.
pub(super) fn tried_of(error: &DialError) -> Vec<(Multiaddr, String)> {
    error
        .tried
        .iter()
        .map(|(address, failure)| (address.clone(), failure.to_string()))
        .collect()
}

#[cfg(test)]
mod tests;
