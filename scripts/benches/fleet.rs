//! Processes of Shoal on machines of their own, which say in JSON when they are ready and done.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::Sender;
use std::time::Instant;

use serde_json::Value;

use crate::Result;
use crate::lab::{Guard, Lab};
use crate::links::Machine;

/// Where each listens.
pub(crate) const PORT: u16 = 7000;

fn shoal(lab: &Lab, machine: &Machine, folder: &Path) -> Command {
    let mut command = machine.command();
    command
        .arg(&lab.binary)
        .args(["--json", "--no-mdns", "--listen"]);
    command.arg(format!("/ip4/{}/tcp/{PORT}", machine.address));
    command
        .arg("--home")
        .arg(folder.join(format!("home-{}", machine.address)));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// A seeder and its link.
pub(crate) fn seed(
    lab: &Lab,
    machine: &Machine,
    input: &Path,
    folder: &Path,
) -> Result<(Guard, String)> {
    let mut process = Guard(shoal(lab, machine, folder).arg("seed").arg(input).spawn()?);
    let stdout = process.0.stdout.take().ok_or("stdout is a pipe")?;
    let mut lines = BufReader::new(stdout).lines();
    let link = lines.by_ref().find_map(|line| {
        let line: Value = serde_json::from_str(&line.ok()?).ok()?;
        Some(line["link"].as_str()?.to_owned())
    });
    // Whoever writes into a closed pipe is ended by it.
    std::thread::spawn(move || lines.for_each(drop));
    Ok((process, link.ok_or("a seeder ended early")?))
}

/// A fetcher has everything.
pub(crate) struct Finished {
    pub(crate) at: Instant,
    /// Bytes of pieces that came and were not kept.
    pub(crate) wasted: u64,
}

/// A fetcher that goes on to seed; `done` is told when it has everything.
pub(crate) fn fetch(
    lab: &Lab,
    machine: &Machine,
    link: &str,
    peers: &[String],
    folder: &Path,
    done: Sender<Finished>,
) -> Result<Guard> {
    let mut command = shoal(lab, machine, folder);
    command
        .args(["fetch", link, "--seed", "--dir"])
        .arg(folder.join(&machine.address));
    std::fs::create_dir_all(folder.join(&machine.address))?;
    for peer in peers {
        command.args(["--peer", peer]);
    }
    let mut process = Guard(command.spawn()?);
    let stdout = process.0.stdout.take().ok_or("stdout is a pipe")?;
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let at = Instant::now();
            let line: Value = serde_json::from_str(&line.unwrap_or_default()).unwrap_or_default();
            if let ("done", Some(wasted)) = (
                line["type"].as_str().unwrap_or_default(),
                line["wasted"].as_u64(),
            ) {
                // Nobody waits any more: the run has failed.
                let _ = done.send(Finished { at, wasted });
            }
        }
    });
    Ok(process)
}

/// Fails unless every fetcher below `folder` has what `input` has.
pub(crate) fn check_copies(fetchers: &[Machine], input: &Path, folder: &Path) -> Result<()> {
    let name = input.file_name().ok_or("the input is a file")?;
    for machine in fetchers {
        let copy = folder.join(&machine.address).join(name);
        if !Command::new("cmp")
            .arg(&copy)
            .arg(input)
            .status()?
            .success()
        {
            return Err("a copy differs".into());
        }
    }
    Ok(())
}
