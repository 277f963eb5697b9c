//! The first lines of the view: phase, name, bytes, rates, time left; and the same as one plain line.
//!
//! Pure. Says what each phase has to tell and what gives way when the terminal is narrow. Called by `frame`, and by
//! `cli/output` for stderr that is no terminal.

use super::frame::Picture;
use super::numbers::{bytes, counted, part, percent, rate, rough};
use super::style::{Glyphs, Line, Tone, columns as columns_of, shortened};
use std::time::Duration;

use crate::content::escape_hostile;
use crate::node::{Phase, ShareStatus, StallCause, Withheld};

/// A name is cut to no less than this to keep everything in one line; below, there are two lines.
const NAME_COLUMNS_MIN: usize = 16;
/// Between parts, where there is room.
const GAP: &str = "  ";

/// One thing a header tells.
struct Part {
    tone: Tone,
    text: String,
    /// Least columns where there is room, so that what follows does not jump about.
    columns_min: usize,
    /// The part with the smallest number gives way first.
    keep: u8,
}

impl Part {
    fn new(keep: u8, tone: Tone, text: impl Into<String>) -> Self {
        Self {
            tone,
            text: text.into(),
            columns_min: 0,
            keep,
        }
    }

    fn at_least(mut self, columns_min: usize) -> Self {
        self.columns_min = columns_min;
        self
    }

    fn padded(&self) -> String {
        let missing = self.columns_min.saturating_sub(columns_of(&self.text));
        format!("{}{}", " ".repeat(missing), self.text)
    }
}

/// What a header tells, in order.
struct Told {
    phase: &'static str,
    /// Escaped; empty while unknown.
    name: String,
    parts: Vec<Part>,
}

/// One line where everything fits, else two: who, and how far.
pub(super) fn header(picture: &Picture<'_>, columns: usize, glyphs: Glyphs) -> Vec<Line> {
    let told = told(picture, glyphs);
    let parts: usize = told
        .parts
        .iter()
        .map(|part| GAP.len() + columns_of(&part.padded()))
        .sum();
    let name_least = columns_of(&told.name).min(NAME_COLUMNS_MIN);
    let mut first = Line::of(Tone::Strong, told.phase);
    let room = columns.saturating_sub(first.columns() + GAP.len());
    if parts + name_least <= room {
        push_name(&mut first, &told.name, room - parts);
        for part in &told.parts {
            first.push(Tone::Plain, GAP);
            first.push(part.tone, part.padded());
        }
        return vec![first];
    }
    push_name(&mut first, &told.name, room);
    if parts <= columns {
        let mut second = Line::default();
        for part in &told.parts {
            second.push(Tone::Plain, GAP);
            second.push(part.tone, part.padded());
        }
        return vec![first, second];
    }
    vec![first, squeezed(told.parts, columns)]
}

/// The parts with as little space as can be; the least important ones give way until the rest fits.
fn squeezed(mut parts: Vec<Part>, columns: usize) -> Line {
    let fits = |parts: &[Part]| {
        let text: usize = parts.iter().map(|part| columns_of(&part.text)).sum();
        text + parts.len().saturating_sub(1) <= columns
    };
    while parts.len() > 1 && !fits(&parts) {
        let mut least = 0;
        for (at, part) in parts.iter().enumerate() {
            if part.keep <= parts[least].keep {
                least = at;
            }
        }
        parts.remove(least);
    }
    let mut line = Line::default();
    for (at, part) in parts.into_iter().enumerate() {
        if at > 0 {
            line.push(Tone::Plain, " ");
        }
        line.push(part.tone, part.text);
    }
    line
}

fn push_name(line: &mut Line, name: &str, columns_max: usize) {
    if !name.is_empty() {
        line.push(Tone::Plain, GAP);
        line.push(Tone::Plain, shortened(name, columns_max));
    }
}

/// The same as one line for a log: `fetch movie.bin: 61%, 3.6/5.9 GiB, down 212 MiB/s, 5 peers, ETA 11s`.
#[must_use]
pub fn summary(picture: &Picture<'_>) -> String {
    let Told { phase, name, parts } = told(picture, Glyphs::Ascii);
    let name = if name.is_empty() {
        name
    } else {
        format!(" {name}")
    };
    let parts: Vec<_> = parts.into_iter().map(|part| part.text).collect();
    format!("{phase}{name}: {}", parts.join(", "))
}

/// Local files that are read: how many bytes of how many, how fast, and for how long still.
fn reading((bytes, total): (u64, u64), per_sec: u64, eta: Option<Duration>) -> Vec<Part> {
    let mut parts = progress(bytes, Some(total));
    parts.push(Part::new(5, Tone::Plain, rate(per_sec)).at_least(10));
    parts.extend(eta.map(|eta| Part::new(6, Tone::Plain, format!("ETA {}", rough(eta)))));
    parts
}

fn told(picture: &Picture<'_>, glyphs: Glyphs) -> Told {
    let local = |phase, parts| Told {
        phase,
        name: String::new(),
        parts,
    };
    match picture {
        Picture::Scan { files, bytes: size } => local(
            "scan",
            vec![
                Part::new(5, Tone::Plain, counted(*files, "file")),
                Part::new(4, Tone::Plain, bytes(*size)),
            ],
        ),
        Picture::Hash {
            bytes,
            total,
            per_sec,
            eta,
        } => local("hash", reading((*bytes, *total), *per_sec, *eta)),
        Picture::Verify {
            bytes,
            total,
            per_sec,
            eta,
        } => local("verify", reading((*bytes, *total), *per_sec, *eta)),
        Picture::Share { status, elapsed } => {
            let (phase, parts) = match status.phase {
                Phase::Find => ("find", finding(status, rough(*elapsed))),
                Phase::Verify => {
                    let (bytes, total) = status.verified;
                    ("verify", progress(bytes, Some(total)))
                }
                Phase::Fetch => ("fetch", fetching(status, glyphs)),
                Phase::Write => ("write", progress(status.bytes, status.total)),
                Phase::Seed => ("seed", seeding(status, glyphs)),
            };
            Told {
                phase,
                name: escape_hostile(&status.name),
                parts,
            }
        }
    }
}

fn progress(done: u64, total: Option<u64>) -> Vec<Part> {
    match total {
        Some(total) => vec![
            Part::new(7, Tone::Strong, format!("{}%", percent(done, total))).at_least(4),
            Part::new(4, Tone::Plain, part(done, total)),
        ],
        None => vec![Part::new(4, Tone::Plain, bytes(done))],
    }
}

fn finding(status: &ShareStatus, elapsed: String) -> Vec<Part> {
    let what = match status.peers.len() {
        0 => "looking for peers".to_owned(),
        count => format!("asking {}", counted(count as u64, "peer")),
    };
    vec![
        Part::new(5, Tone::Plain, what),
        Part::new(4, Tone::Faint, elapsed),
    ]
}

fn fetching(status: &ShareStatus, glyphs: Glyphs) -> Vec<Part> {
    let mut parts = progress(status.bytes, status.total);
    parts
        .push(Part::new(5, Tone::Good, flow(Flow::Down, status.down_per_sec, glyphs)).at_least(12));
    if status.up_per_sec > 0 {
        parts.push(
            Part::new(2, Tone::Plain, flow(Flow::Up, status.up_per_sec, glyphs)).at_least(12),
        );
    }
    parts.push(peers(status));
    match (status.stalled, status.eta) {
        (Some(cause), _) => parts.push(Part::new(
            6,
            Tone::Warning,
            stall(cause, status.without_holder, status.withheld.as_ref()),
        )),
        (None, Some(eta)) => {
            parts.push(Part::new(6, Tone::Plain, format!("ETA {}", rough(eta))));
        }
        (None, None) => {}
    }
    parts
}

fn seeding(status: &ShareStatus, glyphs: Glyphs) -> Vec<Part> {
    let mut parts = served(status, glyphs);
    let withheld = counted(status.withheld_files.into(), "file");
    match (status.withheld_files, status.offered) {
        (0, _) => {}
        (_, Some(0)) => {
            let text = format!("nothing to offer: {withheld} changed or away");
            parts.push(Part::new(8, Tone::Bad, text));
        }
        (_, _) => {
            let text = format!("{withheld} changed or away");
            parts.push(Part::new(5, Tone::Warning, text));
        }
    }
    parts
}

fn served(status: &ShareStatus, glyphs: Glyphs) -> Vec<Part> {
    vec![
        Part::new(3, Tone::Plain, bytes(status.total.unwrap_or(status.bytes))),
        Part::new(6, Tone::Good, flow(Flow::Up, status.up_per_sec, glyphs)).at_least(12),
        Part::new(5, Tone::Plain, format!("{} sent", bytes(status.uploaded))),
        peers(status),
        if status.may_leave() {
            Part::new(4, Tone::Good, "you may leave now")
        } else {
            Part::new(1, Tone::Plain, format!("{:.2} copies", status.availability))
        },
    ]
}

fn peers(status: &ShareStatus) -> Part {
    Part::new(3, Tone::Plain, counted(status.peers.len() as u64, "peer"))
}

/// Which way bytes go, seen from here.
#[derive(Clone, Copy)]
pub(super) enum Flow {
    Down,
    Up,
}

/// `↓ 84.1 MiB/s`, or with a word for the arrow.
pub(super) fn flow(flow: Flow, per_sec: u64, glyphs: Glyphs) -> String {
    let sign = match (flow, glyphs) {
        (Flow::Down, Glyphs::Unicode) => "↓",
        (Flow::Down, Glyphs::Ascii) => "down",
        (Flow::Up, Glyphs::Unicode) => "↑",
        (Flow::Up, Glyphs::Ascii) => "up",
    };
    format!("{sign} {}", rate(per_sec))
}

/// Why nothing arrives, in a few words.
pub(super) fn stall(cause: StallCause, missing: u32, why: Option<&Withheld>) -> String {
    match cause {
        StallCause::NoPeers => "no peer known".to_owned(),
        StallCause::NoHolder => {
            let missing = counted(missing.into(), "piece");
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            format!("no holder of {missing}{why}")
        }
        StallCause::Unreachable => "no peer reachable".to_owned(),
    }
}
