//! Which addresses we keep, offer and dial, and the bounded book of those known for each peer.
//! It never dials and never judges a peer; an address is a hint until a handshake proved it. Used by `driver`,
//! `streams` (which answers libp2p's question for addresses from the book) and `transport`.
//! Source: RFC 6890 (special-purpose addresses), RFC 4291 (IPv6), libp2p addressing specification.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};

/// Addresses kept for one peer. More only delays a failing dial; fewer lose a second interface.
pub(super) const ADDRESSES_PER_PEER_MAX: usize = 8;

/// Claimed addresses looked at: a message of libp2p holds a few hundred.
const CLAIMED_MAX: usize = 256;

/// Peers in the book: about 4 MiB when full. The one not heard of for longest makes room.
pub(super) const PEERS_MAX: usize = 4096;

/// What carries a connection to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Carrier {
    /// `/tcp/..`: dialled first, since a dead peer is noticed at once.
    Tcp,
    /// `/udp/../quic-v1`: what remains where TCP does not pass.
    Quic,
}

/// Carrier, IP address and port of `/ip4|ip6/../tcp/..` or `/ip4|ip6/../udp/../quic-v1`, with or without a final
/// `/p2p/`; `None` for anything else.
pub(super) fn endpoint(address: &Multiaddr) -> Option<(Carrier, SocketAddr)> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    let (carrier, port) = match parts.next()? {
        Protocol::Tcp(port) => (Carrier::Tcp, port),
        Protocol::Udp(port) if parts.next() == Some(Protocol::QuicV1) => (Carrier::Quic, port),
        _ => return None,
    };
    match (parts.next(), parts.next()) {
        (None | Some(Protocol::P2p(_)), None) => Some((carrier, SocketAddr::new(ip, port))),
        _ => None,
    }
}

/// The address of an [`endpoint`], without `/p2p/`.
pub(super) fn multiaddr((carrier, socket): (Carrier, SocketAddr)) -> Multiaddr {
    match carrier {
        Carrier::Tcp => Multiaddr::from(socket.ip()).with(Protocol::Tcp(socket.port())),
        Carrier::Quic => quic_beside(socket),
    }
}

/// The IP address and port of an address that [`endpoint`] understands.
pub(super) fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    endpoint(address).map(|(_, socket)| socket)
}

/// Where an address is; unspecified where [`endpoint`] does not understand it.
pub(super) fn ip(address: &Multiaddr) -> IpAddr {
    socket_address(address).map_or(Ipv6Addr::UNSPECIFIED.into(), |socket| socket.ip())
}

/// Whether the address is one of QUIC.
pub(super) fn is_quic(address: &Multiaddr) -> bool {
    endpoint(address).is_some_and(|(carrier, _)| carrier == Carrier::Quic)
}

/// The address of QUIC beside an address of TCP: the same host, the same number.
pub(super) fn quic_beside(tcp: SocketAddr) -> Multiaddr {
    Multiaddr::from(tcp.ip())
        .with(Protocol::Udp(tcp.port()))
        .with(Protocol::QuicV1)
}

/// The address with another port.
pub(super) fn with_port(address: &Multiaddr, port: u16) -> Multiaddr {
    let replaced = |part| match part {
        Protocol::Tcp(_) => Protocol::Tcp(port),
        Protocol::Udp(_) => Protocol::Udp(port),
        part => part,
    };
    address.iter().map(replaced).collect()
}

/// Splits a final `/p2p/` off.
pub(super) fn split_peer(address: &Multiaddr) -> (Multiaddr, Option<PeerId>) {
    let mut bare = address.clone();
    match bare.pop() {
        Some(Protocol::P2p(peer)) => (bare, Some(peer)),
        _ => (address.clone(), None),
    }
}

/// Whether a dial to the address can reach anybody: TCP or QUIC, one host, a port.
pub(super) fn is_dialable(address: &Multiaddr) -> bool {
    let Some(socket) = socket_address(address) else {
        return false;
    };
    let reaches_one_host = match socket.ip() {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
        // A link-local address means nothing without the zone of our interface, which a multiaddr does not carry.
        IpAddr::V6(ip) => !ip.is_unspecified() && !ip.is_multicast() && !ip.is_unicast_link_local(),
    };
    reaches_one_host && socket.port() != 0
}

/// Whether the address stays on its own machine.
pub(super) fn is_loopback(address: &Multiaddr) -> bool {
    socket_address(address).is_some_and(|socket| socket.ip().to_canonical().is_loopback())
}

/// Where the speaker is from whom addresses were learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaker {
    /// On this machine, or our own user: its loopback addresses are ours too.
    ThisMachine,
    /// Elsewhere: its loopback addresses would make us dial ourselves.
    Elsewhere,
}

/// The addresses among `claimed` that may lead to `peer`, without `/p2p/`, without repetition, those of TCP first, at
/// most [`ADDRESSES_PER_PEER_MAX`]. Dropped are undialable ones, those naming another peer, loopback ones of a distant
/// speaker, and those in `ours`.
pub(super) fn admit(
    peer: &PeerId,
    claimed: impl IntoIterator<Item = Multiaddr>,
    speaker: Speaker,
    ours: &[Multiaddr],
) -> Vec<Multiaddr> {
    let mut admitted = Vec::new();
    for address in claimed.into_iter().take(CLAIMED_MAX) {
        let (bare, named) = split_peer(&address);
        let usable = is_dialable(&bare)
            && named.is_none_or(|named| named == *peer)
            && (speaker == Speaker::ThisMachine || !is_loopback(&bare))
            && !ours.contains(&bare)
            && !admitted.contains(&bare);
        if usable {
            admitted.push(bare);
        }
    }
    // Stable: within each the speaker's order stays.
    admitted.sort_by_key(is_quic);
    admitted.truncate(ADDRESSES_PER_PEER_MAX);
    admitted
}

/// The addresses among `listening` that peers are told, by identify and in announcements: those of TCP, since a record
/// has room for [`ADDRESSES_PER_PEER_MAX`] and a query would wait seconds for each node of QUIC that has gone. The
/// `preferred` ones come first, in their order; loopback comes last and always has its place, for peers on this machine.
pub(super) fn announced(listening: &[Multiaddr], preferred: &[Multiaddr]) -> Vec<Multiaddr> {
    let is_told = |address: &&Multiaddr| !is_quic(address);
    let (loopback, mut wide): (Vec<_>, Vec<_>) = listening
        .iter()
        .filter(is_told)
        .cloned()
        .partition(is_loopback);
    let place = |address: &Multiaddr| preferred.iter().position(|known| known == address);
    // Stable: what nobody prefers keeps the order of the system.
    wide.sort_by_key(|address| place(address).unwrap_or(usize::MAX));
    // One for each family.
    let loopback = loopback.into_iter().take(2);
    wide.truncate(ADDRESSES_PER_PEER_MAX - loopback.len());
    wide.extend(loopback);
    wide
}

/// Bounded memory of where peers may be.
#[derive(Debug, Default)]
pub(super) struct AddressBook {
    peers: HashMap<PeerId, Entry>,
    /// Counts every update, so that the stalest entry is known without a clock.
    updates: u64,
}

#[derive(Debug)]
struct Entry {
    /// Newest first, bare.
    addresses: Vec<Multiaddr>,
    updated: u64,
}

impl AddressBook {
    /// Adds one bare, dialable address as the newest of `peer`; the oldest of a full peer and the stalest peer of a full
    /// book are forgotten.
    pub(super) fn add(&mut self, peer: PeerId, address: Multiaddr) {
        self.updates += 1;
        let updates = self.updates;
        if !self.peers.contains_key(&peer) && self.peers.len() >= PEERS_MAX {
            let stalest = self.peers.iter().min_by_key(|(_, entry)| entry.updated);
            if let Some(stalest) = stalest.map(|(peer, _)| *peer) {
                self.peers.remove(&stalest);
            }
        }
        let entry = self.peers.entry(peer).or_insert_with(|| Entry {
            addresses: Vec::new(),
            updated: updates,
        });
        entry.updated = updates;
        entry.addresses.retain(|known| *known != address);
        entry.addresses.insert(0, address);
        if entry.addresses.len() > ADDRESSES_PER_PEER_MAX {
            // The oldest of QUIC goes first: what is dialled first is not pushed out by its own fallback.
            let spare = entry.addresses.iter().rposition(is_quic);
            let spare = spare.unwrap_or(ADDRESSES_PER_PEER_MAX);
            entry.addresses.remove(spare);
        }
    }

    /// Forgets an address that proved wrong.
    pub(super) fn remove(&mut self, peer: &PeerId, address: &Multiaddr) {
        if let Some(entry) = self.peers.get_mut(peer) {
            entry.addresses.retain(|known| known != address);
            if entry.addresses.is_empty() {
                self.peers.remove(peer);
            }
        }
    }

    /// The addresses known for `peer`, newest first.
    pub(super) fn addresses(&self, peer: &PeerId) -> &[Multiaddr] {
        self.peers.get(peer).map_or(&[], |entry| &entry.addresses)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn only_one_host_by_tcp_or_quic_is_dialable() {
        let check =
            |text: &str, expected| assert_eq!(is_dialable(&address(text)), expected, "{text}");
        check("/ip4/10.0.0.1/tcp/4001", true);
        check("/ip4/127.0.0.1/tcp/4001", true);
        check("/ip6/::1/tcp/4001", true);
        check("/ip6/fd00::1/tcp/4001", true);
        check("/ip6/fe80::1/tcp/4001", false);
        check("/ip4/0.0.0.0/tcp/4001", false);
        check("/ip4/224.0.0.1/tcp/4001", false);
        check("/ip4/255.255.255.255/tcp/1", false);
        check("/ip4/10.0.0.1/tcp/0", false);
        check("/ip4/10.0.0.1/udp/1/quic-v1", true);
        check("/ip4/10.0.0.1/udp/0/quic-v1", false);
        check("/ip4/10.0.0.1/udp/1/quic", false);
        check("/ip4/10.0.0.1/udp/1", false);
        check("/ip4/10.0.0.1/tcp/1/ws", false);
        check("/dns4/example.org/tcp/1", false);
    }

    #[test]
    fn loopback_of_a_distant_speaker_is_dropped() {
        let peer = PeerId::random();
        let claimed = || {
            [
                address("/ip4/127.0.0.1/tcp/1"),
                address("/ip6/::1/tcp/1"),
                address("/ip4/10.0.0.2/tcp/1"),
            ]
        };
        assert_eq!(
            admit(&peer, claimed(), Speaker::Elsewhere, &[]),
            [address("/ip4/10.0.0.2/tcp/1")]
        );
        assert_eq!(admit(&peer, claimed(), Speaker::ThisMachine, &[]).len(), 3);
    }

    #[test]
    fn our_own_and_foreign_named_addresses_are_dropped() {
        let (peer, other) = (PeerId::random(), PeerId::random());
        let ours = [address("/ip4/10.0.0.1/tcp/1")];
        let claimed = [
            address("/ip4/10.0.0.1/tcp/1"),
            address("/ip4/10.0.0.2/tcp/1").with_p2p(other).unwrap(),
            address("/ip4/10.0.0.3/tcp/1").with_p2p(peer).unwrap(),
            address("/ip4/10.0.0.3/tcp/1"),
        ];
        assert_eq!(
            admit(&peer, claimed, Speaker::Elsewhere, &ours),
            [address("/ip4/10.0.0.3/tcp/1")]
        );
    }

    #[test]
    fn of_many_addresses_the_preferred_ones_and_loopback_are_announced() {
        let wide = |host: u8| address(&format!("/ip4/10.0.{host}.1/tcp/1"));
        let mut listening = vec![address("/ip4/127.0.0.1/tcp/1"), address("/ip6/::1/tcp/1")];
        listening.extend((0..60).map(wide));
        listening.extend((0..60).map(|host| address(&format!("/ip4/10.0.{host}.1/udp/1/quic-v1"))));
        let preferred = [wide(40), wide(30), wide(99), listening[0].clone()];
        let expected = [40, 30, 0, 1, 2, 3].map(wide).into_iter();
        let expected: Vec<_> = expected.chain(listening[..2].iter().cloned()).collect();
        assert_eq!(announced(&listening, &preferred), expected);
        assert_eq!(
            announced(&listening[..3], &[]),
            [wide(0), listening[0].clone(), listening[1].clone()]
        );
        assert_eq!(announced(&[], &preferred), []);
    }

    #[test]
    fn the_book_is_bounded_in_both_directions() {
        let mut book = AddressBook::default();
        let first = PeerId::random();
        for port in 1..=20u16 {
            book.add(first, address(&format!("/ip4/10.0.0.1/tcp/{port}")));
        }
        assert_eq!(book.addresses(&first).len(), ADDRESSES_PER_PEER_MAX);
        assert_eq!(book.addresses(&first)[0], address("/ip4/10.0.0.1/tcp/20"));
        for _ in 0..PEERS_MAX {
            book.add(PeerId::random(), address("/ip4/10.0.0.2/tcp/1"));
        }
        assert_eq!(book.peers.len(), PEERS_MAX);
        assert!(
            book.addresses(&first).is_empty(),
            "the stalest peer makes room"
        );
    }

    #[test]
    fn quic_never_pushes_tcp_out() {
        let (peer, mut book) = (PeerId::random(), AddressBook::default());
        let quic = |port: u16| address(&format!("/ip4/10.0.0.1/udp/{port}/quic-v1"));
        let tcp = |port: u16| address(&format!("/ip4/10.0.0.1/tcp/{port}"));
        book.add(peer, tcp(1));
        (1..=20).for_each(|port| book.add(peer, quic(port)));
        assert_eq!(book.addresses(&peer).len(), ADDRESSES_PER_PEER_MAX);
        assert!(book.addresses(&peer).contains(&tcp(1)));
        let claimed = (1..=20).map(quic).chain([tcp(2)]);
        let admitted = admit(&peer, claimed, Speaker::Elsewhere, &[]);
        assert_eq!(admitted.len(), ADDRESSES_PER_PEER_MAX);
        assert_eq!(admitted[0], tcp(2));
    }

    #[test]
    fn an_address_that_proved_wrong_is_forgotten() {
        let mut book = AddressBook::default();
        let peer = PeerId::random();
        book.add(peer, address("/ip4/10.0.0.1/tcp/1"));
        book.remove(&peer, &address("/ip4/10.0.0.1/tcp/1"));
        assert!(book.addresses(&peer).is_empty());
    }
}
