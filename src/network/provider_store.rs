//! Our Kademlia record store: which peers claim to provide which key. Our own keys lie apart, so that nobody can
//! crowd them out; foreign records are bounded per key, per source, per network prefix and in all, and expire.
//! It stores no values (only providers), never writes to disk, and never judges a provider. Used by `driver`.
//! Source: libp2p kad-dht specification, "Content provider advertisement"; `PROTOCOL.md` "Discovery".

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result as StoreResult};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::addresses::{ADDRESSES_PER_PEER_MAX, Carrier, endpoint, multiaddr};
use super::crowd;

/// How long an announcement is believed. Announcers repeat it every 20 minutes, so two may get lost.
pub(super) const PROVIDER_TTL: Duration = Duration::from_secs(60 * 60);

/// Foreign records kept: 18 MiB of them if each has its own key and its own source, as a flood makes them. A node of a
/// network of 100,000 is responsible for some hundred. Just what a hash table of 32,768 places holds.
const RECORDS_MAX: usize = 28_672;

/// Records looked at to find one that makes room in a full store. More find the busiest source more surely; of these
/// sixteen all belong to honest peers only where hardly anybody else is.
const CANDIDATES: usize = 16;

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
    /// There is no room, and the peer has more records here than whoever would make it.
    Busiest,
}

/// A public /24 or /48; `None` stands for loopback, private and unknown addresses, which have no quota.
type Prefix = Option<IpAddr>;

type ForeignKey = [u8; KEY_LEN];

/// A foreign record without its key. Addresses are kept as what they say: a list of libp2p takes three times as much.
#[derive(Debug)]
struct Provider {
    peer: PeerId,
    addresses: Box<[(Carrier, SocketAddr)]>,
    prefix: Prefix,
    /// Number of the record in the order they came; a renewal keeps it.
    since: u64,
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
    foreign: HashMap<ForeignKey, Providers>,
    /// Every foreign key once, in no order: makes a random one cheap to choose.
    order: Vec<ForeignKey>,
    /// Foreign records in all.
    record_count: usize,
    /// Records that ever came: the next one's `since`.
    arrivals: u64,
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
            record_count: 0,
            arrivals: 0,
            per_source: HashMap::new(),
            per_prefix: HashMap::new(),
            rng: RefCell::new(StdRng::seed_from_u64(seed)),
        }
    }

    /// Stores or renews what a remote announced about itself, for [`PROVIDER_TTL`]. `from` is where its connection comes
    /// from, as far as known.
    ///
    /// A full key makes room in its most crowded network prefix, a full store at its busiest sources, and whoever is
    /// busier than those gets none: a flood replaces mostly itself.
    ///
    /// # Errors
    /// [`Rejected`], with nothing stored.
    pub fn admit(
        &mut self,
        record: ProviderRecord,
        from: Option<IpAddr>,
        now: Instant,
    ) -> Result<(), Rejected> {
        let Ok(key) = ForeignKey::try_from(record.key.as_ref() as &[u8]) else {
            return Err(Rejected::KeyLength);
        };
        let addresses: Box<[_]> = record
            .addresses
            .iter()
            .take(ADDRESSES_PER_PEER_MAX)
            .filter_map(endpoint)
            .collect();
        let claimed = addresses.first().map(|(_, socket)| socket.ip());
        let mut newcomer = Provider {
            peer: record.provider,
            prefix: from.or(claimed).and_then(prefix_of),
            addresses,
            since: self.arrivals,
            expires: now + PROVIDER_TTL,
        };
        self.arrivals += 1;

        if let Some(known) = self.known(&key, &newcomer.peer) {
            if known.prefix == newcomer.prefix && known.expires > now {
                newcomer.since = known.since;
                *known = newcomer;
                return Ok(());
            }
            self.forget(&key, |provider| provider.peer == newcomer.peer);
        }
        if self.records_of(&newcomer.peer) >= KEYS_PER_SOURCE_MAX {
            return Err(Rejected::SourceFull);
        }
        let used = newcomer
            .prefix
            .and_then(|prefix| self.per_prefix.get(&prefix));
        if used.is_some_and(|count| *count >= RECORDS_PER_PREFIX_MAX) {
            return Err(Rejected::PrefixFull);
        }
        self.make_room_at(&key, &newcomer, now)?;
        self.make_room(&newcomer, now)?;
        self.insert(key, newcomer);
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
        let foreign = sampled.into_iter().map(|provider| ProviderRecord {
            key: key.clone(),
            provider: provider.peer,
            expires: Some(provider.expires),
            addresses: provider.addresses.iter().copied().map(multiaddr).collect(),
        });
        own.into_iter().chain(foreign).collect()
    }

    fn known(&mut self, key: &ForeignKey, peer: &PeerId) -> Option<&mut Provider> {
        let providers = self.foreign.get_mut(key)?;
        providers
            .list
            .iter_mut()
            .find(|provider| provider.peer == *peer)
    }

    fn records_of(&self, peer: &PeerId) -> u32 {
        self.per_source.get(peer).copied().unwrap_or(0)
    }

    fn insert(&mut self, key: ForeignKey, provider: Provider) {
        *self.per_source.entry(provider.peer).or_default() += 1;
        if let Some(prefix) = provider.prefix {
            *self.per_prefix.entry(prefix).or_default() += 1;
        }
        self.record_count += 1;
        let position = self.order.len();
        let providers = self.foreign.entry(key).or_insert_with(|| Providers {
            list: Vec::new(),
            position,
        });
        if providers.list.is_empty() {
            self.order.push(key);
        }
        // One at a time: most keys have one provider, and the default growth begins with four.
        providers.list.reserve_exact(1);
        providers.list.push(provider);
    }

    /// Drops the providers of `key` that match, and the key with its last one.
    fn forget(&mut self, key: &ForeignKey, matches: impl Fn(&Provider) -> bool) {
        let Some(providers) = self.foreign.get_mut(key) else {
            return;
        };
        for gone in providers.list.extract_if(.., |provider| matches(provider)) {
            self.record_count -= 1;
            decrement(&mut self.per_source, &gone.peer);
            if let Some(prefix) = gone.prefix {
                decrement(&mut self.per_prefix, &prefix);
            }
        }
        providers.list.shrink_to_fit();
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
    ///
    /// Of the most crowded network prefix, whose half that came first stays: who was there before a flood is found
    /// after it, and who comes first cannot keep all others out. Of the other half the busiest source goes.
    fn make_room_at(
        &mut self,
        key: &ForeignKey,
        newcomer: &Provider,
        now: Instant,
    ) -> Result<(), Rejected> {
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
            return Ok(());
        }
        let Some(providers) = self.foreign.get(key) else {
            return Ok(());
        };
        let mut crowds: BTreeMap<Prefix, usize> = BTreeMap::from([(newcomer.prefix, 1)]);
        for provider in &providers.list {
            *crowds.entry(provider.prefix).or_default() += 1;
        }
        let most = crowds.values().copied().max().unwrap_or(0);
        let mut crowded: Vec<&Provider> = providers
            .list
            .iter()
            .filter(|provider| crowds.get(&provider.prefix) == Some(&most))
            .collect();
        crowded.sort_unstable_by_key(|provider| provider.since);
        let later = &crowded[crowded.len() / 2..];
        let busiest = later
            .iter()
            .map(|provider| self.records_of(&provider.peer))
            .max()
            .unwrap_or(0);
        let is_crowded = crowds.get(&newcomer.prefix) == Some(&most);
        if is_crowded && self.records_of(&newcomer.peer) > busiest {
            return Err(Rejected::Busiest);
        }
        let busy: Vec<PeerId> = later
            .iter()
            .map(|provider| provider.peer)
            .filter(|peer| self.records_of(peer) == busiest)
            .collect();
        let victim = busy.choose(&mut *self.rng.borrow_mut()).copied();
        if let Some(victim) = victim {
            self.forget(key, |provider| provider.peer == victim);
        }
        Ok(())
    }

    /// Leaves room for one record: of some random ones an expired one goes, or that of the busiest source.
    fn make_room(&mut self, newcomer: &Provider, now: Instant) -> Result<(), Rejected> {
        if self.record_count < RECORDS_MAX {
            return Ok(());
        }
        let mut busiest: Option<(u32, ForeignKey, PeerId)> = None;
        for _ in 0..CANDIDATES {
            let rng = self.rng.get_mut();
            let Some(key) = self.order.choose(rng).copied() else {
                return Ok(());
            };
            let listed = self.foreign.get(&key).map(|providers| &providers.list);
            let Some(provider) = listed.and_then(|list| list.choose(rng)) else {
                continue;
            };
            let records = match provider.expires <= now {
                true => u32::MAX,
                false => self.records_of(&provider.peer),
            };
            if busiest.is_none_or(|(most, ..)| records > most) {
                busiest = Some((records, key, provider.peer));
            }
        }
        let Some((most, key, peer)) = busiest else {
            return Ok(());
        };
        if self.records_of(&newcomer.peer) > most {
            return Err(Rejected::Busiest);
        }
        self.forget(&key, |provider| provider.peer == peer);
        Ok(())
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
        if let Ok(key) = ForeignKey::try_from(key.as_ref() as &[u8]) {
            self.forget(&key, |known| known.peer == *provider);
        }
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

/// The subnet of a public address.
fn prefix_of(ip: IpAddr) -> Prefix {
    let is_local = match ip.to_canonical() {
        IpAddr::V4(ip) => {
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                || ip.is_unspecified()
        }
    };
    (!is_local).then(|| crowd::subnet(ip))
}

#[cfg(test)]
mod flood;
#[cfg(test)]
mod tests;
