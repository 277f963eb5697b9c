//! A BitTorrent client by the defaults libtorrent publishes, in the place of Shoal's engine: what Shoal is compared with.
//!
//! Owns the published numbers and rules; never looks into Shoal's engine. Called by `against` and `twins`.
//! Sources: libtorrent 2.x, `settings_pack.cpp`, `choker.cpp`, `request_blocks.cpp`, `peer_connection.cpp`; BEP 3, 6.
//!
//! Where it differs:
//! - A piece is asked whole of one peer, as libtorrent does of peers that bring a piece within 20 s. Of slower ones, and
//!   in the end game, it asks blocks of 16 KiB of several: that would help it. Queues are counted in such blocks.
//! - What a snubbed peer was asked for is freed at once, not one block in a second: that helps the one here.
//! - So does that peers are searched for each second below the target, not by a tracker and by PEX once a minute;
//!   and that there are no headers, no disk queue, no hashing, no limit on half-open connections.
//! - No turnover of peers (4 % in 300 s) and no keep-alives: no run here is long enough.

mod asking;
mod choker;
mod client;
mod picker;
mod queue;
mod serving;
mod table;
mod words;

pub use client::BitTorrent;

use std::time::Duration;

/// What libtorrent counts requests in, in bytes.
const BLOCK_LEN: u32 = 16 * 1024;

/// The one default that a careful user might turn, because it makes runs of pieces travel together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `whole_pieces_threshold`: a peer is asked for as many pieces in a row as it brings within this time, at
    /// most 8 MiB; zero asks for single pieces.
    pub whole_pieces: Duration,
}

impl Settings {
    /// As published.
    pub const DEFAULT: Self = Self {
        whole_pieces: Duration::from_secs(20),
    };

    /// Piece by piece, rarest first each time.
    pub const PIECEWISE: Self = Self {
        whole_pieces: Duration::ZERO,
    };
}
