//! Files that change while they are served, in every way a user changes them; and what of a file travels beside its bytes.

use std::fs::{self, FileTimes};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::support::{PATIENCE, Place, assert_same, fetch, pause, seed, turn};

const MIB: usize = 1 << 20;

#[test]
fn files_that_change_under_the_seeder_are_withdrawn_and_named_and_what_still_matches_is_served() {
    let _turn = turn();
    let place = Place::new();
    let steady = place.file("set/steady.bin", 4 * MIB);
    let path = |name: &str| place.path("set").join(name);
    let names = ["edited", "replaced", "touched", "truncated"];
    for name in names {
        place.file(&format!("set/{name}"), 8 * MIB);
    }
    let (mut seeder, link) = seed(&place, "home", &place.path("set"), &["--up", "12M"]);
    let out = place.path("out");
    let flags = ["--stall-timeout", "5s", "--trace", "trace"];
    let mut fetcher = fetch(&place, "home", &link, &out, &flags);
    fetcher.wait_for_part(0.15);

    // One byte in its middle, which is written in place.
    let mut bytes = fs::read(path("edited")).unwrap();
    bytes[4 * MIB] ^= 1;
    fs::write(path("edited"), bytes).unwrap();
    let beside = place.file("beside", 8 * MIB);
    fs::rename(beside, path("replaced")).unwrap();
    let file = fs::File::options()
        .write(true)
        .open(path("touched"))
        .unwrap();
    let later = SystemTime::now() + Duration::from_secs(5);
    file.set_times(FileTimes::new().set_modified(later))
        .unwrap();
    let file = fs::File::options()
        .write(true)
        .open(path("truncated"))
        .unwrap();
    file.set_len(3 * MIB as u64).unwrap();

    assert_eq!(fetcher.wait(), 4, "what is gone cannot be completed");
    let is_corrupt = |line: &&serde_json::Value| line["cause"] == "corrupt";
    assert_eq!(
        fetcher.all("reroute").iter().copied().find(is_corrupt),
        None
    );
    let stalled = fetcher.all("stalled");
    let stalled = stalled.last().expect("it stalls in the end");
    let reason = stalled["reason"].as_str().expect("the seeder tells why");
    assert!(
        reason.contains("does not match the link any more"),
        "{stalled}"
    );
    let errors = fetcher.all("error");
    let message = errors[0]["message"].as_str().unwrap();
    assert!(
        message.contains("does not match the link any more"),
        "{message}"
    );
    assert_same(out.join("set/steady.bin"), steady);
    assert_same(out.join("set/touched"), path("touched"));
    seeder.signal("INT");
    assert_eq!(seeder.wait(), 130, "the seeder is alive and well");
    let (withdrawn, offered) = (seeder.all("withdrawn"), seeder.all("offered"));
    let told = fs::read_to_string(place.path("stderr.log")).unwrap();
    for name in names {
        let is_whole = out.join("set").join(name).exists();
        assert_eq!(is_whole, name == "touched", "{name}");
        let of_file = |line: &&&serde_json::Value| line["path"] == name;
        let line = withdrawn.iter().find(of_file).expect("scripts hear of it");
        let reason = line["reason"].as_str().unwrap();
        assert!(
            line["pieces"].as_u64() <= Some(128) && reason.contains(name),
            "{line}"
        );
        let matches = offered
            .iter()
            .rev()
            .find(of_file)
            .map(|line| line["pieces"].as_u64());
        let expected = match name {
            "edited" => Some(Some(127)),
            "touched" => Some(Some(128)),
            "truncated" => Some(Some(48)),
            _ => None,
        };
        assert_eq!(matches, expected, "{name}");
        let lines = told.lines().filter(|line| line.contains("withdrawn"));
        let naming = lines.filter(|line| line.contains(name)).count();
        // Two are changed in two steps.
        assert!(
            (1..=2).contains(&naming),
            "{name} is named {naming} times: {told}"
        );
    }
}

/// Does `change` to a file that is being seeded, waits until the seeder has noticed, and fetches it.
fn fetched_after(change: impl FnOnce(&Path), undo: impl FnOnce(&Path)) {
    let _turn = turn();
    let place = Place::new();
    let path = place.file("in/data.bin", 2 * MIB);
    let (mut seeder, link) = seed(&place, "home", &path, &[]);
    change(&path);
    // Nobody asks for it.
    let line = seeder.wait_for_type("withdrawn");
    assert_eq!(line["left"], 0, "{line}");
    undo(&path);
    let line = seeder.wait_for_type("offered");
    assert_eq!((&line["pieces"], &line["left"]), (&32.into(), &32.into()));
    let out = place.path("out");
    let mut fetcher = fetch(&place, "home", &link, &out, &["--linger", "0"]);
    assert_eq!(fetcher.wait(), 0);
    assert_same(out.join("data.bin"), path);
    seeder.signal("INT");
    assert_eq!(seeder.wait(), 130);
    assert_eq!(seeder.all("withdrawn").len(), 1, "told once");
    let told = fs::read_to_string(place.path("stderr.log")).unwrap();
    assert!(told.contains("nothing is left to offer"), "{told}");
}

#[test]
fn a_seed_notices_by_itself_that_its_file_was_touched_and_offers_it_again() {
    fetched_after(
        |path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap(),
        |_| {},
    );
}

#[test]
fn a_seed_whose_disk_was_away_says_so_and_offers_again_when_it_is_back() {
    let away = |path: &Path| path.parent().unwrap().with_file_name("gone");
    fetched_after(
        |path| fs::rename(path.parent().unwrap(), away(path)).unwrap(),
        |path| fs::rename(away(path), path.parent().unwrap()).unwrap(),
    );
}

#[test]
fn a_fetch_that_waits_for_a_file_that_is_away_says_so_and_goes_on_when_it_is_back() {
    let _turn = turn();
    let place = Place::new();
    let path = place.file("in/data.bin", 24 * MIB);
    let (_seeder, link) = seed(&place, "home", &path, &["--up", "3M"]);
    let out = place.path("out");
    let mut fetcher = fetch(&place, "home", &link, &out, &["--linger", "0"]);
    // What is open is read to its end, and nobody looks for its name: that is left to the seed, every few seconds.
    fetcher.wait_for_part(0.1);
    let (folder, gone) = (place.path("in"), place.path("gone"));
    fs::rename(&folder, &gone).unwrap();
    let (_, line) = fetcher.wait_for("the reason of a stall", |line| {
        line["type"] == "stalled" && line["reason"].is_string()
    });
    assert_eq!(line["path"], "data.bin", "{line}");
    fs::rename(&gone, &folder).unwrap();
    assert_eq!(fetcher.wait(), 0);
    assert_same(out.join("data.bin"), path);
}

#[test]
fn an_edited_file_of_a_finished_fetch_is_kept_and_only_what_matches_of_it_is_served() {
    let _turn = turn();
    let place = Place::new();
    let path = place.file("data.bin", 2 * MIB);
    let (mut seeder, link) = seed(&place, "home", &path, &[]);
    let out = place.path("out");
    let mut holder = fetch(&place, "other", &link, &out, &["--seed"]);
    holder.wait_for_type("done");
    seeder.kill();
    let mut bytes = fs::read(&path).unwrap();
    bytes[MIB] ^= 1;
    fs::write(out.join("data.bin"), &bytes).unwrap();
    holder.wait_for("what still matches", |line| {
        line["type"] == "offered" && line["pieces"] == 31
    });
    let address = holder.all("listening")[0]["addr"]
        .as_str()
        .unwrap()
        .to_owned();
    let flags = ["--linger", "0", "--stall-timeout", "4s", "--peer", &address];
    let mut fetcher = fetch(&place, "third", &link, &place.path("out-2"), &flags);
    assert_eq!(fetcher.wait(), 4, "one piece is nowhere");
    let error = fetcher.all("error")[0]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(error.contains("1 pieces have no holder"), "{error}");
    assert!(
        error.contains("does not match the link any more"),
        "{error}"
    );
    assert_eq!(fs::read(out.join("data.bin")).unwrap(), bytes);
    holder.signal("INT");
    assert_eq!(holder.wait(), 0);
}

#[test]
fn a_file_that_is_edited_while_the_rest_is_fetched_is_kept_and_the_fetch_does_not_end_well() {
    let _turn = turn();
    let place = Place::new();
    place.file("set/a", MIB);
    let rest = place.file("set/b", 24 * MIB);
    let (_seeder, link) = seed(&place, "home", &place.path("set"), &["--up", "3M"]);
    let out = place.path("out");
    let mut fetcher = fetch(
        &place,
        "other",
        &link,
        &out,
        &["--sequential", "--linger", "0"],
    );
    let edited = out.join("set/a");
    let deadline = Instant::now() + PATIENCE;
    while !edited.exists() {
        assert!(Instant::now() < deadline, "the first file gets its name");
        pause();
    }
    fs::write(&edited, b"mine").unwrap();
    assert_eq!(fetcher.wait(), 7);
    let error = &fetcher.all("error")[0];
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("was changed after it was fetched"),
        "{error}"
    );
    assert_eq!(fs::read(&edited).unwrap(), b"mine");
    assert_same(out.join("set/b"), rest);
}

/// What is done to a shared file, without any change of its bytes: number `what` of all things that are.
fn meddle(path: &Path, aside: &Path, what: u64) {
    // It may not have its name yet, or have been moved away by us.
    let Ok(file) = fs::File::open(path) else {
        return;
    };
    match what % 4 {
        0 => {
            let later = SystemTime::now() + Duration::from_secs(what % 100);
            file.set_times(FileTimes::new().set_modified(later))
                .unwrap();
        }
        1 => {
            fs::hard_link(path, aside).unwrap();
            fs::remove_file(aside).unwrap();
        }
        2 => {
            let mode = 0o600 | (what / 4 % 0o100) as u32;
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        _ => {
            fs::rename(path, aside).unwrap();
            // For some of them long enough to be missed.
            (0..what / 4 % 8).for_each(|_| pause());
            fs::rename(aside, path).unwrap();
        }
    }
}

#[test]
fn a_swarm_whose_files_are_meddled_with_all_the_time_finishes_with_the_right_bytes() {
    const FETCHERS: usize = 4;
    const FILES: usize = 6;
    let _turn = turn();
    let place = Place::new();
    for number in 0..FILES {
        place.file(&format!("set/{number}"), 3 * MIB);
    }
    let (mut seeder, link) = seed(&place, "home-0", &place.path("set"), &["--up", "6M"]);
    let mut folders = vec![place.path("set")];
    let mut fetchers = Vec::new();
    for number in 1..=FETCHERS {
        let out = place.path(&format!("out-{number}"));
        let flags = ["--seed", "--up", "6M"];
        fetchers.push(fetch(&place, "home-0", &link, &out, &flags));
        folders.push(out.join("set"));
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut state = 0x9e37_79b9_7f4a_7c15_u64;
            while !over.load(Ordering::Relaxed) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let folder = &folders[(state >> 8) as usize % folders.len()];
                let path = folder.join((state as usize % FILES).to_string());
                meddle(&path, &place.path("aside"), state >> 16);
                pause();
            }
        });
        for fetcher in &mut fetchers {
            fetcher.wait_for_type("done");
        }
        over.store(true, Ordering::Relaxed);
    });
    for folder in &folders[1..] {
        for number in 0..FILES {
            assert_same(
                folder.join(number.to_string()),
                place.path(&format!("set/{number}")),
            );
        }
    }
    seeder.signal("INT");
    assert_eq!(seeder.wait(), 130);
    for fetcher in &mut fetchers {
        fetcher.signal("INT");
        assert_eq!(fetcher.wait(), 0);
        let is_blamed = |line: &&serde_json::Value| line["cause"] == "corrupt";
        assert_eq!(fetcher.all("reroute").iter().copied().find(is_blamed), None);
    }
    assert!(!seeder.all("withdrawn").is_empty() && !seeder.all("offered").is_empty());
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn of_modes_only_the_executable_bit_travels_and_the_mask_of_the_fetcher_decides_the_rest() {
    let _turn = turn();
    let place = Place::new();
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let (run, plain) = (place.file("set/run", 100), place.file("set/in/plain", 100));
    set(&run, 0o6777);
    set(&plain, 0o1666);
    set(&place.path("set/in"), 0o3777);
    let (_seeder, link) = seed(&place, "home", &place.path("set"), &[]);
    for mask in [0o000, 0o022, 0o027, 0o077] {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("umask {mask:o}; exec \"$@\""), "sh"]);
        let out = place.folder(&format!("out-{mask:o}"));
        let fetch = place
            .shoal_through(shell, &format!("other-{mask:o}"))
            .args(&["fetch", &link, "--dir"]);
        let outcome = fetch.arg(&out).local().args(&["--linger", "0"]).run();
        assert_eq!(outcome.code, 0, "{outcome:?}");
        let asked = [
            ("run", 0o777),
            ("in/plain", 0o666),
            ("in", 0o777),
            ("", 0o777),
        ];
        for (path, asked) in asked {
            let found = mode(&out.join("set").join(path));
            let expected = asked & !mask;
            assert_eq!(found, expected, "{path:?}: {found:o} under {mask:o}");
        }
    }
}
