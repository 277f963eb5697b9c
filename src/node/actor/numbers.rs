//! What an actor counts over the run of its share.

use std::collections::{BTreeMap, BTreeSet};

use crate::content::{PeerId, PieceIndex};
use crate::node::share::SessionId;

/// What is counted over the run.
#[derive(Debug, Default)]
pub(in crate::node) struct Numbers {
    /// Bytes held; kept here so that a status need not add up pieces.
    pub(in crate::node) held_bytes: u64,
    /// Of those, bytes that a fetch has to get from nobody: they are zeros.
    pub(in crate::node) zero_bytes: u64,
    /// Of those, bytes that this run took from older files beside the target.
    pub(in crate::node) reused_bytes: u64,
    pub(in crate::node) downloaded: u64,
    pub(in crate::node) wasted: u64,
    /// The piece that each session is sending, and its bytes that are here.
    pub(in crate::node) arriving: BTreeMap<SessionId, (PieceIndex, u64)>,
    pub(in crate::node) givers: BTreeSet<PeerId>,
    pub(in crate::node) completed: BTreeSet<PeerId>,
    pub(in crate::node) ever_linked: bool,
}

impl Numbers {
    /// Bytes of a piece arrived. A session sends one piece at a time: what it left unfinished is lost.
    pub(super) fn on_bytes(&mut self, session: SessionId, piece: PieceIndex, bytes: u64) {
        self.downloaded += bytes;
        match self.arriving.get_mut(&session) {
            Some((of, here)) if *of == piece => *here += bytes,
            _ => {
                self.on_session_end(session);
                self.arriving.insert(session, (piece, bytes));
            }
        }
    }

    /// What a session left unfinished is lost.
    pub(in crate::node) fn on_session_end(&mut self, session: SessionId) {
        self.wasted += self.arriving.remove(&session).map_or(0, |(_, here)| here);
    }
}
