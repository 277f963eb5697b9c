//! One lane per peer: who, how, what it does, how fast, how much it holds.
//!
//! Pure. Columns stand below each other; what a narrow terminal has no room for is left out of all lanes alike. When
//! there are more peers than rows, those that do nothing give way first and the rest keep their order. Called by `frame`.

use super::header::{Flow, flow};
use super::names::Names;
use super::numbers::{counted, rate};
use super::style::{Glyphs, Line, Tone, columns as columns_of, shortened};
use crate::content::escape_hostile;
use crate::node::{PeerActivity, PeerLane, Phase, ShareStatus, Via};

const INDENT: &str = "  ";
const VIA_COLUMNS: usize = 6;
const STATE_COLUMNS: usize = 7;
/// `1023 MiB/s`, the longest rate.
const RATE_COLUMNS: usize = 10;
const HOLDS_COLUMNS: usize = 4;
const BAR_COLUMNS: usize = 10;
/// `999 asked`.
const ASKED_COLUMNS: usize = 9;
const ADDRESS_COLUMNS: usize = 40;
const AGENT_COLUMNS: usize = 24;

/// What a lane can have besides name, way, state and rate, in the order in which it gets room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extra {
    Holds,
    OtherRate,
    Bar,
    Asked,
    Address,
    Agent,
}

/// What all lanes of one frame have in common.
struct Layout {
    name_columns: usize,
    extras: Vec<Extra>,
    glyphs: Glyphs,
    /// The way that matters in this phase.
    flow: Flow,
    /// The fastest peer's rate; bars are relative to it.
    rate_max: u64,
}

/// At most `rows` lines for the peers of `status`, the last one counting those without a lane of their own.
pub(super) fn lanes(
    status: &ShareStatus,
    names: &mut Names,
    columns: usize,
    rows: usize,
    glyphs: Glyphs,
) -> Vec<Line> {
    let flow = match status.phase {
        Phase::Seed => Flow::Up,
        _ => Flow::Down,
    };
    let (shown, hidden) = chosen(&status.peers, rows);
    let shown: Vec<(String, &PeerLane)> = shown
        .into_iter()
        .map(|lane| (names.of(&lane.peer), lane))
        .collect();
    let name_columns = shown.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let layout = Layout {
        name_columns,
        extras: extras(columns, name_columns, flow, glyphs),
        glyphs,
        flow,
        rate_max: status
            .peers
            .iter()
            .map(|lane| per_sec(lane, flow))
            .max()
            .unwrap_or(0),
    };
    let mut lines: Vec<Line> = shown
        .iter()
        .map(|(name, lane)| layout.line(name, lane).cut(columns))
        .collect();
    if !hidden.is_empty() && lines.len() < rows {
        let sum: u64 = hidden.iter().map(|lane| per_sec(lane, flow)).sum();
        let text = format!("{INDENT}and {} more, {}", hidden.len(), rate(sum));
        lines.push(Line::of(Tone::Faint, text).cut(columns));
    }
    lines
}

/// Lanes to show and not to show, both in their order; one row is kept for `and N more` when it is needed.
fn chosen(peers: &[PeerLane], rows: usize) -> (Vec<&PeerLane>, Vec<&PeerLane>) {
    if peers.len() <= rows {
        return (peers.iter().collect(), Vec::new());
    }
    let mut room = rows.saturating_sub(1);
    let mut is_shown = vec![false; peers.len()];
    for wanted in [true, false] {
        for (lane, is_shown) in peers.iter().zip(&mut is_shown) {
            if room > 0 && is_busy(lane) == wanted {
                *is_shown = true;
                room -= 1;
            }
        }
    }
    let (shown, hidden): (Vec<_>, Vec<_>) = peers
        .iter()
        .zip(is_shown)
        .partition(|(_, is_shown)| *is_shown);
    let lanes = |pairs: Vec<(_, bool)>| pairs.into_iter().map(|(lane, _)| lane).collect();
    (lanes(shown), lanes(hidden))
}

fn is_busy(lane: &PeerLane) -> bool {
    lane.activity != PeerActivity::Idle || is_giving(lane) || is_taking(lane)
}

/// Bytes come from it, whether or not anything is asked of it at this very moment.
fn is_giving(lane: &PeerLane) -> bool {
    lane.down_per_sec > 0
}

fn is_taking(lane: &PeerLane) -> bool {
    lane.waiting > 0 || lane.up_per_sec > 0
}

fn per_sec(lane: &PeerLane, flow: Flow) -> u64 {
    match flow {
        Flow::Down => lane.down_per_sec,
        Flow::Up => lane.up_per_sec,
    }
}

/// As many extras as fit.
fn extras(columns: usize, name_columns: usize, way: Flow, glyphs: Glyphs) -> Vec<Extra> {
    let rate_columns = flow_columns(way, glyphs);
    let fixed = [name_columns, VIA_COLUMNS, STATE_COLUMNS, rate_columns];
    let mut used = INDENT.len() + fixed.iter().map(|columns| columns + 1).sum::<usize>() - 1;
    let wanted = [
        (Extra::Holds, 1 + HOLDS_COLUMNS),
        (Extra::OtherRate, 1 + flow_columns(other(way), glyphs)),
        (Extra::Bar, 1 + BAR_COLUMNS),
        (Extra::Asked, 1 + ASKED_COLUMNS),
        (Extra::Address, 1 + ADDRESS_COLUMNS),
        (Extra::Agent, 1 + AGENT_COLUMNS),
    ];
    let mut extras = Vec::new();
    for (extra, columns_needed) in wanted {
        used += columns_needed;
        if used > columns {
            break;
        }
        extras.push(extra);
    }
    extras
}

fn other(flow: Flow) -> Flow {
    match flow {
        Flow::Down => Flow::Up,
        Flow::Up => Flow::Down,
    }
}

/// Columns of the sign, a space and the longest rate.
fn flow_columns(way: Flow, glyphs: Glyphs) -> usize {
    columns_of(&flow(way, 0, glyphs)) - columns_of(&rate(0)) + RATE_COLUMNS
}

impl Layout {
    fn line(&self, name: &str, lane: &PeerLane) -> Line {
        let (state, tone) = state(lane);
        let mut line = Line::of(Tone::Plain, INDENT);
        let name_columns = self.name_columns;
        line.push(Tone::Strong, format!("{name:<name_columns$}"));
        line.push(Tone::Faint, format!(" {:<VIA_COLUMNS$}", via(lane.via)));
        line.push(tone, format!(" {state:<STATE_COLUMNS$}"));
        line.push(Tone::Plain, self.rate(lane, self.flow));
        let has = |extra| self.extras.contains(&extra);
        if has(Extra::Bar) {
            line.append(self.bar(per_sec(lane, self.flow)));
        }
        if has(Extra::OtherRate) {
            line.push(Tone::Plain, self.other_rate(lane));
        }
        if has(Extra::Holds) {
            // Rounded down: 100% means all.
            let holds = (lane.holds.clamp(0.0, 1.0) * 100.0).floor();
            line.push(
                Tone::Faint,
                format!(" {:>HOLDS_COLUMNS$}", format!("{holds}%")),
            );
        }
        if has(Extra::Asked) {
            let asked = match (self.flow, lane.asked, lane.waiting) {
                (Flow::Down, 0, _) | (Flow::Up, _, 0) => String::new(),
                (Flow::Down, count, _) => format!("{count} asked"),
                (Flow::Up, _, count) => format!("{count} asks"),
            };
            line.push(Tone::Faint, format!(" {asked:>ASKED_COLUMNS$}"));
        }
        if has(Extra::Address) {
            let address = shortened(&escape_hostile(&lane.address.to_string()), ADDRESS_COLUMNS);
            line.push(Tone::Faint, format!(" {address:<ADDRESS_COLUMNS$}"));
        }
        if has(Extra::Agent) {
            let agent = shortened(&escape_hostile(&lane.agent), AGENT_COLUMNS);
            line.push(Tone::Faint, format!(" {agent}"));
        }
        line
    }

    fn rate(&self, lane: &PeerLane, way: Flow) -> String {
        let text = flow(way, per_sec(lane, way), self.glyphs);
        let (sign, number) = text.split_once(' ').unwrap_or(("", &text));
        format!(" {sign} {number:>RATE_COLUMNS$}")
    }

    /// The way that matters less: nothing rather than a column of zeros.
    fn other_rate(&self, lane: &PeerLane) -> String {
        let way = other(self.flow);
        match per_sec(lane, way) {
            0 => " ".repeat(1 + flow_columns(way, self.glyphs)),
            _ => self.rate(lane, way),
        }
    }

    fn bar(&self, per_sec: u64) -> Line {
        let (drawn, empty) = match self.glyphs {
            Glyphs::Unicode => ("━", "·"),
            Glyphs::Ascii => ("=", "."),
        };
        let share = u128::from(per_sec) * BAR_COLUMNS as u128;
        // A peer that gives anything has at least one character.
        let len = share.div_ceil(u128::from(self.rate_max.max(1)));
        let len = usize::try_from(len).map_or(BAR_COLUMNS, |len| len.min(BAR_COLUMNS));
        let mut line = Line::of(Tone::Good, format!(" {}", drawn.repeat(len)));
        line.push(Tone::Faint, empty.repeat(BAR_COLUMNS - len));
        line
    }
}

fn via(via: Via) -> &'static str {
    match via {
        Via::Local => "local",
        Via::Lan => "lan",
        Via::Direct => "direct",
    }
}

/// What a peer does, in one word.
fn state(lane: &PeerLane) -> (&'static str, Tone) {
    match (lane.activity, is_giving(lane), is_taking(lane)) {
        (PeerActivity::Suspect, _, _) => ("silent", Tone::Warning),
        (_, true, true) => ("trading", Tone::Good),
        (_, true, false) => ("giving", Tone::Good),
        (_, false, true) => ("taking", Tone::Good),
        (PeerActivity::Asked, false, false) => ("asked", Tone::Plain),
        (PeerActivity::Idle, false, false) => ("idle", Tone::Faint),
    }
}

/// `lan`, `local` or `direct`, with the address, for a sentence.
pub(super) fn reached(how: Via, address: &str) -> String {
    format!("{} at {}", via(how), escape_hostile(address))
}

/// `3 peers`, for a sentence.
pub(super) fn peers(count: usize) -> String {
    counted(count as u64, "peer")
}
