//! Short names of peers: `12D3..k7`, the id's beginning and as much of its end as tells it apart.
//!
//! All ids of our kind begin alike, so the end is what people compare. A name given is kept: the same peer is never
//! called two things in one run. Called by `lanes` and `narrator`.

use std::collections::{BTreeSet, HashMap};

use crate::content::PeerId;

/// Characters of the beginning that are shown.
const HEAD_LEN: usize = 4;
/// Fewest characters of the end that are shown.
const TAIL_LEN_MIN: usize = 2;
/// Peers whose names are kept; strangers beyond get long names that are made again each time. A remote can come with
/// any number of ids.
const NAMES_MAX: usize = 4096;
/// Characters of the end for a peer beyond those: enough that two hardly ever meet.
const TAIL_LEN_BEYOND: usize = 8;

/// The names given so far.
#[derive(Debug, Default)]
pub struct Names {
    given: HashMap<PeerId, String>,
    taken: BTreeSet<String>,
}

impl Names {
    /// The name of `peer`: one it has, or the shortest that no other has.
    pub fn of(&mut self, peer: &PeerId) -> String {
        if let Some(name) = self.given.get(peer) {
            return name.clone();
        }
        let id = peer.to_base58();
        if self.given.len() >= NAMES_MAX {
            return shortened(&id, TAIL_LEN_BEYOND);
        }
        let name = (TAIL_LEN_MIN..id.len())
            .map(|tail_len| shortened(&id, tail_len))
            .find(|name| !self.taken.contains(name))
            .unwrap_or(id);
        self.taken.insert(name.clone());
        self.given.insert(*peer, name.clone());
        name
    }
}

/// Beginning and end of an id, which is ASCII.
fn shortened(id: &str, tail_len: usize) -> String {
    let (head, rest) = id.split_at(HEAD_LEN.min(id.len()));
    let tail = &rest[rest.len().saturating_sub(tail_len)..];
    format!("{head}..{tail}")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::content::Digest;

    /// A peer whose id is the same in every run.
    pub(in crate::tui) fn peer(number: u8) -> PeerId {
        // The identity multihash of an Ed25519 public key in its protobuf form, as in the peer id specification.
        let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
        bytes.extend(Digest::of(&[number]).as_bytes());
        PeerId::from_bytes(&bytes).expect("the bytes follow the specification")
    }

    #[test]
    fn a_name_is_beginning_and_end_of_the_id() {
        let id = peer(7).to_base58();
        let expected = format!("12D3..{}", &id[id.len() - 2..]);
        assert_eq!(Names::default().of(&peer(7)), expected);
    }

    #[test]
    fn no_two_peers_share_a_name_and_each_keeps_its_own() {
        let mut names = Names::default();
        let first: Vec<_> = (0..=255).map(|number| names.of(&peer(number))).collect();
        let distinct: BTreeSet<_> = first.iter().collect();
        assert_eq!(distinct.len(), 256);
        assert!(
            first.iter().any(|name| name.len() > 8),
            "256 peers meet in two characters"
        );
        let again: Vec<_> = (0..=255).map(|number| names.of(&peer(number))).collect();
        assert_eq!(first, again);
    }
}
