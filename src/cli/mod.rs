//! The command line: from what was typed to an exit code.
//!
//! Parses, starts the runtime, runs one command, hears signals. `commands` has what each command does, `output` what is
//! said and how, `exit` how it ends. Ends no process itself: `main` does, and it is the only caller.

mod args;
mod commands;
mod exit;
mod heap;
mod output;
mod settings;
mod signals;
mod units;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::FromArgMatches;
use clap::error::{Error, ErrorKind};
use clap::parser::ValueSource;

use self::args::{Cli, Command, OutputFlags, RULES, When};
pub use self::exit::ExitCode;
use self::exit::Failure;
use self::output::{Manner, Output, Surroundings};
#[doc(hidden)] // Only for the tests that feed it what a file may say.
pub use self::settings::check_settings;
use self::settings::{Setting, Settings};
use self::signals::Signals;
use crate::tui::screen;

/// A command line that can be run.
#[derive(Clone, Debug)]
pub struct Invocation {
    cli: Cli,
    manner: Manner,
    /// What `config show` shows; of other commands nothing.
    settings: Vec<Setting>,
}

impl Invocation {
    /// What to log unless the user says otherwise, as `tracing` filters are written.
    #[must_use]
    pub fn log_filter(&self) -> &'static str {
        // Two parts of libp2p call normal things warnings and errors: a routing table that is still empty, and multicast
        // on an interface that cannot do it.
        match (self.cli.output.quiet, self.cli.output.verbose) {
            (true, _) => "error,libp2p_mdns=off",
            (false, 0) => "warn,libp2p_kad=error,libp2p_mdns=off",
            (false, 1) => "warn,shoal=info,libp2p_kad=error,libp2p_mdns=off",
            (false, 2) => "info,shoal=debug",
            (false, _) => "debug",
        }
    }

    /// Whether the log may use colours.
    #[must_use]
    pub fn is_log_coloured(&self) -> bool {
        self.manner.is_coloured()
    }
}

/// Where one record of the log goes: to stderr, above the live view.
#[must_use]
pub fn log_writer() -> impl Write {
    screen::LogWriter::default()
}

/// Reads a command line, program name first.
///
/// # Errors
/// The exit code when there is nothing to run: help and version were printed, or what is wrong with the line.
pub fn parse(line: impl IntoIterator<Item = OsString>) -> Result<Invocation, ExitCode> {
    let line: Vec<_> = line.into_iter().collect();
    let refused = |failure: &Failure| {
        let manner = Manner::choose(&output_flags_of(&line), &Surroundings::read());
        Output::new(manner).failed(failure);
        Err(failure.code)
    };
    let mut parsed = try_parse(&line, &Settings::default());
    // Help, completions and the manual are there whatever the file says.
    if parsed
        .as_ref()
        .is_ok_and(|(cli, _)| cli.command.is_set_up())
    {
        match Settings::read() {
            Ok(settings) if settings.is_empty() => {}
            Ok(settings) => parsed = try_parse(&line, &settings),
            Err(failure) => return refused(&failure),
        }
    }
    match parsed {
        Ok((cli, settings)) => Ok(Invocation {
            manner: Manner::choose(&cli.output, &Surroundings::read()),
            cli,
            settings,
        }),
        Err(error) => match error.kind() {
            ErrorKind::DisplayVersion => {
                // A closed stdout is no error.
                let _ = writeln!(io::stdout(), "{}", version());
                Err(ExitCode::Done)
            }
            ErrorKind::DisplayHelp => {
                let _ = error.print();
                Err(ExitCode::Done)
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                let _ = error.print();
                Err(ExitCode::Usage)
            }
            _ => refused(&usage_failure(&error)),
        },
    }
}

/// Runs a command to its end; at most two seconds from the first signal.
#[must_use]
pub fn run(invocation: Invocation) -> ExitCode {
    heap::keep_pages();
    screen::clear_on_panic();
    let output = Output::new(invocation.manner);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return cannot_start(output, &error),
    };
    let code = runtime.block_on(async {
        let (signals, urgent) = match Signals::listen() {
            Ok(listening) => listening,
            Err(error) => return cannot_start(output, &error),
        };
        // A task of its own: whatever it is stuck in, a terminal that was stopped for example, a second signal gets through.
        let command = tokio::spawn(commands::run(
            invocation.cli,
            invocation.settings,
            output,
            signals,
        ));
        tokio::select! {
            biased;
            ended = command => ended.unwrap_or_else(|error| {
                tracing::error!(%error, "the command did not end as it should");
                let failure = Failure::unexpected("internal error");
                Output::new(invocation.manner).failed(&failure);
                failure.code
            }),
            code = urgent.end() => code,
        }
    });
    // Threads that still wait for a disk do not keep the process.
    runtime.shutdown_background();
    screen::clear();
    code
}

fn cannot_start(mut output: Output, error: &io::Error) -> ExitCode {
    let failure = Failure::new(ExitCode::Unexpected, format!("cannot start: {error}"));
    output.failed(&failure);
    failure.code
}

fn version() -> String {
    format!("shoal {}", env!("CARGO_PKG_VERSION"))
}

/// What is to be done, and the settings for `config show`.
fn try_parse(line: &[OsString], file: &Settings) -> Result<(Cli, Vec<Setting>), Error> {
    let mut command = file.applied(args::command());
    let matches = command.try_get_matches_from_mut(line)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    if let (Command::Fetch(fetch), Some((_, matches))) = (&cli.command, matches.subcommand())
        && !fetch.seed
    {
        // One from the environment is meant for other commands.
        let is_typed = |rule: &&&str| matches.value_source(rule) == Some(ValueSource::CommandLine);
        if let Some(rule) = RULES.iter().find(is_typed) {
            let text = format!(
                "`--{}` needs `--seed`: without, a fetch ends by itself",
                rule.replace('_', "-")
            );
            let mut fetch = command.find_subcommand("fetch").cloned().unwrap_or(command);
            return Err(fetch.error(ErrorKind::MissingRequiredArgument, text));
        }
    }
    let settings = match matches.subcommand() {
        Some(("config", matches)) => matches.subcommand(),
        _ => None,
    };
    let settings = settings.map(|(_, matches)| file.show(&command, matches));
    Ok((cli, settings.unwrap_or_default()))
}

/// How to report what is wrong with a line that could not be read.
fn output_flags_of(line: &[OsString]) -> OutputFlags {
    let is_typed = |flag: &str| line.iter().any(|word| word == flag);
    let is_set = |name: &str| {
        std::env::var(name).is_ok_and(|value| matches!(value.as_str(), "1" | "true" | "yes" | "on"))
    };
    OutputFlags {
        json: is_typed("--json") || is_set("SHOAL_JSON"),
        quiet: false,
        verbose: 0,
        no_progress: false,
        color: When::Auto,
    }
}

/// The error in one line and what to do about it in another.
fn usage_failure(error: &Error) -> Failure {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n");
    let joined = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let message = joined(paragraphs.next().unwrap_or_default());
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let rest: Vec<_> = paragraphs.map(joined).collect();
    let tip = rest
        .iter()
        .find_map(|paragraph| paragraph.strip_prefix("tip: "));
    let usage = rest
        .iter()
        .find_map(|paragraph| paragraph.strip_prefix("Usage: "));
    let failure = Failure::new(ExitCode::Usage, message);
    match (tip, usage) {
        (Some(tip), _) => failure.hint(tip),
        (None, usage) => {
            // `shoal fetch [OPTIONS] <LINK>`: the words before the first in brackets.
            let words = usage.unwrap_or("shoal").split(' ');
            let command: Vec<_> = words
                .take_while(|word| word.starts_with(|first: char| first.is_ascii_alphabetic()))
                .collect();
            failure.hint(format!("see `{} --help`", command.join(" ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(line: &[&str]) -> Result<Cli, Error> {
        let line: Vec<_> = ["shoal"].iter().chain(line).map(OsString::from).collect();
        try_parse(&line, &Settings::default()).map(|(cli, _)| cli)
    }

    fn failure(line: &[&str]) -> Failure {
        usage_failure(&tried(line).expect_err("this line is wrong"))
    }

    #[test]
    fn the_version_is_the_name_and_the_number() {
        assert_eq!(version(), "shoal 0.1.0");
        for line in [["--version", "-V"], ["fetch", "--version"]] {
            assert_eq!(
                tried(&line).expect_err("no command").kind(),
                ErrorKind::DisplayVersion
            );
        }
    }

    #[test]
    fn a_wrong_line_is_explained_in_one_line_and_a_hint() {
        let missing = failure(&["fetch"]);
        assert_eq!(missing.code, ExitCode::Usage);
        assert_eq!(
            missing.message,
            "the following required arguments were not provided: <LINK>"
        );
        assert_eq!(missing.hint.as_deref(), Some("see `shoal fetch --help`"));
        let rate = failure(&["seed", "a", "--up", "fast"]);
        assert!(
            rate.message
                .starts_with("invalid value 'fast' for '--up <RATE>': expected"),
            "{rate:?}"
        );
        let mistyped = failure(&["seed", "a", "--no-mdn"]);
        assert!(mistyped.hint.is_some_and(|hint| hint.contains("--no-mdns")));
    }

    #[test]
    fn stop_rules_need_a_fetch_that_stays() {
        let refused = failure(&["fetch", "LINK", "--until-copies", "2"]);
        assert!(
            refused.message.contains("`--until-copies` needs `--seed`"),
            "{refused:?}"
        );
        assert_eq!(refused.hint.as_deref(), Some("see `shoal fetch --help`"));
        for line in [
            &["fetch", "LINK", "--seed", "--ratio", "2"][..],
            &["seed", "a", "--for", "1s"],
        ] {
            assert!(tried(line).is_ok(), "{line:?}");
        }
    }

    #[test]
    fn the_log_says_more_the_more_is_asked() {
        let filter = |line: &[&str]| {
            let cli = tried(&[&["seed", "a"], line].concat()).expect("a right line");
            let manner = Manner::choose(&cli.output, &Surroundings::read());
            let settings = Vec::new();
            Invocation {
                cli,
                manner,
                settings,
            }
            .log_filter()
        };
        let quieted = "libp2p_kad=error,libp2p_mdns=off";
        assert_eq!(filter(&[]), format!("warn,{quieted}"));
        assert_eq!(filter(&["-v"]), format!("warn,shoal=info,{quieted}"));
        assert_eq!(filter(&["-vv"]), "info,shoal=debug");
        assert_eq!(filter(&["-q", "-v"]), "error,libp2p_mdns=off");
    }
}
