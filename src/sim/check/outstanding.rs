//! A piece is asked of few peers at once, and a peer is asked for a bounded number of pieces.
//!
//! A peer that was silent for [`SILENCE_MIN`] may have been given up as suspect and does not count as
//! asked any more, though it may still answer.

use std::collections::BTreeMap;

use super::truth::Truth;
use super::{Broken, Check, Fact, Findings, Way, pieces_of};
use crate::content::PieceIndex;
use crate::engine::Time;
use crate::engine::tuning::{ASKED_MAX, REQUESTS_MAX, SILENCE_MIN};
use crate::wire::ShareMessage;

/// A request without an answer.
#[derive(Clone, Copy, Debug)]
struct Owed {
    /// On which it was sent.
    way: Way,
    /// The asker has had reason to give the peer up as silent since.
    is_given_up: bool,
}

/// Requests without an answer.
#[derive(Debug)]
pub(super) struct Outstanding {
    /// By asker and piece.
    owed: Vec<BTreeMap<u32, Vec<Owed>>>,
    /// How many, by the way on which they were sent.
    counts: Vec<u32>,
    /// When something last came, by way.
    heard: Vec<Time>,
}

impl Outstanding {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            owed: vec![BTreeMap::new(); nodes],
            counts: Vec::new(),
            heard: Vec::new(),
        }
    }

    fn on_request(&mut self, now: Time, way: Way, piece: PieceIndex, findings: &mut Findings) {
        let (node, piece) = (way.from, piece.get());
        let owed = self.owed[node].entry(piece).or_default();
        if owed.iter().any(|owed| owed.way == way) {
            return;
        }
        owed.push(Owed {
            way,
            is_given_up: false,
        });
        let is_relied = |owed: &&Owed| {
            let heard = self.heard[owed.way.back().index()];
            !owed.is_given_up && now.duration_since(heard) < SILENCE_MIN
        };
        if owed.iter().filter(is_relied).count() > ASKED_MAX {
            findings.add(Broken::AskedOfTooMany { node, piece });
        }
        let count = &mut self.counts[way.index()];
        *count += 1;
        if *count > REQUESTS_MAX {
            let peer = way.to;
            findings.add(Broken::AskedTooMuch { node, peer });
        }
    }

    /// What was asked on `way` is owed no longer.
    fn forget(&mut self, way: Way, piece: PieceIndex) {
        let Some(owed) = self.owed[way.from].get_mut(&piece.get()) else {
            return;
        };
        if let Some(at) = owed.iter().position(|owed| owed.way == way) {
            owed.swap_remove(at);
            self.counts[way.index()] -= 1;
        }
        if owed.is_empty() {
            self.owed[way.from].remove(&piece.get());
        }
    }
}

impl Check for Outstanding {
    fn on(&mut self, now: Time, fact: &Fact<'_>, _: &Truth, findings: &mut Findings) {
        match *fact {
            Fact::Connected { connection } => {
                let ways = self.heard.len().max(connection as usize * 2 + 2);
                self.heard.resize(ways, now);
                self.counts.resize(ways, 0);
            }
            Fact::Closed { connection, ends } => {
                for node in ends {
                    self.owed[node].retain(|_, owed| {
                        owed.retain(|owed| owed.way.connection != connection);
                        !owed.is_empty()
                    });
                }
            }
            Fact::Heard { way, message } => {
                let before = std::mem::replace(&mut self.heard[way.index()], now);
                if now.duration_since(before) >= SILENCE_MIN {
                    let owed = self.owed[way.to].values_mut().flatten();
                    for owed in owed.filter(|owed| owed.way == way.back()) {
                        owed.is_given_up = true;
                    }
                }
                match message {
                    Some(ShareMessage::Reject { piece, .. }) => {
                        self.forget(way.back(), PieceIndex::new(*piece));
                    }
                    // Who takes a piece back will not send it.
                    Some(ShareMessage::DontHave { runs }) => {
                        pieces_of(runs).for_each(|piece| self.forget(way.back(), piece));
                    }
                    _ => {}
                }
            }
            Fact::Said { way, message } => match message {
                ShareMessage::Request { runs } => {
                    pieces_of(runs).for_each(|piece| self.on_request(now, way, piece, findings));
                }
                ShareMessage::Cancel { runs } => {
                    pieces_of(runs).for_each(|piece| self.forget(way, piece));
                }
                _ => {}
            },
            Fact::Stored { node, piece } => {
                for owed in self.owed[node].remove(&piece.get()).unwrap_or_default() {
                    self.counts[owed.way.index()] -= 1;
                }
            }
            Fact::Spoiled { way, piece, .. } => self.forget(way.back(), piece),
            Fact::Serves { .. }
            | Fact::Speaks { .. }
            | Fact::Doubted { .. }
            | Fact::Reread { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PEER_TO_SEED, request, scenario};
    use super::*;

    /// The findings after node 1 asks each of `peers` for piece 0 over connections of their own.
    fn asked_of(peers: usize, heard_at: u64) -> Vec<Broken> {
        let mut outstanding = Outstanding::new(peers + 2);
        let truth = Truth::new(&scenario());
        let mut findings = Findings::default();
        let now = Time::from_start(std::time::Duration::from_millis(heard_at));
        for peer in 0..peers {
            let connection = peer as u32;
            let to = if peer == 0 { 0 } else { peer + 1 };
            let way = Way {
                connection,
                from: 1,
                to,
            };
            let met = Fact::Connected { connection };
            outstanding.on(Time::default(), &met, &truth, &mut findings);
            let message = &request(0);
            outstanding.on(now, &Fact::Said { way, message }, &truth, &mut findings);
        }
        findings.0
    }

    #[test]
    fn a_piece_asked_of_one_peer_too_many_is_found() {
        assert_eq!(asked_of(ASKED_MAX, 10), []);
        let expected = [Broken::AskedOfTooMany { node: 1, piece: 0 }];
        assert_eq!(asked_of(ASKED_MAX + 1, 10), expected);
        let silent = SILENCE_MIN.as_millis() as u64;
        assert_eq!(
            asked_of(ASKED_MAX + 1, silent),
            [],
            "who is silent is given up"
        );
    }

    #[test]
    fn a_peer_asked_for_one_piece_too_many_is_found() {
        let mut outstanding = Outstanding::new(2);
        let truth = Truth::new(&scenario());
        let mut findings = Findings::default();
        let met = Fact::Connected { connection: 0 };
        outstanding.on(Time::default(), &met, &truth, &mut findings);
        for piece in 0..=REQUESTS_MAX {
            assert_eq!(findings.0, []);
            let (way, message) = (PEER_TO_SEED, &request(piece));
            let said = Fact::Said { way, message };
            outstanding.on(Time::default(), &said, &truth, &mut findings);
        }
        assert_eq!(findings.0, [Broken::AskedTooMuch { node: 1, peer: 0 }]);
    }
}
