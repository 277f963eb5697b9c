//! How the process ends: exit codes, and for each failure its message and what the user can do about it.
//!
//! The only place that knows which error has which code. Prints nothing: `output` does. Used by every file of this folder.
//! Source: the table of exit codes in the product description; 128 + signal number is the shell's convention.

use std::fmt::Write as _;

use crate::content::LinkError;
use crate::node::{FetchError, NodeError, Tried};
use crate::storage::{ErrorClass, SkipReason, Skipped, StorageError};

/// Addresses named one by one when no peer was found; the rest is counted.
const TRIED_SHOWN_MAX: usize = 16;

const COPY_FIRST: &str = "copy its bytes to a file with `cat` first, and share that";
const RESUME: &str = "run the same command again to resume";

/// The exit code of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Done; also any signal after completion.
    Done = 0,
    /// A fault nobody foresaw.
    Unexpected = 1,
    /// The command line cannot be meant, or the link is no link.
    Usage = 2,
    /// No peer of the share was found in time.
    NoPeer = 3,
    /// Not everything is here; the same command resumes.
    Incomplete = 4,
    /// Local files are not as in the share.
    Mismatch = 5,
    /// Disk full, missing or unreadable source, folder not writable, other I/O.
    Io = 6,
    /// The target exists and differs, a path is refused, or another fetch holds the target.
    Exists = 7,
    /// Ended by INT before completion.
    Interrupted = 130,
    /// Ended by TERM before completion.
    Terminated = 143,
}

impl From<ExitCode> for i32 {
    fn from(code: ExitCode) -> Self {
        // The discriminants are the codes.
        code as Self
    }
}

/// A command that did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// How the process ends.
    pub(crate) code: ExitCode,
    /// What happened, in one line without a full stop. May hold hostile text: whoever shows it escapes it.
    pub(crate) message: String,
    /// More about it, a line each.
    pub(crate) details: Vec<String>,
    /// What the user can do, if anything.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub(crate) fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Vec::new(),
            hint: None,
        }
    }

    /// The same with a hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A fault of the program itself.
    pub(crate) fn unexpected(what: impl Into<String>) -> Self {
        Self::new(ExitCode::Unexpected, what)
            .hint("this is a fault of shoal: please report it, with the output of `-vv`")
    }

    /// A signal ended what was not complete.
    pub(crate) fn signalled(code: ExitCode, what: &str) -> Self {
        let by = match code {
            ExitCode::Terminated => "terminated",
            _ => "interrupted",
        };
        Self::new(code, format!("{by} {what}"))
    }

    /// A signal ended a fetch.
    pub(crate) fn fetch_signalled(code: ExitCode) -> Self {
        Self::signalled(code, "before the share was complete").hint(RESUME)
    }

    /// The message with its details in one line, for JSON.
    pub(crate) fn one_line(&self) -> String {
        let mut line = self.message.clone();
        for (at, detail) in self.details.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(line, "{} {detail}", if at == 0 { ":" } else { ";" });
        }
        line
    }
}

impl From<LinkError> for Failure {
    fn from(error: LinkError) -> Self {
        Self::new(ExitCode::Usage, error.to_string())
            .hint("copy the whole link, from `shoal:` to its last character")
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        let code = match error.exit_class() {
            ErrorClass::Usage => ExitCode::Usage,
            ErrorClass::NotFound | ErrorClass::Io | ErrorClass::DiskFull => ExitCode::Io,
            ErrorClass::Exists | ErrorClass::Name => ExitCode::Exists,
            ErrorClass::Incomplete => ExitCode::Incomplete,
            // Whoever cancels asks for the reason itself and does not get here.
            ErrorClass::Cancelled => ExitCode::Interrupted,
        };
        let hint = match &error {
            StorageError::NotFound { .. } => "see that the path is right",
            StorageError::Read { .. } => "see that it can be read",
            StorageError::Write { .. } => {
                "see that it can be written to, or choose another folder with `--dir`"
            }
            StorageError::Glob { .. } => "patterns are written as in .gitignore",
            StorageError::EqualNames { .. } => {
                "rename one of them, or share the folder they are in"
            }
            StorageError::CannotShare { things, is_all } => unshareable_hint(things, *is_all),
            StorageError::NotUtf8 { .. } | StorageError::SourceName { .. } => {
                "give the share another name with `--name`"
            }
            StorageError::FalseLength { .. } => COPY_FIRST,
            StorageError::TooManyEntries => {
                "leave some out with `--exclude`, or make several shares of them"
            }
            StorageError::NoName { .. } => "give the share a name with `--name`",
            StorageError::SourceChanged { .. } => {
                "run the command again when nothing writes to it any more"
            }
            StorageError::NoInodes { .. } => {
                "remove files there and run the same command again to resume, or choose another folder with `--dir`"
            }
            StorageError::DiskFull { .. } | StorageError::QuotaFull { .. } => {
                "free some space and run the same command again to resume"
            }
            StorageError::NotAFolder { .. } | StorageError::NotWritable { .. } => {
                "choose another folder with `--dir`"
            }
            StorageError::TargetDiffers { .. } => {
                "choose another name with `--output`, or replace what differs with `--overwrite`"
            }
            StorageError::Edited { .. } => {
                "move it away and run the same command again: all else is there already"
            }
            StorageError::Blocked { .. } => "move it away, or choose another folder with `--dir`",
            StorageError::Busy { .. } => "wait for it, or choose another folder with `--dir`",
            StorageError::Incomplete { .. } => RESUME,
            _ => "",
        };
        let failure = Self {
            details: error.details(),
            ..Self::new(code, error.to_string())
        };
        if hint.is_empty() {
            failure
        } else {
            failure.hint(hint)
        }
    }
}

impl From<NodeError> for Failure {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Network(_) => Self::new(ExitCode::Io, error.to_string())
                .hint("choose another address with `--listen` or another port with `--port`; 0 is any free one"),
            NodeError::Taken => Self::unexpected(error.to_string()),
        }
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        let message = error.to_string();
        match error {
            FetchError::NoPeer { tried, .. } => Self {
                details: details(&tried),
                ..Self::new(ExitCode::NoPeer, message).hint(match tried.as_slice() {
                    [] => "nobody here announces it: ask for a link with addresses, or name a node with `--peer`",
                    _ => "see that the seeder runs and can be reached, or name another node with `--peer`",
                })
            },
            FetchError::Stalled { .. } => Self::new(ExitCode::Incomplete, message)
                .hint("run the same command again to resume, when somebody shares what is missing"),
            FetchError::NotOneFile => Self::new(ExitCode::Usage, message)
                .hint("fetch it into a folder, with `--dir` or `--output`"),
            FetchError::Share(_) => Self::new(ExitCode::Exists, message)
                .hint("no other seeder of this share has another list of files: ask who made it"),
            FetchError::Node(error) => error.into(),
            FetchError::Storage(StorageError::NothingChosen) => {
                Self::new(ExitCode::Usage, format!("{message} `--only`"))
                    .hint("see what is in it with `shoal ls`; patterns are written as in .gitignore")
            }
            FetchError::Storage(error) => error.into(),
            FetchError::Closed => Self::unexpected(message),
        }
    }
}

/// What to do about things that cannot be shared.
fn unshareable_hint(things: &[Skipped], is_all: bool) -> &'static str {
    let are_all =
        |wanted: fn(&SkipReason) -> bool| things.iter().all(|thing| wanted(&thing.reason));
    let is_false_length = |reason: &SkipReason| {
        matches!(
            reason,
            SkipReason::LongerThanLength | SkipReason::ShorterThanLength
        )
    };
    if are_all(|reason| matches!(reason, SkipReason::Changed)) {
        return if is_all {
            "run the command again when nothing writes to it any more"
        } else {
            "run the command again when nothing writes to them any more, or leave them out with `--exclude` or with `--skip-unshareable`"
        };
    }
    if are_all(|reason| matches!(reason, SkipReason::Gone)) {
        return "see that the paths are right";
    }
    if !is_all {
        return "rename them, or leave them out with `--exclude` or with `--skip-unshareable`";
    }
    if are_all(is_false_length) {
        return COPY_FIRST;
    }
    if are_all(|reason| matches!(reason, SkipReason::Unreadable(_))) {
        return "see that it can be read";
    }
    "share something else: nothing is left without it"
}

fn details(tried: &[Tried]) -> Vec<String> {
    let mut details: Vec<_> = tried
        .iter()
        .take(TRIED_SHOWN_MAX)
        .map(|tried| format!("{}: {}", tried.address, tried.outcome))
        .collect();
    if tried.len() > TRIED_SHOWN_MAX {
        details.push(format!("and {} more", tried.len() - TRIED_SHOWN_MAX));
    }
    details
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    fn path() -> PathBuf {
        PathBuf::from("p")
    }

    fn source() -> io::Error {
        io::Error::other("x")
    }

    #[test]
    fn codes_are_those_of_the_manual() {
        let cases = [
            (ExitCode::Done, 0),
            (ExitCode::Unexpected, 1),
            (ExitCode::Usage, 2),
            (ExitCode::NoPeer, 3),
            (ExitCode::Incomplete, 4),
            (ExitCode::Mismatch, 5),
            (ExitCode::Io, 6),
            (ExitCode::Exists, 7),
            (ExitCode::Interrupted, 130),
            (ExitCode::Terminated, 143),
        ];
        for (code, expected) in cases {
            assert_eq!(i32::from(code), expected);
        }
    }

    #[test]
    fn storage_errors_have_the_code_of_their_class() {
        let free = Some(1);
        let (first, second) = (path(), path());
        let cases = [
            (StorageError::NothingToShare, 2),
            (StorageError::EqualNames { first, second }, 2),
            (StorageError::NotFound { path: path() }, 6),
            (
                StorageError::NotWritable {
                    path: path(),
                    source: source(),
                },
                6,
            ),
            (
                StorageError::Read {
                    path: path(),
                    source: source(),
                },
                6,
            ),
            (
                StorageError::DiskFull {
                    path: path(),
                    needed: 2,
                    free,
                },
                6,
            ),
            (StorageError::TargetDiffers { path: path() }, 7),
            (StorageError::Edited { path: path() }, 7),
            (StorageError::Busy { path: path() }, 7),
            (StorageError::Blocked { path: path() }, 7),
            (
                StorageError::Incomplete {
                    path: path(),
                    missing: 1,
                },
                4,
            ),
        ];
        for (error, code) in cases {
            let text = error.to_string();
            let failure = Failure::from(error);
            assert_eq!(i32::from(failure.code), code, "{text}");
            assert_eq!(failure.message, text);
        }
    }

    #[test]
    fn a_fetch_that_finds_nobody_lists_what_was_tried() {
        let tried = |count: usize| -> Vec<Tried> {
            (0..count)
                .map(|port| Tried {
                    address: format!("/ip4/10.0.0.1/tcp/{port}")
                        .parse()
                        .expect("an address"),
                    outcome: "refused".into(),
                })
                .collect()
        };
        let failure = |count| {
            Failure::from(FetchError::NoPeer {
                after: Duration::from_secs(60),
                tried: tried(count),
            })
        };
        assert_eq!(failure(2).code, ExitCode::NoPeer);
        assert_eq!(
            failure(2).one_line(),
            "no peer of this share was found in 60 s: /ip4/10.0.0.1/tcp/0: refused; /ip4/10.0.0.1/tcp/1: refused"
        );
        assert_ne!(failure(0).hint, failure(1).hint);
        assert_eq!(failure(40).details.len(), TRIED_SHOWN_MAX + 1);
        assert_eq!(failure(40).details[TRIED_SHOWN_MAX], "and 24 more");
    }

    #[test]
    fn what_can_be_resumed_says_so() {
        let stalled = FetchError::Stalled {
            after: Duration::from_secs(60),
            bytes: 1,
            total: 2,
            missing: 1,
            why: None,
        };
        let failures = [
            Failure::from(stalled),
            Failure::fetch_signalled(ExitCode::Interrupted),
            Failure::from(StorageError::DiskFull {
                path: path(),
                needed: 1,
                free: None,
            }),
        ];
        for failure in failures {
            assert!(
                failure
                    .hint
                    .as_ref()
                    .is_some_and(|hint| hint.contains("to resume")),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn a_link_that_is_cut_off_is_a_usage_error() {
        let error = "shoal:abc"
            .parse::<crate::content::Link>()
            .expect_err("too short");
        let failure = Failure::from(error);
        assert_eq!(failure.code, ExitCode::Usage);
        assert!(failure.hint.is_some());
    }
}
