//! Makes a share of local files, with progress, until it is done or a signal comes. Shared by `seed` and `link`.
//!
//! Reading and hashing happen on threads of `storage`; here their reports become pictures for `output`. Goes online
//! nowhere.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::watch::SHOW_EVERY;
use super::{blocking, online};
use crate::cli::args::{NetworkFlags, SourceFlags};
use crate::cli::exit::Failure;
use crate::cli::output::Output;
use crate::cli::signals::Signals;
use crate::node::host_folder;
use crate::storage::{
    Globs, ImportOptions, ImportProgress, Imported, KnownShares, StorageError,
    import as import_blocking,
};
use crate::tui::Picture;

/// Until this much time has passed, a rate says nothing about the time left.
const RATE_NEEDS: Duration = Duration::from_millis(500);

/// Imports what `sources` say. A signal ends it as a failure.
pub(super) async fn import(
    sources: &SourceFlags,
    network: &NetworkFlags,
    output: &mut Output,
    signals: &Signals,
) -> Result<Imported, Failure> {
    let (files, globs) = (sources.ignore_file.clone(), sources.exclude.clone());
    let options = ImportOptions {
        name: sources.name.clone(),
        exclude: blocking(move || Globs::read(&files, &globs)).await??,
        skip_unshareable: sources.unshareable.skip,
        // Without a home there is no state, and nothing else is lost by it.
        state: online::home(network).ok().map(|home| host_folder(&home)),
    };
    import_with(&sources.paths, options, output, signals).await
}

/// Imports `paths` with these options.
pub(super) async fn import_with(
    paths: &[PathBuf],
    options: ImportOptions,
    output: &mut Output,
    signals: &Signals,
) -> Result<Imported, Failure> {
    let (progress, reports) = watch::channel(ImportProgress::Scan { files: 0, bytes: 0 });
    let cancel = Arc::new(AtomicBool::new(false));
    let work = {
        let (paths, cancel) = (paths.to_vec(), Arc::clone(&cancel));
        blocking(move || {
            // Nobody listens once a signal came.
            let report = |report| {
                progress.send_replace(report);
            };
            let imported = import_blocking(&paths, &options, &report, &cancel)?;
            if let Some(state) = &options.state {
                KnownShares::open(state).keep(&imported.manifest, &imported.hashes);
            }
            Ok::<_, StorageError>(imported)
        })
    };
    tokio::pin!(work);
    let mut show = tokio::time::interval(SHOW_EVERY);
    let mut hashing = None;
    loop {
        tokio::select! {
            biased;
            code = signals.first() => {
                cancel.store(true, Ordering::Relaxed);
                // The threads stop within one piece; what they say then does not matter any more.
                let _ = work.await;
                return Err(Failure::signalled(code, "before all files were read"));
            }
            imported = &mut work => {
                let imported = imported??;
                output.skipped(&imported.skipped);
                output.excluded(imported.excluded);
                output.unportable(&imported.manifest);
                return Ok(imported);
            }
            _ = show.tick() => {
                let report = *reports.borrow();
                output.show(&picture(report, &mut hashing, Instant::now()));
            }
        }
    }
}

/// What a report shows; `hashing` remembers since when it hashes.
fn picture(
    report: ImportProgress,
    hashing: &mut Option<Instant>,
    now: Instant,
) -> Picture<'static> {
    match report {
        ImportProgress::Scan { files, bytes } => Picture::Scan { files, bytes },
        ImportProgress::Hash { bytes, total } => {
            let elapsed = now.duration_since(*hashing.get_or_insert(now));
            let (per_sec, eta) = pace(bytes, total, elapsed);
            Picture::Hash {
                bytes,
                total,
                per_sec,
                eta,
            }
        }
    }
}

/// Bytes per second and time left of a reading that has taken `elapsed`; 0 and `None` while nothing can be said.
pub(super) fn pace(bytes: u64, total: u64, elapsed: Duration) -> (u64, Option<Duration>) {
    let millis = elapsed.as_millis().max(1);
    let per_sec = u128::from(bytes) * 1000 / millis;
    let per_sec = u64::try_from(per_sec).unwrap_or(u64::MAX);
    if elapsed < RATE_NEEDS || per_sec == 0 {
        return (0, None);
    }
    let left = total.saturating_sub(bytes);
    (per_sec, Some(Duration::from_secs(left.div_ceil(per_sec))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_since_hashing_began_and_gives_the_time_left() {
        let mut hashing = None;
        let start = Instant::now();
        let report = ImportProgress::Scan { files: 1, bytes: 2 };
        assert!(matches!(
            picture(report, &mut hashing, start),
            Picture::Scan { files: 1, bytes: 2 }
        ));
        let hash = |bytes| ImportProgress::Hash {
            bytes,
            total: 1_000,
        };
        let first = picture(hash(0), &mut hashing, start + Duration::from_secs(9));
        assert!(
            matches!(
                first,
                Picture::Hash {
                    per_sec: 0,
                    eta: None,
                    ..
                }
            ),
            "{first:?}"
        );
        let later = picture(hash(200), &mut hashing, start + Duration::from_secs(11));
        let Picture::Hash { per_sec, eta, .. } = later else {
            panic!("{later:?}");
        };
        assert_eq!((per_sec, eta), (100, Some(Duration::from_secs(8))));
    }
}
