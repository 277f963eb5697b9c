//! `shoal seed`: reads files where they lie, goes online, prints the link, serves until a rule or a signal ends it.

use super::import::import;
use super::watch::Watch;
use super::{online, rules};
use crate::cli::args::{NetworkFlags, SeedArgs};
use crate::cli::exit::{ExitCode, Failure};
use crate::cli::output::{Output, StopReason};
use crate::cli::signals::Signals;
use crate::node::NodeHandle;
use crate::storage::Imported;

/// Seeds until it is to end. A rule that was met is success; a signal ends with its own code.
pub(super) async fn run(
    args: &SeedArgs,
    network: &NetworkFlags,
    output: &mut Output,
    signals: &Signals,
) -> Result<ExitCode, Failure> {
    let imported = import(&args.sources, network, output, signals).await?;
    let node = tokio::select! {
        biased;
        code = signals.first() => return Err(Failure::signalled(code, "before the share was online")),
        node = online::start(network, output) => node?,
    };
    let ended = serve(args, imported, &node, output, signals).await;
    node.shutdown().await;
    ended
}

async fn serve(
    args: &SeedArgs,
    imported: Imported,
    node: &NodeHandle,
    output: &mut Output,
    signals: &Signals,
) -> Result<ExitCode, Failure> {
    let events = node.events();
    let manifest = imported.manifest.clone();
    let share = node.seed(imported).await?;
    let mut watch = Watch::new(&share, events);
    // Only now: whoever has the link can use it at once.
    output.link(&node.link(&manifest).await, &manifest);
    let status = watch.follow();
    let end = async {
        tokio::select! {
            biased;
            code = signals.first() => (code, StopReason::Signal),
            reason = rules::met(&args.rules, status) => (ExitCode::Done, reason),
        }
    };
    let (code, reason) = watch.until(output, end).await;
    if code == ExitCode::Done {
        signals.complete();
    }
    output.finish();
    if reason == StopReason::Signal {
        output.leaving(&watch.status());
    }
    output.stopped(reason, watch.status().uploaded);
    Ok(code)
}
