//! How peers find each other, with real processes: `shoal node`, peer exchange, multicast, IPv6, many interfaces.
//!
//! What needs more than loopback runs in network namespaces, as root; elsewhere those tests are skipped and say so.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::net::{Namespace, Net};
use crate::support::{Place, Process, assert_same, turn};

const MIB: usize = 1 << 20;

/// From the start of a fetch to its first byte on a LAN, without any flag: promised 2 s.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(2);

/// Characters of a link, however many interfaces the machine has.
const LINK_LEN_MAX: usize = 900;

pub fn address_of(process: &mut Process) -> String {
    text(&process.wait_for_type("listening"), "addr")
}

pub fn text(line: &Value, field: &str) -> String {
    line[field].as_str().unwrap().to_owned()
}

fn peer_of(process: &mut Process) -> String {
    address_of(process).rsplit('/').next().unwrap().to_owned()
}

pub fn share_of(seeder: &mut Process) -> String {
    text(&seeder.wait_for_type("link"), "share")
}

/// The process ends well and what it fetched is `file`.
pub fn assert_fetched(fetcher: &mut Process, into: &Path, file: &Path) {
    assert_eq!(fetcher.wait(), 0, "{:?}", fetcher.seen.last());
    let name = file.file_name().unwrap();
    assert_same(into.join(name), file);
}

/// When the first byte was here, by the lines of progress.
pub fn first_byte(fetcher: &mut Process) -> Instant {
    let has_bytes = |line: &Value| match line["type"].as_str() {
        Some("progress") => line["phase"] == "fetch" && line["bytes"].as_u64() > Some(0),
        kind => kind == Some("done"),
    };
    fetcher.wait_for("first byte", has_bytes).0
}

#[test]
fn a_node_prints_its_addresses_and_ends_with_the_signal_or_its_time() {
    let _turn = turn();
    let place = Place::new();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut node = place.shoal("home").arg("node").local().spawn_json();
        let address = address_of(&mut node);
        assert!(
            address.starts_with("/ip4/127.0.0.1/tcp/") && address.contains("/p2p/"),
            "{address}"
        );
        node.signal(signal);
        assert_eq!(node.wait(), code);
        assert_eq!(text(&node.wait_for_type("stopped"), "reason"), "signal");
    }
    let outcome = place
        .shoal("home")
        .args(&["node", "--for", "1s"])
        .local()
        .run();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let printed: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(printed.len(), 2, "TCP and QUIC: {printed:?}");
    assert!(
        printed[0].contains("/tcp/") && printed[1].contains("/quic-v1/"),
        "{printed:?}"
    );
    assert!(!outcome.stderr.contains("bootstrap"), "{}", outcome.stderr);
}

#[test]
fn a_bare_id_is_found_through_a_node_without_a_share() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", MIB);
    let mut node = place.shoal("home-n").arg("node").local().spawn_json();
    let address = address_of(&mut node);
    let mut seeder = place
        .shoal("home-s")
        .arg("seed")
        .arg(&file)
        .local()
        .args(&["--peer", &address])
        .spawn_json();
    let share = share_of(&mut seeder);
    let into = place.folder("out");
    let mut fetcher = place
        .shoal("home-f")
        .args(&[
            "fetch", &share, "--dir", "out", "--linger", "0", "--peer", &address,
        ])
        .local()
        .spawn_json();
    assert_fetched(&mut fetcher, &into, &file);
}

#[test]
fn receivers_of_one_share_find_each_other_by_peer_exchange_alone() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 12 * MIB);
    let alone = ["--no-dht", "--up", "3M"];
    let mut seeder = place
        .shoal("home-s")
        .arg("seed")
        .arg(&file)
        .local()
        .args(&alone)
        .spawn_json();
    let link = seeder.link();
    let outs = ["a", "b", "c"].map(|name| place.folder(name));
    let mut fetchers = ["a", "b", "c"].map(|name| {
        place
            .shoal(&format!("home-{name}"))
            .args(&["fetch", &link, "--dir", name, "--linger", "2s"])
            .local()
            .args(&alone)
            .spawn_json()
    });
    let ids: Vec<String> = fetchers.iter_mut().map(peer_of).collect();
    for (index, fetcher) in fetchers.iter_mut().enumerate() {
        for other in ids.iter().filter(|id| **id != ids[index]) {
            let is_other = |line: &Value| line["type"] == "peer" && line["peer"] == **other;
            fetcher.wait_for("the other receivers", is_other);
        }
    }
    for (fetcher, out) in fetchers.iter_mut().zip(&outs) {
        assert_fetched(fetcher, out, &file);
    }
    let given: u64 = fetchers
        .iter_mut()
        .map(|fetcher| fetcher.wait_for_type("done")["uploaded"].as_u64().unwrap())
        .sum();
    assert!(
        given >= 4 * MIB as u64,
        "receivers gave each other {given} bytes"
    );
}

#[test]
fn a_share_is_fetched_over_ipv6_loopback() {
    let _turn = turn();
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return crate::support::skip("a_share_is_fetched_over_ipv6_loopback", "no IPv6 here");
    }
    let place = Place::new();
    let file = place.file("data.bin", 3 * MIB);
    let only = [
        "--listen",
        "/ip6/::1/tcp/0",
        "--no-mdns",
        "--no-dht",
        "--home",
    ];
    let mut seeder = place
        .shoal("-")
        .arg("seed")
        .arg(&file)
        .args(&only)
        .arg(place.path("s"))
        .spawn_json();
    let link = seeder.link();
    let into = place.folder("out");
    let mut fetcher = place
        .shoal("-")
        .args(&["fetch", &link, "--dir", "out", "--linger", "0"])
        .args(&only)
        .arg(place.path("f"))
        .spawn_json();
    assert_fetched(&mut fetcher, &into, &file);
    let peer = fetcher.wait_for_type("peer");
    assert!(text(&peer, "addr").starts_with("/ip6/::1/tcp/"), "{peer}");
}

/// `shoal` in a namespace with a home of its own and no flag that would help it.
pub fn in_namespace(place: &Place, namespace: &Namespace, home: &str, args: &[&str]) -> Process {
    place
        .shoal_through(namespace.command(), home)
        .args(args)
        .arg("--home")
        .arg(place.path(home))
        .spawn_json()
}

#[test]
fn two_machines_on_a_wire_find_each_other_without_any_flag() {
    let _turn = turn();
    let Some(net) = Net::new("two_machines_on_a_wire_find_each_other_without_any_flag") else {
        return;
    };
    let place = Place::new();
    let file = place.file("data.bin", 4 * MIB);
    let (left, right) = (net.namespace(), net.namespace());
    net.join(&left, &right, "10.77.1.1/24", "10.77.1.2/24");
    let path = file.to_str().unwrap().to_owned();
    let mut seeder = in_namespace(&place, &left, "home-s", &["seed", &path]);
    let share = share_of(&mut seeder);
    for round in 0..3 {
        let out = format!("out-{round}");
        let into = place.folder(&out);
        let began = Instant::now();
        let home = format!("home-{round}");
        let args = ["fetch", &share, "--dir", &out, "--linger", "0"];
        let mut fetcher = in_namespace(&place, &right, &home, &args);
        let took = first_byte(&mut fetcher) - began;
        assert!(took < FIRST_BYTE_MAX, "first byte after {took:?}");
        assert_fetched(&mut fetcher, &into, &file);
        let peer = fetcher.wait_for_type("peer");
        assert_eq!(peer["via"], "lan", "{peer}");
        eprintln!("bare id over multicast: first byte after {took:?}");
    }
}

#[test]
fn two_machines_with_ipv6_only_find_each_other() {
    let _turn = turn();
    let Some(net) = Net::new("two_machines_with_ipv6_only_find_each_other") else {
        return;
    };
    let place = Place::new();
    let file = place.file("data.bin", 4 * MIB);
    let (left, right) = (net.namespace(), net.namespace());
    net.join(&left, &right, "fd77::1/64", "fd77::2/64");
    let path = file.to_str().unwrap().to_owned();
    let mut seeder = in_namespace(&place, &left, "home-s", &["seed", &path]);
    let (link, share) = (seeder.link(), share_of(&mut seeder));
    for (name, what, flag) in [("link", &link, "--no-mdns"), ("bare", &share, "--no-dht")] {
        let into = place.folder(name);
        let args = ["fetch", what, "--dir", name, "--linger", "0", flag];
        let began = Instant::now();
        let mut fetcher = in_namespace(&place, &right, &format!("home-{name}"), &args);
        let took = first_byte(&mut fetcher) - began;
        eprintln!("IPv6 only, by {name}: first byte after {took:?}");
        assert_fetched(&mut fetcher, &into, &file);
        let peer = fetcher.wait_for_type("peer");
        assert!(text(&peer, "addr").starts_with("/ip6/fd77::1/"), "{peer}");
    }
}

#[test]
fn the_link_of_a_machine_with_fifteen_interfaces_is_short_and_works_from_each_network() {
    let _turn = turn();
    let name = "the_link_of_a_machine_with_fifteen_interfaces_is_short_and_works_from_each_network";
    let Some(net) = Net::new(name) else { return };
    let place = Place::new();
    let file = place.file("data.bin", MIB);
    let machine = net.namespace();
    for index in 0..11 {
        net.dummy(&machine, &format!("10.78.{index}.1/24"));
    }
    // On the last ones, which the link has no room for, stand others.
    let others: Vec<Namespace> = (11..15)
        .map(|index| {
            let other = net.namespace();
            let (here, there) = (format!("10.78.{index}.1/24"), format!("10.78.{index}.2/24"));
            net.join(&machine, &other, &here, &there);
            other
        })
        .collect();
    let path = file.to_str().unwrap().to_owned();
    let mut seeder = in_namespace(&place, &machine, "home-s", &["seed", &path]);
    let link = seeder.link();
    assert!(link.len() < LINK_LEN_MAX, "{} characters", link.len());
    eprintln!("link of 15 interfaces: {} characters", link.len());
    for (index, other) in others.iter().enumerate() {
        let out = format!("out-{index}");
        let into = place.folder(&out);
        let args = ["fetch", &link, "--dir", &out, "--linger", "0"];
        let mut fetcher = in_namespace(&place, other, &format!("home-{index}"), &args);
        assert_fetched(&mut fetcher, &into, &file);
    }
}

#[test]
fn an_error_names_every_address_and_what_happened_there() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 1000);
    let mut seeder = place
        .shoal("home-s")
        .arg("seed")
        .arg(&file)
        .local()
        .spawn_json();
    let link = seeder.link();
    let address = address_of(&mut seeder);
    seeder.kill();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("/ip4/127.0.0.1/tcp/{}", silent.local_addr().unwrap().port());
    let mut other = place.shoal("home-o").arg("node").local().spawn_json();
    let other = address_of(&mut other)
        .rsplit_once("/p2p/")
        .unwrap()
        .0
        .to_owned();
    let outcome = place
        .shoal("home-f")
        .args(&["fetch", &link, "--timeout", "10s", "--no-dht"])
        .args(&[
            "--peer",
            &silent,
            "--peer",
            &format!("{other}{}", &address[address.find("/p2p/").unwrap()..]),
        ])
        .local()
        .run();
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    let bare = address.rsplit_once("/p2p/").unwrap().0;
    for (address, what) in [
        (bare, "refused"),
        (silent.as_str(), "timeout"),
        (other.as_str(), "wrong peer"),
    ] {
        let is_told = |line: &str| line.contains(address) && line.contains(what);
        assert!(
            outcome.stderr.lines().any(is_told),
            "{address} {what}: {}",
            outcome.stderr
        );
    }
}

#[test]
fn a_peer_is_reached_at_a_host_name_and_a_name_nobody_has_is_told() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 1000);
    let mut seeder = place
        .shoal("home-s")
        .arg("seed")
        .arg(&file)
        .local()
        .spawn_json();
    let share = share_of(&mut seeder);
    let address = address_of(&mut seeder);
    for (name, bare) in [("dns4", true), ("dns", false)] {
        let named = address.replace("/ip4/127.0.0.1/", &format!("/{name}/localhost/"));
        let named = match bare {
            true => named.split_once("/p2p/").unwrap().0.to_owned(),
            false => named,
        };
        let into = place.folder(name);
        let home = format!("home-{name}");
        let args = ["fetch", &share, "--dir", name, "--linger", "0", "--no-dht"];
        let fetcher = place.shoal(&home).args(&args).local();
        let mut fetcher = fetcher.args(&["--peer", &named]).spawn_json();
        assert_fetched(&mut fetcher, &into, &file);
    }
    let wrong = "/dns4/nobody.invalid/tcp/4001";
    let outcome = place
        .shoal("home-w")
        .args(&[
            "fetch",
            &share,
            "--timeout",
            "8s",
            "--no-dht",
            "--peer",
            wrong,
        ])
        .local()
        .run();
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    let is_told = |line: &str| line.contains(wrong) && line.contains("no such host");
    assert!(outcome.stderr.lines().any(is_told), "{}", outcome.stderr);
}

#[test]
fn a_node_that_is_named_and_in_the_link_is_no_two_nodes() {
    let _turn = turn();
    let place = Place::new();
    let file = place.file("data.bin", 1 << 20);
    let (mut seeder, link) = crate::support::seed(&place, "home", &file, &[]);
    let addr = seeder.wait_for_type("listening")["addr"]
        .as_str()
        .unwrap()
        .to_owned();
    let bare = addr.split("/p2p/").next().unwrap();
    for (number, named) in [bare, bare, &addr, bare].iter().enumerate() {
        let into = place.path(&format!("into-{number}"));
        let home = format!("other-{number}");
        let began = Instant::now();
        let mut fetcher = crate::support::fetch(
            &place,
            &home,
            &link,
            &into,
            &["--peer", named, "--linger", "0"],
        );
        assert_eq!(fetcher.wait(), 0);
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
    }
}
