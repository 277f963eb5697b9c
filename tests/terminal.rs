//! The live view as its user sees it: real processes on a pseudo-terminal, looked at as a rendered screen.
//!
//! Asserted is what somebody has to find (phase, percent, map, a lane per peer), not the exact numbers of a run; exact
//! frames are tested beside `tui/frame`.

use std::path::{Path, PathBuf};

use crate::support::terminal::Terminal;
use crate::support::{Place, Process, assert_same, fetch, seed, turn};

const MIB: usize = 1 << 20;
const CTRL_C: u8 = 3;

/// What the view of a fetch tells.
#[derive(Debug)]
struct View {
    percent: u32,
    /// Characters of the piece map.
    map: String,
    lanes: Vec<String>,
}

/// The view on a screen, if it is there, whole, and once.
fn view_of(lines: &[String]) -> Option<View> {
    let headers: Vec<_> = (0..lines.len())
        .filter(|at| lines[*at].starts_with("fetch  data.bin"))
        .collect();
    let [header] = headers[..] else { return None };
    let is_map = |line: &String| {
        !line.is_empty() && line.trim().chars().all(|drawn| "·░▒▓█".contains(drawn))
    };
    let map = header
        + lines[header..]
            .iter()
            .position(|line| is_map(line) && line.starts_with("  "))?;
    let words = lines[header..map].join(" ");
    if !words.contains("ETA ") || !words.contains("MiB") {
        return None;
    }
    let percent = words
        .split(' ')
        .find_map(|word| word.strip_suffix('%'))?
        .parse()
        .ok()?;
    let lanes: Vec<_> = lines[map + 1..].to_vec();
    let map = lines[map].trim().to_owned();
    Some(View {
        percent,
        map,
        lanes,
    })
}

/// Two slow seeders of one file, and a link to it.
fn two_seeders(place: &Place) -> ([Process; 2], String, PathBuf) {
    let file = place.file("data.bin", 12 * MIB);
    let (first, link) = seed(place, "home", &file, &["--up", "1M"]);
    let (second, _) = seed(place, "home", &file, &["--up", "1M"]);
    ([first, second], link, file)
}

fn fetch_on_terminal(place: &Place, link: &str, into: &Path, columns: u16, rows: u16) -> Terminal {
    let shoal = place
        .shoal("home")
        .args(&["fetch", link, "--linger", "0", "--dir"])
        .arg(into);
    shoal.local().spawn_on_terminal(columns, rows)
}

fn has(lines: &[String], text: &str) -> bool {
    lines.iter().any(|line| line.contains(text))
}

#[test]
fn a_fetch_shows_phase_percent_map_time_left_and_a_lane_for_each_peer() {
    let _turn = turn();
    let place = Place::new();
    let (_seeders, link, file) = two_seeders(&place);
    for (columns, rows) in [(80, 24), (200, 50)] {
        let out = place.folder(&format!("out-{columns}"));
        let mut terminal = fetch_on_terminal(&place, &link, &out, columns, rows);
        let lines = terminal.wait_for("view of two peers in mid-transfer", |lines| {
            view_of(lines)
                .is_some_and(|view| (5..95).contains(&view.percent) && view.lanes.len() == 2)
        });
        let view = view_of(&lines).unwrap();
        assert!(terminal.is_coloured());
        assert_eq!(
            view.map.chars().count(),
            usize::from(columns) - 3,
            "the map is as wide as there is room"
        );
        assert!(
            view.map.contains('·') && view.map.contains(['░', '▒', '▓', '█']),
            "{view:?}"
        );
        for lane in &view.lanes {
            assert!(
                lane.starts_with("  12D3..") && lane.contains(" local ") && lane.contains("↓"),
                "{lane}"
            );
            assert_eq!(
                lane.contains("/ip4/127.0.0.1/tcp/"),
                columns == 200,
                "{lane}"
            );
        }
        assert_eq!(terminal.wait(), 0);
        let lines = terminal.lines();
        assert!(has(&lines, "done: 12.0 MiB in"), "{lines:#?}");
        assert!(
            has(&lines, out.join("data.bin").to_str().unwrap()) || columns == 80,
            "{lines:#?}"
        );
        assert!(
            view_of(&lines).is_none() && !has(&lines, "ETA"),
            "the view is gone: {lines:#?}"
        );
        terminal.check_left_clean();
        assert_same(out.join("data.bin"), &file);
    }
}

#[test]
fn the_view_follows_the_size_of_the_terminal_and_ctrl_c_leaves_it_clean() {
    let _turn = turn();
    let place = Place::new();
    let (_seeders, link, _) = two_seeders(&place);
    let mut terminal = fetch_on_terminal(&place, &link, &place.folder("out"), 80, 24);
    terminal.wait_for("view", |lines| {
        view_of(lines).is_some_and(|view| view.map.chars().count() == 77)
    });
    for (columns, rows) in [(200, 50), (60, 20), (110, 12)] {
        terminal.resize(columns, rows);
        let wide = usize::from(columns) - 3;
        terminal.wait_for("view of the new size, once", |lines| {
            view_of(lines)
                .is_some_and(|view| view.map.chars().count() == wide && view.lanes.len() == 2)
        });
    }
    terminal.press(CTRL_C);
    assert_eq!(terminal.wait(), 130);
    let lines = terminal.lines();
    assert!(
        has(&lines, "error: interrupted before") && has(&lines, "hint: run the same command"),
        "{lines:#?}"
    );
    assert!(view_of(&lines).is_none(), "the view is gone: {lines:#?}");
    terminal.check_left_clean();
}

#[test]
fn no_color_takes_the_colours_and_leaves_the_view() {
    let _turn = turn();
    let place = Place::new();
    let (_seeders, link, _) = two_seeders(&place);
    let shoal = place
        .shoal("home")
        .args(&["fetch", &link, "--dir", "out"])
        .local()
        .env("NO_COLOR", "1");
    let mut terminal = shoal.spawn_on_terminal(80, 24);
    terminal.wait_for("view", |lines| {
        view_of(lines).is_some_and(|view| !view.lanes.is_empty())
    });
    terminal.press(CTRL_C);
    assert_eq!(terminal.wait(), 130);
    let written = String::from_utf8_lossy(&terminal.written).into_owned();
    let is_colour = |sequence: &str| {
        let end = sequence.find(|character: char| character.is_ascii_alphabetic());
        end.is_some_and(|end| sequence[end..].starts_with('m'))
    };
    assert!(
        !written.split("\x1b[").skip(1).any(is_colour),
        "{written:?}"
    );
    terminal.check_left_clean();
}

#[test]
fn a_dumb_terminal_gets_lines_without_any_sequence() {
    let _turn = turn();
    let place = Place::new();
    let (_seeders, link, _) = two_seeders(&place);
    let shoal = place
        .shoal("home")
        .args(&["fetch", &link, "--linger", "0", "--dir", "out"])
        .local();
    let mut terminal = shoal.env("TERM", "dumb").spawn_on_terminal(80, 24);
    terminal.wait_for("progress in lines", |lines| {
        lines
            .iter()
            .any(|line| line.starts_with("fetch data.bin: ") && line.contains('%'))
    });
    assert_eq!(terminal.wait(), 0);
    assert!(
        !terminal.written.contains(&0x1b),
        "{:?}",
        String::from_utf8_lossy(&terminal.written)
    );
    assert!(has(&terminal.lines(), "done: "));
    terminal.check_left_clean();
}

#[test]
fn quiet_leaves_the_result_alone_on_the_terminal() {
    let _turn = turn();
    let place = Place::new();
    let (_seeder, link) = seed(&place, "home", &place.file("data.bin", MIB), &[]);
    let shoal = place
        .shoal("home")
        .args(&["fetch", &link, "-q", "--linger", "0", "--dir", "out"])
        .local();
    let mut terminal = shoal.spawn_on_terminal(80, 24);
    assert_eq!(terminal.wait(), 0);
    assert_eq!(
        String::from_utf8_lossy(&terminal.written),
        "out/data.bin\r\n"
    );
}

#[test]
fn a_seed_that_leaves_too_early_is_warned() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 12 * MIB);
    let mut seeder = place
        .shoal("home")
        .arg("seed")
        .arg(&file)
        .args(&["--up", "1M"])
        .local()
        .spawn_on_terminal(120, 30);
    let link = place.shoal("home").arg("link").arg(&file).run().stdout;
    let mut fetcher = fetch(&place, "home", link.trim(), &place.path("out"), &[]);
    fetcher.wait_for_part(0.2);
    let lines = seeder.wait_for("lane", |lines| {
        has(lines, "  12D3..") && has(lines, "seed  data.bin")
    });
    assert!(
        !has(&lines, "you may leave") && has(&lines, "copies"),
        "{lines:#?}"
    );
    seeder.press(CTRL_C);
    assert_eq!(seeder.wait(), 130);
    let lines = seeder.lines();
    let warning = lines
        .iter()
        .find(|line| line.starts_with("warning: 1 peer is not complete"));
    assert!(warning.is_some(), "{lines:#?}");
    seeder.check_left_clean();
}

#[test]
fn a_seed_is_told_when_it_may_leave() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 2 * MIB);
    let mut seeder = place
        .shoal("home")
        .arg("seed")
        .arg(&file)
        .local()
        .spawn_on_terminal(120, 30);
    let link = place.shoal("home").arg("link").arg(&file).run().stdout;
    seeder.wait_for("view", |lines| has(lines, "seed  data.bin"));
    assert!(!has(&seeder.lines(), "you may leave"));
    let mut fetcher = fetch(&place, "home", link.trim(), &place.path("out"), &["--seed"]);
    fetcher.wait_for_type("done");
    seeder.wait_for("leave", |lines| has(lines, "you may leave now"));
    seeder.press(CTRL_C);
    assert_eq!(seeder.wait(), 130);
    assert!(!has(&seeder.lines(), "warning:"), "{:#?}", seeder.lines());
    seeder.check_left_clean();
}
