//! Plays a scenario: real engines, simulated links, one event after the other in virtual time.
//!
//! Owns the event queue and the connections. Decides nothing an engine would decide. Called through
//! [`run`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use rand::{RngExt, SeedableRng};

use super::checker::Checker;
use super::network::{Links, Service, Slice};
use super::report::{NodeReport, Report};
use super::scenario::{Fault, Scenario};
use crate::content::{Bitfield, Geometry, PieceIndex};
use crate::engine::{
    DownCause, Event, Input, Output, PeerKey, Random, ServiceEnd, Source, Time, Transfer,
    TransferConfig,
};
use crate::wire::ShareMessage;

/// Time to verify and store a piece.
const DISK: Duration = Duration::from_millis(2);

/// A dial of somebody who does not answer ends after this long.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a search for peers takes, and how many it finds.
const SEARCH: Duration = Duration::from_millis(100);
const FOUND_MAX: usize = 20;

/// Events after which a swarm is taken not to come to rest.
const EVENTS_MAX: u64 = 50_000_000;

#[derive(Debug)]
enum Happening {
    Join,
    Fault(Fault),
    Wake,
    Tick,
    Message {
        from: usize,
        connection: u64,
        message: ShareMessage,
    },
    SliceSent(Slice),
    SliceHere {
        from: usize,
        slice: Slice,
    },
    Checked {
        from: usize,
        connection: u64,
        piece: PieceIndex,
    },
    ServiceStopped {
        to: usize,
        piece: PieceIndex,
    },
    Connected {
        peer: usize,
        connection: u64,
    },
    DialFailed {
        peer: usize,
    },
    Closed {
        peer: usize,
        connection: u64,
        cause: DownCause,
    },
    Found(Vec<usize>),
}

#[derive(Debug)]
struct Node {
    transfer: Option<Transfer>,
    links: Links,
    delay: Duration,
    alive: bool,
    silent: bool,
    liar: bool,
    /// What reached a silent node; it is read when the node wakes.
    unread: VecDeque<Happening>,
    tick_at: Option<Time>,
    report: NodeReport,
}

struct Swarm<'a> {
    scenario: &'a Scenario,
    geometry: Geometry,
    random: Random,
    now: Time,
    sequence: u64,
    queue: BinaryHeap<Reverse<(Time, u64, usize)>>,
    happenings: BTreeMap<u64, Happening>,
    nodes: Vec<Node>,
    /// Live connections by (smaller, larger) node, with a number that tells them from earlier ones.
    connections: BTreeMap<(usize, usize), u64>,
    connection_count: u64,
    checker: Checker,
    digest: u64,
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
        happenings: BTreeMap::new(),
        nodes: Vec::new(),
        connections: BTreeMap::new(),
        connection_count: 0,
        checker: Checker::new(scenario),
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
                unread: VecDeque::new(),
                tick_at: None,
                report: NodeReport::default(),
            });
            self.at(Time::from_start(plan.joins), index, Happening::Join);
            for fault in &plan.faults {
                match *fault {
                    Fault::Crash { at }
                    | Fault::Slow { at, .. }
                    | Fault::Silence { from: at, .. } => {
                        self.at(Time::from_start(at), index, Happening::Fault(*fault));
                    }
                    Fault::Liar => {}
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

    fn at(&mut self, time: Time, node: usize, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse((time, self.sequence, node)));
        self.happenings.insert(self.sequence, happening);
    }

    fn play(&mut self) {
        let ends = Time::from_start(self.scenario.ends);
        let mut events = 0;
        while let Some(Reverse((time, sequence, node))) = self.queue.pop() {
            let happening = self
                .happenings
                .remove(&sequence)
                .expect("queued once, taken once");
            if time > ends {
                break;
            }
            events += 1;
            if events > EVENTS_MAX {
                self.checker.on_restless(events);
                break;
            }
            self.now = time;
            self.note(node, &happening);
            self.happen(node, happening);
            if self.all_sound_nodes_finished() {
                break;
            }
        }
    }

    fn all_sound_nodes_finished(&self) -> bool {
        let plans = self.scenario.nodes.iter();
        plans
            .zip(&self.nodes)
            .all(|(plan, node)| !plan.is_sound() || node.report.finished.is_some())
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
        let (kind, detail) = match happening {
            Happening::Join => (0, 0),
            Happening::Fault(_) => (1, 0),
            Happening::Wake => (2, 0),
            Happening::Tick => (3, 0),
            Happening::Message { from, .. } => (4, *from as u64),
            Happening::SliceSent(slice) => (5, u64::from(slice.piece.get())),
            Happening::SliceHere { slice, .. } => (6, u64::from(slice.piece.get())),
            Happening::Checked { piece, .. } => (7, u64::from(piece.get())),
            Happening::Connected { peer, .. } => (8, *peer as u64),
            Happening::DialFailed { peer } => (9, *peer as u64),
            Happening::Closed { peer, .. } => (10, *peer as u64),
            Happening::Found(peers) => (11, peers.len() as u64),
            Happening::ServiceStopped { piece, .. } => (12, u64::from(piece.get())),
        };
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
            self.nodes[node].report.finished = Some(Duration::ZERO);
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
            Fault::Crash { .. } => {
                self.nodes[node].alive = false;
                self.nodes[node].transfer = None;
                self.nodes[node].unread.clear();
                self.stop_services(node, |_| true);
                let pairs: Vec<(usize, usize)> = self.connections.keys().copied().collect();
                for (a, b) in pairs.into_iter().filter(|(a, b)| *a == node || *b == node) {
                    let peer = if a == node { b } else { a };
                    self.close(node, peer, DownCause::Closed);
                }
            }
            Fault::Silence { .. } => self.nodes[node].silent = true,
            Fault::Slow { up_per_sec, .. } => self.nodes[node].links.up_per_sec = up_per_sec,
            Fault::Liar => {}
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

    // -- connections ------------------------------------------------------------------------------

    fn is_live(&self, a: usize, b: usize, connection: u64) -> bool {
        self.connections.get(&(a.min(b), a.max(b))) == Some(&connection)
    }

    fn delay(&self, a: usize, b: usize) -> Duration {
        self.nodes[a].delay + self.nodes[b].delay
    }

    fn connect(&mut self, node: usize, peer: usize) {
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
    fn close(&mut self, node: usize, peer: usize, cause: DownCause) {
        if let Some(connection) = self.connections.remove(&(node.min(peer), node.max(peer))) {
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

    // -- bytes ------------------------------------------------------------------------------------

    fn stop_services(&mut self, node: usize, gone: impl Fn(&Service) -> bool) {
        for service in self.nodes[node].links.end_services(gone) {
            self.at(
                self.now,
                node,
                Happening::ServiceStopped {
                    to: service.to,
                    piece: service.piece,
                },
            );
        }
    }

    fn send_next_slice(&mut self, node: usize) {
        if self.nodes[node].links.busy || self.nodes[node].silent {
            return;
        }
        if let Some((slice, takes)) = self.nodes[node].links.next_slice() {
            self.nodes[node].links.busy = true;
            self.at(self.now + takes, node, Happening::SliceSent(slice));
        }
    }

    fn slice_sent(&mut self, node: usize, slice: Slice) {
        self.nodes[node].links.busy = false;
        self.nodes[node].report.sent += u64::from(slice.bytes);
        if self.is_live(node, slice.to, slice.connection) {
            let at = self.now + self.delay(node, slice.to);
            let passed = self.nodes[slice.to].links.pass_down(at, slice.bytes);
            self.at(passed, slice.to, Happening::SliceHere { from: node, slice });
        }
        let peer = key(slice.to);
        self.input(
            node,
            Input::Sent {
                peer,
                piece: slice.piece,
                bytes: slice.bytes,
            },
        );
        if slice.whole {
            self.input(
                node,
                Input::ServiceEnded {
                    peer,
                    piece: slice.piece,
                    how: ServiceEnd::Whole,
                },
            );
        }
        self.send_next_slice(node);
    }

    fn slice_here(&mut self, node: usize, from: usize, slice: Slice) {
        if !self.is_live(node, from, slice.connection) || !self.nodes[node].alive {
            return;
        }
        let Slice {
            piece,
            bytes,
            connection,
            whole,
            ..
        } = slice;
        self.nodes[from].links.passed(node, piece);
        self.send_next_slice(from);
        self.nodes[node].report.received += u64::from(bytes);
        self.input(
            node,
            Input::Received {
                peer: key(from),
                piece,
                bytes,
            },
        );
        if whole {
            self.input(
                node,
                Input::PieceArrived {
                    peer: key(from),
                    piece,
                },
            );
            self.at(
                self.now + DISK,
                node,
                Happening::Checked {
                    from,
                    connection,
                    piece,
                },
            );
        }
    }

    fn checked(&mut self, node: usize, from: usize, connection: u64, piece: PieceIndex) {
        if !self.nodes[node].alive {
            return;
        }
        if self.nodes[from].liar {
            // Once the first bad piece has ended the session, the rest of it is dropped unseen.
            if !self.is_live(node, from, connection) {
                self.input(
                    node,
                    Input::PieceCorrupt {
                        peer: key(from),
                        piece,
                    },
                );
                return;
            }
            let bad_pieces = &mut self.nodes[node].report.bad_pieces;
            let at = bad_pieces
                .iter()
                .position(|(liar, _)| *liar == from)
                .unwrap_or_else(|| {
                    bad_pieces.push((from, 0));
                    bad_pieces.len() - 1
                });
            bad_pieces[at].1 += 1;
            let taken = bad_pieces[at].1;
            self.checker.on_bad_piece(node, from, taken);
            self.input(
                node,
                Input::PieceCorrupt {
                    peer: key(from),
                    piece,
                },
            );
            return;
        }
        if self.checker.on_stored(node, piece) {
            self.nodes[node].report.kept += u64::from(self.geometry.len_of(piece));
        }
        self.input(
            node,
            Input::PieceStored {
                peer: key(from),
                piece,
            },
        );
    }

    // -- engines ----------------------------------------------------------------------------------

    fn input(&mut self, node: usize, input: Input) {
        let Some(transfer) = &mut self.nodes[node].transfer else {
            return;
        };
        transfer.handle(self.now, input);
        while let Some(output) = self.nodes[node]
            .transfer
            .as_mut()
            .and_then(Transfer::poll_output)
        {
            self.perform(node, output);
        }
        let Some(transfer) = &self.nodes[node].transfer else {
            return;
        };
        if let Some(at) = transfer.poll_timeout(self.now) {
            let at = at.max(self.now + Duration::from_micros(1));
            if self.nodes[node].tick_at.is_none_or(|earlier| at < earlier) {
                self.nodes[node].tick_at = Some(at);
                self.at(at, node, Happening::Tick);
            }
        }
    }

    fn perform(&mut self, node: usize, output: Output) {
        match output {
            Output::Send { peer, message } => {
                let peer = index(peer);
                self.checker.on_send(node, peer, &message);
                if let Some(connection) = self
                    .connections
                    .get(&(node.min(peer), node.max(peer)))
                    .copied()
                {
                    let happening = Happening::Message {
                        from: node,
                        connection,
                        message,
                    };
                    self.at(self.now + self.delay(node, peer), peer, happening);
                }
            }
            Output::Serve { peer, piece } => {
                let to = index(peer);
                self.checker.on_serve(node, piece);
                let Some(connection) = self.connections.get(&(node.min(to), node.max(to))).copied()
                else {
                    return;
                };
                let len = self.geometry.len_of(piece);
                let down_per_sec = self.nodes[to].links.down_per_sec;
                let service = Service {
                    to,
                    connection,
                    piece,
                    len,
                    sent: 0,
                    down_per_sec,
                    unpassed: 0,
                };
                self.nodes[node].links.serve(service);
                self.send_next_slice(node);
            }
            Output::StopServing { peer, piece } => {
                let to = index(peer);
                self.stop_services(node, |service| service.to == to && service.piece == piece);
            }
            Output::Connect { peer } => self.connect(node, index(peer)),
            Output::Disconnect { peer, .. } => self.close(node, index(peer), DownCause::Left),
            Output::FindPeers => self.find_peers(node),
            Output::Event(event) => self.told(node, event),
        }
    }

    fn find_peers(&mut self, node: usize) {
        let mut found: Vec<usize> = (0..self.nodes.len())
            .filter(|peer| {
                *peer != node && self.scenario.nodes[*peer].joins <= self.now.since_start()
            })
            .collect();
        while found.len() > FOUND_MAX {
            let at = self.random.random_range(0..found.len());
            found.swap_remove(at);
        }
        self.at(self.now + SEARCH, node, Happening::Found(found));
    }

    fn told(&mut self, node: usize, event: Event) {
        let now = self.now.since_start();
        if event == Event::Completed {
            self.nodes[node].report.finished = Some(now);
        }
        self.nodes[node].report.events.push((now, event));
    }
}

fn key(node: usize) -> PeerKey {
    PeerKey(u32::try_from(node).expect("a simulated swarm has fewer than 2^32 nodes"))
}

fn index(peer: PeerKey) -> usize {
    peer.0 as usize
}
