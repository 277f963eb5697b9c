//! What can be shared and what cannot, as `seed`, `link` and `ls` say it: names, lengths, folders, other systems.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::support::{Outcome, Place, Shoal, fetch, seed, tree};

/// Lines of stderr that begin like this.
fn lines_of<'a>(outcome: &'a Outcome, start: &str) -> Vec<&'a str> {
    let lines = outcome.stderr.lines();
    lines.filter(|line| line.starts_with(start)).collect()
}

/// A folder with one good name and three that no share can hold.
fn bad_names(place: &Place) -> std::path::PathBuf {
    let folder = place.folder("dir");
    for name in [&b"good"[..], b"caf\xe9", b"na\xefve", b"a\\b"] {
        fs::write(folder.join(OsStr::from_bytes(name)), b"x").unwrap();
    }
    folder
}

#[test]
fn all_names_that_cannot_be_shared_are_told_at_once_with_their_bytes_and_a_hint() {
    let place = Place::new();
    let folder = bad_names(&place);
    for command in ["link", "seed", "ls"] {
        let outcome = place.shoal("home").arg(command).arg(&folder).run();
        assert_eq!(outcome.code, 6, "{outcome:?}");
        assert_eq!(outcome.stdout, "");
        for name in ["caf\\xe9`", "na\\xefve`", "a\\b`"] {
            assert!(outcome.stderr.contains(name), "{}", outcome.stderr);
        }
        let hint = lines_of(&outcome, "hint:").concat();
        assert!(hint.contains("--exclude"), "{hint}");
        assert!(hint.contains("--skip-unshareable"), "{hint}");
    }
    let json = place
        .shoal("home")
        .args(&["link", "--json"])
        .arg(&folder)
        .run();
    let error: serde_json::Value =
        serde_json::from_str(json.stdout.lines().last().unwrap()).unwrap();
    assert!(
        error["message"].as_str().unwrap().contains("na\\xefve"),
        "{error}"
    );
}

#[test]
fn of_several_paths_all_that_cannot_be_shared_are_told_the_first_too() {
    let place = Place::new();
    let folder = bad_names(&place);
    let paths: Vec<_> = [&b"a\\b"[..], b"caf\xe9", b"good", b"missing"]
        .iter()
        .map(|name| folder.join(OsStr::from_bytes(name)))
        .collect();
    let link = |flags: &[&str]| {
        let shoal = place.shoal("home").arg("link").args(flags);
        paths.iter().fold(shoal, Shoal::arg).run()
    };
    let refused = link(&[]);
    assert_eq!(refused.code, 6, "{refused:?}");
    for line in [
        "a\\b`: its name has",
        "caf\\xe9`: its name",
        "missing`: it does not exist",
    ] {
        assert!(refused.stderr.contains(line), "{line}: {}", refused.stderr);
    }
    let skipped = link(&["--skip-unshareable"]);
    assert_eq!(skipped.code, 0, "{skipped:?}");
    assert!(
        skipped.stderr.contains("good: 1 B in 1 file"),
        "{skipped:?}"
    );
}

#[test]
fn names_that_cannot_be_shared_are_left_out_by_flag_or_by_pattern() {
    let place = Place::new();
    let folder = bad_names(&place);
    let clean = place.folder("clean/dir");
    fs::write(clean.join("good"), b"x").unwrap();
    let link = |flags: &[&OsStr]| {
        let mut shoal = place.shoal("home").arg("link").arg(&folder);
        for flag in flags {
            shoal = shoal.arg(flag);
        }
        shoal.run()
    };
    let expected = place.shoal("home").arg("link").arg(&clean).run().stdout;
    let skipped = link(&[OsStr::new("--skip-unshareable")]);
    assert_eq!(skipped.code, 0, "{skipped:?}");
    assert_eq!(skipped.stdout, expected);
    assert_eq!(lines_of(&skipped, "skipped").len(), 3, "{skipped:?}");
    let excluded = link(&[
        OsStr::new("--exclude"),
        OsStr::from_bytes(b"caf\xe9"),
        OsStr::new("--exclude"),
        OsStr::from_bytes(b"na\xef*"),
        OsStr::new("--exclude"),
        OsStr::new("a*b"),
    ]);
    assert_eq!(excluded.code, 0, "{excluded:?}");
    assert_eq!(excluded.stdout, expected);
}

#[test]
fn a_file_whose_length_is_a_lie_is_refused_alone_and_in_company() {
    let place = Place::new();
    let file = place.file("file", 100_000);
    let lies = [
        ("/proc/cpuinfo", "is longer than its length says"),
        (
            "/sys/kernel/uevent_seqnum",
            "is shorter than its length says",
        ),
    ];
    for (lie, expected) in lies {
        let alone = place.shoal("home").args(&["link", lie]).run();
        assert_eq!(alone.code, 6, "{alone:?}");
        assert!(alone.stderr.contains(expected), "{}", alone.stderr);
        let both = place.shoal("home").args(&["link", lie]).arg(&file).run();
        assert_eq!(both.code, 6, "{both:?}");
        assert!(both.stderr.contains(expected), "{}", both.stderr);
        let without = place
            .shoal("home")
            .args(&["link", lie, "--skip-unshareable"])
            .arg(&file)
            .run();
        assert_eq!(without.code, 0, "{without:?}");
        assert!(without.stderr.contains(expected), "{}", without.stderr);
    }
}

#[test]
fn a_share_of_folders_says_how_many_it_is_where_it_is_made_and_where_it_is_fetched() {
    let place = Place::new();
    let folder = place.folder("bomb");
    for chain in 0..3 {
        fs::create_dir_all(folder.join(format!("{chain}/{}", "d/".repeat(20)))).unwrap();
    }
    let expected = "0 B in 0 files and 63 folders";
    for command in ["link", "ls"] {
        let outcome = place.shoal("home").arg(command).arg(&folder).run();
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    }
    let (mut seeder, link) = seed(&place, "home", &folder, &[]);
    let told = seeder.wait_for_type("link");
    assert_eq!(
        (&told["folders"], &told["entries"]),
        (&63.into(), &63.into())
    );
    let fetched = place
        .shoal("other")
        .local()
        .args(&["fetch", &link, "--linger", "0", "-d"])
        .arg(place.path("down"))
        .run();
    assert_eq!(fetched.code, 0, "{fetched:?}");
    assert!(fetched.stderr.contains(expected), "{}", fetched.stderr);
    assert_eq!(tree(&folder), tree(&place.path("down/bomb")));
}

#[test]
fn names_that_other_systems_cannot_hold_are_warned_of_in_one_line() {
    let place = Place::new();
    let folder = place.folder("set");
    for name in [
        "CON",
        "a:b",
        "end.",
        "Readme",
        "README",
        "caf\u{e9}",
        "cafe\u{301}",
        "plain",
    ] {
        fs::write(folder.join(name), b"x").unwrap();
    }
    let outcome = place.shoal("home").arg("link").arg(&folder).run();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let warning = lines_of(&outcome, "warning:");
    assert_eq!(warning.len(), 1, "{}", outcome.stderr);
    for name in [
        "`CON`",
        "`a:b`",
        "`end.`",
        "same as `README`",
        "Windows or macOS",
    ] {
        assert!(warning[0].contains(name), "{name}: {}", warning[0]);
    }
    let json = place
        .shoal("home")
        .args(&["link", "--json"])
        .arg(&folder)
        .run();
    let count = json.stdout.matches("\"type\":\"unportable\"").count();
    assert_eq!(count, 5, "{}", json.stdout);
    // Here nothing is wrong with them.
    let (_seeder, link) = seed(&place, "home", &folder, &[]);
    let mut fetcher = fetch(
        &place,
        "other",
        &link,
        &place.path("down"),
        &["--linger", "0"],
    );
    assert_eq!(fetcher.wait(), 0);
    assert_eq!(tree(&folder), tree(&place.path("down/set")));
}
