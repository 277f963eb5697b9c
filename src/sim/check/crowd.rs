//! Nobody speaks with more peers than allowed.

use super::truth::Truth;
use super::{Broken, Check, Fact, Findings};
use crate::engine::Time;
use crate::engine::tuning::PEERS_MAX;

#[derive(Debug)]
pub(super) struct Crowd;

impl Check for Crowd {
    fn on(&mut self, _: Time, fact: &Fact<'_>, _: &Truth, findings: &mut Findings) {
        if let Fact::Speaks { node, peers } = fact
            && *peers > PEERS_MAX
        {
            findings.add(Broken::Crowded { node: *node });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::found;
    use super::*;

    #[test]
    fn one_peer_more_than_allowed_is_found() {
        let speaks = |peers| Fact::Speaks { node: 1, peers };
        assert_eq!(found(&[speaks(PEERS_MAX)]), []);
        assert_eq!(
            found(&[speaks(PEERS_MAX + 1)]),
            [Broken::Crowded { node: 1 }]
        );
    }
}
