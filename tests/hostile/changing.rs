//! Files that change while they are served, in every way a user changes them; and what of a file travels beside its bytes.

use std::fs::{self, FileTimes};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::support::{Place, assert_same, fetch, seed, turn};

const MIB: usize = 1 << 20;

#[test]
fn files_that_change_under_the_seeder_are_withdrawn_and_named_and_all_others_are_served() {
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
    let flags = ["--stall-timeout", "3s", "--trace", "trace"];
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
    assert_same(out.join("set/steady.bin"), steady);
    seeder.signal("INT");
    assert_eq!(seeder.wait(), 130, "the seeder is alive and well");
    let withdrawn = seeder.all("withdrawn");
    let told = fs::read_to_string(place.path("stderr.log")).unwrap();
    for name in names {
        assert!(!out.join("set").join(name).exists(), "{name} is not whole");
        let lines = told
            .lines()
            .filter(|line| line.contains("not offered any more"));
        let of_file = |line: &&&serde_json::Value| line["path"] == name;
        let line = withdrawn.iter().find(of_file).expect("scripts hear of it");
        let reason = line["reason"].as_str().unwrap();
        assert!(line["pieces"] == 128 && reason.contains(name), "{line}");
        let naming = lines.filter(|line| line.contains(name)).count();
        assert!(
            (1..=64).contains(&naming),
            "{name} is named {naming} times: {told}"
        );
    }
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
