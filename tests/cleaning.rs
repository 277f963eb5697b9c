//! `shoal clean`: what stopped fetches left is listed and removed, and nothing else is.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::support::{Outcome, Place, fetch, seed, turn};

const MIB: usize = 1 << 20;

/// Fetches a part of a share into `into` and stops; gives the part folder.
fn stopped_fetch(place: &Place, name: &str, into: &str) -> PathBuf {
    let file = place.file(&format!("source-{name}/{name}"), 8 * MIB);
    let (_seeder, link) = seed(place, "home", &file, &["--up", "4M"]);
    let into = place.path(into);
    let mut fetcher = fetch(place, "other", &link, &into, &[]);
    fetcher.wait_for_part(0.2);
    fetcher.kill();
    part_folders(&into).pop().unwrap()
}

fn part_folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_part = |path: &PathBuf| path.extension().is_some_and(|end| end == "part");
    entries.filter(is_part).collect()
}

fn clean(place: &Place, args: &[&str], dir: &Path) -> Outcome {
    place.shoal("home").arg("clean").args(args).arg(dir).run()
}

#[test]
fn what_a_stopped_fetch_left_is_listed_with_name_size_and_age_and_removed_when_told_to() {
    let _turn = turn();
    let place = Place::new();
    let part = stopped_fetch(&place, "movie.bin", "down/deep");
    let deep = place.path("down/deep");
    let listed = clean(&place, &[], &deep);
    assert_eq!(listed.code, 0, "{listed:?}");
    assert_eq!(listed.stdout.lines().count(), 1, "{listed:?}");
    assert!(listed.stdout.contains(" MiB  "), "{listed:?}");
    assert!(listed.stdout.contains("  movie.bin  "), "{listed:?}");
    assert!(
        listed.stdout.trim().ends_with(part.to_str().unwrap()),
        "{listed:?}"
    );
    assert!(listed.stderr.contains("`--remove`"), "{listed:?}");
    // Below the folder above it only when asked.
    let down = place.path("down");
    assert_eq!(clean(&place, &[], &down).stdout, "");
    let json = clean(&place, &["-r", "--json"], &down);
    let line: serde_json::Value = serde_json::from_str(json.stdout.trim()).unwrap();
    assert_eq!(line["type"], "leftover");
    assert_eq!(line["path"], part.to_str().unwrap());
    assert!(line["bytes"].as_u64().unwrap() > MIB as u64, "{line}");
    assert!(part.exists());
    let removed = clean(&place, &["-r", "--remove"], &down);
    assert_eq!(removed.code, 0, "{removed:?}");
    assert!(!part.exists());
    assert_eq!(fs::read_dir(&deep).unwrap().count(), 0);
    let nothing = clean(&place, &["-r", "--yes"], &down);
    assert_eq!((nothing.code, &*nothing.stdout), (0, ""), "{nothing:?}");
}

#[test]
fn a_part_folder_in_use_stays() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("source/data.bin", 8 * MIB);
    let (_seeder, link) = seed(&place, "home", &file, &["--up", "4M"]);
    let into = place.path("down");
    let mut fetcher = fetch(&place, "other", &link, &into, &["--linger", "0"]);
    fetcher.wait_for_part(0.1);
    let outcome = clean(&place, &["--remove"], &into);
    assert_eq!((outcome.code, &*outcome.stdout), (0, ""), "{outcome:?}");
    assert!(
        outcome.stderr.contains("a fetch is using it"),
        "{outcome:?}"
    );
    assert_eq!(fetcher.wait(), 0);
}

#[test]
fn what_only_looks_like_a_part_folder_stays() {
    let _turn = turn();
    let place = Place::new();
    let real = stopped_fetch(&place, "movie.bin", "real");
    let down = place.folder("down");
    let named = |end: &str| down.join(format!(".shoal-{}.part", end.repeat(16)));
    // Empty; with something of the user; without a manifest; a link to a real one; a real one under another name, and one
    // with a folder in it.
    fs::create_dir(named("a")).unwrap();
    let copy = |to: &Path| {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(&real).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    let mine = place.folder("mine").join(real.file_name().unwrap());
    copy(&mine);
    fs::write(mine.join("thesis.txt"), b"precious").unwrap();
    fs::create_dir(named("b")).unwrap();
    fs::write(named("b").join("lock"), b"").unwrap();
    fs::write(named("b").join("record"), b"").unwrap();
    symlink(&real, named("c")).unwrap();
    copy(&named("d"));
    let nested = place.folder("nested").join(real.file_name().unwrap());
    copy(&nested);
    fs::create_dir(nested.join("0f")).unwrap();
    for folder in [&down, &place.path("mine"), &place.path("nested")] {
        let before = fs::read_dir(folder).unwrap().count();
        let outcome = clean(&place, &["-r", "--remove"], folder);
        assert_eq!((outcome.code, &*outcome.stdout), (0, ""), "{outcome:?}");
        assert!(outcome.stderr.contains("left alone"), "{outcome:?}");
        assert_eq!(fs::read_dir(folder).unwrap().count(), before);
    }
    assert_eq!(fs::read(mine.join("thesis.txt")).unwrap(), b"precious");
    assert!(real.join("manifest").exists());
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let place = Place::new();
    let outcome = clean(&place, &[], &place.path("missing"));
    assert_eq!(outcome.code, 6, "{outcome:?}");
    assert!(outcome.stderr.contains("does not exist"), "{outcome:?}");
}
