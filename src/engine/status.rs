//! A picture of a transfer at one moment, for the surfaces.
//!
//! Plain values, made by [`super::Transfer::status`]; nothing here is serialised or kept.

use super::transfer::{Peer, Transfer};
use super::{PeerKey, Rate, Time};

/// What a peer is doing for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerActivity {
    /// Nothing is asked of it.
    Idle,
    /// Pieces are asked of it.
    Asked,
    /// It fell silent; its pieces are asked elsewhere.
    Suspect,
}

/// One connected peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub peer: PeerKey,
    /// Pieces it holds.
    pub holds: u32,
    /// What it does for us.
    pub activity: PeerActivity,
    /// Requests outstanding at it.
    pub asked: u32,
    /// Its requests waiting here or in service.
    pub waiting: u32,
    /// Bytes per second from it.
    pub down_per_sec: u64,
    /// Bytes per second to it.
    pub up_per_sec: u64,
    /// Piece bytes received from it in all.
    pub received: u64,
    /// Piece bytes sent to it in all.
    pub sent: u64,
}

/// A transfer.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Pieces held.
    pub held: u32,
    /// Pieces in all.
    pub pieces: u32,
    /// Whether every wanted piece is held.
    pub complete: bool,
    /// Whether a peer waits for pieces, is being served, or took some just now.
    pub pulled: bool,
    /// Missing pieces that no connected peer holds.
    pub without_holder: u32,
    /// Copies of the share among connected peers and us: whole ones plus the part of the next.
    pub copies: f64,
    /// Bytes per second received.
    pub down_per_sec: u64,
    /// Bytes per second sent.
    pub up_per_sec: u64,
    /// Piece bytes sent in all.
    pub sent: u64,
    /// The connected peers.
    pub peers: Vec<PeerStatus>,
}

impl Transfer {
    /// A picture of the transfer at `now`.
    pub fn status(&self, now: Time) -> Status {
        let count = self.pieces.count();
        let peer_status = |(key, peer): (&PeerKey, &Peer)| PeerStatus {
            peer: *key,
            holds: peer.holdings.count(count),
            activity: match (peer.download.is_suspect(), peer.download.relied_count()) {
                (true, _) => PeerActivity::Suspect,
                (false, 0) => PeerActivity::Idle,
                (false, _) => PeerActivity::Asked,
            },
            asked: peer.download.relied_count(),
            waiting: self.upload.waiting_of(*key),
            down_per_sec: peer.download.rate().bytes_per_sec(now),
            up_per_sec: self
                .upload
                .rate_of(*key)
                .map_or(0, |rate| rate.bytes_per_sec(now)),
            received: peer.download.rate().total(),
            sent: self.upload.rate_of(*key).map_or(0, Rate::total),
        };
        Status {
            held: self.pieces.held().count(),
            pieces: count,
            complete: self.pieces.is_complete(),
            pulled: self.upload.is_pulled(now),
            without_holder: self.pieces.without_holder(),
            copies: self.pieces.copies(),
            down_per_sec: self.rate.bytes_per_sec(now),
            up_per_sec: self.upload.rate().bytes_per_sec(now),
            sent: self.upload.rate().total(),
            peers: self.peers.iter().map(peer_status).collect(),
        }
    }
}
