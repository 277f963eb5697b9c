//! Fifty nodes while many identities announce spam to them: new keys, the keys of honest providers, long lists of
//! addresses. Lookups go on meanwhile; `SHOAL_SPAM_IDENTITIES` and `SHOAL_SPAM_KEYS` raise the flood.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use futures::future::join_all;
use libp2p::Swarm;
use libp2p::kad::{self, QueryResult, store};
use libp2p::swarm::SwarmEvent;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use super::*;

const NODES: usize = 50;
/// Of them so many look up, and do nothing else.
const ASKERS: usize = 4;

/// Identities that spam at the same time, and announcements of each under way at once.
const AT_ONCE: usize = if cfg!(debug_assertions) { 4 } else { 12 };
const WAVE: usize = if cfg!(debug_assertions) { 4 } else { 8 };

/// A query of Kademlia ends after 30 s by itself.
const LOOKUP_MAX: Duration = Duration::from_secs(40);

/// Of each hundred lookups so many have to find the provider.
const FOUND_MIN: usize = 99;

/// In the suite; a million records are 1,000 identities with 50 keys, each at 20 nodes.
const IDENTITIES: usize = 36;
const KEYS: usize = 16;

/// Whoever announces is found within this, on however busy a machine; it takes a few seconds.
const SETTLED: Duration = Duration::from_secs(240);

/// A spammer gives up after this.
const SPAM_MAX: Duration = Duration::from_secs(60);

fn from_environment(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// More addresses than anybody keeps. At the first nobody ever answers, which holds up whoever dials it for longest; the
/// others refuse.
fn false_addresses(silent: &TcpListener) -> Vec<Multiaddr> {
    let silent = silent.local_addr().unwrap().port();
    let ports = std::iter::once(silent).chain(1..150);
    ports
        .map(|port| format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap())
        .collect()
}

/// Announces `keys`, and that it is at `addresses`; gives how many announcements were sent.
async fn spam(
    known: Arc<Vec<(PeerId, Multiaddr)>>,
    addresses: Vec<Multiaddr>,
    keys: Vec<[u8; 32]>,
) -> usize {
    let identity = Keypair::generate();
    let local = identity.peer_id();
    let room = store::MemoryStoreConfig {
        max_provided_keys: keys.len() + 1,
        ..store::MemoryStoreConfig::default()
    };
    let kept = store::MemoryStore::with_config(local, room);
    let config = kad::Config::new(behaviour::KAD_PROTOCOL);
    let mut kademlia = kad::Behaviour::with_config(local, kept, config);
    kademlia.set_mode(Some(kad::Mode::Client));
    for (peer, address) in known.iter() {
        kademlia.add_address(peer, address.clone());
    }
    let settings = libp2p::swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(Duration::from_secs(60));
    let transport = transport::build(&identity).unwrap();
    let mut swarm = Swarm::new(transport, kademlia, local, settings);
    for address in addresses {
        swarm.add_external_address(address);
    }
    let (mut sent, mut under_way, mut next) = (0, 0, keys.into_iter());
    let pour = async {
        loop {
            while under_way < WAVE
                && let Some(key) = next.next()
            {
                let key = kad::RecordKey::new(&key);
                swarm.behaviour_mut().start_providing(key).unwrap();
                under_way += 1;
            }
            if under_way == 0 {
                return;
            }
            if let SwarmEvent::Behaviour(kad::Event::OutboundQueryProgressed {
                result: QueryResult::StartProviding(outcome),
                ..
            }) = swarm.select_next_some().await
            {
                under_way -= 1;
                sent += usize::from(outcome.is_ok());
            }
        }
    };
    // A spammer that hangs is no reason to wait: what it sent counts.
    let _ = timeout(SPAM_MAX, pour).await;
    sent
}

/// Fifty nodes that all know each other have 2,500 sockets.
#[cfg(unix)]
fn raise_limit_of_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[cfg(not(unix))]
fn raise_limit_of_files() {}

/// Whether a lookup of `key` by `asker` names `provider`.
async fn finds(asker: &mut Node, key: [u8; 32], provider: PeerId) -> bool {
    asker.handle.lookup(key).await;
    let mut found = false;
    let ended = timeout(LOOKUP_MAX, async {
        loop {
            match asker.events.recv().await.expect("the driver runs") {
                NetworkEvent::Providers { key: of, peers } if of == key => {
                    found |= peers.iter().any(|(peer, _)| *peer == provider);
                }
                NetworkEvent::LookupDone { key: of } if of == key => return,
                _ => {}
            }
        }
    });
    ended.await.expect("a lookup ends");
    found
}

/// Whom a lookup of which key has to name.
type Honest = (NetworkHandle, [u8; 32]);

/// One lookup by each asker at the same time; those that found, in the order of the askers.
async fn look_up(askers: &mut [Node], wanted: &[&Honest]) -> Vec<bool> {
    let lookups = askers
        .iter_mut()
        .zip(wanted)
        .map(|(asker, (provider, key))| finds(asker, *key, provider.local_peer()));
    join_all(lookups).await
}

/// Looks for each until it was found, or the time is up.
async fn await_all(askers: &mut [Node], honest: &[Honest]) {
    let began = Instant::now();
    let mut missing: Vec<&Honest> = honest.iter().collect();
    while !missing.is_empty() {
        assert!(began.elapsed() < SETTLED, "{} never found", missing.len());
        let turn = missing.split_off(missing.len().saturating_sub(ASKERS));
        let found = look_up(askers, &turn).await;
        // Those that were not found are looked for again, by another asker.
        let lost = turn.into_iter().zip(found).filter(|(_, found)| !found);
        missing = lost.map(|(wanted, _)| wanted).chain(missing).collect();
        askers.rotate_left(1);
    }
    eprintln!("{} were found after {:?}", honest.len(), began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn among_fifty_nodes_honest_providers_are_found_while_spammers_announce() {
    let identities = from_environment("SHOAL_SPAM_IDENTITIES", IDENTITIES);
    let keys = from_environment("SHOAL_SPAM_KEYS", KEYS);
    raise_limit_of_files();
    let mut rng = StdRng::seed_from_u64(50);
    let mut members = Vec::new();
    let mut known: Vec<(PeerId, Multiaddr)> = Vec::new();
    for _ in 0..NODES {
        let node = Node::start().await;
        let address = node.addresses().await.remove(0);
        if !known.is_empty() {
            let (peer, address) = known[rng.random_range(0..known.len())].clone();
            node.handle.add_addresses(peer, vec![address]).await;
        }
        known.push((node.peer(), address));
        members.push(node);
    }
    let mut askers: Vec<Node> = members.drain(..ASKERS).collect();
    let mut honest = Vec::new();
    let mut reading = JoinSet::new();
    for Node { handle, mut events } in members {
        honest.push((handle, rng.random::<[u8; 32]>()));
        reading.spawn(async move { while events.recv().await.is_some() {} });
    }
    // Half of them announce before the flood, the others in its middle.
    let half = honest.len() / 2;
    for (handle, key) in &honest[..half] {
        handle.announce(*key).await;
    }
    await_all(&mut askers, &honest[..half]).await;

    let known = Arc::new(known);
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let mut spammers = JoinSet::new();
    let (mut looked_up, mut found, mut announced) = (0, 0, half);
    let mut waiting = identities;
    while waiting > 0 || !spammers.is_empty() {
        while spammers.len() < AT_ONCE && waiting > 0 {
            waiting -= 1;
            // Every second key is an honest one's.
            let aimed = (0..keys).map(|number| match number % 2 {
                0 => rng.random(),
                _ => honest[rng.random_range(0..honest.len())].1,
            });
            let (aimed, known, sent) = (aimed.collect(), known.clone(), sent.clone());
            let addresses = false_addresses(&silent);
            spammers.spawn(async move {
                sent.fetch_add(spam(known, addresses, aimed).await, Ordering::Relaxed);
            });
        }
        if waiting <= identities / 2 && announced == half {
            for (handle, key) in &honest[half..] {
                handle.announce(*key).await;
            }
            announced = honest.len();
            await_all(&mut askers, &honest[half..]).await;
        }
        let wanted: Vec<&Honest> = (0..ASKERS)
            .map(|_| &honest[rng.random_range(0..announced)])
            .collect();
        let outcome = look_up(&mut askers, &wanted).await;
        found += outcome.iter().filter(|found| **found).count();
        looked_up += outcome.len();
        while spammers.try_join_next().is_some() {}
    }
    let sent = sent.load(Ordering::Relaxed);
    eprintln!(
        "{identities} identities, {sent} announcements, {found} of {looked_up} lookups found"
    );
    assert!(sent * 10 >= identities * keys * 9, "{sent}: hardly a flood");
    assert!(
        found * 100 >= looked_up * FOUND_MIN,
        "{found} of {looked_up}"
    );
    for (handle, _) in &honest {
        handle.shutdown().await;
    }
    reading.shutdown().await;
}
