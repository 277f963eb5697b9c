//! What the store keeps, of whom, and what it answers. The floods of a hostile crowd are in `flood`.
#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;

use super::*;

fn store() -> ProviderStore {
    ProviderStore::new(PeerId::random(), 7)
}

fn key(number: u64) -> RecordKey {
    let mut bytes = [0; KEY_LEN];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    RecordKey::new(&bytes)
}

fn record(number: u64, provider: PeerId) -> ProviderRecord {
    ProviderRecord::new(key(number), provider, Vec::new())
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

/// Recounts everything the slow way.
fn assert_consistent(store: &ProviderStore) {
    let mut per_source: HashMap<PeerId, u32> = HashMap::new();
    let mut per_prefix: HashMap<IpAddr, u32> = HashMap::new();
    assert_eq!(store.order.len(), store.foreign.len());
    for (position, key) in store.order.iter().enumerate() {
        let providers = &store.foreign[key];
        assert_eq!(providers.position, position);
        assert!(!providers.list.is_empty() && providers.list.len() <= PROVIDERS_PER_KEY_MAX);
        for provider in &providers.list {
            *per_source.entry(provider.peer).or_default() += 1;
            if let Some(prefix) = provider.prefix {
                *per_prefix.entry(prefix).or_default() += 1;
            }
        }
    }
    let records: usize = store.foreign.values().map(|known| known.list.len()).sum();
    assert_eq!(records, store.record_count);
    assert_eq!(per_source, store.per_source);
    assert_eq!(per_prefix, store.per_prefix);
}

#[test]
fn a_flood_of_foreign_keys_never_blocks_our_own() {
    let mut store = store();
    let now = Instant::now();
    for number in 0..(RECORDS_MAX as u64 + 500) {
        store
            .admit(record(number, PeerId::random()), None, now)
            .unwrap();
    }
    assert_eq!(store.record_count, RECORDS_MAX);
    assert_consistent(&store);
    let local = store.local_peer;
    for number in 100_000..102_000 {
        store.add_provider(record(number, local)).unwrap();
    }
    assert_eq!(store.provided().count(), 2_000);
    assert_eq!(store.providers(&key(101_999))[0].provider, local);
}

#[test]
fn we_are_in_the_answer_however_many_others_provide_the_key() {
    let mut store = store();
    let now = Instant::now();
    for _ in 0..PROVIDERS_PER_KEY_MAX {
        store.admit(record(1, PeerId::random()), None, now).unwrap();
    }
    store.add_provider(record(1, store.local_peer)).unwrap();
    let answer = store.providers(&key(1));
    assert_eq!(answer.len(), ANSWER_LEN + 1);
    assert_eq!(answer[0].provider, store.local_peer);
}

#[test]
fn answers_vary_until_every_provider_was_shown() {
    let mut store = store();
    let now = Instant::now();
    for _ in 0..PROVIDERS_PER_KEY_MAX {
        store.admit(record(1, PeerId::random()), None, now).unwrap();
    }
    let mut seen = BTreeSet::new();
    for _ in 0..50 {
        let answer = store.providers(&key(1));
        assert_eq!(answer.len(), ANSWER_LEN);
        seen.extend(answer.into_iter().map(|record| record.provider));
    }
    assert_eq!(seen.len(), PROVIDERS_PER_KEY_MAX);
}

#[test]
fn one_source_cannot_hold_more_than_its_keys_but_may_renew_them() {
    let mut store = store();
    let now = Instant::now();
    let source = PeerId::random();
    for number in 0..u64::from(KEYS_PER_SOURCE_MAX) {
        store.admit(record(number, source), None, now).unwrap();
    }
    assert_eq!(
        store.admit(record(999, source), None, now),
        Err(Rejected::SourceFull)
    );
    assert_eq!(store.admit(record(3, source), None, now), Ok(()));
    assert_consistent(&store);
}

#[test]
fn one_public_network_cannot_fill_the_store_and_a_lan_is_exempt() {
    let mut store = store();
    let now = Instant::now();
    for number in 0..u64::from(RECORDS_PER_PREFIX_MAX) {
        store
            .admit(record(number, PeerId::random()), ip("8.8.8.1"), now)
            .unwrap();
    }
    let more =
        |store: &mut ProviderStore, from| store.admit(record(9_999, PeerId::random()), from, now);
    assert_eq!(more(&mut store, ip("8.8.8.200")), Err(Rejected::PrefixFull));
    assert_eq!(more(&mut store, ip("8.8.9.1")), Ok(()));
    for number in 0..u64::from(RECORDS_PER_PREFIX_MAX) + 10 {
        store
            .admit(record(number, PeerId::random()), ip("192.168.0.7"), now)
            .unwrap();
    }
    assert_consistent(&store);
}

#[test]
fn a_flood_from_one_network_leaves_the_providers_of_others_at_a_key() {
    let mut store = store();
    let now = Instant::now();
    let honest: Vec<PeerId> = (0..10).map(|_| PeerId::random()).collect();
    for (number, peer) in honest.iter().enumerate() {
        store
            .admit(record(1, *peer), ip(&format!("9.9.{number}.1")), now)
            .unwrap();
    }
    for _ in 0..200 {
        store
            .admit(record(1, PeerId::random()), ip("8.8.8.8"), now)
            .unwrap();
    }
    let kept: BTreeSet<PeerId> = store.foreign[key(1).as_ref() as &[u8]]
        .list
        .iter()
        .map(|provider| provider.peer)
        .collect();
    assert_eq!(kept.len(), PROVIDERS_PER_KEY_MAX);
    assert!(honest.iter().all(|peer| kept.contains(peer)));
    assert_consistent(&store);
}

#[test]
fn an_expired_provider_is_not_served_and_is_swept() {
    let mut store = store();
    let now = Instant::now();
    store
        .admit(record(1, PeerId::random()), ip("8.8.8.8"), now)
        .unwrap();
    store
        .admit(record(2, PeerId::random()), None, now + PROVIDER_TTL / 2)
        .unwrap();
    let later = now + PROVIDER_TTL;
    assert!(store.sample(&key(1), later).is_empty());
    assert_eq!(store.sample(&key(2), later).len(), 1);
    store.sweep(later);
    assert_eq!(store.foreign.len(), 1);
    assert_consistent(&store);
}

#[test]
fn a_key_of_another_length_and_surplus_addresses_are_not_kept() {
    let mut store = store();
    let now = Instant::now();
    let short = ProviderRecord::new(RecordKey::new(&[1; 31]), PeerId::random(), Vec::new());
    assert_eq!(store.admit(short, None, now), Err(Rejected::KeyLength));
    let many = (1..=30u16)
        .map(|port| format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap())
        .collect();
    store
        .admit(
            ProviderRecord::new(key(1), PeerId::random(), many),
            None,
            now,
        )
        .unwrap();
    assert_eq!(
        store.providers(&key(1))[0].addresses.len(),
        ADDRESSES_PER_PEER_MAX
    );
}

#[test]
fn values_are_refused() {
    let mut store = store();
    assert!(store.put(Record::new(key(1), vec![1])).is_err());
    assert_eq!(store.records().count(), 0);
}

#[test]
fn half_of_a_full_key_stays_with_who_came_first_and_a_renewal_keeps_its_place() {
    let mut store = store();
    let now = Instant::now();
    let first: Vec<PeerId> = (0..PROVIDERS_PER_KEY_MAX / 2)
        .map(|_| PeerId::random())
        .collect();
    for peer in &first {
        store.admit(record(1, *peer), None, now).unwrap();
    }
    let mut last = None;
    for turn in 0..1_000 {
        let peer = PeerId::random();
        store.admit(record(1, peer), None, now).unwrap();
        last = Some(peer);
        store
            .admit(record(1, first[turn % first.len()]), None, now)
            .unwrap();
    }
    let kept: BTreeSet<PeerId> = store.foreign[key(1).as_ref() as &[u8]]
        .list
        .iter()
        .map(|provider| provider.peer)
        .collect();
    assert!(first.iter().all(|peer| kept.contains(peer)));
    assert!(kept.contains(&last.unwrap()), "the newest finds a place");
    assert_consistent(&store);
}

#[test]
fn a_full_key_is_closed_to_a_source_busier_than_all_that_could_make_room() {
    let mut store = store();
    let now = Instant::now();
    let busy = PeerId::random();
    for number in 100..110 {
        store.admit(record(number, busy), None, now).unwrap();
    }
    for _ in 0..PROVIDERS_PER_KEY_MAX {
        store.admit(record(1, PeerId::random()), None, now).unwrap();
    }
    assert_eq!(
        store.admit(record(1, busy), None, now),
        Err(Rejected::Busiest)
    );
    // Where it is alone in its network and another is crowded, it takes a place of those.
    assert_eq!(store.admit(record(1, busy), ip("8.8.8.8"), now), Ok(()));
    assert_consistent(&store);
}
