//! The dialling state machine, cell by cell of its table, with invented connections, addresses and time.
#![allow(clippy::unwrap_used)]
use std::io;

use libp2p::core::transport::TransportError;
use tokio::sync::oneshot;

use super::*;
use crate::network::dial_error::DialError;

/// A world with these connections and addresses.
#[derive(Default)]
struct World {
    connection: Option<ConnectionId>,
    known: Vec<Multiaddr>,
}

impl Surroundings for World {
    fn connection_to(&self, _: &PeerId, avoid: &[ConnectionId]) -> Option<ConnectionId> {
        self.connection
            .filter(|connection| !avoid.contains(connection))
    }

    fn address_of(&self, _: &ConnectionId) -> Option<Multiaddr> {
        Some(address(9))
    }

    fn known_addresses(&mut self, _: &PeerId) -> Vec<Multiaddr> {
        self.known.clone()
    }
}

struct Bench {
    dialling: Dialling,
    world: World,
    now: Instant,
    peer: PeerId,
}

type Answer = oneshot::Receiver<Result<SessionStreams, DialError>>;

impl Bench {
    fn new() -> Self {
        Self {
            dialling: Dialling::new(PeerId::random()),
            world: World::default(),
            now: Instant::now(),
            peer: PeerId::random(),
        }
    }

    fn open(&mut self, peer: Option<PeerId>, addresses: &[Multiaddr]) -> Answer {
        let (reply, answer) = oneshot::channel();
        self.dialling
            .open(peer, addresses.to_vec(), reply, self.now, &mut self.world);
        answer
    }

    /// The ids of the dials asked for since the last call; panics on anything else.
    fn dials(&mut self) -> Vec<ConnectionId> {
        let actions = std::iter::from_fn(|| self.dialling.poll_action());
        actions
            .map(|action| match action {
                Action::Dial(options) => options.connection_id(),
                Action::OpenStreams { .. } => panic!("no dial: {action:?}"),
            })
            .collect()
    }

    /// The openings and connections streams were asked for since the last call; panics on anything else.
    fn openings(&mut self) -> Vec<(u64, ConnectionId)> {
        let actions = std::iter::from_fn(|| self.dialling.poll_action());
        actions
            .map(|action| match action {
                Action::OpenStreams {
                    opening,
                    connection,
                } => (opening, connection),
                Action::Dial(_) => panic!("no streams: {action:?}"),
            })
            .collect()
    }

    fn dialled_addresses(&self, connection: ConnectionId) -> &[Multiaddr] {
        &self.dialling.attempts[&connection].addresses
    }

    fn fail(&mut self, connection: ConnectionId, error: &SwarmDialError) {
        let peer = Some(self.peer);
        self.dialling
            .on_dial_failed(connection, peer, error, self.now, &mut self.world);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.dialling.on_time(self.now, &mut self.world);
    }
}

fn address(port: u16) -> Multiaddr {
    format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap()
}

fn refused(ports: &[u16]) -> SwarmDialError {
    let error = || TransportError::Other(io::ErrorKind::ConnectionRefused.into());
    SwarmDialError::Transport(ports.iter().map(|port| (address(*port), error())).collect())
}

fn tried(answer: &mut Answer) -> Vec<(Multiaddr, DialFailure)> {
    answer
        .try_recv()
        .expect("there is an answer")
        .unwrap_err()
        .tried
}

#[test]
fn calls_for_one_peer_share_a_dial_and_new_addresses_add_one() {
    let mut bench = Bench::new();
    let peer = Some(bench.peer);
    let _first = bench.open(peer, &[address(1), address(2)]);
    let _second = bench.open(peer, &[address(2)]);
    let _third = bench.open(peer, &[address(3)]);
    let dials = bench.dials();
    assert_eq!(dials.len(), 2);
    assert_eq!(bench.dialled_addresses(dials[0]), [address(1), address(2)]);
    assert_eq!(bench.dialled_addresses(dials[1]), [address(3)]);
    bench
        .dialling
        .on_connected(dials[1], bench.peer, Vec::new(), bench.now);
    let openings = bench.openings();
    assert_eq!(openings.len(), 3);
    assert!(
        openings
            .iter()
            .all(|(_, connection)| *connection == dials[1])
    );
}

#[test]
fn an_existing_connection_is_used_without_a_dial() {
    let mut bench = Bench::new();
    let connection = ConnectionId::new_unchecked(77);
    bench.world.connection = Some(connection);
    let _answer = bench.open(Some(bench.peer), &[address(1)]);
    assert_eq!(bench.openings(), [(1, connection)]);
}

#[test]
fn a_wrong_peer_cuts_off_the_other_addresses_only_for_a_moment() {
    let mut bench = Bench::new();
    let mut answer = bench.open(Some(bench.peer), &[address(1), address(2), address(3)]);
    let found = PeerId::random();
    let first = bench.dials();
    let wrong = SwarmDialError::WrongPeerId {
        obtained: found,
        address: address(2).with_p2p(bench.peer).unwrap(),
    };
    bench.fail(first[0], &wrong);
    let second = bench.dials();
    assert_eq!(bench.dialled_addresses(second[0]), [address(1), address(3)]);
    bench.fail(second[0], &refused(&[1, 3]));
    let expected = [
        (address(2), DialFailure::WrongPeer { found }),
        (address(1), DialFailure::Refused),
        (address(3), DialFailure::Refused),
    ];
    assert_eq!(tried(&mut answer), expected);
    assert_eq!(bench.dials(), []);
}

#[test]
fn a_dial_of_kademlia_gets_a_head_start_and_its_success_is_ours() {
    let mut bench = Bench::new();
    let foreign = ConnectionId::new_unchecked(50);
    bench
        .dialling
        .on_foreign_dial(bench.peer, foreign, bench.now);
    let _answer = bench.open(Some(bench.peer), &[address(1)]);
    assert_eq!(bench.dials(), []);
    assert_eq!(
        bench.dialling.next_due(),
        Some(bench.now + FOREIGN_DIAL_PATIENCE)
    );
    bench.pass(FOREIGN_DIAL_PATIENCE);
    assert_eq!(bench.dials().len(), 1);
    bench
        .dialling
        .on_connected(foreign, bench.peer, Vec::new(), bench.now);
    assert_eq!(bench.openings(), [(1, foreign)]);
}

#[test]
fn without_an_address_of_our_own_a_dial_of_kademlia_is_waited_for() {
    let mut bench = Bench::new();
    let foreign = ConnectionId::new_unchecked(50);
    bench
        .dialling
        .on_foreign_dial(bench.peer, foreign, bench.now);
    let mut answer = bench.open(Some(bench.peer), &[]);
    bench.pass(FOREIGN_DIAL_PATIENCE * 2);
    assert!(answer.try_recv().is_err(), "not over yet");
    bench.fail(foreign, &refused(&[4]));
    assert_eq!(tried(&mut answer), [(address(4), DialFailure::Refused)]);
}

#[test]
fn a_silent_connection_is_avoided_by_a_fresh_dial() {
    let mut bench = Bench::new();
    let silent = ConnectionId::new_unchecked(60);
    bench.world.connection = Some(silent);
    let mut answer = bench.open(Some(bench.peer), &[address(1)]);
    assert_eq!(bench.openings(), [(1, silent)]);
    bench.pass(STREAMS_PATIENCE);
    let dials = bench.dials();
    assert_eq!(dials.len(), 1);
    // The late answer of the silent one changes nothing.
    bench
        .dialling
        .on_streams_failed(1, DialFailure::Denied, bench.now, &mut bench.world);
    assert!(answer.try_recv().is_err());
    bench.fail(dials[0], &refused(&[1]));
    let expected = [
        (address(9), DialFailure::Timeout),
        (address(1), DialFailure::Refused),
    ];
    assert_eq!(tried(&mut answer), expected);
}

#[test]
fn an_opening_does_not_start_over_for_ever() {
    let mut bench = Bench::new();
    let mut answer = bench.open(Some(bench.peer), &[address(1)]);
    for round in 0..=RETRIES_MAX {
        let dials = bench.dials();
        assert_eq!(dials.len(), 1, "round {round}");
        bench
            .dialling
            .on_connected(dials[0], bench.peer, Vec::new(), bench.now);
        assert_eq!(bench.openings(), [(1, dials[0])]);
        bench
            .dialling
            .on_streams_failed(1, DialFailure::Closed, bench.now, &mut bench.world);
    }
    assert_eq!(tried(&mut answer), [(address(9), DialFailure::Closed)]);
    assert_eq!(bench.dials(), []);
}

#[test]
fn the_deadline_names_what_never_answered() {
    let mut bench = Bench::new();
    let mut answer = bench.open(Some(bench.peer), &[address(1), address(2)]);
    let dials = bench.dials();
    bench.pass(OPENING_TIMEOUT);
    let expected = [
        (address(1), DialFailure::Timeout),
        (address(2), DialFailure::Timeout),
    ];
    assert_eq!(tried(&mut answer), expected);
    assert_eq!(bench.dialling.next_due(), None);
    // The dial ends later; nobody waits, nothing breaks.
    bench.fail(dials[0], &refused(&[1, 2]));
    assert!(bench.dialling.attempts.is_empty() && bench.dialling.dials.is_empty());
}

#[test]
fn the_rest_of_an_old_dial_does_not_end_a_new_one() {
    let mut bench = Bench::new();
    let _first = bench.open(Some(bench.peer), &[address(1)]);
    let _second = bench.open(Some(bench.peer), &[address(2)]);
    let old = bench.dials();
    bench
        .dialling
        .on_connected(old[0], bench.peer, Vec::new(), bench.now);
    bench.openings();
    let mut third = bench.open(Some(bench.peer), &[address(3)]);
    let new = bench.dials();
    assert_eq!(new.len(), 1);
    bench.fail(old[1], &refused(&[2]));
    assert!(third.try_recv().is_err(), "its own dial still runs");
    bench.fail(new[0], &refused(&[3]));
    assert!(tried(&mut third).contains(&(address(3), DialFailure::Refused)));
}

#[test]
fn of_unnamed_addresses_the_first_to_answer_is_the_peer() {
    let mut bench = Bench::new();
    let _answer = bench.open(None, &[address(1), address(2)]);
    let dials = bench.dials();
    assert_eq!(dials.len(), 2);
    bench.fail(dials[0], &refused(&[1]));
    bench
        .dialling
        .on_connected(dials[1], bench.peer, Vec::new(), bench.now);
    assert_eq!(bench.openings(), [(1, dials[1])]);
}

#[test]
fn openings_are_bounded_and_one_whose_caller_left_is_dropped() {
    let mut bench = Bench::new();
    let mut answers = Vec::new();
    for _ in 0..OPENINGS_MAX {
        answers.push(bench.open(Some(bench.peer), &[address(1)]));
    }
    let mut denied = bench.open(Some(bench.peer), &[address(1)]);
    assert_eq!(tried(&mut denied), [(address(1), DialFailure::Denied)]);
    answers.clear();
    bench.pass(Duration::from_millis(1));
    assert!(bench.dialling.openings.is_empty());
}

#[test]
fn an_address_naming_another_peer_is_not_dialled() {
    let mut bench = Bench::new();
    let found = PeerId::random();
    let named = address(1).with_p2p(found).unwrap();
    let mut answer = bench.open(Some(bench.peer), &[named]);
    assert_eq!(
        tried(&mut answer),
        [(address(1), DialFailure::WrongPeer { found })]
    );
    assert_eq!(bench.dials(), []);
}

fn quic(port: u16) -> Multiaddr {
    format!("/ip4/10.0.0.1/udp/{port}/quic-v1").parse().unwrap()
}

#[test]
fn quic_waits_for_tcp_to_fail_or_for_its_time() {
    for known in [true, false] {
        let mut bench = Bench::new();
        let peer = known.then_some(bench.peer);
        let _answer = bench.open(peer, &[quic(1), address(2)]);
        let first = bench.dials();
        assert_eq!(first.len(), 1);
        assert_eq!(bench.dialled_addresses(first[0]), [address(2)]);
        bench.pass(QUIC_DELAY / 2);
        assert_eq!(bench.dials(), []);
        assert_eq!(bench.dialling.next_due(), Some(bench.now + QUIC_DELAY / 2));
        bench.pass(QUIC_DELAY / 2);
        let second = bench.dials();
        assert_eq!(bench.dialled_addresses(second[0]), [quic(1)]);

        let mut bench = Bench::new();
        let peer = known.then_some(bench.peer);
        let _answer = bench.open(peer, &[quic(1), address(2)]);
        let first = bench.dials();
        bench.fail(first[0], &refused(&[2]));
        let second = bench.dials();
        assert_eq!(bench.dialled_addresses(second[0]), [quic(1)]);
    }
}

#[test]
fn quic_is_not_dialled_where_tcp_was_refused() {
    for known in [true, false] {
        let mut bench = Bench::new();
        let peer = known.then_some(bench.peer);
        let mut answer = bench.open(peer, &[quic(2), address(2)]);
        let first = bench.dials();
        bench.fail(first[0], &refused(&[2]));
        assert_eq!(bench.dials(), []);
        assert_eq!(tried(&mut answer), [(address(2), DialFailure::Refused)]);
    }
}
