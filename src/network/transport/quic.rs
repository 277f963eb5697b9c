//! QUIC with our timeouts: it ends a silent connection itself, since a killed process says nothing at all. Used by `super`.
//! Source: libp2p specification `quic/README.md`; RFC 9000, section 10.

use std::io;
use std::time::Duration;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, Transport};
use libp2p::quic;

use super::Connected;
use crate::network::identity::Keypair;

/// A QUIC connection that hears nothing for this long is dead: a killed process says nothing at all. Each side sends
/// something four times as often.
const QUIC_IDLE_MAX: Duration = Duration::from_secs(5);
const QUIC_KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A QUIC handshake. Shorter than that of TCP, because it begins later and nobody ever answers "refused".
pub(in crate::network) const QUIC_HANDSHAKE_MAX: Duration = Duration::from_secs(4);

const _: () = assert!(QUIC_KEEP_ALIVE.as_millis() * 4 <= QUIC_IDLE_MAX.as_millis());

/// Streams a peer may have open at once on one connection. quinn makes the surplus wait instead of ending the connection.
const STREAMS_MAX: u32 = 256;

/// Builds the transport for `identity`.
pub(super) fn build(identity: &Keypair) -> Boxed<Connected> {
    let mut settings = quic::Config::new(identity.as_libp2p());
    settings.handshake_timeout = QUIC_HANDSHAKE_MAX;
    settings.max_idle_timeout = u32::try_from(QUIC_IDLE_MAX.as_millis()).unwrap_or(u32::MAX);
    settings.keep_alive_interval = QUIC_KEEP_ALIVE;
    settings.max_concurrent_stream_limit = STREAMS_MAX;
    quic::tokio::Transport::new(settings)
        .map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection)))
        .map_err(io_error_of)
        .boxed()
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
