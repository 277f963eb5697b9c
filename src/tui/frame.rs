//! The live view as a pure function: a picture of the moment and the terminal's size become lines.
//!
//! Never reads a clock or a terminal. No line is wider than the size says, and there are never more lines than rows. Called
//! by `cli/output` several times a second.

use std::time::Duration;

use super::header::header;
use super::lanes::lanes;
use super::map::map;
use super::names::Names;
use super::style::{Glyphs, Line, Tone};
use crate::node::{Phase, ShareStatus};

const INDENT: &str = "  ";

/// What is going on at one moment.
#[derive(Clone, Copy, Debug)]
pub enum Picture<'a> {
    /// Looking for files to share.
    Scan {
        /// Files found so far.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Reading and hashing them.
    Hash {
        /// Bytes hashed so far.
        bytes: u64,
        /// Bytes in all.
        total: u64,
        /// Bytes per second since the beginning.
        per_sec: u64,
        /// Time to the end; `None` while unknown.
        eta: Option<Duration>,
    },
    /// Comparing local files with a share.
    Verify {
        /// Bytes read so far.
        bytes: u64,
        /// Bytes in all.
        total: u64,
        /// Bytes per second since the beginning.
        per_sec: u64,
        /// Time to the end; `None` while unknown.
        eta: Option<Duration>,
    },
    /// A share on a node.
    Share {
        /// How it is.
        status: &'a ShareStatus,
        /// Since the node was asked for it.
        elapsed: Duration,
    },
}

/// Room on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

/// At most `size.rows` lines of at most `size.columns` columns: a header, the piece map, a lane for each peer.
///
/// The header comes first when there is no room for all.
#[must_use]
pub fn frame(picture: &Picture<'_>, names: &mut Names, size: Size, glyphs: Glyphs) -> Vec<Line> {
    let mut lines = header(picture, size.columns, glyphs);
    if let Picture::Share { status, .. } = picture {
        // Of a share that is whole a map tells nothing.
        if !status.map.is_empty() && status.phase != Phase::Seed {
            let mut line = Line::of(Tone::Plain, INDENT);
            let columns = size.columns.saturating_sub(INDENT.len());
            line.append(map(&status.map, columns, glyphs));
            lines.push(line);
        }
        let rows = size.rows.saturating_sub(lines.len());
        lines.extend(lanes(status, names, size.columns, rows, glyphs));
    }
    lines.truncate(size.rows);
    lines
        .into_iter()
        .map(|line| line.trimmed().cut(size.columns))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::names::tests::peer;
    use super::*;
    use crate::content::{Digest, ShareId};
    use crate::node::{PeerActivity, PeerLane, StallCause, Via};

    const MIB: u64 = 1 << 20;

    fn lane(number: u8, activity: PeerActivity, down: u64, up: u64) -> PeerLane {
        PeerLane {
            peer: peer(number),
            address: format!("/ip4/192.168.1.{number}/tcp/4001")
                .parse()
                .expect("an address"),
            via: Via::Lan,
            agent: "shoal/0.1.0".into(),
            holds: 0.5,
            activity,
            asked: if down > 0 { 12 } else { 0 },
            waiting: 0,
            down_per_sec: down,
            up_per_sec: up,
            received: 0,
            sent: 0,
        }
    }

    fn status(peers: Vec<PeerLane>) -> ShareStatus {
        ShareStatus {
            share: ShareId::from_digest(Digest::ZERO),
            name: "ubuntu.iso".into(),
            phase: Phase::Fetch,
            bytes: 3686 * MIB,
            zeros: 0,
            reused: 0,
            total: Some(6042 * MIB),
            files: Some(1),
            verified: (0, 0),
            downloaded: 0,
            wasted: 0,
            uploaded: 1229 * MIB,
            down_per_sec: 212 * MIB,
            up_per_sec: 40 * MIB,
            eta: Some(Duration::from_secs(11)),
            availability: 2.419,
            without_holder: 0,
            offered: None,
            withheld_files: 0,
            map: [vec![255; 150], vec![200; 20], vec![90; 10], vec![0; 76]].concat(),
            pulled: false,
            givers: 3,
            completed_peers: 0,
            stalled: None,
            withheld: None,
            peers,
        }
    }

    fn swarm() -> ShareStatus {
        let mut first = lane(1, PeerActivity::Asked, 84 * MIB + MIB / 10, MIB);
        first.holds = 1.0;
        first.via = Via::Local;
        let mut last = lane(4, PeerActivity::Suspect, 0, 0);
        last.via = Via::Direct;
        status(vec![
            first,
            lane(2, PeerActivity::Asked, 1023 * MIB, 0),
            lane(3, PeerActivity::Idle, 0, 39 * MIB),
            last,
        ])
    }

    fn shown(status: &ShareStatus, columns: usize, rows: usize, glyphs: Glyphs) -> Vec<String> {
        let picture = Picture::Share {
            status,
            elapsed: Duration::from_secs(12),
        };
        let lines = frame(
            &picture,
            &mut Names::default(),
            Size { columns, rows },
            glyphs,
        );
        lines.iter().map(Line::plain).collect()
    }

    #[test]
    fn the_view_at_80_columns() {
        let expected = [
            "fetch  ubuntu.iso",
            "   61%  3.6/5.9 GiB   ↓ 212 MiB/s  ↑ 40.0 MiB/s  4 peers  ETA 11s",
            "  █████████████████████████████████████████████▓▓▓▓▓▓▓▒▒░·······················",
            "  12D3..KX local  trading ↓ 84.1 MiB/s ━········· ↑  1.0 MiB/s 100%  12 asked",
            "  12D3..NR lan    giving  ↓ 1023 MiB/s ━━━━━━━━━━               50%  12 asked",
            "  12D3..AY lan    taking  ↓      0 B/s ·········· ↑ 39.0 MiB/s  50%",
            "  12D3..ZN direct silent  ↓      0 B/s ··········               50%",
        ];
        assert_eq!(shown(&swarm(), 80, 23, Glyphs::Unicode), expected);
    }

    #[test]
    fn the_view_at_200_columns() {
        let expected = [
            "fetch  ubuntu.iso   61%  3.6/5.9 GiB   ↓ 212 MiB/s  ↑ 40.0 MiB/s  4 peers  ETA 11s".to_owned(),
            format!(
                "  {}{}{}░{}",
                "█".repeat(116),
                "▓".repeat(15),
                "▒".repeat(8),
                "·".repeat(58)
            ),
            "  12D3..KX local  trading ↓ 84.1 MiB/s ━········· ↑  1.0 MiB/s 100%  12 asked /ip4/192.168.1.1/tcp/4001                shoal/0.1.0".to_owned(),
            "  12D3..NR lan    giving  ↓ 1023 MiB/s ━━━━━━━━━━               50%  12 asked /ip4/192.168.1.2/tcp/4001                shoal/0.1.0".to_owned(),
            "  12D3..AY lan    taking  ↓      0 B/s ·········· ↑ 39.0 MiB/s  50%           /ip4/192.168.1.3/tcp/4001                shoal/0.1.0".to_owned(),
            "  12D3..ZN direct silent  ↓      0 B/s ··········               50%           /ip4/192.168.1.4/tcp/4001                shoal/0.1.0".to_owned(),
        ];
        assert_eq!(shown(&swarm(), 200, 50, Glyphs::Unicode), expected);
    }

    #[test]
    fn the_view_in_ascii_at_60_columns() {
        let lines = shown(&swarm(), 60, 23, Glyphs::Ascii);
        assert!(lines.iter().all(|line| line.is_ascii()), "{lines:#?}");
    }

    #[test]
    fn no_line_is_wider_and_no_view_higher_than_the_terminal() {
        let many: Vec<_> = (0..200)
            .map(|number| lane(number, PeerActivity::Asked, u64::from(number) * MIB, 7))
            .collect();
        let mut crowded = status(many);
        crowded.name = "魚".repeat(255);
        for glyphs in [Glyphs::Unicode, Glyphs::Ascii] {
            for columns in 1..220 {
                for rows in [0, 1, 2, 3, 7, 24, 60] {
                    let picture = Picture::Share {
                        status: &crowded,
                        elapsed: Duration::ZERO,
                    };
                    let size = Size { columns, rows };
                    let lines = frame(&picture, &mut Names::default(), size, glyphs);
                    assert!(lines.len() <= rows, "{size:?}: {}", lines.len());
                    for line in lines {
                        assert!(line.columns() <= columns, "{size:?}: {}", line.plain());
                    }
                }
            }
        }
    }

    #[test]
    fn forty_columns_hold_phase_percent_bytes_rate_and_time_left_and_a_whole_lane() {
        let lines = shown(&swarm(), 39, 10, Glyphs::Unicode);
        assert_eq!(lines[0], "fetch  ubuntu.iso");
        assert_eq!(lines[1], "61% 3.6/5.9 GiB ↓ 212 MiB/s ETA 11s");
        assert_eq!(
            lines[4].trim_end(),
            "  12D3..NR lan    giving  ↓ 1023 MiB/s"
        );
    }

    #[test]
    fn more_peers_than_rows_are_counted_and_the_idle_ones_give_way() {
        let peers = (0..40)
            .map(|number| {
                let activity = if number >= 35 {
                    PeerActivity::Asked
                } else {
                    PeerActivity::Idle
                };
                lane(number, activity, if number >= 35 { MIB } else { 0 }, 0)
            })
            .collect();
        // A header of two lines, the map, five lanes, the count.
        let lines = shown(&status(peers), 80, 9, Glyphs::Unicode);
        assert_eq!(lines.len(), 9);
        assert!(
            lines[3..8].iter().all(|line| line.contains("giving")),
            "{lines:#?}"
        );
        assert_eq!(lines[8], "  and 35 more, 0 B/s");
    }

    #[test]
    fn what_peers_say_of_themselves_cannot_move_the_cursor_or_turn_text_round() {
        let mut hostile = swarm();
        hostile.name = "a\x1b[2J\nb\u{202e}c".into();
        hostile.peers[0].agent = "\x1b]0;owned\x07\u{200b}".into();
        for columns in [40, 80, 200, 400] {
            let text = shown(&hostile, columns, 23, Glyphs::Unicode).concat();
            assert!(
                !text.contains(|character: char| character.is_control()
                    || matches!(character, '\u{202e}' | '\u{200b}')),
                "{text:?}"
            );
        }
        assert!(shown(&hostile, 200, 23, Glyphs::Unicode)[0].contains("a\\u{1b}[2J\\u{a}b"));
    }

    #[test]
    fn a_stalled_fetch_says_why_instead_of_when() {
        let mut stalled = status(Vec::new());
        stalled.stalled = Some(StallCause::NoHolder);
        stalled.without_holder = 12;
        stalled.down_per_sec = 0;
        let lines = shown(&stalled, 120, 23, Glyphs::Unicode);
        assert!(lines[0].ends_with("no holder of 12 pieces"), "{lines:#?}");
        assert!(!lines[0].contains("ETA"));
    }

    #[test]
    fn phases_without_a_share_have_one_line() {
        let size = Size {
            columns: 80,
            rows: 23,
        };
        let show = |picture: Picture<'_>| {
            let lines = frame(&picture, &mut Names::default(), size, Glyphs::Unicode);
            lines.iter().map(Line::plain).collect::<Vec<_>>()
        };
        let scan = Picture::Scan {
            files: 1_234,
            bytes: 6 << 30,
        };
        assert_eq!(show(scan), ["scan  1,234 files  6.0 GiB"]);
        let hash = Picture::Hash {
            bytes: 3 << 30,
            total: 6 << 30,
            per_sec: 900 * MIB,
            eta: Some(Duration::from_secs(3)),
        };
        assert_eq!(show(hash), ["hash   50%  3.0/6.0 GiB   900 MiB/s  ETA 3s"]);
        let verify = Picture::Verify {
            bytes: 3 << 30,
            total: 6 << 30,
            per_sec: 900 * MIB,
            eta: None,
        };
        assert_eq!(show(verify), ["verify   50%  3.0/6.0 GiB   900 MiB/s"]);
    }

    #[test]
    fn a_seed_shows_what_it_gives_and_no_map() {
        let mut seed = swarm();
        seed.phase = Phase::Seed;
        let lines = shown(&seed, 100, 23, Glyphs::Unicode);
        assert_eq!(
            lines[0],
            "seed  ubuntu.iso  5.9 GiB  ↑ 40.0 MiB/s  1.2 GiB sent  4 peers  you may leave now"
        );
        assert!(lines[1].starts_with("  12D3.."), "{lines:#?}");
        seed.peers.remove(0);
        seed.availability = 1.5;
        let lines = shown(&seed, 100, 23, Glyphs::Unicode);
        assert!(lines[0].ends_with("3 peers  1.50 copies"), "{lines:#?}");
    }

    #[test]
    fn looking_for_peers_says_for_how_long() {
        let mut finding = status(Vec::new());
        finding.phase = Phase::Find;
        finding.map.clear();
        let lines = shown(&finding, 80, 23, Glyphs::Unicode);
        assert_eq!(lines, ["find  ubuntu.iso  looking for peers  12s"]);
    }
}
