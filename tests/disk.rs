//! Disks that are too small or become full: one clear error, nothing spoilt, and the same command goes on later.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::disk::Disk;
use crate::support::{Place, assert_same, fetch, seed, skip, tree, turn};

const MIB: usize = 1 << 20;

/// The error is told this soon after the disk is full. The promise is 1 s; the rest is for a busy machine.
const TOLD_MAX: Duration = Duration::from_secs(3);

#[test]
fn a_share_that_cannot_fit_is_refused_before_the_first_byte() {
    let _turn = turn();
    let place = Place::new();
    let test = "a_share_that_cannot_fit_is_refused_before_the_first_byte";
    let Some(disk) = Disk::in_memory(test, &place, 8 << 20) else {
        return;
    };
    let file = place.file("data.bin", 32 * MIB);
    let (_seeder, link) = seed(&place, "home", &file, &[]);
    let mut fetcher = fetch(&place, "other", &link, disk.root(), &[]);
    assert_eq!(fetcher.wait(), 6);
    let error = fetcher.wait_for_type("error");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("no space for"), "{message}");
    assert!(error["hint"].as_str().unwrap().contains("free some space"));
    assert!(fetcher.all("done").is_empty());
    assert_eq!(fs::read_dir(disk.root()).unwrap().count(), 0);
}

#[test]
fn a_share_of_more_files_and_folders_than_fit_is_refused_before_the_first_byte() {
    let _turn = turn();
    let place = Place::new();
    let test = "a_share_of_more_files_and_folders_than_fit_is_refused_before_the_first_byte";
    let Some(disk) = Disk::of_inodes(test, &place, 40) else {
        return;
    };
    let (files, chains) = (place.folder("files"), place.folder("chains"));
    for number in 0..50 {
        fs::write(files.join(number.to_string()), b"x").unwrap();
    }
    fs::create_dir_all(chains.join("d/".repeat(50))).unwrap();
    for folder in [&files, &chains] {
        let (mut seeder, link) = seed(&place, "home", folder, &[]);
        let mut fetcher = fetch(&place, "other", &link, disk.root(), &[]);
        assert_eq!(fetcher.wait(), 6);
        let error = fetcher.wait_for_type("error");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("files and folders"), "{message}");
        assert!(message.contains("`df -i`"), "{message}");
        assert_eq!(fs::read_dir(disk.root()).unwrap().count(), 0);
        seeder.kill();
    }
    // What fits is fetched, to the last inode but those of the part folder.
    let small = place.folder("small");
    for number in 0..30 {
        fs::write(small.join(number.to_string()), b"x").unwrap();
    }
    let (_seeder, link) = seed(&place, "home", &small, &[]);
    let mut fetcher = fetch(&place, "other", &link, disk.root(), &["--linger", "0"]);
    assert_eq!(fetcher.wait(), 0);
    assert_eq!(tree(&small), tree(&disk.root().join("small")));
}

#[test]
fn a_disk_whose_inodes_run_out_meanwhile_is_told_as_that() {
    let _turn = turn();
    let place = Place::new();
    let test = "a_disk_whose_inodes_run_out_meanwhile_is_told_as_that";
    let Some(disk) = Disk::of_inodes(test, &place, 40) else {
        return;
    };
    let folder = place.folder("set");
    for number in 0..20 {
        place.file(&format!("set/{number}"), 1 << 18);
    }
    let (_seeder, link) = seed(&place, "home", &folder, &["--up", "1M"]);
    let mut fetcher = fetch(&place, "other", &link, disk.root(), &[]);
    fetcher.wait_for_part(0.1);
    for number in 0..40 {
        let made = fs::create_dir(disk.root().join(number.to_string()));
        if made.is_err() {
            break;
        }
    }
    let error = fetcher.wait_for_type("error");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("no inodes left for"), "{message}");
    assert_eq!(fetcher.wait(), 6);
}

#[test]
fn a_disk_in_memory_that_fills_up_ends_the_fetch_which_goes_on_when_there_is_room() {
    let _turn = turn();
    let place = Place::new();
    let test = "a_disk_in_memory_that_fills_up_ends_the_fetch_which_goes_on_when_there_is_room";
    if let Some(disk) = Disk::in_memory(test, &place, 48 << 20) {
        check_filled_up(&place, &disk);
    }
}

#[test]
fn an_ext4_disk_that_fills_up_ends_the_fetch_which_goes_on_when_there_is_room() {
    let _turn = turn();
    let place = Place::new();
    let test = "an_ext4_disk_that_fills_up_ends_the_fetch_which_goes_on_when_there_is_room";
    if let Some(disk) = Disk::ext4(test, &place, 64 << 20) {
        check_filled_up(&place, &disk);
    }
}

fn check_filled_up(place: &Place, disk: &Disk) {
    let file = place.file("data.bin", 32 * MIB);
    let (mut seeder, link) = seed(place, "home", &file, &["--up", "4M"]);
    let target = disk.root().join("into");
    let mut fetcher = fetch(place, "other", &link, &target, &[]);
    fetcher.wait_for_part(0.2);
    let filler = disk.fill();
    let full_at = Instant::now();
    let error = fetcher.wait_for_type("error");
    assert!(full_at.elapsed() < TOLD_MAX, "{:?}", full_at.elapsed());
    assert_eq!(error["code"], 6);
    assert!(
        error["message"].as_str().unwrap().contains("no space for"),
        "{error}"
    );
    assert!(
        error["hint"].as_str().unwrap().contains("to resume"),
        "{error}"
    );
    assert_eq!(fetcher.wait(), 6);
    assert_eq!(fetcher.all("error").len(), 1);
    assert!(!target.join("data.bin").exists());
    fs::remove_file(filler).unwrap();
    seeder.kill();
    let (_seeder, _) = seed(place, "home", &file, &[]);
    let mut again = fetch(place, "other", &link, &target, &["--linger", "0"]);
    assert_eq!(again.wait(), 0);
    let done = again.wait_for_type("done");
    let downloaded = done["downloaded"].as_u64().unwrap() as usize;
    assert!(
        downloaded < 32 * MIB * 9 / 10,
        "{downloaded} bytes received again"
    );
    assert_same(target.join("data.bin"), &file);
}

/// What strace says of one fetch: `d` for data or record brought to the disk, `u` for the record removed, in order.
fn syncs_and_removal(trace: &str) -> String {
    let of_line = |line: &str| {
        if line.contains("sync(") || line.contains("syncfs(") {
            Some('d')
        } else {
            (line.contains("unlink") && line.contains("\"record\"")).then_some('u')
        }
    };
    trace.lines().filter_map(of_line).collect()
}

#[test]
fn what_is_stored_comes_to_the_disk_in_batches_and_before_the_record_goes() {
    let _turn = turn();
    let place = Place::new();
    let test = "what_is_stored_comes_to_the_disk_in_batches_and_before_the_record_goes";
    let trace = place.path("trace");
    let mut traced = Command::new("strace");
    traced.args([
        "-f",
        "-e",
        "trace=fsync,fdatasync,syncfs,unlink,unlinkat",
        "-o",
    ]);
    traced.arg(&trace).arg("--");
    let probe = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        skip(test, "needs strace, and the right to trace");
        return;
    }
    let file = place.file("data.bin", 64 * MIB);
    let (_seeder, link) = seed(&place, "home", &file, &["--up", "40M"]);
    let shoal = place.shoal_through(traced, "other");
    let outcome = shoal
        .args(&["fetch", &link, "--dir", "out", "--linger", "0"])
        .local()
        .run();
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let order = syncs_and_removal(&fs::read_to_string(&trace).unwrap());
    // The state of the host is another file with syncs of its own, a few in all.
    let before = order.find('u').expect("the record is removed");
    assert!((4..40).contains(&before), "{order}");
    assert_eq!(order.matches('u').count(), 1, "{order}");
}
