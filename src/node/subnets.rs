//! Which addresses are near: on this machine, or in a subnet that one of its interfaces is in.
//!
//! Asks the system for its interfaces and nothing else. Called by `hub`; the engine prefers near candidates.
//! Source: RFC 4632 (prefixes of IPv4), RFC 4291 (prefixes of IPv6).

use std::net::IpAddr;

use super::addresses::ip_of;
use crate::content::Multiaddr;

/// Prefixes shorter than these are no neighbourhood: the default route of a tunnel has a prefix of 0.
const PREFIX_MIN_V4: u8 = 8;
const PREFIX_MIN_V6: u8 = 32;

/// Subnets of this machine.
#[derive(Debug, Default)]
pub(super) struct Subnets(Vec<(IpAddr, u8)>);

impl Subnets {
    /// Looks now.
    pub(super) fn look() -> Self {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
        let subnet = |interface: if_addrs::Interface| match interface.addr {
            if_addrs::IfAddr::V4(of) => (IpAddr::V4(of.ip), of.prefixlen),
            if_addrs::IfAddr::V6(of) => (IpAddr::V6(of.ip), of.prefixlen),
        };
        Self(interfaces.into_iter().map(subnet).collect())
    }

    /// Whether `address` begins with an IP address of this machine or of a subnet of it.
    pub(super) fn contain(&self, address: &Multiaddr) -> bool {
        let Some(ip) = ip_of(address) else {
            return false;
        };
        let holds = |(of, prefix): &(IpAddr, u8)| is_within(ip, *of, *prefix);
        ip.is_loopback() || self.0.iter().any(holds)
    }
}

/// Whether `ip` and `of` have their first `prefix` bits in common, and the prefix is long enough.
fn is_within(ip: IpAddr, of: IpAddr, prefix: u8) -> bool {
    let prefix_bits = u32::from(prefix);
    match (ip, of) {
        (IpAddr::V4(ip), IpAddr::V4(of)) => {
            let differing = ip.to_bits() ^ of.to_bits();
            prefix >= PREFIX_MIN_V4 && differing.leading_zeros() >= prefix_bits
        }
        (IpAddr::V6(ip), IpAddr::V6(of)) => {
            let differing = ip.to_bits() ^ of.to_bits();
            prefix >= PREFIX_MIN_V6 && differing.leading_zeros() >= prefix_bits
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_what_shares_a_prefix_with_an_interface() {
        let ip = |text: &str| text.parse().expect("an IP address");
        let subnets = Subnets(vec![
            (ip("192.168.4.7"), 22),
            (ip("10.8.0.2"), 32),
            (ip("100.64.0.1"), 0),
            (ip("2001:db8:1::7"), 64),
        ]);
        let cases = [
            ("/ip4/192.168.7.254/tcp/1", true),
            ("/ip4/192.168.8.1/tcp/1", false),
            ("/ip4/10.8.0.2/udp/1/quic-v1", true),
            ("/ip4/10.8.0.3/tcp/1", false),
            ("/ip4/203.0.113.9/tcp/1", false),
            ("/ip4/127.0.0.9/tcp/1", true),
            ("/ip6/2001:db8:1::9/tcp/1", true),
            ("/ip6/2001:db8:1:1::9/tcp/1", false),
            ("/dns4/example.org/tcp/1", false),
        ];
        for (text, near) in cases {
            let address = text.parse().expect("an address");
            assert_eq!(subnets.contain(&address), near, "{text}");
        }
    }

    #[test]
    fn this_machine_is_near_itself() {
        let subnets = Subnets::look();
        for (ip, _) in &subnets.0 {
            assert!(subnets.contain(&Multiaddr::from(*ip)), "{ip}");
        }
    }
}
