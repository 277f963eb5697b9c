//! One failing system call: the fetch ends well or with one clear error, and the same command then finishes.
//!
//! strace fails calls that touch the target and its part folder, and no others. A sample runs with the suite;
//! `scripts/crash-sweep` sets `SHOAL_CRASH_SWEEP` to fail each call of a fetch of 64 pieces in turn. Every operation in every
//! way, without a process each, is in `storage/tests/faults`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::crash::{Scene, Traced, calls_of_a_thread, may_trace, sweep, traced, with_scene};

/// Calls, and the errors they are made to end with.
const FAULTS: [(&str, &[&str]); 9] = [
    ("openat2", &["EMFILE", "EIO", "EROFS"]),
    ("mkdirat", &["ENOSPC", "EROFS"]),
    ("pwrite64", &["EIO", "ENOSPC", "EDQUOT", "EINTR"]),
    ("ftruncate", &["EIO", "ENOSPC"]),
    ("fdatasync", &["EIO", "ENOSPC"]),
    ("fsync", &["EIO"]),
    ("renameat2", &["EIO", "EROFS", "ENOSPC"]),
    ("unlinkat", &["EIO", "EROFS"]),
    ("utimensat", &["EPERM"]),
];

/// `-P` for everything a fetch makes: strace looks at whole paths.
fn paths(scene: &Scene, into: &Path) -> Vec<String> {
    let clean = traced(scene, into, &[]);
    scene.check_without(scene.stored(), into, "nothing fails");
    let part = clean
        .log
        .split('"')
        .find(|text| text.starts_with(".shoal-"))
        .expect("a part folder is made");
    let part = into.join(part);
    let mut paths = vec![into.to_path_buf(), part.clone()];
    paths.extend(
        ["lock", "record", "manifest", "manifest.new", "hashes"].map(|name| part.join(name)),
    );
    paths.extend(["hashes.new", "0"].map(|name| part.join(name)));
    paths.push(into.join(scene.file.file_name().unwrap()));
    paths
        .into_iter()
        .flat_map(|path| ["-P".to_owned(), path.to_str().unwrap().to_owned()])
        .collect()
}

/// Fetches with these calls failing; then the same command without. Gives the exit code; `None` when no thread made as many
/// calls as this time.
fn check(scene: &Scene, into: &Path, paths: &[String], inject: &str) -> Option<i32> {
    let mut flags = paths.to_vec();
    flags.extend(["-e".to_owned(), format!("inject={inject}")]);
    let Traced { log, outcome } = traced(scene, into, &flags);
    let errors = outcome.stderr.lines();
    let errors: Vec<_> = errors.filter(|line| line.starts_with("error: ")).collect();
    match outcome.code {
        0 => assert!(errors.is_empty(), "{inject}: {outcome:?}"),
        6 => assert_eq!(errors.len(), 1, "{inject}: {outcome:?}"),
        _ => panic!("{inject}: {outcome:?}"),
    }
    // Nothing is called safe whose sync failed, and what it concerns is received again.
    let is_sync = inject.starts_with('f') && inject.contains("sync");
    let has_failed = log.contains("INJECTED");
    assert!(
        !is_sync || !has_failed || outcome.code == 6,
        "{inject}: {outcome:?}"
    );
    let stored = if is_sync { 0 } else { scene.stored() };
    scene.check_without(stored, into, inject);
    has_failed.then_some(outcome.code)
}

#[test]
fn a_fetch_with_a_failing_system_call_ends_well_or_clearly_and_the_same_command_finishes() {
    let test =
        "a_fetch_with_a_failing_system_call_ends_well_or_clearly_and_the_same_command_finishes";
    if !may_trace(test) {
        return;
    }
    with_scene(|scene| {
        let into = fs::canonicalize(scene.place.folder("into")).unwrap();
        let paths = paths(scene, &into);
        let whole = traced(scene, &into, &paths).log;
        scene.check_without(scene.stored(), &into, "nothing fails");
        let mut ends: BTreeMap<(&str, i32), usize> = BTreeMap::new();
        for (call, errors) in FAULTS {
            let begin = format!("{call}(");
            let calls = calls_of_a_thread(whole.lines().filter(|line| line.contains(&begin)));
            assert!(calls > 0, "{call} is never called: {whole}");
            for (turn, error) in errors.iter().enumerate() {
                let mut tried = |number| {
                    let inject = format!("{call}:error={error}:when={number}");
                    let code = check(scene, &into, &paths, &inject);
                    code.map(|code| *ends.entry((call, code)).or_default() += 1)
                };
                let failed = if sweep().is_some() {
                    (1..=calls).filter_map(tried).count()
                } else {
                    // Another one for each error; the first call is always made.
                    let number = 1 + calls * turn / errors.len();
                    usize::from(tried(number).or_else(|| tried(1)).is_some())
                };
                assert!(failed > 0, "{call} never failed with {error}");
            }
        }
        if sweep().is_some() {
            println!("fetches with a failing system call, by call and exit code: {ends:?}");
        }
        assert!(ends.keys().any(|(_, code)| *code == 0) && ends.keys().any(|(_, code)| *code == 6));
    });
}
