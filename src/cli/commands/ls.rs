//! `shoal ls`: what is in a share, before any download, or what would be in one of local files.

use std::path::PathBuf;

use super::import::import_with;
use super::online;
use crate::cli::args::{LsArgs, NetworkFlags};
use crate::cli::exit::{ExitCode, Failure};
use crate::cli::output::Output;
use crate::cli::signals::Signals;
use crate::content::Link;
use crate::node::{NodeHandle, host_folder};
use crate::storage::ImportOptions;

/// Lists. What looks like a link is one; anything else is a path, or the bare id of a share where no such path is.
pub(super) async fn run(
    args: &LsArgs,
    network: &NetworkFlags,
    output: &mut Output,
    signals: &Signals,
) -> Result<ExitCode, Failure> {
    let path = PathBuf::from(&args.what);
    let text = args.what.to_string_lossy();
    let is_link = text.starts_with("shoal:");
    let is_here = || path.symlink_metadata().is_ok();
    let manifest = match text.parse::<Link>() {
        Ok(link) if is_link || !is_here() => match online::known(network, &link).await? {
            Some((manifest, _)) => manifest,
            None => {
                let question = async |node: NodeHandle| node.manifest(link, args.timeout).await;
                online::ask(network, output, signals, question).await?
            }
        },
        Err(error) if is_link => return Err(error.into()),
        _ => {
            let options = ImportOptions {
                skip_unshareable: args.unshareable.skip,
                state: online::home(network).ok().map(|home| host_folder(&home)),
                ..ImportOptions::default()
            };
            let imported = import_with(&[path], options, output, signals).await?;
            imported.manifest
        }
    };
    output.finish();
    output.listing(&manifest);
    Ok(ExitCode::Done)
}
