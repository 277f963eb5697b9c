//! The measure `wire`: how much of a bare encrypted connection is left at each layer of ours.
//!
//! The bare transfers and the program take turns, so that the ratios of one call mean something.

use serde_json::{Value, json};

use crate::Result;
use crate::bare::{Kind, in_own_process};
use crate::lab::{Lab, write_noise};
use crate::process::cpu_of;
use crate::report::{median, say, spread};

/// Runs every kind and the whole program in turn, and prints one table.
pub(crate) fn run(lab: &Lab, mib: u64, runs: usize) -> Result<Vec<Value>> {
    let input = lab.path("input.bin");
    write_noise(&input, mib << 20)?;
    let seeder = lab.seed(&input)?;
    let names = [
        "TLS, memory to memory",
        "session stream, memory to memory",
        "session stream, read, hashed, written",
        "shoal",
    ];
    let mut walls = [const { Vec::new() }; 4];
    let mut cpus = [const { Vec::new() }; 4];
    let mut lines = Vec::new();
    // The first round warms caches and is not counted.
    for round in 0..=runs {
        let mut results = Vec::new();
        for kind in [Kind::Tls, Kind::Stream, Kind::Files] {
            results.push(in_own_process(None, kind, mib, &lab.path(""))?);
        }
        let before = cpu_of(seeder.process.0.id())?;
        let (fetch, into) = lab.fetch(&seeder.link)?;
        std::fs::remove_dir_all(into)?;
        results.push((
            fetch.wall,
            fetch.cpu + cpu_of(seeder.process.0.id())? - before,
        ));
        if round == 0 {
            continue;
        }
        for (at, (wall, cpu)) in results.into_iter().enumerate() {
            walls[at].push(wall);
            cpus[at].push(cpu);
            lines.push(
                json!({ "bench": "wire", "what": names[at], "mib": mib, "secs": wall, "cpu": cpu }),
            );
        }
    }
    let (mb, gib) = ((mib << 20) as f64 / 1e6, mib as f64 / 1024.0);
    let bare = median(&walls[0]);
    say(&format!(
        "{mib} MiB over loopback, both ends, {runs} runs by turns, median (least-most)"
    ));
    say("| | seconds | MB/s | of TLS | CPU s/GiB |");
    say("|---|---|---|---|---|");
    for at in 0..names.len() {
        let wall = median(&walls[at]);
        say(&format!(
            "| {} | {} | {:.0} | {:.2} | {:.2} |",
            names[at],
            spread(&walls[at]),
            mb / wall,
            bare / wall,
            median(&cpus[at]) / gib,
        ));
    }
    Ok(lines)
}
