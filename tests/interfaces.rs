//! Interfaces that come and go, and more of them than one message has room for. In network namespaces, as root; elsewhere
//! skipped.

use std::fs;
use std::time::Instant;

use serde_json::Value;

use crate::discovery::{address_of, assert_fetched, first_byte, in_namespace, share_of, text};
use crate::support::net::Net;
use crate::support::{PATIENCE, Place, pause, turn};

const MIB: usize = 1 << 20;

/// What the process with the first identity of a home shows others of that home.
fn live_record(place: &Place, home: &str) -> String {
    let hosts = fs::read_dir(place.path(home).join("hosts")).unwrap();
    let host = hosts.map(|host| host.unwrap().path()).next().unwrap();
    fs::read_to_string(host.join("pool/00/live")).unwrap_or_default()
}

#[test]
fn an_interface_that_comes_or_goes_is_told_to_others_of_the_home() {
    let _turn = turn();
    let Some(net) = Net::new("an_interface_that_comes_or_goes_is_told_to_others_of_the_home")
    else {
        return;
    };
    let place = Place::new();
    let machine = net.namespace();
    let mut node = in_namespace(&place, &machine, "home", &["node"]);
    assert!(address_of(&mut node).starts_with("/ip4/127.0.0.1/"));
    let await_record = |has_address: bool| {
        let until = Instant::now() + PATIENCE;
        while live_record(&place, "home").contains("/ip4/10.79.1.1/tcp/") != has_address {
            assert!(Instant::now() < until, "{}", live_record(&place, "home"));
            pause();
        }
    };
    await_record(false);
    let interface = net.dummy(&machine, "10.79.1.1/24");
    await_record(true);
    node.wait_for("the new address", |line| {
        line["addr"]
            .as_str()
            .is_some_and(|addr| addr.starts_with("/ip4/10.79.1.1/tcp/"))
    });
    net.cut(&machine, &interface);
    await_record(false);
    assert!(live_record(&place, "home").contains("/ip4/127.0.0.1/tcp/"));
}

#[test]
fn a_meeting_point_with_sixty_interfaces_serves_the_dht() {
    let _turn = turn();
    let name = "a_meeting_point_with_sixty_interfaces_serves_the_dht";
    let Some(net) = Net::new(name) else { return };
    let place = Place::new();
    let file = place.file("data.bin", MIB);
    let machine = net.namespace();
    for index in 0..60 {
        let interface = net.dummy(&machine, &format!("10.80.{index}.1/24"));
        let address = format!("2001:db8:80:{index}::1/64");
        machine.ip(&["address", "add", &address, "dev", &interface]);
    }
    // The way to the others comes last in every list of the system.
    let other = net.namespace();
    net.join(&machine, &other, "10.81.0.1/24", "10.81.0.2/24");
    machine.ip(&["route", "add", "default", "via", "10.81.0.2"]);
    let mut node = in_namespace(&place, &machine, "home-n", &["node", "--no-mdns"]);
    let is_way_in = |line: &Value| {
        let addr = line["addr"].as_str();
        addr.is_some_and(|addr| addr.starts_with("/ip4/10.81.0.1/tcp/"))
    };
    let known = text(&node.wait_for("an address", is_way_in).1, "addr");
    let path = file.to_str().unwrap().to_owned();
    let args = ["seed", &path, "--no-mdns", "--peer", &known];
    let mut seeder = in_namespace(&place, &other, "home-s", &args);
    let share = share_of(&mut seeder);
    let into = place.folder("out");
    let args = [
        "fetch",
        &share,
        "--dir",
        "out",
        "--linger",
        "0",
        "--no-mdns",
        "--peer",
        &known,
    ];
    let began = Instant::now();
    let mut fetcher = in_namespace(&place, &other, "home-f", &args);
    let took = first_byte(&mut fetcher) - began;
    eprintln!("through a node with 60 interfaces: first byte after {took:?}");
    assert_fetched(&mut fetcher, &into, &file);
}
