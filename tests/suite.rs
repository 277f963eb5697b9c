//! The one integration binary: a single link step for every test that stands outside the crate.
#![allow(
    clippy::unwrap_used,
    reason = "in a test a broken expectation should end the test"
)]
#![allow(unreachable_pub, reason = "modules of one binary share helpers")]

mod choosing;
mod cleaning;
mod cli;
mod contract;
mod crash;
mod discovery;
mod disk;
mod fuzz;
mod hostile;
mod interfaces;
mod io_errors;
mod lock;
mod loopback;
mod merkle_golden;
mod power_loss;
mod remembered;
mod scale;
mod shareable;
mod simulation;
mod support;
mod surfaces;
mod terminal;
mod thirty;
mod tidy;
mod versions;
mod wire_golden;
