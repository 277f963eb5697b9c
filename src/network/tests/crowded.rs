//! A node whose places are all taken by strangers.

use std::future::poll_fn;

use libp2p::core::Endpoint;
use libp2p::core::muxing::StreamMuxerExt;
use libp2p::core::transport::{DialOpts, PortUse, Transport};
use tokio::task::JoinSet;

use super::*;

/// More than a node takes.
const STRANGERS: usize = 400;

/// Handshakes at once: fewer than a node takes, so that none is refused for that.
const AT_ONCE: usize = 32;

/// Connects, and does nothing but keep the connection.
async fn crowd(address: Multiaddr, taken: mpsc::Sender<()>) {
    let mut transport = transport::build(&Keypair::generate()).unwrap();
    let options = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    let dial = transport.dial(address, options).unwrap();
    let connected = dial.await;
    // Refused is connected long enough.
    taken.send(()).await.unwrap();
    let Ok((_, mut muxer)) = connected else {
        return;
    };
    let mut held = Vec::new();
    loop {
        let event = poll_fn(|cx| match muxer.poll_inbound_unpin(cx) {
            std::task::Poll::Pending => muxer.poll_unpin(cx).map_ok(|_| None),
            stream => stream.map_ok(Some),
        });
        match event.await {
            Ok(stream) => held.extend(stream),
            Err(_) => return,
        }
    }
}

/// More strangers than a node takes, each with a connection or refused.
async fn strangers(address: &Multiaddr) -> JoinSet<()> {
    let (taken, mut took) = mpsc::channel(STRANGERS);
    let mut strangers = JoinSet::new();
    for number in 0..STRANGERS {
        strangers.spawn(crowd(address.clone(), taken.clone()));
        if number >= AT_ONCE {
            timeout(PATIENCE, took.recv()).await.unwrap();
        }
    }
    for _ in 0..AT_ONCE {
        timeout(PATIENCE, took.recv()).await.unwrap();
    }
    strangers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_strangers_have_filled_still_reaches_whom_it_looks_for() {
    let (crowded, honest) = (Node::start().await, Node::start().await);
    let address = crowded.addresses().await.remove(0);
    let mut strangers = strangers(&address).await;
    let opened = crowded
        .handle
        .open_session(Some(honest.peer()), honest.addresses().await)
        .await;
    assert!(opened.is_ok(), "{opened:?}");
    // Those that were refused end at once, the others after half a minute.
    let refused = timeout(PATIENCE, strangers.join_next()).await;
    assert!(refused.is_ok(), "there was room for everybody");
    strangers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_strangers_have_filled_is_reached_and_keeps_its_sessions() {
    let (mut crowded, guest, newcomer) = (
        Node::start().await,
        Node::start().await,
        Node::start().await,
    );
    let address = crowded.addresses().await.remove(0);
    let to_crowded = || vec![address.clone()];
    let mut held = guest
        .handle
        .open_session(Some(crowded.peer()), to_crowded())
        .await
        .unwrap();
    let mut inbound = crowded.inbound().await;
    let _strangers = strangers(&address).await;
    // Before, any of them may be about to begin a session.
    tokio::time::sleep(streams::BEGINS_WITHIN).await;
    let opened = newcomer
        .handle
        .open_session(Some(crowded.peer()), to_crowded())
        .await;
    assert!(opened.is_ok(), "{opened:?}");
    held.control.write_all(b"still here").await.unwrap();
    held.control.flush().await.unwrap();
    let mut heard = [0; 10];
    timeout(PATIENCE, inbound.control.read_exact(&mut heard))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&heard, b"still here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_never_end_keep_nobody_out() {
    let (crowded, honest) = (Node::start().await, Node::start().await);
    let address = crowded.addresses().await.remove(0);
    let port = addresses::socket_address(&address).unwrap().port();
    let mut halves = Vec::new();
    for _ in 0..STRANGERS {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        // From another network than the honest peer.
        socket.bind(([127, 0, 1, 1], 0).into()).unwrap();
        let stream = socket.connect(([127, 0, 0, 1], port).into());
        halves.push(timeout(PATIENCE, stream).await.unwrap().unwrap());
    }
    let began = Instant::now();
    let opened = honest
        .handle
        .open_session(Some(crowded.peer()), vec![address])
        .await;
    assert!(opened.is_ok(), "{opened:?}");
    assert!(
        began.elapsed() < transport::SETUP_TIMEOUT,
        "it waited until they had timed out"
    );
}
