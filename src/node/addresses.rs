//! Which addresses go into a link, and how near an address is.
//!
//! Pure but for one question to the routing table, asked without sending a packet. Source:
//! `PROTOCOL.md` in `src/wire`, and the rules of links in `content/link.rs`.

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

/// The addresses of a link, best first: of `listeners` (which may end in `/p2p/`) at most
/// [`LINK_ADDRESSES_MAX`], those of the default route first, loopback last, never IPv6 link-local.
pub(super) fn for_link(listeners: &[Multiaddr], default_routes: &[IpAddr]) -> Vec<Multiaddr> {
    let mut ranked: Vec<(u8, Multiaddr)> = listeners
        .iter()
        .filter_map(|address| {
            let ip = ip_of(address)?;
            let rank = match ip {
                IpAddr::V6(ip) if ip.is_unicast_link_local() => return None,
                ip if ip.is_unspecified() => return None,
                ip if ip.is_loopback() => 3,
                ip if default_routes.contains(&ip) => 0,
                IpAddr::V4(_) => 1,
                IpAddr::V6(_) => 2,
            };
            let bare = address
                .iter()
                .filter(|part| !matches!(part, multiaddr::Protocol::P2p(_)))
                .collect();
            Some((rank, bare))
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.dedup();
    let mut addresses: Vec<Multiaddr> = Vec::new();
    let loopback = ranked.iter().filter(|(rank, _)| *rank == 3).count().min(1);
    for (rank, address) in ranked {
        let room = LINK_ADDRESSES_MAX - if rank == 3 { 0 } else { loopback };
        if addresses.len() < room && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// Our own addresses on the default routes. Connecting a UDP socket sends nothing; the system only
/// looks up its routes. The targets are documentation addresses (RFC 5737, RFC 3849).
pub(super) fn default_routes() -> Vec<IpAddr> {
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

    #[test]
    fn the_default_route_comes_first_loopback_last_and_link_local_never() {
        let listeners = addresses(&[
            "/ip4/127.0.0.1/tcp/1",
            "/ip6/fe80::1/tcp/1",
            "/ip4/10.0.0.7/tcp/1",
            "/ip4/192.168.1.7/tcp/1",
            "/ip6/2001:db8::7/tcp/1",
        ]);
        let chosen = for_link(&listeners, &["192.168.1.7".parse().expect("an address")]);
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
        let chosen = for_link(&listeners, &[]);
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
