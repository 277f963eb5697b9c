//! Which addresses go into a link, and how near an address is.
//!
//! Pure but for two questions to the system: its interfaces, and its routes, asked without sending a packet. Source:
//! `PROTOCOL.md` in `src/wire`, and the rules of links in `content/link.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::status::Via;
use crate::content::{LINK_ADDRESSES_MAX, Multiaddr};

/// The IP address at the front of `address`.
pub(super) fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().next().and_then(|part| match part {
        multiaddr::Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        multiaddr::Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}

/// How near the other end of a connection to `address` is.
pub(super) fn via_of(address: &Multiaddr) -> Via {
    match ip_of(address) {
        Some(ip) if ip.is_loopback() => Via::Local,
        Some(IpAddr::V4(ip)) if ip.is_private() || ip.is_link_local() => Via::Lan,
        Some(IpAddr::V6(ip)) if ip.is_unique_local() || ip.is_unicast_link_local() => Via::Lan,
        _ => Via::Direct,
    }
}

/// Whether the address stays on its own machine.
pub(super) fn is_loopback(address: &Multiaddr) -> bool {
    ip_of(address).is_some_and(|ip| ip.is_loopback())
}

/// The address without a `/p2p/` at its end.
pub(super) fn bare(address: &Multiaddr) -> Multiaddr {
    let is_peer = |part: &multiaddr::Protocol<'_>| matches!(part, multiaddr::Protocol::P2p(_));
    address.iter().filter(|part| !is_peer(part)).collect()
}

fn is_quic(address: &Multiaddr) -> bool {
    address
        .iter()
        .any(|part| part == multiaddr::Protocol::QuicV1)
}

/// Which interfaces this machine has, and which of its addresses leads out.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    /// Our own address on the default route of each family.
    pub(super) default_routes: Vec<IpAddr>,
    /// The interface of each of our addresses.
    pub(super) interfaces: BTreeMap<IpAddr, String>,
}

impl Machine {
    /// Looks now: interfaces come and go.
    pub(super) fn look() -> Self {
        let found = if_addrs::get_if_addrs().unwrap_or_default();
        let interfaces = found
            .into_iter()
            .map(|interface| (interface.ip(), interface.name));
        Self {
            default_routes: default_routes(),
            interfaces: interfaces.collect(),
        }
    }

    /// Whether an address is one of the networks that containers and virtual machines have on their host: others seldom
    /// reach it.
    fn is_inner(&self, ip: &IpAddr) -> bool {
        let inner = [
            "docker", "br-", "veth", "virbr", "cni", "flannel", "lxc", "podman",
        ];
        let interface = self.interfaces.get(ip);
        interface.is_some_and(|name| inner.iter().any(|prefix| name.starts_with(prefix)))
    }
}

/// How good an address is in a link; smaller is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    DefaultRoute,
    Ipv4,
    Ipv6,
    Inner,
    Loopback,
}

/// The addresses of a link, best first: of `listeners` (which may end in `/p2p/`) at most [`LINK_ADDRESSES_MAX`], one
/// for each interface and family, those of the default route first, loopback last, never IPv6 link-local. QUIC of the
/// first host stands before loopback where room is left: without TCP nobody would get there.
pub(super) fn for_link(listeners: &[Multiaddr], machine: &Machine) -> Vec<Multiaddr> {
    let ranked = |address: &Multiaddr| {
        let ip = ip_of(address)?;
        let rank = match ip {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => return None,
            ip if ip.is_unspecified() => return None,
            ip if ip.is_loopback() => Rank::Loopback,
            ip if machine.default_routes.contains(&ip) => Rank::DefaultRoute,
            ip if machine.is_inner(&ip) => Rank::Inner,
            IpAddr::V4(_) => Rank::Ipv4,
            IpAddr::V6(_) => Rank::Ipv6,
        };
        Some((rank, ip, bare(address)))
    };
    let (mut quic, mut tcp): (Vec<_>, Vec<_>) = listeners
        .iter()
        .filter_map(ranked)
        .partition(|(_, _, address)| is_quic(address));
    if tcp.is_empty() {
        // The user listens with QUIC alone.
        std::mem::swap(&mut quic, &mut tcp);
    }
    // Stable: within a rank the order of the system stays.
    tcp.sort_by_key(|(rank, ..)| *rank);
    quic.retain(|(rank, ..)| *rank != Rank::Loopback);
    quic.sort_by_key(|(rank, ..)| *rank);
    let mut networks: BTreeSet<(String, bool)> = BTreeSet::new();
    tcp.retain(|(rank, ip, _)| {
        // What is not known to share an interface stands for itself; loopback is one network for both families.
        let name = match rank {
            Rank::Loopback => "lo".to_owned(),
            _ => {
                let name = machine.interfaces.get(ip);
                name.cloned().unwrap_or_else(|| ip.to_string())
            }
        };
        networks.insert((name, ip.is_ipv6() && *rank != Rank::Loopback))
    });
    let loopback: Vec<Multiaddr> = tcp
        .iter()
        .filter(|(rank, ..)| *rank == Rank::Loopback)
        .map(|(_, _, address)| address.clone())
        .collect();
    let room = LINK_ADDRESSES_MAX - loopback.len();
    let mut addresses: Vec<Multiaddr> = tcp
        .into_iter()
        .filter(|(rank, ..)| *rank != Rank::Loopback)
        .map(|(_, _, address)| address)
        .take(room)
        .collect();
    let first = addresses.first().and_then(ip_of);
    let fallback = quic.into_iter().find(|(_, ip, _)| Some(*ip) == first);
    if addresses.len() < room {
        addresses.extend(fallback.map(|(_, _, address)| address));
    }
    addresses.extend(loopback);
    addresses
}

/// Our own addresses on the default routes. Connecting a UDP socket sends nothing; the system only
/// looks up its routes. The targets are documentation addresses (RFC 5737, RFC 3849).
fn default_routes() -> Vec<IpAddr> {
    let probes: [(SocketAddr, SocketAddr); 2] = [
        (
            (Ipv4Addr::UNSPECIFIED, 0).into(),
            (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
        ),
        (
            (Ipv6Addr::UNSPECIFIED, 0).into(),
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(),
        ),
    ];
    let route = |(local, target): (SocketAddr, SocketAddr)| {
        let socket = UdpSocket::bind(local).ok()?;
        socket.connect(target).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    probes.into_iter().filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect()
    }

    fn machine(default_route: &str, interfaces: &[(&str, &str)]) -> Machine {
        let ip = |text: &str| text.parse().expect("an IP address");
        Machine {
            default_routes: vec![ip(default_route)],
            interfaces: interfaces
                .iter()
                .map(|(address, name)| (ip(address), (*name).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn an_interface_has_one_address_of_each_family_and_inner_networks_come_late() {
        let listeners = addresses(&[
            "/ip4/172.17.0.1/tcp/1",
            "/ip4/10.0.0.7/tcp/1",
            "/ip4/10.0.0.8/tcp/1",
            "/ip6/2001:db8::7/tcp/1",
            "/ip6/2001:db8::8/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip6/::1/tcp/1",
        ]);
        let interfaces = [
            ("172.17.0.1", "docker0"),
            ("10.0.0.7", "eth0"),
            ("10.0.0.8", "eth0"),
            ("2001:db8::7", "eth0"),
            ("2001:db8::8", "eth0"),
        ];
        let chosen = for_link(&listeners, &machine("10.0.0.8", &interfaces));
        let expected = [
            "/ip4/10.0.0.8/tcp/1",
            "/ip6/2001:db8::7/tcp/1",
            "/ip4/172.17.0.1/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
        ];
        assert_eq!(chosen, addresses(&expected));
    }

    #[test]
    fn quic_of_the_first_host_takes_what_room_is_left() {
        let mut listeners = addresses(&[
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/127.0.0.1/udp/1/quic-v1",
            "/ip4/10.0.0.7/tcp/1",
            "/ip4/10.0.0.7/udp/1/quic-v1",
            "/ip4/192.168.1.7/udp/1/quic-v1",
            "/ip4/192.168.1.7/tcp/1",
        ]);
        let chosen = for_link(&listeners, &machine("192.168.1.7", &[]));
        let expected = [
            "/ip4/192.168.1.7/tcp/1",
            "/ip4/10.0.0.7/tcp/1",
            "/ip4/192.168.1.7/udp/1/quic-v1",
            "/ip4/127.0.0.1/tcp/1",
        ];
        assert_eq!(chosen, addresses(&expected));
        let more = (1..9).map(|host| format!("/ip4/10.9.{host}.1/tcp/1"));
        listeners.extend(more.map(|text| text.parse::<Multiaddr>().expect("an address")));
        let chosen = for_link(&listeners, &machine("192.168.1.7", &[]));
        assert_eq!(chosen.len(), LINK_ADDRESSES_MAX);
        assert!(!chosen.iter().any(is_quic));
    }

    #[test]
    fn the_default_route_comes_first_loopback_last_and_link_local_never() {
        let listeners = addresses(&[
            "/ip4/127.0.0.1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip4/10.0.0.7/tcp/1",
            "/ip4/192.168.1.7/tcp/1",
            "/ip6/2001:db8::7/tcp/1",
        ]);
        let chosen = for_link(&listeners, &machine("192.168.1.7", &[]));
        let expected = [
            "/ip4/192.168.1.7/tcp/1",
            "/ip4/10.0.0.7/tcp/1",
            "/ip6/2001:db8::7/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
        ];
        assert_eq!(chosen, addresses(&expected));
    }

    #[test]
    fn many_interfaces_leave_room_for_loopback() {
        let texts: Vec<String> = (1..30)
            .map(|host| format!("/ip4/10.0.{host}.1/tcp/9"))
            .collect();
        let mut listeners: Vec<Multiaddr> = texts
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect();
        listeners.insert(0, "/ip4/127.0.0.1/tcp/9".parse().expect("an address"));
        let chosen = for_link(&listeners, &Machine::default());
        assert_eq!(chosen.len(), LINK_ADDRESSES_MAX);
        assert_eq!(chosen.last(), listeners.first());
    }

    #[test]
    fn nearness_is_read_from_the_address() {
        let cases = [
            ("/ip4/127.0.0.1/tcp/1", Via::Local),
            ("/ip6/::1/tcp/1", Via::Local),
            ("/ip4/192.168.0.3/tcp/1", Via::Lan),
            ("/ip6/fd00::3/tcp/1", Via::Lan),
            ("/ip4/203.0.113.9/tcp/1", Via::Direct),
        ];
        for (text, via) in cases {
            assert_eq!(via_of(&text.parse().expect("an address")), via, "{text}");
        }
    }
}
