//! Plays a scenario: real engines, simulated links, one event after the other in virtual time.
//!
//! Owns the event queue, the nodes and the connections. Decides nothing an engine would decide. Called
//! through [`run`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::{RngExt, SeedableRng};

use super::check::{Checks, Fact, Way};
use super::happening::{Arrival, ConnectionId, Digest, Due, Happening};
use super::network::{Links, core_delay};
use super::queue::Queue;
use super::report::{NodeReport, PARTS_FROM, Report};
use super::scenario::{Fault, Scenario};
use crate::content::{Bitfield, Geometry, PieceIndex};
use crate::engine::{
    DownCause, Input, Output, PeerKey, Random, ServiceEnd, Source, Time, Transfer, TransferConfig,
};
use crate::wire::ShareMessage;

/// A dial of somebody who does not answer ends after this long.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Events for each piece of each node after which a swarm is taken not to come to rest, and at least: twenty times
/// what any of a thousand drawn swarms takes.
const EVENTS_PER_PIECE_MAX: u64 = 2_000;
const EVENTS_MIN: u64 = 10_000_000;

const SECOND: Duration = Duration::from_secs(1);

/// What decides for a node, by the contract of `engine`.
pub trait Machine {
    /// Takes what happened.
    fn handle(&mut self, now: Time, input: Input);
    /// The next thing to do.
    fn poll_output(&mut self) -> Option<Output>;
    /// When [`Input::Tick`] is due.
    fn poll_timeout(&self, now: Time) -> Option<Time>;
}

impl Machine for Transfer {
    fn handle(&mut self, now: Time, input: Input) {
        self.handle(now, input);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.poll_output()
    }

    fn poll_timeout(&self, now: Time) -> Option<Time> {
        self.poll_timeout(now)
    }
}

#[derive(Debug)]
pub(super) struct Node<M> {
    pub(super) machine: Option<M>,
    pub(super) links: Links,
    pub(super) alive: bool,
    pub(super) silent: bool,
    /// Reasons for which its link carries nothing.
    clogs: u32,
    /// Whether it is on the far side of a parted network.
    far: bool,
    pub(super) liar: bool,
    pub(super) rides_free: bool,
    /// Whether it claims everything and serves nothing, and then whether it refuses aloud.
    pub(super) have_liar: Option<bool>,
    /// Its live connections, by peer.
    pub(super) connections: BTreeMap<u32, ConnectionId>,
    /// Peers that its engine speaks with.
    pub(super) speaks_with: usize,
    /// What reached a silent node; it is read when the node wakes.
    unread: VecDeque<Happening>,
    /// What could not reach it; it arrives when the way is open again.
    held_up: VecDeque<(ConnectionId, Arrival)>,
    pub(super) tick_at: Option<Time>,
    pub(super) report: NodeReport,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub(super) ends: [u32; 2],
    pub(super) is_live: bool,
    /// Whether the engine at each end speaks with the other.
    speaks: [bool; 2],
}

pub(super) struct Swarm<'a, M> {
    pub(super) scenario: &'a Scenario,
    make: &'a dyn Fn(Time, TransferConfig) -> M,
    pub(super) geometry: Geometry,
    pub(super) random: Random,
    pub(super) now: Time,
    queue: Queue<Due>,
    pub(super) nodes: Vec<Node<M>>,
    /// Nodes that have joined, whatever became of them.
    pub(super) joined: Vec<u32>,
    pub(super) connections: Vec<Connection>,
    pub(super) checks: Checks,
    /// Sound nodes that do not hold everything yet.
    pub(super) unfinished: usize,
    pub(super) goodput: Vec<u64>,
    parts_max: usize,
    happenings: u64,
    digest: Digest,
}

/// Plays `scenario` to its end: all sound nodes finished, nothing left to happen, or time is up.
///
/// # Panics
/// When the scenario has no node or a geometry that is not allowed.
pub fn run(scenario: &Scenario) -> Report {
    run_with(scenario, &Transfer::new)
}

/// [`run`] with another machine in the place of the engine, made by `make` for each node.
///
/// # Panics
/// When the scenario has no node or a geometry that is not allowed.
pub fn run_with<M: Machine>(
    scenario: &Scenario,
    make: &dyn Fn(Time, TransferConfig) -> M,
) -> Report {
    let geometry = Geometry::new(scenario.piece_len, &[scenario.total()])
        .expect("scenarios have an allowed geometry");
    let mut swarm = Swarm {
        scenario,
        make,
        geometry,
        random: Random::seed_from_u64(scenario.seed),
        now: Time::default(),
        queue: Queue::new(),
        nodes: Vec::new(),
        joined: Vec::new(),
        connections: Vec::new(),
        checks: Checks::new(scenario),
        unfinished: scenario.nodes.iter().filter(|node| node.is_sound()).count(),
        goodput: Vec::new(),
        parts_max: 0,
        happenings: 0,
        digest: Digest::new(),
    };
    swarm.set_up();
    swarm.play();
    swarm.finish()
}

impl<M: Machine> Swarm<'_, M> {
    fn set_up(&mut self) {
        for (index, plan) in self.scenario.nodes.iter().enumerate() {
            let have_liar = plan.faults.iter().find_map(|fault| match fault {
                Fault::HaveLiar { answers } => Some(*answers),
                _ => None,
            });
            self.nodes.push(Node {
                machine: None,
                links: Links::new(plan.up_per_sec, plan.down_per_sec),
                alive: false,
                silent: false,
                clogs: 0,
                far: false,
                liar: plan.faults.contains(&Fault::Liar),
                rides_free: plan.faults.contains(&Fault::FreeRider),
                have_liar,
                connections: BTreeMap::new(),
                speaks_with: 0,
                unread: VecDeque::new(),
                held_up: VecDeque::new(),
                tick_at: None,
                report: NodeReport::default(),
            });
            self.at(Time::from_start(plan.joins), index, Happening::Join);
            for fault in &plan.faults {
                let (from, until) = match *fault {
                    Fault::Crash { at }
                    | Fault::Slow { at, .. }
                    | Fault::Flap { at, .. }
                    | Fault::Meddled { at, .. } => (Some(at), None),
                    Fault::Silence { from, until } => (Some(from), until),
                    Fault::Clog { from, until } | Fault::Partition { from, until } => {
                        (Some(from), Some(until))
                    }
                    Fault::Liar | Fault::HaveLiar { .. } | Fault::FreeRider => (None, None),
                };
                if let Some(from) = from {
                    self.at(Time::from_start(from), index, Happening::Fault(*fault));
                }
                if let Some(until) = until {
                    self.at(Time::from_start(until), index, Happening::Mended(*fault));
                }
            }
        }
    }

    pub(super) fn at(&mut self, time: Time, node: usize, happening: Happening) {
        let node = node as u32;
        self.queue.push(time, Due { node, happening });
    }

    fn play(&mut self) {
        let ends = Time::from_start(self.scenario.ends);
        let pieces = u64::from(self.scenario.piece_count) * self.nodes.len() as u64;
        let happenings_max = EVENTS_MIN.max(EVENTS_PER_PIECE_MAX * pieces);
        let mut census = PARTS_FROM;
        while let Some((at, due)) = self.queue.pop() {
            let node = due.node as usize;
            if at > ends {
                break;
            }
            if matches!(due.happening, Happening::Tick) && self.nodes[node].tick_at != Some(at) {
                continue;
            }
            if at.since_start() >= census {
                self.count_parts();
                census = Duration::from_secs(at.since_start().as_secs()) + SECOND;
            }
            self.happenings += 1;
            if self.happenings > happenings_max {
                self.checks.on_restless(self.happenings);
                break;
            }
            self.now = at;
            self.digest.add(at, &due);
            self.happen(node, due.happening);
            if self.unfinished == 0 {
                break;
            }
        }
    }

    fn finish(self) -> Report {
        let nodes: Vec<NodeReport> = self.nodes.into_iter().map(|node| node.report).collect();
        let ended = self.now.since_start();
        Report {
            broken: self.checks.end(self.scenario, ended, &nodes),
            nodes,
            ended,
            goodput: self.goodput,
            parts_max: self.parts_max,
            happenings: self.happenings,
            digest: self.digest.value(),
        }
    }

    /// Counts the parts of the swarm that have an unfinished node in them.
    fn count_parts(&mut self) {
        let mut part: Vec<usize> = vec![usize::MAX; self.nodes.len()];
        let mut parts = 0;
        for first in 0..self.nodes.len() {
            let node = &self.nodes[first];
            if part[first] != usize::MAX || !node.alive || node.report.finished.is_some() {
                continue;
            }
            parts += 1;
            part[first] = parts;
            let mut open = vec![first];
            while let Some(next) = open.pop() {
                for peer in self.nodes[next].connections.keys() {
                    let peer = *peer as usize;
                    if part[peer] == usize::MAX {
                        part[peer] = parts;
                        open.push(peer);
                    }
                }
            }
        }
        self.parts_max = self.parts_max.max(parts);
    }

    // -- what happens -----------------------------------------------------------------------------

    fn happen(&mut self, node: usize, happening: Happening) {
        if self.nodes[node].silent && waits_for_process(&happening) {
            match happening {
                Happening::Tick => self.nodes[node].tick_at = None,
                happening => self.nodes[node].unread.push_back(happening),
            }
            return;
        }
        match happening {
            Happening::Join => self.join(node),
            Happening::Fault(fault) => self.fault(node, fault),
            Happening::Mended(fault) => self.mended(node, fault),
            Happening::Tick => {
                self.nodes[node].tick_at = None;
                self.input(node, Input::Tick);
            }
            Happening::SliceSent(slice) => self.slice_sent(node, slice),
            Happening::Checked { connection, piece } => self.checked(node, connection, piece),
            Happening::ServiceStopped { to, piece } => {
                let how = ServiceEnd::Stopped;
                let peer = PeerKey(to);
                self.input(node, Input::ServiceEnded { peer, piece, how });
            }
            Happening::DialFailed { peer } => {
                let peer = PeerKey(peer);
                self.input(node, Input::ConnectFailed { peer });
            }
            Happening::Reread { first, count } => {
                self.reread(node, first, count);
            }
            Happening::Left => self.gone(node, DownCause::Left),
            Happening::Found(peers) => {
                for peer in peers.into_iter().map(PeerKey) {
                    self.hears_of(node, peer, Source::Dht);
                }
            }
            Happening::Arrival { connection, what } => {
                let peer = self.other_end(connection, node);
                if self.is_open(node, peer) {
                    self.arrival(node, peer, connection, what);
                } else {
                    self.nodes[node].held_up.push_back((connection, what));
                }
            }
        }
    }

    fn arrival(&mut self, node: usize, peer: usize, connection: ConnectionId, what: Arrival) {
        let is_live = self.connections[connection as usize].is_live;
        let way = Way {
            connection,
            from: peer,
            to: node,
        };
        match what {
            Arrival::Up if is_live => {
                self.speaks(node, connection, true);
                let (peer, near) = (key(peer), self.is_near(node, peer));
                self.input(node, Input::PeerUp { peer, near });
                let peers = self.nodes[node].speaks_with;
                self.checks.on(self.now, &Fact::Speaks { node, peers });
            }
            Arrival::Message(message) if is_live => {
                let is_request = matches!(message, ShareMessage::Request { .. });
                if let Some(answers) = self.nodes[node].have_liar
                    && is_request
                {
                    return self.refuse(node, peer, answers, &message);
                }
                let heard = Some(&message);
                let heard = Fact::Heard {
                    way,
                    message: heard,
                };
                self.checks.on(self.now, &heard);
                let peer = key(peer);
                self.input(node, Input::Message { peer, message });
            }
            Arrival::Slice(slice) if is_live => self.slice_here(node, peer, slice),
            Arrival::Up | Arrival::Message(_) | Arrival::Slice(_) => {}
            Arrival::Closed(cause) => {
                self.stop_services(node, |service| service.connection == connection);
                self.nodes[node].links.cut(connection);
                self.send_next_slice(node);
                self.speaks(node, connection, false);
                let peer = key(peer);
                self.input(node, Input::PeerDown { peer, cause });
            }
        }
    }

    fn speaks(&mut self, node: usize, connection: ConnectionId, does: bool) {
        let Connection { ends, speaks, .. } = &mut self.connections[connection as usize];
        let did = &mut speaks[usize::from(ends[0] as usize != node)];
        let count = &mut self.nodes[node].speaks_with;
        match (std::mem::replace(did, does), does) {
            (false, true) => *count += 1,
            (true, false) => *count -= 1,
            _ => {}
        }
    }

    fn join(&mut self, node: usize) {
        let plan = &self.scenario.nodes[node];
        let count = self.geometry.piece_count();
        let config = TransferConfig {
            geometry: self.geometry.clone(),
            held: if plan.seed {
                Bitfield::full(count)
            } else {
                Bitfield::new(count)
            },
            wanted: None,
            rechecking: None,
            sequential: false,
            random: Random::seed_from_u64(self.random.random()),
        };
        self.nodes[node].machine = Some((self.make)(self.now, config));
        self.nodes[node].alive = true;
        self.joined.push(node as u32);
        if plan.seed {
            self.finished(node, Duration::ZERO);
        }
        if node == 0 {
            self.input(node, Input::Tick);
        } else {
            self.hears_of(node, key(0), Source::Given);
        }
    }

    /// Those of one region are near each other, as those of a subnet are.
    pub(super) fn is_near(&self, a: usize, b: usize) -> bool {
        self.scenario.nodes[a].region == self.scenario.nodes[b].region
    }

    fn hears_of(&mut self, node: usize, peer: PeerKey, source: Source) {
        let near = self.is_near(node, peer.0 as usize);
        self.input(node, Input::Candidate { peer, source, near });
    }

    // -- faults -----------------------------------------------------------------------------------

    fn fault(&mut self, node: usize, fault: Fault) {
        match fault {
            Fault::Crash { .. } => self.gone(node, DownCause::Closed),
            Fault::Flap { every, times, .. } => {
                if self.nodes[node].alive {
                    for peer in self.connected(node) {
                        self.close(node, peer, DownCause::Closed);
                        let (peer, cause) = (key(peer), DownCause::Closed);
                        self.input(node, Input::PeerDown { peer, cause });
                    }
                }
                if times > 1 {
                    let at = Duration::ZERO;
                    let times = times - 1;
                    let again = Fault::Flap { at, every, times };
                    self.at(self.now + every, node, Happening::Fault(again));
                }
            }
            Fault::Meddled { every, times, .. } => {
                self.meddle(node);
                if times > 1 {
                    let at = Duration::ZERO;
                    let times = times - 1;
                    let again = Fault::Meddled { at, every, times };
                    self.at(self.now + every, node, Happening::Fault(again));
                }
            }
            // A process that has not begun cannot be stopped.
            Fault::Silence { .. } => self.nodes[node].silent = self.nodes[node].alive,
            Fault::Slow { up_per_sec, .. } => self.nodes[node].links.up_per_sec = up_per_sec,
            Fault::Clog { .. } => self.nodes[node].clogs += 1,
            Fault::Partition { .. } => self.nodes[node].far = true,
            Fault::Liar | Fault::HaveLiar { .. } | Fault::FreeRider => {}
        }
    }

    /// Withdraws a run of pieces, which are found again within three seconds, all or in two parts.
    fn meddle(&mut self, node: usize) {
        if !self.nodes[node].alive {
            return;
        }
        let all = self.geometry.piece_count();
        let first = self.random.random_range(0..all);
        let count = self.random.random_range(1..=all - first);
        let middle = self.random.random_range(0..=count);
        let first = PieceIndex::new(first);
        let pieces = (first.get()..first.get() + count).map(PieceIndex::new);
        for piece in pieces {
            self.checks.on(self.now, &Fact::Doubted { node, piece });
        }
        self.input(node, Input::PiecesDoubted { first, count });
        let after = |random: &mut Random| Duration::from_millis(random.random_range(1..3_000));
        for (begin, end) in [(0, middle), (middle, count)] {
            if begin < end {
                let first = PieceIndex::new(first.get() + begin);
                let count = end - begin;
                let at = self.now + after(&mut self.random);
                self.at(at, node, Happening::Reread { first, count });
            }
        }
    }

    fn reread(&mut self, node: usize, first: PieceIndex, count: u32) {
        if !self.nodes[node].alive {
            return;
        }
        for piece in (first.get()..first.get() + count).map(PieceIndex::new) {
            self.checks.on(self.now, &Fact::Reread { node, piece });
        }
        self.input(node, Input::PiecesFound { first, count });
    }

    fn mended(&mut self, node: usize, fault: Fault) {
        match fault {
            Fault::Silence { .. } => return self.wake(node),
            Fault::Clog { .. } => self.nodes[node].clogs -= 1,
            Fault::Partition { .. } => self.nodes[node].far = false,
            _ => {}
        }
        for node in 0..self.nodes.len() {
            for (connection, what) in std::mem::take(&mut self.nodes[node].held_up) {
                self.happen(node, Happening::Arrival { connection, what });
            }
        }
    }

    fn wake(&mut self, node: usize) {
        self.nodes[node].silent = false;
        let unread = std::mem::take(&mut self.nodes[node].unread);
        if !self.nodes[node].alive {
            return;
        }
        for happening in unread {
            self.happen(node, happening);
        }
        self.input(node, Input::Tick);
        self.send_next_slice(node);
    }

    /// The process ends; `cause` is what its peers hear.
    fn gone(&mut self, node: usize, cause: DownCause) {
        self.nodes[node].alive = false;
        self.nodes[node].machine = None;
        self.nodes[node].unread.clear();
        self.nodes[node].held_up.clear();
        self.stop_services(node, |_| true);
        for peer in self.connected(node) {
            self.close(node, peer, cause);
        }
    }

    // -- connections ------------------------------------------------------------------------------

    pub(super) fn other_end(&self, connection: ConnectionId, node: usize) -> usize {
        let [a, b] = self.connections[connection as usize].ends;
        if a as usize == node {
            b as usize
        } else {
            a as usize
        }
    }

    /// Whether anything passes between two nodes.
    fn is_open(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.nodes[a], &self.nodes[b]);
        a.clogs + b.clogs == 0 && a.far == b.far
    }

    pub(super) fn delay(&self, a: usize, b: usize) -> Duration {
        let (a, b) = (&self.scenario.nodes[a], &self.scenario.nodes[b]);
        a.delay + b.delay + core_delay(a.region, b.region)
    }

    pub(super) fn arrives(&mut self, node: usize, connection: ConnectionId, what: Arrival) {
        let delay = self.delay(node, self.other_end(connection, node));
        let happening = Happening::Arrival { connection, what };
        self.at(self.now + delay, node, happening);
    }

    fn connected(&self, node: usize) -> Vec<usize> {
        let peers = self.nodes[node].connections.keys();
        peers.map(|peer| *peer as usize).collect()
    }

    pub(super) fn connect(&mut self, node: usize, peer: usize) {
        let delay = self.delay(node, peer);
        let is_open = self.is_open(node, peer) && !self.nodes[peer].silent;
        let failed = Happening::DialFailed { peer: peer as u32 };
        if peer != node && !is_open {
            self.at(self.now + DIAL_TIMEOUT, node, failed);
        } else if peer == node || !self.nodes[peer].alive {
            self.at(self.now + 2 * delay, node, failed);
        } else if !self.nodes[node].connections.contains_key(&(peer as u32)) {
            let connection = self.connections.len() as ConnectionId;
            self.connections.push(Connection {
                ends: [node as u32, peer as u32],
                is_live: true,
                speaks: [false; 2],
            });
            let [a, b] = [(node, peer), (peer, node)];
            for (end, other) in [a, b] {
                let connections = &mut self.nodes[end].connections;
                connections.insert(other as u32, connection);
            }
            let met = Fact::Connected { connection };
            self.checks.on(self.now, &met);
            let what = Arrival::Up;
            self.at(
                self.now + delay,
                peer,
                Happening::Arrival { connection, what },
            );
            let what = Arrival::Up;
            self.at(
                self.now + 2 * delay,
                node,
                Happening::Arrival { connection, what },
            );
        }
    }

    /// Ends the connection; `peer` hears of it after the delay.
    pub(super) fn close(&mut self, node: usize, peer: usize, cause: DownCause) {
        let Some(connection) = self.nodes[node].connections.remove(&(peer as u32)) else {
            return;
        };
        self.nodes[peer].connections.remove(&(node as u32));
        self.connections[connection as usize].is_live = false;
        self.speaks(node, connection, false);
        let ends = [node, peer];
        self.checks.on(self.now, &Fact::Closed { connection, ends });
        self.stop_services(node, |service| service.connection == connection);
        self.nodes[node].links.cut(connection);
        self.arrives(peer, connection, Arrival::Closed(cause));
    }
}

/// Whether a stopped process misses this, and gets it when it goes on.
fn waits_for_process(happening: &Happening) -> bool {
    let passes = matches!(
        happening,
        Happening::Mended(_)
            | Happening::Fault(Fault::Crash { .. } | Fault::Clog { .. } | Fault::Partition { .. })
    );
    !passes
}

pub(super) fn key(node: usize) -> PeerKey {
    PeerKey(node as u32)
}

pub(super) fn index(peer: PeerKey) -> usize {
    peer.0 as usize
}
