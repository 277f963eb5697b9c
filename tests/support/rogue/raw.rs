//! What our own network does not do: an agent as long as one likes, handshakes that end half-way, streams that are filled
//! and never read.

use std::future::poll_fn;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::{AsyncWriteExt, StreamExt, stream};
use libp2p::core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox};
use libp2p::core::transport::{DialOpts, PortUse};
use libp2p::core::{Endpoint, upgrade};
use libp2p::{Multiaddr, SwarmBuilder, Transport, identify, identity, noise, tcp, yamux};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::support::{PATIENCE, pause};

/// Nothing is taken any more when hardly anything was for this long.
const STANDSTILL: Duration = Duration::from_millis(700);

/// Connections that begin a handshake and never end it, each a little further than the one before.
pub fn half_handshakes(victim: &str, count: usize) -> Vec<TcpStream> {
    let openings: [&[u8]; 4] = [
        b"",
        b"\x13/multistream/1.0.0\n",
        b"\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n",
        // A record of TLS that announces 16 KiB.
        b"\x13/multistream/1.0.0\n\x0b/tls/1.0.0\n\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03",
    ];
    let port: u16 = victim.split('/').nth(4).unwrap().parse().unwrap();
    (0..count)
        .map(|number| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            // Refused already: that is an answer too.
            let _ = stream.write_all(openings[number % openings.len()]);
            stream
        })
        .collect()
}

/// Connections of as many identities, whose streams are filled with what nobody reads: questions whose answers nobody
/// takes, and halves of sessions.
pub struct Flood {
    /// Bytes that were taken from the streams, by yamux and what is beneath.
    pub sent: Arc<AtomicUsize>,
    /// Connections that still are.
    pub alive: Arc<AtomicUsize>,
    /// Bytes in each frame, once they are to be sent.
    begin: watch::Sender<usize>,
    _runtime: tokio::runtime::Runtime,
}

impl Flood {
    /// Begins when `enough` of the connections are there, since a node that is busy refuses most of the others.
    /// `frame_len` bytes are in each frame: yamux keeps frames apart until they are read.
    pub fn start(victim: &str, connections: usize, enough: usize, frame_len: usize) -> Self {
        let flood = Self::hold(victim, connections, enough);
        flood.begin.send_replace(frame_len);
        flood
    }

    /// Streams that are opened and stay empty.
    pub fn hold(victim: &str, connections: usize, enough: usize) -> Self {
        let runtime = super::runtime();
        let (sent, alive) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let victim: Multiaddr = victim.parse().unwrap();
        let (begin, begun) = watch::channel(0);
        for _ in 0..connections {
            let (sent, alive, victim) = (sent.clone(), alive.clone(), victim.clone());
            let begun = begun.clone();
            runtime.spawn(async move {
                let muxer = loop {
                    // Too many at once are refused for the moment.
                    match connect(victim.clone()).await {
                        Ok(muxer) => break muxer,
                        Err(_) => sleep(Duration::from_millis(100)).await,
                    }
                };
                let mut is_taken = false;
                let on_taken = || {
                    if !std::mem::replace(&mut is_taken, true) {
                        alive.fetch_add(1, Ordering::Relaxed);
                    }
                };
                // It ends when the victim ends it.
                let _ = fill(muxer, &begun, &sent, on_taken).await;
                alive.fetch_sub(usize::from(is_taken), Ordering::Relaxed);
            });
        }
        let until = Instant::now() + PATIENCE;
        while alive.load(Ordering::Relaxed) < enough {
            assert!(Instant::now() < until, "hardly a flood");
            pause();
        }
        Self {
            sent,
            alive,
            begin,
            _runtime: runtime,
        }
    }

    /// Until nothing more is taken for a while.
    pub fn await_standstill(&self) {
        let until = Instant::now() + PATIENCE;
        let (mut before, mut since) = (0, Instant::now());
        while Instant::now() < until && since.elapsed() < STANDSTILL {
            let sent = self.sent.load(Ordering::Relaxed);
            if sent > before + before / 100 {
                (before, since) = (sent, Instant::now());
            }
            pause();
        }
    }
}

/// A node that tells by identify whatever it likes as its agent; stops when dropped.
pub struct Introduced {
    _runtime: tokio::runtime::Runtime,
}

/// Dials the victim, which asks for the agent by itself.
pub fn introduce(victim: &str, agent: &str) -> Introduced {
    let runtime = super::runtime();
    let victim: Multiaddr = victim.parse().unwrap();
    let identity = identity::Keypair::generate_ed25519();
    let config = identify::Config::new("/shoal/1".into(), identity.public());
    let behaviour = identify::Behaviour::new(config.with_agent_version(agent.into()));
    runtime.spawn(async move {
        let mut swarm = SwarmBuilder::with_existing_identity(identity)
            .with_tokio()
            .with_tcp(
                tcp::Config::default(),
                noise::Config::new,
                yamux::Config::default,
            )
            .unwrap()
            .with_behaviour(|_| behaviour)
            .unwrap()
            .build();
        swarm.dial(victim).unwrap();
        loop {
            swarm.select_next_some().await;
        }
    });
    Introduced { _runtime: runtime }
}

async fn connect(victim: Multiaddr) -> io::Result<StreamMuxerBox> {
    let identity = identity::Keypair::generate_ed25519();
    let noise = noise::Config::new(&identity).unwrap();
    let mut transport = tcp::tokio::Transport::default()
        .upgrade(upgrade::Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .boxed();
    let options = DialOpts {
        role: Endpoint::Dialer,
        port_use: PortUse::New,
    };
    let (_, muxer) = transport.dial(victim, options).unwrap().await?;
    Ok(muxer)
}

/// Streams of each connection that are questions, and those that are halves of sessions.
const QUESTIONS: usize = 18;
const HALVES: usize = 4;

/// Opens the streams and fills them, others in place of those that end, for as long as the connection lives.
async fn fill(
    mut muxer: StreamMuxerBox,
    begun: &watch::Receiver<usize>,
    sent: &AtomicUsize,
    mut on_taken: impl FnMut(),
) -> io::Result<()> {
    let (mut opened, mut filling) = (0, stream::FuturesUnordered::new());
    poll_fn(|cx| {
        loop {
            if filling.len() < QUESTIONS + HALVES
                && let Poll::Ready(stream) = muxer.poll_outbound_unpin(cx)?
            {
                let bytes = match opened % (QUESTIONS + HALVES) {
                    ..QUESTIONS => questions(),
                    _ => half_of_session(opened),
                };
                opened += 1;
                filling.push(pour(stream, bytes, begun.clone(), sent));
                continue;
            }
            // Streams of the victim, which show that it has the connection, are taken and forgotten.
            if let Poll::Ready(stream) = muxer.poll_inbound_unpin(cx)? {
                drop(stream);
                on_taken();
                continue;
            }
            if let Poll::Ready(Some(_)) = filling.poll_next_unpin(cx) {
                continue;
            }
            return match Pin::new(&mut muxer).poll_unpin(cx)? {
                Poll::Ready(_) => continue,
                Poll::Pending => Poll::Pending,
            };
        }
    })
    .await
}

/// What a stream says first, and then without end.
type Words = (Vec<u8>, Vec<u8>);

/// FIND_NODE with a key of 32 bytes, and before it the length.
fn questions() -> Words {
    let mut question = vec![36, 0x08, 4, 0x12, 32];
    question.extend([7; 32]);
    let opening = b"\x13/multistream/1.0.0\n\x0d/shoal/kad/1\n";
    (opening.to_vec(), question.repeat(2_048))
}

/// The data stream of a session whose control stream never comes.
fn half_of_session(token: usize) -> Words {
    let mut opening = b"\x13/multistream/1.0.0\n\x0e/shoal/data/1\n".to_vec();
    opening.extend((token as u64).to_be_bytes());
    (opening, vec![7; 64 * 1024])
}

async fn pour(
    mut stream: SubstreamBox,
    (opening, bytes): Words,
    mut begun: watch::Receiver<usize>,
    sent: &AtomicUsize,
) -> io::Result<()> {
    stream.write_all(&opening).await?;
    stream.flush().await?;
    let Ok(frame_len) = begun
        .wait_for(|frame_len| *frame_len > 0)
        .await
        .map(|len| *len)
    else {
        return Ok(()); // The flood is over.
    };
    loop {
        for part in bytes.chunks(frame_len) {
            stream.write_all(part).await?;
            stream.flush().await?;
            sent.fetch_add(part.len(), Ordering::Relaxed);
        }
    }
}
