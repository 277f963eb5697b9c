//! Real processes for tests: starts the built binary, reads its JSON lines, sends signals, and kills
//! what is left when a test ends.
//!
//! Tests that start processes take [`turn`] first, so that they run one at a time and deadlines mean
//! something. Nothing here sleeps for luck: every wait is for a condition and has a deadline.

pub mod disk;
pub mod liar;
pub mod lines;
pub mod net;
pub mod rogue;
pub mod terminal;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

static TURN: Mutex<()> = Mutex::new(());

/// One test with processes at a time.
pub fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder of its own for a test: a home and a place for files; gone when dropped.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new empty folder.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A file of `len` bytes that no compressor shrinks, the same for the same name and length.
    pub fn file(&self, name: &str, len: usize) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, noise(name, len)).unwrap();
        path
    }

    /// `shoal` with a home of this place.
    pub fn shoal(&self, home: &str) -> Shoal {
        self.prepare(Command::new(env!("CARGO_BIN_EXE_shoal")), home)
    }

    /// The same, run by another program that is given its command line.
    pub fn shoal_through(&self, mut runner: Command, home: &str) -> Shoal {
        runner.arg(env!("CARGO_BIN_EXE_shoal"));
        self.prepare(runner, home)
    }

    fn prepare(&self, mut command: Command, home: &str) -> Shoal {
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SHOAL_")) {
            command.env_remove(name);
        }
        command.env("XDG_CONFIG_HOME", self.path("no-config"));
        command.current_dir(self.folder.path());
        let home = self.path(home);
        Shoal {
            command,
            home,
            log: self.path("stderr.log"),
        }
    }
}

/// Noise from a name: xorshift, 8 bytes a step.
pub fn noise(name: &str, len: usize) -> Vec<u8> {
    let mut state = name.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A command line being put together.
pub struct Shoal {
    command: Command,
    home: PathBuf,
    log: PathBuf,
}

impl Shoal {
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    #[must_use]
    pub fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The flags every process of these tests has: loopback, its home, no multicast.
    #[must_use]
    pub fn local(self) -> Self {
        let home = self.home.clone();
        self.args(&["--listen", "/ip4/127.0.0.1/tcp/0", "--no-mdns", "--home"])
            .arg(home)
    }

    /// Runs to the end and gives exit code, stdout and stderr.
    pub fn run(mut self) -> Outcome {
        let output = self.command.stdin(Stdio::null()).output().unwrap();
        Outcome {
            code: code_of(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs to the end with a stdout, or a stderr, that nobody reads.
    pub fn run_unheard(mut self, unheard: Unheard) -> Outcome {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let command = self.command.stdin(Stdio::null());
        let command = match unheard {
            Unheard::Stdout => command.stdout(writer).stderr(Stdio::piped()),
            Unheard::Stderr => command.stderr(writer).stdout(Stdio::piped()),
        };
        let heard = command.spawn().unwrap().wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Outcome {
            code: code_of(heard.status),
            stdout: text(&heard.stdout),
            stderr: text(&heard.stderr),
        }
    }

    /// Runs to the end and gives what it wrote, byte for byte.
    pub fn output(mut self) -> std::process::Output {
        self.command.stdin(Stdio::null()).output().unwrap()
    }

    /// Starts it with pipes for what it writes. The caller waits for its end.
    pub fn spawn_piped(mut self) -> Child {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Starts it with this stdout, and a stderr that nobody reads. The caller waits for its end.
    pub fn spawn_into(mut self, stdout: impl Into<Stdio>) -> Child {
        self.command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Starts it with `--json` and reads its lines as they come.
    pub fn spawn_json(self) -> Process {
        let mut shoal = self.arg("--json");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&shoal.log)
            .unwrap();
        let mut child = shoal
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                let Ok(line) = line else { return };
                let value: Value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send((Instant::now(), value)).is_err() {
                    return;
                }
            }
        });
        Process {
            child,
            lines,
            seen: Vec::new(),
            log: shoal.log,
        }
    }
}

/// Starts `shoal seed` and gives it with its link.
pub fn seed(place: &Place, home: &str, path: &Path, flags: &[&str]) -> (Process, String) {
    let shoal = place.shoal(home).arg("seed").arg(path);
    let mut process = shoal.local().args(flags).spawn_json();
    let link = process.link();
    (process, link)
}

/// Starts `shoal fetch` into a folder that is made when missing.
pub fn fetch(place: &Place, home: &str, link: &str, into: &Path, flags: &[&str]) -> Process {
    fs::create_dir_all(into).unwrap();
    let shoal = place.shoal(home).args(&["fetch", link, "--dir"]).arg(into);
    shoal.local().args(flags).spawn_json()
}

/// Bytes of the pieces that a fetch with this `--trace` says it stored; none when it wrote no trace.
pub fn stored_by(trace: &Path) -> u64 {
    let text = fs::read_to_string(trace).unwrap_or_default();
    // The last line may be cut.
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let pieces = lines.filter(|line| line["type"] == "piece");
    pieces.map(|line| line["bytes"].as_u64().unwrap()).sum()
}

/// The peer id at the end of the first `listening` line.
pub fn peer_of(process: &mut Process) -> String {
    let line = process.wait_for_type("listening");
    let addr = line["addr"].as_str().unwrap();
    addr.rsplit('/').next().unwrap().to_owned()
}

/// The end of a process that is a closed pipe.
#[derive(Clone, Copy, Debug)]
pub enum Unheard {
    Stdout,
    Stderr,
}

/// Says that a test did not run, for `scripts/check` to count.
pub fn skip(test: &str, reason: &str) {
    use std::io::Write;
    let Some(path) = std::env::var_os("SHOAL_SKIPS") else {
        return;
    };
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    writeln!(file, "SKIPPED: {test}: {reason}").unwrap();
}

/// How a process ended that was run to its end.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// 128 + the signal for a process ended by one, as shells say.
fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// A running process; killed when dropped.
pub struct Process {
    child: Child,
    lines: Receiver<(Instant, Value)>,
    /// Every line so far, with when it was read.
    pub seen: Vec<(Instant, Value)>,
    log: PathBuf,
}

impl Process {
    /// Waits for a line that `wanted` likes, also among those seen, and gives it with its time.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> (Instant, Value) {
        if let Some(found) = self.seen.iter().find(|(_, line)| wanted(line)) {
            return found.clone();
        }
        self.wait_for_new(what, wanted)
    }

    /// Waits for a line not read before that `wanted` likes.
    #[track_caller]
    pub fn wait_for_new(
        &mut self,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> (Instant, Value) {
        let until = Instant::now() + PATIENCE;
        loop {
            match self
                .lines
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if wanted(&line.1) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {what} in time; {}", self.story()),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("ended without {what}; {}", self.story())
                }
            }
        }
    }

    #[track_caller]
    pub fn wait_for_type(&mut self, kind: &str) -> Value {
        self.wait_for(kind, |line| line["type"] == kind).1
    }

    /// The link that a `seed` prints.
    #[track_caller]
    pub fn link(&mut self) -> String {
        self.wait_for_type("link")["link"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Waits until at least this part of the share is verified and stored.
    #[track_caller]
    pub fn wait_for_part(&mut self, part: f64) -> Instant {
        self.wait_for("progress", |line| {
            let (bytes, total) = (line["bytes"].as_f64(), line["total"].as_f64());
            line["type"] == "progress"
                && bytes
                    .zip(total)
                    .is_some_and(|(bytes, total)| bytes >= part * total)
        })
        .0
    }

    /// Waits for the end and gives the exit code; what was printed meanwhile is in `seen`.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        loop {
            while let Ok(line) = self.lines.try_recv() {
                self.seen.push(line);
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(1)) {
                    self.seen.push(line);
                }
                return code_of(status);
            }
            assert!(
                Instant::now() < until,
                "did not end in time; {}",
                self.story()
            );
            pause();
        }
    }

    pub fn id(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.id().to_string())
            .status()
            .unwrap();
        assert!(status.success(), "kill -{name} {}", self.id());
    }

    /// Kills it at once and waits until it is gone; gives the moment of the kill.
    pub fn kill(&mut self) -> Instant {
        let at = Instant::now();
        self.signal("KILL");
        self.child.wait().unwrap();
        at
    }

    /// All lines of a type so far.
    pub fn all(&self, kind: &str) -> Vec<&Value> {
        self.seen
            .iter()
            .map(|(_, line)| line)
            .filter(|line| line["type"] == kind)
            .collect()
    }

    /// The last lines and the end of stderr, for a failure's message.
    fn story(&self) -> String {
        let mut stderr = String::new();
        if let Ok(mut log) = File::open(&self.log) {
            // A log that cannot be read only makes the message shorter.
            let _ = log.read_to_string(&mut stderr);
        }
        let tail: Vec<&str> = stderr.lines().rev().take(20).collect();
        let lines: Vec<String> = self
            .seen
            .iter()
            .rev()
            .take(12)
            .map(|(_, line)| line.to_string())
            .collect();
        format!("last lines, newest first: {lines:#?}; stderr, newest first: {tail:#?}")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A short wait between two looks at a condition.
#[expect(
    clippy::disallowed_methods,
    reason = "tests have no runtime; the condition is looked at again after it"
)]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

/// Fails unless both files have the same bytes, without printing them.
#[track_caller]
pub fn assert_same(one: impl AsRef<Path>, other: impl AsRef<Path>) {
    let (one, other) = (one.as_ref(), other.as_ref());
    let same = fs::read(one).unwrap() == fs::read(other).unwrap();
    assert!(same, "{} differs from {}", one.display(), other.display());
}

/// Everything below a folder: path, kind, executable bit, bytes.
pub fn tree(folder: &Path) -> Vec<(String, char, bool, Vec<u8>)> {
    use std::os::unix::fs::PermissionsExt;
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .strip_prefix(folder)
                .unwrap()
                .to_string_lossy()
                .into_owned();
            let meta = fs::symlink_metadata(&path).unwrap();
            if meta.is_symlink() {
                let target = fs::read_link(&path).unwrap().to_string_lossy().into_owned();
                found.push((name, 'l', false, target.into_bytes()));
            } else if meta.is_dir() {
                found.push((name, 'd', false, Vec::new()));
                folders.push(path);
            } else {
                let executable = meta.permissions().mode() & 0o111 != 0;
                found.push((name, 'f', executable, fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}
