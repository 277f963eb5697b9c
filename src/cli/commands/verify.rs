//! `shoal verify`: compares local files with a share, by hashes that the link proves: those this host remembers, or a
//! peer's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::watch;

use super::import::pace;
use super::watch::SHOW_EVERY;
use super::{blocking, online};
use crate::cli::args::{NetworkFlags, VerifyArgs};
use crate::cli::exit::{ExitCode, Failure};
use crate::cli::output::Output;
use crate::cli::signals::Signals;
use crate::content::Link;
use crate::node::NodeHandle;
use crate::storage::{StorageError, Verdict, compare};
use crate::tui::Picture;

/// Compares and names what is not as in the share.
pub(super) async fn run(
    args: &VerifyArgs,
    network: &NetworkFlags,
    output: &mut Output,
    signals: &Signals,
) -> Result<ExitCode, Failure> {
    let link: Link = args.link.parse()?;
    if let Err(source) = args.path.metadata() {
        let path = args.path.clone();
        return Err(match source.kind() {
            std::io::ErrorKind::NotFound => StorageError::NotFound { path },
            _ => StorageError::Read { path, source },
        }
        .into());
    }
    let (manifest, hashes) = match online::known(network, &link).await? {
        Some(known) => known,
        None => {
            let question = async |node: NodeHandle| node.hashes(link, args.timeout).await;
            let asked = online::ask(network, output, signals, question).await;
            asked.map_err(|failure| match failure.code {
                ExitCode::NoPeer => failure.hint(
                    "this host has neither made nor fetched the share: start a peer that has it, or name a node with `--peer`",
                ),
                _ => failure,
            })?
        }
    };

    let cancel = Arc::new(AtomicBool::new(false));
    let (progress, reports) = watch::channel((0, manifest.geometry().total_len()));
    let work = {
        let (path, manifest, cancel) = (args.path.clone(), manifest.clone(), Arc::clone(&cancel));
        blocking(move || {
            // Nobody listens once a signal came.
            let report = |bytes, total| {
                progress.send_replace((bytes, total));
            };
            compare(&manifest, &hashes, &path, &report, &cancel)
        })
    };
    tokio::pin!(work);
    let mut show = tokio::time::interval(SHOW_EVERY);
    let began = Instant::now();
    let verdicts = loop {
        tokio::select! {
            biased;
            code = signals.first() => {
                cancel.store(true, Ordering::Relaxed);
                // The threads stop within one piece; what they say then does not matter any more.
                let _ = work.await;
                return Err(Failure::signalled(code, "before all files were compared"));
            }
            verdicts = &mut work => break verdicts??,
            _ = show.tick() => {
                let (bytes, total) = *reports.borrow();
                let (per_sec, eta) = pace(bytes, total, began.elapsed());
                output.show(&Picture::Verify { bytes, total, per_sec, eta });
            }
        }
    };
    output.finish();
    output.verdicts(&manifest, &verdicts);
    let bad = verdicts
        .iter()
        .filter(|verdict| **verdict != Verdict::Same)
        .count();
    if bad == 0 {
        return Ok(ExitCode::Done);
    }
    let total = verdicts.len();
    Err(Failure::new(
        ExitCode::Mismatch,
        format!("{bad} of {total} entries differ or are missing"),
    )
    .hint("fetch with `--overwrite` into the same place to put them right"))
}
