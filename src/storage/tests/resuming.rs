//! What an earlier run left: every piece that is surely there is kept, nothing else counts.

use std::time::Instant;

use super::*;

#[test]
fn a_kill_after_any_piece_loses_none_and_reads_none_again() {
    let scene = Scene::folder();
    let (_, held) = scene.open(&scene.target()).unwrap();
    assert!(held.none());
    scene.fetch_killed_after_each_piece();
    scene.check_result();
}

#[test]
fn a_record_cut_at_any_byte_costs_pieces_and_never_the_fetch() {
    let scene = Scene::folder();
    let (store, _) = scene.open(&scene.target()).unwrap();
    // No file whole: published files would be found without the record.
    let some: Vec<_> = ["big", "sub/other"]
        .iter()
        .flat_map(|path| scene.pieces(path).split_off(2))
        .collect();
    for &piece in &some {
        scene.write(&store, piece).unwrap();
    }
    drop(store);
    let record = scene.part().join("record");
    let whole = fs::read(&record).unwrap();
    for len in (0..=whole.len()).rev() {
        fs::write(&record, &whole[..len]).unwrap();
        let (store, held) = scene.open(&scene.target()).unwrap();
        assert!(
            held.iter().all(|piece| some.contains(&piece)),
            "cut at {len}"
        );
        for piece in held.iter() {
            let mut bytes = vec![0; scene.geometry().len_of(piece) as usize];
            store.read_piece(piece, &mut bytes).unwrap();
            assert_eq!(bytes, scene.bytes(piece), "cut at {len}");
        }
    }
    let (store, held) = scene.open(&scene.target()).unwrap();
    assert!(held.none());
    scene.write_all(&store);
    store.finish().unwrap();
    scene.check_result();
}

#[test]
fn unreadable_leftovers_in_the_part_folder_are_no_error() {
    for name in ["record", "manifest", "hashes"] {
        for bytes in [&b""[..], &[0xff; 3000]] {
            let scene = Scene::folder();
            let (store, _) = scene.open(&scene.target()).unwrap();
            scene.write(&store, scene.pieces("big")[0]).unwrap();
            drop(store);
            fs::write(scene.part().join(name), bytes).unwrap();
            let id = scene.share.manifest.id();
            let found = PartFolder::open_existing(&scene.target(), &id).unwrap();
            assert_eq!(found.is_some(), name == "record", "{name}");
            drop(found);
            let (store, held) = scene.open(&scene.target()).unwrap();
            assert_eq!(held.count(), u32::from(name != "record"), "{name}");
            drop(store);
            // Whole again for the next run.
            assert!(
                PartFolder::open_existing(&scene.target(), &id)
                    .unwrap()
                    .is_some(),
                "{name}"
            );
        }
    }
}

#[test]
fn a_part_file_that_is_missing_or_short_counts_as_not_held() {
    for damage in ["remove", "cut"] {
        let scene = Scene::folder();
        let (store, _) = scene.open(&scene.target()).unwrap();
        let piece = scene.pieces("big")[1];
        scene.write(&store, piece).unwrap();
        drop(store);
        let part = scene
            .part()
            .join(format!("{:x}", scene.geometry().locate(piece).file.get()));
        match damage {
            "remove" => fs::remove_file(&part).unwrap(),
            _ => fs::File::options()
                .write(true)
                .open(&part)
                .unwrap()
                .set_len(100)
                .unwrap(),
        }
        let (store, held) = scene.resume();
        assert!(held.none(), "{damage}");
        scene.write_all(&store);
        store.finish().unwrap();
        scene.check_result();
    }
}

#[test]
fn a_resumed_file_that_is_read_first_can_still_be_written() {
    let scene = Scene::folder();
    let pieces = scene.pieces("big");
    let (store, _) = scene.open(&scene.target()).unwrap();
    scene.write(&store, pieces[0]).unwrap();
    drop(store);
    let (store, _) = scene.resume();
    let mut bytes = vec![0; scene.geometry().len_of(pieces[0]) as usize];
    store.read_piece(pieces[0], &mut bytes).unwrap();
    scene.write_all(&store);
    store.finish().unwrap();
    scene.check_result();
}

#[test]
fn a_partial_of_8_gib_opens_at_once_and_takes_no_space_for_holes() {
    let folder = tempfile::tempdir().unwrap();
    let (manifest, hashes) = repeated(1, 8 << 30);
    let id = manifest.id();
    let target = Target {
        dir: folder.path().to_path_buf(),
        output: None,
        overwrite: false,
    };
    let geometry = manifest.geometry().clone();
    let all = Chosen::all(&manifest);
    let (store, _) = FetchStore::open(
        &target,
        manifest,
        hashes.clone(),
        all.clone(),
        None,
        &|_, _| {},
    )
    .unwrap();
    let last = PieceIndex::new(geometry.piece_count() - 1);
    let bytes = vec![1; geometry.len_of(last) as usize];
    store
        .write_piece(hashes.verify(&geometry, last, &bytes).unwrap())
        .unwrap();
    drop(store);
    let part = folder
        .path()
        .join(format!(".shoal-{}.part", &id.to_string()[..16]));
    let meta = fs::metadata(part.join("0")).unwrap();
    assert_eq!(meta.len(), 8 << 30);
    assert!(meta.blocks() * 512 < 64 << 20, "{} blocks", meta.blocks());
    // As if all but the first piece had arrived.
    let record = fs::File::options()
        .read(true)
        .write(true)
        .open(part.join("record"))
        .unwrap();
    let (mut record, _) = record::Record::open(record, &id, &geometry, &os::boot_id()).unwrap();
    for piece in geometry.pieces().skip(1) {
        record.append(record::Entry::Held(piece)).unwrap();
    }
    drop(record);
    let start = Instant::now();
    let found = PartFolder::open_existing(&target, &id).unwrap().unwrap();
    let (manifest, hashes) = (found.manifest.clone(), found.hashes.clone());
    let (_store, held) =
        FetchStore::open(&target, manifest, hashes, all, Some(found), &|_, _| {}).unwrap();
    assert_eq!(held.count(), geometry.piece_count() - 1);
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_published_file_changed_between_runs_is_checked_again() {
    let scene = Scene::folder();
    let (store, _) = scene.open(&scene.target()).unwrap();
    for piece in scene.pieces("big") {
        scene.write(&store, piece).unwrap();
    }
    store.sync().unwrap();
    drop(store);
    // Touched but equal: adopted.
    let copy = scene.dir().join("copy");
    fs::copy(scene.at("big"), &copy).unwrap();
    fs::rename(&copy, scene.at("big")).unwrap();
    let (store, held) = scene.open(&scene.target()).unwrap();
    assert_eq!(held.count() as usize, scene.pieces("big").len());
    drop(store);
    // Edited: the user's now.
    fs::write(scene.at("big"), noise(BIG, 8)).unwrap();
    let error = scene.open(&scene.target()).unwrap_err();
    assert!(
        matches!(error, StorageError::TargetDiffers { .. }),
        "{error:?}"
    );
    let (store, held) = scene.open(&scene.overwriting()).unwrap();
    assert!(held.none());
    drop(store);
    // Removed: fetched again.
    fs::remove_file(scene.at("big")).unwrap();
    let (store, held) = scene.resume();
    assert!(held.none());
    scene.write_all(&store);
    store.finish().unwrap();
    scene.check_result();
}

#[test]
fn a_kill_between_the_last_piece_and_its_publication_is_made_good() {
    let scene = Scene::folder();
    let (store, _) = scene.open(&scene.target()).unwrap();
    for piece in scene.pieces("big") {
        scene.write(&store, piece).unwrap();
    }
    store.sync().unwrap();
    drop(store);
    let file = scene.geometry().locate(scene.pieces("big")[0]).file;
    let part = scene.part().join(format!("{:x}", file.get()));
    let record = scene.part().join("record");
    let entry_len = 1 + 4 + 8 + 16 + 16 + 8 + 4;
    let cut = || {
        let len = fs::metadata(&record).unwrap().len();
        fs::File::options()
            .write(true)
            .open(&record)
            .unwrap()
            .set_len(len - entry_len)
            .unwrap();
    };
    // Renamed, not recorded.
    cut();
    let (store, held) = scene.open(&scene.target()).unwrap();
    assert_eq!(held.count() as usize, scene.pieces("big").len());
    drop(store);
    // Recorded whole, not renamed.
    cut();
    fs::rename(scene.at("big"), &part).unwrap();
    let (store, held) = scene.resume();
    assert_eq!(held.count() as usize, scene.pieces("big").len());
    store.sync().unwrap();
    assert!(scene.at("big").exists());
    scene.write_all(&store);
    store.finish().unwrap();
    scene.check_result();
}

#[test]
fn after_a_restart_of_the_machine_unsynced_pieces_are_read_before_they_count() {
    let scene = Scene::folder();
    let (store, _) = scene.open(&scene.target()).unwrap();
    let big = scene.pieces("big");
    let other = scene.pieces("sub/other");
    scene.write(&store, big[0]).unwrap();
    for &piece in &other {
        scene.write(&store, piece).unwrap();
    }
    // The name of `sub/other` comes after the record's word for its bytes, and waits for the next one.
    store.sync().unwrap();
    scene.write(&store, big[1]).unwrap();
    scene.write(&store, big[2]).unwrap();
    drop(store);
    let as_if_restarted = |scene: &Scene| {
        let path = scene.part().join("record");
        let mut options = fs::File::options();
        let file = options.read(true).write(true).open(path).unwrap();
        let id = scene.share.manifest.id();
        let (mut record, _) =
            record::Record::open(file, &id, scene.geometry(), &os::boot_id()).unwrap();
        record.append(record::Entry::Boot([7; 16])).unwrap();
    };
    as_if_restarted(&scene);
    // Lost by the power failure: one unsynced piece, and, as if the disk lied, the middle of a published file.
    let part = scene
        .part()
        .join(format!("{:x}", scene.geometry().locate(big[0]).file.get()));
    let zero = |path: &Path, offset: u64| {
        let file = fs::File::options().write(true).open(path).unwrap();
        disk::write_all_at(&file, &[0; 100], offset).unwrap();
    };
    zero(&part, u64::from(scene.geometry().piece_len()) * 2);
    zero(&scene.at("sub/other"), 150_000);
    // What is left of the torn file is a part again, without `overwrite`: it is ours.
    let torn = scene.geometry().piece_len();
    let mut expected = vec![big[0], big[1]];
    expected.extend(
        other
            .iter()
            .enumerate()
            .filter(|(at, _)| *at as u32 != 150_000 / torn)
            .map(|(_, piece)| *piece),
    );
    let (store, held) = scene.open(&scene.target()).unwrap();
    assert_eq!(held.iter().collect::<Vec<_>>(), expected);
    assert!(!scene.at("sub/other").exists());
    drop(store);
    let (store, held) = scene.resume();
    assert_eq!(held.iter().collect::<Vec<_>>(), expected);
    scene.write_all(&store);
    store.finish().unwrap();
    scene.check_result();
}

#[test]
fn a_rename_undone_by_a_power_loss_costs_no_piece() {
    let scene = Scene::folder();
    let (store, _) = scene.open(&scene.target()).unwrap();
    let pieces = scene.pieces("big");
    for &piece in &pieces {
        scene.write(&store, piece).unwrap();
    }
    store.sync().unwrap();
    drop(store);
    let file = scene.geometry().locate(pieces[0]).file;
    fs::rename(
        scene.at("big"),
        scene.part().join(format!("{:x}", file.get())),
    )
    .unwrap();
    let (store, held) = scene.open(&scene.target()).unwrap();
    assert_eq!(held.iter().collect::<Vec<_>>(), pieces);
    scene.write_all(&store);
    store.finish().unwrap();
    scene.check_result();
}
