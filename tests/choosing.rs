//! What users choose, with real processes: what goes into a share, what is taken out of it, in which order and to where.
//!
//! Also what `ls` and `verify` say, and who may write to a target.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Outcome, Place, Process, assert_same, noise, tree, turn};

const MIB: usize = 1 << 20;

fn seed(place: &Place, path: &Path, flags: &[&str]) -> (Process, String) {
    let mut process = place
        .shoal("home")
        .arg("seed")
        .arg(path)
        .local()
        .args(flags)
        .spawn_json();
    let link = process.link();
    (process, link)
}

fn fetch(place: &Place, link: &str, into: &Path, flags: &[&str]) -> Process {
    place
        .shoal("home")
        .args(&["fetch", link, "--dir"])
        .arg(into)
        .local()
        .args(flags)
        .spawn_json()
}

fn run(place: &Place, args: &[&str]) -> Outcome {
    run_at(place, "home", args)
}

fn run_at(place: &Place, home: &str, args: &[&str]) -> Outcome {
    place.shoal(home).args(args).local().run()
}

fn lines(outcome: &Outcome) -> Vec<Value> {
    outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn done(process: &mut Process) -> Value {
    assert_eq!(process.wait(), 0, "{:?}", process.seen.last());
    process.wait_for_type("done")
}

fn names(folder: &Path) -> Vec<String> {
    let names = tree(folder).into_iter();
    names
        .filter(|entry| entry.1 != 'd')
        .map(|entry| entry.0)
        .collect()
}

#[test]
fn seed_and_link_leave_out_what_patterns_say_and_nothing_else() {
    let _turn = turn();
    let place = Place::new();
    for name in ["top/a.txt", "top/b.tmp", "top/cache/c", "top/.hidden"] {
        place.file(name, 100);
    }
    fs::write(place.path("patterns"), "cache/\n").unwrap();
    let flags = ["--exclude", "*.tmp", "--ignore-file", "patterns"];
    let link = |flags: &[&str]| {
        let all = [&["link", "top", "--json"], flags].concat();
        let outcome = place.shoal("home").args(&all).run();
        let link = lines(&outcome).pop().unwrap();
        (link, outcome.stderr)
    };
    let (all, told) = link(&[]);
    assert_eq!(all["files"], 4);
    assert!(!told.contains("left out"), "{told}");
    let (some, told) = link(&flags);
    assert_eq!(some["files"], 2);
    assert!(told.contains("left out 2 entries by pattern"), "{told}");
    let (mut seeder, _) = seed(&place, Path::new("top"), &flags);
    assert_eq!(seeder.wait_for_type("link")["share"], some["share"]);

    for (flags, code) in [
        (["--exclude", "a{b"], 2),
        (["--ignore-file", "not-there"], 6),
    ] {
        let outcome = run(&place, &[&["link", "top"], &flags[..]].concat());
        assert_eq!(outcome.code, code, "{outcome:?}");
        assert_eq!(outcome.stdout, "");
    }
}

#[test]
fn ls_shows_the_same_of_a_link_and_of_local_files_and_downloads_nothing() {
    let _turn = turn();
    let place = Place::new();
    place.file("top/big.bin", 3 * MIB);
    place.file("top/sub/small", 5);
    place.file("top/empty", 0);
    place.file("top/\u{1b}[2Jbad\n", 1);
    let (_seeder, link) = seed(&place, Path::new("top"), &["--up", "1k"]);
    let remote = run_at(&place, "elsewhere", &["ls", &link]);
    let local = run(&place, &["ls", "top"]);
    assert_eq!((remote.code, local.code), (0, 0), "{remote:?} {local:?}");
    assert_eq!(remote.stdout, local.stdout);
    let shown: Vec<_> = remote.stdout.lines().map(str::trim_start).collect();
    assert_eq!(shown.len(), 4, "{shown:?}");
    assert_eq!(shown[0], "1 B  \\u{1b}[2Jbad\\u{a}");
    assert!(shown[1].ends_with("  big.bin") && shown[3].ends_with("  sub/small"));

    let objects = |what: &str| {
        let mut lines = lines(&run_at(&place, "elsewhere", &["ls", what, "--json"]));
        lines.retain(|line| line["type"] == "file");
        lines.iter_mut().for_each(|line| line["ts"] = Value::Null);
        lines
    };
    let files = objects(&link);
    assert_eq!(files, objects("top"));
    assert_eq!(
        (files.len(), &files[1]["path"], &files[1]["bytes"]),
        (4, &"big.bin".into(), &(3 * MIB).into())
    );
    assert_eq!(files[1]["root"].as_str().unwrap().len(), 64);
    assert_eq!(
        (&files[2]["root"], &files[2]["ok"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(names(&place.path("top")).len(), 4);
}

#[test]
fn ls_of_nothing_that_is_there_says_which_it_could_not_be() {
    let place = Place::new();
    for (what, code) in [("shoal:nonsense", 2), ("not-there", 6)] {
        let outcome = run(&place, &["ls", what]);
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (code, ""),
            "{outcome:?}"
        );
    }
}

#[test]
fn verify_finds_the_flipped_byte_and_names_the_file() {
    let _turn = turn();
    let place = Place::new();
    place.file("top/a.bin", 2 * MIB);
    place.file("top/b.bin", 300);
    place.file("top/c.bin", 300);
    let (mut seeder, link) = seed(&place, Path::new("top"), &[]);
    let id = seeder.wait_for_type("link")["share"]
        .as_str()
        .unwrap()
        .to_owned();
    let copy = place.folder("copy");
    for name in ["a.bin", "b.bin", "c.bin"] {
        fs::copy(place.path("top").join(name), copy.join(name)).unwrap();
    }
    for (home, what) in [("elsewhere", &link), ("home", &id)] {
        let outcome = run_at(&place, home, &["verify", what, "copy"]);
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (0, ""),
            "{outcome:?}"
        );
    }
    let mut bytes = fs::read(copy.join("a.bin")).unwrap();
    bytes[MIB + 17] ^= 1;
    fs::write(copy.join("a.bin"), bytes).unwrap();
    fs::remove_file(copy.join("c.bin")).unwrap();
    let outcome = run_at(&place, "elsewhere", &["verify", &link, "copy"]);
    assert_eq!(outcome.code, 5, "{outcome:?}");
    assert_eq!(outcome.stdout, "differs  a.bin\nmissing  c.bin\n");
    let lines = lines(&run_at(
        &place,
        "elsewhere",
        &["verify", &link, "copy", "--json"],
    ));
    let verdicts: Vec<_> = lines
        .iter()
        .filter(|line| line["type"] == "file")
        .map(|line| {
            (
                line["path"].as_str().unwrap(),
                line["ok"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        verdicts,
        [("a.bin", false), ("b.bin", true), ("c.bin", false)]
    );
    assert_eq!(lines.last().unwrap()["code"], 5);

    seeder.kill();
    let args = ["verify", &link, "copy", "--timeout", "1s"];
    let outcome = run_at(&place, "elsewhere", &args);
    assert_eq!(outcome.code, 3, "{outcome:?}");
    assert!(
        outcome
            .stderr
            .contains("hint: this host has neither made nor fetched the share")
    );
    // Where the share was made, nobody needs to be asked.
    let outcome = run(&place, &args);
    assert_eq!(outcome.code, 5, "{outcome:?}");
    assert_eq!(outcome.stdout, "differs  a.bin\nmissing  c.bin\n");
}

#[test]
fn a_link_made_or_fetched_here_is_verified_and_listed_without_any_peer() {
    let _turn = turn();
    let place = Place::new();
    place.file("top/a.bin", MIB);
    place.file("top/b.bin", 300);
    let link = run(&place, &["link", "top"]).stdout;
    let (mut seeder, _) = seed(&place, Path::new("top"), &[]);
    let fetched = place.folder("fetched");
    let peer = seeder.wait_for_type("listening")["addr"]
        .as_str()
        .unwrap()
        .to_owned();
    let args = [
        "fetch",
        link.trim(),
        "--dir",
        "fetched",
        "--peer",
        &peer,
        "--linger",
        "0",
    ];
    assert_eq!(run_at(&place, "elsewhere", &args).code, 0);
    seeder.kill();
    fs::write(fetched.join("top/b.bin"), noise("other", 300)).unwrap();
    for home in ["home", "elsewhere"] {
        let outcome = run_at(&place, home, &["verify", link.trim(), "top"]);
        assert_eq!(outcome.code, 0, "{home}: {outcome:?}");
        let outcome = run_at(&place, home, &["verify", link.trim(), "fetched/top"]);
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (5, "differs  b.bin\n"),
            "{home}"
        );
        let listed = run_at(&place, home, &["ls", link.trim()]);
        assert_eq!(
            (listed.code, listed.stdout.lines().count()),
            (0, 2),
            "{home}: {listed:?}"
        );
    }
}

#[test]
fn only_the_chosen_files_are_fetched_and_a_later_fetch_takes_the_rest() {
    let _turn = turn();
    let place = Place::new();
    place.file("top/docs/a.txt", 2 * MIB);
    place.file("top/docs/b.txt", 100);
    place.file("top/big.bin", 8 * MIB);
    place.file("top/docs/none", 0);
    place.folder("top/hollow");
    let (_seeder, link) = seed(&place, Path::new("top"), &["--up", "8M"]);
    let out = place.folder("out");
    let chosen = 2 * MIB + 100;

    let nothing = run(&place, &["fetch", &link, "--dir", "out", "--only", "*.jpg"]);
    assert_eq!(nothing.code, 2, "{nothing:?}");
    assert_eq!(names(&out), Vec::<String>::new());

    let flags = ["--only", "*.txt", "--linger", "0"];
    let mut fetcher = fetch(&place, &link, &out, &flags);
    fetcher.wait_for_part(0.2);
    fetcher.kill();
    let mut fetcher = fetch(&place, &link, &out, &flags);
    let line = done(&mut fetcher);
    assert_eq!(line["bytes"], chosen);
    assert!(
        line["downloaded"].as_u64().unwrap() < chosen as u64,
        "resumed: {line}"
    );
    let progress = fetcher.all("progress");
    let last = progress.last().unwrap();
    assert_eq!(
        (&last["bytes"], &last["total"]),
        (&chosen.into(), &chosen.into())
    );
    assert_eq!(names(&out), ["top/docs/a.txt", "top/docs/b.txt"]);
    assert!(!out.join("top/hollow").exists());

    let mut fetcher = fetch(&place, &link, &out, &["--linger", "0"]);
    let line = done(&mut fetcher);
    assert_eq!(line["downloaded"], 8 * MIB, "what is there is kept: {line}");
    assert_eq!(tree(&out.join("top")), tree(&place.path("top")));
}

#[test]
fn what_an_earlier_fetch_got_of_other_files_is_kept_by_a_fetch_of_some() {
    let _turn = turn();
    let place = Place::new();
    place.file("top/a.txt", 100);
    place.file("top/big.bin", 16 * MIB);
    let (_seeder, link) = seed(&place, Path::new("top"), &["--up", "6M"]);
    let out = place.folder("out");
    let mut fetcher = fetch(&place, &link, &out, &[]);
    fetcher.wait_for_part(0.4);
    fetcher.kill();
    done(&mut fetch(
        &place,
        &link,
        &out,
        &["--only", "a.txt", "--linger", "0"],
    ));
    assert!(!out.join("top/big.bin").exists());
    let line = done(&mut fetch(&place, &link, &out, &["--linger", "0"]));
    assert!(
        line["downloaded"].as_u64().unwrap() < 11 * MIB as u64,
        "{line}"
    );
    assert_eq!(tree(&out.join("top")), tree(&place.path("top")));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}

#[test]
fn a_file_goes_to_stdout_in_order_while_it_arrives() {
    let _turn = turn();
    let place = Place::new();
    let len = 12 * MIB;
    let file = place.file("one.bin", len);
    let (_seeder, link) = seed(&place, &file, &["--up", "6M"]);
    let mut child = place
        .shoal("home")
        .args(&["fetch", "-o", "-", &link, "--linger", "0"])
        .local()
        .spawn_piped();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = vec![0; MIB];
    stdout.read_exact(&mut first).unwrap();
    assert!(
        child.try_wait().unwrap().is_none(),
        "it comes while the fetch goes on"
    );
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert_eq!([first, rest].concat(), noise("one.bin", len));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // The pieces lay in a folder of the home, which is gone.
    let hosts = fs::read_dir(place.path("home/hosts")).unwrap();
    for host in hosts {
        let stream = host.unwrap().path().join("stream");
        assert_eq!(fs::read_dir(stream).unwrap().count(), 0);
    }
    assert!(!place.path("one.bin.part").exists());
}

#[test]
fn a_stream_into_a_folder_is_kept_and_resumed() {
    let _turn = turn();
    let place = Place::new();
    let len = 8 * MIB;
    let file = place.file("one.bin", len);
    let (_seeder, link) = seed(&place, &file, &["--up", "6M"]);
    let out = place.folder("out");
    let mut fetcher = fetch(&place, &link, &out, &["--sequential"]);
    fetcher.wait_for_part(0.4);
    fetcher.kill();
    let args = ["fetch", "-o", "-", "-d", "out", &link, "--linger", "0"];
    let output = place.shoal("home").args(&args).local().output();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(output.stdout, noise("one.bin", len));
    assert_eq!(
        fs::read(out.join("one.bin")).unwrap(),
        noise("one.bin", len)
    );
}

#[test]
fn a_reader_that_has_enough_ends_the_stream_quietly() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("one.bin", 16 * MIB);
    let (_seeder, link) = seed(&place, &file, &["--up", "8M"]);
    let mut child = place
        .shoal("home")
        .args(&["fetch", "-q", "-o", "-", &link])
        .local()
        .spawn_piped();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 1000]).unwrap();
    drop(stdout);
    let begin = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn only_one_file_goes_to_stdout_and_never_as_json() {
    let _turn = turn();
    let place = Place::new();
    place.file("top/a", 100);
    let (_seeder, link) = seed(&place, Path::new("top"), &[]);
    for flags in [
        &["fetch", "-o", "-", &link][..],
        &["fetch", "-o", "-", &link, "--json"],
    ] {
        let outcome = run(&place, flags);
        assert_eq!(outcome.code, 2, "{outcome:?}");
        let told = if flags.contains(&"--json") {
            &outcome.stdout
        } else {
            &outcome.stderr
        };
        assert!(told.contains("error"), "{outcome:?}");
    }
}

#[test]
fn a_second_fetch_into_one_target_is_refused_even_when_the_first_is_stopped() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 24 * MIB);
    let (_seeder, link) = seed(&place, &file, &["--up", "2M"]);
    let out = place.folder("out");
    let mut first = fetch(&place, &link, &out, &["--linger", "0"]);
    first.wait_for_part(0.05);
    for stopped in [false, true] {
        if stopped {
            first.signal("STOP");
        }
        let second = run(&place, &["fetch", &link, "--dir", "out"]);
        assert_eq!(second.code, 7, "{second:?}");
        assert!(second.stderr.contains("another fetch"), "{second:?}");
    }
    first.signal("CONT");
    first.wait_for_part(0.2);
    first.kill();
    let mut third = fetch(&place, &link, &out, &["--linger", "0", "--down", "500k"]);
    third.wait_for("the lock of the killed one", |line| {
        line["phase"] == "fetch"
    });
}

#[test]
fn overwrite_replaces_files_that_differ_and_leaves_folders_and_strangers() {
    let _turn = turn();
    let place = Place::new();
    place.file("top/a", 2 * MIB);
    place.file("top/sub/b", 100);
    let (_seeder, link) = seed(&place, Path::new("top"), &[]);
    let out = place.folder("out");
    place.file("out/top/a", 50);
    place.file("out/top/sub/b", 100);
    place.file("out/top/mine", 10);
    fs::write(out.join("top/sub/b"), vec![0; 100]).unwrap();
    let flags = ["fetch", &link, "--dir", "out", "--linger", "0"];
    assert_eq!(run(&place, &flags).code, 7);
    assert_eq!(fs::metadata(out.join("top/a")).unwrap().len(), 50);
    let outcome = run(&place, &[&flags[..], &["--overwrite"]].concat());
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(names(&out.join("top")), ["a", "mine", "sub/b"]);
    for name in ["a", "sub/b"] {
        let (here, there) = (out.join("top").join(name), place.path("top").join(name));
        assert_same(here, there);
    }
    // A folder where a file belongs is somebody's work: never replaced.
    fs::remove_file(out.join("top/a")).unwrap();
    place.file("out/top/a/inside", 10);
    let outcome = run(&place, &[&flags[..], &["--overwrite"]].concat());
    assert_eq!(outcome.code, 7, "{outcome:?}");
    assert!(out.join("top/a/inside").exists());
}

#[test]
fn unchanged_files_are_seeded_again_without_being_read() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 64 * MIB);
    // Older than what may change unnoticed: the state remembers it at once.
    let hashed = |process: &Process| {
        let lines = process.all("progress");
        let hash = lines.iter().filter(|line| line["phase"] == "hash");
        hash.filter_map(|line| line["total"].as_u64()).max()
    };
    let begin = Instant::now();
    let mut runs = 0;
    // The first run that finds the file old enough keeps its hashes, the next one uses them.
    while begin.elapsed() < Duration::from_secs(30) {
        let (mut seeder, _) = seed(&place, &file, &[]);
        runs += 1;
        let total = hashed(&seeder);
        seeder.kill();
        if runs > 1 && total.is_none_or(|total| total == 0) {
            return;
        }
        crate::support::pause();
    }
    panic!("read again in each of {runs} runs");
}

#[test]
fn files_keep_the_times_of_their_last_change_also_from_who_fetched_them() {
    let _turn = turn();
    let place = Place::new();
    let times = [
        ("a", 1_000_000),
        ("sub/b", 1_500_000_000),
        ("empty", 1_600_000_000),
        ("late", 4_000_000_000),
    ];
    for (name, secs) in times {
        let len = if name == "empty" { 0 } else { 3 * MIB };
        let file = place.file(&format!("top/{name}"), len);
        let time = std::time::SystemTime::UNIX_EPOCH + Duration::new(secs, 123_456_789);
        fs::File::options()
            .write(true)
            .open(file)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    let (mut seeder, link) = seed(&place, Path::new("top"), &[]);
    let mut first = fetch(&place, &link, &place.folder("one"), &["--seed"]);
    first.wait_for_type("done");
    seeder.kill();
    done(&mut fetch(
        &place,
        &link,
        &place.folder("two"),
        &["--linger", "0"],
    ));
    for out in ["one", "two"] {
        for (name, secs) in times {
            let path = place.path(out).join("top").join(name);
            let at = fs::metadata(path).unwrap().modified().unwrap();
            let expected = std::time::SystemTime::UNIX_EPOCH + Duration::new(secs, 123_456_789);
            if secs < 2_000_000_000 {
                assert_eq!(at, expected, "{out} {name}");
            } else {
                assert!(
                    at <= std::time::SystemTime::now(),
                    "none lies in the future"
                );
            }
        }
    }
}

#[test]
fn a_fetch_of_some_files_never_says_that_it_is_complete() {
    let _turn = turn();
    let place = Place::new();
    place.file("top/a.txt", 100);
    place.file("top/b.bin", 100);
    let (mut seeder, link) = seed(&place, Path::new("top"), &["--until-copies", "1"]);
    let leaves = |seeder: &mut Process, only: &str| {
        let flags = ["--only", only, "--linger", "0"];
        done(&mut fetch(&place, &link, &place.folder("out"), &flags));
        let is_lost = |line: &Value| line["state"] == "lost";
        let (_, lost) = seeder.wait_for_new("a peer that leaves", is_lost);
        lost["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(leaves(&mut seeder, "*.txt"), "it left");
    // Whoever speaks first: "it is done", or the seeder itself is done with it.
    let reason = leaves(&mut seeder, "*");
    assert!(reason.ends_with("done"), "{reason}");
    // The whole share was fetched once, and that is what counts as a copy.
    assert_eq!(seeder.wait(), 0);
}

#[test]
fn verify_tells_how_far_it_is() {
    let _turn = turn();
    let place = Place::new();
    let len = 16 * MIB;
    place.file("data.bin", len);
    let (_seeder, link) = seed(&place, Path::new("data.bin"), &[]);
    let lines = lines(&run(&place, &["verify", &link, "data.bin", "--json"]));
    let told: Vec<_> = lines
        .iter()
        .filter(|line| line["type"] == "progress")
        .collect();
    assert!(!told.is_empty(), "{lines:?}");
    for line in told {
        assert_eq!(
            (&line["phase"], &line["total"]),
            (&"verify".into(), &len.into())
        );
        assert!(line["bytes"].as_u64().unwrap() <= len as u64);
    }
    let plain = run(&place, &["verify", &link, "data.bin"]);
    assert!(plain.stderr.contains("verify:"), "{}", plain.stderr);
}
