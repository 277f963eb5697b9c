//! The commands: what each does, in order, and with which code it ends.
//!
//! They speak to storage and to the node, and tell `output` what is; they print nothing themselves. Called by `cli::run`.

mod clean;
mod config;
mod fetch;
mod import;
mod link;
mod ls;
mod manual;
mod node;
mod online;
mod rules;
mod seed;
mod verify;
mod watch;

use super::args::{Cli, Command};
use super::exit::{ExitCode, Failure};
use super::output::Output;
use super::settings::Setting;
use super::signals::Signals;

/// Does what the command line says and reports a failure.
pub(super) async fn run(
    cli: Cli,
    settings: Vec<Setting>,
    mut output: Output,
    signals: Signals,
) -> ExitCode {
    let Cli {
        command, network, ..
    } = cli;
    let ended = match &command {
        Command::Seed(args) => seed::run(args, &network, &mut output, &signals).await,
        Command::Fetch(args) => fetch::run(args, &network, &mut output, &signals).await,
        Command::Node(args) => node::run(args, &network, &mut output, &signals).await,
        Command::Ls(args) => ls::run(args, &network, &mut output, &signals).await,
        Command::Verify(args) => verify::run(args, &network, &mut output, &signals).await,
        Command::Link(args) => link::run(args, &network, &mut output, &signals).await,
        Command::Clean(args) => clean::run(args, &mut output).await,
        Command::Config(_) => Ok(config::run(&settings, &mut output)),
        Command::Completions(args) => Ok(manual::completions(args, &mut output)),
        Command::Man => manual::man(&mut output),
    };
    let code = ended.unwrap_or_else(|failure| {
        output.failed(&failure);
        failure.code
    });
    output.finish();
    code
}

/// Runs what blocks, where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Failure::unexpected(error.to_string()))
}
