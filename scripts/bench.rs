//! Measures the built binary as processes: medians of several runs, a table for people, JSON lines for programs.
//!
//! Only ratios within one call mean something on a busy machine, so each run of a measure is paired with a run
//! of its yardstick. Run by `scripts/bench`.

mod bench_wire;

use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Parser)]
#[command(about = "Measures Shoal")]
struct Bench {
    #[command(subcommand)]
    what: What,
    /// Counted runs of each measure.
    #[arg(long, default_value_t = 5, global = true)]
    runs: usize,
    /// Folder on the disk to measure.
    #[arg(long, global = true)]
    work: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// One seeder, one fetcher, loopback, no limits; beside `cp` of the same file.
    Transfer {
        /// Size of the file.
        #[arg(long, default_value_t = 2048)]
        mib: u64,
    },
    /// The program beside its own data stream and beside TLS alone, in CPU seconds and ratios.
    Wire {
        /// Bytes moved, in MiB.
        #[arg(long, default_value_t = 1024)]
        mib: u64,
    },
    /// One bare transfer of `wire`, in this process.
    #[command(hide = true)]
    WireOnce {
        kind: bench_wire::Kind,
        #[arg(long)]
        mib: u64,
        #[arg(long)]
        folder: PathBuf,
    },
    /// `fetch` of a 1 KiB file by its link, from process start to exit.
    StartUp,
}

/// One finished process.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    wall: f64,
    cpu: f64,
    peak_mib: f64,
}

fn main() -> ExitCode {
    match run(&Bench::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("FAILED: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    // A closed terminal does not change what was measured.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn run(bench: &Bench) -> Result<()> {
    if let What::WireOnce { kind, mib, folder } = &bench.what {
        return bench_wire::once(*kind, *mib, folder);
    }
    let folder = match &bench.work {
        Some(work) => tempfile::tempdir_in(work)?,
        None => tempfile::tempdir()?,
    };
    let lab = Lab {
        binary: binary()?,
        folder: folder.path().to_owned(),
    };
    let lines = match bench.what {
        What::Transfer { mib } => transfer(&lab, mib, bench.runs)?,
        What::Wire { mib } => bench_wire::wire(&lab, mib, bench.runs)?,
        What::WireOnce { .. } => Vec::new(),
        What::StartUp => start_up(&lab, bench.runs.max(20))?,
    };
    let target = lab
        .binary
        .ancestors()
        .nth(2)
        .ok_or("the binary lies in a build folder")?
        .join("bench");
    fs::create_dir_all(&target)?;
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(target.join("runs.ndjson"))?;
    for line in lines {
        writeln!(file, "{line}")?;
    }
    Ok(())
}

/// The binary beside this example's folder.
fn binary() -> Result<PathBuf> {
    let ourselves = std::env::current_exe()?;
    let folder = ourselves
        .parent()
        .and_then(Path::parent)
        .ok_or("the example lies in a build folder")?;
    Ok(folder.join("shoal"))
}

struct Lab {
    binary: PathBuf,
    folder: PathBuf,
}

/// A seeder that is killed when dropped.
struct Seeder {
    child: Child,
    link: String,
}

impl Drop for Seeder {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lab {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).args([
            "--quiet",
            "--no-mdns",
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
            "--home",
        ]);
        command
            .arg(self.folder.join("home"))
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        command
    }

    fn seed(&self, path: &Path) -> Result<Seeder> {
        let path = path.to_str().ok_or("the path is text")?;
        let mut child = self
            .command(&["seed", path])
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().ok_or("stdout is a pipe")?;
        let mut link = String::new();
        BufReader::new(stdout).read_line(&mut link)?;
        if link.is_empty() {
            return Err("the seeder ended early".into());
        }
        Ok(Seeder {
            child,
            link: link.trim().to_owned(),
        })
    }

    fn fetch(&self, link: &str) -> Result<(Run, PathBuf)> {
        let into = self.folder.join("out");
        if into.exists() {
            fs::remove_dir_all(&into)?;
        }
        let into = into.to_str().ok_or("the path is text")?;
        let run = measure(
            self.command(&["fetch", link, "--linger", "0", "--dir", into])
                .stdout(Stdio::null()),
        )?;
        Ok((run, PathBuf::from(into)))
    }
}

/// Runs a process to its end: wall and CPU seconds, peak memory.
fn measure(command: &mut Command) -> Result<Run> {
    let began = Instant::now();
    let mut child = command.spawn()?;
    let mut peak_mib = 0.0;
    loop {
        peak_mib = peak_of(child.id()).unwrap_or(peak_mib);
        let cpu = cpu_of(child.id())?;
        if let Some(status) = child.try_wait()? {
            let wall = began.elapsed().as_secs_f64();
            if !status.success() {
                return Err(format!("{command:?} ended with {status}").into());
            }
            return Ok(Run {
                wall,
                cpu,
                peak_mib,
            });
        }
        nap(Duration::from_millis(2));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a measuring loop without a runtime looks again a little later"
)]
fn nap(span: Duration) {
    std::thread::sleep(span);
}

/// Peak resident memory so far; `None` once the process has ended.
fn peak_of(process: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

/// User and system seconds so far, as the kernel counts them in hundredths.
fn cpu_of(process: u32) -> Result<f64> {
    let mut stat = String::new();
    File::open(format!("/proc/{process}/stat"))?.read_to_string(&mut stat)?;
    let after_name = stat.rsplit(')').next().ok_or("a stat line")?;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    Ok((ticks(11) + ticks(12)) / 100.0)
}

fn write_noise(path: &Path, len: u64) -> Result<()> {
    let mut file = std::io::BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..len.div_ceil(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes())?;
    }
    file.flush()?;
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn spread(values: &[f64]) -> String {
    let (least, most) = values
        .iter()
        .fold((f64::MAX, 0.0_f64), |(least, most), value| {
            (least.min(*value), most.max(*value))
        });
    format!("{:.2} ({least:.2}-{most:.2})", median(values.to_vec()))
}

fn transfer(lab: &Lab, mib: u64, runs: usize) -> Result<Vec<Value>> {
    let input = lab.folder.join("input.bin");
    write_noise(&input, mib << 20)?;
    let mb = (mib << 20) as f64 / 1e6;
    let seeder = lab.seed(&input)?;
    let (mut fetches, mut copies, mut seeder_cpu, mut lines) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for number in 0..=runs {
        let before = cpu_of(seeder.child.id())?;
        let (fetch, into) = lab.fetch(&seeder.link)?;
        let cpu = cpu_of(seeder.child.id())? - before;
        if number == 0 && fs::read(into.join("input.bin"))? != fs::read(&input)? {
            return Err("the copy differs".into());
        }
        fs::remove_dir_all(&into)?;
        let copy = measure(
            Command::new("cp")
                .arg(&input)
                .arg(lab.folder.join("copy.bin")),
        )?;
        fs::remove_file(lab.folder.join("copy.bin"))?;
        // The first pair warms caches and is not counted.
        if number > 0 {
            lines.push(json!({ "bench": "transfer", "mib": mib, "secs": fetch.wall, "fetcher_cpu": fetch.cpu, "seeder_cpu": cpu,
                "fetcher_peak_mib": fetch.peak_mib, "cp_secs": copy.wall }));
            fetches.push(fetch);
            copies.push(copy);
            seeder_cpu.push(cpu);
        }
    }
    let gib = mib as f64 / 1024.0;
    let walls: Vec<f64> = fetches.iter().map(|run| run.wall).collect();
    let peak = |runs: &[Run]| runs.iter().map(|run| run.peak_mib).fold(0.0, f64::max);
    say(&format!(
        "transfer of {mib} MiB, 1 seeder, 1 fetcher, loopback, {runs} runs, median (least-most)"
    ));
    say("| | seconds | MB/s | CPU s/GiB seeder + fetcher | peak MiB seeder / fetcher |");
    say("|---|---|---|---|---|");
    say(&format!(
        "| shoal | {} | {:.0} | {:.2} + {:.2} | {:.0} / {:.0} |",
        spread(&walls),
        mb / median(walls.clone()),
        median(seeder_cpu) / gib,
        median(fetches.iter().map(|run| run.cpu).collect()) / gib,
        peak_of(seeder.child.id()).unwrap_or(0.0),
        peak(&fetches),
    ));
    let copied: Vec<f64> = copies.iter().map(|run| run.wall).collect();
    say(&format!(
        "| cp | {} | {:.0} | - | - |",
        spread(&copied),
        mb / median(copied.clone())
    ));
    Ok(lines)
}

fn start_up(lab: &Lab, runs: usize) -> Result<Vec<Value>> {
    let input = lab.folder.join("input.bin");
    write_noise(&input, 1024)?;
    let seeder = lab.seed(&input)?;
    let mut walls = Vec::new();
    for number in 0..=runs {
        let (fetch, _) = lab.fetch(&seeder.link)?;
        if number > 0 {
            walls.push(fetch.wall * 1e3);
        }
    }
    say(&format!(
        "fetch of 1 KiB by link, process start to exit, {runs} runs: {} ms",
        spread(&walls)
    ));
    Ok(walls
        .iter()
        .map(|millis| json!({ "bench": "start-up", "millis": millis }))
        .collect())
}
