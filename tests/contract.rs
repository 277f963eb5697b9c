//! The contract of scripts, a test for each row of its tables that no other file has: JSON lines, exit codes, streams.
//!
//! Elsewhere: exit codes 2, 3, 6, 7 and error objects in `cli`; 6 for a full disk in `disk`; 5 in `choosing`; 4, 130, 143,
//! reroutes and stalls in `loopback`; `stopped`,
//! stop rules and the trace in `surfaces`; what a terminal shows in `terminal`.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::lines::Schema;
use crate::support::{
    Outcome, PATIENCE, Place, Process, Unheard, assert_same, fetch, pause, peer_of, seed, turn,
};

const MIB: usize = 1 << 20;

fn lines_of(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Every line so far follows the schema; gives the types seen.
#[track_caller]
fn check_lines(process: &Process) -> BTreeSet<String> {
    let schema = Schema::committed();
    let check = |(_, line): &(_, Value)| {
        schema.check(line);
        line["type"].as_str().unwrap().to_owned()
    };
    process.seen.iter().map(check).collect()
}

#[track_caller]
fn number(line: &Value, field: &str) -> f64 {
    line[field]
        .as_f64()
        .unwrap_or_else(|| panic!("{field} is no number: {line}"))
}

#[test]
fn json_all_lines_of_a_seed_and_its_fetchers_follow_the_schema() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 8 * MIB);
    let (mut first, link) = seed(&place, "home", &file, &["--up", "2M", "--for", "1h"]);
    let (mut second, _) = seed(&place, "home", &file, &["--up", "2M"]);
    let victim = peer_of(&mut second);
    let mut fetcher = fetch(
        &place,
        "home",
        &link,
        &place.path("out"),
        &["--linger", "0"],
    );
    fetcher.wait_for("both seeders", |line| {
        line["type"] == "peer" && line["peer"] == *victim
    });
    fetcher.wait_for_part(0.2);
    second.kill();
    assert_eq!(fetcher.wait(), 0);
    first.signal("INT");
    assert_eq!(first.wait(), 130);
    let expected = [
        "listening",
        "peer",
        "progress",
        "reroute",
        "done",
        "stopped",
    ];
    assert_eq!(check_lines(&fetcher), expected.map(String::from).into());
    let expected = ["listening", "peer", "progress", "link", "stopped"];
    assert_eq!(check_lines(&first), expected.map(String::from).into());
    check_lines(&second);
    let times: Vec<f64> = fetcher
        .seen
        .iter()
        .map(|(_, line)| number(line, "ts"))
        .collect();
    assert!(times.iter().all(|ts| *ts > 1e9), "seconds since 1970");
}

#[test]
fn json_link_has_the_bare_id_and_the_size_of_the_share() {
    let place = Place::new();
    place.file("photos/a", 200_000);
    place.file("photos/b", 1);
    place.file("photos/empty", 0);
    let outcome = place
        .shoal("home")
        .args(&["link", "photos", "--json"])
        .run();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let lines = lines_of(&outcome.stdout);
    let link = lines.last().unwrap();
    Schema::committed().check(link);
    assert_eq!(
        (&link["type"], &link["bytes"]),
        (&"link".into(), &200_001.into())
    );
    // Pieces of 64 KiB that never span files: 4 and 1.
    assert_eq!((&link["files"], &link["pieces"]), (&3.into(), &5.into()));
    let bare = format!("shoal:{}", link["share"].as_str().unwrap());
    assert_eq!(
        link["link"],
        bare.as_str(),
        "offline there is nothing else in it"
    );
    let plain = place.shoal("home").args(&["link", "photos"]).run();
    assert_eq!(plain.stdout, format!("{bare}\n"));
}

#[test]
fn json_listening_is_one_line_per_address_with_the_peer() {
    let _turn = turn();
    let place = Place::new();
    let flags = ["--listen", "/ip4/127.0.0.2/tcp/0"];
    let (mut seeder, _) = seed(&place, "home", &place.file("data.bin", 1_000), &flags);
    let peer = peer_of(&mut seeder);
    let mut addresses: Vec<_> = seeder
        .all("listening")
        .iter()
        .map(|line| line["addr"].as_str().unwrap())
        .collect();
    addresses.sort_unstable();
    // QUIC stands beside TCP on the same port.
    let starts = [
        "/ip4/127.0.0.1/tcp/",
        "/ip4/127.0.0.1/udp/",
        "/ip4/127.0.0.2/tcp/",
        "/ip4/127.0.0.2/udp/",
    ];
    assert_eq!(addresses.len(), starts.len(), "{addresses:?}");
    for (address, start) in addresses.iter().zip(starts) {
        assert!(address.starts_with(start), "{address}");
        assert!(
            address.ends_with(&format!("/p2p/{peer}")) && !address.contains("/tcp/0/"),
            "{address}"
        );
    }
}

#[test]
fn json_peer_says_who_came_how_and_why_it_went() {
    let _turn = turn();
    let place = Place::new();
    let (mut seeder, link) = seed(
        &place,
        "home",
        &place.file("data.bin", 8 * MIB),
        &["--up", "1M"],
    );
    let peer = peer_of(&mut seeder);
    let mut fetcher = fetch(
        &place,
        "home",
        &link,
        &place.path("out"),
        &["--stall-timeout", "3s"],
    );
    let connected = fetcher.wait_for_type("peer");
    assert_eq!(
        (&connected["state"], &connected["via"]),
        (&"connected".into(), &"local".into())
    );
    assert_eq!(
        (&connected["peer"], &connected["reason"]),
        (&peer.as_str().into(), &Value::Null)
    );
    fetcher.wait_for_part(0.05);
    seeder.kill();
    let (_, lost) = fetcher.wait_for("loss", |line| line["state"] == "lost");
    assert_eq!(
        (&lost["peer"], &lost["addr"]),
        (&connected["peer"], &connected["addr"])
    );
    assert!(!lost["reason"].as_str().unwrap().is_empty(), "{lost}");
}

#[test]
fn json_progress_comes_every_second_and_only_grows_to_the_total() {
    let _turn = turn();
    let place = Place::new();
    let len = 8 * MIB;
    let (_seeder, link) = seed(
        &place,
        "home",
        &place.file("data.bin", len),
        &["--up", "2M"],
    );
    let mut fetcher = fetch(
        &place,
        "home",
        &link,
        &place.path("out"),
        &["--linger", "0"],
    );
    assert_eq!(fetcher.wait(), 0);
    let lines = fetcher.all("progress");
    let gap_max = lines
        .windows(2)
        .map(|pair| number(pair[1], "ts") - number(pair[0], "ts"))
        .fold(0.0, f64::max);
    assert!(gap_max <= 1.0, "{gap_max} s between two lines");
    let fetching: Vec<_> = lines
        .iter()
        .filter(|line| line["phase"] == "fetch")
        .collect();
    assert!(fetching.len() >= 4, "{lines:#?}");
    let has = |field: &str| {
        fetching
            .iter()
            .any(|line| line[field].as_f64().is_some_and(|number| number > 0.0))
    };
    for field in ["down_per_sec", "peers", "availability", "eta_secs"] {
        assert!(has(field), "never {field}: {fetching:#?}");
    }
    assert!(
        lines
            .windows(2)
            .all(|pair| number(pair[0], "bytes") <= number(pair[1], "bytes")),
        "{lines:#?}"
    );
    let last = lines.last().unwrap();
    assert_eq!((&last["bytes"], &last["total"]), (&len.into(), &len.into()));
}

#[test]
fn json_progress_counts_what_earlier_runs_stored() {
    let _turn = turn();
    let place = Place::new();
    let (_seeder, link) = seed(
        &place,
        "home",
        &place.file("data.bin", 8 * MIB),
        &["--up", "2M"],
    );
    let out = place.path("out");
    let mut fetcher = fetch(&place, "home", &link, &out, &[]);
    fetcher.wait_for_part(0.5);
    fetcher.kill();
    let mut again = fetch(&place, "home", &link, &out, &["--linger", "0"]);
    let (_, line) = again.wait_for("progress", |line| {
        line["type"] == "progress" && line["phase"] == "fetch"
    });
    assert!(number(&line, "bytes") >= 4.0 * MIB as f64, "{line}");
    assert_eq!(again.wait(), 0);
    let done = again.wait_for_type("done");
    assert_eq!(done["bytes"], 8 * MIB, "of the share, not of this run");
    assert!(number(&done, "downloaded") <= 4.0 * MIB as f64, "{done}");
}

#[test]
fn json_done_says_what_was_written_and_what_it_took() {
    let _turn = turn();
    let place = Place::new();
    let (_seeder, link) = seed(&place, "home", &place.file("data.bin", 3 * MIB), &[]);
    let mut fetcher = fetch(
        &place,
        "home",
        &link,
        &place.path("out"),
        &["--linger", "0"],
    );
    assert_eq!(fetcher.wait(), 0);
    let done = fetcher.wait_for_type("done");
    let path = place.path("out/data.bin");
    assert_eq!(done["path"], path.to_str().unwrap());
    assert_eq!(
        (&done["bytes"], &done["downloaded"]),
        (&(3 * MIB).into(), &(3 * MIB).into())
    );
    assert_eq!(
        (&done["wasted"], &done["uploaded"], &done["peers"]),
        (&0.into(), &0.into(), &1.into())
    );
    assert!(number(&done, "secs") > 0.0);
    assert_eq!(fetcher.all("done").len(), 1);
}

#[test]
fn json_stalled_says_why_and_json_error_has_the_code_of_the_process() {
    let _turn = turn();
    let place = Place::new();
    let (mut seeder, link) = seed(
        &place,
        "home",
        &place.file("data.bin", 8 * MIB),
        &["--up", "1M"],
    );
    let mut fetcher = fetch(
        &place,
        "home",
        &link,
        &place.path("out"),
        &["--stall-timeout", "4s"],
    );
    fetcher.wait_for_part(0.1);
    seeder.kill();
    let stalled = fetcher.wait_for_type("stalled");
    assert!(number(&stalled, "missing") >= 1.0, "{stalled}");
    assert_eq!(fetcher.wait(), 4);
    let error = fetcher.wait_for_type("error");
    assert_eq!(error["code"], 4);
    assert!(
        error["hint"].as_str().unwrap().contains("to resume"),
        "{error}"
    );
    assert_eq!(
        fetcher.seen.last().unwrap().1["type"],
        "error",
        "the last line"
    );
    check_lines(&fetcher);
}

#[test]
fn exit_0_for_any_signal_after_completion() {
    let _turn = turn();
    let place = Place::new();
    let (_seeder, link) = seed(&place, "home", &place.file("data.bin", MIB), &[]);
    for signal in ["INT", "TERM"] {
        let mut fetcher = fetch(&place, "home", &link, &place.path(signal), &["--seed"]);
        fetcher.wait_for_type("done");
        fetcher.signal(signal);
        assert_eq!(fetcher.wait(), 0, "{signal}");
        assert_eq!(fetcher.wait_for_type("stopped")["reason"], "signal");
    }
}

#[test]
fn exit_1_when_the_process_cannot_work_at_all() {
    let _turn = turn();
    let place = Place::new();
    let mut limited = std::process::Command::new("prlimit");
    limited.args(["--nofile=4", "--"]);
    let outcome = place
        .shoal_through(limited, "home")
        .args(&["node"])
        .local()
        .run();
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(
        outcome.stderr.starts_with("error: cannot start: "),
        "{outcome:?}"
    );
    assert_eq!(outcome.stdout, "");
}

/// Whether a thread of the process waits for room in a pipe, as Linux shows it.
fn is_stuck_in_a_pipe(process: &std::process::Child) -> bool {
    let threads = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    // A thread may end meanwhile.
    let waits =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("wchan")).ok());
    let mut stuck = waits.filter(|function| function.ends_with("pipe_write"));
    stuck.next().is_some()
}

#[test]
fn exit_130_at_once_on_the_second_signal_whatever_the_process_is_stuck_in() {
    use std::io::Write;
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", MIB);
    // A stdout that takes nothing: printing the link never ends.
    let (_reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[0; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let shoal = place.shoal("home").arg("seed").arg(&file).local();
    let mut process = shoal.spawn_into(writer);
    let until = Instant::now() + PATIENCE;
    while !is_stuck_in_a_pipe(&process) {
        assert!(Instant::now() < until, "nothing was printed");
        pause();
    }
    let id = rustix::process::Pid::from_child(&process);
    let int = || {
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    };
    int();
    let first = Instant::now();
    while first.elapsed() < Duration::from_millis(500) {
        pause();
    }
    assert!(
        process.try_wait().unwrap().is_none(),
        "one signal leaves up to 2 s"
    );
    int();
    let second = Instant::now();
    assert_eq!(process.wait().unwrap().code(), Some(130));
    assert!(
        second.elapsed() < Duration::from_secs(1),
        "{:?}",
        second.elapsed()
    );
}

#[test]
fn exit_2_for_equal_base_names() {
    let place = Place::new();
    let (one, two) = (place.file("a/data", 1), place.file("b/data", 1));
    let outcome = place.shoal("home").arg("link").arg(one).arg(two).run();
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (2, ""),
        "{outcome:?}"
    );
    assert!(
        outcome.stderr.starts_with("error: ") && outcome.stderr.contains("hint: "),
        "{outcome:?}"
    );
}

#[test]
fn exit_3_is_told_as_json_too() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 1_000);
    let link = place.shoal("home").arg("link").arg(&file).run().stdout;
    let mut fetcher = fetch(
        &place,
        "home",
        link.trim(),
        &place.path("out"),
        &["--timeout", "1s"],
    );
    assert_eq!(fetcher.wait(), 3);
    assert_eq!(fetcher.wait_for_type("error")["code"], 3);
    check_lines(&fetcher);
}

#[test]
fn exit_6_for_a_trace_that_cannot_be_written() {
    let place = Place::new();
    let file = place.file("data.bin", 1_000);
    let link = place.shoal("home").arg("link").arg(&file).run().stdout;
    let args = [
        "fetch",
        link.trim(),
        "-d",
        "out",
        "--trace",
        "no/such/folder/trace",
    ];
    let outcome = place.shoal("home").args(&args).local().run();
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (6, ""),
        "{outcome:?}"
    );
}

#[test]
fn exit_7_for_the_second_fetch_into_one_target() {
    let _turn = turn();
    let place = Place::new();
    let (_seeder, link) = seed(
        &place,
        "home",
        &place.file("data.bin", 8 * MIB),
        &["--up", "1M"],
    );
    let out = place.path("out");
    let mut first = fetch(&place, "home", &link, &out, &[]);
    first.wait_for_part(0.05);
    let mut second = fetch(&place, "home", &link, &out, &[]);
    assert_eq!(second.wait(), 7);
    assert_eq!(second.wait_for_type("error")["code"], 7);
    first.wait_for_part(0.2);
}

#[test]
fn flag_version_says_name_and_number_and_help_goes_to_stdout() {
    let place = Place::new();
    let version = place.shoal("home").arg("--version").run();
    let expected = format!("shoal {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((version.code, version.stdout), (0, expected));
    for args in [
        &["--help"][..],
        &["fetch", "--help"],
        &["config", "show", "--help"],
    ] {
        let help = place.shoal("home").args(args).run();
        assert_eq!((help.code, help.stderr.as_str()), (0, ""), "{args:?}");
        assert!(
            help.stdout.contains("Usage: shoal") && help.stdout.contains("Examples:"),
            "{args:?}"
        );
    }
}

#[test]
fn flag_name_is_the_name_of_the_share_and_of_what_is_fetched() {
    let _turn = turn();
    let place = Place::new();
    let (one, two) = (place.file("a/one", 1_000), place.file("b/two", 2_000));
    let shoal = place
        .shoal("home")
        .arg("seed")
        .arg(&one)
        .arg(&two)
        .args(&["--name", "both"]);
    let mut seeder = shoal.local().spawn_json();
    let link = seeder.link();
    let mut fetcher = fetch(
        &place,
        "home",
        &link,
        &place.path("out"),
        &["--linger", "0"],
    );
    assert_eq!(fetcher.wait(), 0);
    assert_eq!(
        fetcher.wait_for_type("done")["path"],
        place.path("out/both").to_str().unwrap()
    );
    for (name, file) in [("one", one), ("two", two)] {
        assert_same(place.path("out/both").join(name), file);
    }
}

#[test]
fn flag_output_is_the_exact_path_of_the_result() {
    let _turn = turn();
    let place = Place::new();
    let (_seeder, link) = seed(&place, "home", &place.file("data.bin", 1_000), &[]);
    let args = [
        "fetch",
        &link,
        "--linger",
        "0",
        "-d",
        "out",
        "-o",
        "sub/new.bin",
    ];
    let outcome = place.shoal("home").args(&args).local().run();
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (0, "out/sub/new.bin\n"),
        "{outcome:?}"
    );
    assert!(place.path("out/sub/new.bin").is_file() && !place.path("out/data.bin").exists());
}

fn free_port() -> u16 {
    let probe = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    probe.local_addr().unwrap().port()
}

#[test]
fn flag_port_is_the_port_of_the_default_addresses() {
    let _turn = turn();
    let place = Place::new();
    let free = free_port();
    let args = [
        "seed",
        "--no-mdns",
        "--no-dht",
        "--port",
        &free.to_string(),
        "--home",
    ];
    let shoal = place
        .shoal("home")
        .args(&args)
        .arg(place.path("home"))
        .arg(place.file("data.bin", 1_000));
    let mut seeder = shoal.spawn_json();
    seeder.link();
    let all = seeder.all("listening");
    let has_port = |line: &&Value| {
        line["addr"]
            .as_str()
            .unwrap()
            .replace("/udp/", "/tcp/")
            .replace("/quic-v1/", "/")
            .contains(&format!("/tcp/{free}/p2p/"))
    };
    assert!(!all.is_empty() && all.iter().all(has_port), "{all:?}");
}

#[test]
fn flag_listen_takes_tcp_and_quic_together_and_each_alone() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", MIB);
    let tcp = format!("/ip4/127.0.0.1/tcp/{}", free_port());
    let quic = tcp.replace("/tcp/", "/udp/") + "/quic-v1";
    for (number, listen) in [vec![&tcp, &quic], vec![&quic], vec![&tcp]]
        .iter()
        .enumerate()
    {
        let home = place.path(&format!("home-{number}"));
        let mut seeder = place.shoal("unused").arg("seed").arg(&file);
        for address in listen {
            seeder = seeder.args(&["--listen", address]);
        }
        let mut seeder = seeder.args(&["--no-mdns", "--home"]).arg(home).spawn_json();
        let link = seeder.link();
        let told: Vec<_> = seeder.all("listening");
        for address in listen {
            let is_told =
                |line: &&Value| line["addr"].as_str().unwrap().starts_with(address.as_str());
            assert_eq!(
                told.iter().copied().filter(is_told).count(),
                1,
                "{listen:?}: {told:?}"
            );
        }
        let into = place.path(&format!("into-{number}"));
        let mut fetcher = fetch(
            &place,
            &format!("other-{number}"),
            &link,
            &into,
            &["--linger", "0"],
        );
        assert_eq!(fetcher.wait(), 0, "{listen:?}");
        let connected = fetcher.wait_for_type("peer")["addr"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(
            connected.contains("/quic-v1"),
            listen[..] == [&quic],
            "{connected}"
        );
    }
}

#[test]
fn every_flag_has_its_variable_also_from_outside() {
    let _turn = turn();
    let place = Place::new();
    let (_seeder, link) = seed(&place, "home", &place.file("data.bin", 1_000), &[]);
    let shoal = place
        .shoal("home")
        .args(&["fetch", &link])
        .env("SHOAL_HOME", place.path("home"));
    let shoal = shoal
        .env("SHOAL_LISTEN", "/ip4/127.0.0.1/tcp/0")
        .env("SHOAL_NO_MDNS", "1");
    let outcome = shoal
        .env("SHOAL_LINGER", "0")
        .env("SHOAL_OUTPUT", "x.bin")
        .env("SHOAL_QUIET", "1")
        .run();
    assert_eq!(
        (
            outcome.code,
            outcome.stdout.as_str(),
            outcome.stderr.as_str()
        ),
        (0, "x.bin\n", "")
    );
}

/// A seed that ends by itself, run to its end with these flags.
fn seed_for_a_second(place: &Place, flags: &[&str]) -> Outcome {
    let file = place.file("data.bin", MIB);
    let shoal = place
        .shoal("home")
        .arg("seed")
        .arg(file)
        .args(&["--for", "1s"]);
    shoal.local().args(flags).run()
}

#[test]
fn streams_a_seed_prints_its_link_on_one_line_and_talks_on_stderr() {
    let _turn = turn();
    let place = Place::new();
    let outcome = seed_for_a_second(&place, &[]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(outcome.stdout.lines().count(), 1, "{outcome:?}");
    assert!(outcome.stdout.starts_with("shoal:") && outcome.stdout.ends_with('\n'));
    assert!(
        outcome.stderr.contains("data.bin: 1.0 MiB in 1 file"),
        "{outcome:?}"
    );
    assert!(outcome.stderr.contains("time is up"), "{outcome:?}");
}

#[test]
fn streams_quiet_says_nothing_but_the_result() {
    let _turn = turn();
    let place = Place::new();
    let outcome = seed_for_a_second(&place, &["-q"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    assert!(outcome.stdout.starts_with("shoal:"));
    let refused = place.shoal("home").args(&["link", "-q", "not-there"]).run();
    assert!(
        refused.stderr.starts_with("error: "),
        "errors are said to everybody: {refused:?}"
    );
}

/// A fetch of a few seconds, run to its end.
fn slow_fetch(place: &Place, into: &str, flags: &[&str]) -> Outcome {
    let (_seeder, link) = seed(
        place,
        "home",
        &place.file("data.bin", 5 * MIB),
        &["--up", "1200k"],
    );
    let shoal = place
        .shoal("home")
        .args(&["fetch", &link, "--linger", "0", "-d", into]);
    shoal.local().args(flags).run()
}

#[test]
fn streams_without_a_terminal_progress_is_a_plain_line_every_few_seconds_and_none_on_request() {
    let _turn = turn();
    let place = Place::new();
    let is_progress = |line: &&str| line.starts_with("fetch data.bin: ") && line.contains('%');
    let spoken = slow_fetch(&place, "a", &[]);
    assert_eq!(
        (spoken.code, spoken.stdout.as_str()),
        (0, "a/data.bin\n"),
        "{spoken:?}"
    );
    let count = spoken.stderr.lines().filter(is_progress).count();
    assert!(
        (1..=4).contains(&count),
        "{count} in some 4 s: {}",
        spoken.stderr
    );
    assert!(!spoken.stderr.contains('\u{1b}'), "{spoken:?}");
    let silent = slow_fetch(&place, "b", &["--no-progress"]);
    assert_eq!(
        (
            silent.code,
            silent.stderr.lines().filter(is_progress).count()
        ),
        (0, 0),
        "{silent:?}"
    );
    assert!(
        silent.stderr.contains("done: "),
        "events are still told: {silent:?}"
    );
}

#[test]
fn streams_colour_is_for_terminals_or_on_request() {
    let place = Place::new();
    let stderr = |flags: &[&str]| {
        place
            .shoal("home")
            .args(&["link", "not-there"])
            .args(flags)
            .run()
            .stderr
    };
    assert!(!stderr(&[]).contains('\u{1b}'));
    assert!(stderr(&["--color", "always"]).contains("\u{1b}["));
    assert!(!stderr(&["--color", "never"]).contains('\u{1b}'));
}

#[test]
fn streams_a_closed_pipe_is_no_error() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", MIB);
    for args in [
        &["link", "data.bin"][..],
        &["link", "data.bin", "--json"],
        &["config", "show"],
        &["completions", "zsh"],
        &["man"],
        &["--help"],
        &["--version"],
    ] {
        let outcome = place.shoal("home").args(args).run_unheard(Unheard::Stdout);
        assert_eq!(
            (outcome.code, outcome.stderr.contains("panicked")),
            (0, false),
            "{args:?}: {outcome:?}"
        );
    }
    let (_seeder, link) = seed(&place, "home", &file, &[]);
    for (unheard, into) in [(Unheard::Stdout, "a"), (Unheard::Stderr, "b")] {
        let shoal = place
            .shoal("home")
            .args(&["fetch", &link, "--linger", "0", "-d", into]);
        let outcome = shoal.local().run_unheard(unheard);
        assert_eq!(outcome.code, 0, "{unheard:?}: {outcome:?}");
        assert_same(place.path(into).join("data.bin"), &file);
    }
}
