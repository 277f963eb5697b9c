//! What lies at the target already: adopted when it is equal, else refused or replaced as the user said, and never followed.

use super::*;

/// What is put in the way, and its name or place.
type Making = (&'static str, fn(&Path));

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
