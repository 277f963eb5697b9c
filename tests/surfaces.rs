//! What is around the main job: settings, completions, the manual, stop rules, limits, the trace.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::lines::Schema;
use crate::support::{Outcome, Place, Process, fetch, peer_of, seed, skip, turn};

const MIB: usize = 1 << 20;

/// The settings file of a place.
fn settings(place: &Place, text: &str) {
    let folder = place.folder("config/shoal");
    fs::write(folder.join("config.toml"), text).unwrap();
}

fn set_up(place: &Place, args: &[&str], variables: &[(&str, &str)]) -> Outcome {
    let shoal = place
        .shoal("home")
        .env("XDG_CONFIG_HOME", place.path("config"))
        .args(args);
    let shoal = variables
        .iter()
        .fold(shoal, |shoal, (name, value)| shoal.env(name, value));
    shoal.run()
}

#[test]
fn config_show_names_each_value_and_where_it_comes_from() {
    let place = Place::new();
    settings(
        &place,
        "up = \"1M\"\ndown = \"2M\"\nlinger = \"3s\"\nno-mdns = true\n",
    );
    let variables = [("SHOAL_DOWN", "4M"), ("SHOAL_LINGER", "5s")];
    let outcome = set_up(&place, &["config", "show", "--linger", "6s"], &variables);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    for (start, end) in [
        ("up = \"1M\" ", "# file"),
        ("down = \"4M\" ", "# variable SHOAL_DOWN"),
        ("linger = \"6s\" ", "# flag"),
        ("no-mdns = true ", "# file"),
        ("timeout = \"60s\" ", "# default"),
        ("# home = ", "# default"),
    ] {
        let found = outcome
            .stdout
            .lines()
            .any(|line| line.starts_with(start) && line.ends_with(end));
        assert!(found, "no `{start}` from `{end}`: {}", outcome.stdout);
    }
    let outcome = set_up(&place, &["config", "show", "--json"], &variables);
    let schema = Schema::committed();
    let lines: Vec<Value> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    lines.iter().for_each(|line| schema.check(line));
    let down = lines.iter().find(|line| line["key"] == "down").unwrap();
    assert_eq!(
        (&down["value"], &down["source"]),
        (&"4M".into(), &"variable".into())
    );
}

#[test]
fn the_settings_file_reaches_the_command_and_what_is_wrong_in_it_is_named() {
    let place = Place::new();
    let file = place.file("data.bin", 1_000);
    let file = file.to_str().unwrap();
    settings(&place, "json = true\nname = \"other\"\n");
    let outcome = set_up(&place, &["link", file], &[]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let line: Value = serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap();
    let by_flag = set_up(
        &place,
        &["link", file, "--name", "other"],
        &[("SHOAL_JSON", "0")],
    );
    assert_eq!(
        by_flag.stdout.trim(),
        line["link"],
        "the variable comes before the file"
    );

    settings(&place, "upp = \"1M\"\n");
    let path = place.path("config/shoal/config.toml");
    for args in [&["link", file][..], &["config", "show"]] {
        let outcome = set_up(&place, args, &[]);
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (2, ""),
            "{outcome:?}"
        );
        let first = outcome.stderr.lines().next().unwrap();
        assert_eq!(
            first,
            format!("error: unknown key `upp` in `{}`", path.display())
        );
    }
    // What a broken file must not take away.
    for args in [
        &["--help"][..],
        &["--version"],
        &["completions", "bash"],
        &["man"],
        &["fetch", "--help"],
    ] {
        assert_eq!(set_up(&place, args, &[]).code, 0, "{args:?}");
    }
}

/// Runs `script` in `shell` with the folder of the binary in its path; `None` when there is no such shell.
fn in_shell(shell: &str, flags: &[&str], script: &str) -> Option<String> {
    let folder = Path::new(env!("CARGO_BIN_EXE_shoal")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(folder.to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(shell)
        .args(flags)
        .args(["-c", script])
        .env("PATH", path.unwrap())
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .env("XDG_DATA_HOME", home.path())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{shell}: {error}"),
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stderr.is_empty(),
        "{shell}: {stderr}"
    );
    Some(String::from_utf8(output.stdout).unwrap())
}

/// Loads the completions and asks for those of a line that begins `shoal fetch --over`.
fn check_completions(shell: &str, flags: &[&str], script: &str) {
    match in_shell(shell, flags, script) {
        Some(found) => assert!(found.contains("--overwrite"), "{shell}: {found}"),
        None => skip(
            &format!("completions_load_in_{shell}"),
            &format!("{shell} is not installed"),
        ),
    }
}

#[test]
fn completions_load_in_bash() {
    let script = "source <(shoal completions bash) && complete -p shoal >/dev/null && \
        COMP_WORDS=(shoal fetch --over) COMP_CWORD=2 && _shoal shoal --over fetch && echo \"${COMPREPLY[@]}\"";
    check_completions("bash", &["--norc", "--noprofile"], script);
}

#[test]
fn completions_load_in_zsh() {
    // What completes cannot be asked outside of the line editor: loaded, registered, and it knows the flag.
    let script = "autoload -Uz compinit && compinit -D -u && source <(shoal completions zsh) && \
        [[ $_comps[shoal] == _shoal ]] && functions _shoal | grep -o -m1 -e --overwrite";
    check_completions("zsh", &["-f"], script);
}

#[test]
fn completions_load_in_fish() {
    let script = "shoal completions fish | source; complete -C 'shoal fetch --over'";
    check_completions("fish", &["--no-config"], script);
}

#[test]
fn the_manual_renders_without_a_complaint_and_has_every_command() {
    let place = Place::new();
    let pages = place.shoal("home").arg("man").run();
    assert_eq!((pages.code, pages.stderr.as_str()), (0, ""));
    for title in [
        "shoal ",
        "shoal-seed ",
        "shoal-fetch ",
        "shoal-link ",
        "shoal-config-show ",
    ] {
        assert!(pages.stdout.contains(&format!(".TH {title}1")), "{title}");
    }
    let file = place.path("shoal.1");
    fs::write(&file, &pages.stdout).unwrap();
    let Ok(rendered) = Command::new("man")
        .args(["--warnings=all", "-l"])
        .arg(&file)
        .env("MANWIDTH", "100")
        .output()
    else {
        return skip(
            "the_manual_renders_without_a_complaint_and_has_every_command",
            "man is not installed",
        );
    };
    if !rendered.status.success() {
        return skip(
            "the_manual_renders_without_a_complaint_and_has_every_command",
            "man cannot render here",
        );
    }
    let text = String::from_utf8_lossy(&rendered.stdout);
    let (complaints, examples) = (
        String::from_utf8_lossy(&rendered.stderr),
        "shoal fetch LINK --seed --ratio 2",
    );
    assert!(
        text.contains(examples) && text.contains("EXAMPLES"),
        "{text}"
    );
    assert_eq!(complaints, "");
}

/// Waits for the end and gives the `stopped` line.
#[track_caller]
fn stopped(process: &mut Process) -> Value {
    assert_eq!(process.wait(), 0, "{:?}", process.seen.last());
    process.wait_for_type("stopped")
}

#[test]
fn a_seed_stops_when_its_time_is_up() {
    let _turn = turn();
    let place = Place::new();
    let (mut seeder, _) = seed(
        &place,
        "home",
        &place.file("data.bin", MIB),
        &["--for", "1s", "--ratio", "9"],
    );
    let started = Instant::now();
    let line = stopped(&mut seeder);
    assert_eq!(
        (&line["reason"], &line["uploaded"]),
        (&"time".into(), &0.into())
    );
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn a_seed_stops_at_its_ratio() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 2 * MIB);
    let (mut seeder, link) = seed(&place, "home", &file, &["--ratio", "1", "--for", "1h"]);
    let mut fetcher = fetch(
        &place,
        "home",
        &link,
        &place.path("out"),
        &["--linger", "0"],
    );
    let line = stopped(&mut seeder);
    assert_eq!(line["reason"], "ratio");
    assert!(
        line["uploaded"].as_u64().unwrap() >= 2 * MIB as u64,
        "{line}"
    );
    assert_eq!(fetcher.wait(), 0, "what was sent has arrived");
}

#[test]
fn a_seed_stops_when_so_many_others_have_everything() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", MIB);
    let flags = ["--until-copies", "6", "--for", "1h"];
    let (mut seeder, link) = seed(&place, "home", &file, &flags);
    // Homes of their own: who takes the identity of one that left is the same peer again, and were it counted twice, the
    // last would find nobody. None stays for a moment, so that they are complete is the last thing they say.
    for home in ["a", "a", "b", "c", "d", "e", "f"] {
        let into = place.path(&format!("out-{home}"));
        let _ = fs::remove_dir_all(&into);
        let mut fetcher = fetch(&place, home, &link, &into, &["--linger", "0"]);
        assert_eq!(fetcher.wait(), 0);
    }
    assert_eq!(stopped(&mut seeder)["reason"], "copies");
}

#[test]
fn a_fetch_that_stays_takes_the_same_rules() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", MIB);
    let (_seeder, link) = seed(&place, "home", &file, &[]);
    let mut fetcher = fetch(
        &place,
        "home",
        &link,
        &place.path("out"),
        &["--seed", "--for", "2s"],
    );
    fetcher.wait_for_type("done");
    let since = Instant::now();
    assert_eq!(stopped(&mut fetcher)["reason"], "time");
    assert!(
        since.elapsed() > Duration::from_secs(1),
        "it stayed: {:?}",
        since.elapsed()
    );
}

#[test]
fn a_complete_fetch_serves_on_while_somebody_pulls_but_no_longer_than_it_may() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 8 * MIB);
    let (mut seeder, link) = seed(&place, "home", &file, &[]);
    let mut slow = fetch(
        &place,
        "home",
        &link,
        &place.path("slow"),
        &["--down", "300k"],
    );
    slow.wait_for_part(0.01);
    let mut fetcher = fetch(
        &place,
        "home",
        &link,
        &place.path("out"),
        &["--linger", "3s"],
    );
    fetcher.wait_for_type("done");
    let since = Instant::now();
    // From here on there is nobody else to pull from.
    seeder.kill();
    let line = stopped(&mut fetcher);
    assert_eq!(line["reason"], "linger");
    assert!(line["uploaded"].as_u64().unwrap() > 0, "{line}");
    let served = since.elapsed();
    assert!(
        served > Duration::from_secs(2) && served < Duration::from_secs(6),
        "{served:?}"
    );
}

#[test]
fn a_complete_fetch_that_nobody_pulls_from_leaves_at_once() {
    let _turn = turn();
    let place = Place::new();
    let (_seeder, link) = seed(&place, "home", &place.file("data.bin", MIB), &[]);
    let mut fetcher = fetch(
        &place,
        "home",
        &link,
        &place.path("out"),
        &["--linger", "30s"],
    );
    fetcher.wait_for_type("done");
    let since = Instant::now();
    assert_eq!(stopped(&mut fetcher)["reason"], "idle");
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
}

/// Piece bytes of a trace from each peer in `window` seconds from `begin`.
fn given(trace: &[Value], begin: f64, window: f64) -> BTreeMap<String, u64> {
    let mut given = BTreeMap::new();
    for line in trace.iter().filter(|line| line["type"] == "piece") {
        let at = line["ts"].as_f64().unwrap() - begin;
        if (0.0..window).contains(&at) {
            let peer = line["peer"].as_str().unwrap().to_owned();
            *given.entry(peer).or_default() += line["bytes"].as_u64().unwrap();
        }
    }
    given
}

fn trace_of(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn the_trace_adds_up_to_the_share_and_has_every_reroute() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 12 * MIB);
    let (mut first, link) = seed(&place, "home", &file, &["--up", "2M"]);
    let (mut second, _) = seed(&place, "home", &file, &["--up", "2M"]);
    let (kept, victim) = (peer_of(&mut first), peer_of(&mut second));
    let path = place.path("trace.ndjson");
    let flags = ["--linger", "0", "--trace", path.to_str().unwrap()];
    let mut fetcher = fetch(&place, "home", &link, &place.path("out"), &flags);
    fetcher.wait_for("both seeders", |line| {
        line["type"] == "peer" && line["peer"] == *victim
    });
    fetcher.wait_for_part(0.3);
    second.kill();
    assert_eq!(fetcher.wait(), 0);
    let trace = trace_of(&path);
    let schema = Schema::committed();
    trace.iter().for_each(|line| schema.check(line));

    let share = first.wait_for_type("link");
    let pieces: Vec<_> = trace
        .iter()
        .filter(|line| line["type"] == "piece")
        .collect();
    let indices: BTreeSet<_> = pieces
        .iter()
        .map(|line| line["piece"].as_u64().unwrap())
        .collect();
    assert_eq!(
        (pieces.len(), indices.len() as u64),
        (indices.len(), share["pieces"].as_u64().unwrap())
    );
    let given = given(&trace, 0.0, f64::INFINITY);
    assert_eq!(
        given.values().sum::<u64>(),
        share["bytes"].as_u64().unwrap()
    );
    assert_eq!(
        given.keys().collect::<BTreeSet<_>>(),
        BTreeSet::from([&kept, &victim])
    );
    let is_moved = |line: &Value| {
        line["type"] == "reroute" && line["peer"] == *victim && line["cause"] == "closed"
    };
    let reroute = trace
        .iter()
        .find(|line| is_moved(line))
        .expect("a reroute in the trace");
    assert_eq!(reroute["to"], serde_json::json!([kept]));
    let at = reroute["ts"].as_f64().unwrap();
    let late = pieces
        .iter()
        .find(|line| line["peer"] == *victim && line["ts"].as_f64().unwrap() > at + 1.0);
    assert_eq!(late, None, "nothing comes from the dead");
}

/// Where a limit is looked at: after what it saved up and the first windows, and for this long.
const LIMIT_SETTLES_SECS: f64 = 1.0;
const LIMIT_WINDOW_SECS: f64 = 5.0;

/// A machine that is busy with something else may be too slow for a limit; it is looked at so often.
const LIMIT_TRIES: usize = 3;

/// Measures until a window is full to within 5 %; none may hold more.
#[track_caller]
fn check_rate(what: &str, rate: u64, mut measured: impl FnMut(usize) -> u64) {
    let expected = rate as f64 * LIMIT_WINDOW_SECS;
    let mut seen = Vec::new();
    for attempt in 0..LIMIT_TRIES {
        let part = measured(attempt) as f64 / expected;
        assert!(part <= 1.05, "{what}: {part:.3} of what is allowed");
        if part >= 0.95 {
            return;
        }
        seen.push(part);
    }
    panic!("{what}: never more than {seen:.3?} of what is allowed");
}

/// The first moment at which every trace has a piece.
fn begin_of(traces: &[Vec<Value>]) -> f64 {
    let first = |trace: &Vec<Value>| {
        trace.iter().find(|line| line["type"] == "piece").unwrap()["ts"]
            .as_f64()
            .unwrap()
    };
    traces.iter().map(first).fold(0.0, f64::max) + LIMIT_SETTLES_SECS
}

/// The traces of fetchers that are stopped after the window.
fn run_for_window(fetchers: &mut [(Process, std::path::PathBuf)]) -> Vec<Vec<Value>> {
    let window = Duration::from_secs_f64(LIMIT_SETTLES_SECS + LIMIT_WINDOW_SECS + 1.0);
    for (fetcher, _) in fetchers.iter_mut() {
        fetcher.wait_for("a first byte", |line| {
            line["bytes"].as_u64().is_some_and(|bytes| bytes > 0)
        });
    }
    let until = Instant::now() + window;
    for (fetcher, _) in fetchers.iter_mut() {
        fetcher.wait_for_new("the end of the window", |_| Instant::now() >= until);
        fetcher.signal("INT");
    }
    fetchers
        .iter_mut()
        .map(|(fetcher, path)| {
            fetcher.wait();
            trace_of(path)
        })
        .collect()
}

fn traced(place: &Place, name: &str, link: &str, flags: &[&str]) -> (Process, std::path::PathBuf) {
    let path = place.path(&format!("{name}.trace"));
    let flags = [flags, &["--trace", path.to_str().unwrap(), "--no-dht"]].concat();
    // A home of its own: it finds nobody but the seeder.
    (
        fetch(
            place,
            &format!("home-{name}"),
            link,
            &place.path(name),
            &flags,
        ),
        path,
    )
}

#[test]
fn up_holds_over_all_peers_and_is_fair_between_them() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 96 * MIB);
    for rate in [1_000_000, 20_000_000] {
        check_rate(&format!("--up {rate}"), rate, |attempt| {
            let text = rate.to_string();
            let (mut seeder, link) = seed(&place, "home", &file, &["--up", &text, "--no-dht"]);
            let from = peer_of(&mut seeder);
            let mut fetchers = ["a", "b"].map(|name| {
                let name = format!("{name}{rate}-{attempt}");
                traced(&place, &name, &link, &["--up", "1k"])
            });
            let traces = run_for_window(&mut fetchers);
            let begin = begin_of(&traces);
            let bytes = [0, 1].map(|at| {
                let mut given = given(&traces[at], begin, LIMIT_WINDOW_SECS);
                given.remove(&from).unwrap_or(0)
            });
            let (less, more) = (bytes[0].min(bytes[1]), bytes[0].max(bytes[1]));
            assert!(
                less as f64 >= 0.8 * more as f64,
                "unfair at {rate}: {bytes:?}"
            );
            less + more
        });
    }
}

/// At 50 kB/s a window of five seconds holds a handful of pieces, so the time between arrivals is measured instead.
#[test]
fn a_rate_of_50_kb_per_second_holds_in_both_directions() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 700 * 1024);
    for (up, down) in [("50k", "1G"), ("1G", "50k")] {
        let (_seeder, link) = seed(&place, "home", &file, &["--up", up, "--no-dht"]);
        let name = format!("slow-{up}");
        let flags = ["--down", down, "--linger", "0"];
        let (mut fetcher, path) = traced(&place, &name, &link, &flags);
        assert_eq!(fetcher.wait(), 0);
        let trace = trace_of(&path);
        let pieces: Vec<_> = trace
            .iter()
            .filter(|line| line["type"] == "piece")
            .collect();
        let at = |line: &Value| line["ts"].as_f64().unwrap();
        let (first, last) = (pieces[0], pieces[pieces.len() - 1]);
        let bytes: u64 = pieces[1..]
            .iter()
            .map(|line| line["bytes"].as_u64().unwrap())
            .sum();
        let rate = bytes as f64 / (at(last) - at(first));
        assert!(pieces.len() > 5, "{} pieces", pieces.len());
        assert!(
            (47_500.0..=52_500.0).contains(&rate),
            "--up {up} --down {down}: {rate:.0}"
        );
    }
}

#[test]
fn down_holds_over_all_peers() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 140 * MIB);
    let (_first, link) = seed(&place, "home", &file, &[]);
    let (_second, _) = seed(&place, "home", &file, &[]);
    for rate in [1_000_000, 20_000_000] {
        check_rate(&format!("--down {rate}"), rate, |attempt| {
            let path = place.path("down.trace");
            let (text, path_text) = (rate.to_string(), path.to_str().unwrap());
            let flags = ["--down", &text, "--trace", path_text];
            let out = place.path(&format!("out-{rate}-{attempt}"));
            let mut fetchers = [(fetch(&place, "home", &link, &out, &flags), path.clone())];
            let traces = run_for_window(&mut fetchers);
            let given = given(&traces[0], begin_of(&traces), LIMIT_WINDOW_SECS);
            assert_eq!(given.len(), 2, "both give: {given:?}");
            given.values().sum()
        });
    }
}
