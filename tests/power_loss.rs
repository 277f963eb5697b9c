//! The power fails under a fetch: a real ext4 from one moment on brings nothing more to its disk, and is mounted again by
//! a machine that booted anew.
//!
//! `storage` has a model of a disk for every prefix of its writes; this is one real file system at a few moments, with all
//! that it and the kernel put off.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::disk::Disk;
use crate::support::{Place, Process, noise, seed, skip, stored_by, tree, turn};

const MIB: usize = 1 << 20;

/// A file of many pieces, which goes to the disk in several batches, and small ones, which get their names in between.
const LARGE_LEN: usize = 72 * MIB;
const SMALL_COUNT: usize = 200;
const SMALL_LEN: usize = 48 << 10;

/// The promise: at most 16 MiB or 5 s are lost. At the rate here that is 16 MiB, and half of them again which came while
/// those were on their way to the disk.
const LOST_MAX: u64 = 24 << 20;

/// Parts of the share at which the power fails.
const LOSSES: [f64; 2] = [0.35, 0.7];

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Runs a command that is told, as everything it starts, that the machine booted at another time than any other `number`.
fn booted(place: &Place, number: usize) -> Command {
    let id = place.path(&format!("boot-{number}"));
    fs::write(&id, format!("00000000-0000-0000-0000-{number:012}\n")).unwrap();
    let script = format!("mount --bind \"$0\" {BOOT_ID} && exec \"$@\"");
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", &script]).arg(id);
    unshare
}

fn trace_of(place: &Place, boot: usize) -> PathBuf {
    place.path(&format!("trace-{boot}"))
}

fn fetching(place: &Place, boot: usize, link: &str, into: &Path) -> Process {
    let shoal = place.shoal_through(booted(place, boot), "other");
    let trace = trace_of(place, boot);
    let shoal = shoal.args(&["fetch", link, "--linger", "0", "--dir"]);
    let shoal = shoal.arg(into).arg("--trace").arg(trace);
    shoal.local().spawn_json()
}

#[test]
fn a_fetch_on_ext4_goes_on_after_a_loss_of_power_and_shows_no_wrong_file() {
    let _turn = turn();
    let place = Place::new();
    let test = "a_fetch_on_ext4_goes_on_after_a_loss_of_power_and_shows_no_wrong_file";
    let probe = booted(&place, 99).args(["cat", BOOT_ID]).output();
    if !probe.is_ok_and(|probe| probe.stdout.ends_with(b"99\n")) {
        return skip(test, "cannot mount over the boot id here");
    }
    let Some(disk) = Disk::ext4(test, &place, 384 << 20) else {
        return;
    };
    let shared = place.folder("shared");
    fs::write(shared.join("large.bin"), noise("large", LARGE_LEN)).unwrap();
    for number in 0..SMALL_COUNT {
        let name = format!("small-{number}.bin");
        fs::write(shared.join(&name), noise(&name, SMALL_LEN)).unwrap();
    }
    let expected = tree(&shared);
    let total = (LARGE_LEN + SMALL_COUNT * SMALL_LEN) as u64;
    let (_seeder, link) = seed(&place, "home", &shared, &["--up", "16M"]);
    let into = disk.root().join("into");
    let result = into.join("shared");
    for (round, part) in LOSSES.into_iter().enumerate() {
        fs::create_dir(&into).unwrap();
        // Else the folder itself may be lost.
        rustix::fs::syncfs(fs::File::open(&into).unwrap()).unwrap();
        let mut fetcher = fetching(&place, 2 * round, &link, &into);
        fetcher.wait_for_part(part);
        disk.lose_power();
        fetcher.kill();
        disk.mount_again();
        let stored = stored_by(&trace_of(&place, 2 * round));
        let shown = match result.exists() {
            true => tree(&result),
            false => Vec::new(),
        };
        for file in &shown {
            assert!(expected.contains(file), "{} is wrong", file.0);
        }

        let mut fetcher = fetching(&place, 2 * round + 1, &link, &into);
        assert_eq!(fetcher.wait(), 0);
        let done = fetcher.wait_for_type("done");
        let kept = total - done["downloaded"].as_u64().unwrap();
        println!(
            "of {stored} stored bytes {kept} were left, and {} names",
            shown.len()
        );
        assert!(kept + LOST_MAX >= stored, "{kept} of {stored}");
        disk.lose_power();
        disk.mount_again();
        assert!(tree(&result) == expected, "not all is on the disk");

        // The folder of the parts may have come back; a fetch that has nothing to do clears it away.
        let mut fetcher = fetching(&place, 2 * round, &link, &into);
        assert_eq!(fetcher.wait(), 0);
        assert_eq!(fetcher.wait_for_type("done")["downloaded"], 0);
        assert_eq!(fs::read_dir(&into).unwrap().count(), 1, "leftovers");
        assert!(tree(&result) == expected);
        fs::remove_dir_all(&into).unwrap();
    }
}
