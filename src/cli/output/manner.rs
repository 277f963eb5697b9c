//! How to speak: what goes to stdout, how lively stderr is, colours and characters.
//!
//! Decided once, from the flags and from what is around the process; nothing else asks the environment. Called by
//! `output`, and by `cli` for the log.
//! Source: the product description, "Streams"; no-color.org; POSIX on LC_ALL, LC_CTYPE and LANG.

use std::ffi::OsString;
use std::io::{self, IsTerminal};

use crate::cli::args::{OutputFlags, When};
use crate::tui::{Glyphs, screen};

/// What matters of terminals and environment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings {
    is_stdout_terminal: bool,
    is_stderr_terminal: bool,
    /// A terminal that only prints, or that nobody named.
    is_dumb: bool,
    /// The user wants no colours anywhere.
    no_color: bool,
    is_utf8: bool,
}

/// What is written to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Results {
    /// The bare result, exactly, for a pipe.
    Exact,
    /// The bare result, escaped, for a terminal.
    Escaped,
    /// JSON lines.
    Json,
}

/// What is written to stderr, each including those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Talk {
    /// Errors.
    Errors,
    /// What happens.
    Events,
    /// How far it is, as lines.
    Lines,
    /// How far it is, as a view that is painted over.
    Live,
}

/// How to speak.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(super) results: Results,
    pub(super) talk: Talk,
    pub(super) is_verbose: bool,
    pub(super) is_coloured: bool,
    pub(super) glyphs: Glyphs,
    /// A result may land in the middle of the view.
    pub(super) is_stdout_terminal: bool,
}

impl Surroundings {
    /// As they are.
    pub(crate) fn read() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        Self {
            is_stdout_terminal: io::stdout().is_terminal(),
            is_stderr_terminal: screen::is_terminal(),
            is_dumb: set("TERM").is_none_or(|term| term == "dumb"),
            no_color: set("NO_COLOR").is_some(),
            is_utf8: locale.is_some_and(|locale| names_utf8(&locale)),
        }
    }
}

fn names_utf8(locale: &OsString) -> bool {
    let locale = locale.to_string_lossy().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

impl Manner {
    /// Flags first, then what is around.
    pub(crate) fn choose(flags: &OutputFlags, around: &Surroundings) -> Self {
        let results = match (flags.json, around.is_stdout_terminal) {
            (true, _) => Results::Json,
            (false, true) => Results::Escaped,
            (false, false) => Results::Exact,
        };
        let talk = if flags.quiet {
            Talk::Errors
        } else if flags.no_progress {
            Talk::Events
        } else if around.is_stderr_terminal && !around.is_dumb {
            Talk::Live
        } else {
            Talk::Lines
        };
        let is_coloured = match flags.color {
            When::Always => true,
            When::Never => false,
            When::Auto => around.is_stderr_terminal && !around.is_dumb && !around.no_color,
        };
        Self {
            results,
            talk,
            is_verbose: flags.verbose > 0,
            is_coloured,
            glyphs: if around.is_utf8 {
                Glyphs::Unicode
            } else {
                Glyphs::Ascii
            },
            is_stdout_terminal: around.is_stdout_terminal,
        }
    }

    /// Whether stderr takes colours.
    pub(crate) fn is_coloured(&self) -> bool {
        self.is_coloured
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: OutputFlags = OutputFlags {
        json: false,
        quiet: false,
        verbose: 0,
        no_progress: false,
        color: When::Auto,
    };

    const TERMINAL: Surroundings = Surroundings {
        is_stdout_terminal: true,
        is_stderr_terminal: true,
        is_dumb: false,
        no_color: false,
        is_utf8: true,
    };

    const PIPE: Surroundings = Surroundings {
        is_stdout_terminal: false,
        is_stderr_terminal: false,
        is_dumb: true,
        ..TERMINAL
    };

    #[test]
    fn terminals_get_a_view_and_pipes_get_lines() {
        let dumb = Surroundings {
            is_dumb: true,
            ..TERMINAL
        };
        let no_color = Surroundings {
            no_color: true,
            ..TERMINAL
        };
        let cases = [
            (TERMINAL, Talk::Live, true),
            (PIPE, Talk::Lines, false),
            (dumb, Talk::Lines, false),
            (no_color, Talk::Live, false),
        ];
        for (around, talk, is_coloured) in cases {
            let manner = Manner::choose(&FLAGS, &around);
            assert_eq!(
                (manner.talk, manner.is_coloured),
                (talk, is_coloured),
                "{around:?}"
            );
        }
    }

    #[test]
    fn flags_come_before_surroundings() {
        let quiet = OutputFlags {
            quiet: true,
            ..FLAGS
        };
        assert_eq!(Manner::choose(&quiet, &TERMINAL).talk, Talk::Errors);
        let no_progress = OutputFlags {
            no_progress: true,
            ..FLAGS
        };
        assert_eq!(Manner::choose(&no_progress, &TERMINAL).talk, Talk::Events);
        let always = OutputFlags {
            color: When::Always,
            ..FLAGS
        };
        assert!(Manner::choose(&always, &PIPE).is_coloured);
        let never = OutputFlags {
            color: When::Never,
            ..FLAGS
        };
        assert!(!Manner::choose(&never, &TERMINAL).is_coloured);
        let json = OutputFlags {
            json: true,
            ..FLAGS
        };
        assert_eq!(Manner::choose(&json, &TERMINAL).results, Results::Json);
    }

    #[test]
    fn results_are_exact_for_pipes_and_escaped_for_terminals() {
        assert_eq!(Manner::choose(&FLAGS, &PIPE).results, Results::Exact);
        assert_eq!(Manner::choose(&FLAGS, &TERMINAL).results, Results::Escaped);
    }

    #[test]
    fn only_a_locale_that_names_utf_8_has_it() {
        for (locale, expected) in [
            ("C.UTF-8", true),
            ("de_DE.utf8", true),
            ("C", false),
            ("ja_JP.eucJP", false),
        ] {
            assert_eq!(names_utf8(&locale.into()), expected, "{locale}");
        }
    }
}
