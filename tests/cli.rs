//! The command line as scripts see it: exit codes, one error line with a hint, nothing left behind.

use std::fs;
use std::path::Path;

use crate::support::{Outcome, Place, assert_same, turn};

const MIB: usize = 1 << 20;

/// One `error:` line, at most one `hint:` line, nothing on stdout.
#[track_caller]
fn check_failure(outcome: &Outcome, code: i32) {
    assert_eq!(outcome.code, code, "{outcome:?}");
    assert_eq!(outcome.stdout, "", "stdout is for results: {outcome:?}");
    let count = |start: &str| {
        outcome
            .stderr
            .lines()
            .filter(|line| line.starts_with(start))
            .count()
    };
    assert_eq!(count("error:"), 1, "{}", outcome.stderr);
    assert!(count("hint:") <= 1, "{}", outcome.stderr);
}

#[track_caller]
fn check_hint(outcome: &Outcome) {
    assert!(
        outcome.stderr.lines().any(|line| line.starts_with("hint:")),
        "{}",
        outcome.stderr
    );
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

/// A link of a file that nobody seeds.
fn link_of(place: &Place, file: &Path) -> String {
    let outcome = place.shoal("home").arg("link").arg(file).run();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(outcome.stdout.lines().count(), 1, "{outcome:?}");
    outcome.stdout.trim().to_owned()
}

#[test]
fn a_link_is_made_offline_and_depends_on_content_and_name_alone() {
    let place = Place::new();
    let file = place.file("a/data.bin", 3 * MIB);
    fs::create_dir_all(place.path("b")).unwrap();
    fs::copy(&file, place.path("b/data.bin")).unwrap();
    let link = link_of(&place, &file);
    assert!(link.starts_with("shoal:"), "{link}");
    assert_eq!(link, link_of(&place, &place.path("b/data.bin")));
    fs::write(&file, b"changed").unwrap();
    assert_ne!(link, link_of(&place, &file));
}

#[test]
fn a_broken_link_is_a_usage_error() {
    let place = Place::new();
    let file = place.file("data.bin", 1_000);
    let link = link_of(&place, &file);
    let mut typo = link.clone().into_bytes();
    typo[20] = if typo[20] == b'a' { b'b' } else { b'a' };
    let typo = String::from_utf8(typo).unwrap();
    for broken in [
        "shoal:",
        "shoal:nonsense",
        "https://example.org",
        &typo,
        &link[..link.len() - 3],
    ] {
        let out = place.folder("out");
        let outcome = place
            .shoal("home")
            .args(&["fetch", broken, "--dir"])
            .arg(&out)
            .local()
            .run();
        check_failure(&outcome, 2);
        check_hint(&outcome);
        assert!(is_empty(&out));
    }
}

#[test]
fn a_missing_source_is_an_io_error() {
    let place = Place::new();
    for verb in ["seed", "link"] {
        let shoal = place.shoal("home").args(&[verb, "not-there"]);
        let outcome = if verb == "seed" {
            shoal.local().run()
        } else {
            shoal.run()
        };
        check_failure(&outcome, 6);
        check_hint(&outcome);
    }
}

#[test]
fn a_target_that_is_no_writable_folder_is_an_io_error() {
    let place = Place::new();
    let file = place.file("data.bin", 1_000);
    let link = link_of(&place, &file);
    // Root may write anywhere by its permissions; proc refuses everybody, a file is no folder for anybody.
    for dir in [Path::new("/proc/sys"), file.as_path()] {
        let outcome = place
            .shoal("home")
            .args(&["fetch", &link, "--dir"])
            .arg(dir)
            .local()
            .run();
        check_failure(&outcome, 6);
        check_hint(&outcome);
    }
}

#[test]
fn a_target_that_exists_and_differs_is_left_alone_unless_told() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 3 * MIB);
    let mut seeder = place
        .shoal("home")
        .arg("seed")
        .arg(&file)
        .local()
        .spawn_json();
    let link = seeder.link();
    let out = place.folder("out");
    let fetch = |flags: &[&str]| {
        let shoal = place
            .shoal("home")
            .args(&["fetch", &link, "--linger", "0", "--dir"])
            .arg(&out);
        shoal.local().args(flags).run()
    };
    for other in [b"something else".to_vec(), vec![7; 3 * MIB]] {
        fs::write(out.join("data.bin"), &other).unwrap();
        let outcome = fetch(&[]);
        check_failure(&outcome, 7);
        check_hint(&outcome);
        assert_eq!(
            fs::read(out.join("data.bin")).unwrap(),
            other,
            "never over your files"
        );
        assert_eq!(
            fs::read_dir(&out).unwrap().count(),
            1,
            "nothing left behind"
        );
    }
    let outcome = fetch(&["--overwrite"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_same(out.join("data.bin"), &file);
    // An identical target is adopted.
    let outcome = fetch(&[]);
    assert_eq!(
        (outcome.code, outcome.stdout.lines().count()),
        (0, 1),
        "{outcome:?}"
    );
}

#[test]
fn a_share_without_peers_is_not_found_and_the_error_says_what_was_tried() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", MIB);
    // A seeder that is gone: its link has an address where nobody listens.
    let link = {
        let mut seeder = place
            .shoal("home-s")
            .arg("seed")
            .arg(&file)
            .local()
            .spawn_json();
        seeder.link()
    };
    let out = place.folder("out");
    let fetch = place
        .shoal("home")
        .args(&["fetch", &link, "--timeout", "3s", "--dir"])
        .arg(&out);
    let outcome = fetch.local().run();
    check_failure(&outcome, 3);
    check_hint(&outcome);
    assert!(
        outcome.stderr.contains("/ip4/127.0.0.1/tcp/"),
        "{}",
        outcome.stderr
    );
    assert!(outcome.stderr.contains("refused"), "{}", outcome.stderr);
    assert!(is_empty(&out), "nothing left behind");
}

#[test]
fn unknown_flags_and_verbs_are_usage_errors() {
    let place = Place::new();
    for args in [
        &["fetch"][..],
        &["swim"],
        &["seed", "--no-such-flag", "x"],
        &["seed", "--up", "fast", "x"],
    ] {
        let outcome = place.shoal("home").args(args).run();
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (2, ""),
            "{args:?}: {outcome:?}"
        );
    }
}

#[test]
fn errors_are_objects_for_scripts_too() {
    let place = Place::new();
    let outcome = place
        .shoal("home")
        .args(&["link", "not-there", "--json"])
        .run();
    assert_eq!(outcome.code, 6);
    let line: serde_json::Value =
        serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(
        (
            line["v"].as_i64(),
            line["type"].as_str(),
            line["code"].as_i64()
        ),
        (Some(1), Some("error"), Some(6))
    );
    assert!(line["message"].as_str().unwrap().contains("not-there"));
    assert!(line["ts"].as_f64().unwrap() > 1e9);
}
