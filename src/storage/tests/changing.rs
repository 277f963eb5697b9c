//! Shared files that change under the store: nothing of them is served until it was read again, and all that matches is then.

use std::cell::Cell;
use std::time::SystemTime;

use super::*;

/// What somebody does to a file, what is found, and how many of its five pieces match afterwards.
type Change = (&'static str, fn(&Path), u32);

const PIECES: u32 = 5;

/// Reads a file again to its end; the pieces that were told to match, and how it ended.
fn reread(
    store: &dyn PieceStore,
    hashes: &PieceHashes,
    file: FileIndex,
) -> Result<(Vec<PieceIndex>, Reread), StorageError> {
    loop {
        let mut told = Vec::new();
        let outcome = store.reread(file, hashes, &mut |piece| {
            told.push(piece);
            true
        })?;
        // One that was changed just now is waited for.
        if !matches!(outcome, Reread::TooYoung { .. }) {
            return Ok((told, outcome));
        }
        assert_eq!(told, []);
    }
}

/// The pieces that can be read.
fn readable(store: &dyn PieceStore, scene: &Scene, pieces: &[PieceIndex]) -> Vec<PieceIndex> {
    let is_readable = |piece: &&PieceIndex| {
        let mut bytes = vec![0; scene.geometry().len_of(**piece) as usize];
        let read = store.read_piece(**piece, &mut bytes);
        if read.is_ok() {
            assert_eq!(
                bytes,
                scene.bytes(**piece),
                "piece {piece} is as in the share"
            );
        }
        read.is_ok()
    };
    pieces.iter().filter(is_readable).copied().collect()
}

const CHANGES: [Change; 8] = [
    (
        "chmod",
        |path| fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap(),
        5,
    ),
    (
        "hard link",
        |path| fs::hard_link(path, path.with_extension("link")).unwrap(),
        5,
    ),
    (
        "touch",
        |path| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        },
        5,
    ),
    (
        "rename and back",
        |path| {
            fs::rename(path, path.with_extension("else")).unwrap();
            fs::rename(path.with_extension("else"), path).unwrap();
        },
        5,
    ),
    (
        "append",
        |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes.extend_from_slice(&noise(100_000, 9));
            fs::write(path, bytes).unwrap();
        },
        5,
    ),
    (
        "truncate",
        |path| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_len(2 * 65_536 + 1).unwrap();
        },
        2,
    ),
    (
        "one byte",
        |path| {
            let mut bytes = fs::read(path).unwrap();
            bytes[70_000] ^= 1;
            fs::write(path, bytes).unwrap();
        },
        4,
    ),
    (
        "another file of the same length",
        |path| {
            let other = path.with_extension("new");
            fs::write(&other, noise(BIG, 77)).unwrap();
            fs::rename(&other, path).unwrap();
        },
        0,
    ),
];

/// A scene, its file as it lies under its final name, and a store that serves it from there.
fn served(from_fetch: bool) -> (Scene, PathBuf, Box<dyn PieceStore>) {
    let scene = Scene::file();
    if !from_fetch {
        // What the right bytes are is still to be told by the file they came from.
        let path = scene.folder.path().join("copy/one.bin");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(scene.folder.path().join("source/one.bin"), &path).unwrap();
        let never = AtomicBool::new(false);
        let again = import(
            std::slice::from_ref(&path),
            &ImportOptions::default(),
            &|_| {},
            &never,
        );
        return (scene, path, Box::new(again.unwrap().store));
    }
    let (store, _) = scene.open(&scene.target()).unwrap();
    scene.write_all(&store);
    store.finish().unwrap();
    let path = scene.dir().join("one.bin");
    (scene, path, Box::new(store))
}

#[test]
fn after_any_change_nothing_is_served_and_what_still_matches_is_once_it_was_read_again() {
    let file = FileIndex::new(0);
    for (what, change, intact) in CHANGES {
        for from_fetch in [false, true] {
            let (scene, path, store) = served(from_fetch);
            let pieces: Vec<_> = scene.geometry().pieces().collect();
            let kept: Vec<_> = pieces.iter().map(|piece| scene.bytes(*piece)).collect();
            assert_eq!(pieces.len() as u32, PIECES);
            change(&path);
            let mut bytes = kept[0].clone();
            store.read_piece(pieces[0], &mut bytes).unwrap_err();
            assert_eq!(store.changes(file), 1, "{what}");
            for (piece, kept) in pieces.iter().zip(&kept) {
                store
                    .read_piece(*piece, &mut kept.clone())
                    .expect_err("nothing of it is served");
            }
            assert_eq!(store.changes(file), 1, "{what} is one change");
            store.look(file).expect("it is known to be doubted");

            let (told, outcome) = reread(&*store, &scene.share.hashes, file).unwrap();
            let is_readable = true;
            let expected = Reread::Read {
                intact,
                is_readable,
            };
            assert_eq!(outcome, expected, "{what}, fetched {from_fetch}");
            for (piece, kept) in pieces.iter().zip(&kept) {
                let mut bytes = vec![0; kept.len()];
                let read = store.read_piece(*piece, &mut bytes);
                assert_eq!(read.is_ok(), told.contains(piece), "{what}: {read:?}");
                assert!(read.is_err() || bytes == *kept, "{what}");
            }
            assert_eq!(told.len() as u32, intact);
            store.look(file).expect("it looks as when it was read");
        }
    }
}

#[test]
fn a_file_that_is_away_is_served_again_when_it_is_back_without_being_read() {
    let (scene, path, store) = served(false);
    let file = FileIndex::new(0);
    let pieces: Vec<_> = scene.geometry().pieces().collect();
    let (folder, away) = (path.parent().unwrap(), scene.folder.path().join("away"));
    fs::rename(folder, &away).unwrap();
    let error = store.look(file).unwrap_err();
    assert!(matches!(error, StorageError::NotFound { .. }), "{error:?}");
    let error = reread(&*store, &scene.share.hashes, file).unwrap_err();
    assert!(matches!(error, StorageError::NotFound { .. }), "{error:?}");
    fs::rename(&away, folder).unwrap();
    let (told, _) = reread(&*store, &scene.share.hashes, file).unwrap();
    assert_eq!(told, pieces);
    assert_eq!(readable(&*store, &scene, &pieces), pieces);
}

#[test]
fn what_takes_the_place_of_a_file_and_is_none_is_never_opened() {
    let (scene, path, store) = served(false);
    fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    store.look(FileIndex::new(0)).unwrap_err();
    // Opening it would wait for whoever writes to it.
    reread(&*store, &scene.share.hashes, FileIndex::new(0)).unwrap_err();
}

#[test]
fn a_file_that_changes_while_it_is_read_again_serves_nothing_of_what_was_found_before() {
    let (scene, path, store) = served(false);
    let file = FileIndex::new(0);
    let pieces: Vec<_> = scene.geometry().pieces().collect();
    let good = fs::read(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    store.look(file).unwrap_err();
    let found = Cell::new(0);
    let outcome = loop {
        let outcome = store.reread(file, &scene.share.hashes, &mut |_| {
            found.set(found.get() + 1);
            if found.get() == 3 {
                let mut bytes = good.clone();
                bytes[0] ^= 1;
                fs::write(&path, &bytes).unwrap();
            }
            true
        });
        if !matches!(outcome, Ok(Reread::TooYoung { .. })) {
            break outcome.unwrap();
        }
    };
    assert_eq!((outcome, found.get()), (Reread::ChangedAgain, 3));
    assert_eq!(store.changes(file), 2);
    for piece in &pieces {
        let mut bytes = vec![0; scene.geometry().len_of(*piece) as usize];
        store.read_piece(*piece, &mut bytes).unwrap_err();
    }
    let (told, _) = reread(&*store, &scene.share.hashes, file).unwrap();
    assert_eq!(told, pieces[1..]);
    fs::write(&path, &good).unwrap();
    store.look(file).unwrap_err();
    let (told, _) = reread(&*store, &scene.share.hashes, file).unwrap();
    assert_eq!(told, pieces, "it was put right");
}

#[test]
fn a_fetch_does_not_end_well_over_a_file_that_somebody_edited_and_leaves_it_alone() {
    let scene = Scene::folder();
    let (store, held) = scene.open(&scene.target()).unwrap();
    for piece in scene.pieces("big") {
        scene.write(&store, piece).unwrap();
    }
    store.sync().unwrap();
    let mut bytes = fs::read(scene.at("big")).unwrap();
    bytes[70_000] ^= 1;
    fs::write(scene.at("big"), &bytes).unwrap();
    let first = scene.pieces("big")[0];
    let mut read = scene.bytes(first);
    store.read_piece(first, &mut read).unwrap_err();
    let file = scene.geometry().locate(first).file;
    let (told, _) = reread(&store, &scene.share.hashes, file).unwrap();
    assert_eq!(told.len(), 4);
    scene.write_missing(&store, &held);
    let error = store.finish().unwrap_err();
    assert!(matches!(error, StorageError::Edited { .. }), "{error:?}");
    assert_eq!(fs::read(scene.at("big")).unwrap(), bytes);
    assert_eq!(
        fs::read(scene.at("sub/other")).unwrap(),
        noise(BIG, 2),
        "all else is there"
    );
    fs::write(scene.at("big"), noise(BIG, 1)).unwrap();
    store.look(file).unwrap_err();
    reread(&store, &scene.share.hashes, file).unwrap();
    store.finish().expect("it was put right");
    scene.check_result();
}
