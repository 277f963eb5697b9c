//! Carries out what the engine says: each output becomes a message, a job, a dial or an event.
//!
//! Decides nothing. Nothing here waits: queues that are full and dials that take time are handled by
//! sessions and tasks. Called by `actor`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::actor::Actor;
use super::addresses::via_of;
use super::hub::tried_of;
use super::session::DataJob;
use super::share::{SessionId, ShareInput};
use super::status::{NodeEvent, Phase};
use crate::content::{PeerId, PieceIndex};
use crate::engine::{DownCause, Event, Input, Output, Parting, PeerKey};
use crate::network::PeerRecord;
use crate::wire::{RECORDS_MAX, ShareMessage};

/// A dial, the opening of the session and the peer's answer take at most this long.
const DIAL_MAX: Duration = Duration::from_secs(15);

/// How long the end of a share waits for the disk: the process has two seconds in all.
const LAST_SYNC_MAX: Duration = Duration::from_secs(1);

pub(super) fn perform(actor: &mut Actor, output: Output) {
    match output {
        Output::Send { peer, message } => send(actor, peer, message),
        Output::Serve { peer, piece } => serve(actor, peer, piece),
        Output::StopServing { peer, piece } => {
            if let Some(stopped) = actor.services.get(&(actor.peers[peer.0 as usize], piece)) {
                stopped.store(true, Ordering::Relaxed);
            }
        }
        Output::Connect { peer } => connect(actor, actor.peers[peer.0 as usize]),
        Output::Disconnect { peer, why } => disconnect(actor, actor.peers[peer.0 as usize], why),
        Output::FindPeers => look_up(actor),
        Output::Event(event) => tell(actor, event),
    }
}

fn send(actor: &Actor, peer: PeerKey, message: ShareMessage) {
    let Some(linked) = actor.linked.get(&actor.peers[peer.0 as usize]) else {
        return;
    };
    if let (ShareMessage::Request { runs }, Some(ready)) = (&message, actor.share.ready.get()) {
        let pieces = runs
            .iter()
            .flat_map(|run| run.first..run.first + run.count)
            .map(PieceIndex::new);
        linked.session.expect_bytes(
            pieces
                .map(|piece| u64::from(ready.geometry().len_of(piece)))
                .sum(),
        );
    }
    linked.session.send(&actor.share, message);
}

fn serve(actor: &mut Actor, peer: PeerKey, piece: PieceIndex) {
    let peer = actor.peers[peer.0 as usize];
    let Some(linked) = actor.linked.get(&peer) else {
        return;
    };
    let stopped = Arc::new(AtomicBool::new(false));
    actor.services.insert((peer, piece), Arc::clone(&stopped));
    linked.session.send_data(DataJob::Piece {
        share: actor.share.id,
        piece,
        stopped,
    });
}

/// Dials `peer` and opens the share with it.
pub(super) fn connect(actor: &mut Actor, peer: PeerId) {
    actor.dialled.insert(peer, Instant::now() + DIAL_MAX);
    let (hub, share) = (Arc::clone(&actor.hub), actor.share.clone());
    let addresses = actor.addresses.get(&peer).cloned().unwrap_or_default();
    actor.hub.shop.tasks.spawn(async move {
        match hub.session_with(peer, addresses).await {
            Ok(session) => session.open(&share),
            Err(error) => {
                let tried = tried_of(&error);
                // The share has left: nobody waits for this.
                let _ = share
                    .inputs
                    .send(ShareInput::DialFailed {
                        peer: Some(peer),
                        tried,
                    })
                    .await;
            }
        }
    });
}

/// Looks in the DHT; what is found comes as candidates.
pub(super) fn look_up(actor: &Actor) {
    let (network, key) = (actor.hub.network.clone(), actor.share.id.provider_key());
    actor
        .hub
        .shop
        .tasks
        .spawn(async move { network.lookup(key).await });
}

/// Tells peers of the share about each other, where that is due.
pub(super) fn tell_peers(actor: &mut Actor, now: Instant) {
    let own = actor.hub.own_records();
    for (peer, records) in actor.exchange.due(now, &own, &mut rand::rng()) {
        if let Some(linked) = actor.linked.get(&peer) {
            let message = ShareMessage::Peers {
                records: records.into(),
            };
            linked.session.send(&actor.share, message);
        }
    }
}

/// Checks signatures where that may take its time; the answer comes as an input.
pub(super) fn check_records(actor: &Actor, session: SessionId, records: Vec<Vec<u8>>) {
    let inputs = actor.share.inputs.clone();
    actor.hub.shop.tasks.spawn_blocking(move || {
        let checked = if records.len() > RECORDS_MAX {
            Err(format!("{} peer records at once", records.len()))
        } else {
            let opened: Result<Vec<PeerRecord>, _> =
                records.into_iter().map(PeerRecord::open).collect();
            opened.map_err(|error| error.to_string())
        };
        let input = match checked {
            Ok(records) => ShareInput::Records { session, records },
            Err(reason) => ShareInput::BadRecords { session, reason },
        };
        // The share has left: nobody waits for this.
        let _ = inputs.blocking_send(input);
    });
}

/// Brings what was stored to the disk itself, on a blocking thread; the answer comes as an input.
pub(super) fn sync(actor: &Actor) {
    let (ready, inputs) = (Arc::clone(&actor.share.ready), actor.share.inputs.clone());
    actor.hub.shop.tasks.spawn_blocking(move || {
        if let Some(ready) = ready.get() {
            // The share has left: nobody waits for this.
            let _ = inputs.blocking_send(ShareInput::Synced(ready.store.sync()));
        }
    });
}

/// The same for the last time, when inputs are not taken any more.
pub(super) async fn sync_last(actor: &Actor) {
    let ready = Arc::clone(&actor.share.ready);
    let synced = tokio::task::spawn_blocking(move || ready.get().map(|ready| ready.store.sync()));
    // Without an answer in time, or with a bad one, the next run after a power loss reads again what is not known to be
    // on the disk.
    let _ = tokio::time::timeout(LAST_SYNC_MAX, synced).await;
}

fn disconnect(actor: &mut Actor, peer: PeerId, why: Parting) {
    let fault = match why {
        Parting::Corrupt => Some((DownCause::Violation, "it sent a bad piece".to_owned())),
        Parting::Violation => Some((DownCause::Violation, "it broke the protocol".to_owned())),
        Parting::Silent => Some((DownCause::Closed, "it fell silent".to_owned())),
        Parting::Done | Parting::Full => None,
    };
    unlink(actor, peer, fault);
}

/// Leaves the share with `peer` without telling the engine, which has said so or has not begun. A peer at
/// fault loses its whole session.
pub(super) fn unlink(actor: &mut Actor, peer: PeerId, fault: Option<(DownCause, String)>) {
    let complete = actor.holds_all();
    let Some(linked) = actor.linked.remove(&peer) else {
        return;
    };
    actor.end_session(linked.session.id());
    actor.exchange.down(&peer);
    actor.services.retain(|(of, _), _| *of != peer);
    let address = linked.session.remote_address().clone();
    let via = via_of(&address);
    let reason = fault
        .as_ref()
        .map_or_else(|| "done".to_owned(), |(_, reason)| reason.clone());
    actor.hub.tell(NodeEvent::PeerLost {
        peer,
        address,
        via,
        reason,
    });
    match fault {
        Some((cause, reason)) => linked.session.end(cause, reason),
        None => linked.session.close_share(&actor.share, complete),
    }
    actor.dial_failed(peer);
}

/// The link to `peer` is gone: the engine is told if it knew the peer.
pub(super) fn forget(actor: &mut Actor, peer: PeerId, cause: DownCause, reason: &str) {
    let Some(linked) = actor.linked.remove(&peer) else {
        return;
    };
    actor.end_session(linked.session.id());
    actor.exchange.down(&peer);
    actor.services.retain(|(of, _), _| *of != peer);
    let address = linked.session.remote_address().clone();
    let via = via_of(&address);
    if linked.is_up {
        let key = actor.key(peer);
        actor.engine(Input::PeerDown { peer: key, cause });
    }
    actor.hub.tell(NodeEvent::PeerLost {
        peer,
        address,
        via,
        reason: reason.to_owned(),
    });
    actor.dial_failed(peer);
}

fn tell(actor: &mut Actor, event: Event) {
    let id = |key: PeerKey| actor.peers[key.0 as usize];
    let event = match event {
        Event::Reroute {
            peer,
            pieces,
            to,
            after,
            cause,
        } => NodeEvent::Rerouted {
            peer: id(peer),
            pieces,
            to: to.into_iter().map(id).collect(),
            after,
            cause,
        },
        Event::Stalled { cause, missing } => return actor.tell_stalled(cause, missing),
        Event::PeerCompleted { peer } => {
            let peer = id(peer);
            actor.numbers.completed.insert(peer);
            NodeEvent::PeerCompleted { peer }
        }
        Event::Completed => {
            // What was read again after the end is no new end.
            if actor.fetch.is_some() && actor.phase != Phase::Seed {
                actor.finish();
            }
            return;
        }
    };
    actor.hub.tell(event);
}
