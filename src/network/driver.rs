//! The task that owns the libp2p swarm: it turns commands and swarm events into calls of the other parts, and their
//! answers into events. Its loop awaits the swarm, the command queue, room in the event queue and timers, nothing else:
//! a stalled swarm loop freezes every TCP stream. Started by `super::start`.
//! When the reader of events lags, hints are dropped, other events wait in a bounded queue, and new inbound sessions
//! are refused by the streams' own bound. Source: `ARCHITECTURE.md` "Invariants".

mod learning;
mod listening;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::core::Endpoint;
use libp2p::core::transport::ListenerId;
use libp2p::core::upgrade::Version;
use libp2p::kad::{QueryId, RecordKey};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{Config as SwarmConfig, ConnectionId, NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, identify, mdns};
use rand::TryRng;
use rand::rngs::SysRng;
use tokio::sync::{mpsc, oneshot};

use super::addresses::{self, Speaker};
use super::behaviour::{Behaviour, BehaviourEvent};
use super::dial_error::{DialFailure, failure_of};
use super::dialling::{Action, Dialling, Reply, Surroundings};
use super::discovery::{Discovery, Key};
use super::streams::{self, Place};
use learning::Routing;

use super::{NetworkConfig, NetworkError, NetworkEvent, transport};

/// A connection without streams ends after this: long enough for the next lookup to find it open.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Inbound streams of one connection that negotiate at once; more wait.
const NEGOTIATING_MAX: usize = 32;

/// Events between a connection's task and the swarm, either way. A full queue stops that connection's bytes.
const CONNECTION_EVENTS_MAX: usize = 32;
const HANDLER_COMMANDS_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("it is not zero");

/// After `shutdown`: how long the swarm runs on before connections are closed. A peer that is writing when the connection
/// goes away under it gives up on the connection, also on what it has not read yet; by now it has read our last words.
const LINGER: Duration = Duration::from_millis(100);

/// How long closing connections may then take to flush; with [`LINGER`] 300 ms.
const CLOSE_TIME: Duration = Duration::from_millis(200);

/// Expired provider records are dropped this often.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Events that wait for room in the reader's queue; hints are dropped beyond the first bound, the rest beyond the
/// second (`Listening` and `LookupDone` only: inbound sessions are bounded by their places).
const HINTS_MAX: usize = 256;
const OUTBOX_MAX: usize = 1024;

/// What a handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    OpenSession {
        peer: Option<PeerId>,
        addresses: Vec<Multiaddr>,
        reply: Reply,
    },
    Listeners {
        reply: oneshot::Sender<Vec<Multiaddr>>,
    },
    AddAddresses {
        peer: PeerId,
        addresses: Vec<Multiaddr>,
    },
    Prefer {
        addresses: Vec<Multiaddr>,
    },
    Meet {
        peer: PeerId,
        addresses: Vec<Multiaddr>,
    },
    Announce {
        key: Key,
    },
    Withdraw {
        key: Key,
    },
    Lookup {
        key: Key,
    },
    Shutdown,
}

/// The driver; see the file header.
pub(super) struct Driver {
    swarm: Swarm<Behaviour>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<NetworkEvent>,
    /// Events for which the queue had no room, with the place an inbound session keeps taken until it is delivered.
    outbox: VecDeque<(NetworkEvent, Option<Place>)>,
    dialling: Dialling,
    discovery: Discovery<QueryId>,
    /// Bare addresses we listen on, as far as others could dial them.
    listening: Vec<Multiaddr>,
    /// Those of them that peers are told, and which ones the node wants told first.
    announced: Vec<Multiaddr>,
    preferred: Vec<Multiaddr>,
    /// Listeners that have not named an address yet.
    unheard: Vec<ListenerId>,
    sweep_due: Instant,
}

impl Driver {
    /// Builds the swarm and listens.
    ///
    /// # Errors
    /// [`NetworkError`]; everything is dropped again.
    pub(super) async fn start(
        config: NetworkConfig,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<NetworkEvent>,
    ) -> Result<Self, NetworkError> {
        let local_peer = config.identity.peer_id();
        let transport =
            transport::build(&config.identity).map_err(|error| NetworkError::Encryption {
                reason: error.to_string(),
            })?;
        let seed = seed();
        let settings = SwarmConfig::with_tokio_executor()
            .with_idle_connection_timeout(IDLE_TIMEOUT)
            .with_max_negotiating_inbound_streams(NEGOTIATING_MAX)
            .with_per_connection_event_buffer_size(CONNECTION_EVENTS_MAX)
            .with_notify_handler_buffer_size(HANDLER_COMMANDS_MAX)
            // A stream's first bytes travel with the proposal of its only protocol: one round trip less.
            .with_substream_upgrade_protocol_override(Version::V1Lazy);
        let swarm = Swarm::new(
            transport,
            Behaviour::new(&config, seed),
            local_peer,
            settings,
        );
        let mut driver = Self {
            swarm,
            commands,
            events,
            outbox: VecDeque::new(),
            dialling: Dialling::new(local_peer),
            discovery: Discovery::new(seed),
            listening: Vec::new(),
            announced: Vec::new(),
            preferred: Vec::new(),
            unheard: Vec::new(),
            sweep_due: Instant::now() + SWEEP_EVERY,
        };
        driver.listen(&config.listen)?;
        if !config.listen.is_empty() {
            driver.await_addresses().await;
        }
        Ok(driver)
    }

    /// The loop. Ends after [`Command::Shutdown`], or when every handle has gone.
    pub(super) async fn run(mut self) {
        let events = self.events.clone();
        loop {
            let now = Instant::now();
            self.on_time(now);
            self.perform(now);
            let due = tokio::time::Instant::from_std(self.next_due());
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm_event(event, Instant::now()),
                command = self.commands.recv() => match command {
                    Some(Command::Shutdown) | None => break,
                    Some(command) => self.on_command(command, Instant::now()),
                },
                room = events.reserve(), if !self.outbox.is_empty() => match room {
                    Ok(room) => {
                        if let Some((event, _place)) = self.outbox.pop_front() {
                            room.send(event);
                        }
                    }
                    // Nobody reads any more; the node is about to drop its handles as well.
                    Err(_) => self.outbox.clear(),
                },
                () = tokio::time::sleep_until(due) => {}
            }
        }
        // Boxed: the swarm moves into it, and a task should stay small.
        Box::pin(self.close()).await;
    }

    /// Lets the last bytes leave, closes every connection, and polls on until they are closed.
    async fn close(mut self) {
        self.commands.close();
        if self.swarm.connected_peers().next().is_none() {
            return;
        }
        let run_on = async {
            loop {
                self.swarm.select_next_some().await;
            }
        };
        // Always runs out; that is its purpose.
        let _ = tokio::time::timeout(LINGER, run_on).await;
        let peers: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // Gone in between: closed is what we want.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            let is_open = |swarm: &Swarm<Behaviour>| {
                swarm.network_info().connection_counters().num_established() > 0
            };
            while is_open(&self.swarm) {
                self.swarm.select_next_some().await;
            }
        };
        if tokio::time::timeout(CLOSE_TIME, closed).await.is_err() {
            tracing::debug!("connections left open at shutdown");
        }
    }

    fn next_due(&self) -> Instant {
        let others = [self.dialling.next_due(), self.discovery.next_due()];
        others
            .into_iter()
            .flatten()
            .fold(self.sweep_due, Instant::min)
    }

    fn on_time(&mut self, now: Instant) {
        self.dialling.on_time(
            now,
            &mut Around {
                swarm: &mut self.swarm,
                listening: &self.listening,
            },
        );
        for key in self.discovery.take_expired_lookups(now) {
            self.emit(NetworkEvent::LookupDone { key });
        }
        let is_sweep_due = now >= self.sweep_due;
        if is_sweep_due {
            self.sweep_due = now + SWEEP_EVERY;
        }
        let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() else {
            return;
        };
        if is_sweep_due {
            kad.store_mut().sweep(now);
        }
        for key in self.discovery.take_due_announcements(now) {
            // Our store takes any number of own keys.
            let _ = kad.start_providing(RecordKey::new(&key));
        }
        self.discovery
            .start_lookups(|key| kad.get_providers(RecordKey::new(&key)));
    }

    /// Does what the dialling asked for; a dial that fails at once may ask for more.
    fn perform(&mut self, now: Instant) {
        while let Some(action) = self.dialling.poll_action() {
            match action {
                Action::Dial(options) => {
                    let (connection, peer) = (options.connection_id(), options.get_peer_id());
                    if let Err(error) = self.swarm.dial(options) {
                        self.on_dial_failed(connection, peer, &error, now);
                    }
                }
                Action::OpenStreams {
                    opening,
                    connection,
                } => {
                    self.swarm.behaviour_mut().streams.open(opening, connection);
                }
            }
        }
    }

    fn on_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::OpenSession {
                peer,
                addresses,
                reply,
            } => {
                let mut around = Around {
                    swarm: &mut self.swarm,
                    listening: &self.listening,
                };
                self.dialling.open(peer, addresses, reply, now, &mut around);
            }
            Command::Listeners { reply } => {
                let local_peer = *self.swarm.local_peer_id();
                let mut listening = self.listening.clone();
                listening.sort_by_key(|address| {
                    (addresses::is_loopback(address), addresses::is_quic(address))
                });
                let named = listening
                    .into_iter()
                    .filter_map(|address| address.with_p2p(local_peer).ok());
                // The asker may have gone.
                let _ = reply.send(named.collect());
            }
            Command::AddAddresses { peer, addresses } => {
                self.learn(peer, addresses, Speaker::ThisMachine, Routing::Add);
            }
            Command::Prefer { addresses } => {
                self.preferred = addresses;
                self.choose_announced(now);
            }
            Command::Meet { peer, addresses } => self.meet(peer, addresses, now),
            Command::Announce { key } => {
                if self.swarm.behaviour().kad.is_enabled() {
                    self.discovery.announce(key, now);
                }
            }
            Command::Withdraw { key } => {
                self.discovery.withdraw(&key);
                if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
                    kad.stop_providing(&RecordKey::new(&key));
                }
            }
            Command::Lookup { key } => {
                if !self.swarm.behaviour().kad.is_enabled() || !self.discovery.lookup(key, now) {
                    self.emit(NetworkEvent::LookupDone { key });
                }
            }
            // The loop has ended on it.
            Command::Shutdown => {}
        }
    }

    fn on_swarm_event(&mut self, event: SwarmEvent<BehaviourEvent>, now: Instant) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Streams(event)) => {
                self.on_streams_event(event, now)
            }
            SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => self.on_kad_event(event, now),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                peer_id,
                info,
            })) => self.on_identified(connection_id, peer_id, info, now),
            SwarmEvent::Behaviour(
                BehaviourEvent::Mdns(mdns::Event::Discovered(found))
                | BehaviourEvent::MdnsIpv6(mdns::Event::Discovered(found)),
            ) => self.on_nearby(found),
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                concurrent_dial_errors,
                ..
            } => {
                let failures = concurrent_dial_errors.unwrap_or_default();
                let failures: Vec<_> = failures
                    .iter()
                    .map(|(address, error)| (addresses::split_peer(address).0, failure_of(error)))
                    .collect();
                self.forget_wrong(Some(peer_id), &failures);
                self.dialling
                    .on_connected(connection_id, peer_id, failures, now);
            }
            SwarmEvent::Dialing {
                peer_id: Some(peer),
                connection_id,
            } => {
                self.dialling.on_foreign_dial(peer, connection_id, now);
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                peer_id,
                error,
            } => {
                self.on_dial_failed(connection_id, peer_id, &error, now);
            }
            SwarmEvent::NewListenAddr {
                listener_id,
                address,
            } => {
                self.unheard.retain(|unheard| *unheard != listener_id);
                self.on_listening(address, now);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => self.on_not_listening(&address, now),
            SwarmEvent::ListenerClosed {
                addresses, reason, ..
            } => {
                tracing::warn!(?reason, ?addresses, "a listener closed");
                addresses
                    .iter()
                    .for_each(|address| self.on_not_listening(address, now));
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::debug!(%error, "a listener failed to accept")
            }
            _ => {}
        }
    }

    fn on_streams_event(&mut self, event: streams::Event, now: Instant) {
        match event {
            streams::Event::Opened { opening, streams } => {
                if !self.dialling.on_opened(opening, streams) {
                    tracing::debug!("a session was opened for a caller that has gone");
                }
            }
            streams::Event::Failed { opening, failure } => {
                let mut around = Around {
                    swarm: &mut self.swarm,
                    listening: &self.listening,
                };
                self.dialling
                    .on_streams_failed(opening, failure, now, &mut around);
            }
            streams::Event::Inbound(session) => {
                self.deliver(
                    NetworkEvent::InboundSession(session.streams),
                    Some(session.place),
                );
            }
        }
    }

    fn on_dial_failed(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        error: &libp2p::swarm::DialError,
        now: Instant,
    ) {
        let mut around = Around {
            swarm: &mut self.swarm,
            listening: &self.listening,
        };
        let failures = self
            .dialling
            .on_dial_failed(connection, peer, error, now, &mut around);
        self.forget_wrong(peer, &failures);
    }

    /// Dials a node only to have it in the routing table: not put there before it answers, for a lookup would wait for it.
    fn meet(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: Instant) {
        let mut admitted = self.learn(peer, addresses, Speaker::ThisMachine, Routing::Leave);
        if admitted.is_empty() || !self.swarm.behaviour().kad.is_enabled() {
            return;
        }
        // By TCP where that is known, as Kademlia dials.
        if !admitted.iter().all(addresses::is_quic) {
            admitted.retain(|address| !addresses::is_quic(address));
        }
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(admitted)
            .allocate_new_port()
            .build();
        let connection = options.connection_id();
        // Not dialled: it is connected, or about to be.
        if self.swarm.dial(options).is_ok() {
            self.dialling.on_foreign_dial(peer, connection, now);
        }
    }

    /// Drops the addresses that were proven wrong. One that timed out may be right: the peer may be asleep.
    fn forget_wrong(&mut self, peer: Option<PeerId>, failures: &[(Multiaddr, DialFailure)]) {
        let Some(peer) = peer else {
            return;
        };
        for (address, failure) in failures {
            if matches!(
                failure,
                DialFailure::Refused | DialFailure::WrongPeer { .. }
            ) {
                self.swarm
                    .behaviour_mut()
                    .streams
                    .book
                    .remove(&peer, address);
            }
        }
    }

    /// Reports a hint, or the end of a lookup.
    fn emit(&mut self, event: NetworkEvent) {
        let is_hint = !matches!(event, NetworkEvent::LookupDone { .. });
        if is_hint && self.outbox.len() >= HINTS_MAX {
            tracing::debug!("a hint was dropped: events are not read");
            return;
        }
        self.deliver(event, None);
    }

    fn deliver(&mut self, event: NetworkEvent, place: Option<Place>) {
        if self.outbox.len() >= OUTBOX_MAX && place.is_none() {
            tracing::warn!("an event was dropped: events are not read");
            return;
        }
        self.outbox.push_back((event, place));
    }
}

/// The swarm as the dialling sees it.
struct Around<'a> {
    swarm: &'a mut Swarm<Behaviour>,
    listening: &'a [Multiaddr],
}

impl Around<'_> {
    /// What Kademlia's table and running queries know; nobody else is asked.
    fn kademlia_addresses(&mut self, peer: &PeerId) -> Vec<Multiaddr> {
        let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() else {
            return Vec::new();
        };
        // The one way libp2p offers to read the addresses of a running query. It has no effect on Kademlia, which
        // ignores the connection id.
        let asked = ConnectionId::new_unchecked(0);
        kad.handle_pending_outbound_connection(asked, Some(*peer), &[], Endpoint::Dialer)
            .unwrap_or_default()
    }
}

impl Surroundings for Around<'_> {
    fn connection_to(&self, peer: &PeerId, avoid: &[ConnectionId]) -> Option<ConnectionId> {
        self.swarm.behaviour().streams.best_connection(peer, avoid)
    }

    fn address_of(&self, connection: &ConnectionId) -> Option<Multiaddr> {
        self.swarm
            .behaviour()
            .streams
            .address_of(connection)
            .cloned()
    }

    fn known_addresses(&mut self, peer: &PeerId) -> Vec<Multiaddr> {
        let mut known = self.swarm.behaviour().streams.book.addresses(peer).to_vec();
        for address in self.kademlia_addresses(peer) {
            let (bare, _) = addresses::split_peer(&address);
            if addresses::is_dialable(&bare)
                && !self.listening.contains(&bare)
                && !known.contains(&bare)
            {
                known.push(bare);
            }
        }
        known
    }
}

/// Sampling and jitter differ per process; nothing secret depends on it.
fn seed() -> u64 {
    SysRng
        .try_next_u64()
        .unwrap_or_else(|_| u64::from(std::process::id()))
}
