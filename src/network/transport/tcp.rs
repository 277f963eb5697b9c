//! TCP with our socket options and a read buffer, secured by TLS or noise and multiplexed by yamux.
//!
//! A dial offers TLS alone, so that nobody waits for the choice; a peer that turns out not to speak it is dialled once
//! more with noise. Listeners take both. Used by `super`; it never decides whom to dial.
//! Source: libp2p specification multistream-select; RFC 5482 (TCP user timeout); Linux tcp(7).

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::io::BufReader;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{
    Boxed, DialOpts, ListenerId, Transport, TransportError, TransportEvent,
};
use libp2p::core::upgrade::{NegotiationError, Version};
use libp2p::swarm::derive_prelude::Either;
use libp2p::{Multiaddr, tcp};
use socket2::{SockRef, TcpKeepalive};

use super::Connected;
use super::muxer::{All, Yamux};
use super::security::{Offer, Security};

/// Bytes read ahead from each socket. TLS reads at most a record of 16 KiB at a time, noise 8 KiB: without this buffer each
/// of them is a system call. It is memory of each connection.
const READ_BUFFER_LEN: usize = 128 * 1024;

/// Bytes that the kernel takes beyond what is under way to the peer. They cannot be taken back, and whatever is written after
/// them waits for them; the default of Linux lets them grow to megabytes. Less makes no frame leave sooner and costs wake-ups.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT_MAX: u32 = 32 * 1024;

/// How long sent bytes may stay unacknowledged before the kernel closes the connection. It reaps; detection is the
/// session's own deadline. Not lower: it may also fire while a slow reader keeps the window at zero.
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// Keepalive of an idle connection: first probe, interval, and how many may be lost.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
#[cfg(not(windows))]
const KEEPALIVE_PROBES: u32 = 3;

/// The transport; see the file header.
pub(super) struct Tcp {
    listening: Boxed<Connected>,
    tls: Boxed<Connected>,
    /// Shared with the dials under way, which need it once TLS was refused.
    noise: Arc<Mutex<Boxed<Connected>>>,
}

impl Tcp {
    /// Connections proven by `security`.
    pub(super) fn new(security: &Security) -> Self {
        let all = Arc::<All>::default();
        let stack = |offer| stack(security.offering(offer), Yamux(Arc::clone(&all)));
        Self {
            listening: stack(Offer::Both),
            tls: stack(Offer::Tls),
            noise: Arc::new(Mutex::new(stack(Offer::Noise))),
        }
    }
}

/// The peer answered, but perhaps does not know the protocol that was offered.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(#[source] io::Error);

/// All layers, with one offer.
fn stack(security: Security, yamux: Yamux) -> Boxed<Connected> {
    tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .map(|stream, _| {
            tune(&stream);
            BufReader::with_capacity(READ_BUFFER_LEN, stream)
        })
        .upgrade(Version::V1Lazy)
        .authenticate(security)
        .multiplex(yamux)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        // Flat, because the nested `Either`s would hide the operating system's error from whoever asks for the cause.
        .map_err(|error| match error {
            Either::Left(Either::Left(tcp)) => tcp,
            Either::Left(Either::Right(security)) if may_be_refusal(&security) => {
                io::Error::other(Refused(io::Error::other(security)))
            }
            Either::Left(Either::Right(security)) => io::Error::other(security),
            Either::Right(yamux) => io::Error::other(yamux),
        })
        .boxed()
}

/// Whether a handshake ended as it does with a peer that does not know its protocol. Such a peer says so and then finds
/// bytes it cannot read, so that its answer may be lost in a reset.
fn may_be_refusal(error: &(dyn Error + 'static)) -> bool {
    any_cause(error, &|error| {
        let kind = error.downcast_ref().map(io::Error::kind);
        error.is::<NegotiationError>()
            || matches!(
                kind,
                Some(
                    io::ErrorKind::UnexpectedEof
                        | io::ErrorKind::ConnectionReset
                        | io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::BrokenPipe
                )
            )
    })
}

/// Whether `is` holds for `error` or for anything it was made of.
fn any_cause(error: &(dyn Error + 'static), is: &dyn Fn(&(dyn Error + 'static)) -> bool) -> bool {
    // An `io::Error` around another error skips that error itself in `source`.
    let cause = match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|inner| inner as _),
        None => error.source(),
    };
    is(error) || cause.is_some_and(|cause| any_cause(cause, is))
}

impl Transport for Tcp {
    type Output = Connected;
    type Error = io::Error;
    type ListenerUpgrade = <Boxed<Connected> as Transport>::ListenerUpgrade;
    type Dial = BoxFuture<'static, io::Result<Connected>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        self.listening.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.listening.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        let first = self.tls.dial(address.clone(), options)?;
        let noise = Arc::clone(&self.noise);
        let dial = async move {
            match first.await {
                Err(error) if any_cause(&error, &|error| error.is::<Refused>()) => {}
                outcome => return outcome,
            }
            let second = noise
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .dial(address, options);
            second.map_err(io::Error::other)?.await
        };
        Ok(dial.boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        Pin::new(&mut self.listening).poll(cx)
    }
}

/// Sets what the socket can take. A system that refuses an option keeps a working connection, only with a slower reaper or a
/// longer queue.
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
    #[cfg(any(target_os = "android", target_os = "linux"))]
    if let Err(error) = socket.set_tcp_notsent_lowat(UNSENT_MAX) {
        tracing::debug!(%error, "limit of unsent bytes not set");
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
        {
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_MAX);
        }
    }
}
