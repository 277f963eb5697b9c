//! Words of BitTorrent for which Shoal has none, as messages of Shoal that no rule of the simulator looks at.
//!
//! Owns nothing but the table of both. Called by `client`.

use shoal::content::PieceIndex;
use shoal::wire::ShareMessage;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Choke,
    Unchoke,
    Interested,
    NotInterested,
    /// A piece that is served although the peer is choked (BEP 6).
    AllowedFast(PieceIndex),
}

impl Word {
    pub(super) fn message(self) -> ShareMessage {
        match self {
            Self::Choke => ShareMessage::Queued { in_line: 0 },
            Self::Unchoke => ShareMessage::GetManifest,
            Self::Interested => ShareMessage::Ready,
            Self::NotInterested => ShareMessage::GetInfo,
            Self::AllowedFast(piece) => ShareMessage::Suggest { piece: piece.get() },
        }
    }

    pub(super) fn of(message: &ShareMessage) -> Option<Self> {
        match message {
            ShareMessage::Queued { .. } => Some(Self::Choke),
            ShareMessage::GetManifest => Some(Self::Unchoke),
            ShareMessage::Ready => Some(Self::Interested),
            ShareMessage::GetInfo => Some(Self::NotInterested),
            ShareMessage::Suggest { piece } => Some(Self::AllowedFast(PieceIndex::new(*piece))),
            _ => None,
        }
    }
}

#[test]
fn a_word_that_travelled_is_the_same_word() {
    let words = [
        Word::Choke,
        Word::Unchoke,
        Word::Interested,
        Word::NotInterested,
        Word::AllowedFast(PieceIndex::new(7)),
    ];
    for word in words {
        assert_eq!(Word::of(&word.message()), Some(word));
    }
}
