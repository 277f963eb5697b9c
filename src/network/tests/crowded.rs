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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_strangers_have_filled_still_reaches_whom_it_looks_for() {
    let (crowded, honest) = (Node::start().await, Node::start().await);
    let address = crowded.addresses().await.remove(0);
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
