//! Who gives way when there are too many: connections, and handshakes under way.
//!
//! Whoever begins more of them than others from one network makes room for the next one itself, so that a stranger who
//! holds them by the hundred keeps nobody else out. Pure. Used by `streams` and `transport`.
//! Source: Heilman et al., "Eclipse Attacks on Bitcoin's Peer-to-Peer Network" (2015): eviction by network group.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Of those `held`, each with where it comes from and a number that is greater the later it came: the oldest of the
/// subnet with most of them. `None` when there are none.
pub(super) fn gives_way<K: Ord + Copy>(held: impl IntoIterator<Item = (IpAddr, K)>) -> Option<K> {
    let mut subnets: BTreeMap<IpAddr, (usize, K)> = BTreeMap::new();
    for (ip, key) in held {
        let (count, oldest) = subnets.entry(subnet(ip)).or_insert((0, key));
        *count += 1;
        *oldest = key.min(*oldest);
    }
    let most = subnets
        .into_values()
        .max_by_key(|(count, oldest)| (*count, Reverse(*oldest)));
    most.map(|(_, oldest)| oldest)
}

/// The /24 or /48 that an address is in: about what one owner has.
pub(super) fn subnet(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(ip) => {
            let [a, b, c, ..] = ip.segments();
            IpAddr::from([a, b, c, 0, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(held: &[(&str, u32)]) -> Option<u32> {
        let held = held.iter().map(|(ip, number)| {
            let ip: IpAddr = ip.parse().expect("an address");
            (ip, *number)
        });
        gives_way(held)
    }

    #[test]
    fn the_oldest_of_the_most_numerous_subnet_gives_way() {
        let held = [
            ("192.0.2.1", 1),
            ("203.0.113.7", 4),
            ("203.0.113.200", 2),
            ("203.0.112.7", 3),
        ];
        assert_eq!(chosen(&held), Some(2));
    }

    #[test]
    fn between_equally_many_it_is_the_oldest_of_all() {
        let held = [("192.0.2.1", 5), ("198.51.100.1", 3), ("203.0.113.7", 4)];
        assert_eq!(chosen(&held), Some(3));
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn an_owner_of_ipv6_is_one_however_many_addresses_it_takes() {
        let held = [
            ("2001:db8:1:2::3", 7),
            ("2001:db8:2::1", 6),
            ("2001:db8:1:ffff::4", 8),
            // One and the same network in two notations.
            ("::ffff:192.0.2.1", 9),
        ];
        assert_eq!(chosen(&held), Some(7));
        let notations = [
            ("::ffff:192.0.2.1", 9),
            ("192.0.2.2", 10),
            ("2001:db8::1", 1),
        ];
        assert_eq!(chosen(&notations), Some(9));
    }
}
