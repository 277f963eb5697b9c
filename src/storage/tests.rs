//! The room as its callers see it: import, fetch, kill, resume.
//!
//! A store that is dropped stands for a killed process: nothing in this room acts on drop but the lock, which the system
//! drops with a process too.
#![allow(clippy::unwrap_used)]

mod crashes;
mod faults;
mod order;
mod power;
mod share64;
mod sparse;
mod swapper;
mod times;
pub(super) mod watching;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::fetch::Claim;
use super::*;
use crate::content::{
    Bitfield, Digest, Entry, EntryKind, Geometry, Layout, Manifest, Name, PieceHashes,
    RelativePath, hash_piece, layer_root,
};

const BIG: usize = 300_000;

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mix = |at: u64| (at ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..len as u64).map(|at| (mix(at) >> 40) as u8).collect()
}

/// What is put in the way, and its name or place.
type Making = (&'static str, fn(&Path));

/// A share, and a place to fetch it to.
struct Scene {
    folder: tempfile::TempDir,
    share: Imported,
}

impl Scene {
    /// A folder with one of everything.
    fn folder() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path().join("source/tree");
        fs::create_dir_all(top.join("sub/hollow")).unwrap();
        fs::write(top.join("big"), noise(BIG, 1)).unwrap();
        fs::write(top.join("none"), b"").unwrap();
        fs::write(top.join("run"), b"#!/bin/sh\n").unwrap();
        fs::set_permissions(top.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(top.join("sub/other"), noise(BIG, 2)).unwrap();
        fs::write(top.join("sub/small"), b"small").unwrap();
        symlink("../big", top.join("sub/link")).unwrap();
        Self::of(folder, &top)
    }

    fn file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("source/one.bin");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, noise(BIG, 3)).unwrap();
        Self::of(folder, &path)
    }

    fn of(folder: tempfile::TempDir, path: &Path) -> Self {
        let paths = [path.to_path_buf()];
        let never = AtomicBool::new(false);
        let share = import(&paths, &ImportOptions::default(), &|_| {}, &never).unwrap();
        Self { folder, share }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("down")
    }

    /// Path of something in the result.
    fn at(&self, path: &str) -> PathBuf {
        self.dir().join("tree").join(path)
    }

    fn target(&self) -> Target {
        Target {
            dir: self.dir(),
            output: None,
            overwrite: false,
        }
    }

    fn overwriting(&self) -> Target {
        Target {
            overwrite: true,
            ..self.target()
        }
    }

    fn part(&self) -> PathBuf {
        let id = self.share.manifest.id().to_string();
        self.dir().join(format!(".shoal-{}.part", &id[..16]))
    }

    fn open(&self, target: &Target) -> Result<(FetchStore, Bitfield), StorageError> {
        let Imported {
            manifest, hashes, ..
        } = &self.share;
        let chosen = Chosen::all(manifest);
        FetchStore::open(
            target,
            manifest.clone(),
            hashes.clone(),
            chosen,
            None,
            &|_, _| {},
        )
    }

    /// As a later run does it: with nothing but the share id.
    fn resume(&self) -> (FetchStore, Bitfield) {
        let found = PartFolder::open_existing(&self.target(), &self.share.manifest.id());
        let found = found.unwrap().unwrap();
        let (manifest, hashes) = (found.manifest.clone(), found.hashes.clone());
        FetchStore::open(
            &self.target(),
            manifest,
            hashes,
            Chosen::all(&self.share.manifest),
            Some(found),
            &|bytes, _| {
                assert_eq!(bytes, 0, "a resumed fetch reads no data");
            },
        )
        .unwrap()
    }

    fn geometry(&self) -> &Geometry {
        self.share.manifest.geometry()
    }

    fn bytes(&self, piece: PieceIndex) -> Vec<u8> {
        let mut bytes = vec![0; self.geometry().len_of(piece) as usize];
        self.share.store.read_piece(piece, &mut bytes).unwrap();
        bytes
    }

    fn write(
        &self,
        store: &FetchStore,
        piece: PieceIndex,
    ) -> Result<Option<FileIndex>, StorageError> {
        let bytes = self.bytes(piece);
        store.write_piece(
            self.share
                .hashes
                .verify(self.geometry(), piece, &bytes)
                .unwrap(),
        )
    }

    fn write_missing(&self, store: &FetchStore, held: &Bitfield) {
        for piece in held.iter_zeros() {
            self.write(store, piece).unwrap();
        }
    }

    /// A whole fetch in as many runs as there are pieces to write, none of which ends by itself.
    fn fetch_killed_after_each_piece(&self) {
        let (store, mut expected) = self.open(&self.target()).unwrap();
        drop(store);
        for piece in expected.clone().iter_zeros() {
            let (store, held) = self.resume();
            assert_eq!(held, expected);
            self.write(&store, piece).unwrap();
            expected.insert(piece);
        }
        let (store, held) = self.resume();
        assert!(held.is_full());
        store.finish().unwrap();
    }

    /// What the run after a kill does, to the end.
    fn resume_to_the_end(&self) {
        let (store, held) = self.resume();
        self.write_missing(&store, &held);
        store.finish().unwrap();
        self.check_result();
    }

    fn write_all(&self, store: &FetchStore) {
        for piece in self.geometry().pieces() {
            self.write(store, piece).unwrap();
        }
    }

    /// Pieces of the file at `path`.
    fn pieces(&self, path: &str) -> Vec<PieceIndex> {
        let (file, _) = self
            .share
            .manifest
            .files()
            .find(|(_, entry)| entry.path.as_str() == path)
            .unwrap();
        self.geometry()
            .file_pieces(file)
            .map(PieceIndex::new)
            .collect()
    }

    /// That the result is the source, byte for byte, and nothing else lies beside it.
    fn check_result(&self) {
        assert_eq!(
            list(&self.dir().join("tree")),
            list(&self.folder.path().join("source/tree"))
        );
        assert_eq!(names(&self.dir()), ["tree"]);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Everything below `folder`: path, and what it is.
fn list(folder: &Path) -> Vec<(String, String)> {
    fn walk(folder: &Path, prefix: &str, out: &mut Vec<(String, String)>) {
        for name in names(folder) {
            let path = folder.join(&name);
            let meta = fs::symlink_metadata(&path).unwrap();
            let here = format!("{prefix}{name}");
            if meta.is_symlink() {
                out.push((
                    here,
                    format!("-> {}", fs::read_link(&path).unwrap().display()),
                ));
            } else if meta.is_dir() {
                out.push((here.clone(), "folder".to_owned()));
                walk(&path, &format!("{here}/"), out);
            } else {
                let runs = meta.mode() & 0o111 != 0;
                let digest = Digest::of(&fs::read(&path).unwrap());
                out.push((here, format!("{} bytes {digest} runs: {runs}", meta.len())));
            }
        }
    }
    let mut out = Vec::new();
    walk(folder, "", &mut out);
    out
}

#[test]
fn a_fetched_folder_equals_its_source_and_leaves_nothing_beside_it() {
    let scene = Scene::folder();
    let (store, held) = scene.open(&scene.target()).unwrap();
    assert!(held.none());
    assert!(matches!(
        store.finish().unwrap_err(),
        StorageError::Incomplete { .. }
    ));
    scene.write_all(&store);
    assert_eq!(store.finish().unwrap(), scene.dir().join("tree"));
    scene.check_result();
    assert_eq!(store.finish().unwrap(), scene.dir().join("tree"));
    // It goes on serving afterwards.
    for piece in scene.geometry().pieces() {
        let mut bytes = vec![0; scene.geometry().len_of(piece) as usize];
        store.read_piece(piece, &mut bytes).unwrap();
        assert_eq!(bytes, scene.bytes(piece));
    }
    store.sync().unwrap();
}

#[test]
fn a_file_gets_its_name_with_the_sync_after_its_last_piece_and_not_before() {
    let scene = Scene::folder();
    let (store, _) = scene.open(&scene.target()).unwrap();
    let pieces = scene.pieces("sub/other");
    let (last, first) = pieces.split_last().unwrap();
    for &piece in first {
        assert_eq!(scene.write(&store, piece).unwrap(), None);
    }
    assert!(!scene.at("sub/other").exists());
    let file = scene.geometry().locate(*last).file;
    store.sync().unwrap();
    assert_eq!(scene.write(&store, *last).unwrap(), Some(file));
    assert!(!scene.at("sub/other").exists());
    store.sync().unwrap();
    assert_eq!(fs::read(scene.at("sub/other")).unwrap(), noise(BIG, 2));
    assert_eq!(scene.write(&store, *last).unwrap(), None);
}

#[test]
fn held_pieces_are_read_back_before_and_after_publishing() {
    let scene = Scene::folder();
    let (store, _) = scene.open(&scene.target()).unwrap();
    for piece in scene.geometry().pieces() {
        let mut bytes = vec![0; scene.geometry().len_of(piece) as usize];
        let error = store.read_piece(piece, &mut bytes).unwrap_err();
        assert!(matches!(error, StorageError::NotHeld { .. }), "{error:?}");
        scene.write(&store, piece).unwrap();
        store.read_piece(piece, &mut bytes).unwrap();
        assert_eq!(bytes, scene.bytes(piece));
        store.sync().unwrap();
        store.read_piece(piece, &mut bytes).unwrap();
        assert_eq!(bytes, scene.bytes(piece));
    }
}

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
fn two_fetches_of_one_share_to_one_place_do_not_run_at_once() {
    let scene = Scene::folder();
    let (store, _) = scene.open(&scene.target()).unwrap();
    let error = scene.open(&scene.target()).unwrap_err();
    assert!(matches!(error, StorageError::Busy { .. }), "{error:?}");
    assert_eq!(error.exit_class(), ErrorClass::Exists);
    let id = scene.share.manifest.id();
    let error = PartFolder::open_existing(&scene.target(), &id).unwrap_err();
    assert!(matches!(error, StorageError::Busy { .. }), "{error:?}");
    scene.write_all(&store);
    store.finish().unwrap();
    scene.check_result();
}

#[test]
fn threads_may_write_and_read_pieces_at_once() {
    let scene = Scene::folder();
    let (store, _) = scene.open(&scene.target()).unwrap();
    let published = AtomicU64::new(0);
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let (scene, store, published, start) = (&scene, &store, &published, &start);
            scope.spawn(move || {
                start.wait();
                let mut pieces: Vec<_> = scene.geometry().pieces().collect();
                // Two pairs: each piece is written by all, by two of them in the same order.
                if thread % 2 == 1 {
                    pieces.reverse();
                }
                for piece in pieces {
                    if scene.write(store, piece).unwrap().is_some() {
                        published.fetch_add(1, Ordering::Relaxed);
                    }
                    let mut bytes = vec![0; scene.geometry().len_of(piece) as usize];
                    store.read_piece(piece, &mut bytes).unwrap();
                    assert_eq!(bytes, scene.bytes(piece));
                }
            });
        }
    });
    assert_eq!(
        published.load(Ordering::Relaxed),
        4,
        "each file is reported whole once"
    );
    store.finish().unwrap();
    scene.check_result();
}

#[test]
fn who_waits_for_a_piece_goes_on_when_its_writer_is_done_or_gave_up() {
    let scene = Scene::folder();
    let (store, _) = scene.open(&scene.target()).unwrap();
    let piece = scene.geometry().pieces().next().unwrap();
    let claim = Claim::take(&store, piece).expect("nobody writes it");
    let (entering, entered) = std::sync::mpsc::sync_channel(1);
    let (done, finished) = std::sync::mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        let (scene, store) = (&scene, &store);
        scope.spawn(move || {
            entering.send(()).unwrap();
            done.send(scene.write(store, piece).is_ok()).unwrap();
        });
        entered.recv().unwrap();
        // The other thread is at the lock or waits behind the claim; both must end when the claim does.
        assert!(finished.recv_timeout(Duration::from_millis(100)).is_err());
        drop(claim);
        let written = finished.recv_timeout(Duration::from_secs(20));
        if written.is_err() {
            // Lets the scope end, so that the failure is told instead of hanging.
            store.written.notify_all();
        }
        assert_eq!(written, Ok(true), "the waiting thread was not woken");
    });
}

#[test]
fn an_equal_target_is_adopted_without_a_part_folder() {
    let scene = Scene::folder();
    let (store, _) = scene.open(&scene.target()).unwrap();
    scene.write_all(&store);
    store.finish().unwrap();
    drop(store);
    fs::remove_file(scene.at("sub/link")).unwrap();
    fs::remove_dir(scene.at("sub/hollow")).unwrap();
    fs::remove_file(scene.at("none")).unwrap();
    fs::set_permissions(scene.at("run"), fs::Permissions::from_mode(0o644)).unwrap();
    let Imported {
        manifest, hashes, ..
    } = &scene.share;
    let seen = AtomicU64::new(0);
    let progress = |bytes, of| {
        assert_eq!(of, manifest.geometry().total_len());
        seen.fetch_max(bytes, Ordering::Relaxed);
    };
    let (store, held) = FetchStore::open(
        &scene.target(),
        manifest.clone(),
        hashes.clone(),
        Chosen::all(manifest),
        None,
        &progress,
    )
    .unwrap();
    assert_eq!(
        seen.load(Ordering::Relaxed),
        manifest.geometry().total_len()
    );
    assert!(held.is_full());
    assert!(!scene.part().exists());
    store.finish().unwrap();
    scene.check_result();
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
fn equal_files_are_adopted_and_only_the_others_are_fetched() {
    let scene = Scene::folder();
    fs::create_dir_all(scene.at("sub")).unwrap();
    fs::write(scene.at("big"), noise(BIG, 1)).unwrap();
    fs::write(scene.at("sub/small"), b"small").unwrap();
    fs::write(scene.at("not in the share"), b"mine").unwrap();
    let (store, held) = scene.open(&scene.target()).unwrap();
    assert_eq!(held.count() as usize, scene.pieces("big").len() + 1);
    drop(store);
    // The second time the record knows them.
    let (store, again) = scene.resume();
    assert_eq!(held, again);
    scene.write_all(&store);
    store.finish().unwrap();
    assert_eq!(fs::read(scene.at("not in the share")).unwrap(), b"mine");
    fs::remove_file(scene.at("not in the share")).unwrap();
    scene.check_result();
}

#[test]
fn a_different_file_is_refused_and_nothing_is_touched() {
    let different: [Making; 6] = [
        ("length", |path| fs::write(path, b"short").unwrap()),
        ("content", |path| fs::write(path, noise(BIG, 9)).unwrap()),
        ("last byte", |path| {
            let mut bytes = noise(BIG, 1);
            bytes[BIG - 1] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("folder", |path| fs::create_dir(path).unwrap()),
        ("link", |path| symlink("elsewhere", path).unwrap()),
        ("link to an equal file", |path| {
            fs::write(path.with_file_name("aside"), noise(BIG, 1)).unwrap();
            symlink("aside", path).unwrap();
        }),
    ];
    for (what, make) in different {
        let scene = Scene::folder();
        fs::create_dir_all(scene.at("")).unwrap();
        make(&scene.at("big"));
        let before = list(&scene.dir());
        let error = scene.open(&scene.target()).unwrap_err();
        let named =
            matches!(&error, StorageError::TargetDiffers { path } if *path == scene.at("big"));
        assert!(named, "{what}: {error:?}");
        assert_eq!(error.exit_class(), ErrorClass::Exists);
        assert_eq!(list(&scene.dir()), before, "{what}");
    }
}

#[test]
fn a_different_link_folder_or_empty_file_is_refused_too() {
    let different: [Making; 4] = [
        ("none", |path| fs::write(path, b"not empty").unwrap()),
        ("sub/link", |path| symlink("../run", path).unwrap()),
        ("sub/hollow", |path| fs::write(path, b"").unwrap()),
        ("", |path| {
            fs::remove_dir_all(path).unwrap();
            fs::write(path, b"file with the name of the folder").unwrap();
        }),
    ];
    for (path, make) in different {
        let scene = Scene::folder();
        fs::create_dir_all(scene.at("sub")).unwrap();
        make(&PathBuf::from(
            scene.at(path).to_str().unwrap().trim_end_matches('/'),
        ));
        let before = list(&scene.dir());
        let error = scene.open(&scene.target()).unwrap_err();
        assert!(
            matches!(error, StorageError::TargetDiffers { .. }),
            "{path}: {error:?}"
        );
        assert_eq!(list(&scene.dir()), before, "{path}");
    }
}

#[test]
fn overwriting_replaces_each_file_when_its_successor_is_whole() {
    let scene = Scene::folder();
    fs::create_dir_all(scene.at("sub")).unwrap();
    fs::write(scene.at("big"), b"old").unwrap();
    fs::write(scene.at("none"), b"old").unwrap();
    fs::write(scene.at("sub/other"), noise(BIG, 9)).unwrap();
    symlink("/etc", scene.at("sub/small")).unwrap();
    symlink("/etc", scene.at("sub/link")).unwrap();
    let (store, held) = scene.open(&scene.overwriting()).unwrap();
    assert!(held.none());
    assert_eq!(fs::read(scene.at("big")).unwrap(), b"old");
    let pieces = scene.pieces("big");
    for &piece in &pieces[..2] {
        scene.write(&store, piece).unwrap();
    }
    drop(store);
    // The user's file is still there, so a resumed run has to be told again.
    assert!(matches!(
        scene.open(&scene.target()),
        Err(StorageError::TargetDiffers { .. })
    ));
    let (store, held) = scene.open(&scene.overwriting()).unwrap();
    assert_eq!(held.count(), 2);
    scene.write_all(&store);
    store.finish().unwrap();
    scene.check_result();
}

#[test]
fn a_folder_is_never_replaced_by_a_file() {
    let scene = Scene::folder();
    fs::create_dir_all(scene.at("big/mine")).unwrap();
    let error = scene.open(&scene.overwriting()).unwrap_err();
    assert!(
        matches!(error, StorageError::TargetDiffers { .. }),
        "{error:?}"
    );
    assert!(scene.at("big/mine").exists());
}

#[test]
fn a_file_that_appears_during_the_fetch_is_not_replaced() {
    let scene = Scene::folder();
    let (store, _) = scene.open(&scene.target()).unwrap();
    fs::create_dir_all(scene.at("sub")).unwrap();
    fs::write(scene.at("sub/small"), b"mine").unwrap();
    fs::write(scene.at("sub/other"), b"mine").unwrap();
    for path in ["big", "sub/small", "sub/other"] {
        for piece in scene.pieces(path) {
            scene.write(&store, piece).unwrap();
        }
        let named = store.sync();
        let is_in_the_way = matches!(named, Err(StorageError::TargetDiffers { .. }));
        assert_eq!(is_in_the_way, path != "big", "{path}: {named:?}");
    }
    assert!(scene.at("big").exists());
    assert_eq!(fs::read(scene.at("sub/small")).unwrap(), b"mine");
    assert_eq!(fs::read(scene.at("sub/other")).unwrap(), b"mine");
    // When it is out of the way, the fetch goes on.
    fs::remove_file(scene.at("sub/small")).unwrap();
    fs::remove_file(scene.at("sub/other")).unwrap();
    scene.write_all(&store);
    store.finish().unwrap();
    scene.check_result();
}

#[test]
fn a_link_planted_in_the_target_leads_no_write_outside() {
    for when in ["before", "during"] {
        let scene = Scene::folder();
        let outside = scene.folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::create_dir_all(scene.at("")).unwrap();
        let plant = || symlink(&outside, scene.at("sub")).unwrap();
        if when == "before" {
            plant();
            let error = scene.open(&scene.target()).unwrap_err();
            assert!(matches!(error, StorageError::Blocked { .. }), "{error:?}");
            assert_eq!(error.exit_class(), ErrorClass::Name);
            assert!(scene.open(&scene.overwriting()).is_err());
            assert!(!scene.part().exists());
        } else {
            let (store, _) = scene.open(&scene.target()).unwrap();
            plant();
            scene.write(&store, scene.pieces("sub/small")[0]).unwrap();
            let error = store.sync().unwrap_err();
            assert!(matches!(error, StorageError::Blocked { .. }), "{error:?}");
            for path in ["big", "run"] {
                for piece in scene.pieces(path) {
                    scene.write(&store, piece).unwrap();
                }
            }
            for piece in scene.pieces("sub/other") {
                let _ = scene.write(&store, piece);
            }
            assert!(store.finish().is_err());
        }
        assert_eq!(names(&outside), Vec::<String>::new(), "{when}");
    }
}

#[test]
fn a_failed_open_leaves_a_fresh_target_as_it_was() {
    let scene = Scene::file();
    let file = scene.folder.path().join("file");
    fs::write(&file, b"x").unwrap();
    let target = |dir: PathBuf, output| Target {
        dir,
        output,
        overwrite: false,
    };
    let error = scene.open(&target(file.join("below"), None)).unwrap_err();
    assert!(
        matches!(error, StorageError::NotAFolder { .. }),
        "{error:?}"
    );
    let error = scene
        .open(&target(scene.dir(), Some(PathBuf::from(".."))))
        .unwrap_err();
    assert!(
        matches!(error, StorageError::OutputName { .. }),
        "{error:?}"
    );
    fs::create_dir(scene.dir()).unwrap();
    fs::write(scene.dir().join("one.bin"), b"other").unwrap();
    scene.open(&target(scene.dir(), None)).unwrap_err();
    assert_eq!(names(&scene.dir()), ["one.bin"]);
    assert_eq!(names(scene.folder.path()), ["down", "file", "source"]);
}

#[test]
fn a_share_that_does_not_fit_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let len = (os::space_at(folder.path()).unwrap().free + 1).next_power_of_two();
    let (manifest, hashes) = repeated(1, len);
    let target = Target {
        dir: folder.path().join("new/deep"),
        output: None,
        overwrite: false,
    };
    let all = Chosen::all(&manifest);
    let error = FetchStore::open(&target, manifest, hashes, all, None, &|_, _| {}).unwrap_err();
    assert_eq!(error.exit_class(), ErrorClass::DiskFull);
    let StorageError::DiskFull { needed, free, .. } = error else {
        panic!("{error:?}")
    };
    assert!(needed >= len && free.unwrap() < needed);
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

/// A share of one file of nothing but `byte`, `len` a multiple of every piece length.
fn repeated(byte: u8, len: u64) -> (Manifest, PieceHashes) {
    let piece_len = crate::content::piece_len_for(&[len]);
    let geometry = Geometry::new(piece_len, &[len]).unwrap();
    let digest = hash_piece(&vec![byte; piece_len as usize], geometry.piece_width());
    let layer = vec![digest; geometry.piece_count() as usize];
    let root = Some(layer_root(&layer, geometry.piece_width()));
    let entry = Entry {
        path: RelativePath::parse("same").unwrap(),
        kind: EntryKind::File {
            len,
            root,
            executable: false,
        },
    };
    let name = Name::parse("same").unwrap();
    let manifest = Manifest::new(name, Layout::File, vec![entry]).unwrap();
    let hashes = PieceHashes::from_digests(&manifest, layer).unwrap();
    (manifest, hashes)
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
fn an_exact_output_path_is_used_and_the_part_folder_lies_beside_it() {
    for scene in [Scene::file(), Scene::folder()] {
        let output = scene.dir().join("a/b/result.x");
        let target = Target {
            dir: PathBuf::from("/nonexistent"),
            output: Some(output.clone()),
            overwrite: false,
        };
        let (store, _) = scene.open(&target).unwrap();
        assert_eq!(names(&scene.dir().join("a/b")).len(), 1);
        assert!(names(&scene.dir().join("a/b"))[0].starts_with(".shoal-"));
        scene.write_all(&store);
        assert_eq!(store.finish().unwrap(), output);
        assert_eq!(names(&scene.dir().join("a/b")), ["result.x"]);
        if output.is_file() {
            assert_eq!(fs::read(&output).unwrap(), noise(BIG, 3));
        } else {
            assert_eq!(
                list(&output),
                list(&scene.folder.path().join("source/tree"))
            );
        }
    }
}

#[test]
fn modes_come_from_the_umask_and_only_the_executable_bit_travels() {
    let scene = Scene::folder();
    let source = scene.folder.path().join("source/tree/run");
    fs::set_permissions(&source, fs::Permissions::from_mode(0o6777)).unwrap();
    let top = scene.folder.path().join("source/tree");
    let Scene { folder, .. } = scene;
    let scene = Scene::of(folder, &top);
    let (store, _) = scene.open(&scene.target()).unwrap();
    scene.write_all(&store);
    store.finish().unwrap();
    // What the system gives a new file and folder here.
    let probe = scene.folder.path().join("probe");
    fs::write(&probe, b"").unwrap();
    let plain = fs::metadata(&probe).unwrap().mode() & 0o7777;
    fs::create_dir(scene.folder.path().join("probe.d")).unwrap();
    let full = fs::metadata(scene.folder.path().join("probe.d"))
        .unwrap()
        .mode()
        & 0o7777;
    let mode = |path: &str| fs::metadata(scene.at(path)).unwrap().mode() & 0o7777;
    assert_eq!(mode("run"), full);
    for path in ["big", "none", "sub/small"] {
        assert_eq!(mode(path), plain, "{path}");
    }
    for path in ["", "sub", "sub/hollow"] {
        assert_eq!(mode(path), full, "{path}");
    }
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
fn a_published_file_that_changes_meanwhile_is_not_served() {
    let scene = Scene::folder();
    let (store, _) = scene.open(&scene.target()).unwrap();
    let piece = scene.pieces("sub/small")[0];
    scene.write(&store, piece).unwrap();
    store.sync().unwrap();
    let mut bytes = vec![0; 5];
    store.read_piece(piece, &mut bytes).unwrap();
    fs::write(scene.at("sub/small"), b"SMALL, and longer").unwrap();
    let error = store.read_piece(piece, &mut bytes).unwrap_err();
    assert!(
        matches!(error, StorageError::SourceChanged { .. }),
        "{error:?}"
    );
    fs::remove_file(scene.at("sub/small")).unwrap();
    let error = store.read_piece(piece, &mut bytes).unwrap_err();
    assert!(
        matches!(error, StorageError::SourceChanged { .. }),
        "{error:?}"
    );
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

#[test]
fn many_small_files_are_fetched_quickly() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("source/tree");
    for index in 0..3_000 {
        let sub = top.join(format!("{:02}", index % 50));
        if index < 50 {
            fs::create_dir_all(&sub).unwrap();
        }
        fs::write(sub.join(format!("{index}")), format!("content of {index}")).unwrap();
    }
    let scene = Scene::of(folder, &top);
    let (store, _) = scene.open(&scene.target()).unwrap();
    scene.write_all(&store);
    store.sync().unwrap();
    drop(store);
    let (store, held) = scene.resume();
    assert!(held.is_full());
    store.finish().unwrap();
    scene.check_result();
}

#[test]
fn a_long_name_is_fetched_too() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("source/tree");
    let name = "n".repeat(255);
    fs::create_dir_all(top.join(&name)).unwrap();
    fs::write(top.join(&name).join(&name), noise(BIG, 4)).unwrap();
    let scene = Scene::of(folder, &top);
    let (store, _) = scene.open(&scene.target()).unwrap();
    scene.write_all(&store);
    store.finish().unwrap();
    scene.check_result();
}

#[test]
fn a_share_without_bytes_is_made_by_finish() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("source/tree");
    fs::create_dir_all(top.join("a/b")).unwrap();
    fs::write(top.join("empty"), b"").unwrap();
    let scene = Scene::of(folder, &top);
    for _ in 0..2 {
        let (store, held) = scene.open(&scene.target()).unwrap();
        assert!(held.is_full());
        store.finish().unwrap();
        scene.check_result();
    }
}

#[test]
fn the_part_folder_is_recognised_by_its_name() {
    let scene = Scene::file();
    let (_store, _) = scene.open(&scene.target()).unwrap();
    assert!(part::is_part_folder_name(scene.part().file_name().unwrap()));
    for name in [
        ".shoal-.part",
        "shoal-aaaaaaaaaaaaaaaa.part",
        ".shoal-AAAAAAAAAAAAAAAA.part",
    ] {
        assert!(!part::is_part_folder_name(OsStr::new(name)), "{name}");
    }
}
