//! The command line: commands, flags, their variables and defaults.
//!
//! Owns every name a user types. Parses values once, so that commands get paths, addresses and durations; asks nothing
//! of the world. Every flag has a `SHOAL_*` variable. Called by `cli` alone.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};
use multiaddr::Protocol;

use super::units;
use crate::content::{Multiaddr, Name, PathError};

/// Shown below the help of the program.
const EXAMPLES: &str = "\
Examples:
  shoal seed big-folder           share it from where it lies; prints a link
  shoal fetch LINK                download into the current folder
  shoal fetch LINK -d DIR --seed  download into DIR and keep on sharing

A link is the right to read the share: whoever has it can fetch.
Every flag has a variable: `--no-mdns` is `SHOAL_NO_MDNS=1`, `--up 1M` is `SHOAL_UP=1M`; and a key in the settings
file, `shoal/config.toml` in the XDG config folder: `no-mdns = true`, `up = \"1M\"`. Flags come first, then variables.";

const SEED_EXAMPLES: &str = "\
Examples:
  shoal seed movie.mkv                      share a file until Ctrl-C
  shoal seed photos --until-copies 2        leave when two others have everything
  shoal seed a.bin b.bin --name both        two files as one share
  shoal seed data --up 10M --for 8h --json  for scripts: a limit, an end, JSON lines";

const FETCH_EXAMPLES: &str = "\
Examples:
  shoal fetch LINK                        into the current folder; run it again to resume
  shoal fetch LINK -d /data --overwrite   into /data, over files that differ
  shoal fetch LINK -o new-name            under another name
  shoal fetch LINK --seed --ratio 2       stay until twice its size was sent
  shoal fetch LINK --json | jq .type      for scripts";

const NODE_EXAMPLES: &str = "\
Examples:
  shoal node --port 4001              a meeting point at a known port
  shoal fetch LINK --peer MULTIADDR   use it: any address it printed";

const LS_EXAMPLES: &str = "\
Examples:
  shoal ls LINK                  what is in a share, before any download
  shoal ls photos --json         what `shoal seed photos` would share";

const VERIFY_EXAMPLES: &str = "\
Examples:
  shoal verify LINK photos       compare a folder with a share; exit code 5 when they differ
  shoal verify LINK a.bin --json one object per file, for scripts";

const LINK_EXAMPLES: &str = "\
Examples:
  shoal link photos                  the link that `shoal seed photos` would print, without addresses
  shoal link photos --json | jq .bytes";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  shoal completions bash > ~/.local/share/bash-completion/completions/shoal
  shoal completions zsh > ~/.zfunc/_shoal      with ~/.zfunc in fpath
  shoal completions fish > ~/.config/fish/completions/shoal.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  shoal man | man -l -                 read it
  shoal man > ~/.local/share/man/man1/shoal.1";

const CLEAN_EXAMPLES: &str = "\
Examples:
  shoal clean                        what stopped fetches left in the current folder
  shoal clean -r /data               and in all folders below /data
  shoal clean -r /data --remove      remove it; a fetch of one of these shares begins anew
  shoal clean --json | jq -r .path   for scripts";

const CONFIG_EXAMPLES: &str = "\
Examples:
  shoal config show                  what holds now, and why
  shoal config show --up 1M          what would hold with this flag; takes those of every command
  SHOAL_UP=1M shoal config show --json | jq -r 'select(.source != \"default\").key'

What is shown is a settings file: `shoal/config.toml` in the XDG config folder takes it as it is.";

/// Peer-to-peer file sharing: seed in one terminal, fetch in many, kill any peer.
#[derive(Clone, Debug, Parser)]
#[command(name = "shoal", version, propagate_version = true, after_help = EXAMPLES)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) network: NetworkFlags,
    #[command(flatten)]
    pub(crate) output: OutputFlags,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Share files or folders from where they lie; prints the link; stays until Ctrl-C or a stop rule
    #[command(after_help = SEED_EXAMPLES)]
    Seed(SeedArgs),
    /// Download a share; serves while it downloads; returns when done
    #[command(after_help = FETCH_EXAMPLES)]
    Fetch(FetchArgs),
    /// Take part without a share: a meeting point for others; prints its addresses
    #[command(after_help = NODE_EXAMPLES)]
    Node(NodeArgs),
    /// Show what is in a share, before any download
    #[command(after_help = LS_EXAMPLES)]
    Ls(LsArgs),
    /// Print the link of local files without going online (no addresses in it)
    #[command(after_help = LINK_EXAMPLES)]
    Link(LinkArgs),
    /// Compare local files with a share; asks a peer of it unless this host has made or fetched it
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(VerifyArgs),
    /// List, or remove, what fetches left that were stopped and that nobody goes on with
    #[command(after_help = CLEAN_EXAMPLES)]
    Clean(CleanArgs),
    /// Show the settings that hold, and where each comes from
    #[command(after_help = CONFIG_EXAMPLES)]
    Config(ConfigArgs),
    /// Print completions for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Print the manual, a page for each command
    #[command(after_help = MAN_EXAMPLES)]
    Man,
}

impl Command {
    /// Whether variables and the settings file have a say in it.
    pub(crate) fn is_set_up(&self) -> bool {
        !matches!(self, Self::Completions(_) | Self::Man)
    }
}

/// Flags of `seed`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SeedArgs {
    #[command(flatten)]
    pub(crate) sources: SourceFlags,
    #[command(flatten)]
    pub(crate) rules: RuleFlags,
}

/// What is shared: for `seed` and `link` alike, which then make the same share.
#[derive(Clone, Debug, Args)]
pub(crate) struct SourceFlags {
    /// Files or folders; several make one share with one entry each
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Name of the share [default: that of the first path]
    #[arg(long, env = "SHOAL_NAME", value_parser = name)]
    pub(crate) name: Option<Name>,
    /// Leave out what matches, as in .gitignore; may be repeated
    #[arg(long, env = "SHOAL_EXCLUDE", value_name = "GLOB")]
    pub(crate) exclude: Vec<OsString>,
    /// Leave out what matches a pattern of FILE, as in .gitignore; may be repeated
    #[arg(long, env = "SHOAL_IGNORE_FILE", value_name = "FILE")]
    pub(crate) ignore_file: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) unshareable: UnshareableFlags,
}

/// What becomes of things that cannot be shared: for all that read local files as a share.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct UnshareableFlags {
    /// Leave out what cannot be read, or has a name that no share can hold, and go on
    #[arg(long = "skip-unshareable", env = "SHOAL_SKIP_UNSHAREABLE", value_parser = FalseyValueParser::new())]
    pub(crate) skip: bool,
}

/// Flags of `fetch`.
#[derive(Clone, Debug, Args)]
pub(crate) struct FetchArgs {
    /// What to fetch, as `shoal seed` printed it, or the bare id of a share
    #[arg(value_name = "LINK")]
    pub(crate) link: String,
    /// Folder to download into; made when missing [default: the current one]
    #[arg(short, long, env = "SHOAL_DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Exact path of the result, file or folder, instead of the share's name; below --dir when it is relative. `-` writes
    /// the bytes of a share of one file to stdout, and keeps them only with --dir
    #[arg(short, long, env = "SHOAL_OUTPUT", value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// Fetch only what matches, as in .gitignore; may be repeated
    #[arg(long, env = "SHOAL_ONLY", value_name = "GLOB")]
    pub(crate) only: Vec<String>,
    /// Ask for pieces in order instead of rarest first
    #[arg(long, env = "SHOAL_SEQUENTIAL", value_parser = FalseyValueParser::new())]
    pub(crate) sequential: bool,
    /// Replace existing files that differ
    #[arg(long, env = "SHOAL_OVERWRITE", value_parser = FalseyValueParser::new())]
    pub(crate) overwrite: bool,
    /// How long at most to go on serving after completion while a peer is pulling
    #[arg(long, env = "SHOAL_LINGER", value_name = "DURATION", default_value = "10s", value_parser = units::duration)]
    pub(crate) linger: Duration,
    /// How long to look for a first peer of the share
    #[arg(long, env = "SHOAL_TIMEOUT", value_name = "DURATION", default_value = "60s", value_parser = units::duration)]
    pub(crate) timeout: Duration,
    /// How long to go on without a new verified byte
    #[arg(long, env = "SHOAL_STALL_TIMEOUT", value_name = "DURATION", default_value = "60s", value_parser = units::duration)]
    pub(crate) stall_timeout: Duration,
    /// Write which peer gave which piece and every reroute to FILE, as JSON lines
    #[arg(long, env = "SHOAL_TRACE", value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Stay and share after completion, until Ctrl-C or a stop rule
    #[arg(long, env = "SHOAL_SEED", value_parser = FalseyValueParser::new())]
    pub(crate) seed: bool,
    #[command(flatten)]
    pub(crate) rules: RuleFlags,
}

/// Flags of `node`.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeArgs {
    /// Stop after this long [default: at a signal]
    #[arg(id = "for", long = "for", env = "SHOAL_FOR", value_name = "DURATION", value_parser = units::duration)]
    pub(crate) time: Option<Duration>,
}

/// Flags of `link`.
#[derive(Clone, Debug, Args)]
pub(crate) struct LinkArgs {
    #[command(flatten)]
    pub(crate) sources: SourceFlags,
}

/// Flags of `clean`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CleanArgs {
    /// Where to look [default: the current folder]
    #[arg(value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
    /// Look in all folders below, too; links are not followed
    #[arg(short, long, env = "SHOAL_RECURSIVE", value_parser = FalseyValueParser::new())]
    pub(crate) recursive: bool,
    /// Remove what is found instead of listing it
    #[arg(long, visible_alias = "yes", short_alias = 'y', env = "SHOAL_REMOVE", value_parser = FalseyValueParser::new())]
    pub(crate) remove: bool,
}

/// What `config` is to do.
#[derive(Clone, Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

/// Verbs of `config`.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every setting with its value and where that comes from, as a settings file
    #[command(after_help = CONFIG_EXAMPLES)]
    Show,
}

/// Arguments of `completions`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// Flags of `ls`.
#[derive(Clone, Debug, Args)]
pub(crate) struct LsArgs {
    /// A link, the bare id of a share, or local files as `shoal seed` would share them
    #[arg(value_name = "LINK|PATH")]
    pub(crate) what: OsString,
    #[command(flatten)]
    pub(crate) unshareable: UnshareableFlags,
    /// How long to look for a peer of the share, and to wait for its answer
    #[arg(long, env = "SHOAL_TIMEOUT", value_name = "DURATION", default_value = "60s", value_parser = units::duration)]
    pub(crate) timeout: Duration,
}

/// Flags of `verify`.
#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArgs {
    /// What to compare with, as `shoal seed` printed it, or the bare id of a share
    #[arg(value_name = "LINK")]
    pub(crate) link: String,
    /// The local copy: the folder or file itself, for a share of one file also the folder it is in
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// How long to look for a peer of the share, and to wait for its answer
    #[arg(long, env = "SHOAL_TIMEOUT", value_name = "DURATION", default_value = "60s", value_parser = units::duration)]
    pub(crate) timeout: Duration,
}

/// When to stop sharing. The first rule met ends it.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Stop rules")]
pub(crate) struct RuleFlags {
    /// Stop after this long
    #[arg(id = "for", long = "for", env = "SHOAL_FOR", value_name = "DURATION", value_parser = units::duration)]
    pub(crate) time: Option<Duration>,
    /// Stop when R times the share's size was sent
    #[arg(long, env = "SHOAL_RATIO", value_name = "R", value_parser = units::ratio)]
    pub(crate) ratio: Option<f64>,
    /// Stop when N peers said that they hold everything
    #[arg(long, env = "SHOAL_UNTIL_COPIES", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) until_copies: Option<u32>,
}

/// The ids of [`RuleFlags`], which mean nothing to a `fetch` that does not stay.
pub(crate) const RULES: [&str; 3] = ["for", "ratio", "until_copies"];

/// How to take part in the network.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct NetworkFlags {
    /// Listen here, with TCP (/ip4/IP/tcp/N, QUIC comes beside it) or QUIC (/ip4/IP/udp/N/quic-v1); may be repeated [default: all
    /// interfaces]
    #[arg(long, global = true, env = "SHOAL_LISTEN", value_name = "MULTIADDR", value_delimiter = ',', value_parser = listen_address)]
    pub(crate) listen: Vec<Multiaddr>,
    /// TCP port of the default addresses [default: one kept in the home folder]
    #[arg(long, global = true, env = "SHOAL_PORT", value_name = "N")]
    pub(crate) port: Option<u16>,
    /// Dial this node first, an IP address or host name (/dns4/HOST/tcp/N), with or without /p2p/; may be repeated
    #[arg(
        long,
        global = true,
        env = "SHOAL_PEER",
        value_name = "MULTIADDR",
        value_delimiter = ','
    )]
    pub(crate) peer: Vec<Multiaddr>,
    /// Do not look for peers on the local network
    #[arg(long, global = true, env = "SHOAL_NO_MDNS", value_parser = FalseyValueParser::new())]
    pub(crate) no_mdns: bool,
    /// Do not take part in the distributed hash table
    #[arg(long, global = true, env = "SHOAL_NO_DHT", value_parser = FalseyValueParser::new())]
    pub(crate) no_dht: bool,
    /// Send at most this much: a number with k, M, G or Ki, Mi, Gi, in bytes per second
    #[arg(long, global = true, env = "SHOAL_UP", value_name = "RATE", value_parser = units::rate)]
    pub(crate) up: Option<u64>,
    /// Receive at most this much
    #[arg(long, global = true, env = "SHOAL_DOWN", value_name = "RATE", value_parser = units::rate)]
    pub(crate) down: Option<u64>,
    /// Folder with identities and ports [default: `shoal` in the XDG state folder]
    #[arg(long, global = true, env = "SHOAL_HOME", value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
}

/// What to say, and how.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputFlags {
    /// Print one JSON object per line on stdout instead of the plain result
    #[arg(long, global = true, env = "SHOAL_JSON", value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
    /// Say nothing but errors on stderr
    #[arg(short, long, global = true, env = "SHOAL_QUIET", value_parser = FalseyValueParser::new())]
    pub(crate) quiet: bool,
    /// Say more; twice for debugging
    #[arg(short, long, global = true, env = "SHOAL_VERBOSE", action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Show neither live view nor progress, only events
    #[arg(long, global = true, env = "SHOAL_NO_PROGRESS", value_parser = FalseyValueParser::new())]
    pub(crate) no_progress: bool,
    /// When to use colours
    #[arg(long, global = true, env = "SHOAL_COLOR", value_name = "WHEN", value_enum, default_value_t = When::Auto)]
    pub(crate) color: When,
}

/// When to do what depends on the terminal: on one that can, in any case, in no case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

/// The command line as clap knows it. Help does not name each variable: the rule for all stands below it.
pub(crate) fn command() -> clap::Command {
    let hidden = |arg: clap::Arg| arg.hide_env(true);
    let command = Cli::command()
        .mut_args(hidden)
        .mut_subcommands(|command| command.mut_args(hidden));
    let flags = flags_of_commands(&command);
    command.mut_subcommand("config", |config| {
        config.mut_subcommand("show", |show| show.args(flags))
    })
}

/// The flags that single commands have, each name once, not shown in help: `config show` takes them all.
fn flags_of_commands(command: &clap::Command) -> Vec<clap::Arg> {
    let mut flags: Vec<clap::Arg> = Vec::new();
    for flag in command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
    {
        let is_new = |known: &clap::Arg| known.get_long() != flag.get_long();
        if flag.get_long().is_some() && flags.iter().all(is_new) {
            flags.push(flag.clone().hide(true));
        }
    }
    flags
}

fn name(text: &str) -> Result<Name, PathError> {
    Name::parse(text)
}

/// What can be listened on is known before anything is started.
fn listen_address(text: &str) -> Result<Multiaddr, String> {
    let address: Multiaddr = text
        .parse()
        .map_err(|error: multiaddr::Error| error.to_string())?;
    let parts: Vec<_> = address.iter().collect();
    use Protocol::{Ip4, Ip6, QuicV1, Tcp, Udp};
    match parts.as_slice() {
        [Ip4(_) | Ip6(_), Tcp(_)] | [Ip4(_) | Ip6(_), Udp(_), QuicV1] => Ok(address),
        _ => Err(
            "expected /ip4 or /ip6 with /tcp or /udp/../quic-v1, as in `/ip4/0.0.0.0/tcp/4001`"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::process;

    use clap::error::ErrorKind;

    use super::*;

    fn parsed(line: &[&str]) -> Cli {
        Cli::try_parse_from([&["shoal"], line].concat()).expect("this command line is right")
    }

    fn refused(line: &[&str]) -> ErrorKind {
        Cli::try_parse_from([&["shoal"], line].concat())
            .expect_err("this command line is wrong")
            .kind()
    }

    #[test]
    fn the_definition_holds_together() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_has_the_variable_of_its_name() {
        let command = command();
        let flags: Vec<_> = command
            .get_subcommands()
            .chain([&command])
            .flat_map(clap::Command::get_arguments)
            .filter_map(|arg| Some((arg.get_long()?, arg)))
            .collect();
        assert!(flags.len() > 20);
        for (long, arg) in flags {
            let expected = format!("SHOAL_{}", long.to_uppercase().replace('-', "_"));
            let found = arg
                .get_env()
                .map(|name| name.to_string_lossy().into_owned());
            assert_eq!(found, Some(expected));
        }
    }

    #[test]
    fn the_help_of_every_command_has_examples() {
        fn check(command: &clap::Command) {
            let help = command.clone().render_help().to_string();
            assert!(help.contains("Examples:\n  shoal "), "{help}");
            assert!(
                help.lines().all(|line| !line.contains("SHOAL_HOME")),
                "{help}"
            );
            command.get_subcommands().for_each(check);
        }
        check(&command());
    }

    #[test]
    fn common_flags_stand_before_or_after_the_command() {
        for line in [
            ["--json", "--port", "4001", "seed", "a"],
            ["seed", "--json", "a", "--port", "4001"],
            ["link", "a", "--json", "--port", "4001"],
        ] {
            let cli = parsed(&line);
            assert!(cli.output.json);
            assert_eq!(cli.network.port, Some(4001));
        }
    }

    #[test]
    fn a_fetch_has_the_defaults_of_the_manual() {
        let Command::Fetch(fetch) = parsed(&["fetch", "LINK"]).command else {
            panic!("`fetch` is fetch");
        };
        assert_eq!(fetch.linger, Duration::from_secs(10));
        assert_eq!(fetch.timeout, Duration::from_secs(60));
        assert_eq!(fetch.stall_timeout, Duration::from_secs(60));
        assert!(!fetch.seed && !fetch.overwrite);
        assert_eq!((fetch.dir, fetch.output, fetch.trace), (None, None, None));
    }

    #[test]
    fn all_flags_of_a_fetch_are_understood() {
        let cli = parsed(&[
            "fetch",
            "LINK",
            "-d",
            "down",
            "-o",
            "name",
            "--overwrite",
            "--linger",
            "0",
            "--timeout",
            "2h 30m",
            "--stall-timeout",
            "5s",
            "--trace",
            "t",
            "--seed",
            "--for",
            "90s",
            "--ratio",
            "1.5",
            "--until-copies",
            "3",
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
            "--listen",
            "/ip6/::1/tcp/0",
            "--peer",
            "/ip4/10.0.0.1/tcp/1,/ip4/10.0.0.2/tcp/2",
            "--no-mdns",
            "--no-dht",
            "--up",
            "1MiB/s",
            "--down",
            "500k",
            "--home",
            "h",
            "-q",
            "-vv",
            "--no-progress",
            "--color",
            "never",
        ]);
        let Command::Fetch(fetch) = cli.command else {
            panic!("`fetch` is fetch");
        };
        assert_eq!(fetch.timeout, Duration::from_secs(9_000));
        assert_eq!(fetch.linger, Duration::ZERO);
        assert_eq!(fetch.rules.time, Some(Duration::from_secs(90)));
        assert_eq!(fetch.rules.ratio, Some(1.5));
        assert_eq!(fetch.rules.until_copies, Some(3));
        assert_eq!((cli.network.listen.len(), cli.network.peer.len()), (2, 2));
        assert_eq!(
            (cli.network.up, cli.network.down),
            (Some(1 << 20), Some(500_000))
        );
        assert!(cli.network.no_mdns && cli.network.no_dht && cli.output.no_progress);
        assert_eq!((cli.output.verbose, cli.output.color), (2, When::Never));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let cases: [(&[&str], ErrorKind); 10] = [
            (&["seed"], ErrorKind::MissingRequiredArgument),
            (&["fetch"], ErrorKind::MissingRequiredArgument),
            (&["fetch", "a", "b"], ErrorKind::UnknownArgument),
            (&["nonsense"], ErrorKind::InvalidSubcommand),
            (&["seed", "a", "--up", "0"], ErrorKind::ValueValidation),
            (&["seed", "a", "--name", "../a"], ErrorKind::ValueValidation),
            (
                &["seed", "a", "--peer", "10.0.0.1:1"],
                ErrorKind::ValueValidation,
            ),
            (
                &["seed", "a", "--listen", "/dns/a/tcp/1"],
                ErrorKind::ValueValidation,
            ),
            (
                &["seed", "a", "--until-copies", "0"],
                ErrorKind::ValueValidation,
            ),
            (
                &["seed", "a", "--port", "65536"],
                ErrorKind::ValueValidation,
            ),
        ];
        for (line, kind) in cases {
            assert_eq!(refused(line), kind, "{line:?}");
        }
    }

    /// Set in the process that [`variables_stand_for_flags_and_flags_come_first`] starts.
    const CHILD: &str = "SHOAL_ARGS_TEST_CHILD";

    #[test]
    fn variables_stand_for_flags_and_flags_come_first() {
        if std::env::var_os(CHILD).is_some() {
            return check_variables();
        }
        // Variables of a process are set from outside: this test once more, in a process that has them.
        let path = "cli::args::tests::variables_stand_for_flags_and_flags_come_first";
        let output = process::Command::new(std::env::current_exe().expect("a test has a path"))
            .args([path, "--exact", "--test-threads=1"])
            .env(CHILD, "1")
            .envs([
                ("SHOAL_NO_MDNS", "1"),
                ("SHOAL_NO_DHT", "0"),
                ("SHOAL_JSON", "true"),
                ("SHOAL_QUIET", "no"),
                ("SHOAL_VERBOSE", "2"),
                ("SHOAL_UP", "1M"),
                ("SHOAL_PORT", "4001"),
                ("SHOAL_PEER", "/ip4/10.0.0.1/tcp/1,/ip4/10.0.0.2/tcp/2"),
                ("SHOAL_FOR", "2h 30m"),
                ("SHOAL_COLOR", "never"),
            ])
            .output()
            .expect("the test can be started again");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
    }

    fn check_variables() {
        let cli = parsed(&["seed", "a", "--port", "4002"]);
        assert!(cli.network.no_mdns && !cli.network.no_dht);
        assert!(cli.output.json && !cli.output.quiet);
        assert_eq!(cli.output.verbose, 2);
        assert_eq!(cli.output.color, When::Never);
        assert_eq!(cli.network.up, Some(1_000_000));
        assert_eq!(
            cli.network.port,
            Some(4002),
            "the flag comes before its variable"
        );
        assert_eq!(cli.network.peer.len(), 2);
        let Command::Seed(seed) = cli.command else {
            panic!("`seed` is seed");
        };
        assert_eq!(seed.rules.time, Some(Duration::from_secs(9_000)));
        // A rule in the environment is no reason to refuse a fetch that does not stay.
        parsed(&["fetch", "LINK"]);
    }
}
