//! Whole nodes of this room on loopback: sessions, failures with their causes, and discovery through a third node.
#![allow(clippy::unwrap_used)]

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::*;

mod crowded;
pub(crate) mod foreign;
mod spammed;
mod thirty;

/// Far more than anything here takes; a test that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

struct Node {
    handle: NetworkHandle,
    events: mpsc::Receiver<NetworkEvent>,
}

impl Node {
    async fn start() -> Self {
        Self::start_with(Keypair::generate(), "/ip4/127.0.0.1/tcp/0").await
    }

    async fn start_with(identity: Keypair, listen: &str) -> Self {
        let (handle, events) = start(config(identity, listen)).await.unwrap();
        Self { handle, events }
    }

    fn peer(&self) -> PeerId {
        self.handle.local_peer()
    }

    async fn addresses(&self) -> Vec<Multiaddr> {
        self.handle.listeners().await
    }

    /// The first event for which `pick` gives something.
    async fn next<T>(&mut self, mut pick: impl FnMut(NetworkEvent) -> Option<T>) -> T {
        timeout(PATIENCE, async {
            loop {
                if let Some(picked) = pick(self.events.recv().await.expect("the driver runs")) {
                    return picked;
                }
            }
        })
        .await
        .expect("the event comes in time")
    }

    async fn inbound(&mut self) -> SessionStreams {
        self.next(|event| match event {
            NetworkEvent::InboundSession(streams) => Some(streams),
            _ => None,
        })
        .await
    }

    async fn providers(&mut self, wanted: [u8; 32]) -> Vec<PeerId> {
        self.next(|event| match event {
            NetworkEvent::Providers { key, peers } if key == wanted => {
                Some(peers.into_iter().map(|(peer, _)| peer).collect())
            }
            _ => None,
        })
        .await
    }
}

fn config(identity: Keypair, listen: &str) -> NetworkConfig {
    NetworkConfig {
        identity,
        listen: vec![listen.parse().unwrap()],
        mdns: false,
        dht: true,
        agent: "shoal/test".to_owned(),
    }
}

/// Writes on one end and reads the same on the other.
async fn assert_carries(from: &mut PeerStream, to: &mut PeerStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    // Together: more than a window cannot be written before somebody reads.
    let write = async {
        from.write_all(bytes).await.unwrap();
        from.flush().await.unwrap();
    };
    let (_, outcome) = timeout(PATIENCE, async {
        tokio::join!(write, to.read_exact(&mut read))
    })
    .await
    .unwrap();
    outcome.unwrap();
    assert_eq!(read, bytes);
}

/// A port nothing listens on, held so that nobody takes it meanwhile.
fn closed_port() -> (socket2::Socket, u16) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(
            &"127.0.0.1:0"
                .parse::<std::net::SocketAddr>()
                .unwrap()
                .into(),
        )
        .unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

#[tokio::test]
async fn a_session_carries_bytes_both_ways_on_both_streams() {
    let (a, mut b) = (Node::start().await, Node::start().await);
    let mut ours = a
        .handle
        .open_session(Some(b.peer()), b.addresses().await)
        .await
        .unwrap();
    let mut theirs = b.inbound().await;
    assert_eq!((ours.peer, theirs.peer), (b.peer(), a.peer()));
    assert!(ours.dialled_by_us && !theirs.dialled_by_us);
    assert_carries(&mut ours.control, &mut theirs.control, b"hello").await;
    assert_carries(&mut theirs.control, &mut ours.control, b"hello back").await;
    assert_carries(&mut ours.data, &mut theirs.data, &vec![1; 300_000]).await;
    assert_carries(&mut theirs.data, &mut ours.data, &vec![2; 300_000]).await;
}

#[tokio::test]
async fn a_peer_is_found_at_an_address_that_does_not_name_it() {
    let (a, mut b) = (Node::start().await, Node::start().await);
    let (bare, _) = addresses::split_peer(&b.addresses().await[0]);
    let session = a
        .handle
        .open_session(None, vec![bare.clone()])
        .await
        .unwrap();
    assert_eq!((session.peer, session.remote_address), (b.peer(), bare));
    b.inbound().await;
}

#[tokio::test]
async fn concurrent_calls_share_one_connection_and_later_ones_use_it() {
    let (a, mut b) = (Node::start().await, Node::start().await);
    let addresses = b.addresses().await;
    let open = || a.handle.open_session(Some(b.peer()), addresses.clone());
    let (first, second, third) = tokio::join!(open(), open(), open());
    let connections = [first, second, third].map(|session| session.unwrap().connection);
    assert_eq!(connections, [connections[0]; 3]);
    let later = a
        .handle
        .open_session(Some(b.peer()), Vec::new())
        .await
        .unwrap();
    assert_eq!(later.connection, connections[0]);
    for _ in 0..4 {
        b.inbound().await;
    }
}

#[tokio::test]
async fn the_called_side_opens_its_own_session_on_the_same_connection() {
    let (mut a, mut b) = (Node::start().await, Node::start().await);
    let _ours = a
        .handle
        .open_session(Some(b.peer()), b.addresses().await)
        .await
        .unwrap();
    let theirs = b.inbound().await;
    let back = b
        .handle
        .open_session(Some(a.peer()), Vec::new())
        .await
        .unwrap();
    assert_eq!(back.connection, theirs.connection);
    assert!(!back.dialled_by_us);
    a.inbound().await;
}

#[tokio::test]
async fn every_address_fails_with_its_own_cause() {
    let (a, b) = (Node::start().await, Node::start().await);
    let (_held, port) = closed_port();
    let refused: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let unusable: Multiaddr = "/ip4/127.0.0.1/udp/1".parse().unwrap();
    let (wrong, _) = addresses::split_peer(&b.addresses().await[0]);
    let absent = PeerId::random();
    let given = vec![refused.clone(), unusable.clone(), wrong.clone()];
    let mut error = a
        .handle
        .open_session(Some(absent), given)
        .await
        .unwrap_err();
    error.tried.sort_by_key(|(address, _)| address.to_string());
    let mut expected = vec![
        (refused, DialFailure::Refused),
        (unusable, DialFailure::Unreachable),
        (wrong, DialFailure::WrongPeer { found: b.peer() }),
    ];
    expected.sort_by_key(|(address, _)| address.to_string());
    assert_eq!(error.tried, expected);
}

#[tokio::test]
async fn a_wrong_peer_at_one_address_does_not_hide_the_right_one_at_another() {
    let (a, wrong, mut right) = (
        Node::start().await,
        Node::start().await,
        Node::start().await,
    );
    let mut given: Vec<Multiaddr> = Vec::new();
    for address in wrong
        .addresses()
        .await
        .into_iter()
        .chain(right.addresses().await)
    {
        given.push(addresses::split_peer(&address).0);
    }
    let session = a
        .handle
        .open_session(Some(right.peer()), given)
        .await
        .unwrap();
    assert_eq!(session.peer, right.peer());
    right.inbound().await;
}

#[tokio::test]
async fn a_refused_unnamed_address_and_a_wrongly_named_one_say_so() {
    let (a, b) = (Node::start().await, Node::start().await);
    let (_held, port) = closed_port();
    let refused: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    let error = a
        .handle
        .open_session(None, vec![refused.clone()])
        .await
        .unwrap_err();
    assert_eq!(error.tried, [(refused, DialFailure::Refused)]);
    let (bare, _) = addresses::split_peer(&b.addresses().await[0]);
    let named = bare.clone().with_p2p(PeerId::random()).unwrap();
    let error = a.handle.open_session(None, vec![named]).await.unwrap_err();
    assert_eq!(
        error.tried,
        [(bare, DialFailure::WrongPeer { found: b.peer() })]
    );
}

#[tokio::test]
async fn we_do_not_open_sessions_with_ourselves() {
    let a = Node::start().await;
    let own = a.addresses().await;
    let bare = own
        .iter()
        .map(|address| addresses::split_peer(address).0)
        .collect();
    for given in [own, bare] {
        let count = given.len();
        let error = a.handle.open_session(None, given).await.unwrap_err();
        let is_us = |(_, failure): &(_, DialFailure)| {
            *failure == DialFailure::WrongPeer { found: a.peer() }
        };
        assert!(error.tried.iter().all(is_us), "{error}");
        assert_eq!(error.tried.len(), count, "{error}");
    }
}

/// The addresses of QUIC among those of a node.
async fn quic_of(node: &Node) -> Vec<Multiaddr> {
    let mut addresses = node.addresses().await;
    addresses.retain(addresses::is_quic);
    addresses
}

#[tokio::test]
async fn quic_listens_beside_tcp_and_carries_a_session_where_it_is_alone() {
    let (a, mut b) = (Node::start().await, Node::start().await);
    let ports: Vec<u16> = b
        .addresses()
        .await
        .iter()
        .filter_map(|address| Some(addresses::socket_address(address)?.port()))
        .collect();
    assert_eq!(ports, [ports[0]; 2], "one number for TCP and QUIC");
    let given = quic_of(&b).await;
    let mut ours = a.handle.open_session(Some(b.peer()), given).await.unwrap();
    let mut theirs = b.inbound().await;
    assert!(
        addresses::is_quic(&ours.remote_address),
        "{}",
        ours.remote_address
    );
    assert!(addresses::is_quic(&theirs.remote_address));
    assert_carries(&mut ours.control, &mut theirs.control, b"hello").await;
    assert_carries(&mut theirs.data, &mut ours.data, &vec![2; 3_000_000]).await;
}

#[tokio::test]
async fn where_both_answer_the_session_is_on_tcp() {
    let (a, mut b) = (Node::start().await, Node::start().await);
    let mut given = b.addresses().await;
    given.reverse();
    for peer in [Some(b.peer()), None] {
        let session = a.handle.open_session(peer, given.clone()).await.unwrap();
        assert!(!addresses::is_quic(&session.remote_address));
        b.inbound().await;
    }
}

#[tokio::test]
async fn where_tcp_is_swallowed_quic_is_dialled_after_its_delay() {
    let (a, b) = (Node::start().await, Node::start().await);
    // Accepts and says nothing, as a firewall does that swallows.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let swallowed: Multiaddr = format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap();
    for peer in [Some(b.peer()), None] {
        let began = Instant::now();
        let mut given = quic_of(&b).await;
        given.push(swallowed.clone());
        let c = Node::start().await;
        let node = if peer.is_some() { &a } else { &c };
        let session = node.handle.open_session(peer, given).await.unwrap();
        assert!(addresses::is_quic(&session.remote_address));
        assert!(began.elapsed() >= dialling::QUIC_DELAY);
        assert!(began.elapsed() < dialling::QUIC_DELAY + Duration::from_secs(2));
    }
}

#[tokio::test]
async fn a_quic_address_nobody_answers_at_is_a_timeout() {
    let a = Node::start().await;
    let held = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let silent: Multiaddr = format!("/ip4/127.0.0.1/udp/{port}/quic-v1")
        .parse()
        .unwrap();
    let given = vec![silent.clone()];
    let error = a.handle.open_session(Some(PeerId::random()), given).await;
    assert_eq!(error.unwrap_err().tried, [(silent, DialFailure::Timeout)]);
}

#[tokio::test]
async fn a_wrong_peer_on_quic_is_named() {
    let (a, b) = (Node::start().await, Node::start().await);
    let (bare, _) = addresses::split_peer(&quic_of(&b).await[0]);
    let given = vec![bare.clone()];
    let error = a.handle.open_session(Some(PeerId::random()), given).await;
    let found = b.peer();
    assert_eq!(
        error.unwrap_err().tried,
        [(bare, DialFailure::WrongPeer { found })]
    );
}

#[tokio::test]
async fn an_unknown_peer_without_addresses_fails_at_once() {
    let a = Node::start().await;
    let began = Instant::now();
    let error = a
        .handle
        .open_session(Some(PeerId::random()), Vec::new())
        .await
        .unwrap_err();
    assert_eq!(error.tried, []);
    assert_eq!(error.to_string(), "no address known");
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_peer_that_accepts_and_says_nothing_is_a_timeout() {
    let a = Node::start().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Multiaddr = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port())
        .parse()
        .unwrap();
    let began = Instant::now();
    let error = a
        .handle
        .open_session(None, vec![address.clone()])
        .await
        .unwrap_err();
    assert_eq!(error.tried, [(address, DialFailure::Timeout)]);
    assert!(began.elapsed() < dialling::OPENING_TIMEOUT + Duration::from_secs(1));
}

#[tokio::test]
async fn two_nodes_that_dial_each_other_at_once_both_get_a_session() {
    for _ in 0..5 {
        let (mut a, mut b) = (Node::start().await, Node::start().await);
        let (to_a, to_b) = (a.addresses().await, b.addresses().await);
        let (a_peer, b_peer) = (a.peer(), b.peer());
        let (ours, theirs) = tokio::join!(
            a.handle.open_session(Some(b_peer), to_b),
            b.handle.open_session(Some(a_peer), to_a)
        );
        let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
        let (mut at_b, mut at_a) = (b.inbound().await, a.inbound().await);
        assert_carries(&mut ours.control, &mut at_b.control, b"x").await;
        assert_carries(&mut theirs.control, &mut at_a.control, b"y").await;
    }
}

#[tokio::test]
async fn a_key_is_found_through_a_third_node_and_its_provider_dialled_by_name_alone() {
    let (mut a, b, mut c) = (
        Node::start().await,
        Node::start().await,
        Node::start().await,
    );
    let key = [42; 32];
    c.handle.announce(key).await;
    c.handle.add_addresses(b.peer(), b.addresses().await).await;
    a.handle.add_addresses(b.peer(), b.addresses().await).await;
    let found = timeout(PATIENCE, async {
        loop {
            a.handle.lookup(key).await;
            let found = a
                .next(|event| match event {
                    NetworkEvent::Providers { peers, .. } => {
                        Some(peers.into_iter().map(|(peer, _)| peer).collect())
                    }
                    NetworkEvent::LookupDone { .. } => Some(Vec::new()),
                    _ => None,
                })
                .await;
            if !found.is_empty() {
                return found;
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(found, [c.peer()]);
    let session = a
        .handle
        .open_session(Some(c.peer()), Vec::new())
        .await
        .unwrap();
    assert_eq!(session.peer, c.peer());
    c.inbound().await;
}

#[tokio::test]
async fn what_was_announced_before_anybody_was_known_is_announced_when_the_table_grows() {
    let (mut a, b, c) = (
        Node::start().await,
        Node::start().await,
        Node::start().await,
    );
    let key = [9; 32];
    c.handle.announce(key).await;
    a.handle.lookup(key).await;
    c.handle.add_addresses(b.peer(), b.addresses().await).await;
    let session = c
        .handle
        .open_session(Some(b.peer()), Vec::new())
        .await
        .unwrap();
    a.handle.add_addresses(b.peer(), b.addresses().await).await;
    let lookups = a.handle.clone();
    let retries = tokio::spawn(async move {
        loop {
            lookups.lookup(key).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    assert_eq!(a.providers(key).await, [c.peer()]);
    retries.abort();
    drop(session);
}

#[tokio::test]
async fn without_a_dht_lookups_end_at_once_and_sessions_still_work() {
    let mut config = config(Keypair::generate(), "/ip4/127.0.0.1/tcp/0");
    config.dht = false;
    let (handle, events) = start(config).await.unwrap();
    let mut a = Node { handle, events };
    let mut b = Node::start().await;
    a.handle.announce([1; 32]).await;
    a.handle.lookup([1; 32]).await;
    a.next(|event| matches!(event, NetworkEvent::LookupDone { .. }).then_some(()))
        .await;
    a.handle.add_addresses(b.peer(), b.addresses().await).await;
    a.handle
        .open_session(Some(b.peer()), Vec::new())
        .await
        .unwrap();
    b.inbound().await;
}

#[tokio::test]
async fn the_streams_of_a_node_that_ended_fail_promptly() {
    let (a, mut b) = (Node::start().await, Node::start().await);
    let mut ours = a
        .handle
        .open_session(Some(b.peer()), b.addresses().await)
        .await
        .unwrap();
    let theirs = b.inbound().await;
    let address = b.addresses().await;
    let peer = b.peer();
    // The last handle goes: the driver ends, and the sockets with it.
    drop(b);
    let began = Instant::now();
    let mut byte = [0; 1];
    let read = timeout(PATIENCE, ours.control.read(&mut byte))
        .await
        .expect("the end is noticed");
    assert!(matches!(read, Ok(0) | Err(_)));
    assert!(began.elapsed() < Duration::from_secs(2));
    drop(theirs);
    let error = a
        .handle
        .open_session(Some(peer), address)
        .await
        .unwrap_err();
    assert!(
        matches!(error.tried[..], [(_, DialFailure::Refused)]),
        "{error}"
    );
}

#[tokio::test]
async fn shutdown_delivers_what_was_written_and_ends_the_driver() {
    let (a, mut b) = (Node::start().await, Node::start().await);
    let mut ours = a
        .handle
        .open_session(Some(b.peer()), b.addresses().await)
        .await
        .unwrap();
    let mut theirs = b.inbound().await;
    ours.control.write_all(b"goodbye").await.unwrap();
    ours.control.flush().await.unwrap();
    let reader = tokio::spawn(async move {
        let mut read = Vec::new();
        // The end after it may be clean or a reset.
        let _ = theirs.control.read_to_end(&mut read).await;
        read
    });
    let began = Instant::now();
    a.handle.shutdown().await;
    assert!(began.elapsed() < SHUTDOWN_WAIT);
    assert!(a.handle.commands.is_closed());
    let read = timeout(PATIENCE, reader).await.unwrap().unwrap();
    assert_eq!(read, b"goodbye");
    assert!(
        a.handle
            .open_session(Some(b.peer()), Vec::new())
            .await
            .is_err()
    );
    a.handle.shutdown().await;
}

#[tokio::test]
async fn inbound_sessions_nobody_takes_are_refused_by_name() {
    let b = Node::start().await;
    let addresses = b.addresses().await;
    let (mut nodes, mut taken) = (Vec::new(), Vec::new());
    // Each opening has its own deadline; how many there are says whether the queue is bounded.
    let refused = loop {
        assert!(taken.len() < 200, "the queue is bounded");
        // Few from each: a connection has room for a few sessions only.
        if taken.len() % 4 == 0 {
            nodes.push(Node::start().await);
        }
        let handle = &nodes.last().unwrap().handle;
        match handle.open_session(Some(b.peer()), addresses.clone()).await {
            Ok(session) => taken.push(session),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(refused.tried[..], [(_, DialFailure::Denied)]),
        "{refused}"
    );
    assert!(taken.len() >= EVENTS_MAX / 2, "{}", taken.len());
}

#[tokio::test]
async fn a_port_in_use_is_an_error_of_start() {
    let a = Node::start().await;
    let (taken, _) = addresses::split_peer(&a.addresses().await[0]);
    let refused = start(config(Keypair::generate(), &taken.to_string())).await;
    assert!(matches!(refused, Err(NetworkError::AddressInUse { address }) if address == taken));
    a.handle.shutdown().await;
    let again = Node::start_with(Keypair::generate(), &taken.to_string()).await;
    assert_eq!(addresses::split_peer(&again.addresses().await[0]).0, taken);
}

#[tokio::test]
async fn each_concrete_address_is_reported_once_and_names_us() {
    let mut a = Node::start_with(Keypair::generate(), "/ip4/0.0.0.0/tcp/0").await;
    let listeners = a.addresses().await;
    assert!(addresses::is_loopback(listeners.last().unwrap()));
    let address = a
        .next(|event| match event {
            NetworkEvent::Listening { address } => Some(address),
            _ => None,
        })
        .await;
    assert!(listeners.contains(&address));
    assert_eq!(addresses::split_peer(&address).1, Some(a.peer()));
}

#[tokio::test]
async fn a_libp2p_node_without_our_protocol_is_not_shoal() {
    let a = Node::start().await;
    let foreign = foreign::start().await;
    let address = foreign.address.clone();
    let error = a
        .handle
        .open_session(None, vec![address.clone()])
        .await
        .unwrap_err();
    assert_eq!(error.tried, [(address, DialFailure::NotShoal)]);
    foreign.serving.abort();
}

#[tokio::test]
async fn a_node_with_more_addresses_than_a_message_holds_is_known_all_the_same() {
    let host = |number: u8| format!("/ip4/127.0.0.{number}/tcp/0").parse().unwrap();
    let many = NetworkConfig {
        listen: (2..=120).map(host).collect(),
        ..config(Keypair::generate(), "/ip4/127.0.0.1/tcp/0")
    };
    let (crowded, _crowded_events) = start(many).await.unwrap();
    let listeners = crowded.listeners().await;
    assert!(listeners.len() > 200, "TCP and QUIC: {}", listeners.len());
    let mut a = Node::start().await;
    a.handle.meet(crowded.local_peer(), listeners).await;
    // Only identify tells that it is one of ours, in one message of 4,096 bytes.
    let reached = a.next(|event| match event {
        NetworkEvent::Reached { peer, .. } => Some(peer),
        _ => None,
    });
    assert_eq!(reached.await, crowded.local_peer());
}
