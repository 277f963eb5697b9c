//! What the engines of a simulated swarm ask for is done, and what comes of it is told to them.
//!
//! The bytes on the links and the outputs of the engines; the queue and the lives of the nodes are in
//! `swarm`, which calls this.

use std::time::Duration;

use rand::RngExt;

use super::happening::Happening;
use super::network::{Service, Slice};
use super::swarm::{DISK, FOUND_MAX, SEARCH, Swarm, index, key};
use crate::content::PieceIndex;
use crate::engine::{DownCause, Event, Input, Output, ServiceEnd, Transfer};
use crate::wire::ShareMessage;

impl Swarm<'_> {
    // -- bytes ------------------------------------------------------------------------------------

    pub(super) fn stop_services(&mut self, node: usize, gone: impl Fn(&Service) -> bool) {
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

    pub(super) fn slice_here(&mut self, node: usize, from: usize, slice: Slice) {
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
        self.nodes[from].links.passed(connection);
        self.send_next_slice(from);
        self.checker.on_heard(self.now, node, from);
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

    pub(super) fn checked(&mut self, node: usize, from: usize, connection: u64, piece: PieceIndex) {
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
            self.checker.on_bad_piece(node, from, piece, taken);
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

    pub(super) fn input(&mut self, node: usize, input: Input) {
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

    pub(super) fn perform(&mut self, node: usize, output: Output) {
        match output {
            Output::Send { peer, message } => {
                let peer = index(peer);
                if self.nodes[node].rides_free && says_what_is_held(&message) {
                    return;
                }
                let is_live = self
                    .connections
                    .contains_key(&(node.min(peer), node.max(peer)));
                let live = is_live.then_some(self.now);
                self.checker.on_send(node, peer, live, &message);
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
                let delay = self.delay(node, to);
                let service = Service {
                    to,
                    connection,
                    piece,
                    len,
                    sent: 0,
                    down_per_sec,
                    delay,
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

    pub(super) fn find_peers(&mut self, node: usize) {
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

    pub(super) fn finished(&mut self, node: usize, now: Duration) {
        let first_time = self.nodes[node].report.finished.replace(now).is_none();
        self.unfinished -= usize::from(first_time && self.scenario.nodes[node].is_sound());
    }

    pub(super) fn told(&mut self, node: usize, event: Event) {
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

fn says_what_is_held(message: &ShareMessage) -> bool {
    matches!(
        message,
        ShareMessage::Have { .. } | ShareMessage::HaveAll | ShareMessage::Bitfield { .. }
    )
}
