//! Names and agents that would move, hide, forge or turn around what is shown: refused before anything is created, or
//! escaped wherever they are told.

use std::fs;
use std::time::Instant;

use shoal::content::{Digest, Link, ShareId};

use super::share_of;
use crate::support::rogue::{Attack, Rogue, Trap, introduce};
use crate::support::{PATIENCE, Place, pause, turn};

/// A manifest of one empty folder with this path, by the dump in `content/manifest`.
fn manifest_of(name: &str, path: &str) -> Vec<u8> {
    let mut bytes = vec![1, 1, u8::try_from(name.len()).unwrap()];
    bytes.extend(name.as_bytes());
    bytes.extend([0xfc, 0, 0, 1, 0, 1, u8::try_from(path.len()).unwrap()]);
    bytes.extend(path.as_bytes());
    bytes.push(2);
    bytes
}

#[test]
fn a_share_whose_names_break_a_rule_is_refused_at_once_and_creates_nothing() {
    let _turn = turn();
    let cases = [
        ("n", "../../escape", "dot element in path `../../escape`"),
        ("n", "/etc/escape", "absolute path: `/etc/escape`"),
        ("..", "escape", "dot element in path `..`"),
        (
            "n",
            "a/\u{1b}[2J\u{202e}/..",
            "path `a/\\u{1b}[2J\\u{202e}/..`",
        ),
    ];
    for (name, path, reason) in cases {
        let place = Place::new();
        let manifest = manifest_of(name, path);
        let share = ShareId::from_digest(Digest::of(&manifest));
        let mut rogue = Rogue::start("rogue/1");
        rogue.wait(share, Trap::Manifest(manifest));
        let link = Link { share, hints: None }.to_string();
        let into = place.folder("out");
        let began = Instant::now();
        let fetch = place
            .shoal("home")
            .args(&["fetch", &link, "--dir"])
            .arg(&into);
        let outcome = fetch.local().args(&["--peer", &rogue.address]).run();
        assert_eq!(outcome.code, 7, "{outcome:?}");
        assert!(outcome.stderr.contains(reason), "{outcome:?}");
        assert!(began.elapsed() < PATIENCE / 3, "{:?}", began.elapsed());
        assert_eq!(fs::read_dir(&into).unwrap().count(), 0, "{path:?}");
    }
}

/// Text that would move, hide, forge or turn around what is shown.
const HOSTILE: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}\u{200b}\r\nforged\u{2028}x";

/// Everything but line ends and printable text is missing, and no line is a remote's.
#[track_caller]
fn assert_harmless(what: &str, text: &str) {
    let moves = |character: char| {
        (character.is_control() && character != '\n')
            || "\u{200b}\u{202e}\u{2028}".contains(character)
    };
    assert!(!text.contains(moves), "{what}: {text:?}");
    let forged = text.lines().find(|line| line.starts_with("forged"));
    assert_eq!(forged, None, "{what}: {text:?}");
}

#[test]
fn nothing_a_peer_says_reaches_terminal_or_log_as_it_came() {
    let _turn = turn();
    let place = Place::new();
    let folder = place.folder(&format!("set{HOSTILE}"));
    fs::write(folder.join(format!("name{HOSTILE}")), b"some bytes").unwrap();
    // What identify hears is in its log at this level alone.
    let log = "debug,libp2p_identify=trace";
    let shoal = place.shoal("home").arg("seed").arg(&folder).local();
    let mut seeder = shoal.env("SHOAL_LOG", log).spawn_json();
    let link = seeder.link();
    let victim = seeder.wait_for_type("listening")["addr"]
        .as_str()
        .unwrap()
        .to_owned();
    let share = share_of(&link);
    // Rogues with such a name: one that greets, one that does not even that properly.
    let mut rogue = Rogue::start(HOSTILE);
    rogue.attack(&victim, share, Attack::Requests);
    let ended = rogue.attack(&victim, share, Attack::LongAgent);
    rogue.wait(share, Trap::Mute);
    // The first still fits into a message of identify, the second does not.
    let agents = [3_000, 10_000].map(|len| HOSTILE.repeat(len / HOSTILE.len()));
    let _introduced = agents.map(|agent| introduce(&victim, &agent));
    let run = |home: &str, args: &[&str]| {
        let shoal = place.shoal(home).args(args).local();
        shoal.args(&["--peer", &rogue.address]).run()
    };
    let out = place.folder("out");
    let out = out.to_str().unwrap();
    let fetched = run(
        "other",
        &["fetch", &link, "--dir", out, "--linger", "0", "-vvv"],
    );
    assert_eq!(fetched.code, 0, "{fetched:?}");
    assert_harmless("log and events of a fetch", &fetched.stderr);
    assert!(
        fetched.stderr.contains("\\u{202e}"),
        "the names were there: {fetched:?}"
    );
    // What is left of the name of the program after the cut of identify.
    assert!(fetched.stderr.contains("owned"), "{fetched:?}");
    for args in [&["ls", &link, "--json"][..], &["ls", &link, "-v"]] {
        let listed = run("third", args);
        assert_eq!(listed.code, 0, "{listed:?}");
        assert_harmless("stderr of a list", &listed.stderr);
        if args.contains(&"--json") {
            assert_harmless("stdout of a list", &listed.stdout);
            assert!(listed.stdout.contains("\\u202e"), "{listed:?}");
        }
    }
    while ended.lasted().is_none() {
        assert!(
            ended.began.elapsed() < PATIENCE,
            "an agent of 10 kB is taken"
        );
        pause();
    }
    let read_log = || fs::read_to_string(place.path("stderr.log")).unwrap();
    let is_long_agent = |line: &str| line.matches("owned").count() > 50;
    let until = Instant::now() + PATIENCE;
    while !read_log().lines().any(is_long_agent) {
        assert!(Instant::now() < until, "an agent of 3 kB is not heard");
        pause();
    }
    seeder.signal("INT");
    seeder.wait();
    let log = read_log();
    assert!(log.contains("agent string too long"), "{log}");
    assert_harmless("log of the seeder", &log);
}
