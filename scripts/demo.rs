//! The main job, watched: one seeder and four fetchers move 256 MiB; one fetcher is killed at 30 % and
//! started again, the seeder is killed once the swarm holds every piece. Everybody must end with the same bytes.
//!
//! Speaks to the real binary only through its command line: JSON lines, trace files and signals. Moments are
//! taken here, from the kill on, not from what the program claims. Run by `scripts/demo`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

const INPUT_LEN: u64 = 256 * 1024 * 1024;
const FETCHERS: usize = 4;
/// Uplinks, slow enough to be watched. The seeder's is the faster: the swarm holds every piece long before it is done, so the seeder
/// can be killed in the middle.
const SEEDER_UP: &str = "32M";
const FETCHER_UP: &str = "8M";
/// The whole run must end within this time.
const PATIENCE: Duration = Duration::from_secs(120);
/// Who shows its live view, who is killed and started again.
const SHOWN: usize = 0;
const VICTIM: usize = 3;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A line of a process: who, when it was read here, what.
struct Line {
    who: usize,
    at: Instant,
    value: Value,
}

/// Processes that die with the demonstration.
struct Processes(Vec<Option<Child>>);

impl Processes {
    /// SIGKILL, and the moment of it.
    fn kill(&mut self, who: usize) -> Result<Instant> {
        let mut child = self.0[who].take().ok_or("it runs")?;
        let at = Instant::now();
        child.kill()?;
        child.wait()?;
        Ok(at)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.0.iter_mut().flatten() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What was seen of one fetcher.
#[derive(Default)]
struct Seen {
    part: f64,
    availability: f64,
    done: Option<Value>,
    resumed_from: Option<f64>,
    /// Reroutes told after a kill: when, pieces, peers.
    reroutes: Vec<(Instant, u64, usize)>,
}

struct Demo {
    binary: PathBuf,
    folder: PathBuf,
    processes: Processes,
    lines: Receiver<Line>,
    sender: Sender<Line>,
    seen: Vec<Seen>,
    /// Whose peer id it is; the seeder comes after the fetchers.
    names: BTreeMap<String, usize>,
    began: Instant,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("FAILED: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    // A closed terminal does not make the demonstration less true.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().to_owned();
    let input = path.join("seed").join("weights.bin");
    fs::create_dir_all(path.join("seed"))?;
    write_noise(&input, INPUT_LEN)?;
    say(&format!(
        "input: {} MiB of noise, uplink of the seeder {SEEDER_UP}B/s, of every fetcher {FETCHER_UP}B/s",
        INPUT_LEN >> 20
    ));

    let (sender, lines) = channel();
    let mut demo = Demo {
        binary: binary()?,
        folder: path,
        processes: Processes(Vec::new()),
        lines,
        sender,
        seen: (0..FETCHERS).map(|_| Seen::default()).collect(),
        names: BTreeMap::new(),
        began: Instant::now(),
    };
    demo.play(&input)
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

/// xorshift noise: no compressor shrinks it, and it is the same every time.
fn write_noise(path: &Path, len: u64) -> Result<()> {
    let mut file = std::io::BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..len / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes())?;
    }
    file.flush()?;
    Ok(())
}

impl Demo {
    fn play(&mut self, input: &Path) -> Result<()> {
        let seeder = FETCHERS;
        for _ in 0..FETCHERS {
            self.processes.0.push(None);
        }
        self.processes.0.push(None);
        self.start(seeder, &["seed", &text(input), "--up", SEEDER_UP])?;
        let link = loop {
            let line = self.next()?;
            if let Some(link) = line.value["link"].as_str() {
                break link.to_owned();
            }
        };
        say(&format!("link:  {link}\n"));
        for who in 0..FETCHERS {
            self.fetch(who, &link)?;
        }

        self.until(|demo| demo.seen[VICTIM].part >= 0.3)?;
        let part = self.seen[VICTIM].part;
        let killed = self.processes.kill(VICTIM)?;
        say(&format!(
            "{} kill -9 fetcher {VICTIM} at {:.0} %",
            self.clock(),
            part * 100.0
        ));
        self.seen[VICTIM].part = 0.0;
        let after_fetcher = self.reroutes_after(killed, Duration::from_secs(2))?;
        self.fetch(VICTIM, &link)?;
        say(&format!(
            "{} fetcher {VICTIM} started again with the same command",
            self.clock()
        ));

        // Two copies among a fetcher, its peers and the seeder: every piece is held by somebody else too.
        self.until(|demo| demo.seen.iter().any(|seen| seen.availability >= 2.0) || demo.is_done())?;
        if self.is_done() {
            return Err("everybody was done before the seeder could be killed".into());
        }
        let least = self.seen.iter().map(|seen| seen.part).fold(1.0, f64::min);
        let killed = self.processes.kill(seeder)?;
        say(&format!(
            "{} kill -9 seeder; the slowest fetcher has {:.0} %",
            self.clock(),
            least * 100.0
        ));
        let after_seeder = self.reroutes_after(killed, Duration::from_secs(2))?;

        self.until(Self::is_done)?;
        self.wait_for_exits()?;
        say(&format!("{} everybody is done\n", self.clock()));
        self.judge(input, part, &after_fetcher, &after_seeder)
    }

    fn clock(&self) -> String {
        format!("[{:5.1} s]", self.began.elapsed().as_secs_f64())
    }

    fn fetch(&mut self, who: usize, link: &str) -> Result<()> {
        let folder = self.folder.join(format!("fetcher-{who}"));
        fs::create_dir_all(&folder)?;
        let trace = text(&self.trace(who, self.traces(who)));
        let args = [
            "fetch",
            link,
            "--dir",
            &text(&folder),
            "--up",
            FETCHER_UP,
            "--trace",
            &trace,
            "--linger",
            "3s",
        ];
        self.start(who, &args)
    }

    /// Trace files of a fetcher, one for each of its runs.
    fn traces(&self, who: usize) -> usize {
        (0..)
            .find(|run| !self.trace(who, *run).exists())
            .unwrap_or_default()
    }

    fn trace(&self, who: usize, run: usize) -> PathBuf {
        self.folder.join(format!("trace-{who}-{run}.ndjson"))
    }

    fn start(&mut self, who: usize, args: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command.args(args).args([
            "--json",
            "--no-mdns",
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
            "--home",
        ]);
        command
            .arg(self.folder.join("home"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if who != SHOWN {
            command.stderr(
                File::options()
                    .create(true)
                    .append(true)
                    .open(self.folder.join("stderr.log"))?,
            );
        }
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or("stdout is a pipe")?;
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(|line| line.ok()) {
                let Ok(value) = serde_json::from_str(&line) else {
                    continue;
                };
                if sender
                    .send(Line {
                        who,
                        at: Instant::now(),
                        value,
                    })
                    .is_err()
                {
                    return;
                }
            }
        });
        self.processes.0[who] = Some(child);
        Ok(())
    }

    /// The next line of anybody, noted.
    fn next(&mut self) -> Result<Line> {
        let left = PATIENCE.saturating_sub(self.began.elapsed());
        let line = self
            .lines
            .recv_timeout(left)
            .map_err(|_| self.story("it takes too long"))?;
        self.note(&line)?;
        Ok(line)
    }

    fn note(&mut self, line: &Line) -> Result<()> {
        let story = || format!("process {} says {}", line.who, line.value);
        if line.value["type"] == "error" {
            return Err(self.story(&story()).into());
        }
        if let Some(peer) = line.value["addr"]
            .as_str()
            .and_then(|addr| addr.split("/p2p/").nth(1))
        {
            // A `peer` line has an address without an id at its end; a `listening` line tells who we are.
            self.names.insert(peer.to_owned(), line.who);
        }
        let Some(seen) = self.seen.get_mut(line.who) else {
            return Ok(());
        };
        match line.value["type"].as_str() {
            Some("progress") => {
                let total = line.value["total"].as_f64().unwrap_or(INPUT_LEN as f64);
                seen.part = line.value["bytes"].as_f64().unwrap_or(0.0) / total;
                seen.availability = line.value["availability"].as_f64().unwrap_or(0.0);
            }
            Some("reroute") => {
                let pieces = line.value["pieces"].as_u64().unwrap_or(0);
                let peers = line.value["to"].as_array().map_or(0, Vec::len);
                seen.reroutes.push((line.at, pieces, peers));
            }
            Some("done") => {
                let received = line.value["downloaded"].as_f64().unwrap_or(0.0);
                seen.resumed_from = Some(1.0 - received / INPUT_LEN as f64);
                seen.done = Some(line.value.clone());
            }
            _ => {}
        }
        Ok(())
    }

    fn story(&self, what: &str) -> String {
        let mut log = String::new();
        if let Ok(mut file) = File::open(self.folder.join("stderr.log")) {
            // A log that cannot be read only makes the story shorter.
            let _ = file.read_to_string(&mut log);
        }
        let tail: Vec<&str> = log.lines().rev().take(12).collect();
        format!("{what}; stderr, newest first: {tail:#?}")
    }

    fn is_done(&self) -> bool {
        self.seen.iter().all(|seen| seen.done.is_some())
    }

    fn until(&mut self, condition: impl Fn(&Self) -> bool) -> Result<()> {
        while !condition(self) {
            self.next()?;
        }
        Ok(())
    }

    /// What was rerouted within `span` of the kill, by fetcher: milliseconds from the kill, pieces, peers.
    fn reroutes_after(
        &mut self,
        killed: Instant,
        span: Duration,
    ) -> Result<Vec<(usize, u128, u64, usize)>> {
        while let Some(left) = span.checked_sub(killed.elapsed()) {
            match self.lines.recv_timeout(left) {
                Ok(line) => self.note(&line)?,
                Err(_) => break,
            }
        }
        let mut found = Vec::new();
        for (who, seen) in self.seen.iter().enumerate() {
            let since = seen.reroutes.iter().filter(|(at, ..)| *at >= killed);
            found.extend(since.map(|(at, pieces, peers)| {
                (who, at.duration_since(killed).as_millis(), *pieces, *peers)
            }));
        }
        Ok(found)
    }

    fn wait_for_exits(&mut self) -> Result<()> {
        for who in 0..FETCHERS {
            let Some(child) = &mut self.processes.0[who] else {
                continue;
            };
            let until = Instant::now() + Duration::from_secs(10);
            let status = loop {
                if let Some(status) = child.try_wait()? {
                    break status;
                }
                if Instant::now() > until {
                    return Err(format!("fetcher {who} does not leave").into());
                }
                std::thread::yield_now();
            };
            if status.code() != Some(0) {
                return Err(format!("fetcher {who} ended with {status}").into());
            }
        }
        Ok(())
    }

    fn judge(
        &self,
        input: &Path,
        killed_at: f64,
        after_fetcher: &[(usize, u128, u64, usize)],
        after_seeder: &[(usize, u128, u64, usize)],
    ) -> Result<()> {
        let expected = fs::read(input)?;
        for who in 0..FETCHERS {
            let copy = self
                .folder
                .join(format!("fetcher-{who}"))
                .join("weights.bin");
            if fs::read(&copy)? != expected {
                return Err(format!("the copy of fetcher {who} differs").into());
            }
        }
        let sources = self.sources()?;
        let strangers = |from: &BTreeMap<String, u64>| {
            from.keys()
                .filter(|peer| !self.names.contains_key(*peer))
                .count()
        };
        if sources.iter().map(strangers).sum::<usize>() > 0 {
            return Err("bytes came from somebody unknown".into());
        }
        say("who got how much from whom, in MiB");
        let heads: String = (0..FETCHERS)
            .map(|who| format!("{:>11}", format!("fetcher {who}")))
            .collect();
        say(&format!("{:<9}{:>11}{heads}", "", "seeder"));
        let mut from_seeder = 0;
        for (who, from) in sources.iter().enumerate() {
            let mut by_name: BTreeMap<usize, u64> = BTreeMap::new();
            for (peer, bytes) in from {
                *by_name
                    .entry(self.names.get(peer).copied().unwrap_or(FETCHERS))
                    .or_default() += bytes;
            }
            from_seeder += by_name.get(&FETCHERS).copied().unwrap_or(0);
            let cell = |name: usize| {
                format!(
                    "{:>11.1}",
                    by_name.get(&name).copied().unwrap_or(0) as f64 / f64::from(1 << 20)
                )
            };
            say(&format!(
                "fetcher {who}{}{}",
                cell(FETCHERS),
                (0..FETCHERS).map(cell).collect::<String>()
            ));
        }
        say("");
        let tell = |what: &str, reroutes: &[(usize, u128, u64, usize)]| {
            for (who, millis, pieces, peers) in reroutes {
                say(&format!(
                    "{what}: fetcher {who} moved {pieces} pieces to {peers} peers {millis} ms after the kill"
                ));
            }
            if reroutes.is_empty() {
                say(&format!("{what}: nothing was asked of it"));
            }
        };
        tell("fetcher killed", after_fetcher);
        tell("seeder killed ", after_seeder);
        let resumed = self.seen[VICTIM].resumed_from.unwrap_or(0.0);
        say(&format!(
            "fetcher {VICTIM} went on from {:.0} % of its earlier run",
            resumed * 100.0
        ));
        say(&format!(
            "the seeder sent {:.2} copies of the file before it was killed",
            from_seeder as f64 / INPUT_LEN as f64
        ));
        say(&format!(
            "all {FETCHERS} copies are identical to the input; {:.1} s in all",
            self.began.elapsed().as_secs_f64()
        ));
        if resumed < killed_at - 0.05 {
            return Err(format!(
                "it had {:.0} % when it was killed and kept only {:.0} %",
                killed_at * 100.0,
                resumed * 100.0
            )
            .into());
        }
        let slowest = after_fetcher
            .iter()
            .chain(after_seeder)
            .map(|(_, millis, ..)| *millis)
            .max()
            .unwrap_or(0);
        if slowest > 1_000 {
            return Err(format!("a reroute took {slowest} ms").into());
        }
        if after_seeder.is_empty() {
            return Err("nobody rerouted when the seeder died".into());
        }
        Ok(())
    }

    /// Kept bytes by fetcher and peer id, from all trace files.
    fn sources(&self) -> Result<Vec<BTreeMap<String, u64>>> {
        let mut sources = Vec::new();
        for who in 0..FETCHERS {
            let mut from: BTreeMap<String, u64> = BTreeMap::new();
            for run in 0..self.traces(who) {
                for line in BufReader::new(File::open(self.trace(who, run))?).lines() {
                    // A killed process may have left half a line.
                    let Ok(value) = serde_json::from_str::<Value>(&line?) else {
                        continue;
                    };
                    if let (Some("piece"), Some(peer)) =
                        (value["type"].as_str(), value["peer"].as_str())
                    {
                        *from.entry(peer.to_owned()).or_default() +=
                            value["bytes"].as_u64().unwrap_or(0);
                    }
                }
            }
            sources.push(from);
        }
        Ok(sources)
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
