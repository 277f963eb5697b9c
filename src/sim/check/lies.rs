//! At most one bad piece is taken from an identity.

use super::truth::Truth;
use super::{Broken, Check, Fact, Findings};
use crate::engine::Time;

#[derive(Debug)]
pub(super) struct Lies;

impl Check for Lies {
    fn on(&mut self, _: Time, fact: &Fact<'_>, _: &Truth, findings: &mut Findings) {
        if let Fact::Spoiled {
            way, taken: 2.., ..
        } = fact
        {
            findings.add(Broken::TrustedLiarTwice {
                node: way.to,
                liar: way.from,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{SEED_TO_PEER, found};
    use super::*;
    use crate::content::PieceIndex;

    #[test]
    fn the_second_bad_piece_from_one_peer_is_found() {
        let spoiled = |taken| Fact::Spoiled {
            way: SEED_TO_PEER,
            piece: PieceIndex::new(taken),
            taken,
        };
        assert_eq!(found(&[spoiled(1)]), []);
        let expected = [Broken::TrustedLiarTwice { node: 1, liar: 0 }];
        assert_eq!(found(&[spoiled(1), spoiled(2)]), expected);
    }
}
