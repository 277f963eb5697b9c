//! What it costs a transfer to take a piece in and pick the next, by the number of pieces:
//! `cargo bench --bench pick`.
//!
//! Forty peers hold a random half each. The bar: 2^20 pieces cost at most three times what 2^10 do.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark is no interface, and a broken expectation should end it"
)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use shoal::content::{Bitfield, Geometry, PieceIndex};
use shoal::engine::{Input, Output, PeerKey, Random, Time, Transfer, TransferConfig};
use shoal::wire::{BITFIELD_PART_LEN_MAX, ShareMessage};

const PIECE_LEN: u32 = 64 * 1024;
const PEERS: u32 = 40;

/// Pieces taken in one round; fewer than the smallest share has.
const ROUND: usize = 512;

/// A transfer of 2^`bits` pieces and the requests it has made.
struct Fetch {
    transfer: Transfer,
    now: Time,
    asked: VecDeque<(PeerKey, PieceIndex)>,
}

impl Fetch {
    fn new(bits: u32) -> Self {
        let count = 1 << bits;
        let total = u64::from(count) * u64::from(PIECE_LEN);
        let config = TransferConfig {
            geometry: Geometry::new(PIECE_LEN, &[total]).unwrap(),
            held: Bitfield::new(count),
            wanted: None,
            rechecking: None,
            sequential: false,
            random: Random::seed_from_u64(1),
        };
        let now = Time::default();
        let mut fetch = Self {
            transfer: Transfer::new(now, config),
            now,
            asked: VecDeque::new(),
        };
        let mut random = Random::seed_from_u64(2);
        for peer in (0..PEERS).map(PeerKey) {
            fetch.input(Input::PeerUp { peer, near: false });
            let held: Vec<u8> = (0..count / 8).map(|_| random.random()).collect();
            for (part, bytes) in held.chunks(BITFIELD_PART_LEN_MAX).enumerate() {
                let first = (part * BITFIELD_PART_LEN_MAX * 8) as u32;
                let bytes = bytes.to_vec();
                let message = ShareMessage::Bitfield { first, bytes };
                fetch.input(Input::Message { peer, message });
            }
        }
        fetch
    }

    fn input(&mut self, input: Input) {
        self.transfer.handle(self.now, input);
        while let Some(output) = self.transfer.poll_output() {
            if let Output::Send {
                peer,
                message: ShareMessage::Request { runs },
            } = output
            {
                let pieces = runs.iter().flat_map(|run| run.first..run.first + run.count);
                let asked = pieces.map(|piece| (peer, PieceIndex::new(piece)));
                self.asked.extend(asked);
            }
        }
    }

    fn take_in(&mut self) {
        let (peer, piece) = self.asked.pop_front().unwrap();
        self.now = self.now + Duration::from_micros(100);
        self.input(Input::PieceArrived { peer, piece });
        self.input(Input::PieceStored { peer, piece });
    }
}

fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(format!("{ROUND} pieces of a share of"));
    group.sample_size(10);
    for bits in [10, 15, 20] {
        group.bench_function(format!("2^{bits}"), |bencher| {
            bencher.iter_batched(
                || Fetch::new(bits),
                |mut fetch| {
                    (0..ROUND).for_each(|_| fetch.take_in());
                    black_box(fetch)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, pick);
criterion_main!(benches);
