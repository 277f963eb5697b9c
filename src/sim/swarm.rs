//! Plays a scenario: real engines, simulated links, one event after the other in virtual time.
//!
//! Owns the event queue and the connections. Decides nothing an engine would decide. Called through
//! [`run`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use rand::{RngExt, SeedableRng};

use super::checker::Checker;
use super::happening::{Due, Happening};
use super::network::Links;
use super::report::{NodeReport, Report};
use super::scenario::{Fault, Scenario};
use crate::content::{Bitfield, Geometry};
use crate::engine::{
    DownCause, Input, PeerKey, Random, ServiceEnd, Source, Time, Transfer, TransferConfig,
};
use crate::wire::ShareMessage;

/// Time to verify and store a piece.
pub(super) const DISK: Duration = Duration::from_millis(2);

/// A dial of somebody who does not answer ends after this long.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a search for peers takes, and how many it finds.
pub(super) const SEARCH: Duration = Duration::from_millis(100);
pub(super) const FOUND_MAX: usize = 20;

/// Events after which a swarm is taken not to come to rest.
const EVENTS_MAX: u64 = 50_000_000;

#[derive(Debug)]
pub(super) struct Node {
    pub(super) transfer: Option<Transfer>,
    pub(super) links: Links,
    pub(super) delay: Duration,
    pub(super) alive: bool,
    pub(super) silent: bool,
    pub(super) liar: bool,
    pub(super) rides_free: bool,
    /// What reached a silent node; it is read when the node wakes.
    pub(super) unread: VecDeque<Happening>,
    pub(super) tick_at: Option<Time>,
    pub(super) report: NodeReport,
}

pub(super) struct Swarm<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) geometry: Geometry,
    pub(super) random: Random,
    pub(super) now: Time,
    pub(super) sequence: u64,
    pub(super) queue: BinaryHeap<Reverse<Due>>,
    pub(super) nodes: Vec<Node>,
    /// Live connections by (smaller, larger) node, with a number that tells them from earlier ones.
    pub(super) connections: BTreeMap<(usize, usize), u64>,
    pub(super) connection_count: u64,
    pub(super) checker: Checker,
    /// Sound nodes that do not hold everything yet.
    pub(super) unfinished: usize,
    pub(super) digest: u64,
}

/// Plays `scenario` to its end: all sound nodes finished, nothing left to happen, or time is up.
///
/// # Panics
/// When the scenario has no node or a geometry that is not allowed.
pub fn run(scenario: &Scenario) -> Report {
    let piece_len = u64::from(scenario.piece_len);
    let total = piece_len * u64::from(scenario.piece_count) - piece_len / 3;
    let geometry =
        Geometry::new(scenario.piece_len, &[total]).expect("scenarios have an allowed geometry");
    let mut swarm = Swarm {
        scenario,
        geometry,
        random: Random::seed_from_u64(scenario.seed),
        now: Time::default(),
        sequence: 0,
        queue: BinaryHeap::new(),
        nodes: Vec::new(),
        connections: BTreeMap::new(),
        connection_count: 0,
        checker: Checker::new(scenario),
        unfinished: scenario.nodes.iter().filter(|node| node.is_sound()).count(),
        digest: 0xcbf2_9ce4_8422_2325,
    };
    swarm.set_up();
    swarm.play();
    swarm.finish()
}

impl Swarm<'_> {
    fn set_up(&mut self) {
        for (index, plan) in self.scenario.nodes.iter().enumerate() {
            self.nodes.push(Node {
                transfer: None,
                links: Links::new(plan.up_per_sec, plan.down_per_sec),
                delay: plan.delay,
                alive: false,
                silent: false,
                liar: plan.faults.contains(&Fault::Liar),
                rides_free: plan.faults.contains(&Fault::FreeRider),
                unread: VecDeque::new(),
                tick_at: None,
                report: NodeReport::default(),
            });
            self.at(Time::from_start(plan.joins), index, Happening::Join);
            for fault in &plan.faults {
                match *fault {
                    Fault::Crash { at }
                    | Fault::Slow { at, .. }
                    | Fault::Silence { from: at, .. }
                    | Fault::Flap { at, .. } => {
                        self.at(Time::from_start(at), index, Happening::Fault(*fault));
                    }
                    Fault::Liar | Fault::FreeRider => {}
                }
                if let Fault::Silence {
                    until: Some(until), ..
                } = fault
                {
                    self.at(Time::from_start(*until), index, Happening::Wake);
                }
            }
        }
    }

    pub(super) fn at(&mut self, time: Time, node: usize, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse(Due {
            at: time,
            sequence: self.sequence,
            node,
            happening,
        }));
    }

    fn play(&mut self) {
        let ends = Time::from_start(self.scenario.ends);
        let mut events = 0;
        while let Some(Reverse(Due {
            at,
            node,
            happening,
            ..
        })) = self.queue.pop()
        {
            if at > ends {
                break;
            }
            if matches!(happening, Happening::Tick) && self.nodes[node].tick_at != Some(at) {
                continue;
            }
            events += 1;
            if events > EVENTS_MAX {
                self.checker.on_restless(events);
                break;
            }
            self.now = at;
            self.note(node, &happening);
            self.happen(node, happening);
            if self.unfinished == 0 {
                break;
            }
        }
    }

    fn finish(mut self) -> Report {
        let nodes = &self.nodes;
        self.checker
            .on_rest(self.scenario, |node| nodes[node].report.finished.is_some());
        Report {
            nodes: self.nodes.into_iter().map(|node| node.report).collect(),
            broken: self.checker.broken,
            ended: self.now.since_start(),
            digest: self.digest,
        }
    }

    fn note(&mut self, node: usize, happening: &Happening) {
        let (kind, detail) = happening.digest();
        let nanos = self.now.since_start().as_nanos() as u64;
        for value in [nanos, node as u64, kind, detail] {
            for byte in value.to_le_bytes() {
                self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }

    // -- what happens -----------------------------------------------------------------------------

    fn happen(&mut self, node: usize, happening: Happening) {
        if self.nodes[node].silent
            && !matches!(
                happening,
                Happening::Wake | Happening::Fault(Fault::Crash { .. })
            )
        {
            match happening {
                Happening::Tick => self.nodes[node].tick_at = None,
                happening => self.nodes[node].unread.push_back(happening),
            }
            return;
        }
        match happening {
            Happening::Join => self.join(node),
            Happening::Fault(fault) => self.fault(node, fault),
            Happening::Wake => self.wake(node),
            Happening::Tick => {
                self.nodes[node].tick_at = None;
                self.input(node, Input::Tick);
            }
            Happening::Message {
                from,
                connection,
                message,
            } => {
                if self.is_live(node, from, connection) {
                    self.checker.on_heard(self.now, node, from);
                    if let ShareMessage::Reject { piece, .. } = &message {
                        self.checker.forget_request(node, from, *piece);
                    }
                    self.input(
                        node,
                        Input::Message {
                            peer: key(from),
                            message,
                        },
                    );
                }
            }
            Happening::SliceSent(slice) => self.slice_sent(node, slice),
            Happening::SliceHere { from, slice } => self.slice_here(node, from, slice),
            Happening::Checked {
                from,
                connection,
                piece,
            } => self.checked(node, from, connection, piece),
            Happening::ServiceStopped { to, piece } => {
                self.input(
                    node,
                    Input::ServiceEnded {
                        peer: key(to),
                        piece,
                        how: ServiceEnd::Stopped,
                    },
                );
            }
            Happening::Connected { peer, connection } => {
                if self.is_live(node, peer, connection) {
                    self.input(node, Input::PeerUp { peer: key(peer) });
                }
            }
            Happening::DialFailed { peer } => {
                self.input(node, Input::ConnectFailed { peer: key(peer) })
            }
            Happening::Closed {
                peer,
                connection,
                cause,
            } => {
                self.stop_services(node, |service| service.connection == connection);
                self.input(
                    node,
                    Input::PeerDown {
                        peer: key(peer),
                        cause,
                    },
                );
            }
            Happening::Left => self.gone(node, DownCause::Left),
            Happening::Found(peers) => {
                for peer in peers {
                    self.input(
                        node,
                        Input::Candidate {
                            peer: key(peer),
                            source: Source::Dht,
                        },
                    );
                }
            }
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
            sequential: false,
            random: Random::seed_from_u64(self.random.random()),
        };
        self.nodes[node].transfer = Some(Transfer::new(self.now, config));
        self.nodes[node].alive = true;
        if plan.seed {
            self.finished(node, Duration::ZERO);
        }
        if node == 0 {
            self.input(node, Input::Tick);
        } else {
            self.input(
                node,
                Input::Candidate {
                    peer: key(0),
                    source: Source::Given,
                },
            );
        }
    }

    fn fault(&mut self, node: usize, fault: Fault) {
        match fault {
            Fault::Crash { .. } => self.gone(node, DownCause::Closed),
            Fault::Flap { every, times, .. } => {
                if self.nodes[node].alive {
                    for peer in self.connected(node) {
                        self.close(node, peer, DownCause::Closed);
                        self.input(
                            node,
                            Input::PeerDown {
                                peer: key(peer),
                                cause: DownCause::Closed,
                            },
                        );
                    }
                }
                if times > 1 {
                    let again = Fault::Flap {
                        at: Duration::ZERO,
                        every,
                        times: times - 1,
                    };
                    self.at(self.now + every, node, Happening::Fault(again));
                }
            }
            Fault::Silence { .. } => self.nodes[node].silent = true,
            Fault::Slow { up_per_sec, .. } => self.nodes[node].links.up_per_sec = up_per_sec,
            Fault::Liar | Fault::FreeRider => {}
        }
    }

    /// The process ends; `cause` is what its peers hear.
    pub(super) fn gone(&mut self, node: usize, cause: DownCause) {
        self.nodes[node].alive = false;
        self.nodes[node].transfer = None;
        self.nodes[node].unread.clear();
        self.stop_services(node, |_| true);
        for peer in self.connected(node) {
            self.close(node, peer, cause);
        }
    }

    fn connected(&self, node: usize) -> Vec<usize> {
        let pairs = self
            .connections
            .keys()
            .filter(|(a, b)| *a == node || *b == node);
        pairs
            .map(|(a, b)| if *a == node { *b } else { *a })
            .collect()
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

    // -- connections ------------------------------------------------------------------------------

    pub(super) fn is_live(&self, a: usize, b: usize, connection: u64) -> bool {
        self.connections.get(&(a.min(b), a.max(b))) == Some(&connection)
    }

    pub(super) fn delay(&self, a: usize, b: usize) -> Duration {
        self.nodes[a].delay + self.nodes[b].delay
    }

    pub(super) fn connect(&mut self, node: usize, peer: usize) {
        let delay = self.delay(node, peer);
        if peer == node || !self.nodes[peer].alive {
            self.at(self.now + 2 * delay, node, Happening::DialFailed { peer });
        } else if self.nodes[peer].silent {
            self.at(
                self.now + DIAL_TIMEOUT,
                node,
                Happening::DialFailed { peer },
            );
        } else if !self
            .connections
            .contains_key(&(node.min(peer), node.max(peer)))
        {
            self.connection_count += 1;
            let connection = self.connection_count;
            self.connections
                .insert((node.min(peer), node.max(peer)), connection);
            self.checker.on_connected(node, peer);
            self.at(
                self.now + delay,
                peer,
                Happening::Connected {
                    peer: node,
                    connection,
                },
            );
            self.at(
                self.now + 2 * delay,
                node,
                Happening::Connected { peer, connection },
            );
        }
    }

    /// Ends the connection; `peer` hears of it after the delay.
    pub(super) fn close(&mut self, node: usize, peer: usize, cause: DownCause) {
        if let Some(connection) = self.connections.remove(&(node.min(peer), node.max(peer))) {
            self.checker.on_closed(node, peer);
            self.stop_services(node, |service| service.connection == connection);
            self.at(
                self.now + self.delay(node, peer),
                peer,
                Happening::Closed {
                    peer: node,
                    connection,
                    cause,
                },
            );
        }
    }
}

pub(super) fn key(node: usize) -> PeerKey {
    PeerKey(u32::try_from(node).expect("a simulated swarm has fewer than 2^32 nodes"))
}

pub(super) fn index(peer: PeerKey) -> usize {
    peer.0 as usize
}
