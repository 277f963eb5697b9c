//! From a call of `open_session` to its answer: which connection, which addresses to dial, what each failed with.
//! A state machine over instants and libp2p's value types: it dials and opens nothing itself but gives [`Action`]s to
//! the driver, and asks it through [`Surroundings`]. Calls for one peer share its dials.
//! Source: libp2p connection-establishment specification; `PROTOCOL.md` "Discovery" (errors list each address).
//!
//! | opening is | input | becomes |
//! |---|---|---|
//! | new | a connection to its peer exists | opening streams |
//! | new | none | dialling every address that is not being dialled for that peer already |
//! | dialling | any connection to its peer comes up | opening streams |
//! | dialling | last dial failed, addresses left (new ones, of QUIC, or cut off by a wrong peer) | dialling those |
//! | dialling | [`QUIC_DELAY`] passed | dialling those of QUIC as well |
//! | dialling | last dial failed, none left | failed, with every address and cause |
//! | opening streams | streams open | answered |
//! | opening streams | connection closed, or silent for [`STREAMS_PATIENCE`] | new, avoiding it, at most [`RETRIES_MAX`] times |
//! | opening streams | refused or not our protocol | failed |
//! | any | [`OPENING_TIMEOUT`] | failed |

mod opening;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZeroU8;
use std::time::{Duration, Instant};

use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError as SwarmDialError};
use libp2p::{Multiaddr, PeerId};

use super::SessionStreams;
use super::addresses::{is_quic, socket_address, split_peer};
use super::dial_error::{DialFailure, failures_of};
use super::streams::OPEN_TIMEOUT;
use super::transport::{QUIC_HANDSHAKE_MAX, SETUP_TIMEOUT};
use opening::{Given, Opening, one_peer_named_by_all};

pub(super) use opening::Reply;

/// The whole of an `open_session`: one full dial, and time for streams on both sides of it.
pub(super) const OPENING_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a connection may stay silent when streams are opened on it before another is tried: a dead one must leave
/// time for a fresh dial within [`OPENING_TIMEOUT`].
const STREAMS_PATIENCE: Duration = Duration::from_secs(3);

/// Times an opening starts over because its connection went away under it.
const RETRIES_MAX: u8 = 2;

/// Addresses of one dial, all tried at once, so that a dead one delays nobody.
const ADDRESSES_PER_DIAL_MAX: usize = 16;

/// How long dials by TCP run alone before addresses of QUIC are dialled beside them; sooner when all of TCP failed. Less
/// makes sessions on QUIC, whose dead peers are silent for seconds; more delays the networks that only let UDP through.
pub(super) const QUIC_DELAY: Duration = Duration::from_millis(500);

/// How long a dial that Kademlia began to the same peer may run alone before ours starts beside it.
const FOREIGN_DIAL_PATIENCE: Duration = Duration::from_millis(300);

/// Openings at once; beyond it they are denied. Callers are a few tens of peers per share.
const OPENINGS_MAX: usize = 512;

const _: () = assert!(
    SETUP_TIMEOUT.as_millis() + STREAMS_PATIENCE.as_millis() <= OPENING_TIMEOUT.as_millis()
);
const _: () = assert!(STREAMS_PATIENCE.as_millis() <= OPEN_TIMEOUT.as_millis());
const _: () = assert!(
    QUIC_DELAY.as_millis() + QUIC_HANDSHAKE_MAX.as_millis() + STREAMS_PATIENCE.as_millis()
        <= OPENING_TIMEOUT.as_millis()
);

/// What the driver knows and the state machine asks.
pub(super) trait Surroundings {
    /// The connection to `peer` to use, if there is one that is not in `avoid`.
    fn connection_to(&self, peer: &PeerId, avoid: &[ConnectionId]) -> Option<ConnectionId>;
    /// The bare remote address of a connection.
    fn address_of(&self, connection: &ConnectionId) -> Option<Multiaddr>;
    /// Every bare address known for `peer`, except our own.
    fn known_addresses(&mut self, peer: &PeerId) -> Vec<Multiaddr>;
}

/// What the driver has to do.
#[derive(Debug)]
pub(super) enum Action {
    /// Dial; report [`Dialling::on_dial_failed`] or [`Dialling::on_connected`] under the options' connection id.
    Dial(DialOpts),
    /// Open streams; report [`Dialling::on_opened`] or [`Dialling::on_streams_failed`].
    OpenStreams {
        opening: u64,
        connection: ConnectionId,
    },
}

/// The dials for one known peer, and who waits for them.
#[derive(Debug, Default)]
struct PeerDial {
    waiting: Vec<u64>,
    /// Addresses dialled for these openings.
    asked: Vec<Multiaddr>,
    failed: Vec<(Multiaddr, DialFailure)>,
    /// Leaves a dial of somebody else alone until then.
    hold_until: Option<Instant>,
    /// When addresses of QUIC are dialled beside those of TCP.
    quic_at: Option<Instant>,
    /// Whether there are some that wait for it.
    holds_quic: bool,
}

/// One dial of ours that has not ended.
#[derive(Debug)]
struct Attempt {
    target: Target,
    addresses: Vec<Multiaddr>,
}

#[derive(Debug, Clone, Copy)]
enum Target {
    Peer(PeerId),
    /// The peer behind the address is not known; the opening is.
    Opening(u64),
}

/// The state machine; see the file header.
#[derive(Debug)]
pub(super) struct Dialling {
    local_peer: PeerId,
    openings_begun: u64,
    openings: BTreeMap<u64, Opening>,
    dials: HashMap<PeerId, PeerDial>,
    attempts: HashMap<ConnectionId, Attempt>,
    /// Dials of Kademlia, by peer: when they began.
    foreign: HashMap<PeerId, (ConnectionId, Instant)>,
    actions: VecDeque<Action>,
}

impl Dialling {
    /// Nothing under way.
    pub(super) fn new(local_peer: PeerId) -> Self {
        Self {
            local_peer,
            openings_begun: 0,
            openings: BTreeMap::new(),
            dials: HashMap::new(),
            attempts: HashMap::new(),
            foreign: HashMap::new(),
            actions: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Begins an opening; `reply` gets exactly one answer.
    pub(super) fn open(
        &mut self,
        peer: Option<PeerId>,
        addresses: Vec<Multiaddr>,
        reply: Reply,
        now: Instant,
        around: &mut dyn Surroundings,
    ) {
        let mut given: Vec<(Multiaddr, Option<PeerId>)> = Vec::new();
        for address in addresses {
            let (bare, named) = split_peer(&address);
            if given.len() < ADDRESSES_PER_DIAL_MAX
                && !given.iter().any(|(known, _)| *known == bare)
            {
                given.push((bare, named));
            }
        }
        let peer = peer.or_else(|| one_peer_named_by_all(&given));
        let mut opening = Opening {
            reply,
            peer,
            given,
            held: None,
            tried: Vec::new(),
            deadline: now + OPENING_TIMEOUT,
            avoid: Vec::new(),
            streams_on: None,
        };
        if self.openings.len() >= OPENINGS_MAX {
            opening.tried = opening
                .given
                .iter()
                .map(|(address, _)| (address.clone(), DialFailure::Denied))
                .collect();
            opening.answer_failed();
            return;
        }
        opening.sort_out_unusable(self.local_peer);
        if peer == Some(self.local_peer) {
            opening.answer_failed();
            return;
        }
        self.openings_begun += 1;
        self.openings.insert(self.openings_begun, opening);
        self.advance(self.openings_begun, now, around);
    }

    /// A connection is up, whoever began it. `failures` are the addresses of its dial that failed before.
    pub(super) fn on_connected(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        failures: Vec<(Multiaddr, DialFailure)>,
        now: Instant,
    ) {
        let attempt = self.attempts.remove(&connection);
        if self
            .foreign
            .get(&peer)
            .is_some_and(|(foreign, _)| *foreign == connection)
        {
            self.foreign.remove(&peer);
        }
        let mut ready = Vec::new();
        if let Some(dial) = self.dials.remove(&peer) {
            ready.extend(dial.waiting);
        }
        if let Some(Attempt {
            target: Target::Opening(id),
            ..
        }) = attempt
            && let Some(opening) = self.openings.get_mut(&id)
            && opening.streams_on.is_none()
        {
            opening.peer = Some(peer);
            ready.push(id);
        }
        for id in ready {
            if let Some(opening) = self.openings.get_mut(&id) {
                opening.tried.extend(failures.iter().cloned());
                opening.streams_on = Some((connection, now));
                self.actions.push_back(Action::OpenStreams {
                    opening: id,
                    connection,
                });
            }
        }
    }

    /// Kademlia began to dial `peer`.
    pub(super) fn on_foreign_dial(&mut self, peer: PeerId, connection: ConnectionId, now: Instant) {
        if !self.attempts.contains_key(&connection) {
            self.foreign.insert(peer, (connection, now));
        }
    }

    /// A dial ended without a connection; it may be anybody's. Returns what failed where, for the address book.
    pub(super) fn on_dial_failed(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        error: &SwarmDialError,
        now: Instant,
        around: &mut dyn Surroundings,
    ) -> Vec<(Multiaddr, DialFailure)> {
        let attempt = self.attempts.remove(&connection);
        let failures = failures_of(
            error,
            attempt
                .as_ref()
                .map_or(&[], |attempt| attempt.addresses.as_slice()),
            self.local_peer,
        );
        match attempt {
            Some(Attempt {
                target: Target::Opening(id),
                ..
            }) => {
                if let Some(opening) = self.openings.get_mut(&id) {
                    opening.tried.extend(failures.iter().cloned());
                    if !self.is_dialling_for(id) {
                        self.dial_held(id);
                    }
                    self.fail_if_nothing_is_left(id);
                }
            }
            Some(Attempt {
                target: Target::Peer(peer),
                addresses,
            }) => {
                if let Some(dial) = self.dials.get_mut(&peer) {
                    // A wrong peer ends the whole dial: the addresses without a verdict are to be dialled again.
                    dial.asked.retain(|asked| {
                        !addresses.contains(asked)
                            || failures.iter().any(|(failed, _)| failed == asked)
                    });
                    dial.failed.extend(failures.iter().cloned());
                    self.dial(peer, now, around);
                }
            }
            None => {
                let foreign = peer.filter(|peer| {
                    self.foreign
                        .get(peer)
                        .is_some_and(|(id, _)| *id == connection)
                });
                if let Some(peer) = foreign {
                    self.foreign.remove(&peer);
                    // It never dials by QUIC: those addresses are still ours to try.
                    let failures = failures.iter().filter(|(address, _)| !is_quic(address));
                    if let Some(dial) = self.dials.get_mut(&peer) {
                        dial.asked
                            .extend(failures.clone().map(|(address, _)| address.clone()));
                        dial.failed.extend(failures.cloned());
                        self.dial(peer, now, around);
                    }
                }
            }
        }
        failures
    }

    /// Streams are open: answers. `false`: the caller has gone, and with it the streams.
    pub(super) fn on_opened(&mut self, opening: u64, streams: SessionStreams) -> bool {
        self.openings
            .remove(&opening)
            .is_some_and(|opening| opening.reply.send(Ok(streams)).is_ok())
    }

    /// Streams could not be opened.
    pub(super) fn on_streams_failed(
        &mut self,
        id: u64,
        failure: DialFailure,
        now: Instant,
        around: &mut dyn Surroundings,
    ) {
        let Some(opening) = self.openings.get_mut(&id) else {
            return;
        };
        let Some((connection, _)) = opening.streams_on else {
            return; // An answer of a connection that was given up.
        };
        match failure {
            DialFailure::Closed | DialFailure::Timeout => {
                self.start_over(id, connection, failure, now, around)
            }
            failure => {
                opening.note(around.address_of(&connection), failure);
                self.fail(id);
            }
        }
    }

    /// Time passed: deadlines, silent connections, dials that were held back.
    pub(super) fn on_time(&mut self, now: Instant, around: &mut dyn Surroundings) {
        let is_over = |opening: &Opening| now >= opening.deadline || opening.reply.is_closed();
        let over: Vec<u64> = self
            .openings
            .iter()
            .filter(|(_, opening)| is_over(opening))
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.time_out(id, around);
        }
        let silent: Vec<(u64, ConnectionId)> = self
            .openings
            .iter()
            .filter_map(|(id, opening)| {
                let (connection, since) = opening.streams_on?;
                (now >= since + STREAMS_PATIENCE).then_some((*id, connection))
            })
            .collect();
        for (id, connection) in silent {
            self.start_over(id, connection, DialFailure::Timeout, now, around);
        }
        let held: Vec<PeerId> = self
            .dials
            .iter()
            .filter(|(_, dial)| dial.due().is_some_and(|due| now >= due))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in held {
            self.dial(peer, now, around);
        }
        let is_due = |opening: &Opening| opening.held.as_ref().is_some_and(|(_, at)| now >= *at);
        let held: Vec<u64> = self
            .openings
            .iter()
            .filter(|(_, opening)| is_due(opening))
            .map(|(id, _)| *id)
            .collect();
        for id in held {
            self.dial_held(id);
        }
    }

    /// When [`Dialling::on_time`] has something to do if nothing else happens.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let openings = self.openings.values().map(|opening| {
            let patience = opening
                .streams_on
                .map(|(_, since)| since + STREAMS_PATIENCE);
            let held = opening.held.as_ref().map(|(_, at)| *at);
            [patience, held]
                .into_iter()
                .flatten()
                .fold(opening.deadline, Instant::min)
        });
        openings
            .chain(self.dials.values().filter_map(PeerDial::due))
            .min()
    }

    /// A new opening, or one that starts over.
    fn advance(&mut self, id: u64, now: Instant, around: &mut dyn Surroundings) {
        let Some(opening) = self.openings.get_mut(&id) else {
            return;
        };
        let Some(peer) = opening.peer else {
            self.dial_strangers(id, now);
            return;
        };
        if let Some(connection) = around.connection_to(&peer, &opening.avoid) {
            opening.streams_on = Some((connection, now));
            self.actions.push_back(Action::OpenStreams {
                opening: id,
                connection,
            });
            return;
        }
        self.dials.entry(peer).or_default().waiting.push(id);
        self.dial(peer, now, around);
    }

    /// Dials each given address of an opening whose peer is not known; the first to answer is it.
    fn dial_strangers(&mut self, id: u64, now: Instant) {
        let Some(opening) = self.openings.get_mut(&id) else {
            return;
        };
        let (held, first): (Vec<_>, Vec<_>) = opening
            .given
            .iter()
            .cloned()
            .partition(|(address, _)| is_quic(address));
        if first.is_empty() {
            self.dial_each(id, held);
        } else {
            opening.held = Some((held, now + QUIC_DELAY));
            self.dial_each(id, first);
        }
        self.fail_if_nothing_is_left(id);
    }

    /// Dials the addresses of QUIC of an opening whose peer is not known.
    fn dial_held(&mut self, id: u64) {
        let Some(opening) = self.openings.get_mut(&id) else {
            return;
        };
        if let Some((mut held, _)) = opening.held.take() {
            held.retain(|(address, _)| !is_refused(address, &opening.tried));
            self.dial_each(id, held);
        }
    }

    fn dial_each(&mut self, id: u64, addresses: Vec<Given>) {
        for (bare, named) in addresses {
            let dialled = named.map_or(Ok(bare.clone()), |named| bare.clone().with_p2p(named));
            let options = DialOpts::unknown_peer_id()
                .address(dialled.unwrap_or_else(|address| address))
                .allocate_new_port()
                .build();
            let attempt = Attempt {
                target: Target::Opening(id),
                addresses: vec![bare],
            };
            self.attempts.insert(options.connection_id(), attempt);
            self.actions.push_back(Action::Dial(options));
        }
    }

    /// Dials what is not dialled yet for the openings that wait for `peer`; fails them when nothing is left.
    fn dial(&mut self, peer: PeerId, now: Instant, around: &mut dyn Surroundings) {
        let Some(dial) = self.dials.get_mut(&peer) else {
            return;
        };
        let foreign = self
            .foreign
            .get(&peer)
            .map(|(_, began)| *began + FOREIGN_DIAL_PATIENCE);
        dial.hold_until = foreign.filter(|until| now < *until);
        if dial.hold_until.is_some() {
            return;
        }
        let given = dial
            .waiting
            .iter()
            .filter_map(|id| self.openings.get(id))
            .flat_map(|opening| &opening.given);
        let mut addresses: Vec<Multiaddr> = Vec::new();
        for address in given
            .map(|(address, _)| address.clone())
            .chain(around.known_addresses(&peer))
        {
            let is_new = !dial.asked.contains(&address) && !addresses.contains(&address);
            if is_new && addresses.len() < ADDRESSES_PER_DIAL_MAX {
                addresses.push(address);
            }
        }
        let is_ours =
            |attempt: &&Attempt| matches!(attempt.target, Target::Peer(other) if other == peer);
        let mut ours = self.attempts.values().filter(is_ours);
        let is_tried_by_tcp = !addresses.iter().all(is_quic)
            || ours
                .clone()
                .any(|attempt| !attempt.addresses.iter().all(is_quic));
        let quic_at = *dial.quic_at.get_or_insert(now + QUIC_DELAY);
        dial.holds_quic = is_tried_by_tcp && now < quic_at && addresses.iter().any(is_quic);
        if dial.holds_quic {
            addresses.retain(|address| !is_quic(address));
        } else {
            addresses.retain(|address| !is_quic(address) || !is_refused(address, &dial.failed));
        }
        if addresses.is_empty() {
            let is_dialling = self.foreign.contains_key(&peer) || ours.next().is_some();
            if !is_dialling && let Some(dial) = self.dials.remove(&peer) {
                for id in dial.waiting {
                    if let Some(opening) = self.openings.get_mut(&id) {
                        opening.tried.extend(dial.failed.iter().cloned());
                    }
                    self.fail(id);
                }
            }
            return;
        }
        dial.asked.extend(addresses.iter().cloned());
        // `Always`: a dead connection that is being avoided, or a foreign dial that drags on, must not stop us.
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .addresses(addresses.clone())
            .override_dial_concurrency_factor(NonZeroU8::MAX)
            .allocate_new_port()
            .build();
        let attempt = Attempt {
            target: Target::Peer(peer),
            addresses,
        };
        self.attempts.insert(options.connection_id(), attempt);
        self.actions.push_back(Action::Dial(options));
    }

    /// The connection under an opening is of no use.
    fn start_over(
        &mut self,
        id: u64,
        connection: ConnectionId,
        failure: DialFailure,
        now: Instant,
        around: &mut dyn Surroundings,
    ) {
        let Some(opening) = self.openings.get_mut(&id) else {
            return;
        };
        opening.note(around.address_of(&connection), failure);
        opening.streams_on = None;
        opening.avoid.push(connection);
        if opening.avoid.len() > usize::from(RETRIES_MAX) {
            self.fail(id);
        } else {
            self.advance(id, now, around);
        }
    }

    /// Whether some address of an opening whose peer is not known is being dialled.
    fn is_dialling_for(&self, id: u64) -> bool {
        self.attempts
            .values()
            .any(|attempt| matches!(attempt.target, Target::Opening(other) if other == id))
    }

    fn fail_if_nothing_is_left(&mut self, id: u64) {
        if !self.is_dialling_for(id)
            && self
                .openings
                .get(&id)
                .is_some_and(|opening| opening.streams_on.is_none())
        {
            self.fail(id);
        }
    }

    /// The deadline: what has not answered by now timed out.
    fn time_out(&mut self, id: u64, around: &mut dyn Surroundings) {
        let Some(opening) = self.openings.get_mut(&id) else {
            return;
        };
        if let Some((connection, _)) = opening.streams_on {
            opening.note(around.address_of(&connection), DialFailure::Timeout);
        }
        if let Some(peer) = opening.peer
            && let Some(dial) = self.dials.get_mut(&peer)
        {
            dial.waiting.retain(|waiting| *waiting != id);
            opening.tried.extend(dial.failed.iter().cloned());
            if dial.waiting.is_empty() {
                self.dials.remove(&peer);
            }
        }
        let peer = opening.peer;
        let pending = self
            .attempts
            .values()
            .filter(|attempt| match attempt.target {
                Target::Opening(other) => other == id,
                Target::Peer(other) => peer == Some(other),
            });
        for address in pending.flat_map(|attempt| &attempt.addresses) {
            opening.note(Some(address.clone()), DialFailure::Timeout);
        }
        self.fail(id);
    }

    fn fail(&mut self, id: u64) {
        if let Some(opening) = self.openings.remove(&id) {
            opening.answer_failed();
        }
    }
}

impl PeerDial {
    /// When something may be dialled that is held back now.
    fn due(&self) -> Option<Instant> {
        let quic = self.quic_at.filter(|_| self.holds_quic);
        self.hold_until.into_iter().chain(quic).min()
    }
}

/// Whether TCP was refused on the host and port of an address of QUIC: no node runs there, and QUIC would say nothing
/// for seconds.
fn is_refused(quic: &Multiaddr, failed: &[(Multiaddr, DialFailure)]) -> bool {
    failed.iter().any(|(address, failure)| {
        *failure == DialFailure::Refused && socket_address(address) == socket_address(quic)
    })
}

#[cfg(test)]
mod tests;
