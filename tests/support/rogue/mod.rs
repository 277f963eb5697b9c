//! A peer that speaks the protocol and misbehaves, in one of a list of ways: it dials a victim (`attack`), or waits to be
//! asked (`trap`). Built from the crate's network and wire rooms; what it cannot do through them is in `raw`.

mod attack;
mod raw;
mod trap;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use shoal::content::{Multiaddr, PeerId, ShareId};
use shoal::network::{self, Keypair, NetworkConfig, NetworkEvent, NetworkHandle};
use shoal::wire::{
    Control, DataHeader, DataKind, Hello, ShareMessage, ShareNumber, VERSION, encode_frame,
};
use tokio::sync::mpsc;

pub use attack::Attack;
pub use raw::{Flood, half_handshakes, introduce};
pub use trap::Trap;

const NUMBER: ShareNumber = ShareNumber(3);

/// A running one; stops when dropped.
pub struct Rogue {
    pub address: String,
    handle: NetworkHandle,
    events: Option<mpsc::Receiver<NetworkEvent>>,
    agent: String,
    runtime: tokio::runtime::Runtime,
}

/// An attack; goes on when dropped.
pub struct UnderWay {
    pub began: Instant,
    ended: Arc<OnceLock<Duration>>,
}

impl UnderWay {
    /// How long it took until it was ended, if it was.
    pub fn lasted(&self) -> Option<Duration> {
        self.ended.get().copied()
    }
}

impl Rogue {
    pub fn start(agent: &str) -> Self {
        let runtime = runtime();
        let listen: Multiaddr = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
        let config = NetworkConfig {
            identity: Keypair::generate(),
            listen: vec![listen],
            mdns: false,
            dht: false,
            agent: agent.into(),
        };
        let (handle, events) = runtime.block_on(network::start(config)).unwrap();
        let address = runtime.block_on(handle.listeners()).remove(0).to_string();
        Self {
            address,
            handle,
            events: Some(events),
            agent: agent.into(),
            runtime,
        }
    }

    fn hello(&self) -> Vec<u8> {
        let hello = Hello {
            version: VERSION,
            requests_max: 512,
            agent: self.agent.clone(),
        };
        let mut say = Vec::new();
        encode_frame(&Control::Hello(hello), &mut say);
        say
    }

    /// Dials the node at `victim` and goes on until that ends the session.
    pub fn attack(&self, victim: &str, share: ShareId, attack: Attack) -> UnderWay {
        let (began, ended) = (Instant::now(), Arc::<OnceLock<Duration>>::default());
        let (handle, hello, lasted) = (self.handle.clone(), self.hello(), ended.clone());
        let victim: Multiaddr = victim.parse().unwrap();
        self.runtime.spawn(async move {
            // Whatever breaks it off, the session is over.
            let _ = attack::misbehave(&handle, victim, share, attack, hello).await;
            lasted.get_or_init(|| began.elapsed());
        });
        UnderWay { began, ended }
    }

    /// From now on answers whoever asks for `share`.
    pub fn wait(&mut self, share: ShareId, trap: Trap) {
        let mut events = self.events.take().expect("a rogue waits once");
        let (local, hello) = (self.handle.local_peer(), self.hello());
        self.runtime.spawn(async move {
            while let Some(event) = events.recv().await {
                if let NetworkEvent::InboundSession(streams) = event {
                    // A session that breaks off has done its work.
                    tokio::spawn(trap.clone().answer(streams, local, share, hello.clone()));
                }
            }
        });
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn share_frame(message: ShareMessage, say: &mut Vec<u8>) {
    let number = NUMBER;
    encode_frame(&Control::Share { number, message }, say);
}

fn open_frame(share: ShareId, local: PeerId, victim: PeerId, say: &mut Vec<u8>) {
    let token = *share.open_token(&local, &victim).as_bytes();
    let number = NUMBER;
    encode_frame(&Control::Open { number, token }, say);
}

fn slice(piece: u32, offset: u32, len: u32) -> Vec<u8> {
    let kind = DataKind::Piece { piece, offset };
    let share = NUMBER;
    let mut bytes = DataHeader { share, kind, len }.encode().to_vec();
    bytes.resize(bytes.len() + len as usize, 0xa5);
    bytes
}
