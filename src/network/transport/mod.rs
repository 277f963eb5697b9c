//! The transport: TCP and QUIC under one set of rules for every dial. It never decides whom to dial; it makes every dial
//! use a fresh port and end in time. Used by `driver`.
//!
//! TCP, from the socket up: `tcp` (options, read buffer), `security` (TLS or noise), `tls`, `muxer` (yamux). QUIC brings all
//! of that itself.

mod handshakes;
mod muxer;
mod quic;
mod security;
mod tcp;
mod tls;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{
    Boxed, DialOpts, ListenerId, PortUse, Transport, TransportError, TransportEvent,
};
use libp2p::swarm::derive_prelude::Either;
use libp2p::{Multiaddr, PeerId};
use socket2::{Domain, Protocol, Socket, Type};

pub(super) use handshakes::HANDSHAKES_MAX;
pub(super) use quic::QUIC_HANDSHAKE_MAX;

use super::addresses;
use super::identity::Keypair;
use handshakes::Handshakes;
use security::Security;
use tcp::Tcp;

/// From the first SYN to a ready multiplexer, in either direction. Less loses peers behind a slow path (three round
/// trips and the key exchange), more keeps a caller waiting for a dropped packet.
pub(super) const SETUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Ports probed before a node is content with different ones.
const FREE_PORT_TRIES: usize = 8;

/// A connection that is ready for a swarm: the peer and the multiplexer.
pub(super) type Connected = (PeerId, StreamMuxerBox);

/// Builds the transport for `identity`.
///
/// # Errors
/// The key cannot be used.
pub(super) fn build(identity: &Keypair) -> io::Result<Boxed<Connected>> {
    let inner = Tcp::new(&Security::new(identity)?)
        .or_transport(quic::build(identity))
        .map(|connected, _| connected.into_inner())
        .map_err(|error: Either<io::Error, io::Error>| error.into_inner())
        .boxed();
    let handshakes = Handshakes::default();
    Ok(Bounded { inner, handshakes }.boxed())
}

/// Our rules over any transport: dials use a new port, are refused when the address cannot mean a peer, and like
/// accepted connections, of which only so many are set up at once, end after [`SETUP_TIMEOUT`] with an error of kind `TimedOut`.
///
/// The new port matters for Kademlia's own dials as well, which ask to reuse the listening one: two nodes that dial each
/// other from their listening ports meet in one TCP connection with two dialling ends, and the handshake fails.
struct Bounded<T> {
    inner: T,
    handshakes: Handshakes,
}

impl<T> Transport for Bounded<T>
where
    T: Transport<Error = io::Error> + Unpin,
    T::Dial: Send + 'static,
    T::ListenerUpgrade: Send + 'static,
    T::Output: Send + 'static,
{
    type Output = T::Output;
    type Error = io::Error;
    type ListenerUpgrade = BoxFuture<'static, io::Result<T::Output>>;
    type Dial = BoxFuture<'static, io::Result<T::Output>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        // Dials of Kademlia ask to reuse a port, ours never do. By QUIC it would wait seconds for each node that has gone.
        let is_foreign = options.port_use == PortUse::Reuse;
        if !addresses::is_dialable(&address) || (is_foreign && addresses::is_quic(&address)) {
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        let options = DialOpts {
            port_use: PortUse::New,
            ..options
        };
        Ok(within_setup_timeout(self.inner.dial(address, options)?))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        let event = ready!(Pin::new(&mut self.inner).poll(cx));
        let from = match &event {
            TransportEvent::Incoming { send_back_addr, .. } => send_back_addr.clone(),
            _ => Multiaddr::empty(),
        };
        let counted =
            |setup| within_setup_timeout(self.handshakes.begin(&from, setup, Instant::now()));
        Poll::Ready(event.map_upgrade(counted))
    }
}

fn within_setup_timeout<O: Send + 'static>(
    setup: impl Future<Output = io::Result<O>> + Send + 'static,
) -> BoxFuture<'static, io::Result<O>> {
    tokio::time::timeout(SETUP_TIMEOUT, setup)
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))
        .map(|outcome| outcome.and_then(|setup| setup))
        .boxed()
}

/// Fails when a fixed port is taken. libp2p listens with `SO_REUSEPORT`, so that two processes of one user would share
/// a port unnoticed, and get each other's connections.
pub(super) fn ensure_free(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // On Unix this lets a port in TIME_WAIT be taken, not one that is listened on. On Windows it means the contrary.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1)
}

/// A port that is free for each of these addresses, for TCP and for QUIC; 0 when none was found. Somebody may take it
/// in between; then listening fails, or QUIC is done without.
pub(super) fn free_port(addresses: &[SocketAddr]) -> u16 {
    let Some(first) = addresses.first() else {
        return 0;
    };
    let is_free = |address: &SocketAddr, port: u16| {
        let address = SocketAddr::new(address.ip(), port);
        let is_missing = |error: io::Error| error.kind() != io::ErrorKind::AddrInUse;
        ensure_free(address).map_or_else(is_missing, |()| true)
            && UdpSocket::bind(address).map_or_else(is_missing, |_| true)
    };
    let probed = || {
        let port = TcpListener::bind(first).ok()?.local_addr().ok()?.port();
        addresses
            .iter()
            .all(|address| is_free(address, port))
            .then_some(port)
    };
    (0..FREE_PORT_TRIES).find_map(|_| probed()).unwrap_or(0)
}

/// The operating system's error, out of the transport's wrapper.
pub(super) fn unwrap_io(error: io::Error) -> io::Error {
    match error.downcast::<io::Error>() {
        Ok(inner) => unwrap_io(inner),
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests;
