//! Two hubs over real networks on loopback: which of two sessions stays, who is left alone, and what a session does not
//! take from its peer.

use tokio::io::AsyncWriteExt;
use tokio_util::task::TaskTracker;

use super::*;
use crate::content::{Digest, ShareId};
use crate::network::tests::foreign;
use crate::network::{Keypair, NetworkConfig};
use crate::node::actor::set_ready;
use crate::node::buffers::{BYTES_MAX, Buffers};
use crate::node::limiter::Limiter;
use crate::node::share::Shares;
use crate::storage::MemoryStore;
use crate::wire::{Control, DataHeader, DataKind, Hello, ShareNumber, VERSION, encode_frame};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct Scene {
    hub: Arc<Hub>,
    events: mpsc::Receiver<NetworkEvent>,
    _home: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let config = NetworkConfig {
            identity: Keypair::generate(),
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")],
            mdns: false,
            dht: false,
            agent: "shoal/test".to_owned(),
        };
        let (network, events) = crate::network::start(config).await.expect("a network");
        let shop = Arc::new(Shop {
            local_peer: network.local_peer(),
            shares: Shares::default(),
            buffers: Buffers::new(),
            up: Limiter::new(None),
            down: Limiter::new(None),
            tasks: TaskTracker::new(),
            agent: "shoal/test".to_owned(),
        });
        let home = tempfile::tempdir().expect("a folder");
        let (memory, _) = Memory::new(home.path().to_owned());
        let (told, _) = broadcast::channel(16);
        let hub = Hub::new(network, shop, told, memory, Lease::ephemeral());
        Self {
            hub: Arc::new(hub),
            events,
            _home: home,
        }
    }

    fn peer(&self) -> PeerId {
        self.hub.shop.local_peer
    }

    async fn open(&self, other: &Self) -> SessionStreams {
        let addresses = other.hub.network.listeners().await;
        let opened = self.hub.network.open_session(Some(other.peer()), addresses);
        opened.await.expect("a session")
    }

    async fn inbound(&mut self) -> SessionStreams {
        let inbound = async {
            loop {
                if let Some(NetworkEvent::InboundSession(streams)) = self.events.recv().await {
                    return streams;
                }
            }
        };
        let inbound = tokio::time::timeout(PATIENCE, inbound).await;
        inbound.expect("a session comes in time")
    }
}

#[tokio::test]
async fn of_two_sessions_on_one_connection_both_sides_keep_the_same() {
    // Who dials is the larger peer id as often as the smaller, and each side may hear of the two in either order.
    for case in 0..8 {
        let (mut a, mut b) = (Scene::new().await, Scene::new().await);
        if (case & 1 == 0) == (a.peer() < b.peer()) {
            std::mem::swap(&mut a, &mut b);
        }
        let from_a = a.open(&b).await;
        let at_b = b.inbound().await;
        let from_b = b.open(&a).await;
        let at_a = a.inbound().await;
        assert_eq!(from_a.connection, at_a.connection, "one connection");
        assert_eq!(from_b.connection, at_b.connection, "one connection");
        let adopt = |scene: &Scene, first: SessionStreams, second: SessionStreams, swapped| {
            let (first, second) = if swapped {
                (second, first)
            } else {
                (first, second)
            };
            [scene.hub.adopt(first), scene.hub.adopt(second)]
        };
        adopt(&a, from_a, at_a, case & 2 != 0);
        adopt(&b, from_b, at_b, case & 4 != 0);
        let kept_a = a.hub.live(&b.peer()).expect("one stays");
        let kept_b = b.hub.live(&a.peer()).expect("one stays");
        assert_eq!(kept_a.standing(), kept_b.standing(), "case {case}");
        // The end of the other one, which each side hears from its peer as well, is not the end of this one.
        a.hub.shop.tasks.close();
        kept_a.leave().await;
        let ended = tokio::time::timeout(PATIENCE, kept_b.ended()).await;
        assert!(
            ended.is_ok(),
            "case {case}: they do not speak with each other"
        );
    }
}

#[tokio::test]
async fn of_two_sessions_begun_by_one_side_both_keep_the_same() {
    // As when a node is named and is in the link as well. Each side may hear of the two in either order.
    for case in 0..4 {
        let (a, mut b) = (Scene::new().await, Scene::new().await);
        let (first, second) = (a.open(&b).await, a.open(&b).await);
        let (at_b, then_at_b) = (b.inbound().await, b.inbound().await);
        let adopt = |scene: &Scene, mut both: [SessionStreams; 2], swapped: bool| {
            if swapped {
                both.reverse();
            }
            both.map(|streams| scene.hub.adopt(streams))
        };
        let _ours = adopt(&a, [first, second], case & 1 != 0);
        let theirs = adopt(&b, [at_b, then_at_b], case & 2 != 0);
        let one_is_left = async {
            while theirs.iter().all(Session::is_alive) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let settled = tokio::time::timeout(PATIENCE, one_is_left).await;
        assert!(settled.is_ok(), "case {case}: both stay");
        let kept = a.hub.live(&b.peer()).expect("one stays");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(kept.is_alive(), "case {case}: the other side ended it");
        let alive: Vec<_> = theirs.iter().filter(|session| session.is_alive()).collect();
        assert_eq!(alive.len(), 1, "case {case}");
        kept.leave().await;
        let ended = tokio::time::timeout(PATIENCE, alive[0].ended()).await;
        assert!(
            ended.is_ok(),
            "case {case}: they do not speak with each other"
        );
    }
}

#[tokio::test]
async fn a_node_found_by_multicast_that_is_not_ours_is_dialled_once() {
    let scene = Scene::new().await;
    let hub = Arc::clone(&scene.hub);
    let (told, events) = mpsc::channel(16);
    let routing = tokio::spawn(Arc::clone(&hub).route(events));
    let (inputs, mut heard) = mpsc::channel(16);
    let id = ShareId::from_digest(Digest::of(b"some share"));
    let share = hub.shop.shares.add(id, inputs).expect("a share");
    let foreign = foreign::start().await;
    let announce = async || {
        let event = NetworkEvent::Discovered {
            peer: foreign.peer,
            addresses: vec![foreign.address.clone()],
            source: crate::network::DiscoverySource::Mdns,
        };
        told.send(event).await.expect("it routes");
    };

    announce().await;
    let offered = tokio::time::timeout(PATIENCE, heard.recv()).await;
    let Ok(Some(ShareInput::Candidates { peers, source })) = offered else {
        panic!("what multicast finds is a candidate");
    };
    assert_eq!(source, Source::Lan);
    assert_eq!(peers, [(foreign.peer, vec![foreign.address.clone()])]);
    let dialled = hub.session_with(foreign.peer, vec![foreign.address.clone()]);
    let error = dialled.await.err().expect("it is not ours");
    assert_eq!(
        error.tried,
        [(foreign.address.clone(), DialFailure::NotShoal)]
    );

    // It announces itself every few minutes, and other shares are opened: nobody is told again.
    announce().await;
    hub.introduce(&share);
    // Through the same queue, so all before it has been routed.
    told.send(NetworkEvent::LookupDone { key: [0; 32] })
        .await
        .expect("it routes");
    drop(told);
    routing.await.expect("it ended");
    tokio::time::sleep(LARGER_WAITS * 2).await;
    assert!(heard.try_recv().is_err(), "it was offered again");
    foreign.serving.abort();
}

/// A scene with a share of one piece, and a stranger that has opened it as number 3.
struct Strange {
    scene: Scene,
    heard: mpsc::Receiver<ShareInput>,
    streams: SessionStreams,
    /// What it said to open the share.
    opened: Vec<u8>,
    _stranger: Scene,
}

async fn with_stranger() -> Strange {
    let (mut scene, stranger) = (Scene::new().await, Scene::new().await);
    let (manifest, hashes, _) = MemoryStore::share_of("share", &[("a", b"one piece")]);
    let store = Arc::new(MemoryStore::empty(manifest.geometry()));
    let (inputs, heard) = mpsc::channel(16);
    let (id, shares) = (manifest.id(), &scene.hub.shop.shares);
    let share = shares.add(id, inputs).expect("a share");
    set_ready(&share.ready, manifest, hashes, store);

    let mut streams = stranger.open(&scene).await;
    let taken = scene.inbound().await;
    scene.hub.adopt(taken);
    let mut said = Vec::new();
    let hello = Hello {
        version: VERSION,
        requests_max: 1,
        agent: "stranger/1".to_owned(),
    };
    encode_frame(&Control::Hello(hello), &mut said);
    let mut opened = Vec::new();
    let open = Control::Open {
        number: ShareNumber(3),
        token: *id.open_token(&stranger.peer(), &scene.peer()).as_bytes(),
    };
    encode_frame(&open, &mut opened);
    said.extend(&opened);
    streams.control.write_all(&said).await.expect("it listens");
    streams.control.flush().await.expect("it listens");
    let mut strange = Strange {
        scene,
        heard,
        streams,
        opened,
        _stranger: stranger,
    };
    assert!(matches!(strange.next().await, ShareInput::Linked(_)));
    strange
}

impl Strange {
    async fn next(&mut self) -> ShareInput {
        let next = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
        next.expect("it comes in time").expect("a share")
    }
}

#[tokio::test]
async fn a_piece_that_nobody_asked_for_gets_no_memory() {
    let mut strange = with_stranger().await;
    // The first byte of a piece that never goes on, then something that is heard.
    let piece = DataKind::Piece {
        piece: 0,
        offset: 0,
    };
    let info = DataKind::Info {
        total: 1,
        offset: 0,
    };
    let data = &mut strange.streams.data;
    for kind in [piece, info] {
        let (share, len) = (ShareNumber(3), 1);
        let header = DataHeader { share, kind, len }.encode();
        data.write_all(&header).await.expect("it listens");
        data.write_all(b"o").await.expect("it listens");
    }
    data.flush().await.expect("it listens");
    assert!(matches!(strange.next().await, ShareInput::Info { .. }));
    let all = strange.scene.hub.shop.buffers.take(BYTES_MAX);
    let all = tokio::time::timeout(PATIENCE / 20, all).await;
    assert!(all.is_ok(), "a stranger holds memory");
}

#[tokio::test]
async fn a_share_that_is_open_is_not_opened_again() {
    let mut strange = with_stranger().await;
    let control = &mut strange.streams.control;
    control
        .write_all(&strange.opened)
        .await
        .expect("it listens");
    control.flush().await.expect("it listens");
    let ended = strange.next().await;
    let violation = DownCause::Violation;
    assert!(matches!(ended, ShareInput::Unlinked { cause, .. } if cause == violation));
}
