//! The tables of the README: what kept runs say, with machine, date and command. No figure comes from elsewhere.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::Result;
use crate::peers::{CPU_OF_FETCHER, CPU_OF_SEEDER};
use crate::quic::{BATCHES, QUINN, SESSION, SINGLE};
use crate::report::{median, median_of, of, of_peers, say};

/// Flags that name a place or a program of this machine; they are no part of a command that others repeat.
const LOCAL_FLAGS: [&str; 3] = ["--work", "--peers", "--contenders"];

/// What was measured, and the figure.
type Row = (String, String);

/// How the lines of a bench become rows.
type Rows = fn(&[Value]) -> Vec<Row>;

/// Every bench with rows, in the order of the table.
const BENCHES: [(&str, Rows); 9] = [
    ("transfer", transfer),
    ("wire", wire),
    ("quic", quic),
    ("fan-out", fan_out),
    ("small-files", small_files),
    ("import", import),
    ("start-up", start_up),
    ("memory", memory),
    ("idle", idle),
];

/// Appends the runs of this call, whose files were in `folder`, to `path`, each with machine, time and command.
pub(crate) fn keep(path: &Path, folder: &Path, lines: Vec<Value>) -> Result<()> {
    fs::create_dir_all(path.parent().ok_or("a file in a folder")?)?;
    let mut file = File::options().create(true).append(true).open(path)?;
    let time = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let (machine, command) = (machine(folder)?, command());
    for mut line in lines {
        line["time"] = json!(time);
        line["machine"] = json!(machine);
        line["command"] = json!(command);
        writeln!(file, "{line}")?;
    }
    Ok(())
}

/// Processor, cores, memory, kernel, and the file system of `folder`.
fn machine(folder: &Path) -> Result<String> {
    let value = |path: &str, key: &str| -> Result<String> {
        let text = fs::read_to_string(path)?;
        let line = text.lines().find(|line| line.starts_with(key));
        let value = line.and_then(|line| line.split(':').nth(1));
        Ok(value.unwrap_or("unknown").trim().to_owned())
    };
    let memory = value("/proc/meminfo", "MemTotal")?;
    let kib: f64 = memory.trim_end_matches(" kB").parse()?;
    Ok(format!(
        "{} cores of {}, {:.0} GiB, Linux {}, {}",
        std::thread::available_parallelism()?,
        value("/proc/cpuinfo", "model name")?,
        kib / f64::from(1 << 20),
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        file_system(folder)?
    ))
}

/// Its name, of the longest mount point that `folder` is below. Source: proc(5).
fn file_system(folder: &Path) -> Result<String> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let of_mount = |line: &str| {
        let mut fields = line.split(' ').skip(1);
        let (point, name) = (fields.next()?, fields.next()?);
        folder
            .starts_with(point)
            .then(|| (point.len(), name.to_owned()))
    };
    let longest = mounts.lines().filter_map(of_mount).max();
    Ok(longest.map_or_else(|| "unknown".to_owned(), |(_, name)| name))
}

/// This call as others can repeat it.
fn command() -> String {
    let mut words = vec!["scripts/bench".to_owned()];
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let flag = arg.split('=').next().unwrap_or_default();
        match LOCAL_FLAGS.contains(&flag) {
            true if arg == flag => drop(args.next()),
            true => {}
            false => words.push(arg),
        }
    }
    words.join(" ")
}

/// Prints the tables, of each command its last call.
pub(crate) fn print(path: &Path) -> Result<()> {
    let text = fs::read_to_string(path).map_err(|error| format!("no runs are kept: {error}"))?;
    let mut calls: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line)?;
        let word = |key: &str| line[key].as_str().map(str::to_owned);
        // Runs of earlier versions do not say when they were.
        let (Some(machine), Some(command)) = (word("machine"), word("command")) else {
            continue;
        };
        let call = calls.entry((machine, command)).or_default();
        if call
            .first()
            .is_some_and(|first| first["time"] != line["time"])
        {
            call.clear();
        }
        call.push(line);
    }
    let mut machines: Vec<&String> = calls.keys().map(|(machine, _)| machine).collect();
    machines.dedup();
    for machine in machines {
        let here = calls.iter().filter(|((of, _), _)| of == machine);
        let here: Vec<(&String, &[Value])> = here.map(|((_, of), runs)| (of, &**runs)).collect();
        say(&format!("Measured on {machine}:\n"));
        say("| what | figure | command | date |\n|---|---|---|---|");
        for (bench, rows) in BENCHES {
            for (command, runs) in here.iter().filter(|(_, runs)| runs[0]["bench"] == bench) {
                for (what, figure) in rows(runs) {
                    say(&format!(
                        "| {what} | {figure} | `{command}` | {} |",
                        date(runs)
                    ));
                }
            }
        }
        for (command, runs) in here.iter().filter(|(_, runs)| runs[0]["bench"] == "swarm") {
            say(&format!("\n`{command}`, {}:\n", date(runs)));
            swarm(runs);
        }
        say("");
    }
    Ok(())
}

fn date(runs: &[Value]) -> &str {
    let time = runs[0]["time"].as_str().unwrap_or_default();
    time.split('T').next().unwrap_or_default()
}

/// Lines where `key` is `value`.
fn with(lines: &[Value], key: &str, value: &Value) -> Vec<Value> {
    let found = lines.iter().filter(|line| &line[key] == value);
    found.cloned().collect()
}

fn mib_of(lines: &[Value]) -> f64 {
    lines[0]["mib"].as_f64().unwrap_or(f64::NAN)
}

fn mb_per_sec(mib: f64, secs: f64) -> f64 {
    mib * 1.048_576 / secs
}

fn counted(lines: &[Value], key: &str) -> String {
    match of(lines, key).len() {
        1 => "one run".to_owned(),
        runs => format!("median of {runs}"),
    }
}

fn transfer(lines: &[Value]) -> Vec<Row> {
    let mib = mib_of(lines);
    let mut figure = format!(
        "{:.0} MB/s ({})",
        mb_per_sec(mib, median_of(lines, "secs")),
        counted(lines, "secs")
    );
    for (name, secs) in of_peers(lines, "secs") {
        figure += &format!("; {name} {:.0}", mb_per_sec(mib, median(&secs)));
    }
    let gib = mib / 1024.0;
    let mut cpu = format!(
        "{:.2} + {:.2}",
        median_of(lines, "seeder_cpu") / gib,
        median_of(lines, "fetcher_cpu") / gib
    );
    let of_fetchers = of_peers(lines, CPU_OF_FETCHER);
    for (name, of_seeder) in of_peers(lines, CPU_OF_SEEDER) {
        let of_fetcher = of_fetchers.get(&name).map_or(f64::NAN, |of| median(of));
        let of_seeder = median(&of_seeder);
        cpu += &format!("; {name} {:.2} + {:.2}", of_seeder / gib, of_fetcher / gib);
    }
    vec![
        (
            format!(
                "one seeder, one fetcher, {gib} GiB, loopback, encrypted, verified, written and synced"
            ),
            figure,
        ),
        (
            "the same, CPU seconds per GiB, seeder + fetcher".to_owned(),
            cpu,
        ),
        (
            "the same, resident memory at its peak, seeder / fetcher".to_owned(),
            peaks(lines),
        ),
    ]
}

/// The highest of all runs.
fn peaks(lines: &[Value]) -> String {
    let most = |key| of(lines, key).into_iter().fold(0.0, f64::max);
    format!(
        "{:.0} / {:.0} MiB",
        most("seeder_peak_mib"),
        most("fetcher_peak_mib")
    )
}

fn wire(lines: &[Value]) -> Vec<Row> {
    let secs = |what: &str| median_of(&with(lines, "what", &json!(what)), "secs");
    let bare = secs("TLS, memory to memory");
    vec![(
        "the data stream of a session alone, memory to memory, beside TLS with AES-128 on one connection".to_owned(),
        format!("{:.2} times as fast", bare / secs("session stream, memory to memory")),
    )]
}

fn quic(lines: &[Value]) -> Vec<Row> {
    let secs = |what: &str, packets: &Value, lost: &Value| {
        let lines = with(lines, "what", &json!(what));
        let lines = with(&with(&lines, "packets", packets), "lost_percent", lost);
        median_of(&lines, "secs")
    };
    let all = |what| secs(what, &Value::Null, &Value::Null);
    let mut rows = vec![(
        "the data stream of a session by QUIC, memory to memory, beside quinn alone with the same cipher".to_owned(),
        format!("{:.2} of its speed", all(QUINN) / all(SESSION)),
    )];
    for packets in [BATCHES, SINGLE] {
        let kept = |what| {
            let packets = json!(packets);
            secs(what, &packets, &json!(0)) / secs(what, &packets, &json!(1))
        };
        // Where there was no such link there are no such runs.
        if kept(SESSION).is_finite() {
            rows.push((
                format!("the same, 1 % of the packets lost each way, {packets} each"),
                format!(
                    "{:.2} of its speed; quinn alone {:.2}",
                    kept(SESSION),
                    kept(QUINN)
                ),
            ));
        }
    }
    rows
}

fn fan_out(lines: &[Value]) -> Vec<Row> {
    let ours = median_of(lines, "secs");
    let mut figure = format!("{ours:.2} s ({})", counted(lines, "secs"));
    for (name, secs) in of_peers(lines, "secs") {
        let theirs = median(&secs);
        figure += &format!("; {name} {theirs:.2} s, ours is {:.2} of it", ours / theirs);
    }
    let (fetchers, mib) = (&lines[0]["fetchers"], mib_of(lines));
    vec![(
        format!(
            "one seeder, {fetchers} fetchers, {mib} MiB each, links not shaped, until the last is done"
        ),
        figure,
    )]
}

fn small_files(lines: &[Value]) -> Vec<Row> {
    let ratio = median_of(lines, "tar_secs") / median_of(lines, "secs");
    vec![(
        format!(
            "{} files of 4 KiB, beside `tar` through a plain TCP pipe",
            lines[0]["count"]
        ),
        format!("{ratio:.2} of its speed ({})", counted(lines, "secs")),
    )]
}

fn import(lines: &[Value]) -> Vec<Row> {
    let rate = mb_per_sec(mib_of(lines), median_of(lines, "secs"));
    let core = median_of(lines, "core_mb_per_sec");
    let cores = median_of(lines, "cores");
    vec![(
        format!(
            "import (hashing) of {} GiB from the page cache",
            mib_of(lines) / 1024.0
        ),
        format!(
            "{:.2} GB/s, {:.2} of what SHA-256 does on all cores",
            rate / 1e3,
            rate / (core * cores)
        ),
    )]
}

fn start_up(lines: &[Value]) -> Vec<Row> {
    vec![(
        "fetch of a 1 KiB file by link, process start to exit".to_owned(),
        format!(
            "{:.0} ms ({})",
            median_of(lines, "millis"),
            counted(lines, "millis")
        ),
    )]
}

fn memory(lines: &[Value]) -> Vec<Row> {
    let mut kinds: Vec<&Value> = Vec::new();
    for line in lines {
        if !kinds.contains(&&line["what"]) {
            kinds.push(&line["what"]);
        }
    }
    let row = |what: &&Value| {
        let what = what.as_str().unwrap_or_default();
        let figure = peaks(&with(lines, "what", &json!(what)));
        (
            format!("resident memory at its peak, seeder / fetcher, {what}"),
            figure,
        )
    };
    kinds.iter().map(row).collect()
}

fn idle(lines: &[Value]) -> Vec<Row> {
    let row = |line: &Value| {
        let figure = |key: &str| line[key].as_f64().unwrap_or(f64::NAN);
        (
            format!(
                "a seed with {} peers, {} of them connected, and nothing to do, {:.0} minutes",
                line["peers"],
                line["connected"],
                figure("secs") / 60.0
            ),
            format!(
                "{:.2} % of a core, {:.0} kB a minute above TCP and {:.0} kB with all headers, {:.0} MiB",
                figure("core_percent"),
                figure("kb_per_min_above_tcp"),
                figure("kb_per_min"),
                figure("peak_mib")
            ),
        )
    };
    lines.iter().map(row).collect()
}

fn swarm(lines: &[Value]) {
    let names: Vec<String> = of_peers(lines, "ratio").into_keys().collect();
    let mut head =
        "| scenario | last done / bound | copies sent by the seeders | wasted |".to_owned();
    for name in &names {
        head += &format!(" {name} |");
    }
    say(&head);
    say(&format!("|{}", "---|".repeat(4 + names.len())));
    let mut scenarios: Vec<&Value> = lines.iter().map(|line| &line["scenario"]).collect();
    scenarios.dedup();
    for scenario in scenarios {
        let runs = with(lines, "scenario", scenario);
        let ours = runs.iter().filter(|run| run["secs"].is_number());
        let ratios: Vec<f64> = ours
            .filter_map(|run| Some(run["secs"].as_f64()? / run["bound"].as_f64()?))
            .collect();
        let mut row = format!(
            "| {} | {:.3} | {:.2} | {:.2} % |",
            scenario.as_str().unwrap_or_default(),
            median(&ratios),
            median_of(&runs, "copies"),
            100.0 * median_of(&runs, "wasted")
        );
        let theirs = of_peers(&runs, "ratio");
        for name in &names {
            row += &match theirs.get(name) {
                Some(ratios) => format!(" {:.2} |", median(ratios)),
                None => " |".to_owned(),
            };
        }
        say(&row);
    }
}
