//! Everything this program says: results on stdout, talk on stderr, the trace in its file.
//!
//! Commands tell what is; here it becomes text, JSON or a view, as often as each of them wants. Decides nothing about a
//! share. A closed pipe on either side is no error: what nobody hears is not said. Called by `commands`.
//! Source: the product description, "Streams" and "JSON".

mod json;
mod manner;
mod trace;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use self::json::Body;
pub(crate) use self::manner::{Manner, Surroundings};
use self::manner::{Results, Talk};
use self::trace::Trace;
use super::exit::{ExitCode, Failure};
use super::settings::Setting;
use crate::content::{Entry, EntryKind, Link, Manifest, Multiaddr, escape_hostile};
use crate::node::{Fetched, NodeEvent, OnlyHere, Phase, ShareStatus, Told};
use crate::storage::{Leftover, Skipped, Untouched, Verdict, names_text, shown, unportable_names};
use crate::tui::{
    Line, Narrator, Picture, Sentence, Tone, Weight, bytes, contents, counted, frame, rate, rough,
    screen, seconds, summary,
};

/// Between two progress objects. One second is promised; half of it leaves room for a busy machine.
const JSON_EVERY: Duration = Duration::from_millis(500);
/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(3);
/// Skipped files named one by one; the rest is counted.
const SKIPPED_SHOWN_MAX: usize = 10;

/// Why a share is not served any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// INT or TERM.
    Signal,
    /// `--for`.
    Time,
    /// `--ratio`.
    Ratio,
    /// `--until-copies`.
    Copies,
    /// A complete fetch that nobody pulls from.
    Idle,
    /// A complete fetch that somebody pulled from to the end of `--linger`.
    Linger,
}

/// Says things.
pub(crate) struct Output {
    manner: Manner,
    stdout: Box<dyn Write + Send>,
    trace: Option<Trace>,
    narrator: Narrator,
    json_pace: Pace,
    line_pace: Pace,
    /// The last plain line: said again only when something moved.
    last_line: String,
    last_phase: Option<Phase>,
    /// stdout carries the bytes of a file, and nothing else may go there.
    is_streaming: bool,
}

impl Output {
    /// Speaks as `manner` says, to the stdout and stderr of the process.
    pub(crate) fn new(manner: Manner) -> Self {
        Self::to(Box::new(io::stdout()), manner)
    }

    fn to(stdout: Box<dyn Write + Send>, manner: Manner) -> Self {
        let now = Instant::now();
        Self {
            manner,
            stdout,
            trace: None,
            narrator: Narrator::default(),
            json_pace: Pace {
                every: JSON_EVERY,
                next: now,
            },
            line_pace: Pace {
                every: LINE_EVERY,
                next: now + LINE_EVERY,
            },
            last_line: String::new(),
            last_phase: None,
            is_streaming: false,
        }
    }

    /// Whether results are JSON lines.
    pub(crate) fn is_json(&self) -> bool {
        self.manner.results == Results::Json
    }

    /// From now on stdout carries the bytes of a file, which others write.
    pub(crate) fn leave_stdout(&mut self) {
        self.is_streaming = true;
    }

    /// Writes a trace to `path` from now on.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub(crate) fn trace_to(&mut self, path: &Path) -> Result<(), Failure> {
        let trace = Trace::create(path).map_err(|error| {
            let path = path.to_string_lossy();
            Failure::new(
                ExitCode::Io,
                format!("cannot write the trace `{path}`: {error}"),
            )
        })?;
        self.trace = Some(trace);
        Ok(())
    }

    /// How things are. To be called several times a second, and when the phase changes.
    pub(crate) fn show(&mut self, picture: &Picture<'_>) {
        let now = Instant::now();
        for sentence in self.narrator.due(now) {
            self.tell(&sentence);
        }
        if let Some(trace) = &mut self.trace {
            trace.flush();
        }
        let phase = match picture {
            Picture::Share { status, .. } => Some(status.phase),
            Picture::Verify { .. } => Some(Phase::Verify),
            Picture::Scan { .. } | Picture::Hash { .. } => None,
        };
        let is_new = phase != self.last_phase;
        self.last_phase = phase;
        if self.manner.results == Results::Json && (self.json_pace.is_due(now) || is_new) {
            self.print_json(&Body::progress(picture), SystemTime::now());
        }
        match self.manner.talk {
            Talk::Live => {
                let room = screen::room();
                let names = self.narrator.names();
                let view = frame(picture, names, room, self.manner.glyphs);
                screen::paint(&view, self.manner.is_coloured);
            }
            Talk::Lines if self.line_pace.is_due(now) || (is_new && is_worth_a_line(phase)) => {
                let line = summary(picture);
                if line != self.last_line {
                    screen::say(&line);
                    self.last_line = line;
                }
            }
            Talk::Lines | Talk::Events | Talk::Errors => {}
        }
    }

    /// What happened.
    pub(crate) fn told(&mut self, told: &Told) {
        if let Some(trace) = &mut self.trace {
            trace.told(told);
        }
        if self.manner.results == Results::Json
            && let Some(body) = Body::event(&told.event)
        {
            self.print_json(&body, told.at);
        }
        for sentence in self.narrator.tell(Instant::now(), &told.event) {
            self.tell(&sentence);
        }
    }

    /// An address we can be reached at.
    pub(crate) fn listening(&mut self, address: &Multiaddr) {
        let event = NodeEvent::Listening {
            address: address.clone(),
        };
        self.told(&Told {
            at: SystemTime::now(),
            event,
        });
    }

    /// An address we can be reached at, of a command whose result it is.
    pub(crate) fn listening_here(&mut self, address: &Multiaddr) {
        if self.manner.results == Results::Json {
            self.listening(address);
        } else {
            self.print(format!("{address}\n").as_bytes());
        }
    }

    /// What an import left out.
    pub(crate) fn skipped(&mut self, skipped: &[Skipped]) {
        if self.manner.results == Results::Json {
            for thing in skipped {
                self.print_json(&Body::skipped(thing), SystemTime::now());
            }
        }
        for Skipped { path, reason } in skipped.iter().take(SKIPPED_SHOWN_MAX) {
            let text = format!("skipped `{}`: {reason}", shown(path));
            self.say(Tone::Warning, text);
        }
        if skipped.len() > SKIPPED_SHOWN_MAX {
            let count = skipped.len() - SKIPPED_SHOWN_MAX;
            self.say(Tone::Warning, format!("skipped {count} more"));
        }
    }

    /// How many entries the user's patterns left out.
    pub(crate) fn excluded(&mut self, count: u64) {
        if count > 0 {
            let entries = if count == 1 { "entry" } else { "entries" };
            self.say(
                Tone::Plain,
                format!("left out {count} {entries} by pattern"),
            );
        }
    }

    /// What stopped fetches left, listed or just removed.
    pub(crate) fn leftovers(&mut self, found: &[Leftover], is_removed: bool) {
        let now = SystemTime::now();
        let columns = |leftover: &Leftover| (bytes(leftover.bytes), rough(leftover.age(now)));
        let columns: Vec<_> = found.iter().map(columns).collect();
        let width = |of: fn(&(String, String)) -> usize| columns.iter().map(of).max().unwrap_or(0);
        let (size_width, age_width) = (width(|row| row.0.len()), width(|row| row.1.len()));
        let mut text = String::new();
        for (leftover, (size, age)) in found.iter().zip(&columns) {
            if self.manner.results == Results::Json {
                text += &Body::leftover(leftover, now, is_removed).line(now);
                continue;
            }
            let (name, path) = (
                escape_hostile(leftover.name.as_str()),
                shown(&leftover.path),
            );
            text += &format!("{size:>size_width$}  {age:>age_width$}  {name}  {path}\n");
        }
        let total = found.iter().map(|leftover| leftover.bytes).sum();
        let what = format!(
            "{}, {}",
            counted(found.len() as u64, "part folder"),
            bytes(total)
        );
        self.say(
            Tone::Plain,
            match (found.len(), is_removed) {
                (0, false) => "no part folder that no fetch is using".to_owned(),
                (0, true) => "nothing to remove".to_owned(),
                (_, false) => format!("{what}; `--remove` removes them"),
                (_, true) => format!("removed {what}"),
            },
        );
        self.print(text.as_bytes());
    }

    /// What is named like a part folder and stays.
    pub(crate) fn untouched(&mut self, untouched: &[(PathBuf, Untouched)]) {
        for (path, reason) in untouched.iter().take(SKIPPED_SHOWN_MAX) {
            let text = format!("left alone `{}`: {reason}", shown(path));
            self.say(Tone::Plain, text);
        }
        if untouched.len() > SKIPPED_SHOWN_MAX {
            let count = untouched.len() - SKIPPED_SHOWN_MAX;
            self.say(Tone::Plain, format!("left alone {count} more"));
        }
    }

    /// Names in a share of ours that others cannot fetch, because of their system.
    pub(crate) fn unportable(&mut self, manifest: &Manifest) {
        let names = unportable_names(manifest);
        if names.is_empty() {
            return;
        }
        if self.manner.results == Results::Json {
            for name in &names {
                self.print_json(&Body::unportable(name), SystemTime::now());
            }
        }
        let text = format!(
            "warning: a fetch on Windows or macOS is refused, for names that they cannot hold: {}",
            names_text(&names)
        );
        self.say(Tone::Warning, text);
    }

    /// What is in a share.
    pub(crate) fn listing(&mut self, manifest: &Manifest) {
        let sizes: Vec<_> = manifest.entries().iter().map(size_of).collect();
        let width = sizes.iter().map(String::len).max().unwrap_or(0);
        let mut text = String::new();
        for (entry, size) in manifest.entries().iter().zip(&sizes) {
            if self.manner.results == Results::Json {
                if matches!(entry.kind, EntryKind::File { .. }) {
                    text += &Body::file(entry, None).line(SystemTime::now());
                }
                continue;
            }
            // Names are a remote's words, and one with a new line would look like two, in a pipe too.
            let name = escape_hostile(&name_of(entry));
            text += &format!("{size:>width$}  {name}\n");
        }
        self.say(Tone::Plain, summary_of(manifest));
        self.print(text.as_bytes());
    }

    /// How local files compare with a share, one verdict for each entry: on stdout what is not as it should be.
    pub(crate) fn verdicts(&mut self, manifest: &Manifest, verdicts: &[Verdict]) {
        let mut text = String::new();
        let mut same = 0;
        for (entry, verdict) in manifest.entries().iter().zip(verdicts) {
            let is_same = *verdict == Verdict::Same;
            same += u64::from(is_same);
            let is_file = matches!(entry.kind, EntryKind::File { .. });
            if self.manner.results == Results::Json {
                if is_file || !is_same {
                    text += &Body::file(entry, Some(is_same)).line(SystemTime::now());
                }
                continue;
            }
            let word = match verdict {
                Verdict::Same => continue,
                Verdict::Differs => "differs",
                Verdict::Missing => "missing",
            };
            text += &format!("{word}  {}\n", escape_hostile(entry.path.as_str()));
        }
        if same == verdicts.len() as u64 {
            self.say(Tone::Good, "everything is as in the share");
        }
        self.print(text.as_bytes());
    }

    /// The link to a share. Whoever reads stdout has it when this returns.
    pub(crate) fn link(&mut self, link: &Link, manifest: &Manifest) {
        let text = format!(
            "{}, {}{}",
            summary_of(manifest),
            counted(manifest.geometry().piece_count().into(), "piece"),
            match link.hints {
                Some(_) => "; whoever has the link can fetch it",
                None => "",
            }
        );
        self.say(Tone::Plain, text);
        if self.manner.results == Results::Json {
            self.print_json(&Body::link(link, manifest), SystemTime::now());
        } else {
            self.print(format!("{link}\n").as_bytes());
        }
    }

    /// A fetch is complete. Whoever reads stdout has the path when this returns.
    pub(crate) fn done(&mut self, fetched: &Fetched, status: &ShareStatus) {
        self.say(Tone::Good, done_text(fetched, status));
        // It says all that a line would.
        self.line_pace.next = Instant::now() + LINE_EVERY;
        if self.is_streaming {
            return;
        }
        match self.manner.results {
            Results::Json => {
                let picture = Picture::Share {
                    status,
                    elapsed: fetched.elapsed,
                };
                let now = SystemTime::now();
                self.print_json(&Body::progress(&picture), now);
                self.print_json(&Body::done(fetched, status), now);
            }
            Results::Exact => {
                let mut line = fetched.path.as_os_str().as_encoded_bytes().to_vec();
                line.push(b'\n');
                self.print(&line);
            }
            Results::Escaped => {
                let path = escape_hostile(&fetched.path.to_string_lossy());
                self.print(format!("{path}\n").as_bytes());
            }
        }
    }

    /// A setting and where it comes from.
    pub(crate) fn setting(&mut self, setting: &Setting) {
        if self.manner.results == Results::Json {
            self.print_json(&Body::setting(setting), SystemTime::now());
        } else {
            let line = setting.line() + "\n";
            self.text(line.as_bytes());
        }
    }

    /// A text that is the result itself, the same for everybody.
    pub(crate) fn text(&mut self, text: &[u8]) {
        self.print(text);
    }

    /// A signal ends a share that is whole here: says what others can get nowhere then, if anything.
    pub(crate) fn leaving(&mut self, status: &ShareStatus) {
        if let Some(only_here) = status.only_here() {
            self.say(Tone::Warning, only_here_text(&only_here));
        }
    }

    /// A share is not served any longer.
    pub(crate) fn stopped(&mut self, reason: StopReason, uploaded: u64) {
        let (name, why) = match reason {
            StopReason::Signal => ("signal", "stopped by signal"),
            StopReason::Time => ("time", "time is up"),
            StopReason::Ratio => ("ratio", "ratio reached"),
            StopReason::Copies => ("copies", "enough others have everything"),
            StopReason::Idle => ("idle", "nobody is pulling"),
            StopReason::Linger => ("linger", "served long enough"),
        };
        // Leaving at once is what everybody expects of a fetch that is done and gave nothing.
        let is_expected = match reason {
            StopReason::Idle => true,
            StopReason::Linger => uploaded == 0,
            StopReason::Signal | StopReason::Time | StopReason::Ratio | StopReason::Copies => false,
        };
        if !is_expected {
            self.say(Tone::Plain, format!("{why}; {} sent", bytes(uploaded)));
        }
        if self.manner.results == Results::Json {
            let body = Body::Stopped {
                reason: name,
                uploaded,
            };
            self.print_json(&body, SystemTime::now());
        }
    }

    /// A command failed. Said even to those who want quiet.
    pub(crate) fn failed(&mut self, failure: &Failure) {
        self.finish();
        for line in failure_lines(failure) {
            screen::say(&self.toned(&line));
        }
        if self.manner.results == Results::Json {
            self.print_json(&Body::error(failure), SystemTime::now());
        }
    }

    /// Nothing more will be shown: leaves the terminal as a shell expects it.
    pub(crate) fn finish(&mut self) {
        // What still waits for its second half is told without.
        let later = Instant::now() + LINE_EVERY;
        for sentence in self.narrator.due(later) {
            self.tell(&sentence);
        }
        if let Some(trace) = &mut self.trace {
            trace.flush();
        }
        screen::clear();
    }

    fn tell(&self, sentence: &Sentence) {
        let is_wanted = match sentence.weight {
            Weight::Retold => true,
            Weight::Routine => self.manner.talk != Talk::Live || self.manner.is_verbose,
            Weight::Detail => self.manner.is_verbose,
        };
        if is_wanted {
            self.say(sentence.tone, sentence.text.as_str());
        }
    }

    fn say(&self, tone: Tone, text: impl Into<String>) {
        if self.manner.talk > Talk::Errors {
            screen::say(&self.toned(&Line::of(tone, text)));
        }
    }

    fn toned(&self, line: &Line) -> String {
        if self.manner.is_coloured {
            line.coloured()
        } else {
            line.plain()
        }
    }

    fn print_json(&mut self, body: &Body<'_>, at: SystemTime) {
        let line = body.line(at);
        self.print(line.as_bytes());
    }

    fn print(&mut self, line: &[u8]) {
        if self.manner.is_stdout_terminal {
            screen::clear();
        }
        // Nobody is left to tell when stdout is closed, and the transfer goes on without.
        let _ = self
            .stdout
            .write_all(line)
            .and_then(|()| self.stdout.flush());
    }
}

/// Name, size and number of things of a share.
fn summary_of(manifest: &Manifest) -> String {
    let geometry = manifest.geometry();
    format!(
        "{}: {} in {}",
        manifest.name(),
        bytes(geometry.total_len()),
        contents(
            geometry.file_count(),
            manifest.folder_count(),
            manifest.link_count()
        )
    )
}

fn size_of(entry: &Entry) -> String {
    match entry.kind {
        EntryKind::File { len, .. } => bytes(len),
        EntryKind::Symlink { .. } => "link".to_owned(),
        EntryKind::EmptyFolder => "folder".to_owned(),
    }
}

/// What an entry is called, as `ls -F` would have it.
fn name_of(entry: &Entry) -> String {
    let path = entry.path.as_str();
    match &entry.kind {
        EntryKind::File { .. } => path.to_owned(),
        EntryKind::Symlink { target } => format!("{path} -> {target}"),
        EntryKind::EmptyFolder => format!("{path}/"),
    }
}

/// Whether a phase is told when it begins; others are told in other words.
fn is_worth_a_line(phase: Option<Phase>) -> bool {
    matches!(phase, Some(Phase::Find | Phase::Verify | Phase::Fetch))
}

/// When something is due again.
#[derive(Debug)]
struct Pace {
    every: Duration,
    next: Instant,
}

impl Pace {
    /// Whether it is due; then the next time is set.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.next;
        if is_due {
            self.next = now + self.every;
        }
        is_due
    }
}

fn only_here_text(OnlyHere { peers, part }: &OnlyHere) -> String {
    let (peers, are) = (
        counted(*peers as u64, "peer"),
        if *peers == 1 { "is" } else { "are" },
    );
    // Rounded up: 0% would say that nothing is lost.
    let percent = (part * 100.0).ceil();
    format!(
        "warning: {peers} {are} not complete, and {percent}% of the share is held by nobody else that is connected"
    )
}

fn done_text(fetched: &Fetched, status: &ShareStatus) -> String {
    let mut text = format!(
        "done: {} in {}",
        bytes(fetched.bytes),
        seconds(fetched.elapsed)
    );
    if status.downloaded == 0 {
        text.push_str(", nothing to download");
    } else {
        let millis = fetched.elapsed.as_millis().max(1);
        let per_sec = u128::from(status.downloaded) * 1000 / millis;
        let per_sec = rate(u64::try_from(per_sec).unwrap_or(u64::MAX));
        let from = counted(status.givers.into(), "peer");
        text += &format!(", {} from {from} at {per_sec}", bytes(status.downloaded));
    }
    if status.wasted > 0 {
        text += &format!(", {} not kept", bytes(status.wasted));
    }
    if status.reused > 0 {
        text += &format!(", {} from older files here", bytes(status.reused));
    }
    if status.zeros > 0 {
        text += &format!(", {} are zeros", bytes(status.zeros));
    }
    if status.uploaded > 0 {
        text += &format!("; {} sent", bytes(status.uploaded));
    }
    text
}

fn failure_lines(failure: &Failure) -> Vec<Line> {
    let mut first = Line::of(Tone::Bad, "error: ");
    first.push(Tone::Plain, escape_hostile(&failure.message));
    let mut lines = vec![first];
    for detail in &failure.details {
        let text = format!("  {}", escape_hostile(detail));
        lines.push(Line::of(Tone::Plain, text));
    }
    if let Some(hint) = &failure.hint {
        let mut line = Line::of(Tone::Strong, "hint: ");
        line.push(Tone::Plain, escape_hostile(hint));
        lines.push(line);
    }
    lines
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::cli::args::{OutputFlags, When};
    use crate::content::{Digest, Layout, Name, RelativePath, ShareId};

    /// A share of one empty file.
    pub(in crate::cli) fn manifest() -> Manifest {
        let entry = Entry {
            path: RelativePath::parse("a").expect("a path"),
            kind: EntryKind::File {
                len: 0,
                root: None,
                executable: false,
            },
        };
        let name = Name::parse("a").expect("a name");
        Manifest::new(name, Layout::File, vec![entry]).expect("a manifest")
    }

    /// A fetch of 1,000 bytes, on its way.
    pub(in crate::cli) fn status() -> ShareStatus {
        ShareStatus {
            share: ShareId::from_digest(Digest::ZERO),
            name: "movie.bin".into(),
            phase: Phase::Fetch,
            bytes: 600,
            zeros: 0,
            reused: 0,
            total: Some(1_000),
            files: Some(1),
            verified: (0, 0),
            downloaded: 610,
            wasted: 10,
            uploaded: 300,
            down_per_sec: 80,
            up_per_sec: 40,
            eta: Some(Duration::from_secs(5)),
            availability: 2.4191,
            without_holder: 0,
            offered: None,
            withheld_files: 0,
            map: Vec::new(),
            pulled: false,
            givers: 2,
            completed_peers: 0,
            stalled: None,
            withheld: None,
            peers: Vec::new(),
        }
    }

    /// Something to write to that can be read.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Shared {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("no panic").clone()).expect("text")
        }
    }

    fn quiet(results: Results) -> (Output, Shared) {
        let flags = OutputFlags {
            json: false,
            quiet: true,
            verbose: 0,
            no_progress: false,
            color: When::Never,
        };
        let manner = Manner {
            results,
            ..Manner::choose(&flags, &Surroundings::read())
        };
        let stdout = Shared::default();
        (Output::to(Box::new(stdout.clone()), manner), stdout)
    }

    fn fetched(path: &str) -> Fetched {
        Fetched {
            path: PathBuf::from(path),
            bytes: 1_000,
            elapsed: Duration::from_millis(29_440),
        }
    }

    #[test]
    fn plain_stdout_has_the_result_and_nothing_else() {
        let (mut output, stdout) = quiet(Results::Exact);
        let status = status();
        output.show(&Picture::Share {
            status: &status,
            elapsed: Duration::ZERO,
        });
        let manifest = manifest();
        let link = Link {
            share: manifest.id(),
            hints: None,
        };
        output.link(&link, &manifest);
        output.done(&fetched("down/a\u{202e}b"), &status);
        output.stopped(StopReason::Signal, 3);
        assert_eq!(stdout.text(), format!("{link}\ndown/a\u{202e}b\n"));
    }

    #[test]
    fn a_terminal_gets_the_path_escaped() {
        let (mut output, stdout) = quiet(Results::Escaped);
        output.done(&fetched("a\u{202e}b\n"), &status());
        assert_eq!(stdout.text(), "a\\u{202e}b\\u{a}\n");
    }

    #[test]
    fn json_stdout_has_progress_at_once_at_each_phase_and_before_the_end() {
        let (mut output, stdout) = quiet(Results::Json);
        let mut status = status();
        for phase in [Phase::Find, Phase::Fetch, Phase::Fetch, Phase::Write] {
            status.phase = phase;
            output.show(&Picture::Share {
                status: &status,
                elapsed: Duration::ZERO,
            });
        }
        output.done(&fetched("a"), &status);
        output.stopped(StopReason::Idle, 0);
        let types: Vec<String> = stdout
            .text()
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).expect("JSON")["type"].to_string()
            })
            .collect();
        let expected = [
            "progress", "progress", "progress", "progress", "done", "stopped",
        ];
        assert_eq!(types, expected.map(|name| format!("\"{name}\"")));
    }

    #[test]
    fn a_closed_stdout_is_no_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let manner = quiet(Results::Json).0.manner;
        let mut output = Output::to(Box::new(Closed), manner);
        output.done(&fetched("a"), &status());
        output.finish();
    }

    #[test]
    fn who_leaves_too_early_is_told_what_is_lost() {
        let text = |peers, part| only_here_text(&OnlyHere { peers, part });
        assert_eq!(
            text(1, 0.001),
            "warning: 1 peer is not complete, and 1% of the share is held by nobody else that is connected"
        );
        assert!(text(2, 1.0).contains("2 peers are not complete, and 100% of"));
    }

    #[test]
    fn the_last_line_says_how_much_how_fast_and_from_whom() {
        assert_eq!(
            done_text(&fetched("a"), &status()),
            "done: 1000 B in 29.4s, 610 B from 2 peers at 20 B/s, 10 B not kept; 300 B sent"
        );
        let sparse = ShareStatus {
            zeros: 390,
            ..status()
        };
        assert_eq!(
            done_text(&fetched("a"), &sparse),
            "done: 1000 B in 29.4s, 610 B from 2 peers at 20 B/s, 10 B not kept, 390 B are zeros; 300 B sent"
        );
        let updated = ShareStatus {
            reused: 390,
            ..status()
        };
        assert_eq!(
            done_text(&fetched("a"), &updated),
            "done: 1000 B in 29.4s, 610 B from 2 peers at 20 B/s, 10 B not kept, 390 B from older files here; 300 B sent"
        );
        let resumed = ShareStatus {
            downloaded: 0,
            wasted: 0,
            uploaded: 0,
            ..status()
        };
        assert_eq!(
            done_text(&fetched("a"), &resumed),
            "done: 1000 B in 29.4s, nothing to download"
        );
    }

    #[test]
    fn an_error_is_one_line_with_its_details_and_one_hint() {
        let failure = Failure {
            details: vec!["/ip4/10.0.0.1/tcp/1: refused".into()],
            ..Failure::new(ExitCode::NoPeer, "no\npeer\u{1b}[2J").hint("try")
        };
        let lines: Vec<_> = failure_lines(&failure).iter().map(Line::plain).collect();
        assert_eq!(
            lines,
            [
                "error: no\\u{a}peer\\u{1b}[2J",
                "  /ip4/10.0.0.1/tcp/1: refused",
                "hint: try"
            ]
        );
    }

    #[test]
    fn something_paced_is_due_at_once_and_then_after_its_time() {
        let now = Instant::now();
        let mut pace = Pace {
            every: LINE_EVERY,
            next: now,
        };
        assert!(pace.is_due(now));
        assert!(!pace.is_due(now + LINE_EVERY / 2));
        assert!(pace.is_due(now + LINE_EVERY));
    }
}
