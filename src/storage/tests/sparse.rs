//! Pieces of zeros are held without being fetched, and lie in holes, whatever lay in their places before.

use std::os::unix::fs::FileExt;

use super::*;
use crate::content::PIECE_LEN_MIN;

const PIECE: usize = 4 * PIECE_LEN_MIN as usize;

/// `mixed` has pieces of data, of zeros (1 to 3, 6, and a short last one) and one that is both; the rest is what its name says.
fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("source/tree");
    fs::create_dir_all(&top).unwrap();
    let mut mixed = noise(7 * PIECE + 100, 1);
    mixed[PIECE..4 * PIECE].fill(0);
    mixed[4 * PIECE + 8192..5 * PIECE].fill(0);
    mixed[6 * PIECE..].fill(0);
    fs::write(top.join("mixed"), mixed).unwrap();
    fs::write(top.join("plain"), noise(BIG, 2)).unwrap();
    fs::write(top.join("zeros of five pieces"), vec![0; 5 * PIECE - 1]).unwrap();
    fs::write(top.join("zeros of one piece"), [0; 5000]).unwrap();
    let scene = Scene::of(folder, &top);
    assert_eq!(scene.geometry().piece_len() as usize, PIECE);
    scene
}

fn is_zeros(scene: &Scene, piece: PieceIndex) -> bool {
    scene.bytes(piece).iter().all(|byte| *byte == 0)
}

fn pieces_of_zeros(scene: &Scene) -> Vec<PieceIndex> {
    let pieces = scene.geometry().pieces();
    pieces.filter(|piece| is_zeros(scene, *piece)).collect()
}

fn part_file(scene: &Scene, path: &str) -> PathBuf {
    let file = scene.geometry().locate(scene.pieces(path)[0]).file;
    scene.part().join(part::file_name(file))
}

fn overwrite(path: &Path, offset: usize, bytes: &[u8]) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset as u64).unwrap();
}

/// Makes the record say that the last run was before the machine was started anew.
fn as_if_restarted(scene: &Scene) {
    let path = scene.part().join("record");
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let id = scene.share.manifest.id();
    let opened = record::Record::open(file, &id, scene.geometry(), &os::boot_id());
    let (mut record, _) = opened.unwrap();
    record.append(record::Entry::Boot([7; 16])).unwrap();
}

#[test]
fn pieces_of_zeros_are_held_from_the_beginning_and_take_no_space() {
    let scene = scene();
    let (store, held) = scene.open(&scene.target()).unwrap();
    assert_eq!(held.iter().collect::<Vec<_>>(), pieces_of_zeros(&scene));
    for piece in held.iter() {
        let mut bytes = vec![1; scene.geometry().len_of(piece) as usize];
        store.read_piece(piece, &mut bytes).unwrap();
        assert_eq!(bytes, scene.bytes(piece));
    }
    scene.write_missing(&store, &held);
    store.finish().unwrap();
    scene.check_result();
    let taken = |path: &str| fs::metadata(scene.at(path)).unwrap().blocks() * 512;
    // Two whole pieces of data and the 8 KiB of the third.
    assert_eq!(taken("mixed"), 2 * PIECE as u64 + 8192);
    assert_eq!(
        taken("zeros of five pieces") + taken("zeros of one piece"),
        0
    );
    for piece in held.iter() {
        let mut bytes = vec![1; scene.geometry().len_of(piece) as usize];
        store.read_piece(piece, &mut bytes).unwrap();
        assert_eq!(bytes, scene.bytes(piece));
    }
}

#[test]
fn zeros_need_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let len = (os::space_at(folder.path()).unwrap().free + 1).next_power_of_two();
    let target = Target {
        dir: folder.path().join("new"),
        output: None,
        overwrite: false,
    };
    let (manifest, hashes) = repeated(0, len);
    let all = Chosen::all(&manifest);
    FetchStore::open(&target, manifest, hashes, all, None, &|_, _| {}).unwrap();
}

#[test]
fn a_share_of_nothing_but_zeros_needs_no_piece() {
    for len in [1, PIECE, 9 * PIECE + 1] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("source/zeros");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![0; len]).unwrap();
        let scene = Scene::of(folder, &path);
        let (store, held) = scene.open(&scene.target()).unwrap();
        assert!(held.is_full());
        store.finish().unwrap();
        assert_eq!(fs::read(scene.dir().join("zeros")).unwrap(), vec![0; len]);
        assert_eq!(names(&scene.dir()), ["zeros"]);
    }
}

#[test]
fn files_that_are_not_chosen_are_not_made_of_their_zeros() {
    let scene = scene();
    let Imported {
        manifest, hashes, ..
    } = &scene.share;
    let only = Globs::read(&[] as &[PathBuf], &["plain".to_owned()]).unwrap();
    let chosen = Chosen::of(manifest, &only).unwrap();
    let (manifest, hashes) = (manifest.clone(), hashes.clone());
    let opened = FetchStore::open(&scene.target(), manifest, hashes, chosen, None, &|_, _| {});
    let (store, held) = opened.unwrap();
    assert!(held.none());
    for piece in scene.pieces("plain") {
        scene.write(&store, piece).unwrap();
    }
    store.finish().unwrap();
    assert_eq!(names(&scene.dir().join("tree")), ["plain"]);
    assert_eq!(names(&scene.dir()), ["tree"]);
}

#[test]
fn a_kill_at_any_time_loses_no_piece_and_leaves_the_holes() {
    let scene = scene();
    scene.fetch_killed_after_each_piece();
    scene.check_result();
    let taken = fs::metadata(scene.at("mixed")).unwrap().blocks() * 512;
    assert_eq!(taken, 2 * PIECE as u64 + 8192);
}

#[test]
fn what_lies_in_a_part_file_that_no_record_vouches_for_is_gone_before_anything_is_stored() {
    let paths = ["mixed", "zeros of five pieces", "zeros of one piece"];
    for change in [0, 5, -5] {
        let scene = scene();
        drop(scene.open(&scene.target()).unwrap());
        for path in paths {
            let len = fs::metadata(scene.folder.path().join("source/tree").join(path));
            let len = len.unwrap().len().checked_add_signed(change).unwrap();
            fs::write(part_file(&scene, path), noise(len as usize, 9)).unwrap();
        }
        scene.resume_to_the_end();
    }
}

#[test]
fn a_part_file_of_another_length_keeps_nothing() {
    let scene = scene();
    let mixed = scene.pieces("mixed");
    let (store, _) = scene.open(&scene.target()).unwrap();
    scene.write(&store, mixed[0]).unwrap();
    scene.write(&store, mixed[4]).unwrap();
    drop(store);
    fs::write(part_file(&scene, "mixed"), noise(7 * PIECE, 9)).unwrap();
    let (store, held) = scene.resume();
    assert_eq!(held.iter().collect::<Vec<_>>(), pieces_of_zeros(&scene));
    scene.write_missing(&store, &held);
    store.finish().unwrap();
    scene.check_result();
}

#[test]
fn a_piece_that_was_lost_is_written_whole_also_by_a_later_run() {
    for is_killed in [false, true] {
        let scene = scene();
        let mixed = scene.pieces("mixed");
        let (store, _) = scene.open(&scene.target()).unwrap();
        scene.write(&store, mixed[0]).unwrap();
        scene.write(&store, mixed[4]).unwrap();
        drop(store);
        // In the part of the piece that is zeros.
        overwrite(&part_file(&scene, "mixed"), 5 * PIECE - 100, b"torn");
        as_if_restarted(&scene);
        let (mut store, mut held) = scene.open(&scene.target()).unwrap();
        assert!(held.contains(mixed[0]) && !held.contains(mixed[4]));
        if is_killed {
            drop(store);
            (store, held) = scene.resume();
        }
        scene.write_missing(&store, &held);
        store.finish().unwrap();
        scene.check_result();
    }
}

#[test]
fn zeros_of_a_published_file_that_is_torn_are_made_zeros_again() {
    for is_undone in [false, true] {
        let scene = scene();
        let (store, held) = scene.open(&scene.target()).unwrap();
        for piece in scene.pieces("mixed") {
            scene.write(&store, piece).unwrap();
        }
        store.sync().unwrap();
        drop(store);
        overwrite(&scene.at("mixed"), 2 * PIECE, b"torn");
        overwrite(&scene.at("mixed"), 5 * PIECE, b"torn");
        as_if_restarted(&scene);
        if is_undone {
            fs::rename(scene.at("mixed"), part_file(&scene, "mixed")).unwrap();
        }
        let (store, again) = scene.open(&scene.target()).unwrap();
        let mixed = scene.pieces("mixed");
        assert!(
            again.contains(mixed[2]) && !again.contains(mixed[5]),
            "{held:?}"
        );
        drop(store);
        // Killed after that: what was put right stays so.
        scene.resume_to_the_end();
    }
}

#[test]
fn a_sparse_file_is_imported_adopted_and_compared_by_its_holes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("source/sparse");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = fs::File::create(&path).unwrap();
    let len = 300 * PIECE as u64 + 1;
    file.set_len(len).unwrap();
    file.write_all_at(&noise(10_000, 1), 77 * PIECE as u64)
        .unwrap();
    let scene = Scene::of(folder, &path);
    // The same bytes without a hole.
    let dense = scene.folder.path().join("dense");
    fs::write(&dense, fs::read(&path).unwrap()).unwrap();
    let never = AtomicBool::new(false);
    let options = ImportOptions {
        name: Some(Name::parse("sparse").unwrap()),
        ..ImportOptions::default()
    };
    let read = import(&[dense], &options, &|_| {}, &never).unwrap();
    assert_eq!(read.manifest.id(), scene.share.manifest.id());

    let (store, held) = scene.open(&scene.target()).unwrap();
    assert_eq!(held.count(), 300);
    scene.write_missing(&store, &held);
    store.finish().unwrap();
    drop(store);
    let (_, held) = scene.open(&scene.target()).unwrap();
    assert!(held.is_full());
    let verdict = |path: &Path| {
        let Imported {
            manifest, hashes, ..
        } = &scene.share;
        compare(manifest, hashes, path, &|_, _| {}, &never).unwrap()
    };
    let result = scene.dir().join("sparse");
    assert_eq!(verdict(&result), [Verdict::Same]);
    // A hole where data belongs.
    let file = fs::File::options().write(true).open(&result).unwrap();
    file.set_len(0).unwrap();
    file.set_len(len).unwrap();
    assert_eq!(verdict(&result), [Verdict::Differs]);
}
