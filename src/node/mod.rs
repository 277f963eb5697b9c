//! Joins engine, storage and network: what a process does with shares, behind one handle.
//!
//! [`Node::start`] takes an identity from the home, opens the network and spawns the hub; [`NodeHandle`]
//! is how every surface speaks to it, [`ShareHandle`] how it speaks about one share. One task owns each
//! share and its engine, four tasks move the frames and bytes of each session. Nothing here parses
//! arguments or prints.

mod actor;
mod addresses;
mod buffers;
mod config;
mod exchange;
mod handle;
mod hints;
mod hub;
mod limiter;
mod memory;
mod metadata;
mod perform;
mod report;
mod session;
mod share;
mod status;
mod stream;
mod subnets;

pub use crate::network::host_folder;
pub use config::{FetchOptions, NodeConfig};
pub use handle::{FetchError, Node, NodeError, NodeHandle, ShareHandle};
pub use status::{
    Cause, Fetched, NodeEvent, OnlyHere, PeerActivity, PeerLane, Phase, ShareStatus, StallCause,
    Told, Tried, Via, Whose, Withheld, WithheldWhy,
};
pub use stream::ByteStream;
