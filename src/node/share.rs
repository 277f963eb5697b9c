//! What sessions and a share's actor have in common: the share as sessions see it, and what they tell.
//!
//! Sessions never meet the engine: they read [`ReadyShare`] and send [`ShareInput`]s, which the actor
//! takes one after the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::session::Session;
use crate::content::{
    Bitfield, Digest, FileIndex, Geometry, Manifest, Multiaddr, PeerId, PieceHashes, PieceIndex,
    ShareId,
};
use crate::engine::{DownCause, ServiceEnd, Source};
use crate::network::PeerRecord;
use crate::storage::{PieceStore, Reread, Reused, StorageError};
use crate::wire::{ShareMessage, ShareNumber};

/// Inputs that wait for a share's actor. When full, session readers wait, which holds back their peers.
pub(super) const INPUTS_MAX: usize = 1_024;

/// Most shares of one process; the ceiling of a session.
const SHARES_MAX: usize = 64;

/// Names one session of this process; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SessionId(pub(super) u64);

/// A share whose manifest, hashes and store are there: all that moving its bytes takes.
pub(super) struct ReadyShare {
    pub(super) manifest: Manifest,
    pub(super) manifest_bytes: Vec<u8>,
    pub(super) hashes: PieceHashes,
    pub(super) store: Arc<dyn PieceStore>,
}

impl ReadyShare {
    pub(super) fn geometry(&self) -> &Geometry {
        self.manifest.geometry()
    }
}

/// A share as sessions see it.
#[derive(Clone)]
pub(super) struct Share {
    pub(super) id: ShareId,
    pub(super) number: ShareNumber,
    pub(super) inputs: mpsc::Sender<ShareInput>,
    pub(super) ready: Arc<OnceLock<ReadyShare>>,
}

/// How the check of an arrived piece ended.
#[derive(Debug)]
pub(super) enum Checked {
    /// Verified and stored now.
    Stored {
        /// Path of the file that became whole by it.
        whole: Option<String>,
    },
    /// It does not match its hash.
    Corrupt,
    /// It matches, but could not be stored.
    Failed(StorageError),
}

/// What happened, told to the actor of a share.
pub(super) enum ShareInput {
    /// Both sides have opened the share in this session.
    Linked(Session),
    /// The peer does not take part in the share.
    Refused { peer: PeerId },
    /// The share is no longer spoken of in this session.
    Unlinked {
        session: SessionId,
        cause: DownCause,
        reason: String,
    },
    /// A message.
    Message {
        session: SessionId,
        message: ShareMessage,
        /// Its room among those of the session that wait.
        _room: OwnedSemaphorePermit,
    },
    /// Part of the manifest.
    Manifest {
        session: SessionId,
        total: u32,
        offset: u32,
        bytes: Vec<u8>,
    },
    /// Part of the share info.
    Info {
        session: SessionId,
        total: u32,
        offset: u32,
        bytes: Vec<u8>,
    },
    /// An answer to `GetHashes`, hashes and proof in one.
    Hashes {
        session: SessionId,
        file: u32,
        first: u32,
        digests: Vec<Digest>,
    },
    /// Bytes of a piece arrived.
    Received {
        session: SessionId,
        piece: PieceIndex,
        bytes: u32,
    },
    /// A piece is here and is being checked.
    Arrived {
        session: SessionId,
        piece: PieceIndex,
    },
    /// The check ended.
    Checked {
        session: SessionId,
        piece: PieceIndex,
        outcome: Checked,
    },
    /// Bytes of a piece were written to the session.
    Sent {
        session: SessionId,
        piece: PieceIndex,
        bytes: u32,
    },
    /// A service ended.
    ServiceEnded {
        session: SessionId,
        piece: PieceIndex,
        how: ServiceEnd,
    },
    /// Pieces that lie in older files beside the target, and are being read there: before [`ShareInput::Opened`].
    Reusable(Bitfield),
    /// One of them was read.
    Reused {
        piece: PieceIndex,
        outcome: Result<Reused, StorageError>,
    },
    /// A piece to be served could not be read.
    Unreadable {
        piece: PieceIndex,
        error: StorageError,
    },
    /// Pieces of a file that was found changed match: `first .. first + count`.
    Found {
        file: FileIndex,
        first: PieceIndex,
        count: u32,
    },
    /// A file that was found changed was read again.
    Reread {
        file: FileIndex,
        outcome: Result<Reread, StorageError>,
        /// How long that took.
        took: Duration,
    },
    /// So were all of its job.
    RereadEnded,
    /// Files were looked at: these were found changed.
    Looked(Vec<(FileIndex, StorageError)>),
    /// Peer records that came in this session, their signatures checked.
    Records {
        session: SessionId,
        records: Vec<PeerRecord>,
    },
    /// A peer sent something that is no peer record.
    BadRecords { session: SessionId, reason: String },
    /// Peers that may hold the share.
    Candidates {
        peers: Vec<(PeerId, Vec<Multiaddr>)>,
        source: Source,
    },
    /// A dial of a peer failed, address by address.
    DialFailed {
        peer: Option<PeerId>,
        tried: Vec<(Multiaddr, String)>,
    },
    /// Files that were already there are being compared.
    Comparing { bytes: u64, of: u64 },
    /// The target is open, or cannot be.
    Opened(Result<Bitfield, StorageError>),
    /// The last names were given, or could not be.
    Finished(Result<std::path::PathBuf, StorageError>),
    /// What was stored is on the disk itself, or nobody knows.
    Synced(Result<(), StorageError>),
    /// Leave the share.
    Stop,
}

/// The shares of this process.
#[derive(Default)]
pub(super) struct Shares {
    by_id: Mutex<BTreeMap<ShareId, Share>>,
}

impl Shares {
    /// Adds a share under a number of its own; `None` when it is there already or there are too many.
    pub(super) fn add(&self, id: ShareId, inputs: mpsc::Sender<ShareInput>) -> Option<Share> {
        let mut shares = self.by_id.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.contains_key(&id) || shares.len() >= SHARES_MAX {
            return None;
        }
        let taken = |number: &u16| shares.values().any(|share| share.number.0 == *number);
        let number = (0..=u16::MAX).find(|number| !taken(number))?;
        let share = Share {
            id,
            number: ShareNumber(number),
            inputs,
            ready: Arc::default(),
        };
        shares.insert(id, share.clone());
        Some(share)
    }

    pub(super) fn remove(&self, id: &ShareId) {
        self.by_id
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }

    pub(super) fn all(&self) -> Vec<Share> {
        self.by_id
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// The share whose token `opener` would send to `receiver`.
    pub(super) fn by_token(
        &self,
        token: &[u8; 32],
        opener: &PeerId,
        receiver: &PeerId,
    ) -> Option<Share> {
        self.all()
            .into_iter()
            .find(|share| share.id.open_token(opener, receiver).as_bytes() == token)
    }

    pub(super) fn by_provider_key(&self, key: &[u8; 32]) -> Option<Share> {
        self.all()
            .into_iter()
            .find(|share| share.id.provider_key() == *key)
    }
}
