//! What strangers announce in the distributed hash table, and whom we name when asked: the filter in between.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use libp2p::kad::store::RecordStore;
use libp2p::kad::{ProviderRecord, RecordKey};
use libp2p::{Multiaddr, PeerId};
use shoal::content::Digest;
use shoal::network::ProviderStore;

use super::memory::frugal_beside;

/// What the protocol document promises of an answer.
const ANSWER_LEN_MAX: usize = 20;
const ADDRESSES_MAX: usize = 8;

/// Somebody of each number, which is the last byte of the identity; the first is ourselves.
static PEERS: LazyLock<Vec<PeerId>> = LazyLock::new(|| {
    let peer = |number| {
        let digest = Digest::of(&[number]);
        let hash = &digest.as_bytes()[..31];
        PeerId::from_bytes(&[&[0x12, 32], hash, &[number]].concat()).expect("a hash")
    };
    (0..=u8::MAX).map(peer).collect()
});

/// Who it is of [`PEERS`]. Numbers, because libFuzzer takes note of every identity that is compared, which would be half of
/// what this target costs.
fn number_of(peer: &PeerId) -> u8 {
    let hash = peer.as_ref().digest();
    *hash.last().expect("32 bytes")
}

/// A key of ours, or of the length `len`.
fn key(number: u8, len: usize) -> RecordKey {
    RecordKey::new(&vec![number; len])
}

/// Announcements in one input, so that none takes long.
const STEPS_MAX: usize = 200;

/// Bytes that a store may hold beside what the input says: [`STEPS_MAX`] records of a peer and eight addresses, each of those
/// a shared block of about 100 bytes, so 1 KiB each; an answer of twenty; and what this test keeps.
const STORE_BYTES: usize = 256 << 10;

/// Announcements one after the other: who, which of four keys, from where, with which addresses, and how much later.
pub(super) fn provider(data: &[u8]) {
    LazyLock::force(&PEERS);
    frugal_beside(|()| STORE_BYTES, data.len(), || play(data));
}

fn play(data: &[u8]) {
    let (own, others) = PEERS.split_first().expect("256 of them");
    let mut store = ProviderStore::new(*own, 7);
    let mut now = Instant::now();
    store
        .add_provider(ProviderRecord::new(key(0, 32), *own, Vec::new()))
        .expect("our own");
    let mut announced = Announced::default();
    let mut rest = data;
    for _ in 0..STEPS_MAX {
        let Some((&[what, who, from, later], after)) = rest.split_first_chunk::<4>() else {
            break;
        };
        let len = usize::from(what >> 4).min(after.len());
        let (bytes, after) = after.split_at(len);
        rest = after;
        now += Duration::from_secs(u64::from(later));
        let peer = others[usize::from(who) % others.len()];
        let number = what % 4;
        let key = match what % 8 {
            7 => key(what, usize::from(who)),
            _ => key(number, 32),
        };
        let addresses = match Multiaddr::try_from(bytes.to_vec()) {
            Ok(address) => vec![address; 1 + usize::from(what % 16)],
            Err(_) => Vec::new(),
        };
        let from = (from > 0).then(|| IpAddr::from(Ipv4Addr::new(from, from / 2, 1, from)));
        let mut was_admitted = false;
        match what % 8 {
            6 => store.sweep(now),
            5 => store.remove_provider(&key, &peer),
            _ => {
                let record = ProviderRecord::new(key.clone(), peer, addresses);
                let is_admitted = store.admit(record, from, now).is_ok();
                assert!(
                    !is_admitted || key.to_vec().len() == 32,
                    "a key of another length"
                );
                was_admitted = is_admitted;
                if is_admitted && what % 8 < 7 {
                    announced[usize::from(number)].insert(number_of(&peer));
                }
            }
        }
        // Of a key of another length nobody is admitted.
        if what % 8 < 7 {
            let others = check(&store, own, &announced, number);
            assert!(
                !was_admitted || others > 0,
                "who was admitted last is known"
            );
        }
    }
    for number in 0..4 {
        check(&store, own, &announced, number);
    }
}

/// Who was admitted at each key.
type Announced = [BTreeSet<u8>; 4];

/// What is known of the key of this number; gives how many others are named for it.
fn check(store: &ProviderStore, own: &PeerId, announced: &Announced, number: u8) -> usize {
    let ours = store.provided().count();
    assert_eq!(ours, 1, "our own announcement is never lost");
    let key = key(number, 32);
    let answer = store.providers(&key);
    let is_ours = answer.first().is_some_and(|record| record.provider == *own);
    assert_eq!(is_ours, number == 0, "we are named first, for our own key");
    let most = ANSWER_LEN_MAX + usize::from(is_ours);
    assert!(answer.len() <= most, "{}", answer.len());
    let mut named = BTreeSet::new();
    let announced = &announced[usize::from(number)];
    for record in answer.iter().skip(usize::from(is_ours)) {
        let other = number_of(&record.provider);
        assert!(named.insert(other), "nobody is named twice");
        assert!(announced.contains(&other), "who never said so");
        assert_eq!(record.key, key);
        assert!(record.addresses.len() <= ADDRESSES_MAX);
    }
    answer.len() - usize::from(is_ours)
}
