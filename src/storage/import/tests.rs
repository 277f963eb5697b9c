//! What becomes a share, what is skipped, and what is not read again.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use super::*;
use crate::storage::{ErrorClass, PieceStore, SkipReason};

/// What is done to a file, and its name for messages.
type Change = (&'static str, fn(&Path));

fn run(paths: &[PathBuf]) -> Result<Imported, StorageError> {
    import(
        paths,
        &ImportOptions::default(),
        &|_| {},
        &AtomicBool::new(false),
    )
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8)
        .collect()
}

fn read_all(imported: &Imported) -> Vec<Vec<u8>> {
    let geometry = imported.manifest.geometry();
    let mut files = vec![Vec::new(); geometry.file_count() as usize];
    for piece in geometry.pieces() {
        let mut bytes = vec![0; geometry.len_of(piece) as usize];
        imported.store.read_piece(piece, &mut bytes).unwrap();
        assert!(imported.hashes.verify(geometry, piece, &bytes).is_some());
        files[geometry.locate(piece).file.as_usize()].extend(bytes);
    }
    files
}

fn paths_of(imported: &Imported) -> Vec<&str> {
    imported
        .manifest
        .entries()
        .iter()
        .map(|entry| entry.path.as_str())
        .collect()
}

#[test]
fn one_file_becomes_a_share_of_that_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("movie.bin");
    write(&path, &noise(1_000_000));
    let imported = run(&[path]).unwrap();
    assert_eq!(imported.manifest.layout(), Layout::File);
    assert_eq!(paths_of(&imported), ["movie.bin"]);
    assert_eq!(read_all(&imported), [noise(1_000_000)]);
    assert!(imported.skipped.is_empty());
}

#[test]
fn a_given_name_renames_a_share_of_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    write(&path, b"x");
    let options = ImportOptions {
        name: Some(Name::parse("other").unwrap()),
        ..ImportOptions::default()
    };
    let imported = import(&[path], &options, &|_| {}, &AtomicBool::new(false)).unwrap();
    assert_eq!(imported.manifest.name().as_str(), "other");
    assert_eq!(paths_of(&imported), ["other"]);
}

#[test]
fn a_folder_keeps_structure_empty_things_links_and_the_executable_bit() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top");
    write(&top.join("b/deep/data"), &noise(70_000));
    write(&top.join("a"), b"small");
    write(&top.join("none"), b"");
    fs::create_dir_all(top.join("hollow/inner")).unwrap();
    symlink("../a", top.join("b/link")).unwrap();
    for (mode, name) in [(0o640, "plain"), (0o610, "group")] {
        write(&top.join(name), b"#!");
        fs::set_permissions(top.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let imported = run(&[top]).unwrap();
    assert_eq!(imported.manifest.layout(), Layout::Folder);
    assert_eq!(imported.manifest.name().as_str(), "top");
    let expected = [
        "a",
        "b/deep/data",
        "b/link",
        "group",
        "hollow/inner",
        "none",
        "plain",
    ];
    assert_eq!(paths_of(&imported), expected);
    let kinds: Vec<_> = imported
        .manifest
        .entries()
        .iter()
        .map(|entry| &entry.kind)
        .collect();
    assert_eq!(
        kinds[2],
        &EntryKind::Symlink {
            target: "../a".to_owned()
        }
    );
    assert!(matches!(
        kinds[3],
        EntryKind::File {
            executable: true,
            ..
        }
    ));
    assert_eq!(kinds[4], &EntryKind::EmptyFolder);
    assert!(matches!(
        kinds[5],
        EntryKind::File {
            len: 0,
            root: None,
            ..
        }
    ));
    assert!(matches!(
        kinds[6],
        EntryKind::File {
            executable: false,
            ..
        }
    ));
    assert_eq!(read_all(&imported)[1], noise(70_000));
}

#[test]
fn several_paths_become_one_folder_named_after_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two, void) = (
        folder.path().join("x/one"),
        folder.path().join("y/two"),
        folder.path().join("void"),
    );
    write(&one, b"1");
    write(&two.join("in"), b"2");
    write(&folder.path().join("y/out"), b"outside");
    symlink("../out", two.join("up")).unwrap();
    fs::create_dir(&void).unwrap();
    let imported = run(&[two.clone(), one, void]).unwrap();
    assert_eq!(imported.manifest.layout(), Layout::Folder);
    assert_eq!(imported.manifest.name().as_str(), "two");
    assert_eq!(paths_of(&imported), ["one", "two/in", "void"]);
    // Inside the share by its text, but not inside the folder it was found in.
    let reason = SkipReason::LinkOutside;
    assert_eq!(
        imported.skipped,
        [Skipped {
            path: two.join("up"),
            reason
        }]
    );
}

#[test]
fn equal_base_names_are_a_usage_error() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("x/same"), folder.path().join("y/same"));
    write(&one, b"1");
    write(&two, b"2");
    let error = run(&[one, two]).unwrap_err();
    assert_eq!(error.exit_class(), ErrorClass::Usage, "{error}");
}

#[test]
fn a_missing_path_is_named() {
    let error = run(&[PathBuf::from("/no/such/file")]).unwrap_err();
    assert_eq!(error.exit_class(), ErrorClass::NotFound);
    assert!(error.to_string().contains("/no/such/file"), "{error}");
}

#[test]
fn a_path_that_is_a_link_is_followed() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("real/f"), b"x");
    symlink("real", folder.path().join("alias")).unwrap();
    let imported = run(&[folder.path().join("alias")]).unwrap();
    assert_eq!(imported.manifest.name().as_str(), "alias");
    assert_eq!(paths_of(&imported), ["f"]);
}

#[test]
fn links_outside_and_special_files_are_skipped_with_a_note() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top");
    fs::create_dir_all(top.join("sub")).unwrap();
    fs::create_dir_all(top.join(".shoal-aaaaaaaaaaaaaaaa.part")).unwrap();
    symlink("/etc/passwd", top.join("absolute")).unwrap();
    symlink("../../x", top.join("sub/climbs")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, top.join("pipe"), mode).unwrap();
    let imported = run(&[top]).unwrap();
    let names: Vec<_> = imported
        .skipped
        .iter()
        .map(|skipped| {
            (
                skipped.path.file_name().unwrap().to_str().unwrap(),
                skipped.reason.clone(),
            )
        })
        .collect();
    let expected = [
        (".shoal-aaaaaaaaaaaaaaaa.part", SkipReason::PartFolder),
        ("absolute", SkipReason::LinkOutside),
        ("pipe", SkipReason::Special),
        ("climbs", SkipReason::LinkOutside),
    ];
    assert_eq!(names, expected);
    assert_eq!(paths_of(&imported), ["sub"]);
}

#[test]
fn a_fifo_named_as_the_path_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, mode).unwrap();
    assert!(matches!(
        run(&[pipe]).unwrap_err(),
        StorageError::NotAFileOrFolder { .. }
    ));
}

#[test]
fn a_name_that_is_not_utf8_is_an_error_that_names_the_file() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top");
    write(
        &top.join(std::ffi::OsStr::from_bytes(b"bad-\xff-name")),
        b"x",
    );
    let error = run(&[top]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "`{}/top/bad-\\xff-name` cannot be shared: its name is not UTF-8",
            folder.path().display()
        )
    );
}

/// A folder with `good` and three names that no share can hold.
fn scene_of_bad_names(top: &Path) {
    use std::os::unix::ffi::OsStrExt;
    for name in [&b"good"[..], b"caf\xe9", b"deep/na\xefve", b"a\\b"] {
        write(&top.join(std::ffi::OsStr::from_bytes(name)), b"x");
    }
}

#[test]
fn all_names_that_cannot_be_shared_are_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top");
    scene_of_bad_names(&top);
    let error = run(std::slice::from_ref(&top)).unwrap_err();
    assert_eq!(error.exit_class(), ErrorClass::Io);
    assert_eq!(error.to_string(), "3 files or folders cannot be shared");
    let details = error.details();
    assert_eq!(details.len(), 3);
    for (detail, name) in details
        .iter()
        .zip(["top/a\\b`", "caf\\xe9", "deep/na\\xefve"])
    {
        assert!(detail.contains(name), "{detail} {name}");
    }
    for number in 0..20 {
        write(&top.join(format!("{number}\\")), b"x");
    }
    let details = run(&[top]).unwrap_err().details();
    assert_eq!((details.len(), &*details[10]), (11, "and 13 more"));
}

#[test]
fn what_cannot_be_shared_is_left_out_when_the_user_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top");
    scene_of_bad_names(&top);
    let options = ImportOptions {
        skip_unshareable: true,
        ..ImportOptions::default()
    };
    let skip = |paths: &[PathBuf]| import(paths, &options, &|_| {}, &AtomicBool::new(false));
    let imported = skip(&[top]).unwrap();
    assert_eq!(paths_of(&imported), ["deep", "good"]);
    assert_eq!(imported.skipped.len(), 3);
    // One that nothing is left of.
    let only = folder.path().join("only");
    write(&only.join("a\\b"), b"x");
    let error = skip(std::slice::from_ref(&only)).unwrap_err();
    assert!(
        matches!(&error, StorageError::CannotShare { is_all: true, .. }),
        "{error:?}"
    );
    let files = skip(&["/proc/version".into()]).unwrap_err();
    assert!(
        files.to_string().contains("is longer than its length says"),
        "{files}"
    );
}

#[test]
fn a_file_whose_length_is_a_lie_is_refused_and_the_others_keep_their_hashes() {
    let folder = tempfile::tempdir().unwrap();
    let (large, empty) = (folder.path().join("large"), folder.path().join("empty"));
    write(&large, &noise(3_000_000));
    write(&empty, b"");
    let lies = [
        ("/proc/self/stat", SkipReason::LongerThanLength),
        ("/proc/version", SkipReason::LongerThanLength),
        ("/sys/kernel/uevent_seqnum", SkipReason::ShorterThanLength),
    ];
    let mut paths = vec![large, empty];
    paths.extend(lies.iter().map(|(path, _)| PathBuf::from(path)));
    let error = run(&paths).unwrap_err();
    let StorageError::CannotShare { things, .. } = &error else {
        panic!("{error:?}");
    };
    let found: Vec<_> = things
        .iter()
        .map(|thing| (thing.path.to_str().unwrap(), thing.reason.clone()))
        .collect();
    assert_eq!(found, lies);

    let options = ImportOptions {
        skip_unshareable: true,
        ..ImportOptions::default()
    };
    let hashed = Mutex::new(0);
    let progress = |progress| {
        if let ImportProgress::Hash { bytes, .. } = progress {
            let mut hashed = hashed.lock().unwrap();
            *hashed = bytes.max(*hashed);
        }
    };
    let imported = import(&paths, &options, &progress, &AtomicBool::new(false)).unwrap();
    assert_eq!(paths_of(&imported), ["empty", "large"]);
    assert_eq!(imported.skipped.len(), 3);
    assert_eq!(read_all(&imported), [Vec::new(), noise(3_000_000)]);
    // The second reading, without the others, would have been told to its end.
    assert!(*hashed.lock().unwrap() < 3_000_000, "read twice");
}

#[test]
fn holes_do_not_hide_that_a_length_is_a_lie() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hole");
    File::create(&path).unwrap().set_len(3 << 20).unwrap();
    let store = SourceStore::new(
        Geometry::new(1 << 16, &[1 << 20]).unwrap(),
        vec![SourceFile {
            signature: os::Signature {
                len: 1 << 20,
                ..os::stat_path(&path).unwrap().signature
            },
            device: os::stat_path(&path).unwrap().device,
            path: path.clone(),
        }],
        path.clone(),
    );
    let from = Importing { store: &store };
    let error = from
        .check_len(FileIndex::new(0), &File::open(&path).unwrap())
        .unwrap_err();
    assert!(
        matches!(error, StorageError::SourceChanged { .. }),
        "{error:?}"
    );
}

#[test]
fn a_file_that_changes_while_it_is_hashed_is_left_out_when_the_user_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top");
    for name in ["a", "log", "z"] {
        write(&top.join(name), &noise(3_000_000));
    }
    let grown = Mutex::new(0);
    let progress = |progress| {
        let mut grown = grown.lock().unwrap();
        if matches!(progress, ImportProgress::Hash { .. }) && *grown == 0 {
            *grown += 1;
            let mut log = File::options().append(true).open(top.join("log")).unwrap();
            io::Write::write_all(&mut log, b"more").unwrap();
        }
    };
    let options = ImportOptions {
        skip_unshareable: true,
        ..ImportOptions::default()
    };
    let cancel = AtomicBool::new(false);
    let imported = import(std::slice::from_ref(&top), &options, &progress, &cancel).unwrap();
    assert_eq!(paths_of(&imported), ["a", "z"]);
    assert_eq!(
        imported.skipped,
        [Skipped {
            path: top.join("log"),
            reason: SkipReason::Changed
        }]
    );
    assert_eq!(read_all(&imported), [noise(3_000_000), noise(3_000_000)]);
}

#[test]
fn the_same_tree_has_the_same_id_wherever_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    let ids: Vec<_> = ["p", "q"]
        .iter()
        .map(|place| {
            let top = folder.path().join(place).join("tree");
            let mut names = vec!["z", "a/b", "a.b", "m/n/o"];
            if *place == "q" {
                names.reverse();
            }
            for name in names {
                write(&top.join(name), name.as_bytes());
            }
            run(&[top]).unwrap().manifest.id()
        })
        .collect();
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn a_file_that_changes_while_it_is_hashed_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    write(&path, &noise(3_000_000));
    let touched = Mutex::new(false);
    let progress = |progress| {
        let mut touched = touched.lock().unwrap();
        if matches!(progress, ImportProgress::Hash { .. }) && !*touched {
            *touched = true;
            fs::write(&path, noise(2_999_999)).unwrap();
        }
    };
    let paths = [path.clone()];
    let error = import(
        &paths,
        &ImportOptions::default(),
        &progress,
        &AtomicBool::new(false),
    );
    let error = error.unwrap_err();
    assert_eq!(error.exit_class(), ErrorClass::Io);
    assert!(
        error.to_string().ends_with("it changed while it was read"),
        "{error}"
    );
}

#[test]
fn the_wish_to_stop_is_obeyed_while_hashing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    write(&path, &noise(20_000_000));
    let cancel = AtomicBool::new(false);
    let progress = |progress| {
        if matches!(progress, ImportProgress::Hash { .. }) {
            cancel.store(true, Ordering::Relaxed);
        }
    };
    let result = import(&[path], &ImportOptions::default(), &progress, &cancel);
    assert!(matches!(result.unwrap_err(), StorageError::Cancelled));
}

#[test]
fn progress_ends_with_the_totals() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top");
    write(&top.join("a"), &noise(3_000_000));
    write(&top.join("b"), &noise(5));
    let seen = Mutex::new(Vec::new());
    let progress = |progress| seen.lock().unwrap().push(progress);
    import(
        &[top],
        &ImportOptions::default(),
        &progress,
        &AtomicBool::new(false),
    )
    .unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.contains(&ImportProgress::Scan {
        files: 2,
        bytes: 3_000_005
    }));
    let end = ImportProgress::Hash {
        bytes: 3_000_005,
        total: 3_000_005,
    };
    assert_eq!(seen.last(), Some(&end));
}

#[test]
fn a_read_after_any_change_of_the_file_is_refused() {
    let change: [Change; 5] = [
        ("rewritten", |path| {
            // Old kernels move the times in steps of milliseconds.
            let before = fs::metadata(path).unwrap().modified().unwrap();
            while fs::metadata(path).unwrap().modified().unwrap() == before {
                fs::write(path, noise(200_000)).unwrap();
            }
        }),
        ("truncated", |path| fs::write(path, noise(10)).unwrap()),
        ("removed", |path| fs::remove_file(path).unwrap()),
        ("replaced", |path| {
            let other = path.with_extension("new");
            fs::write(&other, noise(200_000)).unwrap();
            fs::rename(&other, path).unwrap();
        }),
        ("became a folder", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
    ];
    for (what, change) in change {
        for warm in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("f");
            write(&path, &noise(200_000));
            let imported = run(std::slice::from_ref(&path)).unwrap();
            let geometry = imported.manifest.geometry();
            let piece = PieceIndex::new(1);
            let mut bytes = vec![0; geometry.len_of(piece) as usize];
            if warm {
                imported.store.read_piece(piece, &mut bytes).unwrap();
            }
            change(&path);
            let error = imported.store.read_piece(piece, &mut bytes).unwrap_err();
            let named = matches!(&error, StorageError::SourceChanged { path: named } | StorageError::NotFound { path: named } if *named == path);
            assert!(named, "{what}, warm {warm}: {error:?}");
            assert!(imported.store.check(FileIndex::new(0)).is_err());
        }
    }
}

#[test]
fn more_files_than_open_handles_can_be_read_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top");
    for index in 0..100 {
        write(
            &top.join(format!("{index:03}")),
            format!("content {index}").as_bytes(),
        );
    }
    let imported = run(&[top]).unwrap();
    for round in [0, 1] {
        for index in (0..100).rev() {
            let piece = PieceIndex::new(index);
            let mut bytes = vec![0; imported.manifest.geometry().len_of(piece) as usize];
            imported.store.read_piece(piece, &mut bytes).unwrap();
            assert_eq!(
                bytes,
                format!("content {index}").as_bytes(),
                "round {round}"
            );
        }
    }
}

fn remembering(state: &Path) -> ImportOptions {
    ImportOptions {
        state: Some(state.to_path_buf()),
        ..ImportOptions::default()
    }
}

/// Imports and tells how many bytes were to be hashed.
fn run_counting(path: &Path, options: &ImportOptions) -> (Imported, u64) {
    let hashed = Mutex::new(0);
    let count = |report| {
        if let ImportProgress::Hash { total, .. } = report {
            *hashed.lock().unwrap() = total;
        }
    };
    let never = AtomicBool::new(false);
    let imported = import(&[path.to_path_buf()], options, &count, &never).unwrap();
    let hashed = *hashed.lock().unwrap();
    (imported, hashed)
}

/// Sets the times of a file to long ago: its content is settled, but for the time of its last change.
fn settle(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    let old = SystemTime::now() - std::time::Duration::from_secs(3600);
    file.set_modified(old).unwrap();
}

/// Waits until what was changed last is older than what may change unnoticed.
fn wait_until_settled(path: &Path) {
    let begin = SystemTime::now();
    while begin.elapsed().unwrap_or_default() < std::time::Duration::from_millis(2_100) {
        // A condition on the clock of the machine: nothing tells when it is met.
        #[expect(clippy::disallowed_methods, reason = "the clock is looked at again")]
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(path.exists());
}

#[test]
fn unchanged_files_are_not_read_again_and_changed_ones_are() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let top = folder.path().join("top");
    write(&top.join("large"), &noise(3_000_000));
    write(&top.join("small"), b"small");
    write(&top.join("none"), b"");
    settle(&top.join("large"));
    let options = remembering(&state);
    let (first, hashed) = run_counting(&top, &options);
    assert_eq!(hashed, 3_000_005);
    let (_, hashed) = run_counting(&top, &options);
    assert_eq!(hashed, 3_000_005, "changed within two seconds");
    wait_until_settled(&top);
    let (_, hashed) = run_counting(&top, &options);
    assert_eq!(hashed, 3_000_005, "old enough, and not known yet");
    let (again, hashed) = run_counting(&top, &options);
    assert_eq!(hashed, 0);
    assert_eq!(again.manifest, first.manifest);
    assert_eq!(again.hashes, first.hashes);
    read_all(&again);

    write(&top.join("small"), b"other");
    let (other, hashed) = run_counting(&top, &options);
    assert_eq!(hashed, 5);
    assert_ne!(other.manifest.id(), first.manifest.id());
}

#[test]
fn files_read_whole_before_a_signal_came_are_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let top = folder.path().join("top");
    let (small, large) = (9_u64, 64 * 1024 * 1024);
    for index in 0..small {
        write(&top.join(format!("a{index}")), &noise(1_000_000));
    }
    let file = File::create(top.join("large")).unwrap();
    file.set_len(large).unwrap();
    wait_until_settled(&top);
    let options = remembering(&state);
    let cancel = AtomicBool::new(false);
    let stop = |report| {
        if let ImportProgress::Hash { bytes, .. } = report {
            cancel.fetch_or(bytes > large / 2, Ordering::Relaxed);
        }
    };
    // One thread, so that the small files are behind it by then.
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let stopped = alone
        .unwrap()
        .install(|| import(std::slice::from_ref(&top), &options, &stop, &cancel));
    assert!(matches!(stopped, Err(StorageError::Cancelled)));
    let (imported, hashed) = run_counting(&top, &options);
    assert_eq!(hashed, large, "the small ones are known");
    assert_eq!(imported.manifest, run(&[top]).unwrap().manifest);
}

#[test]
fn a_state_that_cannot_be_used_costs_a_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    write(&path, b"bytes");
    let expected = run(std::slice::from_ref(&path)).unwrap().manifest.id();
    for state in [Path::new("/proc/sys"), path.as_path()] {
        let (imported, hashed) = run_counting(&path, &remembering(state));
        assert_eq!((imported.manifest.id(), hashed), (expected, 5));
    }
}

fn excluding(globs: &[&str]) -> ImportOptions {
    ImportOptions {
        exclude: Globs::read(&[] as &[&Path], globs).unwrap(),
        ..ImportOptions::default()
    }
}

#[test]
fn excluded_entries_are_counted_and_nothing_else_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let top = folder.path().join("top");
    for path in [
        "a.txt",
        "a.tmp",
        "sub/b.tmp",
        "sub/.hidden",
        ".gitignore",
        "target/x/y",
    ] {
        write(&top.join(path), b"*");
    }
    symlink("/etc/passwd", top.join("outside")).unwrap();
    let run = |globs: &[&str]| run_counting(&top, &excluding(globs)).0;
    let all = run(&[]);
    assert_eq!(
        (all.excluded, all.skipped.len(), paths_of(&all).len()),
        (0, 1, 6)
    );
    let some = run(&["*.tmp", "/target/", "outside"]);
    assert_eq!(paths_of(&some), [".gitignore", "a.txt", "sub/.hidden"]);
    assert_eq!((some.excluded, some.skipped.len()), (4, 0));
}

#[test]
fn among_several_paths_any_may_be_excluded_and_one_alone_may_not() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["one.txt", "two.tmp"].map(|name| folder.path().join(name));
    paths.iter().for_each(|path| write(path, b"x"));
    let options = excluding(&["*.tmp"]);
    let never = AtomicBool::new(false);
    let both = import(&paths, &options, &|_| {}, &never).unwrap();
    assert_eq!((paths_of(&both), both.excluded), (vec!["one.txt"], 1));
    let alone = run_counting(&paths[1], &options).0;
    assert_eq!((paths_of(&alone), alone.excluded), (vec!["two.tmp"], 0));
}
