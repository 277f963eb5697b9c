//! `idle`: what a seed costs that nobody asks for anything. Needs root and `ip`, to count what it sends.
//!
//! Two seeds at once: the peers of one have everything, so that their sessions end; those of the other took one file of
//! two, so that they stay in its table.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Result;
use crate::lab::{Guard, Lab, write_noise};
use crate::links::Star;
use crate::process::{cpu_of, nap, neighbours_of, peak_of};
use crate::report::say;

const PEERS: usize = 10;

/// Bytes per second of each link: nobody waits for it.
const UP: u64 = 100_000_000;

/// Headers of a packet of TCP: Ethernet, IPv4, and TCP with timestamps.
const HEADERS_LEN: u64 = 14 + 20 + 32;

/// Until everybody is connected and has what it wants.
const SETTLES: Duration = Duration::from_secs(20);

/// What the peers of a seed took.
#[derive(Clone, Copy, Debug)]
enum Took {
    All,
    Half,
}

/// A seed and its peers.
struct Group {
    took: Took,
    star: Star,
    /// The seed first.
    processes: Vec<Guard>,
}

/// CPU seconds, bytes with all headers, and packets so far.
type Look = (f64, u64, u64);

pub(crate) fn run(lab: &Lab, secs: u64) -> Result<Vec<Value>> {
    let input = lab.path("input");
    std::fs::create_dir_all(&input)?;
    for name in ["first.bin", "second.bin"] {
        write_noise(&input.join(name), 1 << 20)?;
    }
    let groups = [
        Group::start(lab, Took::All)?,
        Group::start(lab, Took::Half)?,
    ];
    nap(SETTLES);
    let mut before = Vec::new();
    for group in &groups {
        before.push(group.look()?);
    }
    nap(Duration::from_secs(secs));
    let mut lines = Vec::new();
    for (group, before) in groups.iter().zip(before) {
        lines.push(group.figures(secs, before)?);
    }
    Ok(lines)
}

impl Group {
    fn start(lab: &Lab, took: Took) -> Result<Self> {
        let star = Star::new(PEERS + 1, UP)?;
        let mut processes: Vec<Guard> = Vec::new();
        let mut link = String::new();
        for (number, machine) in star.machines().iter().enumerate() {
            let own = |what: &str| lab.path(&format!("{what}-{took:?}-{number}"));
            let mut command = machine.command();
            command.arg(&lab.binary).args(["--no-mdns", "--listen"]);
            command.arg(format!("/ip4/{}/tcp/7000", machine.address));
            command.arg("--home").arg(own("home"));
            if number == 0 {
                command.arg("seed").arg(lab.path("input"));
            } else {
                std::fs::create_dir_all(own("out"))?;
                command
                    .args(["fetch", &link, "--seed", "--dir"])
                    .arg(own("out"));
                if matches!(took, Took::Half) {
                    command.args(["--only", "first.bin"]);
                }
            }
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null());
            let mut process = Guard(command.spawn()?);
            // Of the seed its link, of a fetcher the path of what it has.
            let mut line = String::new();
            let stdout = process.0.stdout.take().ok_or("stdout is a pipe")?;
            BufReader::new(stdout).read_line(&mut line)?;
            if line.is_empty() {
                return Err("a process ended early".into());
            }
            if number == 0 {
                line.trim().clone_into(&mut link);
            }
            processes.push(process);
        }
        Ok(Self {
            took,
            star,
            processes,
        })
    }

    fn look(&self) -> Result<Look> {
        let seed = &self.star.machines()[0];
        let bytes = seed.sent()? + seed.received()?;
        Ok((cpu_of(self.processes[0].0.id())?, bytes, seed.packets()?))
    }

    fn figures(&self, secs: u64, before: Look) -> Result<Value> {
        let after = self.look()?;
        let (bytes, packets) = (after.1 - before.1, after.2 - before.2);
        let core_percent = 100.0 * (after.0 - before.0) / secs as f64;
        let kb_per_min = |bytes: u64| bytes as f64 * 60.0 / secs as f64 / 1e3;
        let with_headers = kb_per_min(bytes);
        let above_tcp = kb_per_min(bytes.saturating_sub(packets * HEADERS_LEN));
        let seed = self.processes[0].0.id();
        let peak_mib = peak_of(seed).ok_or("the seed has ended")?;
        let (took, connected) = (format!("{:?}", self.took), neighbours_of(seed)?);
        say(&format!(
            "idle seed, {PEERS} peers that took {took}, {connected} connected, {secs} s: {core_percent:.3} % of a core, \
             {above_tcp:.1} kB/min above TCP, {with_headers:.1} kB/min with all headers, {peak_mib:.0} MiB"
        ));
        Ok(
            json!({ "bench": "idle", "took": took, "secs": secs, "peers": PEERS, "connected": connected,
            "core_percent": core_percent, "kb_per_min": with_headers, "kb_per_min_above_tcp": above_tcp,
            "peak_mib": peak_mib }),
        )
    }
}
