//! `shoal fetch`: downloads a share, prints where it is, then serves on for as long as was asked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::watch::Watch;
use super::{blocking, online, rules};
use crate::cli::args::{FetchArgs, NetworkFlags};
use crate::cli::exit::{ExitCode, Failure};
use crate::cli::output::{Output, StopReason};
use crate::cli::signals::Signals;
use crate::content::Link;
use crate::node::{FetchOptions, NodeHandle};
use crate::storage::{PartFolder, Target};

/// A fetch that is complete leaves when nobody has pulled for this long. Less leaves in the gap between two requests
/// of one peer, more makes every fetch of a script longer.
const QUIET_BEFORE_LEAVING: Duration = Duration::from_millis(300);

/// Fetches, and ends well as soon as the share is complete and nobody needs us.
pub(super) async fn run(
    args: &FetchArgs,
    network: &NetworkFlags,
    output: &mut Output,
    signals: &Signals,
) -> Result<ExitCode, Failure> {
    // All that can be wrong without a peer comes first.
    let link: Link = args.link.parse()?;
    let target = target(args)?;
    {
        let target = target.clone();
        blocking(move || PartFolder::check_target(&target)).await??;
    }
    if let Some(path) = &args.trace {
        output.trace_to(path)?;
    }
    let node = tokio::select! {
        biased;
        code = signals.first() => return Err(Failure::fetch_signalled(code)),
        node = online::start(network, output) => node?,
    };
    let options = FetchOptions {
        target,
        timeout: args.timeout,
        stall_timeout: args.stall_timeout,
    };
    let ended = download(args, link, options, &node, output, signals).await;
    node.shutdown().await;
    ended
}

async fn download(
    args: &FetchArgs,
    link: Link,
    options: FetchOptions,
    node: &NodeHandle,
    output: &mut Output,
    signals: &Signals,
) -> Result<ExitCode, Failure> {
    let events = node.events();
    let mut share = node.fetch(link, options).await?;
    let mut watch = Watch::new(&share, events);
    let end = async {
        tokio::select! {
            biased;
            fetched = share.completed() => fetched.map_err(Failure::from),
            code = signals.first() => Err(Failure::fetch_signalled(code)),
        }
    };
    let fetched = watch
        .until(output, end)
        .await
        .inspect_err(|_| output.finish())?;
    signals.complete();
    output.finish();
    output.done(&fetched, &watch.status());

    let status = watch.follow();
    let end = async {
        tokio::select! {
            biased;
            _ = signals.first() => StopReason::Signal,
            reason = rules::met(&args.rules, status.clone()), if args.seed => reason,
            () = rules::nobody_pulls(status, QUIET_BEFORE_LEAVING), if !args.seed => StopReason::Idle,
            () = tokio::time::sleep(args.linger), if !args.seed => StopReason::Linger,
        }
    };
    let reason = watch.until(output, end).await;
    output.finish();
    if reason == StopReason::Signal {
        output.leaving(&watch.status());
    }
    output.stopped(reason, watch.status().uploaded);
    Ok(ExitCode::Done)
}

/// Where the result goes. A relative `--output` lies below `--dir`.
fn target(args: &FetchArgs) -> Result<Target, Failure> {
    if args.output.as_deref() == Some(Path::new("-")) {
        return Err(Failure::new(
            ExitCode::Usage,
            "`-` is no path: this version does not write to stdout",
        ));
    }
    let dir = args.dir.clone().unwrap_or_default();
    Ok(Target {
        output: args.output.as_ref().map(|output| dir.join(output)),
        dir: if dir.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            dir
        },
        overwrite: args.overwrite,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn target_of(line: &[&str]) -> Result<Target, Failure> {
        let line = [&["shoal", "fetch", "LINK"], line].concat();
        let Command::Fetch(args) = Cli::try_parse_from(line).expect("a command line").command
        else {
            panic!("`fetch` is fetch");
        };
        target(&args)
    }

    #[test]
    fn the_result_goes_where_it_was_asked_to_go() {
        let cases: [(&[&str], &str, Option<&str>); 5] = [
            (&[], ".", None),
            (&["-d", "down"], "down", None),
            (&["-o", "name"], ".", Some("name")),
            (&["-d", "down", "-o", "name"], "down", Some("down/name")),
            (
                &["-d", "down", "-o", "/else/name"],
                "down",
                Some("/else/name"),
            ),
        ];
        for (line, dir, output) in cases {
            let target = target_of(line).expect("a target");
            assert_eq!(target.dir, Path::new(dir), "{line:?}");
            assert_eq!(target.output.as_deref(), output.map(Path::new), "{line:?}");
        }
    }

    #[test]
    fn a_dash_is_refused_as_long_as_it_means_nothing() {
        let failure = target_of(&["-o", "-"]).expect_err("not supported");
        assert_eq!(failure.code, ExitCode::Usage);
    }
}
