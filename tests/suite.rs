//! The one integration binary: a single link step for every test that stands outside the crate.
#![allow(
    clippy::unwrap_used,
    reason = "in a test a broken expectation should end the test"
)]

mod lock;
mod merkle_golden;
mod tidy;
