//! yamux with our settings: large frames, and receive windows that are bounded. `libp2p-yamux` lets neither be set, and its
//! windows may grow to 1 GiB on each connection. On the wire it is plain yamux: any other node may be at the far end.
//! Used by `tcp`. Source: libp2p specification `yamux/README.md`; the `yamux` crate, whose rules for windows hold.

mod frames;
mod joined;
mod pace;
mod queued;
mod unread;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures::future::{self, Ready};
use futures::task::AtomicWaker;
use futures::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use tokio::time::{Sleep, sleep};
use yamux::{Config, Connection, ConnectionError, Mode};

use joined::Joined;
use pace::Pace;
use queued::Queued;
pub(super) use unread::All;
use unread::Unread;

use crate::wire;

/// Largest frame we send: a slice of a piece and its header. Each frame costs a wake-up at both ends; 1 MiB was no faster and
/// costs memory.
pub(super) const FRAME_LEN_MAX: usize = wire::SLICE_LEN_MAX as usize + wire::DATA_HEADER_LEN;

/// Streams open at once on one connection, whoever opened them: a session's two, one or two each of the small protocols,
/// and requests of Kademlia. yamux ends a connection that has more, and grants each 256 KiB from its first byte.
const STREAMS_MAX: usize = 28;

/// Of these, opened by us: further ones wait until one ends. Two nodes that both hold to it stay within the ceiling with
/// a few streams to spare, since one that has ended here may not have ended there.
const OPENED_MAX: usize = 12;

/// Bytes that a peer may have sent and nobody has read, over all streams of a connection. What the streams do not need
/// from the start is left for those that are read fast: their windows grow to twice the product of bandwidth and delay.
/// One stream may so get 8.25 MiB: 1 Gbit/s over 60 ms.
const WINDOWS_MAX: usize = 15 * 1024 * 1024;

/// How long a connection that we close may take to send its last bytes. A peer that does not read them would keep it for as
/// long as it likes.
const CLOSE_MAX: Duration = Duration::from_secs(2);

const _: () = assert!(2 * OPENED_MAX < STREAMS_MAX);
const _: () = assert!(STREAMS_MAX * yamux::DEFAULT_CREDIT as usize * 2 <= WINDOWS_MAX);

fn settings() -> Config {
    let mut settings = Config::default();
    settings.set_max_num_streams(STREAMS_MAX);
    settings.set_max_connection_receive_window(Some(WINDOWS_MAX));
    settings.set_split_send_size(FRAME_LEN_MAX);
    settings
}

/// The upgrade. Its connections have a bound together.
#[derive(Clone, Debug)]
pub(super) struct Yamux(pub(super) Arc<All>);

impl UpgradeInfo for Yamux {
    type Info = &'static str;
    type InfoIter = std::iter::Once<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once("/yamux/1.0.0")
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> InboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_inbound(self, socket: C, _: Self::Info) -> Self::Future {
        future::ready(Ok(Muxer::new(socket, Mode::Server, self.0)))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> OutboundConnectionUpgrade<C> for Yamux {
    type Output = Muxer<C>;
    type Error = io::Error;
    type Future = Ready<io::Result<Muxer<C>>>;

    fn upgrade_outbound(self, socket: C, _: Self::Info) -> Self::Future {
        future::ready(Ok(Muxer::new(socket, Mode::Client, self.0)))
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Muxer<C> {
    connection: Connection<Joined<C>>,
    /// Streams of the peer that came while nobody asked for one; at most [`STREAMS_MAX`], which yamux enforces.
    arrived: VecDeque<yamux::Stream>,
    /// Who asked for one when there was none.
    acceptor: Option<Waker>,
    opened: Arc<Opened>,
    pace: Arc<Pace>,
    queued: Arc<Queued>,
    unread: Arc<Unread>,
    /// Runs since closing began.
    closing: Option<Pin<Box<Sleep>>>,
}

/// The streams that we opened and still have.
#[derive(Debug, Default)]
struct Opened {
    count: AtomicUsize,
    waiting: AtomicWaker,
}

/// The place of one of them, which frees on drop.
#[derive(Debug)]
struct Place(Arc<Opened>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.waiting.wake();
    }
}

impl<C> Drop for Muxer<C> {
    fn drop(&mut self) {
        self.queued.on_end();
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Muxer<C> {
    fn new(socket: C, mode: Mode, all: Arc<All>) -> Self {
        let pace = Arc::<Pace>::default();
        let queued = Arc::<Queued>::default();
        let unread = Arc::new(Unread::new(all));
        let socket = Joined::new(
            socket,
            Arc::clone(&pace),
            Arc::clone(&queued),
            Arc::clone(&unread),
        );
        Self {
            connection: Connection::new(socket, settings(), mode),
            arrived: VecDeque::new(),
            acceptor: None,
            opened: Arc::default(),
            pace,
            queued,
            unread,
            closing: None,
        }
    }

    /// Moves the whole connection on; a stream if the peer opened one.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Result<yamux::Stream, MuxerError>> {
        let arrival = ready!(self.connection.poll_next_inbound(cx));
        Poll::Ready(
            arrival
                .unwrap_or(Err(ConnectionError::Closed))
                .map_err(MuxerError),
        )
    }

    fn stream(&self, inner: yamux::Stream, place: Option<Place>) -> Stream {
        self.unread.on_opened(inner.id().val());
        Stream {
            inner,
            pace: Arc::clone(&self.pace),
            queued: Arc::clone(&self.queued),
            unread: Arc::clone(&self.unread),
            _place: place,
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> StreamMuxer for Muxer<C> {
    type Substream = Stream;
    type Error = MuxerError;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, MuxerError>> {
        if let Some(stream) = self.arrived.pop_front() {
            return Poll::Ready(Ok(self.stream(stream, None)));
        }
        if let Poll::Ready(arrival) = self.poll_arrival(cx) {
            return Poll::Ready(arrival.map(|stream| self.stream(stream, None)));
        }
        self.acceptor = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, MuxerError>> {
        // Before the look at the count, so that a place that frees in between is not missed.
        self.opened.waiting.register(cx.waker());
        if self.opened.count.load(Ordering::Acquire) >= OPENED_MAX {
            return Poll::Pending;
        }
        let stream = ready!(self.connection.poll_new_outbound(cx)).map_err(MuxerError)?;
        self.opened.count.fetch_add(1, Ordering::AcqRel);
        let place = Place(Arc::clone(&self.opened));
        Poll::Ready(Ok(self.stream(stream, Some(place))))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), MuxerError>> {
        let closing = self
            .closing
            .get_or_insert_with(|| Box::pin(sleep(CLOSE_MAX)));
        if closing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.connection.poll_close(cx).map_err(MuxerError)
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, MuxerError>> {
        let stream = ready!(self.poll_arrival(cx))?;
        self.arrived.push_back(stream);
        if let Some(acceptor) = self.acceptor.take() {
            acceptor.wake();
        }
        // There may be more to do, after others had their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    inner: yamux::Stream,
    pace: Arc<Pace>,
    queued: Arc<Queued>,
    unread: Arc<Unread>,
    _place: Option<Place>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        let id = self.inner.id().val();
        self.queued.on_dropped(id);
        self.unread.on_dropped(id);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let len = ready!(Pin::new(&mut self.inner).poll_read(cx, bytes))?;
        self.unread.on_read(self.inner.id().val(), len);
        Poll::Ready(Ok(len))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let id = self.inner.id().val();
        if self.pace.is_slow() {
            ready!(self.queued.poll_empty(id, cx));
        }
        // What is written at once becomes one frame.
        let len = bytes.len().min(self.pace.frame_len());
        // Counted before: it may have left when yamux has taken it.
        self.queued.on_queued(id);
        let written = Pin::new(&mut self.inner).poll_write(cx, &bytes[..len]);
        if !matches!(written, Poll::Ready(Ok(len)) if len > 0) {
            self.queued.on_refused(id);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

/// The connection has ended, by itself or by a violation.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct MuxerError(ConnectionError);

impl From<MuxerError> for io::Error {
    fn from(error: MuxerError) -> Self {
        match error.0 {
            ConnectionError::Io(error) => error,
            error => Self::other(error),
        }
    }
}

#[cfg(test)]
mod tests;
