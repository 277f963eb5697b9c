//! `memory`: what seeder and fetcher hold in a long transfer, and with many peers at once.

use std::fs::File;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Result;
use crate::fleet::{PORT, fetch, seed};
use crate::lab::{Lab, write_noise};
use crate::links::Star;
use crate::process::{neighbours_of, peak_of};
use crate::report::say;

/// Peers of the crowd, and the file that all of them fetch at once.
const CROWD: usize = 50;
const CROWD_MIB: u64 = 64;

/// Bytes per second of each link of the crowd, far above what a machine moves.
const UP: u64 = 100_000_000_000;

/// Longest run of the crowd.
const LIMIT: Duration = Duration::from_secs(300);

pub(crate) fn run(lab: &Lab, mib: u64, runs: usize) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    for _ in 0..runs {
        lines.push(long(lab, mib)?);
        lines.push(crowd(lab)?);
    }
    say("| | peers | peak MiB seeder | peak MiB fetcher |");
    say("|---|---|---|---|");
    for line in &lines {
        say(&format!(
            "| {} | {} | {:.0} | {:.0} |",
            line["what"].as_str().unwrap_or_default(),
            line["peers"],
            line["seeder_peak_mib"].as_f64().unwrap_or(f64::NAN),
            line["fetcher_peak_mib"].as_f64().unwrap_or(f64::NAN),
        ));
    }
    Ok(lines)
}

/// One seeder, one fetcher, loopback. The input has no blocks on the disk, since what is held in memory does not depend on
/// what the bytes are; the copy is written whole.
fn long(lab: &Lab, mib: u64) -> Result<Value> {
    let input = lab.path("long.bin");
    File::create(&input)?.set_len(mib << 20)?;
    let seeder = lab.seed(&input)?;
    let (fetch, into) = lab.fetch(&seeder.link)?;
    std::fs::remove_dir_all(into)?;
    Ok(
        json!({ "bench": "memory", "what": format!("{mib} MiB, 1 to 1"), "mib": mib, "peers": 1,
        "seeder_peak_mib": peak_of(seeder.process.0.id()), "fetcher_peak_mib": fetch.peak_mib, "secs": fetch.wall }),
    )
}

/// One seeder and many fetchers, all connected to it, that all fetch from each other.
fn crowd(lab: &Lab) -> Result<Value> {
    let input = lab.path("crowd.bin");
    write_noise(&input, CROWD_MIB << 20)?;
    let star = Star::new(1 + CROWD, UP)?;
    let folder = tempfile::tempdir_in(lab.path("."))?;
    let (source, fetchers) = star.machines().split_first().ok_or("it has machines")?;
    let (seeder, link) = seed(lab, source, &input, folder.path())?;
    let address = [format!("/ip4/{}/tcp/{PORT}", source.address)];
    let (done, all_done) = channel();
    let (began, mut fetching) = (Instant::now(), Vec::new());
    for machine in fetchers {
        let process = fetch(lab, machine, &link, &address, folder.path(), done.clone())?;
        fetching.push(process);
    }
    let mut peers = 0;
    for _ in fetchers {
        all_done.recv_timeout(LIMIT.saturating_sub(began.elapsed()))?;
        peers = peers.max(neighbours_of(seeder.0.id())?);
    }
    let of_fetchers = fetching
        .iter()
        .filter_map(|process| peak_of(process.0.id()));
    Ok(
        json!({ "bench": "memory", "what": format!("{CROWD_MIB} MiB, 1 to {CROWD}"), "mib": CROWD_MIB, "peers": peers,
        "seeder_peak_mib": peak_of(seeder.0.id()), "fetcher_peak_mib": of_fetchers.fold(0.0, f64::max),
        "secs": began.elapsed().as_secs_f64() }),
    )
}
