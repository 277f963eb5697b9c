//! What peers that misbehave cost: memory, which is bounded here, and the rate of honest peers, which is printed.
//! `SHOAL_HOSTILE_SECONDS` is how long each rate is measured, on a quiet machine ten make a figure; `SHOAL_HOSTILE_RATE` is
//! what the seeder gives in a second.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::share_of;
use crate::support::rogue::{Attack, Flood, Rogue, Trap, half_handshakes};
use crate::support::{Place, Process, assert_same, fetch, pause, seed, turn};

const MIB: usize = 1 << 20;

/// Resident memory that one hostile connection may cost, and a thousand of them.
const MEMORY_MAX: usize = 16 * MIB;
const THOUSAND_MEMORY_MAX: usize = 256 * MIB;

/// Connections that are tried, and those of them that have to be there: a node takes no more than 256.
const THOUSAND: usize = 1_000;
const ENOUGH: usize = 240;

/// As many as a node takes.
const ALL: usize = 256;

/// As many peers as a share takes.
const STRANGERS: usize = shoal::engine::tuning::PEERS_MAX;

/// What the seeder gives in a second: far below what any machine can.
const RATE: usize = 4_000_000;

/// Far more than any peer needs to be ended, and less than a hello takes byte by byte.
const ENDED_WITHIN: Duration = Duration::from_secs(40);

/// An agent as long as allowed.
const AGENT: &str = "rogue/1 a-name-as-long-as-it-may-be-so-that-a-byte-each-second-.";

/// Resident bytes of a process: `VmRSS` now, or `VmHWM` at most since `forget_peak`.
fn resident(process: &Process, which: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(which)).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

fn forget_peak(process: &Process) {
    fs::write(format!("/proc/{}/clear_refs", process.id()), "5").unwrap();
}

fn from_environment(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

fn window() -> Duration {
    Duration::from_secs(from_environment("SHOAL_HOSTILE_SECONDS", 0) as u64)
}

/// Bytes per second of a fetch over a window that begins now, from the first and last progress in it; `None` once it is
/// done.
fn rate(fetcher: &mut Process) -> Option<f64> {
    if !fetcher.all("done").is_empty() {
        return None;
    }
    let mut first = None;
    loop {
        let is_wanted = |line: &serde_json::Value| {
            line["type"] == "done" || line["type"] == "progress" && line["phase"] == "fetch"
        };
        let (at, line) = fetcher.wait_for_new("progress", is_wanted);
        let bytes = line["bytes"].as_f64().unwrap();
        if line["type"] == "done" {
            return None;
        }
        let (begin, before) = *first.get_or_insert((at, bytes));
        let span = at - begin;
        if span > Duration::ZERO && span >= window() {
            return Some((bytes - before) / span.as_secs_f64());
        }
    }
}

/// A seeder and its only honest peer, which fetches for long enough.
struct Scene {
    place: Place,
    seeder: Process,
    victim: String,
    link: String,
    fetcher: Process,
    alone: f64,
    /// What the last attack cost, in words.
    figures: String,
}

impl Scene {
    /// `windows` are measured.
    fn new(windows: usize) -> Self {
        let place = Place::new();
        // A line of progress ends a window, up to a second late, and some attacks take seconds to begin.
        let seconds = 6 + windows * (1 + window().as_secs() as usize * 5 / 4);
        let rate_given = from_environment("SHOAL_HOSTILE_RATE", RATE);
        let file = place.file("data.bin", seconds * rate_given);
        let limit = rate_given.to_string();
        let (mut seeder, link) = seed(&place, "home", &file, &["--up", &limit]);
        let victim = seeder.wait_for_type("listening")["addr"].clone();
        let victim = victim.as_str().unwrap().to_owned();
        let out = place.path("out");
        let mut fetcher = fetch(&place, "home", &link, &out, &["--linger", "0"]);
        fetcher.wait_for_part(0.01);
        let alone = rate(&mut fetcher).expect("a fetch that takes longer");
        Self {
            place,
            seeder,
            victim,
            link,
            fetcher,
            alone,
            figures: String::new(),
        }
    }

    /// What the seeder grows by at most while `act` lasts; with the rate beside it in `figures`.
    fn cost<T>(&mut self, what: &str, act: impl FnOnce(&str) -> T) -> (usize, T) {
        let before = resident(&self.seeder, "VmRSS:");
        forget_peak(&self.seeder);
        let held = act(&self.victim);
        let beside = rate(&mut self.fetcher);
        let cost = resident(&self.seeder, "VmHWM:").saturating_sub(before);
        let part = beside.map_or("unknown".into(), |rate| {
            format!("{:.0}", 100.0 * rate / self.alone)
        });
        self.figures = format!("{what}: {part} % of the rate, {} KiB", cost / 1024);
        (cost, held)
    }

    /// The honest peer gets everything, and the seeder is well.
    fn end(mut self) {
        assert_eq!(self.fetcher.wait(), 0);
        assert_same(self.place.path("out/data.bin"), self.place.path("data.bin"));
        self.seeder.signal("INT");
        assert_eq!(self.seeder.wait(), 130, "the seeder is alive and well");
    }
}

#[test]
fn a_seeder_bears_every_kind_of_hostile_peer_at_little_cost() {
    let _turn = turn();
    // Those that the protocol has ended.
    let ended = [
        Attack::Silent,
        Attack::Loiter,
        Attack::Dribble,
        Attack::LongAgent,
        Attack::Unasked,
        Attack::WrongFrame,
        Attack::WrongSlice,
        Attack::Reopen,
    ];
    let borne = [
        Attack::Hoard,
        Attack::Requests,
        Attack::EndlessHave,
        Attack::EverythingOften,
        Attack::Sessions,
    ];
    let mut scene = Scene::new(ended.len() + borne.len());
    let share = share_of(&scene.link);
    let mut ending = Vec::new();
    for attack in ended.into_iter().chain(borne) {
        let rogue = Rogue::start(AGENT);
        let (cost, under_way) = scene.cost(&format!("{attack:?}"), |victim| {
            rogue.attack(victim, share, attack)
        });
        eprintln!("{}", scene.figures);
        assert!(cost <= MEMORY_MAX, "{attack:?}: {cost} bytes");
        if ended.contains(&attack) {
            ending.push((attack, rogue, under_way));
        }
    }
    for (attack, _rogue, under_way) in &ending {
        while under_way.lasted().is_none() {
            assert!(
                under_way.began.elapsed() < ENDED_WITHIN,
                "{attack:?} goes on"
            );
            pause();
        }
        let lasted = under_way.lasted().unwrap();
        eprintln!("{attack:?} was ended after {lasted:?}");
        assert!(
            lasted < ENDED_WITHIN,
            "{attack:?} ended by itself: {lasted:?}"
        );
    }
    scene.end();
}

#[test]
fn what_is_sent_and_never_read_costs_a_bounded_amount_of_memory() {
    let _turn = turn();
    let mut scene = Scene::new(8);
    let cases = [
        ("half handshakes", 0, 0, THOUSAND_MEMORY_MAX),
        ("one connection, frames of one byte", 1, 1, MEMORY_MAX),
        ("one connection, large frames", 1, 65_536, MEMORY_MAX),
        (
            "a thousand connections",
            THOUSAND,
            4_096,
            THOUSAND_MEMORY_MAX,
        ),
    ];
    for (what, connections, frame_len, most) in cases {
        let (cost, held) = scene.cost(what, |victim| match connections {
            0 => (Some(half_handshakes(victim, THOUSAND)), None),
            _ => {
                let enough = connections.min(ENOUGH);
                let flood = Flood::start(victim, connections, enough, frame_len);
                flood.await_standstill();
                (None, Some(flood))
            }
        });
        eprintln!("{}", scene.figures);
        if let Some(flood) = &held.1 {
            let (alive, sent) = (&flood.alive, &flood.sent);
            let (alive, sent) = (alive.load(Ordering::Relaxed), sent.load(Ordering::Relaxed));
            eprintln!("{alive} connections have sent {} KiB", sent / 1024);
        }
        assert!(cost <= most, "{what}: {cost} bytes");
    }
    scene.end();
}

#[test]
fn a_fetch_finds_a_place_at_a_seeder_that_strangers_have_filled() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", MIB);
    let (mut seeder, link) = seed(&place, "home", &file, &[]);
    let victim = seeder.wait_for_type("listening")["addr"].clone();
    let strangers: Vec<Rogue> = (0..STRANGERS).map(|_| Rogue::start("rogue/1")).collect();
    let mut stays = Vec::new();
    for rogue in &strangers {
        stays.push(rogue.attack(victim.as_str().unwrap(), share_of(&link), Attack::Stay));
        // One after the other: a node bears only so many handshakes at once.
        seeder.wait_for_new("a stranger", |line| line["state"] == "connected");
    }
    let mut fetcher = fetch(
        &place,
        "home",
        &link,
        &place.path("out"),
        &["--linger", "0"],
    );
    assert_eq!(fetcher.wait(), 0);
    let displaced = || stays.iter().filter(|stay| stay.lasted().is_some()).count();
    while displaced() == 0 {
        assert!(stays[0].began.elapsed() < ENDED_WITHIN, "nobody made room");
        pause();
    }
    assert_eq!(displaced(), 1, "one stranger made room");
}

/// A fetch of another user at a seeder whose every connection is a stranger's; of the same user the seeder would find and
/// dial it.
fn fetches_beside(strangers: impl FnOnce(&str) -> Flood) {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", MIB);
    let (mut seeder, link) = seed(&place, "home", &file, &[]);
    let victim = seeder.wait_for_type("listening")["addr"].clone();
    let flood = strangers(victim.as_str().unwrap());
    let out = place.path("out");
    let mut fetcher = fetch(&place, "other", &link, &out, &["--linger", "0"]);
    assert_eq!(fetcher.wait(), 0);
    assert!(flood.alive.load(Ordering::Relaxed) > 0, "they all had left");
    assert_same(place.path("out/data.bin"), file);
}

#[test]
fn a_fetch_finds_a_place_at_a_node_all_of_whose_connections_strangers_hold() {
    fetches_beside(|victim| Flood::hold(victim, ALL, ALL));
}

#[test]
fn a_fetch_finds_a_place_at_a_node_that_strangers_ask_without_end() {
    fetches_beside(|victim| Flood::start(victim, ALL, ALL, 4_096));
}

#[test]
fn a_fetch_bears_every_kind_of_hostile_source_at_little_cost() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 16 * MIB);
    let (_seeder, link) = seed(&place, "home", &file, &["--up", "4M"]);
    let share = share_of(&link);
    let traps = [
        Trap::Mute,
        Trap::Dribble,
        Trap::WrongLength,
        Trap::HugeManifest,
    ];
    let mut rogues = Vec::new();
    let mut flags = vec!["--linger".to_owned(), "0".to_owned()];
    for trap in &traps {
        let mut rogue = Rogue::start("rogue/1");
        rogue.wait(share, trap.clone());
        flags.extend(["--peer".to_owned(), rogue.address.clone()]);
        rogues.push(rogue);
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut fetcher = fetch(&place, "home", &link, &place.path("out"), &flags);
    let begin = fetcher.wait_for_part(0.05);
    let end = fetcher.wait_for_part(0.95);
    let rate = 0.9 * 16.0 * MIB as f64 / (end - begin).as_secs_f64();
    let cost = resident(&fetcher, "VmHWM:");
    eprintln!(
        "{:.0} % of the rate of the seeder, {} KiB in all",
        100.0 * rate / RATE as f64,
        cost / 1024
    );
    assert!(cost <= 96 * MIB + traps.len() * MEMORY_MAX, "{cost} bytes");
    assert_eq!(fetcher.wait(), 0);
    assert_same(place.path("out/data.bin"), file);
}
