//! Whole swarms in virtual time, from a seed: the engine of the product under faults no real machine
//! would grant often enough.
//!
//! A [`Scenario`] says who takes part and what goes wrong; [`run`] plays it and gives a [`Report`]. Equal
//! scenarios give equal reports, byte for byte, so a failing seed is a bug that can be replayed. Nothing
//! here waits, reads a clock or opens anything. Called by tests and benchmarks.

mod checker;
mod happening;
mod network;
mod perform;
mod report;
mod scenario;
mod swarm;

pub use checker::Broken;
pub use report::{NodeReport, Report};
pub use scenario::{Fault, NodePlan, Scenario};
pub use swarm::run;
