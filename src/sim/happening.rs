//! What can happen in a simulated swarm, and its order in the queue.
//!
//! Plain values. Planned and played by `swarm`.

use std::cmp::Ordering;

use super::network::Slice;
use super::scenario::Fault;
use crate::content::PieceIndex;
use crate::engine::{DownCause, Time};
use crate::wire::ShareMessage;

/// What happens to a node.
#[derive(Debug)]
pub(super) enum Happening {
    Join,
    Fault(Fault),
    Wake,
    /// The engine asked for it; void when it has asked for an earlier one since.
    Tick,
    Message {
        from: usize,
        connection: u64,
        message: ShareMessage,
    },
    SliceSent(Slice),
    SliceHere {
        from: usize,
        slice: Slice,
    },
    Checked {
        from: usize,
        connection: u64,
        piece: PieceIndex,
    },
    ServiceStopped {
        to: usize,
        piece: PieceIndex,
    },
    Connected {
        peer: usize,
        connection: u64,
    },
    DialFailed {
        peer: usize,
    },
    Closed {
        peer: usize,
        connection: u64,
        cause: DownCause,
    },
    Found(Vec<usize>),
    Left,
}

impl Happening {
    /// Two numbers that tell it from others in the digest of a run.
    pub(super) fn digest(&self) -> (u64, u64) {
        match self {
            Self::Join => (0, 0),
            Self::Fault(_) => (1, 0),
            Self::Wake => (2, 0),
            Self::Tick => (3, 0),
            Self::Message { from, .. } => (4, *from as u64),
            Self::SliceSent(slice) => (5, u64::from(slice.piece.get())),
            Self::SliceHere { slice, .. } => (6, u64::from(slice.piece.get())),
            Self::Checked { piece, .. } => (7, u64::from(piece.get())),
            Self::Connected { peer, .. } => (8, *peer as u64),
            Self::DialFailed { peer } => (9, *peer as u64),
            Self::Closed { peer, .. } => (10, *peer as u64),
            Self::Found(peers) => (11, peers.len() as u64),
            Self::Left => (13, 0),
            Self::ServiceStopped { piece, .. } => (12, u64::from(piece.get())),
        }
    }
}

/// A happening in the queue; the order is by time, then by the order of planning.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) at: Time,
    pub(super) sequence: u64,
    pub(super) node: usize,
    pub(super) happening: Happening,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}
