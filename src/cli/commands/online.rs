//! Goes online: the node's configuration from flags, its start, its addresses; and what needs no going online, because
//! it was asked before. Shared by all commands that meet peers.

use std::path::PathBuf;

use etcetera::BaseStrategy;

use super::blocking;
use crate::cli::args::NetworkFlags;
use crate::cli::exit::{ExitCode, Failure};
use crate::cli::output::Output;
use crate::cli::signals::Signals;
use crate::content::{Link, Manifest, PieceHashes};
use crate::node::{FetchError, Node, NodeConfig, NodeHandle, host_folder};
use crate::storage::KnownShares;

/// Our folder among those of other programs.
const FOLDER: &str = "shoal";

/// Starts a node, asks it something about a share, and ends it. A signal ends it sooner.
pub(super) async fn ask<T>(
    flags: &NetworkFlags,
    output: &mut Output,
    signals: &Signals,
    question: impl AsyncFnOnce(NodeHandle) -> Result<T, FetchError>,
) -> Result<T, Failure> {
    let node = tokio::select! {
        biased;
        code = signals.first() => return Err(Failure::signalled(code, "before the node was online")),
        node = start(flags, output) => node?,
    };
    let asking = question(node.clone());
    let answer = tokio::select! {
        biased;
        code = signals.first() => Err(Failure::signalled(code, "before a peer answered")),
        answer = asking => answer.map_err(Failure::from),
    };
    node.shutdown().await;
    answer
}

/// Starts a node and tells where it can be reached.
pub(super) async fn start(
    flags: &NetworkFlags,
    output: &mut Output,
) -> Result<NodeHandle, Failure> {
    let node = start_silently(flags).await?;
    for address in node.listeners().await {
        output.listening(&address);
    }
    Ok(node)
}

/// Starts a node and says nothing.
pub(super) async fn start_silently(flags: &NetworkFlags) -> Result<NodeHandle, Failure> {
    Ok(Node::start(config(flags)?).await?)
}

fn config(flags: &NetworkFlags) -> Result<NodeConfig, Failure> {
    Ok(NodeConfig {
        home: home(flags)?,
        listen: flags.listen.clone(),
        port: flags.port,
        peers: flags.peer.clone(),
        mdns: !flags.no_mdns,
        dht: !flags.no_dht,
        up_per_sec: flags.up,
        down_per_sec: flags.down,
    })
}

/// What is in a share, if this host has made or fetched it before: then nobody needs to be asked.
pub(super) async fn known(
    flags: &NetworkFlags,
    link: &Link,
) -> Result<Option<(Manifest, PieceHashes)>, Failure> {
    // Without a home nothing is remembered.
    let Ok(home) = home(flags) else {
        return Ok(None);
    };
    let share = link.share;
    blocking(move || KnownShares::open(&host_folder(&home)).find(&share)).await
}

/// The folder with identities and state.
pub(super) fn home(flags: &NetworkFlags) -> Result<PathBuf, Failure> {
    match &flags.home {
        Some(home) => Ok(home.clone()),
        None => default_home(),
    }
}

/// Below the XDG state folder; where a system has no such thing, among its data.
fn default_home() -> Result<PathBuf, Failure> {
    let strategy = etcetera::choose_base_strategy().map_err(|error| {
        Failure::new(ExitCode::Io, format!("no home folder: {error}"))
            .hint("name one with `--home`")
    })?;
    let state = strategy.state_dir().unwrap_or_else(|| strategy.data_dir());
    Ok(state.join(FOLDER))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::Cli;

    fn configured(line: &[&str]) -> NodeConfig {
        let line = [&["shoal", "fetch", "LINK", "--home", "h"], line].concat();
        let cli = Cli::try_parse_from(line).expect("a command line");
        config(&cli.network).expect("a home is given")
    }

    #[test]
    fn flags_reach_the_node() {
        let config = configured(&[
            "--no-mdns",
            "--up",
            "1M",
            "--port",
            "7",
            "--peer",
            "/ip4/10.0.0.1/tcp/1",
        ]);
        assert!(!config.mdns && config.dht);
        assert_eq!(
            (config.up_per_sec, config.down_per_sec),
            (Some(1_000_000), None)
        );
        assert_eq!((config.port, config.peers.len()), (Some(7), 1));
        assert_eq!(config.home, PathBuf::from("h"));
        assert!(config.listen.is_empty());
    }
}
