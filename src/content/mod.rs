//! What is shared: hashes, trees, pieces, paths, manifests, links. Pure values and arithmetic.
//!
//! Owns the content model and the one canonical encoding. Never reads a file or a clock, draws a random number,
//! waits, or meets the network (the bare address and peer id types in `link.rs` excepted). Every other folder uses
//! it and it uses none of them.
//!
//! # Glossary
//! - **piece**: the unit that is hashed, asked for, verified, announced and stored; never crosses a file's end.
//! - **leaf**: 16 KiB of a file, the bottom of its hash tree. A piece is one or more leaves.
//! - **layer**: the hashes of the pieces of one file, one level of its tree.
//! - **root**: the top of a file's tree, its BEP 52 `pieces root`. It identifies the file's bytes anywhere.
//! - **manifest**: names, lengths and roots of everything in a share, as canonical bytes.
//! - **share**: a file or folder as described by a manifest; its id is the SHA-256 of the manifest's bytes.
//! - **link**: the text users pass on: a share's id, and usually where to begin looking for it.
//! - **seeder**: a peer that holds every piece of a share.
//! - **leecher**: a peer that does not, yet.
//! - **provider**: a peer announced, in the distributed hash table, as one that serves a share.

mod bitfield;
mod digest;
mod encoding;
mod geometry;
mod hashes;
mod info;
mod leaves;
mod link;
mod manifest;
mod merkle;
mod path;
mod records;
#[cfg(test)]
mod testing;

// Hashes and trees.
pub use digest::{Digest, DigestError};
pub use merkle::{LEAF_LEN, hash_piece, hash_zeros, layer_root, verify_layer_range};

// Pieces: where they are, and sets of them.
pub use geometry::{
    FILE_COUNT_MAX, FileIndex, Geometry, GeometryError, PIECE_COUNT_MAX, PIECE_LEN_MAX,
    PIECE_LEN_MIN, PieceIndex, PieceSpan, piece_len_for,
};

pub use bitfield::{Bitfield, BitfieldError};

// What a share is.
pub use path::{
    ELEMENT_LEN_MAX, Name, PATH_DEPTH_MAX, PATH_LEN_MAX, PathError, RelativePath, escape_hostile,
    escape_hostile_bytes, is_symlink_target_inside,
};

pub use manifest::{
    ENTRY_COUNT_MAX, Entry, EntryKind, FileRef, Layout, MANIFEST_LEN_MAX, Manifest, ManifestError,
};

// What is told about it beside that.
pub use info::{INFO_LEN_MAX, ShareInfo};

// What its pieces have to hash to.
pub use hashes::{HashesBuilder, HashesError, LayerRange, PieceHashes, Verified};

// How users name it.
pub use link::{LINK_ADDRESSES_MAX, Link, LinkError, LinkHints, Multiaddr, PeerId, ShareId};

// How all of it, and every message, becomes bytes.
pub use encoding::{
    AtMost, BorrowDecode, Cursor, Decode, DecodeError, Encode, decode, encode, encode_onto,
};
