//! The room as its callers see it: import, fetch, kill, resume.
//!
//! A store that is dropped stands for a killed process: nothing in this room acts on drop but the lock, which the system
//! drops with a process too.
#![allow(clippy::unwrap_used)]

mod changing;
mod crashes;
mod existing;
mod faults;
mod order;
mod power;
mod resuming;
mod reusing;
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
use std::time::Duration;

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
