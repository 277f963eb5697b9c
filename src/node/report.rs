//! Makes the picture of a share that surfaces read.
//!
//! Only looks at the actor; the numbers are the engine's and the actor's. Called by `actor` a few times a
//! second and at every change of phase.

use std::time::Duration;

use super::actor::Actor;
use super::addresses::via_of;
use super::status::{PeerLane, Phase, ShareStatus};
use crate::content::{Bitfield, ShareId};
use crate::engine::PeerActivity;

/// Stretches of the piece map.
const MAP_MAX: u32 = 256;

/// The picture of a share of which nothing is known but its id.
pub(super) fn unknown(
    share: ShareId,
    name: String,
    total: Option<u64>,
    phase: Phase,
) -> ShareStatus {
    ShareStatus {
        share,
        name,
        phase,
        bytes: 0,
        zeros: 0,
        reused: 0,
        total,
        files: None,
        verified: (0, 0),
        downloaded: 0,
        wasted: 0,
        uploaded: 0,
        down_per_sec: 0,
        up_per_sec: 0,
        eta: None,
        availability: 0.0,
        without_holder: 0,
        offered: None,
        withheld_files: 0,
        map: Vec::new(),
        pulled: false,
        givers: 0,
        completed_peers: 0,
        stalled: None,
        withheld: None,
        peers: Vec::new(),
    }
}

/// Gives surfaces the present picture.
pub(super) fn publish(actor: &Actor) {
    actor.status.send_modify(|status| fill(actor, status));
}

fn fill(actor: &Actor, status: &mut ShareStatus) {
    status.phase = actor.phase;
    let metadata = actor
        .fetch
        .as_ref()
        .and_then(|fetch| fetch.metadata.manifest());
    if let Some(manifest) = actor
        .share
        .ready
        .get()
        .map(|ready| &ready.manifest)
        .or(metadata)
    {
        status.name = manifest.name().as_str().to_owned();
        let fetch = actor.fetch.as_ref();
        let chosen = fetch.and_then(|fetch| fetch.chosen.as_ref());
        status.total = actor.total();
        status.files = Some(chosen.map_or_else(
            || manifest.geometry().file_count(),
            crate::storage::Chosen::file_count,
        ));
    }
    let numbers = &actor.numbers;
    status.bytes = numbers.held_bytes;
    status.zeros = numbers.zero_bytes;
    status.reused = numbers.reused_bytes;
    status.verified = actor.comparing;
    status.downloaded = numbers.downloaded;
    status.givers = numbers.givers.len() as u32;
    status.completed_peers = numbers.completed.len() as u32;
    status.stalled = actor.stalled;
    status.withheld = actor.stalled.and_then(|_| actor.withheld());
    status.withheld_files = actor.withheld_files();
    let Some(transfer) = &actor.transfer else {
        status.peers = actor
            .linked
            .keys()
            .filter_map(|peer| lane(actor, *peer))
            .collect();
        return;
    };
    let engine = transfer.status(actor.now());
    status.wasted = numbers.wasted;
    status.uploaded = engine.sent;
    status.down_per_sec = engine.down_per_sec;
    status.up_per_sec = engine.up_per_sec;
    status.availability = engine.copies;
    status.without_holder = engine.without_holder;
    status.offered = Some(engine.held);
    status.pulled = engine.pulled;
    status.eta = eta(status, engine.down_per_sec);
    status.map = map(transfer.held());
    status.peers.clear();
    for peer in &engine.peers {
        let Some(mut lane) = lane(actor, actor.peers[peer.peer.0 as usize]) else {
            continue;
        };
        lane.holds = if engine.pieces == 0 {
            1.0
        } else {
            f64::from(peer.holds) / f64::from(engine.pieces)
        };
        lane.activity = peer.activity;
        lane.asked = peer.asked;
        lane.waiting = peer.waiting;
        lane.down_per_sec = peer.down_per_sec;
        lane.up_per_sec = peer.up_per_sec;
        lane.received = peer.received;
        lane.sent = peer.sent;
        status.peers.push(lane);
    }
}

fn eta(status: &ShareStatus, down_per_sec: u64) -> Option<Duration> {
    let left = status.total?.saturating_sub(status.bytes);
    (left > 0 && down_per_sec > 0).then(|| Duration::from_secs(left.div_ceil(down_per_sec)))
}

fn lane(actor: &Actor, peer: crate::content::PeerId) -> Option<PeerLane> {
    let session = &actor.linked.get(&peer)?.session;
    let address = session.remote_address().clone();
    Some(PeerLane {
        peer,
        via: via_of(&address),
        address,
        agent: session.agent().to_owned(),
        holds: 0.0,
        activity: PeerActivity::Idle,
        asked: 0,
        waiting: 0,
        down_per_sec: 0,
        up_per_sec: 0,
        received: 0,
        sent: 0,
    })
}

/// How full each stretch of the share is, 0 to 255.
fn map(held: &Bitfield) -> Vec<u8> {
    let (count, cells) = (held.len(), held.len().min(MAP_MAX));
    let mut filled = vec![0_u32; cells as usize];
    let cell_of =
        |piece: u32| (u64::from(piece) * u64::from(cells) / u64::from(count.max(1))) as u32;
    let begin = |cell: u32| (u64::from(cell) * u64::from(count)).div_ceil(u64::from(cells)) as u32;
    // By runs: what is asked for several times a second has a million pieces at times, and few gaps.
    for (first, len) in held.runs() {
        let end = first + len;
        for cell in cell_of(first)..=cell_of(end - 1) {
            let here = begin(cell).max(first)..begin(cell + 1).min(end);
            filled[cell as usize] += here.len() as u32;
        }
    }
    let size = |cell: u32| begin(cell + 1) - begin(cell);
    (0..cells)
        .zip(filled)
        .map(|(cell, filled)| (filled * 255 / size(cell).max(1)) as u8)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::PieceIndex;

    #[test]
    fn the_map_has_a_cell_for_each_piece_of_a_small_share() {
        let mut held = Bitfield::new(5);
        held.insert(PieceIndex::new(1));
        assert_eq!(map(&held), [0, 255, 0, 0, 0]);
    }

    #[test]
    fn runs_fill_the_cells_that_their_pieces_fall_into() {
        for count in [3, 256, 700, 5_000] {
            let mut held = Bitfield::new(count);
            for piece in (0..count).filter(|piece| piece % 97 < 60 && piece % 5 > 0) {
                held.insert(PieceIndex::new(piece));
            }
            let cells = count.min(MAP_MAX);
            let cell_of = |piece: u32| (piece * cells / count) as usize;
            let (mut pieces, mut filled) = (vec![0; cells as usize], vec![0; cells as usize]);
            for piece in 0..count {
                pieces[cell_of(piece)] += 1;
                filled[cell_of(piece)] += u32::from(held.contains(PieceIndex::new(piece)));
            }
            let expected = filled.iter().zip(pieces);
            let expected: Vec<u8> = expected
                .map(|(filled, pieces): (&u32, u32)| (filled * 255 / pieces) as u8)
                .collect();
            assert_eq!(map(&held), expected, "{count}");
        }
    }

    #[test]
    fn every_cell_of_a_full_share_is_full_whatever_its_size() {
        for count in [1, 255, 256, 257, 1_000, 4_097] {
            let cells = map(&Bitfield::full(count));
            assert_eq!(cells.len() as u32, count.min(MAP_MAX));
            assert!(cells.iter().all(|cell| *cell == 255), "{count}");
        }
    }
}
