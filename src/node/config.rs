//! What a node and a fetch are started with.
//!
//! Plain values from the command line; read once, never changed by the node.

use std::path::PathBuf;
use std::time::Duration;

use crate::content::Multiaddr;
use crate::storage::{Globs, Target};

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Folder with the identity pool and the addresses of live processes.
    pub home: PathBuf,
    /// Where to listen; all interfaces, IPv4 and IPv6, if empty.
    pub listen: Vec<Multiaddr>,
    /// The TCP port where `listen` leaves it open (0); leased with the identity if `None`. A port named here
    /// that is taken is an error, a leased one is replaced.
    pub port: Option<u16>,
    /// Nodes to dial first, with or without `/p2p/`.
    pub peers: Vec<Multiaddr>,
    /// Whether to speak mDNS.
    pub mdns: bool,
    /// Whether to take part in the DHT.
    pub dht: bool,
    /// Most bytes per second sent over all peers.
    pub up_per_sec: Option<u64>,
    /// Most bytes per second received over all peers.
    pub down_per_sec: Option<u64>,
}

/// What a fetch is started with.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// Where the result goes.
    pub target: Target,
    /// How long to look for a first peer of the share.
    pub timeout: Duration,
    /// How long to go on without a new verified byte.
    pub stall_timeout: Duration,
    /// Which files to fetch; all without a pattern.
    pub only: Globs,
    /// Whether pieces are asked in order instead of rarest first.
    pub sequential: bool,
    /// Whether the bytes are wanted as a stream, which only a share of one file has.
    pub stream: bool,
}
