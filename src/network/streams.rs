//! The two streams of a session: opening them on a named connection, and pairing those a peer opens on us.
//! It never dials, never reads what a session says, and keeps no session; it knows the connections and, because libp2p
//! asks behaviours for addresses, the address book. Used by `driver`; the handler runs in each connection's task.
//! Source: libp2p connection and multistream-select specifications; `PROTOCOL.md` "A session between two peers".

mod handler;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::core::transport::PortUse;
use libp2p::core::{ConnectedPoint, Endpoint};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{
    CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour,
    NotifyHandler, Stream, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::sync::Semaphore;
use tokio_util::compat::FuturesAsyncReadCompatExt;

pub(super) use handler::Place;

use handler::{FromHandler, Handler, Open};

use super::addresses::{self, AddressBook};
use super::dial_error::DialFailure;
use super::{ConnectionKey, InUse, SessionStreams, crowd};

/// Negotiation, token and answer of one stream. Less loses slow paths, more holds a caller; equal to a dial.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Inbound sessions that are accepted but not yet taken by the application, over all connections.
const INBOUND_MAX: usize = 32;

/// Connections that others began; beyond, those without a session make room for newcomers.
pub(super) const CROWD: usize = 240;

/// A connection without a session is left alone for so long: its first one, or a question, is on its way.
pub(super) const BEGINS_WITHIN: Duration = Duration::from_secs(2);

/// A session a peer opened, and its place in the inbound queue, which frees on drop.
#[derive(Debug)]
pub(super) struct InboundSession {
    pub(super) streams: SessionStreams,
    pub(super) place: Place,
}

/// What the behaviour tells the driver.
#[derive(Debug)]
pub(super) enum Event {
    /// A session asked for with [`Behaviour::open`] is there.
    Opened {
        opening: u64,
        streams: SessionStreams,
    },
    /// It will not be.
    Failed { opening: u64, failure: DialFailure },
    /// A peer opened a session.
    Inbound(InboundSession),
}

#[derive(Debug)]
struct Connection {
    peer: PeerId,
    key: ConnectionKey,
    dialled_by_us: bool,
    /// Bare.
    address: Multiaddr,
    relayed: bool,
    since: Instant,
    /// It makes room for another.
    is_closing: bool,
    /// Held by each of its sessions as well.
    in_use: Arc<()>,
}

impl Connection {
    fn carries_a_session(&self) -> bool {
        Arc::strong_count(&self.in_use) > 1
    }
}

/// The behaviour; see the file header. Its methods take effect when the swarm is polled next.
#[derive(Debug)]
pub(super) struct Behaviour {
    /// Where peers may be; libp2p's own dials get these addresses as well.
    pub(super) book: AddressBook,
    connections: HashMap<ConnectionId, Connection>,
    by_peer: HashMap<PeerId, Vec<ConnectionId>>,
    keys_used: u64,
    /// Openings whose connection has not answered yet.
    opening: HashMap<u64, ConnectionId>,
    queue: VecDeque<ToSwarm<Event, Open>>,
    places: Arc<Semaphore>,
}

impl Behaviour {
    /// No connections, an empty book.
    pub(super) fn new() -> Self {
        Self {
            book: AddressBook::default(),
            connections: HashMap::new(),
            by_peer: HashMap::new(),
            keys_used: 0,
            opening: HashMap::new(),
            queue: VecDeque::new(),
            places: Arc::new(Semaphore::new(INBOUND_MAX)),
        }
    }

    /// Opens a session on `connection`; ends with one [`Event::Opened`] or [`Event::Failed`] naming `opening`.
    pub(super) fn open(&mut self, opening: u64, connection: ConnectionId) {
        let Some(known) = self.connections.get(&connection) else {
            let failure = DialFailure::Closed;
            self.queue
                .push_back(ToSwarm::GenerateEvent(Event::Failed { opening, failure }));
            return;
        };
        self.opening.insert(opening, connection);
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id: known.peer,
            handler: NotifyHandler::One(connection),
            event: Open { opening },
        });
    }

    /// The connection to `peer` a session should use: direct before relayed, then the newest.
    pub(super) fn best_connection(
        &self,
        peer: &PeerId,
        avoid: &[ConnectionId],
    ) -> Option<ConnectionId> {
        let ids = self
            .by_peer
            .get(peer)?
            .iter()
            .filter(|id| !avoid.contains(id));
        ids.filter_map(|id| Some((id, self.connections.get(id)?)))
            .max_by_key(|(_, connection)| (!connection.relayed, connection.key))
            .map(|(id, _)| *id)
    }

    /// The bare remote address of a connection.
    pub(super) fn address_of(&self, connection: &ConnectionId) -> Option<&Multiaddr> {
        self.connections
            .get(connection)
            .map(|connection| &connection.address)
    }

    /// The bare address of a connection that we dialled, or Kademlia did.
    pub(super) fn dialled(&self, connection: &ConnectionId) -> Option<&Multiaddr> {
        let known = self.connections.get(connection)?;
        known.dialled_by_us.then_some(&known.address)
    }

    /// The bare remote addresses of all connections to `peer`.
    pub(super) fn addresses_of_peer(&self, peer: &PeerId) -> impl Iterator<Item = &Multiaddr> {
        let ids = self.by_peer.get(peer).into_iter().flatten();
        ids.filter_map(|id| self.address_of(id))
    }

    /// Whether some peer on this very machine is connected.
    pub(super) fn has_local_connection(&self) -> bool {
        self.connections
            .values()
            .any(|connection| addresses::is_loopback(&connection.address))
    }

    fn on_established(&mut self, id: ConnectionId, peer: PeerId, endpoint: &ConnectedPoint) {
        self.keys_used += 1;
        let (address, _) = addresses::split_peer(endpoint.get_remote_address());
        let connection = Connection {
            peer,
            key: ConnectionKey(self.keys_used),
            dialled_by_us: endpoint.is_dialer(),
            relayed: address.iter().any(|part| part == Protocol::P2pCircuit),
            address,
            since: Instant::now(),
            is_closing: false,
            in_use: Arc::default(),
        };
        self.connections.insert(id, connection);
        self.by_peer.entry(peer).or_default().push(id);
    }

    /// Closes connections that are of no use where one more would be too many.
    fn make_room(&mut self, now: Instant) {
        let by_others =
            |connection: &&Connection| !connection.dialled_by_us && !connection.is_closing;
        let count = self.connections.values().filter(by_others).count();
        for _ in CROWD..=count {
            let spare = self.connections.iter().filter(|(_, connection)| {
                by_others(connection)
                    && !connection.carries_a_session()
                    && now.duration_since(connection.since) >= BEGINS_WITHIN
            });
            let spare = spare.map(|(id, connection)| {
                (addresses::ip(&connection.address), (connection.key, *id))
            });
            let Some((_, id)) = crowd::gives_way(spare) else {
                return;
            };
            if let Some(connection) = self.connections.get_mut(&id) {
                tracing::debug!(peer = %connection.peer, "a connection makes room for others");
                connection.is_closing = true;
                self.queue.push_back(ToSwarm::CloseConnection {
                    peer_id: connection.peer,
                    connection: CloseConnection::One(id),
                });
            }
        }
    }

    fn on_closed(&mut self, id: ConnectionId, peer: PeerId) {
        self.connections.remove(&id);
        if let Some(ids) = self.by_peer.get_mut(&peer) {
            ids.retain(|known| *known != id);
            if ids.is_empty() {
                self.by_peer.remove(&peer);
            }
        }
        let lost: Vec<u64> = self
            .opening
            .iter()
            .filter(|(_, connection)| **connection == id)
            .map(|(opening, _)| *opening)
            .collect();
        for opening in lost {
            self.opening.remove(&opening);
            let failure = DialFailure::Closed;
            self.queue
                .push_back(ToSwarm::GenerateEvent(Event::Failed { opening, failure }));
        }
    }

    fn session(
        &self,
        id: &ConnectionId,
        (control, data): (Stream, Stream),
        opened_by_us: bool,
    ) -> Option<SessionStreams> {
        let connection = self.connections.get(id)?;
        Some(SessionStreams {
            peer: connection.peer,
            connection: connection.key,
            dialled_by_us: connection.dialled_by_us,
            opened_by_us,
            remote_address: connection.address.clone(),
            in_use: InUse {
                _counted: Arc::clone(&connection.in_use),
            },
            control: control.compat(),
            data: data.compat(),
        })
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        // For dials that are not ours, those of Kademlia: QUIC only where there is nothing else.
        let known = peer.map(|peer| self.book.addresses(&peer));
        let mut known = known.map(<[Multiaddr]>::to_vec).unwrap_or_default();
        if !known.iter().all(addresses::is_quic) {
            known.retain(|address| !addresses::is_quic(address));
        }
        Ok(known)
    }

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        // Before the handshake: at its end the limits are asked.
        self.make_room(Instant::now());
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::new(Arc::clone(&self.places)))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::new(Arc::clone(&self.places)))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(established) => {
                self.on_established(
                    established.connection_id,
                    established.peer_id,
                    established.endpoint,
                );
            }
            FromSwarm::ConnectionClosed(ConnectionClosed {
                peer_id,
                connection_id,
                ..
            }) => {
                self.on_closed(connection_id, peer_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let event = match event {
            FromHandler::Opened {
                opening,
                control,
                data,
            } => {
                self.opening.remove(&opening);
                match self.session(&connection, (control, data), true) {
                    Some(streams) => Event::Opened { opening, streams },
                    None => Event::Failed {
                        opening,
                        failure: DialFailure::Closed,
                    },
                }
            }
            FromHandler::Failed { opening, failure } => {
                self.opening.remove(&opening);
                Event::Failed { opening, failure }
            }
            FromHandler::Inbound {
                control,
                data,
                place,
            } => match self.session(&connection, (control, data), false) {
                Some(streams) => Event::Inbound(InboundSession { streams, place }),
                None => return,
            },
        };
        self.queue.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        // No waker: every change comes from the swarm or from the driver, which polls the swarm afterwards.
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
