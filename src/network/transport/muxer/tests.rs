//! The bounds, against a peer that keeps to yamux and to nothing else: the crate itself with its own settings.
#![allow(clippy::unwrap_used)]

use std::future::poll_fn;
use std::time::Duration;

use futures::future::join_all;
use futures::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::*;

type End = tokio_util::compat::Compat<tokio::io::DuplexStream>;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn pair() -> (Muxer<End>, Connection<End>) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let theirs = Connection::new(theirs.compat(), Config::default(), Mode::Client);
    (
        Muxer::new(ours.compat(), Mode::Server, Arc::default()),
        theirs,
    )
}

/// Drives our end until it ends; the streams of the peer come out of the queue.
fn drive(mut muxer: Muxer<End>) -> (mpsc::Receiver<Stream>, tokio::task::JoinHandle<MuxerError>) {
    let (arrivals, arrived) = mpsc::channel(STREAMS_MAX);
    let driving = poll_fn(move |cx| {
        loop {
            match ready!(Pin::new(&mut muxer).poll_inbound(cx)) {
                Ok(stream) => arrivals.try_send(stream).unwrap(),
                Err(error) => return Poll::Ready(error),
            }
        }
    });
    (arrived, tokio::spawn(driving))
}

/// Opens `count` streams of the peer and sends a byte on each; drives the peer afterwards.
async fn open(mut theirs: Connection<End>, count: usize) -> Vec<yamux::Stream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = poll_fn(|cx| theirs.poll_new_outbound(cx)).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        streams.push(stream);
    }
    tokio::spawn(async move {
        // It answers the ping of our end late, as on a long path: windows grow only where that pays.
        sleep(Duration::from_millis(500)).await;
        while let Some(Ok(_)) = poll_fn(|cx| theirs.poll_next_inbound(cx)).await {}
    });
    streams
}

/// Writes to each stream until nothing more is taken; how many bytes were.
async fn fill(streams: &mut [yamux::Stream]) -> usize {
    let filling = streams.iter_mut().map(async |stream| {
        let (bytes, mut taken) = (vec![0; 64 * 1024], 0);
        // A window that has room takes bytes at once, up to a queue that empties at once.
        while let Ok(len) = tokio::time::timeout(PATIENCE / 20, stream.write(&bytes)).await {
            taken += len.unwrap();
        }
        taken
    });
    join_all(filling).await.into_iter().sum()
}

#[tokio::test]
async fn a_peer_that_fills_all_windows_costs_less_than_16_mib() {
    let (muxer, theirs) = pair();
    let (mut arrived, _driving) = drive(muxer);
    let mut theirs = open(theirs, STREAMS_MAX).await;
    let mut ours = Vec::new();
    for _ in 0..STREAMS_MAX {
        let mut stream = arrived.recv().await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        ours.push(stream);
    }

    // What moves and is read at once makes the windows grow, as far as they may.
    let moving = theirs.iter_mut().zip(&mut ours).map(async |(from, to)| {
        let bytes = vec![0; 4 << 20];
        let mut read = vec![0; bytes.len()];
        let (written, outcome) = futures::join!(from.write_all(&bytes), to.read_exact(&mut read));
        written.unwrap();
        outcome.unwrap();
    });
    tokio::time::timeout(PATIENCE, join_all(moving))
        .await
        .unwrap();

    let unread = fill(&mut theirs).await;
    let least = STREAMS_MAX * yamux::DEFAULT_CREDIT as usize;
    assert!(unread > least + (1 << 20), "no window has grown: {unread}");
    assert!(unread <= WINDOWS_MAX, "{unread}");
}

/// A frame may have left before the task that gave it to yamux goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn small_writes_go_on_while_another_thread_sends_them() {
    const FRAMES: usize = 50_000;
    let (muxer, theirs) = pair();
    let (mut arrived, _driving) = drive(muxer);
    let mut theirs = open(theirs, 1).await.remove(0);
    let mut ours = arrived.recv().await.unwrap();
    ours.read_exact(&mut [0]).await.unwrap();
    assert!(ours.pace.is_slow());
    let writing = tokio::spawn(async move {
        for _ in 0..FRAMES {
            ours.write_all(b"x").await.unwrap();
        }
        ours.flush().await.unwrap();
        ours
    });
    let mut read = vec![0; FRAMES];
    tokio::time::timeout(PATIENCE, theirs.read_exact(&mut read))
        .await
        .unwrap()
        .unwrap();
    writing.await.unwrap();
}

#[tokio::test]
async fn a_writer_that_waits_learns_of_the_end() {
    let (mut muxer, _theirs) = pair();
    let waker = futures::task::noop_waker();
    let cx = &mut Context::from_waker(&waker);
    let Poll::Ready(Ok(mut stream)) = Pin::new(&mut muxer).poll_outbound(cx) else {
        panic!("a stream is opened at once");
    };
    let mut write = || Pin::new(&mut stream).poll_write(cx, b"x");
    assert!(matches!(write(), Poll::Ready(Ok(1))));
    assert!(write().is_pending(), "the first has not left");
    drop(muxer);
    assert!(matches!(write(), Poll::Ready(Err(_))));
}

#[tokio::test]
async fn a_peer_that_opens_too_many_streams_is_left() {
    let (muxer, theirs) = pair();
    let (_arrived, driving) = drive(muxer);
    let _streams = open(theirs, STREAMS_MAX + 1).await;
    let ended = tokio::time::timeout(PATIENCE, driving).await.unwrap();
    assert!(matches!(ended.unwrap().0, ConnectionError::Closed));
}

#[tokio::test]
async fn our_own_streams_wait_for_a_place() {
    let (mut muxer, _theirs) = pair();
    let mut open = || {
        let waker = futures::task::noop_waker();
        Pin::new(&mut muxer).poll_outbound(&mut Context::from_waker(&waker))
    };
    let mut streams: Vec<_> = (0..OPENED_MAX).map(|_| open()).collect();
    assert!(streams.iter().all(Poll::is_ready));
    assert!(open().is_pending(), "one more waits");
    streams.pop();
    assert!(open().is_ready(), "until one has ended");
}
