//! `fan-out`: one seeder, four fetchers at once, links that nobody waits for; beside other programs on the same machines.

use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Result;
use crate::fleet::{PORT, check_copies, fetch, seed};
use crate::lab::{Lab, write_noise};
use crate::links::Star;
use crate::peers::Peers;
use crate::process::{cpu_of, peak_of};
use crate::report::{median, median_of, of, of_peers, say, spread};

const FETCHERS: usize = 4;

/// Bytes per second of each link, far above what a machine moves.
const UP: u64 = 100_000_000_000;

/// Longest run.
const LIMIT: Duration = Duration::from_secs(120);

/// One run of ours.
struct Run {
    /// Until the last fetcher has everything.
    secs: f64,
    /// CPU seconds of all processes.
    cpu: f64,
    /// Peak of the seeder, and the highest of a fetcher.
    peaks_mib: (f64, f64),
}

pub(crate) fn run(lab: &Lab, peers: &Peers, mib: u64, runs: usize) -> Result<Vec<Value>> {
    let input = lab.path("input.bin");
    write_noise(&input, mib << 20)?;
    // Their own: a link made to a file is a change of it, which a seeder of ours notices.
    let theirs = lab.path("theirs.bin");
    std::fs::copy(&input, &theirs)?;
    let theirs = theirs.to_str().ok_or("the path is text")?;
    let flags = format!(
        "--fetchers {FETCHERS} --up {UP} --limit {} --file {theirs}",
        LIMIT.as_secs()
    );
    let flags: Vec<String> = flags.split(' ').map(str::to_owned).collect();
    let mut lines = Vec::new();
    // The first round warms caches and is not counted.
    for round in 0..=runs {
        let run = one_run(lab, &input)?;
        if round == 0 {
            continue;
        }
        lines.push(json!({ "bench": "fan-out", "mib": mib, "fetchers": FETCHERS, "secs": run.secs, "cpu": run.cpu,
            "seeder_peak_mib": run.peaks_mib.0, "fetcher_peak_mib": run.peaks_mib.1 }));
        for name in &peers.names {
            if let Some(result) = peers.run(lab, "b2", name, &flags)? {
                lines.push(json!({ "bench": "fan-out", "mib": mib, "peer": result }));
            }
        }
    }
    table(&lines);
    Ok(lines)
}

fn one_run(lab: &Lab, input: &Path) -> Result<Run> {
    let star = Star::new(1 + FETCHERS, UP)?;
    let folder = tempfile::tempdir_in(lab.path("."))?;
    let (source, fetchers) = star.machines().split_first().ok_or("it has machines")?;
    let (seeder, link) = seed(lab, source, input, folder.path())?;
    let address = [format!("/ip4/{}/tcp/{PORT}", source.address)];
    let cpu_before = cpu_of(seeder.0.id())?;
    let (done, all_done) = channel();
    let began = Instant::now();
    let mut fetching = Vec::new();
    for machine in fetchers {
        let process = fetch(lab, machine, &link, &address, folder.path(), done.clone())?;
        fetching.push(process);
    }
    let mut secs = 0.0;
    for _ in fetchers {
        let left = LIMIT.saturating_sub(began.elapsed());
        let at = all_done.recv_timeout(left)?.at;
        secs = at.duration_since(began).as_secs_f64();
    }
    let mut cpu = cpu_of(seeder.0.id())? - cpu_before;
    let mut fetcher_peak = 0.0_f64;
    for process in &fetching {
        cpu += cpu_of(process.0.id())?;
        fetcher_peak = fetcher_peak.max(peak_of(process.0.id()).unwrap_or(0.0));
    }
    check_copies(fetchers, input, folder.path())?;
    let seeder_peak = peak_of(seeder.0.id()).unwrap_or(0.0);
    Ok(Run {
        secs,
        cpu,
        peaks_mib: (seeder_peak, fetcher_peak),
    })
}

fn table(lines: &[Value]) {
    let ours = of(lines, "secs");
    say(&format!(
        "1 seeder, {FETCHERS} fetchers, {} MiB each, links not shaped, {} runs, median (least-most)",
        lines[0]["mib"],
        ours.len()
    ));
    say("| | last done s | ours / its seconds | CPU s of all | peak MiB seeder / fetcher |");
    say("|---|---|---|---|---|");
    say(&format!(
        "| shoal | {} | 1 | {:.1} | {:.0} / {:.0} |",
        spread(&ours),
        median_of(lines, "cpu"),
        median_of(lines, "seeder_peak_mib"),
        median_of(lines, "fetcher_peak_mib")
    ));
    let (seeders, fetchers) = (of_peers(lines, "cpu_seed"), of_peers(lines, "cpu_fetch"));
    for (name, secs) in of_peers(lines, "secs") {
        say(&format!(
            "| {name} | {} | {:.2} | {:.1} | - |",
            spread(&secs),
            median(&ours) / median(&secs),
            median(&seeders[&name]) + median(&fetchers[&name])
        ));
    }
}
