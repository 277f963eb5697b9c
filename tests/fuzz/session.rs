//! One engine and the peers of its share, who say what the input says: messages in their own encoding, bytes that were
//! asked for or not, and time that passes. What comes out is held to a model that knows nothing of the inside.
//!
//! An input is the share and the generator in four bytes, then one step after another: a byte that says what and who, and
//! what that needs. It is as in `node`: a piece is told to be stored or corrupt only after it arrived.

use std::time::Duration;

use rand::SeedableRng;
use shoal::content::{Bitfield, Cursor, Geometry, PieceIndex};
use shoal::engine::{
    DownCause, Input, Output, PeerKey, Random, ServiceEnd, Source, Time, Transfer, TransferConfig,
};
use shoal::wire::ShareMessage;

use super::memory::frugal_beside;
use super::model::Model;

/// Peers that there are.
pub(super) const PEERS: u8 = 8;

/// Steps of one input, so that none takes long.
const STEPS_MAX: usize = 400;

/// Bytes that an engine may hold beside what the input says: its outputs, and the state of [`PEERS`] peers. Twice what was
/// seen.
const ENGINE_BYTES: usize = 1 << 20;

/// Moments at which an engine is called once everybody is silent.
const RESTS: usize = 12;

/// Times without progress after which an engine that is called when it asks to be counts as one that never rests.
const RESTLESS: usize = 64;

/// An engine with the time, and the pieces that arrived and were not told to be stored or corrupt.
struct Played {
    transfer: Transfer,
    now: Time,
    arrived: Vec<(PeerKey, PieceIndex)>,
    model: Model,
}

/// A session from its first byte to its last; a second time it has the same outputs.
pub(super) fn session(data: &[u8]) {
    let first = frugal_beside(|_| ENGINE_BYTES, data.len(), || play(data));
    if data.get(3).is_some_and(|seed| is_repeated(*seed)) {
        assert_eq!(first, play(data), "another outcome the second time");
    }
}

/// Whether a session with this generator is played a second time: one in four, because it takes as long again.
fn is_repeated(seed: u8) -> bool {
    seed.is_multiple_of(4)
}

/// What came out, in short.
fn play(data: &[u8]) -> Option<(Option<u64>, Bitfield)> {
    let (&[shape, held, choice, seed], steps) = data.split_first_chunk::<4>()?;
    let mut played = Played::new(shape, held, choice, seed);
    let mut steps = Cursor::new(steps, usize::MAX).ok()?;
    for _ in 0..STEPS_MAX {
        let Ok(what) = steps.take::<u8>() else { break };
        if played.step(what, &mut steps).is_none() {
            break;
        }
    }
    played.rest();
    Some((played.model.outputs(), played.transfer.held().clone()))
}

/// A set of some pieces: all, none, or those whose number has a bit of `choice` in common.
fn some(count: u32, choice: u8) -> Bitfield {
    match choice {
        0 => Bitfield::new(count),
        255 => Bitfield::full(count),
        mask => {
            let mut some = Bitfield::new(count);
            let is_one = |piece: &u32| piece & u32::from(mask) != 0;
            for piece in (0..count).filter(is_one) {
                some.insert(PieceIndex::new(piece));
            }
            some
        }
    }
}

impl Played {
    fn new(shape: u8, held: u8, choice: u8, seed: u8) -> Self {
        // One to 120 pieces in up to four files, the last piece of each a short one.
        let file_lens: Vec<u64> = (0..=shape % 4)
            .map(|file| u64::from(shape / 4) / 2 * (16 << 10) + 1 + u64::from(file))
            .collect();
        let geometry = Geometry::new(16 << 10, &file_lens).expect("few and small");
        let count = geometry.piece_count();
        let (held, wanted) = (some(count, held), (choice > 1).then(|| some(count, choice)));
        let mut model = Model::new(geometry.clone(), held.clone(), wanted.clone());
        if is_repeated(seed) {
            model.keep_outputs();
        }
        let config = TransferConfig {
            geometry,
            held,
            wanted,
            rechecking: None,
            sequential: choice == 1,
            random: Random::seed_from_u64(u64::from(seed)),
        };
        let now = Time::default();
        let mut played = Self {
            transfer: Transfer::new(now, config),
            now,
            arrived: Vec::new(),
            model,
        };
        played.drain();
        played
    }

    fn step(&mut self, what: u8, steps: &mut Cursor<'_>) -> Option<()> {
        let peer = PeerKey(u32::from(what % PEERS));
        let input = match what / PEERS {
            0 => Input::Candidate {
                peer,
                source: Source::Given,
                near: peer.0 % 2 == 1,
            },
            1 => Input::ConnectFailed { peer },
            2 | 3 => Input::PeerUp {
                peer,
                near: peer.0 % 2 == 1,
            },
            4 => Input::PeerDown {
                peer,
                cause: match steps.take::<u8>().ok()? % 3 {
                    0 => DownCause::Closed,
                    1 => DownCause::Left,
                    _ => DownCause::Violation,
                },
            },
            5 => {
                let millis = Duration::from_millis(steps.take::<u16>().ok()?.into());
                self.now = self.now + millis;
                Input::Tick
            }
            6 => {
                self.now = self
                    .transfer
                    .poll_timeout(self.now)
                    .map_or(self.now, |at| at.max(self.now));
                Input::Tick
            }
            7 => Input::Received {
                peer,
                piece: self.piece(steps)?,
                bytes: steps.take::<u16>().ok()?.into(),
            },
            8 => {
                let piece = self.piece(steps)?;
                self.arrived.push((peer, piece));
                Input::PieceArrived { peer, piece }
            }
            // What was asked of the peer first, as an honest one answers.
            9..=11 => {
                let piece = self.model.asked_of(peer)?;
                self.arrived.push((peer, piece));
                self.give(Input::Received {
                    peer,
                    piece,
                    bytes: self.model.len_of(piece),
                });
                Input::PieceArrived { peer, piece }
            }
            12..=14 => {
                if self.arrived.is_empty() {
                    return Some(());
                }
                let (peer, piece) = self.arrived.remove(0);
                match what / PEERS {
                    14 => Input::PieceCorrupt { peer, piece },
                    _ => Input::PieceStored { peer, piece },
                }
            }
            15 => {
                let first = self.piece(steps)?;
                let count =
                    1 + u32::from(steps.take::<u8>().ok()?) % (self.model.count() - first.get());
                Input::PiecesLost { first, count }
            }
            30 | 31 => {
                let first = self.piece(steps)?;
                let count =
                    1 + u32::from(steps.take::<u8>().ok()?) % (self.model.count() - first.get());
                match what / PEERS {
                    30 => Input::PiecesDoubted { first, count },
                    _ => Input::PiecesFound { first, count },
                }
            }
            16 | 17 => {
                let (peer, piece) = self.model.served(peer)?;
                self.give(Input::Sent {
                    peer,
                    piece,
                    bytes: self.model.len_of(piece),
                });
                let how = ServiceEnd::Whole;
                Input::ServiceEnded { peer, piece, how }
            }
            18 => {
                let (peer, piece) = self.model.served(peer)?;
                let how = ServiceEnd::Unreadable;
                Input::ServiceEnded { peer, piece, how }
            }
            _ => Input::Message {
                peer,
                message: steps.take::<ShareMessage>().ok()?,
            },
        };
        self.give(input);
        Some(())
    }

    fn piece(&self, steps: &mut Cursor<'_>) -> Option<PieceIndex> {
        let number: u8 = steps.take().ok()?;
        Some(PieceIndex::new(u32::from(number) % self.model.count()))
    }

    fn give(&mut self, input: Input) {
        self.model.on_input(&input);
        self.transfer.handle(self.now, input);
        self.drain();
    }

    /// Performs what is to be done, and has stopped services end at once.
    fn drain(&mut self) {
        let mut stopped = Vec::new();
        while let Some(output) = self.transfer.poll_output() {
            self.model.on_output(&output);
            if let Output::StopServing { peer, piece } = output {
                stopped.push((peer, piece));
            }
        }
        self.model.compare(&self.transfer, self.now);
        for (peer, piece) in stopped {
            let how = ServiceEnd::Stopped;
            self.give(Input::ServiceEnded { peer, piece, how });
        }
    }

    /// Everybody falls silent. Time goes on, and an engine that wants to be called again and again at one moment does not
    /// let it.
    fn rest(&mut self) {
        for _ in 0..RESTS {
            let Some(at) = self.transfer.poll_timeout(self.now) else {
                return;
            };
            let mut calls = 0;
            self.now = self.now.max(at);
            while self
                .transfer
                .poll_timeout(self.now)
                .is_some_and(|at| at <= self.now)
            {
                self.give(Input::Tick);
                calls += 1;
                assert!(calls < RESTLESS, "called {calls} times at {:?}", self.now);
            }
        }
    }
}
