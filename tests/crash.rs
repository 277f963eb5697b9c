//! Killed anywhere: SIGKILL at system calls and at moments of a fetch of 64 pieces; the same command then finishes.
//!
//! A sample runs with the suite; `scripts/crash-sweep` sets `SHOAL_CRASH_SWEEP` to try every system call that changes a
//! file or writes, and that many random moments.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::support::{Outcome, Place, fetch, noise, seed, skip, stored_by, turn};

/// 64 pieces of 64 KiB.
const LEN: usize = 4 << 20;

/// What changes files, and everything written to anything.
const CALLS: &str = "openat,openat2,mkdir,mkdirat,write,pwrite64,pwritev,ftruncate,fallocate,fsync,fdatasync,syncfs,rename,renameat,renameat2,unlink,unlinkat,rmdir,fchmod,utimensat,linkat";

/// Points tried when nobody asks for more.
const SAMPLE: usize = 10;

/// How many points to try; `None` is a sample.
pub fn sweep() -> Option<usize> {
    std::env::var("SHOAL_CRASH_SWEEP").ok()?.parse().ok()
}

pub struct Scene {
    pub place: Place,
    pub file: PathBuf,
    link: String,
    /// What is killed has a home of its own.
    flags: Vec<String>,
}

impl Scene {
    fn flags(&self, into: &Path) -> Vec<String> {
        let into = into.to_str().unwrap().to_owned();
        let own = ["fetch", &self.link, "--linger", "0", "--dir", &into];
        own.iter()
            .map(|flag| (*flag).to_owned())
            .chain(self.flags.iter().cloned())
            .collect()
    }

    /// Bytes of the pieces that a run told to have stored: each is in the record by then.
    pub fn stored(&self) -> usize {
        stored_by(&self.trace()) as usize
    }

    fn trace(&self) -> PathBuf {
        self.place.path("trace.ndjson")
    }

    /// After a crash: nothing wrong is shown, and the same command finishes without what was stored.
    fn check(&self, into: &Path, what: &str) {
        self.check_without(self.stored(), into, what);
    }

    /// The same with so many bytes that must not come again.
    pub fn check_without(&self, stored: usize, into: &Path, what: &str) {
        let result = into.join(self.file.file_name().unwrap());
        let expected = noise("data.bin", LEN);
        if let Ok(shown) = fs::read(&result) {
            assert!(
                shown == expected,
                "{what}: a wrong file under its final name"
            );
        }
        let mut again = fetch(&self.place, "other", &self.link, into, &["--linger", "0"]);
        assert_eq!(again.wait(), 0, "{what}");
        let downloaded = again.wait_for_type("done")["downloaded"].as_u64().unwrap() as usize;
        assert!(
            downloaded + stored <= LEN,
            "{what}: {stored} bytes were stored, {downloaded} received again"
        );
        assert!(
            fs::read(&result).unwrap() == expected,
            "{what}: the result differs"
        );
        assert_eq!(
            fs::read_dir(into).unwrap().count(),
            1,
            "{what}: something is left over"
        );
        fs::remove_dir_all(into).unwrap();
        fs::remove_file(self.trace()).unwrap_or_default();
    }
}

pub fn with_scene(test: impl FnOnce(&Scene)) {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", LEN);
    let (_seeder, link) = seed(&place, "home", &file, &[]);
    let trace = place.path("trace.ndjson").to_str().unwrap().to_owned();
    let flags = vec!["--trace".to_owned(), trace];
    test(&Scene {
        place,
        file,
        link,
        flags,
    });
}

/// Whether there is an `strace` that may trace; without, `test` is counted as skipped.
pub fn may_trace(test: &str) -> bool {
    let probe = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output();
    let may = probe.is_ok_and(|probe| probe.status.success());
    if !may {
        skip(test, "needs `strace`, and the right to use it");
    }
    may
}

/// How a fetch under strace ended.
pub struct Traced {
    /// What strace wrote.
    pub log: String,
    pub outcome: Outcome,
}

/// Runs a fetch under strace with these flags of it.
pub fn traced(scene: &Scene, into: &Path, flags: &[String]) -> Traced {
    let log = scene.place.path("strace.log");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-qq", "-e", "signal=none", "-e"])
        .arg(format!("trace={CALLS}"));
    strace.args(flags).arg("-o").arg(&log).arg("--");
    fs::create_dir_all(into).unwrap();
    let flags = scene.flags(into);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let outcome = scene
        .place
        .shoal_through(strace, "other")
        .args(&flags)
        .local()
        .run();
    let log = fs::read_to_string(log).unwrap();
    // strace ends as what it runs.
    Traced { log, outcome }
}

/// The most calls of one thread: strace counts for each thread, which a line begins with.
pub fn calls_of_a_thread<'a>(lines: impl Iterator<Item = &'a str>) -> usize {
    let mut of_thread = BTreeMap::new();
    for line in lines.filter(|line| line.contains('(')) {
        *of_thread.entry(line.split(' ').next()).or_insert(0) += 1;
    }
    of_thread.into_values().max().unwrap_or(0)
}

#[test]
fn a_fetch_killed_at_any_system_call_goes_on_with_the_same_command() {
    if !may_trace("a_fetch_killed_at_any_system_call_goes_on_with_the_same_command") {
        return;
    }
    with_scene(|scene| {
        let into = scene.place.path("into");
        let whole = traced(scene, &into, &[]).log;
        scene.check(&into, "not killed");
        let all = whole.lines().filter(|line| line.contains('(')).count();
        assert!(all > 128, "a write and a record for each piece: {all}");
        let calls = calls_of_a_thread(whole.lines());
        let step = if sweep().is_some() {
            1
        } else {
            (calls / SAMPLE).max(1)
        };
        let mut killed = 0;
        for nth in (1..=calls).step_by(step) {
            let inject = format!("inject={CALLS}:signal=KILL:when={nth}");
            let Traced { outcome, .. } = traced(scene, &into, &["-e".to_owned(), inject]);
            assert!([0, 137].contains(&outcome.code), "{outcome:?}");
            killed += usize::from(outcome.code == 137);
            scene.check(&into, &format!("killed at call {nth} of {calls}"));
        }
        assert!(killed >= SAMPLE / 2, "only {killed} were killed");
        if sweep().is_some() {
            println!(
                "killed {killed} times, when some thread made its call 1 to {calls}: every fetch went on"
            );
        }
    });
}

#[test]
fn a_fetch_killed_at_any_moment_goes_on_with_the_same_command() {
    with_scene(|scene| {
        let into = scene.place.path("into");
        let flags = scene.flags(&into);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let fetching = || scene.place.shoal("other").args(&flags).local();
        fs::create_dir_all(&into).unwrap();
        let began = Instant::now();
        assert_eq!(fetching().run().code, 0);
        let span = began.elapsed();
        scene.check(&into, "not killed");
        let count = sweep().unwrap_or(SAMPLE);
        let (mut killed, mut midway) = (0, 0);
        for number in 0..count {
            // Spread over the run by the golden ratio, in an order that repeats nothing.
            let at = span.mul_f64((number as f64 * 0.618_034).fract());
            fs::create_dir_all(&into).unwrap();
            let mut process = fetching().spawn_into(std::process::Stdio::null());
            let began = Instant::now();
            while began.elapsed() < at {
                std::thread::yield_now();
            }
            killed += usize::from(process.try_wait().unwrap().is_none());
            process.kill().unwrap();
            process.wait().unwrap();
            midway += usize::from((1..LEN).contains(&scene.stored()));
            scene.check(&into, &format!("killed {at:?} after the start"));
        }
        assert!(
            killed >= count / 3,
            "only {killed} of {count} were still running"
        );
        if sweep().is_some() {
            println!(
                "killed at {killed} of {count} moments, {midway} with some pieces stored: every fetch went on"
            );
        }
    });
}
