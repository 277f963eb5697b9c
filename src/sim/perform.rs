//! What the engines of a simulated swarm ask for is done, and what comes of it is told to them.
//!
//! The bytes on the links and the outputs of the engines; the queue and the lives of the nodes are in
//! `swarm`, which calls this.

use std::time::Duration;

use rand::RngExt;

use super::check::{Fact, Way};
use super::happening::{Arrival, ConnectionId, Happening};
use super::network::{Path, Service, Slice, window_under_loss};
use super::report::GOODPUT_SLOT;
use super::swarm::{Machine, Swarm, index, key};
use crate::content::PieceIndex;
use crate::engine::{DownCause, Event, Input, Output, PeerKey, ServiceEnd};
use crate::wire::{RejectReason, ShareMessage};

/// How long a search for peers takes, and how many it finds.
const SEARCH: Duration = Duration::from_millis(100);
const FOUND_MAX: usize = 20;

impl<M: Machine> Swarm<'_, M> {
    // -- bytes ------------------------------------------------------------------------------------

    pub(super) fn stop_services(&mut self, node: usize, gone: impl Fn(&Service) -> bool) {
        for service in self.nodes[node].links.end_services(gone) {
            let Service { to, piece, .. } = service;
            self.at(self.now, node, Happening::ServiceStopped { to, piece });
        }
    }

    pub(super) fn send_next_slice(&mut self, node: usize) {
        if self.nodes[node].links.busy || self.nodes[node].silent {
            return;
        }
        if let Some((slice, takes)) = self.nodes[node].links.next_slice() {
            self.nodes[node].links.busy = true;
            self.at(self.now + takes, node, Happening::SliceSent(slice));
        }
    }

    pub(super) fn slice_sent(&mut self, node: usize, slice: Slice) {
        let Slice {
            to,
            connection,
            piece,
            bytes,
            whole,
        } = slice;
        self.nodes[node].links.busy = false;
        self.nodes[node].report.sent += u64::from(bytes);
        if self.connections[connection as usize].is_live {
            let at = self.now + self.delay(node, to as usize);
            let passed = self.nodes[to as usize].links.pass_down(at, bytes);
            let what = Arrival::Slice(slice);
            let happening = Happening::Arrival { connection, what };
            self.at(passed, to as usize, happening);
        }
        let peer = PeerKey(to);
        self.input(node, Input::Sent { peer, piece, bytes });
        if whole {
            let how = ServiceEnd::Whole;
            self.input(node, Input::ServiceEnded { peer, piece, how });
        }
        self.send_next_slice(node);
    }

    pub(super) fn slice_here(&mut self, node: usize, from: usize, slice: Slice) {
        let Slice {
            piece,
            bytes,
            connection,
            whole,
            ..
        } = slice;
        self.nodes[from].links.passed(connection);
        self.send_next_slice(from);
        let way = Way {
            connection,
            from,
            to: node,
        };
        let heard = Fact::Heard { way, message: None };
        self.checks.on(self.now, &heard);
        self.nodes[node].report.received += u64::from(bytes);
        if !self.is_near(node, from) {
            self.nodes[node].report.from_afar += u64::from(bytes);
        }
        if self.scenario.watched == Some(node) {
            let slot = (self.now.since_start().as_millis() / GOODPUT_SLOT.as_millis()) as usize;
            self.goodput.resize(self.goodput.len().max(slot + 1), 0);
            self.goodput[slot] += u64::from(bytes);
        }
        let peer = key(from);
        self.input(node, Input::Received { peer, piece, bytes });
        if whole {
            self.input(node, Input::PieceArrived { peer, piece });
            let at = self.now + self.scenario.nodes[node].disk;
            self.at(at, node, Happening::Checked { connection, piece });
        }
    }

    pub(super) fn checked(&mut self, node: usize, connection: ConnectionId, piece: PieceIndex) {
        if !self.nodes[node].alive {
            return;
        }
        let from = self.other_end(connection, node);
        let peer = key(from);
        if self.nodes[from].liar {
            // Once the first bad piece has ended the session, the rest of it is dropped unseen.
            if self.connections[connection as usize].is_live {
                self.note_bad_piece(node, from, connection, piece);
            }
            self.input(node, Input::PieceCorrupt { peer, piece });
            return;
        }
        if !self.checks.holds(node, piece) {
            self.nodes[node].report.kept += u64::from(self.geometry.len_of(piece));
            self.checks.on(self.now, &Fact::Stored { node, piece });
        }
        if !self.checks.is_doubted(node, piece) {
            self.input(node, Input::PieceStored { peer, piece });
        }
    }

    fn note_bad_piece(&mut self, node: usize, from: usize, at: ConnectionId, piece: PieceIndex) {
        let bad_pieces = &mut self.nodes[node].report.bad_pieces;
        let of_liar = bad_pieces.iter_mut().find(|(liar, _)| *liar == from);
        let taken = match of_liar {
            Some((_, taken)) => {
                *taken += 1;
                *taken
            }
            None => {
                bad_pieces.push((from, 1));
                1
            }
        };
        let way = Way {
            connection: at,
            from,
            to: node,
        };
        let spoiled = Fact::Spoiled { way, piece, taken };
        self.checks.on(self.now, &spoiled);
    }

    // -- engines ----------------------------------------------------------------------------------

    pub(super) fn input(&mut self, node: usize, input: Input) {
        let Some(machine) = &mut self.nodes[node].machine else {
            return;
        };
        machine.handle(self.now, input);
        while let Some(output) = self.nodes[node]
            .machine
            .as_mut()
            .and_then(Machine::poll_output)
        {
            self.perform(node, output);
        }
        let Some(machine) = &self.nodes[node].machine else {
            return;
        };
        if let Some(at) = machine.poll_timeout(self.now) {
            let at = at.max(self.now + Duration::from_micros(1));
            if self.nodes[node].tick_at.is_none_or(|earlier| at < earlier) {
                self.nodes[node].tick_at = Some(at);
                self.at(at, node, Happening::Tick);
            }
        }
    }

    fn perform(&mut self, node: usize, output: Output) {
        match output {
            Output::Send { peer, message } => self.send(node, index(peer), message),
            Output::Serve { peer, piece } => {
                self.checks.on(self.now, &Fact::Serves { node, piece });
                self.serve(node, peer.0, piece);
            }
            Output::StopServing { peer, piece } => {
                self.stop_services(node, |service| {
                    service.to == peer.0 && service.piece == piece
                });
            }
            Output::Connect { peer } => self.connect(node, index(peer)),
            Output::Disconnect { peer, .. } => self.close(node, index(peer), DownCause::Left),
            Output::FindPeers => self.find_peers(node),
            Output::Event(event) => self.told(node, event),
        }
    }

    fn serve(&mut self, node: usize, to: u32, piece: PieceIndex) {
        let Some(connection) = self.nodes[node].connections.get(&to).copied() else {
            return;
        };
        let peer = to as usize;
        let plans = &self.scenario.nodes;
        let path = Path {
            delay: self.delay(node, peer),
            down_per_sec: self.nodes[peer].links.down_per_sec,
            window: window_under_loss(plans[node].loss_ppm + plans[peer].loss_ppm),
        };
        self.nodes[node].links.serve(Service {
            to,
            connection,
            piece,
            len: self.geometry.len_of(piece),
            sent: 0,
            path,
        });
        self.send_next_slice(node);
    }

    /// Sends what the engine says, or what a liar makes of it.
    fn send(&mut self, node: usize, peer: usize, message: ShareMessage) {
        let Some(connection) = self.nodes[node].connections.get(&(peer as u32)).copied() else {
            return;
        };
        let message = match message {
            ShareMessage::Have { .. } | ShareMessage::HaveAll | ShareMessage::Bitfield { .. }
                if self.nodes[node].rides_free =>
            {
                return;
            }
            ShareMessage::Have { .. } if self.nodes[node].have_liar.is_some() => return,
            ShareMessage::HaveNone | ShareMessage::Bitfield { .. }
                if self.nodes[node].have_liar.is_some() =>
            {
                ShareMessage::HaveAll
            }
            message => message,
        };
        let way = Way {
            connection,
            from: node,
            to: peer,
        };
        let message_ref = &message;
        self.checks.on(
            self.now,
            &Fact::Said {
                way,
                message: message_ref,
            },
        );
        self.arrives(peer, connection, Arrival::Message(message));
    }

    /// What a node that claims everything makes of a request.
    pub(super) fn refuse(&mut self, node: usize, peer: usize, aloud: bool, message: &ShareMessage) {
        let ShareMessage::Request { runs } = message else {
            return;
        };
        let reason = RejectReason::NotHeld;
        for piece in runs.iter().flat_map(|run| run.first..run.first + run.count) {
            if aloud {
                self.send(node, peer, ShareMessage::Reject { piece, reason });
            }
        }
    }

    /// A search finds everybody of a small swarm, and some of a large one.
    fn find_peers(&mut self, node: usize) {
        let mut found: Vec<u32> = Vec::new();
        if self.joined.len() <= FOUND_MAX + 1 {
            found.extend(self.joined.iter().filter(|peer| **peer as usize != node));
        } else {
            while found.len() < FOUND_MAX {
                let peer = self.joined[self.random.random_range(0..self.joined.len())];
                if peer as usize != node && !found.contains(&peer) {
                    found.push(peer);
                }
            }
        }
        self.at(self.now + SEARCH, node, Happening::Found(found));
    }

    pub(super) fn finished(&mut self, node: usize, now: Duration) {
        let first_time = self.nodes[node].report.finished.replace(now).is_none();
        self.unfinished -= usize::from(first_time && self.scenario.nodes[node].is_sound());
    }

    fn told(&mut self, node: usize, event: Event) {
        let now = self.now.since_start();
        if event == Event::Completed {
            self.finished(node, now);
            if self.scenario.nodes[node].leaves {
                self.at(self.now, node, Happening::Left);
            }
        }
        self.nodes[node].report.events.push((now, event));
    }
}
