//! Nobody asks for what it holds, or asks a peer for what that peer neither announced nor suggested.

use super::truth::Truth;
use super::{Broken, Check, Fact, Findings, pieces_of, told};
use crate::content::{Bitfield, PieceIndex};
use crate::engine::Time;
use crate::wire::ShareMessage;

/// What each way of each connection was told.
#[derive(Debug)]
pub(super) struct Asking {
    /// By way; empty once the connection is closed.
    announced: Vec<Option<Bitfield>>,
    piece_count: u32,
}

impl Asking {
    pub(super) fn new(piece_count: u32) -> Self {
        Self {
            announced: Vec::new(),
            piece_count,
        }
    }
}

impl Check for Asking {
    fn on(&mut self, _: Time, fact: &Fact<'_>, truth: &Truth, findings: &mut Findings) {
        match fact {
            Fact::Connected { connection } => {
                let at = *connection as usize * 2;
                self.announced
                    .resize(self.announced.len().max(at + 2), None);
                let nothing = Bitfield::new(self.piece_count);
                self.announced[at..at + 2].fill(Some(nothing));
            }
            Fact::Closed { connection, .. } => {
                let at = *connection as usize * 2;
                self.announced[at..at + 2].fill(None);
            }
            Fact::Said { way, message } => {
                if let Some(bits) = &mut self.announced[way.index()] {
                    told(message, self.piece_count, |piece| {
                        bits.insert(piece);
                    });
                    if let ShareMessage::Suggest { piece } = message {
                        bits.insert(PieceIndex::new(*piece));
                    }
                }
                let ShareMessage::Request { runs } = message else {
                    return;
                };
                let (node, peer) = (way.from, way.to);
                let announced = self.announced[way.back().index()].as_ref();
                for piece in pieces_of(runs) {
                    let is_here = truth.held(node).contains(piece);
                    if is_here || truth.doubted(node).contains(piece) {
                        let piece = piece.get();
                        findings.add(Broken::AskedHeld { node, piece });
                    }
                    if announced.is_some_and(|bits| !bits.contains(piece)) {
                        let piece = piece.get();
                        findings.add(Broken::AskedUnannounced { node, peer, piece });
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PEER_TO_SEED, SEED_TO_PEER, found, request};
    use super::*;

    #[test]
    fn asking_for_what_one_holds_or_the_other_never_announced_is_found() {
        let message = &request(2);
        let seed_asks = Fact::Said {
            way: SEED_TO_PEER,
            message,
        };
        let expected = [
            Broken::AskedHeld { node: 0, piece: 2 },
            Broken::AskedUnannounced {
                node: 0,
                peer: 1,
                piece: 2,
            },
        ];
        assert_eq!(found(&[seed_asks]), expected);
        let peer_asks = Fact::Said {
            way: PEER_TO_SEED,
            message,
        };
        assert_eq!(found(&[peer_asks]), []);
    }

    #[test]
    fn what_was_announced_on_an_earlier_connection_does_not_count() {
        let message = &request(2);
        let way = super::super::Way {
            connection: 1,
            ..PEER_TO_SEED
        };
        let facts = [
            Fact::Closed {
                connection: 0,
                ends: [0, 1],
            },
            Fact::Connected { connection: 1 },
            Fact::Said { way, message },
        ];
        let expected = [Broken::AskedUnannounced {
            node: 1,
            peer: 0,
            piece: 2,
        }];
        assert_eq!(found(&facts), expected);
    }
}
