//! What lies between yamux and the encryption: the header of a frame, which yamux writes by itself, leaves together with
//! the body that follows. Alone it would be a record and a system call of its own. It also sees the pace and what leaves, gives a
//! slow connection no frame before the last one has left, and stops reading while too much is unread.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures::{AsyncRead, AsyncWrite};

use super::frames::HEADER_LEN;
use super::pace::{Meter, Pace};
use super::queued::Queued;
use super::unread::Unread;

/// Headers that wait for a body or a flush.
const WAITING_MAX: usize = 8 * HEADER_LEN;

/// The encrypted connection as yamux sees it.
#[derive(Debug)]
pub(super) struct Joined<C> {
    inner: C,
    /// Bytes that yamux has written and `inner` has not taken.
    waiting: Vec<u8>,
    meter: Meter,
    pace: Arc<Pace>,
    queued: Arc<Queued>,
    unread: Arc<Unread>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Joined<C> {
    pub(super) fn new(inner: C, pace: Arc<Pace>, queued: Arc<Queued>, unread: Arc<Unread>) -> Self {
        Self {
            inner,
            waiting: Vec::with_capacity(WAITING_MAX),
            meter: Meter::default(),
            pace,
            queued,
            unread,
        }
    }

    /// Writes what waits and then of `bytes`; how many of these were taken. Ready without any only if `bytes` is empty or
    /// `inner` takes none.
    fn poll_both(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let waiting = self.waiting.len();
            let slices = [IoSlice::new(&self.waiting), IoSlice::new(bytes)];
            let slices = if waiting == 0 { &slices[1..] } else { &slices };
            let Poll::Ready(written) = Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
            else {
                self.meter.on_full();
                return Poll::Pending;
            };
            let written = written?;
            self.meter.on_written(written, Instant::now(), &self.pace);
            self.waiting.drain(..written.min(waiting));
            if written == 0 || (self.waiting.is_empty() && (written > waiting || bytes.is_empty()))
            {
                return Poll::Ready(Ok(written.saturating_sub(waiting)));
            }
        }
    }

    fn poll_inner_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        if flushed.is_pending() {
            self.meter.on_full();
        }
        flushed
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.waiting.is_empty() {
            ready!(self.poll_both(cx, &[]))?;
            if !self.waiting.is_empty() {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for Joined<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.unread.poll_room(cx));
        let len = ready!(Pin::new(&mut self.inner).poll_read(cx, bytes))?;
        self.unread.on_received(&bytes[..len]);
        Poll::Ready(Ok(len))
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Joined<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Longer writes are bodies, and take what waits along.
        let len = if bytes.len() <= HEADER_LEN && self.waiting.len() + bytes.len() <= WAITING_MAX {
            self.waiting.extend_from_slice(bytes);
            bytes.len()
        } else {
            // The encryption has room for a whole frame, where it would only wait.
            if self.pace.is_slow() {
                ready!(self.poll_inner_flush(cx))?;
            }
            ready!(self.poll_both(cx, bytes))?
        };
        self.queued.on_leaving(&bytes[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_waiting(cx))?;
        self.poll_inner_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_waiting(cx))?;
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::AsyncWriteExt;

    use super::*;

    /// Takes at most `most` bytes at once and remembers each write.
    struct Sink {
        most: usize,
        writes: Vec<Vec<u8>>,
    }

    impl AsyncRead for Sink {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Sink {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            bytes.truncate(self.most);
            let len = bytes.len();
            self.writes.push(bytes);
            Poll::Ready(Ok(len))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// The writes below, when two headers, a body and a last header are written and flushed.
    async fn writes(most: usize) -> Vec<Vec<u8>> {
        let sink = Sink {
            most,
            writes: Vec::new(),
        };
        let mut joined = Joined::new(
            sink,
            Arc::default(),
            Arc::default(),
            Arc::new(Unread::new(Arc::default())),
        );
        for bytes in [&[1; 12][..], &[2; 12], &[3; 40], &[4; 12]] {
            joined.write_all(bytes).await.unwrap();
        }
        joined.flush().await.unwrap();
        joined.inner.writes
    }

    #[tokio::test]
    async fn a_body_leaves_with_the_headers_before_it() {
        let writes = writes(1_000).await;
        let lens: Vec<usize> = writes.iter().map(Vec::len).collect();
        assert_eq!(lens, [64, 12]);
    }

    #[tokio::test]
    async fn every_byte_leaves_in_order_however_little_is_taken() {
        let mut expected = vec![1; 12];
        expected.extend([2; 12]);
        expected.extend([3; 40]);
        expected.extend([4; 12]);
        for most in [1, 5, 12, 13, 24, 25, 63] {
            assert_eq!(writes(most).await.concat(), expected, "{most} at a time");
        }
    }
}
