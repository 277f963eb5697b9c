//! What can happen to a node of a simulated swarm.
//!
//! Plain values. Planned and played by `swarm`.

use super::network::Slice;
use super::scenario::Fault;
use crate::content::PieceIndex;
use crate::engine::{DownCause, Time};
use crate::wire::ShareMessage;

/// Names a connection for ever, unlike the pair of its ends.
pub(super) type ConnectionId = u32;

/// What happens, and to whom.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) node: u32,
    pub(super) happening: Happening,
}

/// What happens to a node.
#[derive(Debug)]
pub(super) enum Happening {
    Join,
    Fault(Fault),
    /// What a fault stopped goes on.
    Mended(Fault),
    /// The engine asked for it; void when it has asked for an earlier one since.
    Tick,
    SliceSent(Slice),
    Checked {
        connection: ConnectionId,
        piece: PieceIndex,
    },
    ServiceStopped {
        to: u32,
        piece: PieceIndex,
    },
    DialFailed {
        peer: u32,
    },
    /// Something from the other end of a connection.
    Arrival {
        connection: ConnectionId,
        what: Arrival,
    },
    Found(Vec<u32>),
    /// Pieces that were withdrawn were read again: `first .. first + count`.
    Reread {
        first: PieceIndex,
        count: u32,
    },
    Left,
}

/// What comes over a connection.
#[derive(Debug)]
pub(super) enum Arrival {
    Up,
    Message(ShareMessage),
    Slice(Slice),
    Closed(DownCause),
}

impl Happening {
    /// Two numbers that tell it from others in the digest of a run.
    pub(super) fn digest(&self) -> (u64, u64) {
        let of_piece = |piece: PieceIndex| u64::from(piece.get());
        match self {
            Self::Join => (0, 0),
            Self::Fault(_) => (1, 0),
            Self::Mended(_) => (2, 0),
            Self::Tick => (3, 0),
            Self::SliceSent(slice) => (4, of_piece(slice.piece)),
            Self::Checked { piece, .. } => (5, of_piece(*piece)),
            Self::ServiceStopped { piece, .. } => (6, of_piece(*piece)),
            Self::DialFailed { peer } => (7, u64::from(*peer)),
            Self::Found(peers) => (8, peers.len() as u64),
            Self::Left => (9, 0),
            Self::Reread { first, .. } => (14, of_piece(*first)),
            Self::Arrival { connection, what } => match what {
                Arrival::Up => (10, u64::from(*connection)),
                Arrival::Message(_) => (11, u64::from(*connection)),
                Arrival::Slice(slice) => (12, of_piece(slice.piece)),
                Arrival::Closed(_) => (13, u64::from(*connection)),
            },
        }
    }
}

/// A running digest of everything that happened: equal runs, equal numbers, on any machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Digest(u64);

impl Digest {
    pub(super) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn add(&mut self, now: Time, due: &Due) {
        let (kind, detail) = due.happening.digest();
        let nanos = now.since_start().as_nanos() as u64;
        for value in [nanos, u64::from(due.node) << 8 | kind, detail] {
            self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    pub(super) fn value(self) -> u64 {
        self.0
    }
}
