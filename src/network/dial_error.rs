//! What a failed `open_session` says: each address with its own cause, found below libp2p's wrappers.
//! It decides nothing. Used by `dialling` and `driver`; shown by the surfaces.
//! Source: `PROTOCOL.md` "Discovery" (when nobody is found, the error lists each address tried and what happened).

use std::error::Error as StdError;
use std::fmt;
use std::io;

use libp2p::core::transport::TransportError;
use libp2p::swarm::DialError as SwarmDialError;
use libp2p::{Multiaddr, PeerId};

use super::addresses::split_peer;

/// Why a session could not be opened: every address tried, with its own cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialError {
    /// Addresses without `/p2p/`, in no order. Empty when no address was known, or the network has ended.
    pub tried: Vec<(Multiaddr, DialFailure)>,
}

impl DialError {
    pub(super) fn closed() -> Self {
        Self { tried: Vec::new() }
    }

    /// The same, with what else failed.
    pub(super) fn and(mut self, others: Vec<(Multiaddr, DialFailure)>) -> Self {
        for other in others {
            if !self.tried.contains(&other) {
                self.tried.push(other);
            }
        }
        self
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tried.is_empty() {
            return write!(f, "{}", DialFailure::NoAddress);
        }
        for (index, (address, failure)) in self.tried.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}`{address}`: {failure}")?;
        }
        Ok(())
    }
}

impl StdError for DialError {}

/// What happened at one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialFailure {
    /// Nothing listens there.
    Refused,
    /// No answer in time.
    Timeout,
    /// Somebody else is there.
    WrongPeer {
        /// Who.
        found: PeerId,
    },
    /// No route to it, or no address of that kind here.
    Unreachable,
    /// The address names a host, and no address of it was found.
    NoSuchHost {
        /// What the system's resolver said.
        reason: String,
    },
    /// No address is known.
    NoAddress,
    /// A limit, here or there: too many connections or sessions. Try again later; the peer is not at fault.
    Denied,
    /// The peer speaks libp2p but not our protocol.
    NotShoal,
    /// The connection ended while the session was being opened.
    Closed,
    /// Anything else, in words.
    Other(String),
}

impl fmt::Display for DialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused"),
            Self::Timeout => f.write_str("timeout"),
            Self::WrongPeer { found } => write!(f, "wrong peer ({found})"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::NoSuchHost { reason } => write!(f, "no such host ({reason})"),
            Self::NoAddress => f.write_str("no address known"),
            Self::Denied => f.write_str("denied, too busy"),
            Self::NotShoal => f.write_str("does not speak this protocol"),
            Self::Closed => f.write_str("connection closed"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// What one address failed with.
pub(super) fn failure_of(error: &TransportError<io::Error>) -> DialFailure {
    match error {
        TransportError::MultiaddrNotSupported(_) => DialFailure::Unreachable,
        TransportError::Other(error) => {
            let known = known_failure(error);
            known.unwrap_or_else(|| DialFailure::Other(innermost_text(error)))
        }
    }
}

/// Finds the operating system's error below the wrappers of transport and upgrades.
fn known_failure(error: &io::Error) -> Option<DialFailure> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => return Some(DialFailure::Refused),
        io::ErrorKind::TimedOut => return Some(DialFailure::Timeout),
        io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::Unsupported => return Some(DialFailure::Unreachable),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => return Some(DialFailure::Closed),
        _ => {}
    }
    // An `io::Error` around another error skips that error itself in `source`.
    let mut inner: Option<&(dyn StdError + 'static)> = error.get_ref().map(|inner| inner as _);
    while let Some(error) = inner {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return known_failure(error);
        }
        inner = error.source();
    }
    None
}

fn innermost_text(error: &io::Error) -> String {
    let mut text = error.to_string();
    let mut inner: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(error) = inner {
        text = error.to_string();
        inner = error.source();
    }
    text
}

/// What a failed dial says about its addresses: those it was `dialled` with, if it is ours, and those that the error names.
pub(super) fn failures_of(
    error: &SwarmDialError,
    dialled: &[Multiaddr],
    local_peer: PeerId,
) -> Vec<(Multiaddr, DialFailure)> {
    let every = |failure: DialFailure| {
        dialled
            .iter()
            .map(|address| (address.clone(), failure.clone()))
            .collect()
    };
    match error {
        SwarmDialError::Transport(errors) => errors
            .iter()
            .map(|(address, error)| (split_peer(address).0, failure_of(error)))
            .collect(),
        SwarmDialError::WrongPeerId { obtained, address } => {
            vec![(
                split_peer(address).0,
                DialFailure::WrongPeer { found: *obtained },
            )]
        }
        SwarmDialError::LocalPeerId { address } => {
            vec![(
                split_peer(address).0,
                DialFailure::WrongPeer { found: local_peer },
            )]
        }
        // The swarm drops the addresses it listens on itself; none was left.
        SwarmDialError::NoAddresses => every(DialFailure::WrongPeer { found: local_peer }),
        SwarmDialError::Denied { .. } => every(DialFailure::Denied),
        SwarmDialError::Aborted => every(DialFailure::Closed),
        SwarmDialError::DialPeerConditionFalse(_) => {
            every(DialFailure::Other("not dialled".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_cause_is_found_below_any_wrapping() {
        let check = |kind: io::ErrorKind, expected: DialFailure| {
            let wrapped = io::Error::other(io::Error::other(io::Error::from(kind)));
            assert_eq!(
                failure_of(&TransportError::Other(wrapped)),
                expected,
                "{kind}"
            );
        };
        check(io::ErrorKind::ConnectionRefused, DialFailure::Refused);
        check(io::ErrorKind::TimedOut, DialFailure::Timeout);
        check(io::ErrorKind::HostUnreachable, DialFailure::Unreachable);
        check(io::ErrorKind::NetworkUnreachable, DialFailure::Unreachable);
        check(io::ErrorKind::UnexpectedEof, DialFailure::Closed);
    }

    #[test]
    fn an_unknown_cause_keeps_its_words() {
        let wrapped = io::Error::other(io::Error::other("strange"));
        let failure = failure_of(&TransportError::Other(wrapped));
        assert_eq!(failure, DialFailure::Other("strange".to_owned()));
    }

    #[test]
    fn the_error_lists_each_address_with_its_cause() {
        let tried = vec![
            ("/ip4/10.0.0.1/tcp/1".parse().unwrap(), DialFailure::Refused),
            ("/ip4/10.0.0.2/tcp/2".parse().unwrap(), DialFailure::Timeout),
        ];
        let text = DialError { tried }.to_string();
        assert_eq!(
            text,
            "`/ip4/10.0.0.1/tcp/1`: refused, `/ip4/10.0.0.2/tcp/2`: timeout"
        );
    }
}
