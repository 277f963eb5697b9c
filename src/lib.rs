//! Peer-to-peer file sharing; the command line program is a few lines around [`cli::run()`].
//!
//! This file is the contents page, in reading order. What follows is the plan of the house.
//!
#![doc = include_str!("ARCHITECTURE.md")]

// What is shared, and what peers say to each other.
pub mod content;
pub mod wire;

// What is decided, and whole swarms of it in virtual time.
pub mod engine;
pub mod sim;

// Where bytes live, and how peers are reached.
pub mod network;
pub mod storage;

// All of it joined.
pub mod node;

// What users see and type.
pub mod cli;
pub mod tui;
