//! What surfaces read: the picture of a share at one moment, and what happened.
//!
//! Plain values; the share's actor makes them, surfaces only look. Names and agents in here come from
//! remotes and are hostile text: surfaces escape them. Nothing here is serialised; JSON shapes are in
//! `cli/output`.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::content::{Multiaddr, PeerId, ShareId, escape_hostile};

pub use crate::engine::{Cause, PeerActivity, StallCause};

/// What a share is occupied with. Scanning and hashing happen before a node knows the share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Looking for a peer that knows the share, and for its manifest and hashes.
    Find,
    /// Comparing files that are already there.
    Verify,
    /// Downloading.
    Fetch,
    /// All pieces are here; the last names are being given.
    Write,
    /// Everything is here; serving others.
    Seed,
}

/// How a peer is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// On this machine, over loopback.
    Local,
    /// On the local network: a private or link-local address.
    Lan,
    /// Any other address.
    Direct,
}

/// One connected peer of a share.
#[derive(Clone, Debug)]
pub struct PeerLane {
    /// Who.
    pub peer: PeerId,
    /// Where it is, without `/p2p/`.
    pub address: Multiaddr,
    /// How it is reached.
    pub via: Via,
    /// Its program, as it says: hostile text.
    pub agent: String,
    /// Part of the share it holds, 0 to 1.
    pub holds: f64,
    /// What it does for us.
    pub activity: PeerActivity,
    /// Pieces asked of it.
    pub asked: u32,
    /// Pieces it asked of us that wait or are being sent.
    pub waiting: u32,
    /// Bytes per second from it.
    pub down_per_sec: u64,
    /// Bytes per second to it.
    pub up_per_sec: u64,
    /// Piece bytes received from it.
    pub received: u64,
    /// Piece bytes sent to it.
    pub sent: u64,
}

/// A share at one moment.
#[derive(Clone, Debug)]
pub struct ShareStatus {
    /// Which share.
    pub share: ShareId,
    /// Its name, as the manifest or the link says; empty while unknown. Hostile text.
    pub name: String,
    /// What it is occupied with.
    pub phase: Phase,
    /// Bytes verified and stored, earlier runs included.
    pub bytes: u64,
    /// Of those, bytes of pieces of zeros: held from the beginning and sent by nobody. 0 for what is only seeded.
    pub zeros: u64,
    /// Of those, bytes that this run took from older files beside the target.
    pub reused: u64,
    /// Bytes in all; `None` while unknown.
    pub total: Option<u64>,
    /// Files in the share; `None` while unknown.
    pub files: Option<u32>,
    /// Bytes of files compared so far and to be compared, while the phase is [`Phase::Verify`].
    pub verified: (u64, u64),
    /// Piece bytes received in this run.
    pub downloaded: u64,
    /// Of those, bytes not kept.
    pub wasted: u64,
    /// Piece bytes sent in this run.
    pub uploaded: u64,
    /// Bytes per second received, over about 2 s.
    pub down_per_sec: u64,
    /// Bytes per second sent, over about 2 s.
    pub up_per_sec: u64,
    /// Expected time to completion; `None` when nothing arrives.
    pub eta: Option<Duration>,
    /// Copies of the share among us and the connected peers: whole ones plus the part of the next.
    pub availability: f64,
    /// Missing pieces that no connected peer holds.
    pub without_holder: u32,
    /// Pieces that others can have from us; `None` while the share is not open.
    pub offered: Option<u32>,
    /// Files of ours that changed, or are away, and are not offered whole.
    pub withheld_files: u32,
    /// How full each stretch of the share is, 0 to 255; at most 256 stretches of equal piece counts.
    pub map: Vec<u8>,
    /// Whether a peer waits for pieces, is being served, or took some just now.
    pub pulled: bool,
    /// Peers that gave at least one kept piece in this run.
    pub givers: u32,
    /// Distinct peers that said in this run that they hold everything.
    pub completed_peers: u32,
    /// Why nothing arrives, if so.
    pub stalled: Option<StallCause>,
    /// Which file keeps the rest from coming, if anybody told.
    pub withheld: Option<Withheld>,
    /// The connected peers, in order of their first appearance.
    pub peers: Vec<PeerLane>,
}

/// A file that holds a fetch up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// Its path in the share: hostile text.
    pub path: String,
    /// What became of it.
    pub why: WithheldWhy,
    /// Whose file it is.
    pub whose: Whose,
}

/// What became of a file that is not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithheldWhy {
    /// It changed and is being read again.
    Rereading,
    /// It changed and does not match the share any more.
    Differs,
    /// It is not there or cannot be read, and is looked for.
    Away,
}

/// Whose file is not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A peer's: it says so.
    Peer,
    /// Our own, which this fetch had given its final name.
    Ours,
}

impl std::fmt::Display for Withheld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whose = match self.whose {
            Whose::Peer => "the seeder's file",
            Whose::Ours => "the fetched file",
        };
        let what = match self.why {
            WithheldWhy::Rereading => "changed; it is being read again",
            WithheldWhy::Differs => "changed and does not match the link any more",
            WithheldWhy::Away => "is away or cannot be read; it is looked for again",
        };
        write!(f, "{whose} `{}` {what}", escape_hostile(&self.path))
    }
}

/// What would be lost to the peers that are connected if we left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OnlyHere {
    /// Peers that do not hold everything yet.
    pub peers: usize,
    /// Part of the share that none of them holds, above 0, at most 1.
    pub part: f64,
}

impl ShareStatus {
    /// Whether others hold a full copy, one of them or the connected ones together, and nobody connected needs us.
    #[must_use]
    pub fn may_leave(&self) -> bool {
        // Two that hold everything part: who completed in this run need not be connected any more.
        let is_copied = self.completed_peers > 0 || self.copies_elsewhere() >= 1.0;
        self.phase == Phase::Seed && is_copied && self.only_here().is_none()
    }

    /// What connected peers could not get any more if we left now; `None` when they need nothing that only we hold.
    #[must_use]
    pub fn only_here(&self) -> Option<OnlyHere> {
        let peers = self.peers.iter().filter(|lane| lane.holds < 1.0).count();
        let part = 1.0 - self.copies_elsewhere();
        (self.phase == Phase::Seed && peers > 0 && part > 0.0).then_some(OnlyHere { peers, part })
    }

    /// Copies among the connected peers; we hold everything.
    fn copies_elsewhere(&self) -> f64 {
        let is_full = self.peers.iter().any(|lane| lane.holds >= 1.0);
        let least = if is_full { 1.0 } else { 0.0 };
        (self.availability - 1.0).max(least)
    }
}

/// Something that happened, with when.
#[derive(Clone, Debug)]
pub struct Told {
    /// When, by the wall clock.
    pub at: SystemTime,
    /// What.
    pub event: NodeEvent,
}

/// Something a user would retell or a script would act on.
#[derive(Clone, Debug)]
pub enum NodeEvent {
    /// We can be reached here; ends in `/p2p/`.
    Listening {
        /// The address.
        address: Multiaddr,
    },
    /// What a share to be fetched whole consists of is known, and it is not just files.
    Described {
        /// Its name: hostile text.
        name: String,
        /// Its bytes.
        bytes: u64,
        /// Files in it.
        files: u32,
        /// Folders in it, below the top.
        folders: u32,
        /// Links in it.
        links: u32,
    },
    /// A peer of the share is connected.
    PeerConnected {
        /// Who.
        peer: PeerId,
        /// Where, without `/p2p/`.
        address: Multiaddr,
        /// How.
        via: Via,
    },
    /// A peer of the share is gone.
    PeerLost {
        /// Who.
        peer: PeerId,
        /// Where it was.
        address: Multiaddr,
        /// How it was reached.
        via: Via,
        /// Why, in a few words.
        reason: String,
    },
    /// Pieces were asked of other peers.
    Rerouted {
        /// Who failed.
        peer: PeerId,
        /// How many pieces found a new peer.
        pieces: u32,
        /// Those peers.
        to: Vec<PeerId>,
        /// From noticing the fault to the last new request.
        after: Duration,
        /// The fault.
        cause: Cause,
    },
    /// Nothing arrives.
    Stalled {
        /// Why.
        cause: StallCause,
        /// Pieces that no connected peer holds.
        missing: u32,
        /// Which file keeps them from coming, if anybody told.
        why: Option<Withheld>,
    },
    /// A piece was verified and stored.
    PieceStored {
        /// Who sent it.
        peer: PeerId,
        /// Its index.
        piece: u32,
        /// Its length in bytes.
        bytes: u32,
    },
    /// A file of the share is whole; its final name comes with the next sync.
    FileComplete {
        /// Its path in the share: hostile text.
        path: String,
    },
    /// A file that we offer changed, or is away: its pieces are withdrawn until it was read again. Told once for each change.
    Withdrawn {
        /// Its path in the share: hostile text.
        path: String,
        /// Pieces withdrawn.
        pieces: u32,
        /// What the storage said, naming the file.
        reason: String,
        /// Whether it is not there or cannot be read; else it changed.
        is_away: bool,
        /// Pieces of the share that are still offered.
        left: u32,
    },
    /// A file that was withdrawn was read again: what matches is offered.
    Offered {
        /// Its path in the share: hostile text.
        path: String,
        /// Pieces of it that match.
        pieces: u32,
        /// Of how many.
        of: u32,
        /// Pieces of the share that are offered now.
        left: u32,
    },
    /// A file that was withdrawn cannot be read again yet: it is looked for.
    SourceAway {
        /// What the storage said, naming the file.
        what: String,
    },
    /// A peer told us that it holds everything.
    PeerCompleted {
        /// Who.
        peer: PeerId,
    },
}

/// A fetch that ended well.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// What was written.
    pub path: PathBuf,
    /// Bytes of the share.
    pub bytes: u64,
    /// From the start of the fetch.
    pub elapsed: Duration,
}

/// An address that was tried for a share and did not lead to it.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The address.
    pub address: Multiaddr,
    /// What happened, in a few words.
    pub outcome: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Digest, ShareId};
    use crate::node::report;

    /// A share we hold, and peers that hold these parts of it.
    fn seeded(availability: f64, holds: &[f64]) -> ShareStatus {
        let share = ShareId::from_digest(Digest::ZERO);
        let mut status = report::unknown(share, "a".into(), Some(1_000), Phase::Seed);
        status.availability = availability;
        let lane = |holds: &f64| PeerLane {
            peer: PeerId::from_bytes(&[0, 1, 7]).expect("a peer id"),
            address: "/ip4/10.0.0.1/tcp/1".parse().expect("an address"),
            via: Via::Lan,
            agent: String::new(),
            holds: *holds,
            activity: PeerActivity::Idle,
            asked: 0,
            waiting: 0,
            down_per_sec: 0,
            up_per_sec: 0,
            received: 0,
            sent: 0,
        };
        status.peers = holds.iter().map(lane).collect();
        status
    }

    #[test]
    fn we_may_leave_when_the_others_have_it_all_together_or_one_alone() {
        let cases: [(f64, &[f64], bool, Option<OnlyHere>); 6] = [
            (1.0, &[], false, None),
            (
                1.0,
                &[0.0],
                false,
                Some(OnlyHere {
                    peers: 1,
                    part: 1.0,
                }),
            ),
            (
                1.75,
                &[0.5, 0.5],
                false,
                Some(OnlyHere {
                    peers: 2,
                    part: 0.25,
                }),
            ),
            (2.0, &[0.5, 0.5], true, None),
            (2.0, &[1.0], true, None),
            (2.25, &[1.0, 0.25], true, None),
        ];
        for (availability, holds, may_leave, only_here) in cases {
            let status = seeded(availability, holds);
            assert_eq!(status.may_leave(), may_leave, "{availability} {holds:?}");
            assert_eq!(status.only_here(), only_here, "{availability} {holds:?}");
        }
        let completed = |status| ShareStatus {
            completed_peers: 1,
            ..status
        };
        assert!(
            completed(seeded(1.0, &[])).may_leave(),
            "it has gone with its copy"
        );
        assert!(
            !completed(seeded(1.5, &[0.5])).may_leave(),
            "this one needs us"
        );
        let fetching = ShareStatus {
            phase: Phase::Fetch,
            ..seeded(1.0, &[0.0])
        };
        assert_eq!((fetching.may_leave(), fetching.only_here()), (false, None));
    }
}
