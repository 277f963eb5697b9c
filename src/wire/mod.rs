//! What peers say to each other: values, their bytes, and the ceilings both sides hold to.
//!
//! This room turns bytes into values and values into bytes and does nothing else: it never reads a
//! socket, keeps no state of a transfer and decides nothing. The layouts are drawn in `PROTOCOL.md`
//! in this folder. `node/session` drives it, `engine` speaks its [`ShareMessage`]s.
//!
#![doc = include_str!("PROTOCOL.md")]

mod data;
mod frame;
mod message;

pub use data::{DATA_HEADER_LEN, DataHeader, DataKind, HeaderError, SLICE_LEN_MAX};
pub use frame::{FRAME_LEN_MAX, FrameBuffer, FrameError, encode_frame};
pub use message::{
    AGENT_LEN_MAX, BITFIELD_PART_LEN_MAX, Control, HASHES_PER_RANGE_MAX, Hello, RECORD_LEN_MAX,
    RECORDS_MAX, RejectReason, Run, ShareMessage, ShareNumber, SourceState, VERSION, runs_of,
};

/// Libp2p protocol name of the control stream; a new major version is a new name.
pub const CONTROL_PROTOCOL: &str = "/shoal/control/1";

/// Libp2p protocol name of the data stream.
pub const DATA_PROTOCOL: &str = "/shoal/data/1";
