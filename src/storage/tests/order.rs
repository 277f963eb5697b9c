//! In which order a fetch brings things to the disk, and what it takes back when that fails: one test for each rule.
//!
//! `crashes` and `faults` try every moment and every failure; here each rule has its own name, for whoever breaks it.

use rustix::io::Errno;

use super::share64::alone;
use super::watching::{Event, Failing, Id, Sync, Watcher, fail_next_sync, watch};
use super::*;

/// Runs `act` watched, in the boot of this number.
fn watched<T: Send>(
    scene: &Scene,
    boot: u8,
    act: impl FnOnce() -> T + Send,
) -> (Vec<Event>, Watcher, T) {
    let mut watcher = Watcher::default();
    watcher.boot = [boot; 16];
    watcher.id_of(fs::metadata(scene.folder.path()).unwrap().ino());
    let (mut watcher, result) = alone(|| watch(watcher, act));
    (std::mem::take(&mut watcher.events), watcher, result)
}

/// A share of this many files of one piece.
fn small_files(count: usize) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("source/tree");
    fs::create_dir_all(&top).unwrap();
    for number in 0..count {
        fs::write(
            top.join(format!("file {number}")),
            noise(100, number as u64),
        )
        .unwrap();
    }
    Scene::of(folder, &top)
}

/// What was made with this name.
fn made(events: &[Event], wanted: &str) -> Id {
    let found = events.iter().find_map(|event| match event {
        Event::Make { name, id, .. } | Event::MakeFolder { name, id, .. } if name == wanted => {
            Some(*id)
        }
        _ => None,
    });
    found.unwrap_or_else(|| panic!("nothing was made as {wanted}"))
}

/// Whether something brings the bytes of `wanted` to the disk.
fn syncs_file(events: &[Event], wanted: Id) -> bool {
    events.iter().any(|event| {
        matches!(event, Event::SyncFileSystem)
            || matches!(event, Event::SyncData { id } if *id == wanted)
    })
}

/// Whether something brings the names in `wanted` to the disk.
fn syncs_folder(events: &[Event], wanted: Id) -> bool {
    events.iter().any(|event| {
        matches!(event, Event::SyncFileSystem)
            || matches!(event, Event::SyncFolder { id } if *id == wanted)
    })
}

/// Everything before the last sync of the record: the moment from which it vouches.
fn before_record_synced(events: &[Event]) -> &[Event] {
    let record = made(events, "record");
    let at = events
        .iter()
        .rposition(|event| matches!(event, Event::SyncData { id } if *id == record));
    &events[..at.expect("the record is synced")]
}

fn part_name(scene: &Scene, piece: PieceIndex) -> String {
    part::file_name(scene.geometry().locate(piece).file)
}

#[test]
fn what_a_killed_run_left_unsynced_is_synced_before_a_later_run_vouches_for_it() {
    let scene = Scene::folder();
    let (big, other) = (scene.pieces("big")[0], scene.pieces("sub/other")[0]);
    let (events, ..) = watched(&scene, 1, || {
        let (store, _) = scene.open(&scene.target()).unwrap();
        scene.write(&store, big).unwrap();
        drop(store);
        let (store, _) = scene.resume();
        scene.write(&store, other).unwrap();
        store.sync().unwrap();
    });
    let before = before_record_synced(&events);
    for piece in [big, other] {
        let id = made(&events, &part_name(&scene, piece));
        assert!(syncs_file(before, id), "piece {piece}");
    }
}

#[test]
fn a_file_of_the_user_is_synced_before_the_record_calls_it_durable() {
    let scene = Scene::folder();
    fs::create_dir_all(scene.at("sub")).unwrap();
    fs::write(scene.at("big"), noise(BIG, 1)).unwrap();
    let other = scene.pieces("sub/other")[0];
    let (events, watcher, ()) = watched(&scene, 1, || {
        let (store, _) = scene.open(&scene.target()).unwrap();
        scene.write(&store, other).unwrap();
        store.sync().unwrap();
    });
    let mut watcher = watcher;
    let big = watcher.id_of(fs::metadata(scene.at("big")).unwrap().ino());
    assert!(syncs_file(before_record_synced(&events), big));
}

#[test]
fn a_file_gets_its_final_name_after_its_bytes_are_on_the_disk_and_many_cost_no_sync_each() {
    for count in [3, 200] {
        let scene = small_files(count);
        let (events, watcher, ()) = watched(&scene, 1, || {
            let (store, _) = scene.open(&scene.target()).unwrap();
            scene.write_all(&store);
            store.sync().unwrap();
            store.finish().unwrap();
        });
        let mut named = 0;
        for (at, event) in events.iter().enumerate() {
            let Event::Rename {
                from_name, to_name, ..
            } = event
            else {
                continue;
            };
            if !to_name.starts_with("file ") {
                continue;
            }
            named += 1;
            let file = made(&events, from_name);
            let written = events[..at]
                .iter()
                .rposition(|event| matches!(event, Event::Write { id, .. } if *id == file));
            let since = &events[written.unwrap()..at];
            assert!(syncs_file(since, file), "{to_name} of {count}");
        }
        assert_eq!(named, count);
        // Each of a few files; the part folder, what is saved in it, the target, the folder above it; the record; the result.
        assert!(watcher.sync_count() <= 12, "{}", watcher.sync_count());
    }
}

#[test]
fn names_are_on_the_disk_before_the_record_vouches_and_before_it_is_removed() {
    let scene = Scene::folder();
    let (events, mut watcher, ()) = watched(&scene, 1, || {
        let (store, _) = scene.open(&scene.target()).unwrap();
        scene.write(&store, scene.pieces("big")[0]).unwrap();
        store.sync().unwrap();
    });
    let before = before_record_synced(&events);
    let part = made(&events, scene.part().file_name().unwrap().to_str().unwrap());
    let above = watcher.id_of(fs::metadata(scene.folder.path()).unwrap().ino());
    for (what, folder) in [
        ("of part files", part),
        ("of the part folder", made(&events, "down")),
        ("of the target", above),
    ] {
        assert!(syncs_folder(before, folder), "{what}");
    }

    let scene = Scene::folder();
    let (events, ..) = watched(&scene, 1, || {
        let (store, _) = scene.open(&scene.target()).unwrap();
        scene.write_all(&store);
        store.finish().unwrap();
    });
    let removed = events
        .iter()
        .position(|event| matches!(event, Event::RemoveFile { name, .. } if name == "record"))
        .unwrap();
    for folder in ["down", "tree", "sub"] {
        let folder = made(&events, folder);
        let named = events[..removed].iter().rposition(|event| match event {
            Event::Rename { to, .. } => *to == folder,
            Event::Make { dir, .. }
            | Event::MakeFolder { dir, .. }
            | Event::MakeLink { dir, .. } => *dir == folder,
            _ => false,
        });
        assert!(syncs_folder(&events[named.unwrap()..removed], folder));
    }
}

#[test]
fn names_that_a_killed_run_gave_are_on_the_disk_before_the_run_that_finishes_removes_the_record() {
    // Nothing but files: what is made at the end would have their folders synced anyhow.
    let scene = small_files(3);
    let (events, ..) = watched(&scene, 1, || {
        let (store, _) = scene.open(&scene.target()).unwrap();
        scene.write_all(&store);
        store.sync().unwrap();
        // Killed here: every file has its name, and no folder was synced since.
        drop(store);
        let (store, _) = scene.open(&scene.target()).unwrap();
        store.finish().unwrap();
    });
    let named = events
        .iter()
        .rposition(|event| matches!(event, Event::Rename { .. }))
        .unwrap();
    let removed = events
        .iter()
        .position(|event| matches!(event, Event::RemoveFile { name, .. } if name == "record"))
        .unwrap();
    for folder in ["down", "tree"] {
        let id = made(&events, folder);
        assert!(syncs_folder(&events[named..removed], id), "{folder}");
    }
}

#[test]
fn after_a_failed_sync_what_was_not_synced_is_not_held_and_what_was_is() {
    let cases = [
        (Sync::Any, Failing::Clean(Errno::IO)),
        (Sync::Any, Failing::AfterAll(Errno::NOSPC)),
        (Sync::OfFolder, Failing::Clean(Errno::IO)),
    ];
    for (sync, failing) in cases {
        let scene = Scene::folder();
        let big = scene.pieces("big");
        let small = scene.pieces("sub/small")[0];
        let later = scene.pieces("run")[0];
        watched(&scene, 1, || {
            let (store, _) = scene.open(&scene.target()).unwrap();
            scene.write(&store, big[0]).unwrap();
            store.sync().unwrap();
            for piece in [big[1], big[2], small] {
                scene.write(&store, piece).unwrap();
            }
            fail_next_sync(sync, failing);
            store.sync().unwrap_err();
            for piece in [big[1], big[2], small] {
                let mut bytes = vec![0; scene.geometry().len_of(piece) as usize];
                let refused = store.read_piece(piece, &mut bytes);
                assert!(
                    matches!(refused, Err(StorageError::NotHeld { .. })),
                    "piece {piece}: {refused:?}"
                );
            }
            let mut bytes = vec![0; scene.geometry().len_of(big[0]) as usize];
            store.read_piece(big[0], &mut bytes).unwrap();
            // Nobody could tell what becomes of later writes: see `naming`.
            scene.write(&store, later).unwrap_err();
            store.sync().unwrap_err();
            assert!(!scene.at("sub/small").exists());
            drop(store);
            let (_, held) = scene.resume();
            assert_eq!(held.iter().collect::<Vec<_>>(), [big[0]]);
        });
    }
}

#[test]
fn a_cut_record_is_on_the_disk_before_anything_is_appended() {
    let scene = Scene::folder();
    let (store, _) = scene.open(&scene.target()).unwrap();
    scene.write(&store, scene.pieces("big")[0]).unwrap();
    drop(store);
    let path = scene.part().join("record");
    let whole = fs::read(&path).unwrap();
    for torn in [&whole[..whole.len() - 1], b"no record at all".as_slice()] {
        fs::write(&path, torn).unwrap();
        let (events, mut watcher, ()) = watched(&scene, 1, || {
            let (store, _) = scene.open(&scene.target()).unwrap();
            scene.write(&store, scene.pieces("big")[1]).unwrap();
        });
        let record = watcher.id_of(fs::metadata(&path).unwrap().ino());
        let position = |wanted: &dyn Fn(&Event) -> bool| events.iter().position(wanted).unwrap();
        let cut = position(&|event| matches!(event, Event::SetLen { id, .. } if *id == record));
        let synced = position(&|event| matches!(event, Event::SyncData { id } if *id == record));
        let appended = position(&|event| matches!(event, Event::Write { id, .. } if *id == record));
        assert!(cut < synced && synced < appended);
    }
}

#[test]
fn where_the_system_names_no_boots_unsynced_pieces_are_read_and_synced_by_every_run() {
    let scene = Scene::folder();
    let big = scene.pieces("big");
    let (events, ..) = watched(&scene, 0, || {
        let (store, _) = scene.open(&scene.target()).unwrap();
        scene.write(&store, big[0]).unwrap();
        store.sync().unwrap();
        scene.write(&store, big[1]).unwrap();
        scene.write(&store, big[2]).unwrap();
        drop(store);
        // The power fails, and one write is lost.
        let part = scene.part().join(part_name(&scene, big[0]));
        let file = fs::File::options().write(true).open(part).unwrap();
        let lost_at = scene.geometry().locate(big[2]).offset;
        std::os::unix::fs::FileExt::write_all_at(&file, &[0; 100], lost_at).unwrap();
        let (store, held) = scene.open(&scene.target()).unwrap();
        assert_eq!(held.iter().collect::<Vec<_>>(), big[..2]);
        // Or it did not fail: then what was read is perhaps still in memory only.
        scene.write(&store, scene.pieces("run")[0]).unwrap();
        store.sync().unwrap();
    });
    let file = made(&events, &part_name(&scene, big[0]));
    let written = events
        .iter()
        .rposition(|event| matches!(event, Event::Write { id, .. } if *id == file));
    assert!(syncs_file(&events[written.unwrap()..], file));
}
