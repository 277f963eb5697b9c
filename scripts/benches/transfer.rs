//! `transfer`: one seeder, one fetcher, as fast as it goes.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Result;
use crate::lab::{Lab, write_noise};
use crate::peers::{CPU_OF_FETCHER, CPU_OF_SEEDER, Peers};
use crate::process::{Run, cpu_of, measure, peak_of};
use crate::report::{median, median_of, of, say, spread};

/// Bytes moved at a time by the plain pipe.
const BLOCK_LEN: usize = 1 << 20;

/// Longest run of another program.
const LIMIT_SECS: &str = "120";

pub(crate) fn run(lab: &Lab, peers: &Peers, mib: u64, runs: usize) -> Result<Vec<Value>> {
    let input = lab.path("input.bin");
    write_noise(&input, mib << 20)?;
    // Their own: a link made to a file is a change of it, which a seeder of ours notices.
    let theirs = lab.path("theirs.bin");
    if !peers.names.is_empty() {
        fs::copy(&input, &theirs)?;
    }
    let seeder = lab.seed(&input)?;
    let (mut fetches, mut seeder_cpu, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    let (mut copies, mut pipes) = (Vec::new(), Vec::new());
    let mut others: Vec<(&String, Vec<Value>)> =
        peers.names.iter().map(|name| (name, Vec::new())).collect();
    for number in 0..=runs {
        let before = cpu_of(seeder.process.0.id())?;
        let (fetch, into) = lab.fetch(&seeder.link)?;
        let cpu = cpu_of(seeder.process.0.id())? - before;
        if number == 0 && !is_equal(&into.join("input.bin"), &input)? {
            return Err("the copy differs".into());
        }
        fs::remove_dir_all(&into)?;
        let copy = lab.path("copy.bin");
        let copied = measure(Command::new("cp").arg(&input).arg(&copy))?;
        fs::remove_file(&copy)?;
        let piped = pipe(&input, &copy)?;
        fs::remove_file(&copy)?;
        let file = theirs.to_str().ok_or("the path is text")?;
        let flags = ["--file", file, "--limit", LIMIT_SECS].map(str::to_owned);
        for (name, results) in &mut others {
            if number > 0
                && let Some(result) = peers.run(lab, "b1", name, &flags)?
            {
                lines.push(json!({ "bench": "transfer", "mib": mib, "peer": &result }));
                results.push(result);
            }
        }
        // The first round warms caches and is not counted.
        if number > 0 {
            lines.push(json!({ "bench": "transfer", "mib": mib, "secs": fetch.wall, "fetcher_cpu": fetch.cpu,
                "seeder_cpu": cpu, "fetcher_peak_mib": fetch.peak_mib,
                "seeder_peak_mib": peak_of(seeder.process.0.id()), "cp_secs": copied.wall, "pipe_secs": piped }));
            fetches.push(fetch);
            seeder_cpu.push(cpu);
            copies.push(copied.wall);
            pipes.push(piped);
        }
    }
    let gib = mib as f64 / 1024.0;
    let mb = gib * 1.073_741_824 * 1e3;
    let of_ours = |what: fn(&Run) -> f64| fetches.iter().map(what).collect::<Vec<f64>>();
    let walls = of_ours(|run| run.wall);
    let ours = median(&walls);
    say(&format!(
        "transfer of {mib} MiB, 1 seeder, 1 fetcher, loopback, {runs} runs, median (least-most)"
    ));
    say(
        "| | seconds | MB/s | its seconds / ours | CPU s/GiB seeder + fetcher | peak MiB seeder / fetcher |",
    );
    say("|---|---|---|---|---|---|");
    say(&format!(
        "| shoal | {} | {:.0} | 1 | {:.2} + {:.2} | {:.0} / {:.0} |",
        spread(&walls),
        mb / ours,
        median(&seeder_cpu) / gib,
        median(&of_ours(|run| run.cpu)) / gib,
        peak_of(seeder.process.0.id()).unwrap_or(0.0),
        of_ours(|run| run.peak_mib).into_iter().fold(0.0, f64::max),
    ));
    let row = |name: &str, secs: &[f64], cpu: &str| {
        let theirs = median(secs);
        say(&format!(
            "| {name} | {} | {:.0} | {:.2} | {cpu} | - |",
            spread(secs),
            mb / theirs,
            theirs / ours
        ));
    };
    row("cp", &copies, "-");
    row("TCP, SHA-256, written", &pipes, "-");
    for (name, results) in &others {
        let cpu = [CPU_OF_SEEDER, CPU_OF_FETCHER].map(|key| median_of(results, key) / gib);
        let cpu = format!("{:.2} + {:.2}", cpu[0], cpu[1]);
        row(name, &of(results, "secs"), &cpu);
    }
    Ok(lines)
}

fn is_equal(a: &Path, b: &Path) -> Result<bool> {
    Ok(Command::new("cmp").arg(a).arg(b).status()?.success())
}

/// The simplest transfer there is, in one process: read, plain TCP, SHA-256, write. Gives seconds.
fn pipe(from: &Path, to: &Path) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let began = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let sender = scope.spawn(move || -> std::io::Result<()> {
            let (mut stream, mut file) = (TcpStream::connect(address)?, fs::File::open(from)?);
            let mut block = vec![0; BLOCK_LEN];
            loop {
                match file.read(&mut block)? {
                    0 => return Ok(()),
                    len => stream.write_all(&block[..len])?,
                }
            }
        });
        let (mut stream, _) = listener.accept()?;
        let (mut file, mut hasher) = (fs::File::create(to)?, Sha256::new());
        let mut block = vec![0; BLOCK_LEN];
        loop {
            match stream.read(&mut block)? {
                0 => break,
                len => {
                    hasher.update(&block[..len]);
                    file.write_all(&block[..len])?;
                }
            }
        }
        // Its value does not matter, its cost does.
        std::hint::black_box(hasher.finalize());
        sender.join().map_err(|_| "the sender panicked")??;
        Ok(())
    })?;
    Ok(began.elapsed().as_secs_f64())
}
