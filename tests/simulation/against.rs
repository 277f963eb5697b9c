//! Shoal and a BitTorrent client, each in a swarm of its own kind, in the same scenarios.
//!
//! `scripts/simulate-many against` sets `SHOAL_SIM_AGAINST=all`: every scenario is played with three seeds and the
//! table printed, the times of the other client in those of Shoal. Without it the quick ones are played with one.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use shoal::sim::{Broken, Fault, NodePlan, Report, Scenario, run, run_with};

use super::bittorrent::{BitTorrent, Settings};
use super::seconds;

const RATE: u64 = 1_000_000;

struct Case {
    name: &'static str,
    /// Whether the suite plays it.
    quick: bool,
    scenario: fn(u64) -> Scenario,
}

const fn case(name: &'static str, quick: bool, scenario: fn(u64) -> Scenario) -> Case {
    Case {
        name,
        quick,
        scenario,
    }
}

const CASES: &[Case] = &[
    case("1 + 4, 512 pieces", true, |seed| {
        Scenario::plain(seed, 4, 512, RATE)
    }),
    case("1 + 8, 256 pieces", true, |seed| {
        Scenario::plain(seed, 8, 256, RATE)
    }),
    case("1 + 100, 256 pieces", true, |seed| {
        Scenario::plain(seed, 100, 256, RATE)
    }),
    case(
        "uplinks 1 : 4 : 16, 60 peers, 512 pieces",
        false,
        three_classes,
    ),
    case(
        "30 % free riders of 60, 512 pieces: the others",
        false,
        free_riders,
    ),
    case("2 + 3, one seed killed", true, |seed| {
        two_seeds(seed, Fault::Crash { at: seconds(5) })
    }),
    case("2 + 3, one seed stopped", true, |seed| {
        let (from, until) = (seconds(5), None);
        two_seeds(seed, Fault::Silence { from, until })
    }),
    case("2 + 3, one seed's link cut", true, |seed| {
        let (from, until) = (seconds(5), seconds(3_600));
        two_seeds(seed, Fault::Clog { from, until })
    }),
    case("20 peers that leave when done, 128 pieces", true, leaving),
    case(
        "20 peers that join within 10 s, 256 pieces",
        true,
        joining_late,
    ),
    case(
        "20 peers and 20 that fall silent, 256 pieces",
        true,
        half_silent,
    ),
];

fn three_classes(seed: u64) -> Scenario {
    let mut scenario = Scenario::plain(seed, 60, 512, RATE);
    for (index, node) in scenario.nodes.iter_mut().enumerate().skip(1) {
        node.up_per_sec = [RATE / 4, RATE, 4 * RATE][index % 3];
        node.down_per_sec = 8 * RATE;
    }
    scenario.nodes[0].up_per_sec = 4 * RATE;
    scenario
}

fn free_riders(seed: u64) -> Scenario {
    let mut scenario = Scenario::plain(seed, 60, 512, RATE);
    for (index, node) in scenario.nodes.iter_mut().enumerate().skip(1) {
        if index % 10 < 3 {
            node.faults.push(Fault::FreeRider);
        }
    }
    scenario
}

fn two_seeds(seed: u64, fault: Fault) -> Scenario {
    let mut scenario = Scenario::plain(seed, 4, 512, RATE);
    scenario.nodes[1].seed = true;
    scenario.nodes[1].faults.push(fault);
    scenario
}

fn leaving(seed: u64) -> Scenario {
    let mut scenario = Scenario::plain(seed, 20, 128, RATE);
    scenario.nodes[1..]
        .iter_mut()
        .for_each(|node| node.leaves = true);
    scenario
}

fn joining_late(seed: u64) -> Scenario {
    let mut scenario = Scenario::plain(seed, 20, 256, RATE);
    for (index, node) in scenario.nodes.iter_mut().enumerate().skip(1) {
        node.joins = seconds(index as u64) / 2;
    }
    scenario
}

fn half_silent(seed: u64) -> Scenario {
    let mut scenario = Scenario::plain(seed, 20, 256, RATE);
    let (from, until) = (seconds(1), None);
    let silent = NodePlan::new(false, RATE, 4 * RATE).with(Fault::Silence { from, until });
    scenario.nodes.extend(vec![silent; 20]);
    scenario
}

/// When the last of the nodes without fault finished, in seconds.
fn last(scenario: &Scenario, report: &Report) -> f64 {
    let is_honest = |index: &usize| scenario.nodes[*index].faults.is_empty();
    let honest = (0..scenario.nodes.len()).filter(is_honest);
    let last = report.last_finish(honest).expect("the honest finish");
    last.as_secs_f64()
}

/// The rules of BitTorrent's are not all those of Shoal: it asks as many peers as it likes in the end game.
fn play_other(scenario: &Scenario, settings: Settings) -> Report {
    let mut report = run_with(scenario, &|now, config| {
        BitTorrent::new(settings, now, config)
    });
    report
        .broken
        .retain(|broken| !matches!(broken, Broken::AskedOfTooMany { .. }));
    assert_eq!(
        report.broken,
        [],
        "the other client breaks a rule of every client"
    );
    report
}

/// What a case comes to with one seed: seconds of Shoal, and of the other client with both settings.
struct Outcome {
    shoal: f64,
    others: [f64; 2],
}

impl Case {
    fn play(&self, seed: u64) -> Outcome {
        let scenario = (self.scenario)(seed);
        let report = run(&scenario);
        assert_eq!(report.broken, [], "{}", self.name);
        let other = |settings| last(&scenario, &play_other(&scenario, settings));
        Outcome {
            shoal: last(&scenario, &report),
            others: [Settings::DEFAULT, Settings::PIECEWISE].map(other),
        }
    }
}

/// Plays each of `cases` with each of `seeds` on all cores; the outcomes in the order of the cases.
fn play_all(cases: &[&Case], seeds: &[u64]) -> Vec<Vec<Outcome>> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(BTreeMap::new());
    let play = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(at / seeds.len()) else {
                return;
            };
            let outcome = case.play(seeds[at % seeds.len()]);
            outcomes.lock().unwrap().insert(at, outcome);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(play);
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap().into_values();
    let of_case = |_: &&Case| outcomes.by_ref().take(seeds.len()).collect();
    cases.iter().map(of_case).collect()
}

/// The line of a case in the table: means over its seeds.
fn line(case: &Case, outcomes: &[Outcome]) -> String {
    let mean =
        |of: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(of).sum::<f64>() / outcomes.len() as f64;
    let ratio = |which: usize| mean(&|outcome| outcome.others[which] / outcome.shoal);
    format!(
        "| {} | {:.1} s | {:.2} | {:.2} |",
        case.name,
        mean(&|outcome| outcome.shoal),
        ratio(0),
        ratio(1),
    )
}

#[test]
#[allow(clippy::print_stdout, reason = "the table is what a reader asks for")]
fn shoal_is_faster_than_bittorrent_in_every_scenario() {
    let is_all = std::env::var("SHOAL_SIM_AGAINST").is_ok_and(|which| which == "all");
    let seeds: &[u64] = if is_all { &[1, 2, 3] } else { &[1] };
    let cases = CASES.iter().filter(|case| is_all || case.quick);
    let cases: Vec<&Case> = cases.collect();
    let outcomes = play_all(&cases, seeds);
    let mut slower = Vec::new();
    if is_all {
        println!("| last done | Shoal | libtorrent by its defaults | the same, piece by piece |");
        println!("|---|---|---|---|");
    }
    for (case, outcomes) in cases.iter().zip(&outcomes) {
        let line = line(case, outcomes);
        if is_all {
            println!("{line}");
        }
        let is_slower =
            |outcome: &Outcome| outcome.others.iter().any(|other| *other <= outcome.shoal);
        if outcomes.iter().any(is_slower) {
            slower.push(line);
        }
    }
    assert_eq!(slower, [""; 0], "there Shoal is not faster with every seed");
}
