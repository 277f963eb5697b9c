//! `idle`: what a seed costs that nobody asks for anything. Needs root and `ip`, to count what it sends.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Result;
use crate::lab::{Guard, Lab, write_noise};
use crate::links::Star;
use crate::process::{cpu_of, nap, peak_of};
use crate::report::say;

const PEERS: usize = 10;

/// Bytes per second of each link: nobody waits for it.
const UP: u64 = 100_000_000;

/// Until everybody is connected and has everything.
const SETTLES: Duration = Duration::from_secs(20);

pub(crate) fn run(lab: &Lab, secs: u64) -> Result<Vec<Value>> {
    let input = lab.path("input.bin");
    write_noise(&input, 1 << 20)?;
    let star = Star::new(PEERS + 1, UP)?;
    let mut processes: Vec<Guard> = Vec::new();
    let mut link = String::new();
    for (number, machine) in star.machines().iter().enumerate() {
        let mut command = machine.command();
        command.arg(&lab.binary).args(["--no-mdns", "--listen"]);
        command.arg(format!("/ip4/{}/tcp/7000", machine.address));
        command
            .arg("--home")
            .arg(lab.path(&format!("home-{number}")));
        if number == 0 {
            command.arg("seed").arg(&input);
        } else {
            command
                .args(["fetch", &link, "--seed", "--dir"])
                .arg(lab.path(&format!("out-{number}")));
            std::fs::create_dir_all(lab.path(&format!("out-{number}")))?;
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = Guard(command.spawn()?);
        // Of the seed its link, of a fetcher the path of what it has.
        let mut line = String::new();
        BufReader::new(process.0.stdout.take().ok_or("stdout is a pipe")?).read_line(&mut line)?;
        if line.is_empty() {
            return Err("a process ended early".into());
        }
        if number == 0 {
            line.trim().clone_into(&mut link);
        }
        processes.push(process);
    }
    nap(SETTLES);
    let (seed, machine) = (processes[0].0.id(), &star.machines()[0]);
    let (cpu, bytes) = (cpu_of(seed)?, machine.sent()? + machine.received()?);
    nap(Duration::from_secs(secs));
    let (cpu, bytes) = (
        cpu_of(seed)? - cpu,
        machine.sent()? + machine.received()? - bytes,
    );
    let (part, per_min) = (
        100.0 * cpu / secs as f64,
        bytes as f64 * 60.0 / secs as f64 / 1e3,
    );
    let peak_mib = peak_of(seed).unwrap_or(f64::NAN);
    say(&format!(
        "idle seed, {PEERS} peers, {secs} s: {part:.3} % of a core, {per_min:.1} kB/min with all headers, {peak_mib:.0} MiB"
    ));
    Ok(vec![
        json!({ "bench": "idle", "secs": secs, "peers": PEERS, "core_percent": part, "kb_per_min": per_min,
        "peak_mib": peak_mib }),
    ])
}
