//! The messages of the control stream.
//!
//! [`Control`] is what one session carries; [`ShareMessage`] is the part that concerns one share and
//! is the only part the engine meets. New variants are added at the end only: the position is the tag
//! on the wire. Piece bytes never travel here, they have the data stream (`data.rs`).

use crate::content::{AtMost, Decode, Encode, PieceIndex};

/// Version of the messages below, sent in [`Hello`]; peers with another major version do not meet,
/// because the protocol names differ.
pub const VERSION: u16 = 1;

/// Longest agent string in bytes; a longer one ends the session.
pub const AGENT_LEN_MAX: usize = 64;

/// Longest part of a bitfield in one message, in bytes (a bitfield of 2^22 pieces takes 16 parts).
pub const BITFIELD_PART_LEN_MAX: usize = 32 * 1024;

/// Most hashes asked for in one [`ShareMessage::GetHashes`]: 8,192 x 32 bytes = one slice of 256 KiB.
pub const HASHES_PER_RANGE_MAX: u32 = 8_192;

/// Most records in one [`ShareMessage::Peers`]; more are a violation.
pub const RECORDS_MAX: usize = 50;

/// Longest signed peer record in bytes: a key, a signature and eight addresses take about half.
pub const RECORD_LEN_MAX: usize = 1024;

/// The small number by which the sender of a message names a share; agreed by [`Control::Open`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ShareNumber(pub u16);

/// The first message on a control stream, from either side.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// [`VERSION`] of the sender.
    pub version: u16,
    /// Most piece requests the sender keeps per share; more are rejected.
    pub requests_max: u32,
    /// Name and version of the program: hostile text, at most [`AGENT_LEN_MAX`] bytes.
    pub agent: String,
}

/// A run of consecutive pieces, `first .. first + count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Run {
    /// Index of the first piece.
    pub first: u32,
    /// How many pieces; 0 is a violation.
    pub count: u32,
}

impl Run {
    /// The run that holds just `piece`.
    pub fn one(piece: PieceIndex) -> Self {
        Self {
            first: piece.get(),
            count: 1,
        }
    }
}

/// Gathers pieces into runs; neighbours in the given order that are consecutive share a run.
pub fn runs_of(pieces: impl IntoIterator<Item = PieceIndex>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for piece in pieces {
        match runs.last_mut() {
            Some(run) if run.first + run.count == piece.get() => run.count += 1,
            _ => runs.push(Run::one(piece)),
        }
    }
    runs
}

/// Why an uploader will not send a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum RejectReason {
    /// It does not hold the piece (any more).
    NotHeld,
    /// More requests than [`Hello::requests_max`] are waiting.
    Busy,
    /// It could not read the piece, or its file was changed.
    Unreadable,
    /// It is leaving.
    Leaving,
}

/// What became of a file at a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum SourceState {
    /// All its pieces are offered.
    Offered,
    /// It changed and is being read again; what still matches will be offered.
    Rereading,
    /// It changed: some of its pieces do not match the share any more.
    Differs,
    /// It is not there or cannot be read, and is looked for.
    Away,
}

/// What is said about one share.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ShareMessage {
    /// The sender knows manifest and hashes: from now on it can be told what others hold.
    Ready,
    /// The sender holds every piece.
    HaveAll,
    /// The sender holds no piece.
    HaveNone,
    /// Part of the sender's bitfield: bit 7 of `bytes[0]` is piece `first` (BEP 3 order); `first` is a
    /// multiple of 8. Pieces not mentioned are not held.
    Bitfield {
        /// Index of the first piece of this part.
        first: u32,
        /// The bits, at most [`BITFIELD_PART_LEN_MAX`] bytes.
        bytes: Vec<u8>,
    },
    /// The sender now holds these pieces too. No runs: the sender is still there. Who names pieces many times
    /// more often than the share has them, here and in [`ShareMessage::DontHave`], ends the session.
    Have {
        /// The pieces.
        runs: Vec<Run>,
    },
    /// The sender lost these pieces (BEP 54).
    DontHave {
        /// The pieces.
        runs: Vec<Run>,
    },
    /// Please send these pieces, whole. At most [`Hello::requests_max`] pieces in one message, all runs
    /// together; more ends the session, and so does a `Cancel` of more.
    Request {
        /// The pieces, most wanted first.
        runs: Vec<Run>,
    },
    /// These requests are withdrawn; a slice on its way may still arrive.
    Cancel {
        /// The pieces.
        runs: Vec<Run>,
    },
    /// Your requests wait for their turn; repeated so that waiting is not silence.
    Queued {
        /// Peers that wait for a turn at the sender, the receiver included: by it the receiver tells what is
        /// better asked elsewhere.
        in_line: u32,
    },
    /// This piece is being sent now; repeated while its bytes are held back by a rate limit.
    Serving {
        /// The piece.
        piece: u32,
    },
    /// The receiver would help the swarm by asking for this piece (BEP 6). The sender may not have all of it yet:
    /// then it serves the request once the piece is verified, or refuses it soon.
    Suggest {
        /// The piece.
        piece: u32,
    },
    /// This request will not be answered.
    Reject {
        /// The piece.
        piece: u32,
        /// Why.
        reason: RejectReason,
    },
    /// Please send the manifest on the data stream.
    GetManifest,
    /// Please send a range of a file's piece hashes with its proof on the data stream (BEP 52).
    GetHashes {
        /// Index among the files of the manifest.
        file: u32,
        /// First piece of the range, counted in the file; a multiple of `count`.
        first: u32,
        /// A power of two, at most [`HASHES_PER_RANGE_MAX`].
        count: u32,
    },
    /// Addresses of other peers of this share: libp2p signed peer records, protobuf encoded.
    Peers {
        /// The records, each at most [`RECORD_LEN_MAX`] bytes; at most [`RECORDS_MAX`].
        records: AtMost<Vec<u8>, RECORDS_MAX>,
    },
    /// Please send the share info, hints beside the manifest, on the data stream.
    GetInfo,
    /// Why pieces of a file are not offered, or that they are again: a hint for whoever waits for them.
    Source {
        /// Index among the files of the manifest.
        file: u32,
        /// What became of it.
        state: SourceState,
    },
}

/// What is said on a control stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Control {
    /// First message of each side.
    Hello(Hello),
    /// The sender takes part in a share and will call it `number` from now on. The token can only be
    /// computed and recognised by who knows the share id (`ShareId::open_token` with the receiver's
    /// peer id), so a stranger learns nothing from it.
    Open {
        /// How the sender will name the share.
        number: ShareNumber,
        /// Token of the share for the receiver of this message.
        token: [u8; 32],
    },
    /// The answer to an [`Control::Open`] whose token matches no share of the receiver.
    Unknown {
        /// The number of the `Open` that is answered.
        number: ShareNumber,
    },
    /// The sender leaves a share; `complete` tells whether it held every piece.
    Close {
        /// The sender's number of the share.
        number: ShareNumber,
        /// Whether the sender held every piece.
        complete: bool,
    },
    /// Something about one share.
    Share {
        /// The sender's number of the share.
        number: ShareNumber,
        /// What.
        message: ShareMessage,
    },
    /// Nothing to say, still here.
    KeepAlive,
    /// The sender leaves; nothing follows.
    Goodbye,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_pieces_share_a_run_and_others_do_not() {
        let pieces = [3, 4, 5, 9, 8, 20].map(PieceIndex::new);
        let runs = runs_of(pieces);
        let expected = [(3, 3), (9, 1), (8, 1), (20, 1)].map(|(first, count)| Run { first, count });
        assert_eq!(runs, expected);
    }
}
