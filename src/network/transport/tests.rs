//! Whole connections over loopback: with ourselves, and with stock libp2p nodes that speak only one of the two protocols.
#![allow(clippy::unwrap_used)]

use futures::future::{join, poll_fn, select};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::Endpoint;
use libp2p::core::muxing::StreamMuxerExt;
use libp2p::core::upgrade::Version;
use libp2p::{noise, tcp as stock_tcp, yamux};

use super::*;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// More than a window, so that windows have to move.
const BYTES: usize = 3 << 20;

fn ours() -> (PeerId, Boxed<Connected>) {
    let identity = Keypair::generate();
    (identity.peer_id(), build(&identity).unwrap())
}

/// A node as the libraries make it, with noise only.
fn stock_with_noise() -> (PeerId, Boxed<Connected>) {
    let identity = Keypair::generate();
    let transport = stock_tcp::tokio::Transport::default()
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(identity.as_libp2p()).unwrap())
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    (identity.peer_id(), transport.boxed())
}

/// The same with TLS only.
fn stock_with_tls() -> (PeerId, Boxed<Connected>) {
    let identity = Keypair::generate();
    let transport = stock_tcp::tokio::Transport::default()
        .upgrade(Version::V1)
        .authenticate(libp2p_tls::Config::new(identity.as_libp2p()).unwrap())
        .multiplex(yamux::Config::default())
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    (identity.peer_id(), transport.boxed())
}

/// The first connection that somebody makes to `listener`, which is told where by `listening`.
async fn accept(
    listener: &mut Boxed<Connected>,
    listening: tokio::sync::oneshot::Sender<Multiaddr>,
) -> Connected {
    let mut listening = Some(listening);
    listener
        .listen_on(ListenerId::next(), "/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    loop {
        match poll_fn(|cx| Pin::new(&mut *listener).poll(cx)).await {
            TransportEvent::NewAddress { listen_addr, .. } => {
                if let Some(listening) = listening.take() {
                    listening.send(listen_addr).unwrap();
                }
            }
            // A dial that finds the other protocol here ends, and is followed by another.
            TransportEvent::Incoming { upgrade, .. } => {
                if let Ok(connected) = upgrade.await {
                    return connected;
                }
            }
            _ => {}
        }
    }
}

/// Connects the two and moves bytes on a stream in both directions.
async fn assert_meet(
    (dialler_id, mut dialler): (PeerId, Boxed<Connected>),
    (listener_id, mut listener): (PeerId, Boxed<Connected>),
) {
    let (listening, address) = tokio::sync::oneshot::channel();
    let dial = async {
        let options = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let dial = dialler.dial(address.await.unwrap(), options).unwrap();
        let (them, mut muxer) = dial.await.unwrap();
        let mut stream = poll_fn(|cx| muxer.poll_outbound_unpin(cx)).await.unwrap();
        // The far end sees the stream, and our choice of yamux, with the first bytes.
        stream.write_all(b"first").await.unwrap();
        poll_fn(|cx| Poll::Ready(muxer.poll_unpin(cx).is_pending())).await;
        (them, muxer, stream)
    };
    let accept = async {
        let (us, mut muxer) = accept(&mut listener, listening).await;
        let mut stream = poll_fn(|cx| muxer.poll_inbound_unpin(cx)).await.unwrap();
        stream.read_exact(&mut [0; 5]).await.unwrap();
        (us, muxer, stream)
    };
    let meeting = tokio::time::timeout(PATIENCE, join(dial, accept)).await;
    let ((them, mut a, mut opened), (us, mut b, mut accepted)) = meeting.unwrap();
    assert_eq!((them, us), (listener_id, dialler_id));

    let transfers = Box::pin(async {
        assert_carries(&mut opened, &mut accepted).await;
        assert_carries(&mut accepted, &mut opened).await;
    });
    let driving = poll_fn(|cx| {
        let _ = a.poll_unpin(cx).map(Result::unwrap);
        let _ = b.poll_unpin(cx).map(Result::unwrap);
        Poll::<()>::Pending
    });
    tokio::time::timeout(PATIENCE, select(transfers, driving))
        .await
        .unwrap();
}

async fn assert_carries(from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin)) {
    let bytes: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
    let mut read = vec![0; BYTES];
    let write = async {
        from.write_all(&bytes).await.unwrap();
        from.flush().await.unwrap();
    };
    let ((), outcome) = join(write, to.read_exact(&mut read)).await;
    outcome.unwrap();
    assert!(read == bytes, "the bytes are the same");
}

#[tokio::test]
async fn two_of_us_meet() {
    assert_meet(ours(), ours()).await;
}

#[tokio::test]
async fn we_dial_a_stock_node_that_has_tls_only() {
    assert_meet(ours(), stock_with_tls()).await;
}

#[tokio::test]
async fn a_stock_node_that_has_tls_only_dials_us() {
    assert_meet(stock_with_tls(), ours()).await;
}

#[tokio::test]
async fn we_dial_a_stock_node_that_has_noise_only() {
    assert_meet(ours(), stock_with_noise()).await;
}

#[tokio::test]
async fn a_stock_node_that_has_noise_only_dials_us() {
    assert_meet(stock_with_noise(), ours()).await;
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
            role: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        let dial = transport.dial(address.parse().unwrap(), options);
        assert!(
            matches!(dial, Err(TransportError::MultiaddrNotSupported(_))),
            "{address}"
        );
    }
}
