//! What it costs to hash and to prove: `cargo bench --bench hash`.
//!
//! A piece by its length, beside plain SHA-256 of the same bytes; then the two checks of piece hashes, in hashes. The
//! bar: the tree over a piece of 1 MiB costs at most a twentieth more than SHA-256 of its bytes.
#![allow(
    missing_docs,
    reason = "a benchmark is no interface, and a broken expectation should end it"
)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{Rng, SeedableRng};
use shoal::content::{
    Digest, LEAF_LEN, PIECE_LEN_MAX, PIECE_LEN_MIN, hash_piece, layer_root, verify_layer_range,
};
use shoal::engine::Random;
use shoal::wire::HASHES_PER_RANGE_MAX;

/// Piece lengths: the least and the most that are allowed, and between them those of a share of 512 MiB and of most large ones.
const PIECE_LENS: [u32; 4] = [PIECE_LEN_MIN, 1 << 17, 1 << 20, PIECE_LEN_MAX];

/// Pieces of the file whose hashes are checked: 64 GiB in pieces of 1 MiB.
const LAYER_LEN: u32 = 1 << 16;

/// Leaves under one of them.
const WIDTH: u32 = (1 << 20) / LEAF_LEN;

fn pieces(criterion: &mut Criterion) {
    let mut random = Random::seed_from_u64(1);
    for len in PIECE_LENS {
        let mut piece = vec![0; len as usize];
        random.fill_bytes(&mut piece);
        let mut group = criterion.benchmark_group(format!("{} KiB", len / 1024));
        group.throughput(Throughput::Bytes(u64::from(len)));
        group.bench_function("plain SHA-256", |bencher| {
            bencher.iter(|| Digest::of(black_box(&piece)));
        });
        group.bench_function("the tree over a piece", |bencher| {
            bencher.iter(|| hash_piece(black_box(&piece), len / LEAF_LEN));
        });
        group.finish();
    }
}

fn layers(criterion: &mut Criterion) {
    let layer: Vec<Digest> = (0..LAYER_LEN)
        .map(|piece| Digest::of(&piece.to_le_bytes()))
        .collect();
    let root = layer_root(&layer, WIDTH);
    // The range is the first of the file: beside it lies one subtree of each size up to half of the file.
    let sizes = (HASHES_PER_RANGE_MAX.ilog2()..LAYER_LEN.ilog2()).map(|level| 1 << level);
    let proof: Vec<Digest> = sizes
        .map(|size| layer_root(&layer[size..2 * size], WIDTH))
        .collect();
    let range = &layer[..HASHES_PER_RANGE_MAX as usize];
    let mut group = criterion.benchmark_group("piece hashes");
    group.throughput(Throughput::Elements(u64::from(LAYER_LEN)));
    group.bench_function("all of a file, to its root", |bencher| {
        bencher.iter(|| layer_root(black_box(&layer), WIDTH));
    });
    group.throughput(Throughput::Elements(u64::from(HASHES_PER_RANGE_MAX)));
    group.bench_function("a range, with proof", |bencher| {
        bencher.iter(|| {
            let is_proven = verify_layer_range(
                &root,
                LAYER_LEN,
                WIDTH,
                0,
                black_box(range),
                HASHES_PER_RANGE_MAX,
                &proof,
            );
            assert!(is_proven, "it was proven by the same tree");
        });
    });
    group.finish();
}

criterion_group!(benches, pieces, layers);
criterion_main!(benches);
