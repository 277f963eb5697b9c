//! `shoal link`: prints the link of local files without going online. It has no addresses.

use super::import::import;
use crate::cli::args::{LinkArgs, NetworkFlags};
use crate::cli::exit::{ExitCode, Failure};
use crate::cli::output::Output;
use crate::cli::signals::Signals;
use crate::content::Link;

/// Reads the files and prints.
pub(super) async fn run(
    args: &LinkArgs,
    network: &NetworkFlags,
    output: &mut Output,
    signals: &Signals,
) -> Result<ExitCode, Failure> {
    let imported = import(&args.sources, network, output, signals).await?;
    let link = Link {
        share: imported.manifest.id(),
        hints: None,
    };
    output.finish();
    output.link(&link, &imported.manifest);
    Ok(ExitCode::Done)
}
