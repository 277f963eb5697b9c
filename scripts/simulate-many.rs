//! Plays blocks of a thousand faulty swarms and compares their digests with the committed ones.
//!
//! Built and run by `scripts/simulate-many`, which describes the arguments. A block whose digest is not in
//! the file yet is added to it with `--write`; a block whose digest differs, or a broken rule, is an error.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what it is for"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shoal::sim::{BLOCK_SEEDS, Scenario, block_digest, run};

const USAGE: &str = "usage: simulate-many [--write] [FIRST_BLOCK [BLOCKS]] | large NODES PIECES";

fn digests_path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/simulation/digests")
}

/// Digests by block.
fn read_digests() -> std::io::Result<BTreeMap<u64, u64>> {
    let text = std::fs::read_to_string(digests_path())?;
    let of_line = |line: &str| {
        let (block, digest) = line.split_once(' ')?;
        Some((block.parse().ok()?, u64::from_str_radix(digest, 16).ok()?))
    };
    Ok(text.lines().filter_map(of_line).collect())
}

fn write_digests(digests: &BTreeMap<u64, u64>) -> std::io::Result<()> {
    let lines = digests
        .iter()
        .map(|(block, digest)| format!("{block} {digest:016x}\n"));
    let head = "# Digests of blocks of a thousand simulated swarms; written by scripts/simulate-many --write.\n";
    std::fs::write(digests_path(), head.to_owned() + &lines.collect::<String>())
}

/// The digest of a block, and what broke in it.
fn play_block(block: u64) -> (u64, Vec<String>) {
    let first = block * BLOCK_SEEDS;
    let next = AtomicU64::new(0);
    let parts = Mutex::new(vec![0; BLOCK_SEEDS as usize]);
    let broken = Mutex::new(Vec::new());
    let play = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= BLOCK_SEEDS {
                return;
            }
            let report = run(&Scenario::many(first + at));
            if let Ok(mut parts) = parts.lock() {
                parts[at as usize] = report.block_part();
            }
            if !report.broken.is_empty()
                && let Ok(mut broken) = broken.lock()
            {
                broken.push(format!("seed {}: {:?}", first + at, report.broken));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(play);
        }
    });
    let parts = parts.into_inner().unwrap_or_default();
    (block_digest(parts), broken.into_inner().unwrap_or_default())
}

fn play_blocks(first: u64, count: u64, writes: bool) -> std::io::Result<bool> {
    let mut digests = read_digests().unwrap_or_default();
    let began = Instant::now();
    let (mut all_well, mut matched, mut added) = (true, 0, 0);
    for block in first..first + count {
        let (digest, broken) = play_block(block);
        for broken in &broken {
            println!("{broken}");
        }
        all_well &= broken.is_empty();
        match digests.get(&block) {
            Some(expected) if *expected == digest => matched += 1,
            Some(expected) => {
                println!("block {block}: {digest:016x} where {expected:016x} is committed");
                all_well = false;
            }
            None if writes => {
                added += 1;
                digests.insert(block, digest);
                write_digests(&digests)?;
            }
            None => println!("block {block}: {digest:016x} is new"),
        }
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "{} seeds in {took:.0} s: {matched} blocks match, {added} added, {}",
        count * BLOCK_SEEDS,
        if all_well { "all rules hold" } else { "FAILED" }
    );
    Ok(all_well)
}

/// One sound swarm of equal peers against the optimum of Mundinger, Weber and Weiss (2008).
fn play_large(nodes: usize, pieces: u32) -> bool {
    const RATE: u64 = 1_000_000;
    let scenario = Scenario::plain(1, nodes, pieces, RATE);
    let began = Instant::now();
    let report = run(&scenario);
    let optimum = f64::from(pieces + nodes.ilog2()) * f64::from(scenario.piece_len) / RATE as f64;
    let finishes: Option<Vec<Duration>> =
        report.nodes[1..].iter().map(|node| node.finished).collect();
    let Some(finishes) = finishes else {
        println!("not all finish: {:?}", report.broken);
        return false;
    };
    let last = finishes.iter().max().map_or(0.0, Duration::as_secs_f64);
    let mean = finishes.iter().sum::<Duration>().as_secs_f64() / nodes as f64;
    let (wasted, kept) = report.wasted();
    println!(
        "{nodes} peers, 1 source, {pieces} pieces: last {:.4}, mean {:.4} times the optimum; {:.2} % wasted, the source sent {:.2} copies, {} part(s); {} events in {:.0} s",
        last / optimum,
        mean / optimum,
        wasted as f64 * 100.0 / kept as f64,
        report.nodes[0].sent as f64 / scenario.total() as f64,
        report.parts_max,
        report.happenings,
        began.elapsed().as_secs_f64(),
    );
    report.broken.is_empty()
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let writes = arguments.first().is_some_and(|first| first == "--write");
    if writes {
        arguments.remove(0);
    }
    let numbers = |from: usize| -> Option<Vec<u64>> {
        let numbers = arguments.iter().skip(from).map(|text| text.parse().ok());
        numbers.collect()
    };
    let is_large = arguments.first().is_some_and(|first| first == "large");
    let result = if is_large {
        match numbers(1).as_deref() {
            Some([nodes, pieces]) => Ok(play_large(*nodes as usize, *pieces as u32)),
            _ => return usage(),
        }
    } else {
        match numbers(0).as_deref() {
            Some([]) => play_blocks(0, 1, writes),
            Some([first]) => play_blocks(*first, 1, writes),
            Some([first, count]) => play_blocks(*first, *count, writes),
            _ => return usage(),
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot write the digests: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
