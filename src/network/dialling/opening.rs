//! One call of `open_session` until it is answered: what it was given, what it has tried.
//!
//! Decides nothing; [`Dialling`](super::Dialling) does.

use std::time::Instant;

use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::oneshot;

use crate::network::SessionStreams;
use crate::network::addresses::is_dialable;
use crate::network::dial_error::{DialError, DialFailure};

/// A bare address, with the peer it named.
pub(super) type Given = (Multiaddr, Option<PeerId>);

/// Where the answer of an opening goes.
pub(in crate::network) type Reply = oneshot::Sender<Result<SessionStreams, DialError>>;

/// A call under way.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) reply: Reply,
    pub(super) peer: Option<PeerId>,
    /// Bare addresses of the call, each with the peer it named.
    pub(super) given: Vec<Given>,
    /// Those of QUIC among them that wait for the dials of TCP, until when. Only while the peer is not known.
    pub(super) held: Option<(Vec<Given>, Instant)>,
    pub(super) tried: Vec<(Multiaddr, DialFailure)>,
    pub(super) deadline: Instant,
    /// Connections that went away or kept silent.
    pub(super) avoid: Vec<ConnectionId>,
    /// The connection streams are being opened on, since when.
    pub(super) streams_on: Option<(ConnectionId, Instant)>,
}

impl Opening {
    /// Takes out of the given addresses what is no use dialling.
    pub(super) fn sort_out_unusable(&mut self, local_peer: PeerId) {
        let (peer, tried) = (self.peer, &mut self.tried);
        self.given.retain(|(address, named)| {
            let failure = match named {
                _ if peer == Some(local_peer) => Some(DialFailure::WrongPeer { found: local_peer }),
                Some(named) if *named == local_peer => {
                    Some(DialFailure::WrongPeer { found: local_peer })
                }
                Some(named) if peer.is_some_and(|peer| peer != *named) => {
                    Some(DialFailure::WrongPeer { found: *named })
                }
                _ if !is_dialable(address) => Some(DialFailure::Unreachable),
                _ => None,
            };
            let is_usable = failure.is_none();
            tried.extend(failure.map(|failure| (address.clone(), failure)));
            is_usable
        });
    }

    pub(super) fn note(&mut self, address: Option<Multiaddr>, failure: DialFailure) {
        if let Some(address) = address {
            self.tried.push((address, failure));
        }
    }

    /// Answers with every address and the last failure of it.
    pub(super) fn answer_failed(self) {
        let mut tried: Vec<(Multiaddr, DialFailure)> = Vec::new();
        // The last word on an address counts: one that worked and then fell silent is not the refused one of before.
        for (address, failure) in self.tried.into_iter().rev() {
            if !tried.iter().any(|(known, _)| *known == address) {
                tried.push((address, failure));
            }
        }
        tried.reverse();
        // A caller that has gone needs no answer.
        let _ = self.reply.send(Err(DialError { tried }));
    }
}

/// The peer of a call that names none: the one that all its addresses name.
pub(super) fn one_peer_named_by_all(given: &[(Multiaddr, Option<PeerId>)]) -> Option<PeerId> {
    let (_, first) = given.first()?;
    given
        .iter()
        .all(|(_, named)| named == first)
        .then_some(*first)?
}
