//! What we decide for one share: a pure, synchronous machine.
//!
//! [`Transfer`] takes `(now, Input)` and gives [`Output`]s. It never waits, reads a clock, opens
//! anything, sees a piece's bytes or meets libp2p; randomness comes from the generator it was handed,
//! and every map it walks is ordered, so that equal inputs give equal outputs.
//!
//! # Contract
//! 1. Call [`Transfer::handle`] with one input and the present time; times never go back.
//! 2. Call [`Transfer::poll_output`] until it gives `None`, and perform each output in order.
//! 3. Ask [`Transfer::poll_timeout`]; when that moment comes, handle [`Input::Tick`].
//!
//! A remote's fault is an output that ends or demotes that peer, never an error, never a panic.
//! The states of pieces and peers are tabled in `STATES.md` in this folder.
#![doc = include_str!("STATES.md")]

mod asking;
mod download;
mod fresh;
mod messages;
mod offers;
mod peers;
mod pieces;
mod rate;
mod reroute;
mod serving;
mod slots;
mod status;
mod transfer;
pub mod tuning;
mod turnover;
mod upload;

use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;

use crate::content::PieceIndex;
use crate::wire::ShareMessage;

pub use peers::Source;
pub use pieces::PieceState;
pub use rate::Rate;
pub use status::{PeerActivity, PeerStatus, Status};
pub use transfer::{Transfer, TransferConfig};

/// The generator that a transfer is handed: small, fast, the same sequence on every machine.
pub type Random = Xoshiro256PlusPlus;

/// A moment, as the time since the run began. Runs begin where their driver says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Duration);

impl Time {
    /// The moment `since_start` after the run began.
    pub const fn from_start(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// How long after the start of the run this is.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// From `earlier` to this moment; zero when `earlier` is later.
    pub fn duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

/// A peer as the driver of a transfer numbers it: the same identity keeps its number for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub u32);

/// What happened, told to the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has passed; see [`Transfer::poll_timeout`].
    Tick,
    /// Somebody who may hold the share.
    Candidate {
        /// Who.
        peer: PeerKey,
        /// How we heard of it.
        source: Source,
        /// Whether an address of it is on this machine or in one of its subnets.
        near: bool,
    },
    /// A dial we asked for failed.
    ConnectFailed {
        /// Who did not answer.
        peer: PeerKey,
    },
    /// Both sides know the manifest and speak about this share from now on.
    PeerUp {
        /// Who.
        peer: PeerKey,
        /// Whether its end of the connection is on this machine or in one of its subnets.
        near: bool,
    },
    /// The share is no longer spoken of with this peer.
    PeerDown {
        /// Who.
        peer: PeerKey,
        /// How it ended.
        cause: DownCause,
    },
    /// A message of this share.
    Message {
        /// Who sent it.
        peer: PeerKey,
        /// What.
        message: ShareMessage,
    },
    /// Bytes of a piece arrived; more are to come.
    Received {
        /// Who sends it.
        peer: PeerKey,
        /// Which piece.
        piece: PieceIndex,
        /// Bytes since the last such input.
        bytes: u32,
    },
    /// All bytes of a piece are here, not yet verified.
    PieceArrived {
        /// Who sent it.
        peer: PeerKey,
        /// Which piece.
        piece: PieceIndex,
    },
    /// The piece is verified and stored.
    PieceStored {
        /// Who sent it.
        peer: PeerKey,
        /// Which piece.
        piece: PieceIndex,
    },
    /// The piece does not match its hash.
    PieceCorrupt {
        /// Who sent it.
        peer: PeerKey,
        /// Which piece.
        piece: PieceIndex,
    },
    /// The file of these pieces may have changed, `first .. first + count`: those held are withdrawn until it was read again.
    PiecesDoubted {
        /// The first of them.
        first: PieceIndex,
        /// How many.
        count: u32,
    },
    /// Pieces that were being read again are as they should be: `first .. first + count`.
    PiecesFound {
        /// The first of them.
        first: PieceIndex,
        /// How many.
        count: u32,
    },
    /// Pieces we held, or were reading again, are no longer there (their file was changed): `first .. first + count`.
    PiecesLost {
        /// The first of them.
        first: PieceIndex,
        /// How many.
        count: u32,
    },
    /// Bytes of a piece we serve were handed to the transport.
    Sent {
        /// To whom.
        peer: PeerKey,
        /// Which piece.
        piece: PieceIndex,
        /// Bytes since the last such input.
        bytes: u32,
    },
    /// A service ended: the piece was sent whole, or was stopped.
    ServiceEnded {
        /// To whom.
        peer: PeerKey,
        /// Which piece.
        piece: PieceIndex,
        /// How.
        how: ServiceEnd,
    },
}

/// How a peer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DownCause {
    /// The connection ended without a word.
    Closed,
    /// The peer said that it leaves the share.
    Left,
    /// It broke the protocol, or sent what nobody asked for.
    Violation,
}

/// How a service ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceEnd {
    /// The whole piece was handed to the transport.
    Whole,
    /// It was stopped as asked.
    Stopped,
    /// The piece could not be read.
    Unreadable,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message.
    Send {
        /// To whom.
        peer: PeerKey,
        /// What.
        message: ShareMessage,
    },
    /// Read this piece and send it.
    Serve {
        /// To whom.
        peer: PeerKey,
        /// Which piece.
        piece: PieceIndex,
    },
    /// Stop sending this piece.
    StopServing {
        /// To whom.
        peer: PeerKey,
        /// Which piece.
        piece: PieceIndex,
    },
    /// Dial this peer and open the share with it.
    Connect {
        /// Whom.
        peer: PeerKey,
    },
    /// Stop speaking with this peer about the share. `PeerDown` is not expected back.
    Disconnect {
        /// With whom.
        peer: PeerKey,
        /// Why.
        why: Parting,
    },
    /// Look for more peers.
    FindPeers,
    /// Something a user would retell.
    Event(Event),
}

/// Why we part from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Parting {
    /// It was silent for too long.
    Silent,
    /// It sent a piece that does not match its hash.
    Corrupt,
    /// It broke the protocol.
    Violation,
    /// Neither of us needs the other: both hold everything.
    Done,
    /// There are too many peers.
    Full,
}

/// Why pieces were asked of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The connection ended.
    Closed,
    /// The peer fell silent.
    Silent,
    /// The peer was much slower than another.
    Slow,
    /// The peer sent a piece that does not match its hash.
    Corrupt,
    /// The peer refused.
    Rejected,
}

/// Why nothing arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StallCause {
    /// No peer of the share is known.
    NoPeers,
    /// The peers that are connected lack the missing pieces.
    NoHolder,
    /// Peers are known, none can be reached.
    Unreachable,
}

/// What happened, for users and traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Pieces were asked of other peers.
    Reroute {
        /// Who failed.
        peer: PeerKey,
        /// Pieces that found a new peer.
        pieces: u32,
        /// Those peers.
        to: Vec<PeerKey>,
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
    },
    /// Every wanted piece is stored.
    Completed,
    /// A peer told us that it holds everything.
    PeerCompleted {
        /// Who.
        peer: PeerKey,
    },
}
