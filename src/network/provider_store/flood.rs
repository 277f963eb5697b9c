//! A thousand identities that pour spam into one store: new keys, the keys of honest providers, long lists of addresses.
//! What has to hold is counted with the allocator of the test: bytes, our own announcements, honest providers kept.
//! `SHOAL_SPAM_RECORDS` raises the number of records; a million of them are the promise.

use allocation_counter::measure;
use rand::RngExt;

use super::*;

const IDENTITIES: usize = 1_000;

/// Bytes the store may take, whatever is poured into it.
const BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Providers that announced before the flood, and as many that come in its middle.
const HONEST: u64 = 100;

/// Of each hundred honest records so many have to be left in one store; a lookup asks twenty.
const KEPT_MIN: usize = 90;

/// Spam records in the suite.
const RECORDS: usize = 48_000;

/// What one run left.
#[derive(Debug)]
struct Left {
    bytes_at_peak: u64,
    own_failed: usize,
    early_kept: usize,
    late_kept: usize,
}

/// How the spammers choose their keys.
#[derive(Debug, Clone, Copy)]
enum Aim {
    /// Each record has a new key.
    ManyKeys,
    /// All are at the keys of honest providers.
    HonestKeys,
    /// Both in turn.
    Both,
}

fn records() -> usize {
    std::env::var("SHOAL_SPAM_RECORDS").map_or(RECORDS, |text| text.parse().unwrap())
}

fn key(number: u64) -> RecordKey {
    let mut bytes = [0; KEY_LEN];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    RecordKey::new(&bytes)
}

/// As many as a message holds, of the longest kind that is kept; each record has others.
fn long_list(number: usize) -> Vec<libp2p::Multiaddr> {
    (1..=200)
        .map(|port| format!("/ip6/fd00::{:x}/udp/{port}/quic-v1", number % 0xffff))
        .map(|text| text.parse().unwrap())
        .collect()
}

fn honest(number: u64, peer: PeerId) -> ProviderRecord {
    let address = format!("/ip4/10.0.0.{}/tcp/4001", number + 1);
    ProviderRecord::new(key(number), peer, vec![address.parse().unwrap()])
}

fn flood(aim: Aim) -> Left {
    let count = records();
    let spammers: Vec<PeerId> = (0..IDENTITIES).map(|_| PeerId::random()).collect();
    let providers: Vec<PeerId> = (0..2 * HONEST).map(|_| PeerId::random()).collect();
    let lists: Vec<_> = (0..16).map(long_list).collect();
    let mut rng = StdRng::seed_from_u64(1_000);
    let now = Instant::now();
    let mut kept = None;
    let taken = measure(|| {
        let mut store = ProviderStore::new(PeerId::random(), 7);
        let mut own_failed = 0;
        for number in 0..HONEST {
            let peer = providers[number as usize];
            store.admit(honest(number, peer), None, now).unwrap();
        }
        for turn in 0..count {
            if turn == count / 2 {
                for number in HONEST..2 * HONEST {
                    let peer = providers[number as usize];
                    // Refused or not: what counts is whether it is there in the end.
                    let _ = store.admit(honest(number, peer), None, now);
                }
            }
            let is_new = match aim {
                Aim::ManyKeys => true,
                Aim::HonestKeys => false,
                Aim::Both => turn % 2 == 0,
            };
            let number = match is_new {
                true => rng.random_range(1_000_000..u64::MAX),
                false => rng.random_range(0..2 * HONEST),
            };
            let source = spammers[rng.random_range(0..IDENTITIES)];
            let list = lists[turn % lists.len()].clone();
            // All from this machine: neither quota of a network helps.
            let _ = store.admit(ProviderRecord::new(key(number), source, list), None, now);
            if turn % 1_000 == 0 {
                let own = ProviderRecord::new(key(turn as u64), store.local_peer, Vec::new());
                own_failed += usize::from(store.add_provider(own).is_err());
            }
        }
        kept = Some((store, own_failed));
    });
    let (store, own_failed) = kept.unwrap();
    let is_kept = |number: &u64| {
        let peer = providers[*number as usize];
        let known = store.foreign.get(key(*number).as_ref() as &[u8]);
        known.is_some_and(|known| known.list.iter().any(|provider| provider.peer == peer))
    };
    Left {
        bytes_at_peak: taken.bytes_max,
        own_failed,
        early_kept: (0..HONEST).filter(is_kept).count(),
        late_kept: (HONEST..2 * HONEST).filter(is_kept).count(),
    }
}

#[test]
fn a_thousand_spammers_neither_swell_the_store_nor_drive_out_who_is_honest() {
    for aim in [Aim::ManyKeys, Aim::HonestKeys, Aim::Both] {
        let left = flood(aim);
        eprintln!("{} records, {aim:?}: {left:?}", records());
        assert_eq!(left.own_failed, 0, "{aim:?}");
        assert!(left.bytes_at_peak <= BYTES_MAX, "{aim:?}: {left:?}");
        assert!(
            left.early_kept * 100 >= KEPT_MIN * HONEST as usize,
            "{aim:?}: {left:?}"
        );
        assert!(
            left.late_kept * 100 >= KEPT_MIN * HONEST as usize,
            "{aim:?}: {left:?}"
        );
    }
}
