//! `shoal fetch`: downloads a share, prints where it is, then serves on for as long as was asked.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::watch::Watch;
use super::{blocking, online, rules};
use crate::cli::args::{FetchArgs, NetworkFlags};
use crate::cli::exit::{ExitCode, Failure};
use crate::cli::output::{Output, StopReason};
use crate::cli::signals::Signals;
use crate::content::Link;
use crate::node::{ByteStream, FetchError, FetchOptions, NodeHandle, host_folder};
use crate::storage::{Globs, PartFolder, Scratch, Target};

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
    let only = Globs::read(&[] as &[PathBuf], &args.only)?;
    let is_stream = args.output.as_deref() == Some(Path::new("-"));
    let scratch = if is_stream {
        if output.is_json() {
            return Err(Failure::new(
                ExitCode::Usage,
                "`--output -` and `--json` both want stdout",
            ));
        }
        output.leave_stdout();
        scratch(args, network).await?
    } else {
        None
    };
    let target = target(args, scratch.as_ref());
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
        only,
        sequential: args.sequential,
        stream: is_stream,
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
    let is_stream = options.stream;
    let mut share = node.fetch(link, options).await?;
    let mut watch = Watch::new(&share, events);
    let stream = share.stream();
    let end = async {
        let piped = async {
            if is_stream {
                pipe(stream).await
            } else {
                Ok(())
            }
        };
        let fetched = async {
            share
                .completed()
                .await
                .map_err(|error| Ended::Failed(error.into()))
        };
        tokio::select! {
            biased;
            both = async { tokio::try_join!(fetched, piped) } => both.map(|(fetched, ())| fetched),
            code = signals.first() => Err(Ended::Failed(Failure::fetch_signalled(code))),
        }
    };
    let ended = watch.until(output, end).await;
    let fetched = match ended {
        Ok(fetched) => fetched,
        Err(Ended::Failed(failure)) => {
            output.finish();
            return Err(failure);
        }
        // Whoever read has what it wanted, as `head` has: no failure, and nothing to say.
        Err(Ended::NobodyReads) => {
            output.finish();
            return Ok(ExitCode::Done);
        }
    };
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

/// Why a fetch ended before its share was complete and passed on.
enum Ended {
    Failed(Failure),
    /// stdout was closed.
    NobodyReads,
}

/// Writes a file to stdout as it comes, one piece at a time.
async fn pipe(mut stream: ByteStream) -> Result<(), Ended> {
    loop {
        let bytes = match stream.next().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(()),
            // The fetch itself tells why.
            Err(FetchError::Closed) => return std::future::pending().await,
            Err(error) => return Err(Ended::Failed(error.into())),
        };
        // A reader that is slow, or stopped, holds up a thread and nothing else.
        let written = blocking(move || {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&bytes).and_then(|()| stdout.flush())
        });
        match written.await.map_err(Ended::Failed)? {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Err(Ended::NobodyReads);
            }
            Err(error) => {
                let message = format!("cannot write to stdout: {error}");
                return Err(Ended::Failed(Failure::new(ExitCode::Io, message)));
            }
        }
    }
}

/// Where the data of a fetch to stdout lies meanwhile: in `--dir`, to be kept and resumed, or else in a folder of the home
/// that is removed at the end.
async fn scratch(args: &FetchArgs, network: &NetworkFlags) -> Result<Option<Scratch>, Failure> {
    if args.dir.is_some() {
        return Ok(None);
    }
    let parent = host_folder(&online::home(network)?).join("stream");
    Ok(Some(blocking(move || Scratch::new(&parent)).await??))
}

/// Where the result goes. A relative `--output` lies below `--dir`.
fn target(args: &FetchArgs, scratch: Option<&Scratch>) -> Target {
    let dir = match scratch {
        Some(scratch) => scratch.path().to_path_buf(),
        None => args.dir.clone().unwrap_or_default(),
    };
    let output = args
        .output
        .as_ref()
        .filter(|output| *output != Path::new("-"));
    Target {
        output: output.map(|output| dir.join(output)),
        dir: if dir.as_os_str().is_empty() {
            PathBuf::from(".")
        } else {
            dir
        },
        overwrite: args.overwrite,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn target_of(line: &[&str]) -> Target {
        let line = [&["shoal", "fetch", "LINK"], line].concat();
        let Command::Fetch(args) = Cli::try_parse_from(line).expect("a command line").command
        else {
            panic!("`fetch` is fetch");
        };
        target(&args, None)
    }

    #[test]
    fn the_result_goes_where_it_was_asked_to_go() {
        let cases: [(&[&str], &str, Option<&str>); 6] = [
            (&["-d", "down", "-o", "-"], "down", None),
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
            let target = target_of(line);
            assert_eq!(target.dir, Path::new(dir), "{line:?}");
            assert_eq!(target.output.as_deref(), output.map(Path::new), "{line:?}");
        }
    }
}
