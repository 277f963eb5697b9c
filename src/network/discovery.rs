//! When to announce our keys and when to look others up: schedules over plain instants, no network, no clock.
//! The driver asks what is due and reports what Kademlia answered; it alone talks to libp2p.
//! `Q` names a running query (libp2p's `QueryId`; a number in tests, since that has no public constructor).
//! Source: `PROTOCOL.md` "Discovery"; libp2p kad-dht specification (provider lifetimes).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A provider key.
pub(super) type Key = [u8; 32];

/// Regular repetition, a third of the records' lifetime; each is up to a tenth earlier, so that nodes spread out.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(20 * 60);

/// From a change (table, address) to the repetition it causes: several changes come together.
const SETTLE: Duration = Duration::from_secs(1);

/// Longest distance of repetitions caused by changes; it doubles from [`SETTLE`] to here until the regular one.
const CHANGE_GAP_MAX: Duration = Duration::from_secs(5 * 60);

/// Announcements begun per second: each costs about 50 messages.
const ANNOUNCE_BURST: usize = 4;
const ANNOUNCE_PACE: Duration = Duration::from_secs(1);

/// How long a lookup waits for a first peer in the table before it ends empty.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(10);

/// Lookups that run at once, and that wait for their turn; a key beyond both ends at once, empty.
const LOOKUPS_RUNNING_MAX: usize = 16;
const LOOKUPS_WAITING_MAX: usize = 1024;

/// Times an empty lookup is repeated because the table grew while it ran.
const LOOKUP_REPEATS: u8 = 2;

/// Providers remembered per lookup to report each once; later ones are not reported.
const PROVIDERS_PER_LOOKUP_MAX: usize = 1024;

const _: () = assert!(SETTLE.as_millis() < CHANGE_GAP_MAX.as_millis());
const _: () = assert!(CHANGE_GAP_MAX.as_millis() < ANNOUNCE_EVERY.as_millis());

/// The schedules; see the file header.
#[derive(Debug)]
pub(super) struct Discovery<Q> {
    table_len: usize,
    /// Counts growths, so that a lookup knows whether one happened while it ran.
    growths: u64,
    announced: BTreeMap<Key, Announcement>,
    /// No announcement begins before.
    announce_from: Option<Instant>,
    waiting: BTreeMap<Key, Waiting>,
    running: HashMap<Q, Running>,
    rng: StdRng,
}

#[derive(Debug)]
struct Announcement {
    last: Option<Instant>,
    due: Instant,
    gap: Duration,
}

#[derive(Debug)]
struct Waiting {
    until: Instant,
    repeats: u8,
}

#[derive(Debug)]
struct Running {
    key: Key,
    found: HashSet<PeerId>,
    growths_before: u64,
    repeats: u8,
}

/// How a finished query ends its lookup.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Finished {
    /// Nothing more will come for this key.
    Done(Key),
    /// It found nobody, but the table grew meanwhile: it is queued again.
    Again,
    /// Not one of our lookups.
    Unknown,
}

impl<Q: std::hash::Hash + Eq> Discovery<Q> {
    /// Nothing announced, nothing looked up; `seed` spreads the regular repetitions.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            table_len: 0,
            growths: 0,
            announced: BTreeMap::new(),
            announce_from: None,
            waiting: BTreeMap::new(),
            running: HashMap::new(),
            rng: StdRng::seed_from_u64(seed),
        }
    }

    /// Announce `key` from now on; it is due at once. A key that is announced already is not due again.
    pub(super) fn announce(&mut self, key: Key, now: Instant) {
        self.announced.entry(key).or_insert(Announcement {
            last: None,
            due: now,
            gap: SETTLE,
        });
    }

    /// Announce `key` no longer.
    pub(super) fn withdraw(&mut self, key: &Key) {
        self.announced.remove(key);
    }

    /// The routing table holds `len` peers now. Growth brings announcements forward.
    pub(super) fn on_table(&mut self, len: usize, now: Instant) {
        let grew = len > self.table_len;
        self.table_len = len;
        if grew {
            self.growths += 1;
            self.bring_forward(now);
        }
    }

    /// Others can reach us at a new address: records of us lack it.
    pub(super) fn on_address(&mut self, now: Instant) {
        self.bring_forward(now);
    }

    fn bring_forward(&mut self, now: Instant) {
        for announcement in self.announced.values_mut() {
            if let Some(last) = announcement.last {
                let due = (now + SETTLE).max(last + announcement.gap);
                announcement.due = announcement.due.min(due);
            }
        }
    }

    /// The keys to announce now, at most [`ANNOUNCE_BURST`]; none while the table is empty.
    pub(super) fn take_due_announcements(&mut self, now: Instant) -> Vec<Key> {
        if self.table_len == 0 || self.announce_from.is_some_and(|from| now < from) {
            return Vec::new();
        }
        let mut due: Vec<(Instant, Key)> = self
            .announced
            .iter()
            .filter(|(_, announcement)| announcement.due <= now)
            .map(|(key, announcement)| (announcement.due, *key))
            .collect();
        due.sort_unstable();
        due.truncate(ANNOUNCE_BURST);
        if !due.is_empty() {
            self.announce_from = Some(now + ANNOUNCE_PACE);
        }
        for (_, key) in &due {
            let early = ANNOUNCE_EVERY.mul_f64(self.rng.random_range(0.0..0.1));
            if let Some(announcement) = self.announced.get_mut(key) {
                let is_regular = announcement
                    .last
                    .is_some_and(|last| now >= last + CHANGE_GAP_MAX);
                announcement.gap = match announcement.last {
                    Some(_) if !is_regular => (announcement.gap * 2).min(CHANGE_GAP_MAX),
                    _ => SETTLE,
                };
                announcement.last = Some(now);
                announcement.due = now + ANNOUNCE_EVERY - early;
            }
        }
        due.into_iter().map(|(_, key)| key).collect()
    }

    /// Look `key` up, unless a lookup of it is under way. `false`: too many wait, it ends at once.
    #[must_use]
    pub(super) fn lookup(&mut self, key: Key, now: Instant) -> bool {
        if self.running.values().any(|running| running.key == key)
            || self.waiting.contains_key(&key)
        {
            return true;
        }
        if self.waiting.len() >= LOOKUPS_WAITING_MAX {
            return false;
        }
        let until = now + LOOKUP_PATIENCE;
        self.waiting.insert(key, Waiting { until, repeats: 0 });
        true
    }

    /// Starts what can start: `query` begins the query for a key and names it.
    pub(super) fn start_lookups(&mut self, mut query: impl FnMut(Key) -> Q) {
        while self.table_len > 0 && self.running.len() < LOOKUPS_RUNNING_MAX {
            let Some((key, waiting)) = self.waiting.pop_first() else {
                return;
            };
            let running = Running {
                key,
                found: HashSet::new(),
                growths_before: self.growths,
                repeats: waiting.repeats,
            };
            self.running.insert(query(key), running);
        }
    }

    /// A query named providers: the key and those that are new in this lookup, if any.
    pub(super) fn on_found(
        &mut self,
        query: &Q,
        providers: impl IntoIterator<Item = PeerId>,
    ) -> Option<(Key, Vec<PeerId>)> {
        let running = self.running.get_mut(query)?;
        let mut new = Vec::new();
        for peer in providers {
            if running.found.len() < PROVIDERS_PER_LOOKUP_MAX && running.found.insert(peer) {
                new.push(peer);
            }
        }
        (!new.is_empty()).then_some((running.key, new))
    }

    /// A query ended.
    pub(super) fn on_finished(&mut self, query: &Q, now: Instant) -> Finished {
        let Some(running) = self.running.remove(query) else {
            return Finished::Unknown;
        };
        let grew = self.growths > running.growths_before;
        if running.found.is_empty() && grew && running.repeats < LOOKUP_REPEATS {
            let repeats = running.repeats + 1;
            let until = now + LOOKUP_PATIENCE;
            self.waiting.insert(running.key, Waiting { until, repeats });
            return Finished::Again;
        }
        Finished::Done(running.key)
    }

    /// The lookups that waited in vain for a first peer: they are over.
    pub(super) fn take_expired_lookups(&mut self, now: Instant) -> Vec<Key> {
        if self.table_len > 0 {
            return Vec::new();
        }
        let is_expired = |(_, waiting): &(&Key, &Waiting)| waiting.until <= now;
        let expired: Vec<Key> = self
            .waiting
            .iter()
            .filter(is_expired)
            .map(|(key, _)| *key)
            .collect();
        self.waiting.retain(|_, waiting| waiting.until > now);
        expired
    }

    /// When something becomes due if nothing else happens.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let announcement = self
            .announced
            .values()
            .map(|announcement| announcement.due)
            .min();
        let announcement = announcement
            .filter(|_| self.table_len > 0)
            .map(|due| self.announce_from.map_or(due, |from| due.max(from)));
        let lookup = self.waiting.values().map(|waiting| waiting.until).min();
        let lookup = lookup.filter(|_| self.table_len == 0);
        announcement.into_iter().chain(lookup).min()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn discovery() -> Discovery<u32> {
        Discovery::new(1)
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// Every announcement of one key between `from` and `until`, in seconds after `from`.
    fn announcements(discovery: &mut Discovery<u32>, from: Instant, until: Duration) -> Vec<u64> {
        let mut times = Vec::new();
        while let Some(due) = discovery.next_due().filter(|due| *due <= from + until) {
            let due = due.max(from);
            times.extend(
                discovery
                    .take_due_announcements(due)
                    .iter()
                    .map(|_| (due - from).as_secs()),
            );
        }
        times
    }

    #[test]
    fn nothing_is_announced_to_an_empty_table() {
        let mut discovery = discovery();
        let now = Instant::now();
        discovery.announce([1; 32], now);
        assert!(discovery.take_due_announcements(now).is_empty());
        assert_eq!(discovery.next_due(), None);
        discovery.on_table(1, now);
        assert_eq!(discovery.take_due_announcements(now), [[1; 32]]);
    }

    #[test]
    fn a_key_is_announced_again_before_a_third_of_its_lifetime() {
        let mut discovery = discovery();
        let now = Instant::now();
        discovery.on_table(1, now);
        discovery.announce([1; 32], now);
        let times = announcements(&mut discovery, now, seconds(3600));
        assert!(times.len() >= 3, "{times:?}");
        for pair in times.windows(2) {
            assert!((1080..=1200).contains(&(pair[1] - pair[0])), "{times:?}");
        }
    }

    #[test]
    fn growth_repeats_an_announcement_after_a_second_and_then_ever_more_rarely() {
        let mut discovery = discovery();
        let start = Instant::now();
        discovery.on_table(1, start);
        discovery.announce([1; 32], start);
        let mut times = Vec::new();
        for second in 0..600u64 {
            let now = start + seconds(second);
            discovery.on_table(2 + usize::try_from(second).unwrap(), now);
            times.extend(discovery.take_due_announcements(now).iter().map(|_| second));
        }
        assert_eq!(times[..6], [0, 2, 4, 8, 16, 32]);
        assert!(times.len() < 12, "{times:?}");
    }

    #[test]
    fn a_new_address_repeats_an_announcement() {
        let mut discovery = discovery();
        let now = Instant::now();
        discovery.on_table(1, now);
        discovery.announce([1; 32], now);
        assert_eq!(discovery.take_due_announcements(now).len(), 1);
        discovery.on_address(now + seconds(100));
        assert_eq!(announcements(&mut discovery, now, seconds(110)), [101]);
    }

    #[test]
    fn many_keys_are_paced_and_a_withdrawn_one_is_silent() {
        let mut discovery = discovery();
        let now = Instant::now();
        discovery.on_table(1, now);
        for number in 0..20 {
            discovery.announce([number; 32], now);
        }
        discovery.withdraw(&[3; 32]);
        assert_eq!(discovery.take_due_announcements(now).len(), ANNOUNCE_BURST);
        assert!(discovery.take_due_announcements(now).is_empty());
        let times = announcements(&mut discovery, now, seconds(30));
        assert_eq!(times.len() + ANNOUNCE_BURST, 19);
        assert_eq!(times.last(), Some(&4));
    }

    #[test]
    fn a_lookup_waits_for_a_first_peer_and_ends_empty_without_one() {
        let mut discovery = discovery();
        let now = Instant::now();
        assert!(discovery.lookup([1; 32], now));
        discovery.start_lookups(|_| panic!("the table is empty"));
        assert_eq!(discovery.next_due(), Some(now + LOOKUP_PATIENCE));
        assert!(discovery.take_expired_lookups(now).is_empty());
        assert_eq!(
            discovery.take_expired_lookups(now + LOOKUP_PATIENCE),
            [[1; 32]]
        );
        assert!(discovery.lookup([2; 32], now));
        discovery.on_table(1, now);
        discovery.start_lookups(|key| u32::from(key[0]));
        assert_eq!(discovery.on_finished(&2, now), Finished::Done([2; 32]));
    }

    #[test]
    fn each_provider_is_reported_once_per_lookup() {
        let mut discovery = discovery();
        let now = Instant::now();
        discovery.on_table(1, now);
        assert!(discovery.lookup([1; 32], now));
        assert!(
            discovery.lookup([1; 32], now),
            "the second call joins the first"
        );
        discovery.start_lookups(|_| 7);
        let (a, b) = (PeerId::random(), PeerId::random());
        assert_eq!(discovery.on_found(&7, []), None);
        assert_eq!(discovery.on_found(&7, [a]), Some(([1; 32], vec![a])));
        assert_eq!(discovery.on_found(&7, [a, b]), Some(([1; 32], vec![b])));
        assert_eq!(discovery.on_found(&7, [a, b]), None);
        assert_eq!(discovery.on_found(&8, [a]), None);
        assert_eq!(discovery.on_finished(&7, now), Finished::Done([1; 32]));
        assert_eq!(discovery.on_finished(&7, now), Finished::Unknown);
    }

    #[test]
    fn an_empty_lookup_is_repeated_when_the_table_grew_meanwhile_but_not_for_ever() {
        let mut discovery = discovery();
        let now = Instant::now();
        discovery.on_table(1, now);
        assert!(discovery.lookup([1; 32], now));
        for round in 0..u32::from(LOOKUP_REPEATS) {
            discovery.start_lookups(|_| round);
            discovery.on_table(2 + usize::try_from(round).unwrap(), now);
            assert_eq!(discovery.on_finished(&round, now), Finished::Again);
        }
        discovery.start_lookups(|_| 99);
        discovery.on_table(50, now);
        assert_eq!(discovery.on_finished(&99, now), Finished::Done([1; 32]));
    }

    #[test]
    fn lookups_are_bounded() {
        let mut discovery = discovery();
        let now = Instant::now();
        let key = |number: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            key
        };
        for number in 0..LOOKUPS_WAITING_MAX {
            assert!(discovery.lookup(key(number), now));
        }
        assert!(!discovery.lookup(key(LOOKUPS_WAITING_MAX), now));
        discovery.on_table(1, now);
        let mut started = 0;
        discovery.start_lookups(|_| {
            started += 1;
            started
        });
        assert_eq!(started as usize, LOOKUPS_RUNNING_MAX);
    }
}
