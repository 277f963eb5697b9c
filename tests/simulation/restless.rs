//! A swarm that does not come to rest is told as one, and ended.

use std::time::Duration;

use shoal::engine::{Input, Output, Time};
use shoal::sim::{Broken, Machine, Scenario, run_with};

/// Wants to be called again at once, for ever.
struct Restless;

impl Machine for Restless {
    fn handle(&mut self, _: Time, _: Input) {}

    fn poll_output(&mut self) -> Option<Output> {
        None
    }

    fn poll_timeout(&self, now: Time) -> Option<Time> {
        Some(now + Duration::from_nanos(1))
    }
}

#[test]
fn a_swarm_that_never_comes_to_rest_is_ended_and_told() {
    let scenario = Scenario::plain(1, 1, 8, 1_000_000);
    let report = run_with(&scenario, &|_, _| Restless);
    let is_restless = |broken: &Broken| matches!(broken, Broken::Restless { .. });
    assert!(report.broken.iter().any(is_restless), "{:?}", report.broken);
    assert!(report.ended < scenario.ends, "{:?}", report.ended);
}
