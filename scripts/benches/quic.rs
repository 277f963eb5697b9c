//! `quic`: our QUIC beside quinn alone, and what is left of both on a link that loses packets. That part needs root,
//! `ip` and `nft`.

use std::process::Command;

use serde_json::{Value, json};

use crate::Result;
use crate::bare::{Kind, in_own_process};
use crate::lab::{Lab, write_noise};
use crate::links::{Lossy, Packets};
use crate::process::cpu_of;
use crate::report::{median, say, spread};

/// Packets lost of a hundred, in each direction.
const LOST_PERCENT: u32 = 1;

/// MiB moved on the link that loses packets are this part of the others.
const LOSSY_PART: u64 = 4;

pub(crate) const QUINN: &str = "quinn, memory to memory";
pub(crate) const SESSION: &str = "session stream over QUIC, memory to memory";
const PROGRAM: &str = "shoal over QUIC";

/// What is lost at once.
pub(crate) const BATCHES: &str = "up to ten datagrams";
pub(crate) const SINGLE: &str = "one datagram";

/// Runs by turns; `lab` listens on QUIC alone.
pub(crate) fn run(lab: &Lab, mib: u64, runs: usize) -> Result<Vec<Value>> {
    let mut lines = clean(lab, mib, runs)?;
    lines.extend(lossy(lab, mib / LOSSY_PART, runs)?);
    Ok(lines)
}

fn clean(lab: &Lab, mib: u64, runs: usize) -> Result<Vec<Value>> {
    let input = lab.path("input.bin");
    write_noise(&input, mib << 20)?;
    let seeder = lab.seed(&input)?;
    let mut lines = Vec::new();
    // The first round warms caches and is not counted.
    for round in 0..=runs {
        let mut results = Vec::new();
        for (name, kind) in [(QUINN, Kind::Quinn), (SESSION, Kind::QuicStream)] {
            results.push((name, in_own_process(None, kind, mib, &lab.path(""))?));
        }
        let before = cpu_of(seeder.process.0.id())?;
        let (fetch, into) = lab.fetch(&seeder.link)?;
        let cpu = fetch.cpu + cpu_of(seeder.process.0.id())? - before;
        std::fs::remove_dir_all(into)?;
        results.push((PROGRAM, (fetch.wall, cpu)));
        if round > 0 {
            lines.extend(results.iter().map(|(name, (secs, cpu))| {
                json!({ "bench": "quic", "what": name, "mib": mib, "secs": secs, "cpu": cpu })
            }));
        }
    }
    say(&format!(
        "{mib} MiB by QUIC over loopback, both ends, {runs} runs by turns, median (least-most)"
    ));
    say("| | seconds | MB/s | of quinn | CPU s/GiB |");
    say("|---|---|---|---|---|");
    let bare = median(&of(&lines, QUINN, "secs"));
    for name in [QUINN, SESSION, PROGRAM] {
        let secs = of(&lines, name, "secs");
        say(&format!(
            "| {name} | {} | {:.0} | {:.2} | {:.2} |",
            spread(&secs),
            (mib << 20) as f64 / 1e6 / median(&secs),
            bare / median(&secs),
            median(&of(&lines, name, "cpu")) * 1024.0 / mib as f64,
        ));
    }
    Ok(lines)
}

/// The same in a namespace whose loopback loses packets, once for each meaning of the word.
fn lossy(lab: &Lab, mib: u64, runs: usize) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    for (packets, words) in [(Packets::Batches, BATCHES), (Packets::Single, SINGLE)] {
        let link = match Lossy::new(packets) {
            Ok(link) => link,
            Err(error) => {
                say(&format!("without a link that loses packets: {error}"));
                return Ok(lines);
            }
        };
        for _ in 0..runs {
            for lost in [0, LOST_PERCENT] {
                link.lose(lost)?;
                for (name, kind) in [(QUINN, Kind::Quinn), (SESSION, Kind::QuicStream)] {
                    let command: Command = link.command();
                    let (secs, cpu) = in_own_process(Some(command), kind, mib, &lab.path(""))?;
                    lines.push(
                        json!({ "bench": "quic", "what": name, "mib": mib, "packets": words,
                        "lost_percent": lost, "secs": secs, "cpu": cpu }),
                    );
                }
            }
        }
    }
    say(&format!(
        "{mib} MiB, {LOST_PERCENT} % of the packets lost in each direction, {runs} runs by turns"
    ));
    say("| packets | | seconds, none lost | seconds, some lost | keeps of its speed |");
    say("|---|---|---|---|---|");
    for words in [BATCHES, SINGLE] {
        for name in [QUINN, SESSION] {
            let with_loss = |lost| secs_of(&lines, name, words, lost);
            let (none, some) = (with_loss(0), with_loss(LOST_PERCENT));
            say(&format!(
                "| {words} | {name} | {} | {} | {:.2} |",
                spread(&none),
                spread(&some),
                median(&none) / median(&some)
            ));
        }
    }
    Ok(lines)
}

fn of(lines: &[Value], what: &str, key: &str) -> Vec<f64> {
    let of_it = lines.iter().filter(|line| line["what"] == what);
    of_it.filter_map(|line| line[key].as_f64()).collect()
}

fn secs_of(lines: &[Value], what: &str, packets: &str, lost: u32) -> Vec<f64> {
    let of_it = lines.iter().filter(|line| {
        line["what"] == what && line["packets"] == packets && line["lost_percent"] == lost
    });
    of_it.filter_map(|line| line["secs"].as_f64()).collect()
}
