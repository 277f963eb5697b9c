//! Whole swarms in virtual time, from a seed: the engine of the product under faults no real machine
//! would grant often enough.
//!
//! A [`Scenario`] says who takes part and what goes wrong; [`run`] plays it and gives a [`Report`]. Equal
//! scenarios give equal reports, byte for byte, so a failing seed is a bug that can be replayed. Nothing
//! here waits, reads a clock or opens anything. Called by tests and benchmarks; [`run_with`] plays the
//! same swarm with another [`Machine`] in the place of the engine, for comparison.

mod block;
mod check;
mod draw;
mod happening;
mod network;
mod perform;
mod queue;
mod report;
mod scenario;
mod swarm;

pub use block::{BLOCK_SEEDS, block_digest};
pub use check::Broken;
pub use network::{REGION_COUNT, core_delay};
pub use report::{GOODPUT_SLOT, NodeReport, PARTS_FROM, Report};
pub use scenario::{Fault, NodePlan, Scenario};
pub use swarm::{Machine, run, run_with};
