//! Who holds what, by what was verified; and the rule that nobody shows what it does not hold.

use super::{Broken, Check, Fact, Findings, told};
use crate::content::{Bitfield, PieceIndex};
use crate::engine::Time;
use crate::sim::scenario::{Fault, Scenario};

/// Who holds what.
#[derive(Debug)]
pub(super) struct Truth {
    held: Vec<Bitfield>,
    /// Pieces that were held and are being read again.
    doubted: Vec<Bitfield>,
    /// Nodes that are there to lie about what they hold.
    have_liars: Vec<bool>,
}

impl Truth {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let count = scenario.piece_count;
        let held = |seed| {
            if seed {
                Bitfield::full(count)
            } else {
                Bitfield::new(count)
            }
        };
        let is_have_liar = |faults: &[Fault]| {
            let is = |fault: &Fault| matches!(fault, Fault::HaveLiar { .. });
            faults.iter().any(is)
        };
        let nodes = scenario.nodes.iter();
        Self {
            held: nodes.clone().map(|node| held(node.seed)).collect(),
            doubted: nodes.clone().map(|_| Bitfield::new(count)).collect(),
            have_liars: nodes.map(|node| is_have_liar(&node.faults)).collect(),
        }
    }

    pub(super) fn on(&mut self, fact: &Fact<'_>) {
        match fact {
            Fact::Stored { node, piece } => drop(self.held[*node].insert(*piece)),
            Fact::Doubted { node, piece } if self.held[*node].remove(*piece) => {
                self.doubted[*node].insert(*piece);
            }
            Fact::Reread { node, piece } if self.doubted[*node].remove(*piece) => {
                self.held[*node].insert(*piece);
            }
            _ => {}
        }
    }

    pub(super) fn doubted(&self, node: usize) -> &Bitfield {
        &self.doubted[node]
    }

    pub(super) fn held(&self, node: usize) -> &Bitfield {
        &self.held[node]
    }
}

/// Nobody serves or announces a piece that it does not hold verified.
#[derive(Debug)]
pub(super) struct Holding;

impl Check for Holding {
    fn on(&mut self, _: Time, fact: &Fact<'_>, truth: &Truth, findings: &mut Findings) {
        match fact {
            Fact::Serves { node, piece } if !truth.held(*node).contains(*piece) => {
                findings.add(Broken::ServedUnheld {
                    node: *node,
                    piece: piece.get(),
                });
            }
            Fact::Said { way, message } if !truth.have_liars[way.from] => {
                let held = truth.held(way.from);
                let mut check = |piece: PieceIndex| {
                    if !held.contains(piece) {
                        findings.add(Broken::AnnouncedUnheld {
                            node: way.from,
                            piece: piece.get(),
                        });
                    }
                };
                told(message, held.len(), &mut check);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PEER_TO_SEED, found};
    use super::*;
    use crate::wire::{Run, ShareMessage};

    const PIECE: PieceIndex = PieceIndex::new(3);

    #[test]
    fn a_piece_served_or_announced_before_it_is_stored_is_found() {
        let serves = Fact::Serves {
            node: 1,
            piece: PIECE,
        };
        let have = ShareMessage::Have {
            runs: vec![Run::one(PIECE)],
        };
        let says = Fact::Said {
            way: PEER_TO_SEED,
            message: &have,
        };
        let expected = [
            Broken::ServedUnheld { node: 1, piece: 3 },
            Broken::AnnouncedUnheld { node: 1, piece: 3 },
        ];
        assert_eq!(found(&[serves, says]), expected);
        let stored = Fact::Stored {
            node: 1,
            piece: PIECE,
        };
        assert_eq!(found(&[stored, serves, says]), []);
    }

    #[test]
    fn a_piece_served_while_it_is_read_again_is_found() {
        let (node, piece) = (0, PIECE);
        let doubted = Fact::Doubted { node, piece };
        let serves = Fact::Serves { node, piece };
        let expected = [Broken::ServedUnheld { node: 0, piece: 3 }];
        assert_eq!(found(&[doubted, serves]), expected);
        let reread = Fact::Reread { node, piece };
        assert_eq!(found(&[doubted, reread, serves]), []);
    }

    #[test]
    fn a_bitfield_with_one_bit_too_many_is_found() {
        let bitfield = ShareMessage::Bitfield {
            first: 0,
            bytes: vec![0x10],
        };
        let says = Fact::Said {
            way: PEER_TO_SEED,
            message: &bitfield,
        };
        assert_eq!(
            found(&[says]),
            [Broken::AnnouncedUnheld { node: 1, piece: 3 }]
        );
    }
}
