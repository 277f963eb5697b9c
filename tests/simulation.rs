//! The engine in simulated swarms: many seeds with faults, named scenarios for each promise, and another client in
//! its place to be compared with.
//!
//! A seed that fails prints the one command that replays it.

mod against;
mod bittorrent;
mod bound;
mod faults;
mod promises;
mod restless;
mod sweeps;
mod twins;

use std::time::Duration;

use shoal::sim::{Report, Scenario, run};

const SECOND: Duration = Duration::from_secs(1);

fn seconds(seconds: u64) -> Duration {
    SECOND * seconds as u32
}

#[test]
fn the_same_scenario_gives_the_same_events_and_another_seed_others() {
    let first = run(&Scenario::faulty(11, 20));
    assert_eq!(first, run(&Scenario::faulty(11, 20)));
    assert_ne!(first.digest, run(&Scenario::faulty(12, 20)).digest);
}

/// What to print when `report`, of the scenario drawn from `seed`, breaks a rule: what, and the one command
/// that plays it again. `test` is the path of the test within this module.
fn failure(test: &str, seed: u64, report: &Report) -> Option<String> {
    (!report.broken.is_empty()).then(|| {
        let broken = &report.broken;
        format!(
            "seed {seed} breaks {broken:?}; replay with\n    SHOAL_SIM_SEED={seed} cargo test --test suite simulation::{test}"
        )
    })
}
