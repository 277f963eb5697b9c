//! The main job with real processes on loopback: many fetchers, kills, stops, resuming, one home.
//!
//! Every process is throttled so that a kill falls in the middle; the tests run one at a time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::liar::Liar;
use crate::support::{Place, Process, assert_same, fetch, peer_of, seed, tree, turn};

const MIB: usize = 1 << 20;

/// From a kill until the pieces are asked elsewhere: promised 100 ms, with room for a busy machine.
const REROUTE_MAX: Duration = Duration::from_secs(1);
/// The same for a peer that falls silent: promised 2 s.
const REROUTE_SILENT_MAX: Duration = Duration::from_secs(5);

fn done(process: &mut Process) -> Value {
    assert_eq!(process.wait(), 0, "{:?}", process.seen.last());
    process.wait_for_type("done")
}

fn is_reroute(line: &Value, peer: &str, cause: &str) -> bool {
    line["type"] == "reroute" && line["peer"] == peer && line["cause"] == cause
}

#[test]
fn a_folder_reaches_three_fetchers_as_it_is() {
    let _turn = turn();
    let place = Place::new();
    place.file("photos/big.bin", 64 * MIB);
    for index in 0..200 {
        place.file(
            &format!("photos/small/{index:03} of many.txt"),
            100 + 37 * index,
        );
    }
    place.file("photos/empty", 0);
    place.file("photos/h\u{e4}lt \u{1f41f}/na\u{ef}ve name.txt", 5_000);
    place.folder("photos/nothing here");
    let tool = place.file("photos/tool.sh", 300);
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();

    let (_seeder, link) = seed(&place, "home", &place.path("photos"), &[]);
    let folders = ["one", "two", "three"].map(|name| place.folder(name));
    let mut fetchers = folders
        .each_ref()
        .map(|folder| fetch(&place, "home", &link, folder, &["--linger", "2s"]));
    for (fetcher, folder) in fetchers.iter_mut().zip(&folders) {
        let line = done(fetcher);
        assert_eq!(line["path"], folder.join("photos").to_str().unwrap());
        assert_eq!(
            fs::read_dir(folder).unwrap().count(),
            1,
            "nothing lies beside the result"
        );
        assert_eq!(tree(&folder.join("photos")), tree(&place.path("photos")));
    }
}

#[test]
fn stdout_of_a_fetch_is_the_path_and_nothing_else() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("one file.bin", 3 * MIB);
    let (_seeder, link) = seed(&place, "home", &file, &[]);
    let outcome = place
        .shoal("home")
        .args(&["fetch", &link, "--dir", "in", "--linger", "0"])
        .local()
        .run();
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (0, "in/one file.bin\n"),
        "{}",
        outcome.stderr
    );
    assert_same(place.path("in/one file.bin"), file);
}

#[test]
fn a_killed_seeder_is_rerouted_at_once_and_nothing_is_received_twice() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 48 * MIB);
    let (_first, link) = seed(&place, "home", &file, &["--up", "8M"]);
    let (mut second, _) = seed(&place, "home", &file, &["--up", "8M"]);
    let victim = peer_of(&mut second);
    let mut fetcher = fetch(
        &place,
        "home",
        &link,
        &place.path("out"),
        &["--linger", "0"],
    );
    fetcher.wait_for("both seeders to give", |line| {
        line["type"] == "peer" && line["peer"] == *victim
    });
    fetcher.wait_for_part(0.3);
    let killed = second.kill();
    let (at, line) = fetcher.wait_for_new("reroute", |line| is_reroute(line, &victim, "closed"));
    assert!(
        at - killed < REROUTE_MAX,
        "{:?} after the kill: {line}",
        at - killed
    );
    assert!(line["pieces"].as_u64().unwrap() >= 1 && line["to"].as_array().unwrap().len() == 1);
    let done = done(&mut fetcher);
    // What was in flight from the killed peer is at most its window.
    assert!(done["wasted"].as_u64().unwrap() <= 8 * MIB as u64, "{done}");
    assert_eq!(done["peers"], 2);
    assert_same(place.path("out/data.bin"), file);
}

#[test]
fn a_stopped_seeder_is_rerouted_within_seconds() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 64 * MIB);
    let (_first, link) = seed(&place, "home", &file, &["--up", "6M"]);
    let (mut second, _) = seed(&place, "home", &file, &["--up", "6M"]);
    let victim = peer_of(&mut second);
    let mut fetcher = fetch(
        &place,
        "home",
        &link,
        &place.path("out"),
        &["--linger", "0"],
    );
    fetcher.wait_for("both seeders to give", |line| {
        line["type"] == "peer" && line["peer"] == *victim
    });
    fetcher.wait_for_part(0.3);
    let stopped = Instant::now();
    second.signal("STOP");
    let (at, line) = fetcher.wait_for_new("reroute", |line| is_reroute(line, &victim, "silent"));
    assert!(
        at - stopped < REROUTE_SILENT_MAX,
        "{:?} after the stop: {line}",
        at - stopped
    );
    done(&mut fetcher);
    assert_same(place.path("out/data.bin"), file);
}

#[test]
fn a_killed_fetcher_resumes_and_receives_only_what_was_missing() {
    let _turn = turn();
    let place = Place::new();
    let len = 24 * MIB;
    let file = place.file("data.bin", len);
    let (_seeder, link) = seed(&place, "home", &file, &["--up", "4M"]);
    for part in [0.1, 0.5, 0.9] {
        let out = place.path(&format!("out-{part}"));
        let mut fetcher = fetch(&place, "home", &link, &out, &["--linger", "0"]);
        fetcher.wait_for_part(part);
        fetcher.kill();
        let told = fetcher
            .all("progress")
            .iter()
            .filter_map(|line| line["bytes"].as_f64())
            .fold(0.0, f64::max);
        assert!(told >= part * len as f64);
        assert!(
            !out.join("data.bin").exists(),
            "no final name before the file is whole"
        );

        let mut again = fetch(&place, "home", &link, &out, &["--linger", "0"]);
        let done = done(&mut again);
        let received = done["downloaded"].as_f64().unwrap();
        // What was stored after the last line told makes it less, what was in flight makes it no more.
        assert!(
            received <= len as f64 - told,
            "kept {told} and received {received} again at {part}"
        );
        assert_same(out.join("data.bin"), &file);
        assert_eq!(
            fs::read_dir(&out).unwrap().count(),
            1,
            "the part folder is gone"
        );
    }
}

#[test]
fn a_seeder_that_dies_too_early_stalls_the_fetch_and_its_return_finishes_it() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 32 * MIB);
    let (mut seeder, link) = seed(&place, "home", &file, &["--up", "8M"]);
    let out = place.path("out");
    let mut fetcher = fetch(&place, "home", &link, &out, &["--stall-timeout", "6s"]);
    fetcher.wait_for_part(0.2);
    seeder.kill();
    let stalled = fetcher.wait_for_type("stalled");
    assert!(
        ["no_peers", "no_holder", "unreachable"].contains(&stalled["cause"].as_str().unwrap()),
        "{stalled}"
    );
    assert_eq!(fetcher.wait(), 4);
    assert_eq!(fetcher.wait_for_type("error")["code"], 4);

    // The old command takes the old identity and the old port, so the old link leads to it.
    let (_again, new_link) = seed(&place, "home", &file, &["--up", "8M"]);
    assert_eq!(new_link, link, "same identity, same port");
    let mut fetcher = fetch(&place, "home", &link, &out, &["--linger", "0"]);
    let done = done(&mut fetcher);
    assert!(
        done["downloaded"].as_u64().unwrap() < 30 * MIB as u64,
        "it resumed: {done}"
    );
    assert_same(out.join("data.bin"), file);
}

#[test]
fn five_processes_of_one_home_are_one_swarm() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 24 * MIB);
    let (mut first, link) = seed(&place, "home", &file, &["--up", "4M"]);
    let (mut second, other) = seed(&place, "home", &file, &["--up", "4M"]);
    let ids = |first: &mut Process| {
        first.wait_for_type("link")["share"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        ids(&mut first),
        ids(&mut second),
        "equal files are one share"
    );
    assert_ne!(link, other, "but each process has an identity of its own");
    assert_ne!(peer_of(&mut first), peer_of(&mut second));

    // The bare id is enough: live processes of the home find each other.
    let bare = ids(&mut first);
    let outs = ["a", "b", "c"].map(|name| place.folder(name));
    let mut fetchers = outs
        .each_ref()
        .map(|out| fetch(&place, "home", &bare, out, &["--linger", "2s"]));
    for (fetcher, out) in fetchers.iter_mut().zip(&outs) {
        let done = done(fetcher);
        assert!(done["peers"].as_u64().unwrap() >= 2, "several gave: {done}");
        assert_same(out.join("data.bin"), &file);
    }
}

#[test]
fn a_bare_id_is_found_through_one_other_node() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 12 * MIB);
    let other = place.file("other.bin", MIB);
    // Three homes: nobody finds anybody but through the one address that is given.
    let (mut meeting_point, _) = seed(&place, "home-m", &other, &[]);
    let address = meeting_point.wait_for_type("listening")["addr"]
        .as_str()
        .unwrap()
        .to_owned();
    let (mut seeder, _) = seed(&place, "home-s", &file, &["--peer", &address, "--up", "4M"]);
    let share = seeder.wait_for_type("link")["share"]
        .as_str()
        .unwrap()
        .to_owned();
    let outs = ["a", "b"].map(|name| place.folder(name));
    let mut fetchers = [0, 1].map(|at| {
        fetch(
            &place,
            &format!("home-{at}"),
            &share,
            &outs[at],
            &["--peer", &address, "--linger", "2s"],
        )
    });
    let first_id = peer_of(&mut fetchers[0]);
    fetchers[1].wait_for("the other receiver", |line| {
        line["type"] == "peer" && line["peer"] == *first_id
    });
    for (fetcher, out) in fetchers.iter_mut().zip(&outs) {
        done(fetcher);
        assert_same(out.join("data.bin"), &file);
    }
}

#[test]
fn a_liar_is_dropped_and_named_and_the_result_is_correct() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 16 * MIB);
    let (_seeder, link) = seed(&place, "home", &file, &["--up", "4M"]);
    let liar = Liar::start(&file);
    let flags = ["--peer", &liar.address, "--linger", "0"];
    let mut fetcher = fetch(&place, "home", &link, &place.path("out"), &flags);
    let (_, line) = fetcher.wait_for("reroute", |line| is_reroute(line, &liar.peer, "corrupt"));
    assert!(line["pieces"].as_u64().unwrap() >= 1, "{line}");
    let done = done(&mut fetcher);
    assert!(
        done["wasted"].as_u64().unwrap() > 0,
        "the bad piece was not kept: {done}"
    );
    assert_same(place.path("out/data.bin"), file);
}

#[test]
fn a_file_that_changes_under_the_seeder_is_withdrawn_and_the_rest_is_served() {
    let _turn = turn();
    let place = Place::new();
    let steady = place.file("set/steady.bin", 6 * MIB);
    let moving = place.file("set/moving.bin", 24 * MIB);
    let (mut seeder, link) = seed(&place, "home", &place.path("set"), &["--up", "8M"]);
    let out = place.path("out");
    let mut fetcher = fetch(&place, "home", &link, &out, &["--stall-timeout", "5s"]);
    fetcher.wait_for_part(0.2);
    let mut bytes = fs::read(&moving).unwrap();
    bytes.reverse();
    fs::write(&moving, bytes).unwrap();
    assert_eq!(fetcher.wait(), 4, "what is gone cannot be completed");
    assert!(
        fetcher
            .all("reroute")
            .iter()
            .all(|line| line["cause"] != "corrupt"),
        "no wrong byte was sent"
    );
    // The file that did not change is complete under its final name, the other has none.
    assert_same(out.join("set/steady.bin"), steady);
    assert!(!out.join("set/moving.bin").exists());
    seeder.signal("INT");
    assert_eq!(seeder.wait(), 130, "the seeder is alive and well");
}

#[test]
fn signals_end_processes_within_two_seconds_with_their_codes() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 32 * MIB);
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let (mut seeder, link) = seed(&place, "home", &file, &["--up", "4M"]);
        let out = place.path(&format!("out-{signal}"));
        let mut fetcher = fetch(&place, "home", &link, &out, &[]);
        fetcher.wait_for_part(0.1);
        for process in [&mut fetcher, &mut seeder] {
            let sent = Instant::now();
            process.signal(signal);
            assert_eq!(process.wait(), code);
            assert!(
                sent.elapsed() < Duration::from_secs(3),
                "{:?} after {signal}",
                sent.elapsed()
            );
        }
    }
}
