//! The transport: TCP with noise and yamux, built by hand so that sockets get our options and a read buffer, and QUIC.
//! It never decides whom to dial; it makes every dial use a fresh port and end in time. Used by `driver`.
//! Source: libp2p specifications (noise, yamux, multistream-select); RFC 5482 (TCP user timeout); Linux tcp(7).

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::io::BufReader;
use futures::{FutureExt, TryFutureExt};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{
    Boxed, DialOpts, ListenerId, PortUse, Transport, TransportError, TransportEvent,
};
use libp2p::core::upgrade::Version;
use libp2p::swarm::derive_prelude::Either;
use libp2p::{Multiaddr, PeerId, noise, quic, tcp, yamux};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::addresses;
use super::identity::Keypair;

/// Bytes read ahead from each socket. Noise reads 8 KiB at a time: without this buffer every 8 KiB is a system call.
/// More costs memory per connection and gains nothing beyond one kernel read.
const READ_BUFFER_LEN: usize = 64 * 1024;

/// From the first SYN to a ready multiplexer, in either direction. Less loses peers behind a slow path (three round
/// trips and the key exchange), more keeps a caller waiting for a dropped packet.
pub(super) const SETUP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long sent bytes may stay unacknowledged before the kernel closes the connection. It reaps; detection is the
/// session's own deadline. Not lower: it may also fire while a slow reader keeps the window at zero.
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// Keepalive of an idle connection: first probe, interval, and how many may be lost.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
#[cfg(not(windows))]
const KEEPALIVE_PROBES: u32 = 3;

/// A QUIC connection that hears nothing for this long is dead: a killed process says nothing at all. Each side sends
/// something four times as often.
const QUIC_IDLE_MAX: Duration = Duration::from_secs(5);
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A QUIC handshake. Shorter than that of TCP, because it begins later and nobody ever answers "refused".
pub(super) const QUIC_HANDSHAKE_MAX: Duration = Duration::from_secs(4);

const _: () = assert!(QUIC_KEEP_ALIVE.as_millis() * 4 <= QUIC_IDLE_MAX.as_millis());

/// Streams open at once on one connection. Exceeding it ends the connection on both sides, so it leaves room for the
/// 32 inbound and 32 outbound requests Kademlia allows itself, and for our sessions.
const STREAMS_MAX: usize = 256;

/// Ports probed before a node is content with different ones.
const FREE_PORT_TRIES: usize = 8;

/// A connection that is ready for a swarm: the peer and the multiplexer.
pub(super) type Connected = (PeerId, StreamMuxerBox);

/// Builds the transport for `identity`.
///
/// # Errors
/// The noise error when the key cannot be used.
pub(super) fn build(identity: &Keypair) -> Result<Boxed<Connected>, noise::Error> {
    let noise = noise::Config::new(identity.as_libp2p())?;
    let mut yamux = yamux::Config::default();
    yamux.set_max_num_streams(STREAMS_MAX);
    let connections = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .map(|stream, _| {
            tune(&stream);
            BufReader::with_capacity(READ_BUFFER_LEN, stream)
        })
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        // Flat, because the nested `Either`s would hide the operating system's error from whoever asks for the cause.
        .map_err(|error| match error {
            Either::Left(Either::Left(tcp)) => tcp,
            Either::Left(Either::Right(noise)) => io::Error::other(noise),
            Either::Right(yamux) => io::Error::other(yamux),
        })
        .boxed();
    let packets = quic::tokio::Transport::new(quic_settings(identity))
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .map_err(io_error_of)
        .boxed();
    let inner = connections
        .or_transport(packets)
        .map(|connected, _| connected.into_inner())
        .map_err(|error: Either<io::Error, io::Error>| error.into_inner())
        .boxed();
    Ok(Bounded { inner }.boxed())
}

fn quic_settings(identity: &Keypair) -> quic::Config {
    let mut settings = quic::Config::new(identity.as_libp2p());
    settings.handshake_timeout = QUIC_HANDSHAKE_MAX;
    settings.max_idle_timeout = u32::try_from(QUIC_IDLE_MAX.as_millis()).unwrap_or(u32::MAX);
    settings.keep_alive_interval = QUIC_KEEP_ALIVE;
    settings.max_concurrent_stream_limit = STREAMS_MAX as u32;
    settings
}

/// The error of QUIC in the terms of sockets.
fn io_error_of(error: quic::Error) -> io::Error {
    match error {
        quic::Error::Io(error) => error,
        quic::Error::HandshakeTimedOut => io::ErrorKind::TimedOut.into(),
        // libp2p hides the cause; its words are all there is.
        quic::Error::Connection(error) if error.to_string() == "timed out" => {
            io::ErrorKind::TimedOut.into()
        }
        error => io::Error::other(error),
    }
}

/// Sets what the socket can take. A system that refuses an option keeps a working connection, only a slower reaper.
fn tune(stream: &tcp::tokio::TcpStream) {
    let socket = SockRef::from(&stream.0);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL);
    #[cfg(not(windows))]
    let keepalive = keepalive.with_retries(KEEPALIVE_PROBES);
    if let Err(error) = socket.set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "keepalive not set");
    }
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    if let Err(error) = socket.set_tcp_user_timeout(Some(USER_TIMEOUT)) {
        tracing::debug!(%error, "user timeout not set");
    }
}

/// Our rules over any transport: dials use a new port, are refused when the address cannot mean a peer, and like
/// accepted connections end after [`SETUP_TIMEOUT`] with an error of kind `TimedOut`.
///
/// The new port matters for Kademlia's own dials as well, which ask to reuse the listening one: two nodes that dial each
/// other from their listening ports meet in one TCP connection with two dialling ends, and the handshake fails.
struct Bounded<T> {
    inner: T,
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
        Pin::new(&mut self.inner)
            .poll(cx)
            .map(|event| event.map_upgrade(within_setup_timeout))
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_socket_gets_its_options() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let stream = tcp::tokio::TcpStream(socket);
        tune(&stream);
        let socket = SockRef::from(&stream.0);
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }

    #[test]
    fn an_address_that_means_nobody_is_not_dialled() {
        let mut transport = build(&Keypair::generate()).unwrap();
        for address in [
            "/ip4/0.0.0.0/tcp/1",
            "/ip4/127.0.0.1/tcp/0",
            "/ip4/1.2.3.4/udp/1",
            "/ip4/0.0.0.0/udp/1/quic-v1",
        ] {
            let options = DialOpts {
                role: libp2p::core::Endpoint::Dialer,
                port_use: PortUse::New,
            };
            let dial = transport.dial(address.parse().unwrap(), options);
            assert!(
                matches!(dial, Err(TransportError::MultiaddrNotSupported(_))),
                "{address}"
            );
        }
    }
}
