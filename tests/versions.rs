//! A new version of a share takes what an older one beside it has.

use std::fs;

use crate::support::{Place, assert_same, fetch, seed, turn};

const MIB: usize = 1 << 20;

#[test]
fn a_new_version_is_fetched_without_what_an_unfinished_older_one_beside_it_holds() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("source/data.bin", 24 * MIB);
    let (mut seeder, link) = seed(&place, "home", &file, &["--up", "8M"]);
    let into = place.path("down");
    let mut first = fetch(&place, "other", &link, &into, &[]);
    first.wait_for_part(0.4);
    first.kill();
    seeder.kill();
    let held = first.all("progress").last().unwrap()["bytes"]
        .as_u64()
        .unwrap();

    let mut bytes = fs::read(&file).unwrap();
    for at in [MIB, 8 * MIB, 20 * MIB] {
        bytes[at] ^= 1;
    }
    fs::write(&file, bytes).unwrap();
    let (_seeder, link) = seed(&place, "home", &file, &[]);
    let mut second = fetch(&place, "other", &link, &into, &["--linger", "0"]);
    assert_eq!(second.wait(), 0);
    assert_same(&file, into.join("data.bin"));
    let done = second.wait_for_type("done");
    let number = |name: &str| done[name].as_u64().unwrap();
    let changed = 3 * 65_536;
    assert!(
        number("reused") + changed >= held,
        "{done}, {held} were held"
    );
    assert_eq!(
        number("downloaded") - number("wasted") + number("reused"),
        24 * MIB as u64
    );
    // The older one is not ours to remove.
    assert_eq!(fs::read_dir(&into).unwrap().count(), 2);
}

#[test]
fn a_new_version_takes_what_did_not_change_of_the_finished_one_it_replaces() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("source/data.bin", 8 * MIB);
    let into = place.folder("down");
    fs::copy(&file, into.join("data.bin")).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[3 * MIB] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (_seeder, link) = seed(&place, "home", &file, &[]);
    let flags = ["--overwrite", "--linger", "0"];
    let mut fetcher = fetch(&place, "other", &link, &into, &flags);
    assert_eq!(fetcher.wait(), 0);
    assert_same(&file, into.join("data.bin"));
    let done = fetcher.wait_for_type("done");
    assert_eq!(done["downloaded"], 65_536, "{done}");
    assert_eq!(done["reused"], 8 * MIB - 65_536, "{done}");
}
