//! The peers of one share as its actor knows them: candidates with their addresses, dials, links and what they say.
//!
//! Whom to keep and whom to ask is the engine's matter; this only tells it who came, went or spoke.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Actor;
use crate::content::{FileIndex, LayerRange, Multiaddr, PeerId};
use crate::engine::{DownCause, Input, PeerKey, Source, tuning};
use crate::network::PeerRecord;
use crate::node::addresses::{is_loopback, via_of};
use crate::node::perform;
use crate::node::session::{DataJob, Session};
use crate::node::share::SessionId;
use crate::node::status::NodeEvent;
use crate::wire::{ShareMessage, SourceState};

/// A peer that was dialled and has not become ready after this long may be dialled again.
const READY_MAX: Duration = Duration::from_secs(10);

/// Pause between dials of a peer before the share is ready.
const FIND_PAUSE: Duration = Duration::from_secs(1);

/// Addresses remembered per peer, and outcomes of dials remembered for the error message.
const ADDRESSES_MAX: usize = 8;
const TRIED_MAX: usize = 64;

/// Ended sessions remembered.
const ENDED_MAX: usize = 128;

/// A peer with which the share is open.
pub(in crate::node) struct Linked {
    pub(in crate::node) session: Session,
    pub(in crate::node) is_ready: bool,
    /// Whether the engine knows it.
    pub(in crate::node) is_up: bool,
    /// Files of which it said why it does not offer them.
    pub(in crate::node) withheld: BTreeMap<FileIndex, SourceState>,
}

impl Actor {
    pub(super) fn on_candidate(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, source: Source) {
        if peer == self.hub.shop.local_peer {
            return;
        }
        let known = self.addresses.entry(peer).or_default();
        // What was heard last is most likely true.
        for address in addresses.into_iter().rev() {
            known.retain(|other| *other != address);
            known.insert(0, address);
        }
        known.truncate(ADDRESSES_MAX);
        let is_new = !self.sources.contains_key(&peer);
        if is_new && self.sources.len() >= tuning::CANDIDATES_MAX {
            return;
        }
        self.sources.insert(peer, source);
        if self.transfer.is_some() {
            self.tell_candidate(peer, source);
        } else if is_new && self.fetch.is_some() && !self.linked.contains_key(&peer) {
            perform::connect(self, peer);
        }
    }

    /// The engine hears of a peer.
    pub(super) fn tell_candidate(&mut self, peer: PeerId, source: Source) {
        let addresses = self.addresses.get(&peer).map_or(&[][..], Vec::as_slice);
        let subnets = self.hub.subnets();
        let near = addresses.iter().any(|address| subnets.contain(address));
        let peer = self.key(peer);
        self.engine(Input::Candidate { peer, source, near });
    }

    pub(in crate::node) fn dial_failed(&mut self, peer: PeerId) {
        if self.dialled.remove(&peer).is_none() {
            return;
        }
        if self.transfer.is_some() {
            let peer = self.key(peer);
            self.engine(Input::ConnectFailed { peer });
        } else {
            self.find_at = self.find_at.min(Instant::now() + FIND_PAUSE);
        }
    }

    pub(super) fn tried(&mut self, addresses: &[Multiaddr], peer: Option<PeerId>, outcome: &str) {
        let known = peer
            .and_then(|peer| self.addresses.get(&peer).cloned())
            .unwrap_or_default();
        for address in addresses.iter().chain(&known) {
            if self.tried.len() < TRIED_MAX || self.tried.contains_key(address) {
                self.tried.insert(address.clone(), outcome.to_owned());
            }
        }
    }

    pub(super) fn on_linked(&mut self, session: Session) {
        let peer = session.peer();
        if self.linked.contains_key(&peer) {
            perform::forget(self, peer, DownCause::Closed, "replaced by a newer session");
        }
        self.numbers.ever_linked = true;
        self.hub.memory.met(peer, self.share.id.provider_key());
        if self.transfer.is_none() {
            self.last_verified = Instant::now();
        }
        self.sessions.insert(session.id(), peer);
        let address = session.remote_address().clone();
        let via = via_of(&address);
        self.hub
            .tell(NodeEvent::PeerConnected { peer, address, via });
        if self.transfer.is_some() {
            session.send(&self.share, ShareMessage::Ready);
        }
        self.linked.insert(
            peer,
            Linked {
                session,
                is_ready: false,
                is_up: false,
                withheld: BTreeMap::new(),
            },
        );
        self.dialled.insert(peer, Instant::now() + READY_MAX);
    }

    pub(super) fn on_unlinked(&mut self, session: SessionId, cause: DownCause, reason: String) {
        let Some(peer) = self.sessions.get(&session).copied() else {
            return;
        };
        perform::forget(self, peer, cause, &reason);
    }

    pub(super) fn on_message(&mut self, session: SessionId, message: ShareMessage) {
        let Some(peer) = self.sessions.get(&session).copied() else {
            return;
        };
        match message {
            ShareMessage::Ready => {
                if let Some(linked) = self.linked.get_mut(&peer) {
                    linked.is_ready = true;
                }
                self.ask_info();
                if self.transfer.is_some() {
                    self.up(peer);
                } else {
                    self.ask_metadata(Instant::now());
                }
            }
            ShareMessage::GetInfo => self.send_data(
                peer,
                DataJob::Info {
                    share: self.share.id,
                },
            ),
            ShareMessage::GetManifest => self.send_data(
                peer,
                DataJob::Manifest {
                    share: self.share.id,
                },
            ),
            ShareMessage::GetHashes { file, first, count } => {
                let range = LayerRange {
                    file: FileIndex::new(file),
                    first,
                    count,
                };
                self.send_data(
                    peer,
                    DataJob::Hashes {
                        share: self.share.id,
                        range,
                    },
                );
            }
            ShareMessage::Peers { records } => {
                let now = Instant::now();
                if self.exchange.may_speak(now, &peer) {
                    perform::check_records(self, session, records.into_vec());
                }
            }
            ShareMessage::Source { file, state } => self.on_source(&peer, file, state),
            message => self.engine_of(session, |peer| Input::Message { peer, message }),
        }
    }

    pub(super) fn on_records(&mut self, session: SessionId, records: Vec<PeerRecord>) {
        let Some(from) = self.sessions.get(&session).copied() else {
            return;
        };
        let told = self.exchange.on_records(Instant::now(), &from, records);
        let source = Source::Exchange;
        self.hub.offer_in_turn(&self.share, told, source);
    }

    pub(super) fn send_data(&self, peer: PeerId, job: DataJob) {
        if self.share.ready.get().is_some()
            && let Some(linked) = self.linked.get(&peer)
        {
            linked.session.send_data(job);
        }
    }

    pub(super) fn up(&mut self, peer: PeerId) {
        let Some(linked) = self.linked.get_mut(&peer) else {
            return;
        };
        if !std::mem::replace(&mut linked.is_up, true) {
            let address = linked.session.remote_address().clone();
            let is_local = is_loopback(&address);
            self.exchange.up(Instant::now(), peer, is_local);
            self.dialled.remove(&peer);
            let near = self.hub.subnets().contain(&address);
            let key = self.key(peer);
            self.engine(Input::PeerUp { peer: key, near });
            self.tell_sources(&peer);
        }
    }

    /// Who spoke in this session, also when it has ended: a piece may be checked after that.
    pub(super) fn peer_of(&self, session: SessionId) -> Option<PeerId> {
        self.sessions
            .get(&session)
            .or_else(|| self.ended.get(&session))
            .copied()
    }

    /// A session is gone from the share; its peer is remembered for a while.
    pub(in crate::node) fn end_session(&mut self, session: SessionId) {
        self.numbers.on_session_end(session);
        if let Some(peer) = self.sessions.remove(&session) {
            self.ended.insert(session, peer);
            if self.ended.len() > ENDED_MAX {
                self.ended.pop_first();
            }
        }
    }

    /// The number of a peer for the engine; the same for the whole run.
    pub(in crate::node) fn key(&mut self, peer: PeerId) -> PeerKey {
        let peers = &mut self.peers;
        *self.keys.entry(peer).or_insert_with(|| {
            peers.push(peer);
            PeerKey(u32::try_from(peers.len() - 1).expect("fewer than 2^32 peers are met in a run"))
        })
    }
}
