//! Many seeds of drawn scenarios, every checker on.
//!
//! `SHOAL_SIM_SEED` plays just one seed of a sweep, `SHOAL_SIM_SEEDS` another number of them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use shoal::sim::{BLOCK_SEEDS, Broken, Report, Scenario, block_digest, run};

use super::{failure, seconds};

/// The sweeps: path of the test, seeds, scenario of a seed.
struct Sweep {
    test: &'static str,
    seeds: u64,
    scenario: fn(u64) -> Scenario,
}

const FAULTY: Sweep = Sweep {
    test: "sweeps::a_block_of_faulty_swarms_keeps_every_rule_and_its_committed_digest",
    seeds: BLOCK_SEEDS,
    scenario: Scenario::many,
};

const COMING_AND_GOING: Sweep = Sweep {
    test: "sweeps::two_hundred_peers_come_and_go_and_all_that_stay_alive_finish",
    seeds: 2,
    scenario: |seed| Scenario::coming_and_going(seed, 200, 64),
};

const SWEEPS: &[Sweep] = &[FAULTY, COMING_AND_GOING];

/// The seeds to play, by what the environment says.
fn seeds(one: Option<&str>, count: Option<&str>, default: u64) -> Range<u64> {
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
    match number(one) {
        Some(seed) => seed..seed + 1,
        None => 0..number(count).unwrap_or(default),
    }
}

impl Sweep {
    /// Plays the seeds on all cores, lets `look` see each report, and fails with the lowest bad seed.
    fn play(&self, look: impl Fn(u64, &Scenario, &Report) + Sync) {
        let from_environment = |name| std::env::var(name).ok();
        let one = from_environment("SHOAL_SIM_SEED");
        let count = from_environment("SHOAL_SIM_SEEDS");
        let seeds = seeds(one.as_deref(), count.as_deref(), self.seeds);
        let next = AtomicU64::new(seeds.start);
        let failures = Mutex::new(Vec::new());
        let play = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return;
                }
                let scenario = (self.scenario)(seed);
                let report = run(&scenario);
                match failure(self.test, seed, &report) {
                    Some(text) => failures.lock().unwrap().push((seed, text)),
                    None => look(seed, &scenario, &report),
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(play);
            }
        });
        let failures = failures.into_inner().unwrap();
        if let Some((_, text)) = failures.iter().min() {
            panic!(
                "{} of {} seeds fail; {text}",
                failures.len(),
                seeds.end - seeds.start
            );
        }
    }
}

#[test]
fn a_block_of_faulty_swarms_keeps_every_rule_and_its_committed_digest() {
    let parts = Mutex::new(BTreeMap::new());
    let faults = AtomicU64::new(0);
    FAULTY.play(|seed, scenario, report| {
        let count = scenario.nodes.iter().map(|node| node.faults.len() as u64);
        faults.fetch_add(count.sum(), Ordering::Relaxed);
        parts.lock().unwrap().insert(seed, report.block_part());
    });
    assert!(faults.into_inner() > 0, "the sweep has faults to survive");
    let parts = parts.into_inner().unwrap();
    if parts.keys().copied().eq(0..BLOCK_SEEDS) {
        let digest = format!("0 {:016x}", block_digest(parts.into_values()));
        let committed = include_str!("digests")
            .lines()
            .find(|line| line.starts_with("0 "));
        let expected = committed.expect("block 0 is committed");
        assert_eq!(
            digest, expected,
            "the simulated swarms went another way: if that is meant, delete tests/simulation/digests and run \
             scripts/simulate-many --write 0 100"
        );
    }
}

#[test]
fn two_hundred_peers_come_and_go_and_all_that_stay_alive_finish() {
    COMING_AND_GOING.play(|seed, scenario, report| {
        let finished = |index: &usize| report.nodes[*index].finished.is_some();
        let plans = || scenario.nodes.iter().enumerate();
        let sound: Vec<usize> = plans()
            .filter(|(_, node)| node.is_sound())
            .map(|(index, _)| index)
            .collect();
        assert!(sound.iter().all(finished), "seed {seed}");
        let killed = plans().filter(|(index, node)| !node.is_sound() && !finished(index));
        assert!(
            killed.count() >= 10,
            "seed {seed}: the killing came too late to matter"
        );
        assert!(
            report.ended < seconds(90),
            "seed {seed}: {:?}",
            report.ended
        );
    });
}

#[test]
fn a_seed_that_fails_prints_the_one_command_that_replays_it() {
    for sweep in SWEEPS {
        let mut scenario = (sweep.scenario)(7);
        scenario.ends = seconds(1);
        let report = run(&scenario);
        assert!(matches!(report.broken[..], [Broken::Unfinished { .. }, ..]));
        let text = failure(sweep.test, 7, &report).expect("a rule is broken");
        let command = text.lines().last().expect("the command comes last").trim();
        let test = format!("simulation::{}", sweep.test);
        let expected = format!("SHOAL_SIM_SEED=7 cargo test --test suite {test}");
        assert_eq!(command, expected);

        let suite = std::env::current_exe().unwrap();
        let listed = Command::new(suite)
            .args(["--list", &test])
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.starts_with(&format!("{test}: test\n")), "{listed}");
    }
    assert_eq!(seeds(Some("7"), None, 1_000), 7..8);
}
