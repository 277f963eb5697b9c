//! `shoal node`: takes part without a share, as a meeting point for others, until its time is up or a signal ends it.

use super::online;
use crate::cli::args::{NetworkFlags, NodeArgs};
use crate::cli::exit::{ExitCode, Failure};
use crate::cli::output::{Output, StopReason};
use crate::cli::signals::Signals;
use crate::content::Multiaddr;
use crate::node::{NodeEvent, NodeHandle};

/// Prints where it can be reached, then passes on what it is told. Time that is up is success.
pub(super) async fn run(
    args: &NodeArgs,
    network: &NetworkFlags,
    output: &mut Output,
    signals: &Signals,
) -> Result<ExitCode, Failure> {
    let node = tokio::select! {
        biased;
        code = signals.first() => return Err(Failure::signalled(code, "before the node was online")),
        node = online::start_silently(network) => node?,
    };
    let (code, reason) = take_part(args, &node, output, signals).await;
    if code == ExitCode::Done {
        signals.complete();
    }
    output.stopped(reason, 0);
    node.shutdown().await;
    Ok(code)
}

async fn take_part(
    args: &NodeArgs,
    node: &NodeHandle,
    output: &mut Output,
    signals: &Signals,
) -> (ExitCode, StopReason) {
    let mut events = node.events();
    let mut printed: Vec<Multiaddr> = Vec::new();
    for address in node.listeners().await {
        output.listening_here(&address);
        printed.push(address);
    }
    let time_is_up = async {
        match args.time {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(time_is_up);
    loop {
        tokio::select! {
            biased;
            code = signals.first() => return (code, StopReason::Signal),
            () = &mut time_is_up => return (ExitCode::Done, StopReason::Time),
            told = events.recv() => match told {
                Ok(told) => match &told.event {
                    // An interface came up later; those of the start may be told once more.
                    NodeEvent::Listening { address } if printed.contains(address) => {}
                    NodeEvent::Listening { address } => {
                        output.listening_here(address);
                        printed.push(address.clone());
                    }
                    _ => output.told(&told),
                },
                // Missed some; the next ones come.
                Err(_) => tokio::task::yield_now().await,
            },
        }
    }
}
