//! What a node knows from earlier runs, with real processes: peers of a share, and neighbours for the DHT.
//!
//! Every process has a home of its own and no multicast, so nothing else can tell where the others are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Outcome, Place, Process, assert_same, skip, turn};

const MIB: usize = 1 << 20;

fn seed(place: &Place, home: &str, file: &Path, flags: &[&str]) -> Process {
    let shoal = place.shoal(home).arg("seed").arg(file).local();
    shoal.args(flags).spawn_json()
}

fn address_of(process: &mut Process) -> String {
    let line = process.wait_for_type("listening");
    line["addr"].as_str().unwrap().to_owned()
}

fn share_of(seeder: &mut Process) -> String {
    let line = seeder.wait_for_type("link");
    line["share"].as_str().unwrap().to_owned()
}

/// Fetches the bare id into a folder of its own and compares.
#[track_caller]
fn fetch(place: &Place, share: &str, into: &str, file: &Path, flags: &[&str]) {
    let folder = place.folder(into);
    let shoal = place.shoal("home-f").args(&["fetch", share, "--dir", into]);
    let flags = [&["--linger", "0", "--timeout", "20s"], flags].concat();
    let mut fetcher = shoal.local().args(&flags).spawn_json();
    assert_eq!(fetcher.wait(), 0, "{:?}", fetcher.seen.last());
    let name = file.file_name().unwrap();
    assert_same(folder.join(name), file);
}

fn state_of(place: &Place, home: &str) -> PathBuf {
    let hosts = place.path(home).join("hosts");
    let host = fs::read_dir(hosts).unwrap().next().unwrap().unwrap();
    host.path().join("state.db")
}

#[test]
fn a_share_fetched_before_is_found_again_by_its_bare_id_alone() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", MIB);
    let alone = ["--no-dht"];
    let mut seeder = seed(&place, "home-s", &file, &alone);
    let (share, address) = (share_of(&mut seeder), address_of(&mut seeder));
    fetch(
        &place,
        &share,
        "first",
        &file,
        &["--no-dht", "--peer", &address],
    );
    seeder.kill();
    let mut seeder = seed(&place, "home-s", &file, &alone);
    assert_eq!(
        address_of(&mut seeder),
        address,
        "its port was leased again"
    );
    fetch(&place, &share, "again", &file, &alone);

    // Without what was remembered there is nothing that would lead there.
    fs::remove_file(state_of(&place, "home-f")).unwrap();
    let lost = place
        .shoal("home-f")
        .args(&["fetch", &share, "--dir", "lost", "--timeout", "2s"])
        .local()
        .args(&alone)
        .run();
    assert_eq!(lost.code, 3, "{}", lost.stderr);
}

#[test]
fn a_fetch_that_was_killed_has_remembered_whom_it_fetched_from() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 4 * MIB);
    let slow = ["--no-dht", "--up", "500k"];
    let mut seeder = seed(&place, "home-s", &file, &slow);
    let (share, address) = (share_of(&mut seeder), address_of(&mut seeder));
    place.folder("killed");
    let args = [
        "fetch", &share, "--dir", "killed", "--no-dht", "--peer", &address,
    ];
    let mut killed = place.shoal("home-f").args(&args).local().spawn_json();
    killed.wait_for_part(0.25);
    killed.kill();
    seeder.kill();
    let mut seeder = seed(&place, "home-s", &file, &["--no-dht"]);
    assert_eq!(share_of(&mut seeder), share);
    fetch(&place, &share, "again", &file, &["--no-dht"]);
}

#[test]
fn the_dht_is_joined_again_through_a_neighbour_of_an_earlier_run() {
    let _turn = turn();
    let place = Place::new();
    let (old, new) = (place.file("old.bin", MIB), place.file("new.bin", MIB));
    let node = || place.shoal("home-n").arg("node").local().spawn_json();
    let mut rendezvous = node();
    let address = address_of(&mut rendezvous);
    let known = ["--peer", &address];
    let mut seeder = seed(&place, "home-s", &old, &known);
    let share = share_of(&mut seeder);
    fetch(&place, &share, "first", &old, &known);
    seeder.kill();
    rendezvous.kill();

    let mut rendezvous = node();
    assert_eq!(address_of(&mut rendezvous), address);
    // Nobody of before has this share, and the fetcher never met who has it.
    let mut seeder = seed(&place, "home-other", &new, &known);
    let share = share_of(&mut seeder);
    fetch(&place, &share, "again", &new, &[]);
    assert!(rendezvous.all("error").is_empty());
}

/// Fetches as [`fetch`] does, but through another program that changes what the system says about the home.
#[track_caller]
fn fetch_through(
    place: &Place,
    runner: Command,
    share: &str,
    into: &str,
    flags: &[&str],
) -> Outcome {
    let shoal = place
        .shoal_through(runner, "home-f")
        .args(&["fetch", share]);
    let shoal = shoal.args(&["--dir", into, "--linger", "0"]).local();
    shoal.args(flags).run()
}

#[test]
fn a_state_that_is_damaged_held_or_not_a_file_harms_no_transfer() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", MIB);
    let mut seeder = seed(&place, "home-s", &file, &["--no-dht"]);
    let (share, address) = (share_of(&mut seeder), address_of(&mut seeder));
    let flags = ["--no-dht", "--peer", address.as_str()];
    fetch(&place, &share, "first", &file, &flags);
    let state = state_of(&place, "home-f");

    let whole = fs::read(&state).unwrap();
    fs::write(&state, &whole[..whole.len() / 3]).unwrap();
    fetch(&place, &share, "damaged", &file, &flags);

    let holder = rusqlite::Connection::open(&state).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    fetch(&place, &share, "held", &file, &flags);
    drop(holder);

    fs::remove_file(&state).unwrap();
    fs::create_dir(&state).unwrap();
    fetch(&place, &share, "folder", &file, &flags);
}

#[test]
fn a_home_on_a_read_only_file_system_harms_no_transfer() {
    let _turn = turn();
    let place = Place::new();
    let home = place.folder("home-f");
    // A mount of its own namespace: nobody else sees it, and it goes with the process.
    let script = r#"mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@""#;
    let read_only = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(&home);
        command
    };
    let probe = read_only().args(["touch"]).arg(home.join("probe")).output();
    let said = probe.map(|probe| String::from_utf8_lossy(&probe.stderr).into_owned());
    if !said.as_ref().is_ok_and(|said| said.contains("Read-only")) {
        let test = "a_home_on_a_read_only_file_system_harms_no_transfer";
        return skip(test, "cannot mount a folder read-only here");
    }
    let file = place.file("data.bin", MIB);
    let mut seeder = seed(&place, "home-s", &file, &["--no-dht"]);
    let (share, address) = (share_of(&mut seeder), address_of(&mut seeder));
    let flags = ["--no-dht", "--peer", address.as_str()];
    // Once with nothing there, once with a state that can be read and not written.
    for into in ["empty", "full"] {
        let outcome = fetch_through(&place, read_only(), &share, into, &flags);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        assert_same(place.path(into).join("data.bin"), &file);
        if into == "empty" {
            assert!(
                fs::read_dir(&home).unwrap().next().is_none(),
                "it was read-only"
            );
            fetch(&place, &share, "first", &file, &flags);
        }
    }
}

#[test]
fn a_file_system_without_locks_harms_no_transfer() {
    let _turn = turn();
    let place = Place::new();
    let test = "a_file_system_without_locks_harms_no_transfer";
    let traced = Command::new("strace").args(["-qq", "true"]).output();
    if !traced.is_ok_and(|traced| traced.status.success()) {
        return skip(test, "needs `strace`, and the right to use it");
    }
    let file = place.file("data.bin", MIB);
    let mut seeder = seed(&place, "home-s", &file, &["--no-dht"]);
    let (share, address) = (share_of(&mut seeder), address_of(&mut seeder));
    let flags = ["--no-dht", "--peer", address.as_str()];
    fetch(&place, &share, "first", &file, &flags);
    let state = state_of(&place, "home-f");
    let trace = place.path("trace.log");
    // Every lock of the state is answered as NFS without a lock server does.
    let mut no_locks = Command::new("strace");
    no_locks.args([
        "-f",
        "-qq",
        "-e",
        "trace=fcntl",
        "-e",
        "inject=fcntl:error=ENOLCK",
    ]);
    no_locks.arg("-P").arg(&state).arg("-o").arg(&trace);
    let outcome = fetch_through(&place, no_locks, &share, "no-locks", &flags);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_same(place.path("no-locks").join("data.bin"), &file);
    let trace = fs::read_to_string(trace).unwrap();
    assert!(trace.contains("ENOLCK"), "no lock was asked for: {trace}");
}
