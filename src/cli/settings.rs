//! Settings: one TOML file in which every flag has a key of its name; below flags and variables, above defaults.
//!
//! The flags in `args` are the only table of names: nothing here lists a key. A file that says anything nobody knows is
//! refused whole. Called by `cli`, before a command runs; `config show` prints what is made here.
//! Source: the product description, "Command line"; XDG base directories; TOML 1.0.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use etcetera::BaseStrategy;
use toml::{Table, Value};

use super::args;
use super::exit::{ExitCode, Failure};

/// Below the config folder of the user.
const FILE: [&str; 2] = ["shoal", "config.toml"];

/// Columns before the comment of a line that is shown; longer lines push theirs to the right.
const LINE_COLUMNS: usize = 32;

/// The keys of a settings file that says `text`, or why it is refused. For the tests that feed it arbitrary text.
///
/// # Errors
/// What is wrong, in one line.
#[doc(hidden)]
pub fn check_settings(text: &str) -> Result<Vec<String>, String> {
    let settings = Settings::parse(Path::new("config.toml"), text);
    let settings = settings.map_err(|failure| failure.message)?;
    let applied = settings.applied(args::command());
    // The parser looks at its own defaults here, and panics at one that it does not take.
    applied.debug_assert();
    Ok(settings
        .entries
        .into_iter()
        .map(|entry| entry.key)
        .collect())
}

/// What the file says; nothing when there is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    entries: Vec<Entry>,
}

/// A key of the file that is a flag, with values this flag takes.
#[derive(Clone, Debug)]
struct Entry {
    key: String,
    values: Vec<String>,
}

/// Where a value comes from, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nobody said anything.
    Default,
    /// The settings file.
    File,
    /// The variable of the flag.
    Variable,
    /// The command line.
    Flag,
}

/// A value as the file would have it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shown {
    /// Nothing: the flag has no default, or one that depends on the machine.
    Unset,
    /// On or off.
    Switch(bool),
    /// A count.
    Count(u8),
    /// Text.
    Text(String),
    /// Several of them.
    List(Vec<String>),
}

/// One flag with its value and where that comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Setting {
    /// The flag without its dashes, which is the key of the file.
    pub(super) key: String,
    /// Its variable.
    pub(super) variable: String,
    /// What holds.
    pub(super) value: Shown,
    /// Why it does.
    pub(super) origin: Origin,
}

/// Where the file is looked for; `None` on a system without a home.
pub(super) fn path() -> Option<PathBuf> {
    let strategy = etcetera::choose_base_strategy().ok()?;
    Some(
        FILE.iter()
            .fold(strategy.config_dir(), |path, part| path.join(part)),
    )
}

impl Settings {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// A usage failure that names key and file for what cannot be meant; an I/O failure for a file that cannot be read.
    pub(super) fn read() -> Result<Self, Failure> {
        let Some(path) = path() else {
            return Ok(Self::default());
        };
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&path, &text),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                Ok(Self::default())
            }
            Err(error) => {
                let message = format!("cannot read the settings `{}`: {error}", path.display());
                Err(Failure::new(ExitCode::Io, message)
                    .hint("see that it can be read, or move it away"))
            }
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Failure> {
        let refuse =
            |message: String, hint: &str| Err(Failure::new(ExitCode::Usage, message).hint(hint));
        let table: Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                let line = 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
                let message = error.message();
                return refuse(
                    format!("`{}`, line {line}: {message}", path.display()),
                    "settings are TOML: `up = \"1M\"`, `no-mdns = true`",
                );
            }
        };
        let command = args::command();
        let flags = flags(&command);
        let mut entries = Vec::new();
        for (key, value) in &table {
            let Some(flag) = flags.iter().find(|flag| flag.get_long() == Some(key)) else {
                return refuse(
                    format!("unknown key `{key}` in `{}`", path.display()),
                    "keys are long flags without their dashes; see `shoal fetch --help`",
                );
            };
            match values(flag, value) {
                Ok(values) => entries.push(Entry {
                    key: key.clone(),
                    values,
                }),
                Err(why) => {
                    return refuse(
                        format!("`{key}` in `{}`: {why}", path.display()),
                        "the file takes what the flag takes",
                    );
                }
            }
        }
        Ok(Self { entries })
    }

    /// Whether there is anything to apply.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The command with the file's values for defaults, so that flags and variables come first.
    pub(super) fn applied(&self, command: Command) -> Command {
        let with_default = |arg: Arg| match self.of(&arg) {
            Some(entry) => arg.default_values(entry.values.clone()),
            None => arg,
        };
        command
            .mut_args(with_default)
            .mut_subcommands(|command| self.applied(command))
    }

    fn of(&self, flag: &Arg) -> Option<&Entry> {
        // An empty list says nothing.
        let entry = self
            .entries
            .iter()
            .find(|entry| flag.get_long() == Some(&entry.key))?;
        (!entry.values.is_empty()).then_some(entry)
    }

    /// Every flag of `command`, which was parsed to `matches`, with its value and where that comes from.
    pub(super) fn show(&self, command: &Command, matches: &ArgMatches) -> Vec<Setting> {
        let setting = |flag: &&Arg| Setting {
            key: flag.get_long().unwrap_or_default().to_owned(),
            variable: flag
                .get_env()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            value: shown(flag, matches),
            origin: match matches.value_source(flag.get_id().as_str()) {
                Some(ValueSource::CommandLine) => Origin::Flag,
                Some(ValueSource::EnvVariable) => Origin::Variable,
                _ if self.of(flag).is_some() => Origin::File,
                _ => Origin::Default,
            },
        };
        flags(command).iter().map(setting).collect()
    }
}

/// All flags of a command and of those below it, each name once, in the order of the help.
pub(super) fn flags(command: &Command) -> Vec<&Arg> {
    let mut found: Vec<&Arg> = Vec::new();
    let mut commands = vec![command];
    while let Some(command) = commands.pop() {
        for flag in command.get_arguments() {
            let is_ours = flag.get_env().is_some();
            if is_ours
                && !found
                    .iter()
                    .any(|known| known.get_long() == flag.get_long())
            {
                found.push(flag);
            }
        }
        let mut below: Vec<_> = command.get_subcommands().collect();
        below.reverse();
        commands.extend(below);
    }
    found
}

/// The values of a key as the flag's words.
fn values(flag: &Arg, value: &Value) -> Result<Vec<String>, String> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        _ => Err("expected text or a number".to_owned()),
    };
    let words = match (flag.get_action(), value) {
        (ArgAction::SetTrue, Value::Boolean(is_on)) => return Ok(vec![is_on.to_string()]),
        (ArgAction::SetTrue, _) => return Err("expected `true` or `false`".to_owned()),
        (ArgAction::Count, Value::Integer(count)) if u8::try_from(*count).is_ok() => {
            return Ok(vec![count.to_string()]);
        }
        (ArgAction::Count, _) => return Err("expected a small number".to_owned()),
        (ArgAction::Append, Value::Array(items)) => {
            items.iter().map(text).collect::<Result<Vec<_>, _>>()?
        }
        _ => vec![text(value)?],
    };
    // The flag itself says what it takes.
    let alone = Command::new("shoal").no_binary_name(true).arg(flag.clone());
    let long = flag.get_long().unwrap_or_default();
    let line = words.iter().map(|word| format!("--{long}={word}"));
    match alone.try_get_matches_from(line) {
        Ok(_) => Ok(words),
        Err(error) => {
            let text = error.render().to_string();
            let first = text.split("\n\n").next().unwrap_or_default();
            let first = first.split_whitespace().collect::<Vec<_>>().join(" ");
            Err(first.strip_prefix("error: ").unwrap_or(&first).to_owned())
        }
    }
}

fn shown(flag: &Arg, matches: &ArgMatches) -> Shown {
    let id = flag.get_id().as_str();
    match flag.get_action() {
        ArgAction::SetTrue => Shown::Switch(matches.get_flag(id)),
        ArgAction::Count => Shown::Count(matches.get_count(id)),
        action => {
            let words: Vec<_> = matches
                .get_raw(id)
                .unwrap_or_default()
                .map(|word| word.to_string_lossy().into_owned())
                .collect();
            match (action, words.as_slice()) {
                (_, []) => Shown::Unset,
                (ArgAction::Append, _) => Shown::List(words),
                (_, [first, ..]) => Shown::Text(first.clone()),
            }
        }
    }
}

impl Shown {
    /// As a settings file has it; `None` when unset.
    fn toml(&self) -> Option<String> {
        let list = |words: &[String]| words.iter().cloned().map(Value::String).collect();
        let value = match self {
            Self::Unset => return None,
            Self::Switch(is_on) => Value::Boolean(*is_on),
            Self::Count(count) => Value::Integer((*count).into()),
            Self::Text(text) => Value::String(text.clone()),
            Self::List(words) => Value::Array(list(words)),
        };
        Some(value.to_string())
    }
}

impl Setting {
    /// A line of a settings file, with where the value comes from behind it: `up = "1M"  # flag`. A flag without a
    /// value is a comment.
    pub(super) fn line(&self) -> String {
        let text = match self.value.toml() {
            Some(value) => format!("{} = {value}", self.key),
            None => format!("# {} =", self.key),
        };
        let origin = match self.origin {
            Origin::Variable => format!("variable {}", self.variable),
            origin => origin.name().to_owned(),
        };
        format!("{text:<LINE_COLUMNS$} # {origin}")
    }
}

impl Origin {
    /// In one word.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Variable => "variable",
            Self::Flag => "flag",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Settings, Failure> {
        Settings::parse(Path::new("c.toml"), text)
    }

    /// `config show` of a file with flags behind it.
    fn shown_by(text: &str, line: &[&str]) -> Vec<Setting> {
        let settings = parsed(text).expect("right settings");
        let command = settings.applied(args::command());
        let words = [&["shoal"], line, &["config", "show"]].concat();
        let matches = command
            .clone()
            .try_get_matches_from(words)
            .expect("a right line");
        let (_, matches) = matches.subcommand().expect("a command");
        let (_, matches) = matches.subcommand().expect("a command");
        settings.show(&command, matches)
    }

    fn of<'a>(settings: &'a [Setting], key: &str) -> &'a Setting {
        settings
            .iter()
            .find(|setting| setting.key == key)
            .expect("a flag of this name")
    }

    #[test]
    fn every_flag_is_a_key_and_no_key_is_named_twice() {
        let command = args::command();
        let mut keys: Vec<_> = flags(&command).iter().map(|flag| flag.get_long()).collect();
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert!(count > 20 && keys.len() == count, "{keys:?}");
        let settings = shown_by("", &[]);
        assert_eq!(settings.len(), count);
    }

    #[test]
    fn what_is_shown_is_a_settings_file_that_says_the_same() {
        let text = "no-mdns = true\nup = 5000\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\nverbose = 2\nlinger = \"3s\"\n";
        let first = shown_by(text, &[]);
        let lines: Vec<_> = first.iter().map(Setting::line).collect();
        let second = shown_by(&lines.join("\n"), &[]);
        for (first, second) in first.iter().zip(&second) {
            assert_eq!((&first.key, &first.value), (&second.key, &second.value));
        }
        assert_eq!(of(&first, "up").value, Shown::Text("5000".into()));
        assert_eq!(of(&first, "verbose").value, Shown::Count(2));
        assert_eq!(of(&first, "timeout").value, Shown::Text("60s".into()));
        assert_eq!(of(&first, "home").value, Shown::Unset);
    }

    #[test]
    fn a_flag_comes_before_the_file_and_the_file_before_the_default() {
        let settings = shown_by(
            "up = \"1M\"\ncolor = \"never\"\ndown = \"2M\"",
            &["--up", "3M"],
        );
        let found = |key| (of(&settings, key).value.clone(), of(&settings, key).origin);
        assert_eq!(found("up"), (Shown::Text("3M".into()), Origin::Flag));
        assert_eq!(found("down"), (Shown::Text("2M".into()), Origin::File));
        assert_eq!(found("color"), (Shown::Text("never".into()), Origin::File));
        assert_eq!(
            found("linger"),
            (Shown::Text("10s".into()), Origin::Default)
        );
        assert_eq!(found("no-dht"), (Shown::Switch(false), Origin::Default));
        assert_eq!(found("peer"), (Shown::Unset, Origin::Default));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_key_and_file() {
        let cases = [
            ("upp = 1", "unknown key `upp` in `c.toml`"),
            ("help = true", "unknown key `help` in `c.toml`"),
            (
                "[seed]\nup = 1",
                "`seed` in `c.toml`: expected `true` or `false`",
            ),
            (
                "up = \"fast\"",
                "`up` in `c.toml`: invalid value 'fast' for '--up <RATE>': expected a number",
            ),
            ("up = true", "`up` in `c.toml`: expected text or a number"),
            (
                "no-mdns = 1",
                "`no-mdns` in `c.toml`: expected `true` or `false`",
            ),
            (
                "verbose = 300",
                "`verbose` in `c.toml`: expected a small number",
            ),
            (
                "color = \"red\"",
                "`color` in `c.toml`: invalid value 'red'",
            ),
            (
                "peer = [\"10.0.0.1:1\"]",
                "`peer` in `c.toml`: invalid value",
            ),
            ("a = 1\nup = ", "`c.toml`, line 2:"),
        ];
        for (text, expected) in cases {
            let failure = parsed(text).expect_err(text);
            assert_eq!(failure.code, ExitCode::Usage, "{text}");
            assert!(
                failure.message.starts_with(expected),
                "{text}: {}",
                failure.message
            );
            assert!(
                failure.hint.is_some() && !failure.message.contains('\n'),
                "{failure:?}"
            );
        }
    }
}
