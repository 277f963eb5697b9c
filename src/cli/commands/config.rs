//! `shoal config show`: every setting with its value and where that comes from, as a settings file.

use crate::cli::exit::ExitCode;
use crate::cli::output::Output;
use crate::cli::settings::Setting;

/// Prints them in the order of the help.
pub(super) fn run(settings: &[Setting], output: &mut Output) -> ExitCode {
    settings.iter().for_each(|setting| output.setting(setting));
    ExitCode::Done
}
