//! Our Kademlia record store: which peers claim to provide which key. Our own keys lie apart, so that nobody can
//! crowd them out; foreign records are bounded per key, per source, per network prefix and in all, and expire.
//! It stores no values (only providers), never writes to disk, and never judges a provider. Used by `driver`.
//! Source: libp2p kad-dht specification, "Content provider advertisement"; `PROTOCOL.md` "Discovery".

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::iter;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result as StoreResult};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

use super::addresses::{ADDRESSES_PER_PEER_MAX, socket_address};

/// How long an announcement is believed. Announcers repeat it every 20 minutes, so two may get lost.
pub(super) const PROVIDER_TTL: Duration = Duration::from_secs(60 * 60);

/// Foreign keys kept: what a node of a network with a million shares is responsible for, with room; about 100 MiB when
/// every key is full, which the limits below make unlikely.
const KEYS_MAX: usize = 16_384;

/// Foreign keys one peer may announce here. An honest one spreads its keys over the whole network.
const KEYS_PER_SOURCE_MAX: u32 = 64;

/// Providers kept per key, of which an answer samples [`ANSWER_LEN`].
const PROVIDERS_PER_KEY_MAX: usize = 64;

/// Records from one public /24 or /48, over all keys: a subnet cannot fill the store.
const RECORDS_PER_PREFIX_MAX: u32 = 256;

/// Providers in one answer: what one Kademlia message carries.
const ANSWER_LEN: usize = 20;

/// The length of our provider keys, in bytes.
const KEY_LEN: usize = 32;

/// Why a foreign record was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// The key is not 32 bytes long: not one of ours.
    KeyLength,
    /// The peer has announced its 64 keys.
    SourceFull,
    /// Its network has its 256 records.
    PrefixFull,
}

/// A public /24 or /48; `None` stands for loopback, private and unknown addresses, which have no quota.
type Prefix = Option<IpAddr>;

#[derive(Debug)]
struct Provider {
    record: ProviderRecord,
    prefix: Prefix,
    expires: Instant,
}

#[derive(Debug, Default)]
struct Providers {
    list: Vec<Provider>,
    /// Index of this key in `ProviderStore::order`.
    position: usize,
}

/// The store; see the file header.
#[derive(Debug)]
pub struct ProviderStore {
    local_peer: PeerId,
    own: BTreeMap<Vec<u8>, ProviderRecord>,
    foreign: HashMap<Vec<u8>, Providers>,
    /// Every foreign key once, in no order: makes a random one cheap to choose.
    order: Vec<Vec<u8>>,
    per_source: HashMap<PeerId, u32>,
    per_prefix: HashMap<IpAddr, u32>,
    /// Answers differ by chance; a cell because libp2p asks through a shared reference, from the one task that owns us.
    rng: RefCell<StdRng>,
}

impl ProviderStore {
    /// An empty store of the node `local_peer`; `seed` decides which providers are sampled and replaced.
    pub fn new(local_peer: PeerId, seed: u64) -> Self {
        Self {
            local_peer,
            own: BTreeMap::new(),
            foreign: HashMap::new(),
            order: Vec::new(),
            per_source: HashMap::new(),
            per_prefix: HashMap::new(),
            rng: RefCell::new(StdRng::seed_from_u64(seed)),
        }
    }

    /// Stores or renews what a remote announced about itself, for [`PROVIDER_TTL`]. `from` is where its connection comes
    /// from, as far as known.
    ///
    /// A full key makes room in its most crowded network prefix, a full store at a random key: a flood replaces
    /// mostly itself.
    ///
    /// # Errors
    /// [`Rejected`], with nothing stored.
    pub fn admit(
        &mut self,
        mut record: ProviderRecord,
        from: Option<IpAddr>,
        now: Instant,
    ) -> Result<(), Rejected> {
        let key = record.key.to_vec();
        if key.len() != KEY_LEN {
            return Err(Rejected::KeyLength);
        }
        record.addresses.truncate(ADDRESSES_PER_PEER_MAX);
        let source = record.provider;
        let prefix = from
            .or_else(|| {
                record
                    .addresses
                    .iter()
                    .find_map(socket_address)
                    .map(|socket| socket.ip())
            })
            .and_then(prefix_of);
        let expires = now + PROVIDER_TTL;
        record.expires = Some(expires);

        self.forget(&key, |provider| provider.record.provider == source);
        if self
            .per_source
            .get(&source)
            .is_some_and(|count| *count >= KEYS_PER_SOURCE_MAX)
        {
            return Err(Rejected::SourceFull);
        }
        let used = prefix.and_then(|prefix| self.per_prefix.get(&prefix));
        if used.is_some_and(|count| *count >= RECORDS_PER_PREFIX_MAX) {
            return Err(Rejected::PrefixFull);
        }
        self.make_room_at(&key, prefix, now);
        if !self.foreign.contains_key(&key) && self.foreign.len() >= KEYS_MAX {
            self.forget_random_key();
        }
        self.insert(
            key,
            Provider {
                record,
                prefix,
                expires,
            },
        );
        Ok(())
    }

    /// Forgets what has expired. Call it about once a minute: expired records are never served meanwhile.
    pub fn sweep(&mut self, now: Instant) {
        let keys = self.order.clone();
        for key in keys {
            self.forget(&key, |provider| provider.expires <= now);
        }
    }

    /// The provider records for `key` that are alive at `now`: ourselves first if we provide it, then a random sample
    /// of at most [`ANSWER_LEN`] others.
    fn sample(&self, key: &RecordKey, now: Instant) -> Vec<ProviderRecord> {
        let own = self.own.get(key.as_ref() as &[u8]).cloned();
        let alive: Vec<&Provider> = self
            .foreign
            .get(key.as_ref() as &[u8])
            .map(|providers| {
                providers
                    .list
                    .iter()
                    .filter(|provider| provider.expires > now)
                    .collect()
            })
            .unwrap_or_default();
        let mut rng = self.rng.borrow_mut();
        let mut sampled: Vec<&&Provider> = alive.sample(&mut *rng, ANSWER_LEN).collect();
        sampled.shuffle(&mut *rng);
        let foreign = sampled.into_iter().map(|provider| provider.record.clone());
        own.into_iter().chain(foreign).collect()
    }

    fn insert(&mut self, key: Vec<u8>, provider: Provider) {
        *self.per_source.entry(provider.record.provider).or_default() += 1;
        if let Some(prefix) = provider.prefix {
            *self.per_prefix.entry(prefix).or_default() += 1;
        }
        match self.foreign.entry(key) {
            Entry::Occupied(mut known) => known.get_mut().list.push(provider),
            Entry::Vacant(vacant) => {
                self.order.push(vacant.key().clone());
                vacant.insert(Providers {
                    list: vec![provider],
                    position: self.order.len() - 1,
                });
            }
        }
    }

    /// Drops the providers of `key` that match, and the key with its last one.
    fn forget(&mut self, key: &[u8], matches: impl Fn(&Provider) -> bool) {
        let Some(providers) = self.foreign.get_mut(key) else {
            return;
        };
        for gone in providers.list.extract_if(.., |provider| matches(provider)) {
            decrement(&mut self.per_source, &gone.record.provider);
            if let Some(prefix) = gone.prefix {
                decrement(&mut self.per_prefix, &prefix);
            }
        }
        if providers.list.is_empty() {
            let position = providers.position;
            self.foreign.remove(key);
            self.order.swap_remove(position);
            if let Some(moved) = self
                .order
                .get(position)
                .and_then(|key| self.foreign.get_mut(key))
            {
                moved.position = position;
            }
        }
    }

    /// Leaves at most one less than the maximum of providers at `key`.
    fn make_room_at(&mut self, key: &[u8], newcomer: Prefix, now: Instant) {
        let is_full = |store: &Self| {
            store
                .foreign
                .get(key)
                .is_some_and(|providers| providers.list.len() >= PROVIDERS_PER_KEY_MAX)
        };
        if is_full(self) {
            self.forget(key, |provider| provider.expires <= now);
        }
        if !is_full(self) {
            return;
        }
        let Some(providers) = self.foreign.get(key) else {
            return;
        };
        let mut crowds: BTreeMap<Prefix, usize> = BTreeMap::from([(newcomer, 1)]);
        for provider in &providers.list {
            *crowds.entry(provider.prefix).or_default() += 1;
        }
        let most = crowds.values().copied().max().unwrap_or(0);
        let crowded: Vec<PeerId> = providers
            .list
            .iter()
            .filter(|provider| crowds.get(&provider.prefix) == Some(&most))
            .map(|provider| provider.record.provider)
            .collect();
        let victim = crowded.choose(&mut *self.rng.borrow_mut()).copied();
        if let Some(victim) = victim {
            self.forget(key, |provider| provider.record.provider == victim);
        }
    }

    fn forget_random_key(&mut self) {
        if self.order.is_empty() {
            return;
        }
        let chosen = self.rng.get_mut().random_range(0..self.order.len());
        let key = self.order[chosen].clone();
        self.forget(&key, |_| true);
    }
}

impl RecordStore for ProviderStore {
    type RecordsIter<'a> = iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::vec::IntoIter<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _: Record) -> StoreResult<()> {
        Err(Error::ValueTooLarge)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        iter::empty()
    }

    fn add_provider(&mut self, record: ProviderRecord) -> StoreResult<()> {
        if record.provider == self.local_peer {
            self.own.insert(record.key.to_vec(), record);
            return Ok(());
        }
        self.admit(record, None, Instant::now())
            .map_err(|_| Error::MaxProvidedKeys)
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.sample(key, Instant::now())
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        let own: Vec<_> = self.own.values().map(Cow::Borrowed).collect();
        own.into_iter()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if *provider == self.local_peer {
            self.own.remove(key.as_ref() as &[u8]);
        }
        self.forget(key.as_ref(), |known| known.record.provider == *provider);
    }
}

fn decrement<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// The /24 or /48 of a public address.
fn prefix_of(ip: IpAddr) -> Prefix {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let local =
                ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified();
            let [a, b, c, _] = ip.octets();
            (!local).then(|| IpAddr::from([a, b, c, 0]))
        }
        IpAddr::V6(ip) => {
            let local = ip.is_loopback()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                || ip.is_unspecified();
            let [a, b, c, ..] = ip.segments();
            (!local).then(|| IpAddr::from([a, b, c, 0, 0, 0, 0, 0]))
        }
    }
}

#[cfg(test)]
mod tests {
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
                *per_source.entry(provider.record.provider).or_default() += 1;
                if let Some(prefix) = provider.prefix {
                    *per_prefix.entry(prefix).or_default() += 1;
                }
            }
        }
        assert_eq!(per_source, store.per_source);
        assert_eq!(per_prefix, store.per_prefix);
    }

    #[test]
    fn a_flood_of_foreign_keys_never_blocks_our_own() {
        let mut store = store();
        let now = Instant::now();
        for number in 0..(KEYS_MAX as u64 + 500) {
            store
                .admit(record(number, PeerId::random()), None, now)
                .unwrap();
        }
        assert_eq!(store.foreign.len(), KEYS_MAX);
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
        let more = |store: &mut ProviderStore, from| {
            store.admit(record(9_999, PeerId::random()), from, now)
        };
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
        let kept: BTreeSet<PeerId> = store.foreign[&key(1).to_vec()]
            .list
            .iter()
            .map(|provider| provider.record.provider)
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
}
