//! `swarm`: real processes on shaped links, last finisher over the fluid bound, also when a seeder fails on the way.
//!
//! Bounds: Kumar and Ross, "Peer-assisted file distribution: the minimum distribution time" (2006); after a fault the
//! same for what remains, as if everything before had run at full rate.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Result;
use crate::fleet::{Finished, PORT, check_copies, fetch, seed};
use crate::lab::{Guard, Lab, write_noise};
use crate::links::{Machine, Star};
use crate::peers::Peers;
use crate::process::{machine_cpu, nap};
use crate::report::{median, say, spread};

/// A run counts only while the machine has reserves: part of all its processors' time.
const BUSY_MAX: f64 = 0.7;

/// Runs taken again because the machine was busy.
const TRIES_MAX: usize = 3;

/// A run that takes this many times its bound has failed.
const PATIENCE: f64 = 6.0;

/// How long after a fault goodput is looked at. Later, fetchers are done one after the other and rates fall.
const BACK_WITHIN: f64 = 5.0;

/// How often the links are looked at, and over how many looks goodput is averaged.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOOKS: usize = 10;

/// What happens to the second seeder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP: the kernel still acknowledges.
    Stop,
    /// Its wire is taken off.
    Cut,
}

#[derive(Clone, Copy, Debug)]
struct Scenario {
    name: &'static str,
    seeders: usize,
    fetchers: usize,
    mib: u64,
    /// Bytes per second of every uplink.
    up: u64,
    fault: Option<Fault>,
}

const fn sound(name: &'static str, fetchers: usize, mib: u64, up: u64) -> Scenario {
    Scenario {
        name,
        seeders: 1,
        fetchers,
        mib,
        up,
        fault: None,
    }
}

const fn broken(name: &'static str, fault: Fault) -> Scenario {
    Scenario {
        name,
        seeders: 2,
        fetchers: 3,
        mib: 512,
        up: 20_000_000,
        fault: Some(fault),
    }
}

const SCENARIOS: [Scenario; 6] = [
    sound("1+4 at 25 MB/s", 4, 512, 25_000_000),
    sound("1+8 at 10 MB/s", 8, 256, 10_000_000),
    sound("1+8 at 5 MB/s", 8, 256, 5_000_000),
    broken("2+3 at 20 MB/s, one seeder killed", Fault::Kill),
    broken("2+3 at 20 MB/s, one seeder stopped", Fault::Stop),
    broken("2+3 at 20 MB/s, one seeder's link cut", Fault::Cut),
];

impl Scenario {
    fn len(&self) -> f64 {
        (self.mib << 20) as f64
    }

    /// A third of the time that a sound run takes at least.
    fn fault_at(&self) -> f64 {
        self.bound(None) / 3.0
    }

    /// Seconds that no protocol can beat; `hit` is when the second seeder fails.
    fn bound(&self, hit: Option<f64>) -> f64 {
        let (len, up) = (self.len(), self.up as f64);
        let (seeders, fetchers) = (self.seeders as f64, self.fetchers as f64);
        let Some(hit) = hit else {
            return (len / (seeders * up)).max(fetchers * len / ((seeders + fetchers) * up));
        };
        let moved = (seeders + fetchers) * up * hit;
        let all = (fetchers * len - moved) / ((seeders - 1.0 + fetchers) * up);
        let first = (len - seeders * up * hit) / ((seeders - 1.0) * up);
        hit + all.max(first).max(0.0)
    }
}

/// One run of ours.
struct Run {
    /// Until the last fetcher was done.
    secs: f64,
    bound: f64,
    /// What the seeders sent, in lengths of the file, headers included.
    copies: f64,
    /// Bytes of pieces that fetchers received and did not keep, as part of those they kept.
    wasted: f64,
    /// Part of all processors' time that was used.
    busy: f64,
    /// From the fault until goodput was above nine tenths of what the rest can give for good.
    back_secs: Option<f64>,
}

pub(crate) fn run(lab: &Lab, peers: &Peers, only: &str, runs: usize) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    say(&format!(
        "swarms on shaped links, {runs} runs, median (least-most)"
    ));
    say(
        "| scenario | program | last done s | bound s | ratio | copies sent | wasted | goodput back after s | CPU busy |",
    );
    say("|---|---|---|---|---|---|---|---|---|");
    for scenario in SCENARIOS
        .iter()
        .filter(|scenario| scenario.name.contains(only))
    {
        let input = lab.path(&format!("swarm-{}.bin", scenario.mib));
        if !input.exists() {
            write_noise(&input, scenario.mib << 20)?;
        }
        let mut ours = Vec::new();
        let mut others: Vec<(&String, Vec<Value>)> =
            peers.names.iter().map(|name| (name, Vec::new())).collect();
        for _ in 0..runs {
            let run = valid_run(lab, scenario, &input)?;
            lines.push(json!({ "bench": "swarm", "scenario": scenario.name, "secs": run.secs, "bound": run.bound,
                "copies": run.copies, "wasted": run.wasted, "busy": run.busy, "back_secs": run.back_secs }));
            ours.push(run);
            for (name, results) in &mut others {
                if let Some(result) = peers.run(
                    lab,
                    peer_scenario(scenario),
                    name,
                    &peer_flags(scenario, &input)?,
                )? {
                    lines.push(
                        json!({ "bench": "swarm", "scenario": scenario.name, "peer": result }),
                    );
                    results.push(result);
                }
            }
        }
        table(scenario, &ours, &others);
    }
    Ok(lines)
}

fn table(scenario: &Scenario, ours: &[Run], others: &[(&String, Vec<Value>)]) {
    let of = |what: fn(&Run) -> f64| ours.iter().map(what).collect::<Vec<f64>>();
    let back: Vec<f64> = ours.iter().filter_map(|run| run.back_secs).collect();
    let back = if back.is_empty() {
        "-".to_owned()
    } else {
        spread(&back)
    };
    say(&format!(
        "| {} | shoal | {} | {:.1} | {:.3} | {:.3} | {:.2} % | {back} | {:.0} % |",
        scenario.name,
        spread(&of(|run| run.secs)),
        median(&of(|run| run.bound)),
        median(&of(|run| run.secs / run.bound)),
        median(&of(|run| run.copies)),
        100.0 * median(&of(|run| run.wasted)),
        100.0 * median(&of(|run| run.busy)),
    ));
    for (name, results) in others {
        let of = |key: &str| {
            results
                .iter()
                .filter_map(|result| result[key].as_f64())
                .collect::<Vec<f64>>()
        };
        say(&format!(
            "| | {name} | {} | {:.1} | {:.3} | - | - | - | - |",
            spread(&of("secs")),
            median(&of("bound")),
            median(&of("ratio"))
        ));
    }
}

fn peer_scenario(scenario: &Scenario) -> &'static str {
    match scenario.fault {
        None => "b2",
        Some(Fault::Kill) => "b3kill",
        Some(Fault::Stop) => "b3stop",
        Some(Fault::Cut) => "b3cut",
    }
}

fn peer_flags(scenario: &Scenario, input: &Path) -> Result<Vec<String>> {
    let file = input.to_str().ok_or("the path is text")?;
    let limit = PATIENCE * scenario.bound(None);
    let line = format!(
        "--fetchers {} --up {} --fault-at {:.2} --limit {limit:.0} --file {file}",
        scenario.fetchers,
        scenario.up,
        scenario.fault_at()
    );
    Ok(line.split(' ').map(str::to_owned).collect())
}

/// A run on a machine that was not busy.
fn valid_run(lab: &Lab, scenario: &Scenario, input: &Path) -> Result<Run> {
    for _ in 0..TRIES_MAX {
        let run = one_run(lab, scenario, input)?;
        if run.busy < BUSY_MAX {
            return Ok(run);
        }
        say(&format!(
            "{}: not counted, {:.0} % of the CPU was busy",
            scenario.name,
            100.0 * run.busy
        ));
    }
    Err("the machine is too busy for links that must not wait for it".into())
}

fn one_run(lab: &Lab, scenario: &Scenario, input: &Path) -> Result<Run> {
    let star = Star::new(scenario.seeders + scenario.fetchers, scenario.up)?;
    let (seeders, fetchers) = star.machines().split_at(scenario.seeders);
    let folder = tempfile::tempdir_in(lab.path("."))?;
    let (done, all_done) = channel();
    let mut seeding = Vec::new();
    let mut link = String::new();
    for machine in seeders {
        let (process, its_link) = seed(lab, machine, input, folder.path())?;
        seeding.push(process);
        link = its_link;
    }
    let peers: Vec<String> = seeders
        .iter()
        .map(|machine| format!("/ip4/{}/tcp/{PORT}", machine.address))
        .collect();
    let cpu_before = machine_cpu()?;
    let began = Instant::now();
    let mut fetching = Vec::new();
    for machine in fetchers {
        fetching.push(fetch(
            lab,
            machine,
            &link,
            &peers,
            folder.path(),
            done.clone(),
        )?);
    }
    let watched = watch(scenario, (seeders, &seeding), fetchers, began, &all_done)?;
    let cpu_after = machine_cpu()?;
    let busy = (cpu_after.0 - cpu_before.0) / (cpu_after.1 - cpu_before.1);
    let mut sent = 0;
    for machine in seeders {
        sent += machine.sent()?;
    }
    check_copies(fetchers, input, folder.path())?;
    Ok(Run {
        secs: watched.secs,
        bound: scenario.bound(watched.hit),
        copies: sent as f64 / scenario.len(),
        wasted: watched.wasted as f64 / (scenario.fetchers as f64 * scenario.len()),
        busy,
        back_secs: watched.back,
    })
}

#[derive(Default)]
struct Watched {
    secs: f64,
    wasted: u64,
    hit: Option<f64>,
    back: Option<f64>,
}

/// Looks at the links until every fetcher is done, and breaks what is to be broken.
fn watch(
    scenario: &Scenario,
    (seeders, seeding): (&[Machine], &[Guard]),
    fetchers: &[Machine],
    began: Instant,
    done: &Receiver<Finished>,
) -> Result<Watched> {
    let mut watched = Watched::default();
    let mut looks: Vec<(f64, u64)> = Vec::new();
    // All uplinks that are left, but no more than the seeders that are left give of what nobody has, to everybody.
    let uplinks =
        (scenario.seeders + scenario.fetchers - 1).min((scenario.seeders - 1) * scenario.fetchers);
    let rest = (uplinks as u64 * scenario.up) as f64;
    let mut finished = 0;
    while finished < fetchers.len() {
        while let Ok(Finished { at, wasted }) = done.try_recv() {
            finished += 1;
            watched.secs = at.duration_since(began).as_secs_f64();
            watched.wasted += wasted;
        }
        let now = began.elapsed().as_secs_f64();
        if now > PATIENCE * scenario.bound(None) {
            return Err(format!(
                "{}: {finished} of {} done in time",
                scenario.name,
                fetchers.len()
            )
            .into());
        }
        if let (None, Some(fault), true) = (watched.hit, scenario.fault, now >= scenario.fault_at())
        {
            strike(fault, &seeders[1], &seeding[1])?;
            watched.hit = Some(now);
            looks.clear();
        }
        let mut received = 0;
        for machine in fetchers {
            received += machine.received()?;
        }
        looks.push((now, received));
        nap(LOOK_EVERY);
    }
    watched.back = watched.hit.map(|hit| back_after(&looks, hit, 0.9 * rest));
    Ok(watched)
}

/// From `hit` until goodput was above `enough` bytes per second for good: the end of the last stretch in the next
/// [`BACK_WITHIN`] seconds that was below. `looks` begin with the fault.
fn back_after(looks: &[(f64, u64)], hit: f64, enough: f64) -> f64 {
    let stretches = looks.iter().zip(looks.iter().skip(LOOKS));
    stretches
        .filter(|((then, before), (now, after))| {
            now - hit < BACK_WITHIN && ((after - before) as f64) < enough * (now - then)
        })
        .map(|(_, (now, _))| now - hit)
        .fold(0.0, f64::max)
}

fn strike(fault: Fault, machine: &Machine, process: &Guard) -> Result<()> {
    let signal = match fault {
        Fault::Kill => "-KILL",
        Fault::Stop => "-STOP",
        Fault::Cut => return machine.cut(),
    };
    Command::new("kill")
        .arg(signal)
        .arg(process.0.id().to_string())
        .status()?;
    Ok(())
}
