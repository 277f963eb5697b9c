//! Every operation of a fetch of 64 pieces fails once, in every way: it ends well or with a clear error, nothing wrong is
//! held or shown, and the next run finishes.
//!
//! With the suite each operation fails in some ways in turn, each sync in all; with `SHOAL_FAULTS=all` every operation does in
//! all, as in `scripts/crash-states`.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::share64::{Share64, alone, folder};
use super::watching::{Event, Failing, Id, Watcher, watch};
use crate::content::{FileIndex, PieceIndex};
use crate::storage::{ErrorClass, StorageError};

const FAILINGS: [Failing; 9] = [
    Failing::Clean(Errno::IO),
    Failing::Clean(Errno::NOSPC),
    Failing::Clean(Errno::DQUOT),
    Failing::Clean(Errno::ROFS),
    Failing::Clean(Errno::MFILE),
    Failing::Clean(Errno::INTR),
    Failing::Short,
    Failing::AfterAll(Errno::IO),
    Failing::AfterAll(Errno::NOSPC),
];

/// How fetches ended, by operation that failed.
type Ends = BTreeMap<String, BTreeMap<&'static str, usize>>;

/// Fetches with operation `number` failing; then once more without. Gives the operation and how the first fetch ended.
fn check(share: &Share64, number: usize, failing: Failing) -> (String, &'static str) {
    let top = folder();
    let mut watcher = Share64::watcher(top.path());
    watcher.fault = Some((number, failing));
    let (watcher, result) = watch(watcher, || share.fetch(top.path()));
    let failed = watcher.failed.clone().unwrap();
    let what = format!("operation {number}, {failed}, {failing:?}");
    let wrong = share.wrong_files(top.path());
    assert!(wrong.is_empty(), "{what}: {wrong:?}");
    let end = end(&failed, failing, &result).unwrap_or_else(|| panic!("{what}: {result:?}"));
    let lost = lost(share, &watcher);
    let (_, ()) = watch(Share64::watcher(top.path()), || {
        let (store, held) = share.open(top.path()).unwrap();
        let still_held: Vec<_> = lost.iter().filter(|piece| held.contains(**piece)).collect();
        assert!(still_held.is_empty(), "{what}: {still_held:?} are held");
        let kept = share.check_held(&store, &held);
        kept.unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
        share.complete(&store, &held).unwrap();
    });
    let complete = share.check_complete(top.path());
    complete.unwrap_or_else(|wrong| panic!("{what}: {wrong}"));
    (failed, end)
}

/// How the fetch ended, if that is one of the ends it may have.
fn end(failed: &str, failing: Failing, result: &Result<(), StorageError>) -> Option<&'static str> {
    let is_write = failed == "write";
    let error = match result {
        Ok(()) => return Some("success"),
        // These two are the everyday life of a write.
        Err(_) if is_write && matches!(failing, Failing::Short | Failing::Clean(Errno::INTR)) => {
            return None;
        }
        Err(error) => error,
    };
    let is_full = matches!(
        failing,
        Failing::Clean(Errno::NOSPC | Errno::DQUOT) | Failing::AfterAll(Errno::NOSPC)
    );
    match error.exit_class() {
        ErrorClass::DiskFull if is_full => Some("disk full"),
        // Only what takes space can say so.
        ErrorClass::Io if !is_full || !is_write => Some("i/o"),
        _ => None,
    }
}

/// Pieces that must not count as held: of the file whose sync failed, or of all, what was stored since the last good one. A
/// folder whose sync failed counts for all, until the record has vouched for them. Not pieces of zeros, which no disk has to
/// keep.
fn lost(share: &Share64, watcher: &Watcher) -> Vec<PieceIndex> {
    let is_error = watcher
        .fault
        .is_some_and(|(_, failing)| failing != Failing::Short);
    let failed = watcher.failed.as_deref();
    let of_folder = is_error && failed == Some("sync folder");
    let of_all = of_folder || is_error && failed == Some("sync file system");
    let name = watcher.unsynced.and_then(|id| watcher.made_as(id));
    // Part files are named by numbers.
    let file = name.and_then(|name| u32::from_str_radix(name, 16).ok());
    if !of_all && file.is_none() {
        return Vec::new();
    }
    let file = file.map(FileIndex::new);
    let is_record = |id: &Id| watcher.made_as(*id) == Some("record");
    let synced = watcher.events.iter().rposition(|event| match event {
        Event::Synced(_) => true,
        Event::SyncData { id } => of_folder && is_record(id),
        _ => false,
    });
    let since = &watcher.events[synced.unwrap_or(0)..];
    let stored = since.iter().filter_map(|event| match event {
        Event::Stored(piece) => Some(*piece),
        _ => None,
    });
    let geometry = share.scene.geometry();
    stored
        .filter(|piece| file.is_none_or(|file| geometry.locate(*piece).file == file))
        .filter(|piece| !share.scene.share.hashes.is_zeros(geometry, *piece))
        .collect()
}

#[test]
fn a_fetch_with_one_failing_operation_ends_well_or_clearly_and_the_next_run_finishes() {
    let is_all = std::env::var("SHOAL_FAULTS").is_ok_and(|value| value == "all");
    alone(|| {
        let (mut runs, mut ends) = (0, Ends::new());
        for sync_pieces in [9, 64] {
            let share = Share64::new(sync_pieces);
            let top = folder();
            let (clean, result) = watch(Share64::watcher(top.path()), || share.fetch(top.path()));
            result.unwrap();
            for number in 0..clean.count {
                for (turn, failing) in FAILINGS.into_iter().enumerate() {
                    let is_due = (number + turn).is_multiple_of(FAILINGS.len());
                    if is_all || is_due || clean.is_sync(number) {
                        let (failed, end) = check(&share, number, failing);
                        *ends.entry(failed).or_default().entry(end).or_default() += 1;
                        runs += 1;
                    }
                }
            }
        }
        println!("{runs} fetches with one failing operation ended: {ends:?}");
        let seen = |end| ends.values().any(|ends| ends.contains_key(end));
        assert!(
            seen("success") && seen("disk full") && seen("i/o"),
            "{ends:?}"
        );
    });
}
