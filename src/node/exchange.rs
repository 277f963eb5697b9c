//! Who tells whom about which peers of one share: signed records, passed on between peers that are ready.
//!
//! Pure: takes moments and records, gives messages; sends nothing, checks no signature, dials nobody. A
//! record with loopback addresses goes to peers on this machine only. Called by `actor`. Source:
//! `src/wire/PROTOCOL.md`, "Peers"; the shape of BEP 11, with signatures.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::Rng;
use rand::seq::IteratorRandom;
use tokio::time::Instant;

use crate::content::{Multiaddr, PeerId};
use crate::network::PeerRecord;
use crate::wire::RECORDS_MAX;

/// Others told of in one message; with more, a newcomer would only dial the same few first.
const SAMPLE_MAX: usize = 20;

/// Between two messages to a peer when little has changed.
const REPEAT: Duration = Duration::from_secs(30);

/// The same when much has changed: peers of a young swarm come in bursts.
const SETTLE: Duration = Duration::from_millis(500);

/// One in so many peers that are new to the receiver is much: messages grow with the logarithm of the swarm.
const MUCH: usize = 4;

/// Messages of a peer that are read: one each [`SETTLE`], and this many more in a burst.
const BURST: u32 = 8;

const _: () = assert!(SAMPLE_MAX + 2 <= RECORDS_MAX);

/// Our own records, and how often they changed.
#[derive(Debug, Default)]
pub(super) struct OwnRecords {
    pub(super) version: u64,
    /// At most two: for everybody, and with loopback addresses for peers on this machine.
    pub(super) records: Vec<PeerRecord>,
}

/// The records of the peers of one share.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    peers: BTreeMap<PeerId, Known>,
    /// When somebody may have to be told something.
    look_at: Option<Instant>,
    version_seen: u64,
}

/// What is to be said to a peer.
enum News {
    Nothing,
    /// Not before.
    At(Instant),
    Now(Vec<Vec<u8>>),
}

#[derive(Debug)]
struct Known {
    is_local: bool,
    wide: Option<PeerRecord>,
    local: Option<PeerRecord>,
    told: BTreeSet<PeerId>,
    told_version: u64,
    /// Not before.
    tell_at: Instant,
    repeat_at: Instant,
    /// Up to when messages of this peer are paid for.
    heard_until: Instant,
}

impl Known {
    /// What a peer may be told about this one.
    fn record_for(&self, is_local: bool) -> Option<&PeerRecord> {
        let local = self.local.as_ref().filter(|_| is_local);
        local.or(self.wide.as_ref())
    }
}

impl Exchange {
    /// A peer of the share is ready; it will be told soon.
    pub(super) fn up(&mut self, now: Instant, peer: PeerId, is_local: bool) {
        self.look_at = Some(now);
        self.peers.insert(
            peer,
            Known {
                is_local,
                wide: None,
                local: None,
                told: BTreeSet::new(),
                told_version: 0,
                tell_at: now,
                repeat_at: now,
                heard_until: now,
            },
        );
    }

    /// The peer is gone; nobody is told about it any more.
    pub(super) fn down(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
    }

    /// Whether a message of `peer` is to be read now; one who sends too many is not listened to.
    pub(super) fn may_speak(&mut self, now: Instant, peer: &PeerId) -> bool {
        let Some(known) = self.peers.get_mut(peer) else {
            return false;
        };
        let paid = known.heard_until.max(now) + SETTLE;
        if paid > now + SETTLE * BURST {
            return false;
        }
        known.heard_until = paid;
        true
    }

    /// Takes checked records that `from` sent; gives those of others, as candidates.
    pub(super) fn on_records(
        &mut self,
        now: Instant,
        from: &PeerId,
        records: Vec<PeerRecord>,
    ) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let mut candidates = Vec::new();
        let Some(known) = self.peers.get_mut(from) else {
            return candidates;
        };
        for record in records {
            if record.is_local() && !known.is_local {
                continue; // Its loopback is not ours.
            }
            if record.peer != *from {
                candidates.push((record.peer, record.addresses));
                continue;
            }
            let kept = if record.is_local() {
                &mut known.local
            } else {
                &mut known.wide
            };
            let is_newer = |kept: &PeerRecord| record.sequence >= kept.sequence;
            if kept.as_ref().is_none_or(is_newer) {
                *kept = Some(record);
                self.look_at = Some(now);
            }
        }
        candidates
    }

    /// The messages that are due: to whom, and the records.
    pub(super) fn due(
        &mut self,
        now: Instant,
        own: &OwnRecords,
        random: &mut impl Rng,
    ) -> Vec<(PeerId, Vec<Vec<u8>>)> {
        let is_due = self.look_at.is_some_and(|at| at <= now);
        if !is_due && self.version_seen == own.version {
            return Vec::new();
        }
        self.version_seen = own.version;
        self.look_at = None;
        let receivers: Vec<PeerId> = self.peers.keys().copied().collect();
        let mut messages = Vec::new();
        for receiver in receivers {
            match self.news_for(now, &receiver, own, random) {
                News::Now(records) => messages.push((receiver, records)),
                News::At(at) => self.look_at = Some(self.look_at.map_or(at, |look| look.min(at))),
                News::Nothing => {}
            }
        }
        messages
    }

    fn news_for(
        &mut self,
        now: Instant,
        receiver: &PeerId,
        own: &OwnRecords,
        random: &mut impl Rng,
    ) -> News {
        let Some(known) = self.peers.get(receiver) else {
            return News::Nothing;
        };
        let is_new = |(peer, other): &(&PeerId, &Known)| {
            *peer != receiver
                && !known.told.contains(peer)
                && other.record_for(known.is_local).is_some()
        };
        let new = self.peers.iter().filter(is_new).count();
        let is_own_new = known.told_version != own.version;
        let is_much = new > 0 && new * MUCH >= known.told.len();
        let at = match new {
            _ if is_own_new || is_much => known.tell_at,
            0 => return News::Nothing,
            _ => known.repeat_at,
        };
        if now < at {
            return News::At(at);
        }
        let sample = self.peers.iter().filter(is_new).sample(random, SAMPLE_MAX);
        let mut told: Vec<PeerId> = Vec::new();
        let mut records: Vec<Vec<u8>> = Vec::new();
        if is_own_new {
            let for_it = |record: &&PeerRecord| known.is_local || !record.is_local();
            let ours = own.records.iter().filter(for_it);
            records.extend(ours.map(|record| record.bytes.clone()));
        }
        for (peer, other) in sample {
            told.push(*peer);
            records.extend(
                other
                    .record_for(known.is_local)
                    .map(|record| record.bytes.clone()),
            );
        }
        let alive: BTreeSet<PeerId> = self.peers.keys().copied().collect();
        let left = new - told.len();
        if let Some(known) = self.peers.get_mut(receiver) {
            known.told.retain(|peer| alive.contains(peer));
            known.told.extend(told);
            known.told_version = own.version;
            known.tell_at = now + SETTLE;
            known.repeat_at = now + REPEAT;
        }
        if left > 0 {
            let again = now + SETTLE;
            self.look_at = Some(self.look_at.map_or(again, |look| look.min(again)));
        }
        if records.is_empty() {
            News::Nothing
        } else {
            News::Now(records)
        }
    }

    /// When [`Self::due`] is to be asked again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.look_at
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn record(peer: PeerId, address: &str) -> PeerRecord {
        PeerRecord {
            peer,
            sequence: 1,
            addresses: vec![address.parse().expect("an address")],
            bytes: [&peer.to_bytes(), address.as_bytes()].concat(),
        }
    }

    struct Bench {
        exchange: Exchange,
        own: OwnRecords,
        now: Instant,
        random: StdRng,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                exchange: Exchange::default(),
                own: OwnRecords::default(),
                now: Instant::now(),
                random: StdRng::seed_from_u64(1),
            }
        }

        fn up(&mut self, is_local: bool) -> PeerId {
            let peer =
                PeerId::from_bytes(&[&[0, 8][..], &self.random.next_u64().to_be_bytes()].concat())
                    .expect("an identity digest");
            self.exchange.up(self.now, peer, is_local);
            peer
        }

        /// A peer at an address, which it has told us.
        fn known(&mut self, is_local: bool, address: &str) -> PeerId {
            let peer = self.up(is_local);
            let told = vec![record(peer, address)];
            self.exchange.on_records(self.now, &peer, told);
            peer
        }

        /// How many records each peer is told of now.
        fn told(&mut self) -> BTreeMap<PeerId, usize> {
            let due = self.exchange.due(self.now, &self.own, &mut self.random);
            due.into_iter()
                .map(|(peer, records)| (peer, records.len()))
                .collect()
        }
    }

    #[test]
    fn a_newcomer_is_told_of_the_others_and_they_of_it() {
        let mut bench = Bench::new();
        let first = bench.known(false, "/ip4/10.0.0.1/tcp/1");
        assert_eq!(bench.told(), BTreeMap::new());
        assert_eq!(bench.exchange.deadline(), None);
        let second = bench.known(false, "/ip4/10.0.0.2/tcp/1");
        assert_eq!(bench.told(), BTreeMap::from([(first, 1), (second, 1)]));
        bench.now += REPEAT;
        assert_eq!(bench.told(), BTreeMap::new(), "nothing is said twice");
    }

    #[test]
    fn our_own_records_come_first_and_again_when_they_change() {
        let mut bench = Bench::new();
        let (near, far) = (bench.up(true), bench.up(false));
        let us = bench.up(false);
        bench.exchange.down(&us);
        bench.own = OwnRecords {
            version: 1,
            records: vec![
                record(us, "/ip4/10.0.0.9/tcp/1"),
                record(us, "/ip4/127.0.0.1/tcp/1"),
            ],
        };
        assert_eq!(bench.told(), BTreeMap::from([(near, 2), (far, 1)]));
        bench.own.version = 2;
        assert_eq!(bench.told(), BTreeMap::new(), "not at once");
        bench.now += SETTLE;
        assert_eq!(bench.told().len(), 2);
    }

    #[test]
    fn loopback_is_told_to_this_machine_and_believed_from_it_only() {
        let mut bench = Bench::new();
        bench.known(true, "/ip4/127.0.0.1/tcp/1");
        let near = bench.up(true);
        let far = bench.known(false, "/ip4/127.0.0.1/tcp/7");
        assert_eq!(bench.told(), BTreeMap::from([(near, 1)]));
        let other = record(near, "/ip4/127.0.0.1/tcp/3");
        assert_eq!(bench.exchange.on_records(bench.now, &far, vec![other]), []);
    }

    #[test]
    fn a_crowd_is_told_in_samples_and_seldom() {
        let mut bench = Bench::new();
        for host in 1..=60 {
            bench.known(false, &format!("/ip4/10.0.0.{host}/tcp/1"));
        }
        let told = bench.told();
        assert_eq!(told.len(), 60);
        assert!(told.values().all(|count| *count == SAMPLE_MAX));
        let mut messages = 0;
        for _ in 0..120 {
            bench.now += SETTLE;
            messages += bench.told().values().filter(|count| **count > 0).count();
        }
        assert!(messages <= 60 * 4, "{messages} in a minute");
    }

    #[test]
    fn who_sends_too_many_is_not_read() {
        let mut bench = Bench::new();
        let peer = bench.up(false);
        let now = bench.now;
        let read = (0..100)
            .filter(|_| bench.exchange.may_speak(now, &peer))
            .count();
        assert_eq!(read, BURST as usize);
        assert!(bench.exchange.may_speak(now + SETTLE, &peer));
    }
}
