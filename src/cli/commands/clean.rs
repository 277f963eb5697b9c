//! `shoal clean`: lists, or removes, the part folders of shares that nobody fetches any more.

use std::path::PathBuf;

use super::blocking;
use crate::cli::args::CleanArgs;
use crate::cli::exit::{ExitCode, Failure};
use crate::cli::output::Output;
use crate::storage::{Leftover, Leftovers, Reach, StorageError, Untouched};

/// One part folder, and what became of it.
type Removed = (Leftover, Result<Result<(), Untouched>, StorageError>);

/// Looks, and removes when it is told to. Only what could not be looked into or removed is a failure.
pub(super) async fn run(args: &CleanArgs, output: &mut Output) -> Result<ExitCode, Failure> {
    let dirs = match args.dirs.as_slice() {
        [] => vec![PathBuf::from(".")],
        dirs => dirs.to_vec(),
    };
    let reach = if args.recursive {
        Reach::Below
    } else {
        Reach::Folder
    };
    let looked = blocking(move || {
        let mut looked = Leftovers::default();
        for dir in dirs {
            looked.look(&dir, reach);
        }
        looked
    });
    let Leftovers {
        mut found,
        mut untouched,
        mut failed,
    } = looked.await?;
    if args.remove {
        let removing = blocking(move || -> Vec<Removed> {
            let removed = found.into_iter().map(|leftover| {
                let result = leftover.remove();
                (leftover, result)
            });
            removed.collect()
        });
        found = Vec::new();
        for (leftover, result) in removing.await? {
            match result {
                Ok(Ok(())) => found.push(leftover),
                Ok(Err(reason)) => untouched.push((leftover.path, reason)),
                Err(error) => failed.push(error),
            }
        }
    }
    output.leftovers(&found, args.remove);
    output.untouched(&untouched);
    match failed.len() {
        0 => Ok(ExitCode::Done),
        1 => Err(failed.remove(0).into()),
        count => Err(Failure {
            details: failed.iter().map(ToString::to_string).collect(),
            ..Failure::new(
                ExitCode::Io,
                format!("{count} folders could not be looked into or removed"),
            )
        }),
    }
}
