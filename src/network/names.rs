//! Addresses that name a host, `/dns4`, `/dns6` and `/dns`: what they stand for now, as the system's resolver says.
//!
//! Only for addresses that the user gave or a link holds: those that peers tell are numbers. It dials nobody. Called by
//! [`super::NetworkHandle::open_session`] before the driver hears of an address, so that nothing else meets a name.
//! Source: libp2p addressing specification; getaddrinfo(3).

use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::dial_error::DialFailure;

/// How long one name may take: a resolver asks a second server after five seconds, but nobody waits for a third.
const LOOKUP_MAX: Duration = Duration::from_secs(6);

/// Addresses taken of one name.
const ADDRESSES_PER_NAME_MAX: usize = 4;

/// Names looked up for one session; the rest are not.
const NAMES_MAX: usize = 8;

/// Which addresses of a host an address means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
    Any,
}

impl Family {
    fn has(self, ip: &IpAddr) -> bool {
        match self {
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
            Self::Any => true,
        }
    }
}

/// The host that an address names.
fn name_of(address: &Multiaddr) -> Option<(String, Family)> {
    match address.iter().next()? {
        Protocol::Dns4(name) => Some((name.into_owned(), Family::V4)),
        Protocol::Dns6(name) => Some((name.into_owned(), Family::V6)),
        Protocol::Dns(name) => Some((name.into_owned(), Family::Any)),
        _ => None,
    }
}

/// Parts the addresses that name a host from those that can be dialled as they are.
pub(super) fn part(addresses: Vec<Multiaddr>) -> (Vec<Multiaddr>, Vec<Multiaddr>) {
    let is_named = |address: &Multiaddr| name_of(address).is_some();
    addresses.into_iter().partition(is_named)
}

/// What was found, and why the rest was not.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) addresses: Vec<Multiaddr>,
    pub(super) failed: Vec<(Multiaddr, DialFailure)>,
}

/// Looks all names up at once; ends within [`LOOKUP_MAX`].
pub(super) async fn look_up(named: Vec<Multiaddr>) -> Found {
    let mut found = Found::default();
    let asked = named.into_iter().take(NAMES_MAX).map(|address| async {
        let answer = look_one_up(&address).await;
        (address, answer)
    });
    for (address, answer) in join_all(asked).await {
        match answer {
            Ok(addresses) => found.addresses.extend(addresses),
            Err(failure) => found.failed.push((address, failure)),
        }
    }
    found
}

async fn look_one_up(address: &Multiaddr) -> Result<Vec<Multiaddr>, DialFailure> {
    let no_host = |reason: &str| DialFailure::NoSuchHost {
        reason: reason.to_owned(),
    };
    let Some((name, family)) = name_of(address) else {
        return Err(no_host("not a name"));
    };
    let asked = tokio::net::lookup_host((name, 0));
    let answer = match tokio::time::timeout(LOOKUP_MAX, asked).await {
        Ok(Ok(answer)) => answer,
        // "failed to lookup address information: Name or service not known": the last part says it.
        Ok(Err(error)) => {
            let text = error.to_string();
            return Err(no_host(text.rsplit(": ").next().unwrap_or(&text)));
        }
        Err(_) => return Err(no_host("the name server does not answer")),
    };
    let mut ips: Vec<IpAddr> = Vec::new();
    for ip in answer.map(|socket| socket.ip()) {
        if family.has(&ip) && !ips.contains(&ip) && ips.len() < ADDRESSES_PER_NAME_MAX {
            ips.push(ip);
        }
    }
    if ips.is_empty() {
        return Err(no_host("no address of that kind"));
    }
    let with = |ip: IpAddr| -> Multiaddr {
        let first = Multiaddr::from(ip);
        first.iter().chain(address.iter().skip(1)).collect()
    };
    Ok(ips.into_iter().map(with).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_addresses_that_begin_with_a_name_are_looked_up() {
        let named = [
            "/dns4/a.example/tcp/1",
            "/dns6/a/tcp/1",
            "/dns/a/udp/1/quic-v1",
        ];
        let plain = [
            "/ip4/10.0.0.1/tcp/1",
            "/ip6/::1/tcp/1",
            "/dnsaddr/a.example",
        ];
        let all = addresses(&[&named[..], &plain[..]].concat());
        assert_eq!(part(all), (addresses(&named), addresses(&plain)));
    }

    #[tokio::test]
    async fn localhost_is_this_machine_and_the_rest_of_the_address_stays() {
        let peer = libp2p::PeerId::random();
        let quic = format!("/dns/localhost/udp/7/quic-v1/p2p/{peer}");
        let found = look_up(addresses(&["/dns4/localhost/tcp/7", &quic])).await;
        assert_eq!(found.failed, []);
        let loopback = format!("/ip4/127.0.0.1/udp/7/quic-v1/p2p/{peer}");
        for expected in addresses(&["/ip4/127.0.0.1/tcp/7", &loopback]) {
            assert!(found.addresses.contains(&expected), "{found:?}");
        }
    }

    #[tokio::test]
    async fn a_name_nobody_has_says_so() {
        let long = format!("/dns4/{}/tcp/1", "x".repeat(300));
        // Nobody may ever register the first (RFC 6761).
        let wrong = addresses(&["/dns4/nobody.invalid/tcp/1", &long]);
        let found = look_up(wrong.clone()).await;
        assert_eq!(found.addresses, []);
        for (address, (named, failure)) in wrong.iter().zip(&found.failed) {
            assert_eq!(named, address);
            assert!(
                failure.to_string().starts_with("no such host ("),
                "{failure}"
            );
        }
        assert_eq!(found.failed.len(), wrong.len());
    }
}
