//! What it costs to write and to read what peers say: `cargo bench --bench frame`.
//!
//! Frames of the control stream by message, the smallest and the largest of those that a transfer sends often, and the
//! header before a slice of data. The bar: what is said about a piece of 1 MiB (its part of a request, serving, have, and
//! the headers of four slices) costs less than a thousandth of hashing it, by `cargo bench --bench hash`.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a benchmark is no interface, and a broken expectation should end it"
)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use shoal::engine::tuning::REQUESTS_MAX;
use shoal::wire::{
    BITFIELD_PART_LEN_MAX, Control, DataHeader, DataKind, FrameBuffer, Run, SLICE_LEN_MAX,
    ShareMessage, ShareNumber, encode_frame,
};

/// Bytes read from a stream at once, as the control reader of a session does.
const READ_LEN: usize = 16 * 1024;

/// Records in a message about peers, and the bytes of one with three addresses.
const RECORDS: usize = 20;
const RECORD_LEN: usize = 260;

fn messages() -> Vec<(&'static str, Control)> {
    let share = |message| Control::Share {
        number: ShareNumber(1),
        message,
    };
    let one = vec![Run {
        first: 70_000,
        count: 1,
    }];
    // None next to another, so that no two share a run.
    let many = (0..REQUESTS_MAX)
        .map(|at| Run {
            first: at * 1_000,
            count: 1,
        })
        .collect();
    let bytes = vec![0xa5; BITFIELD_PART_LEN_MAX];
    let records = vec![vec![7; RECORD_LEN]; RECORDS];
    vec![
        ("keep-alive", Control::KeepAlive),
        ("have of 1 piece", share(ShareMessage::Have { runs: one })),
        (
            "request of 512 pieces",
            share(ShareMessage::Request { runs: many }),
        ),
        (
            "32 KiB of bitfield",
            share(ShareMessage::Bitfield { first: 0, bytes }),
        ),
        (
            "20 peer records",
            share(ShareMessage::Peers {
                records: records.into(),
            }),
        ),
    ]
}

fn frames(criterion: &mut Criterion) {
    for (name, message) in messages() {
        let mut frame = Vec::new();
        encode_frame(&message, &mut frame);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(frame.len() as u64));
        let mut out = Vec::with_capacity(frame.len());
        group.bench_function("write", |bencher| {
            bencher.iter(|| {
                out.clear();
                encode_frame(black_box(&message), &mut out);
            });
        });
        let mut frames = FrameBuffer::default();
        group.bench_function("read", |bencher| {
            bencher.iter(|| {
                for part in black_box(&frame).chunks(READ_LEN) {
                    frames.feed(part);
                    while let Some(message) = frames.next_message().unwrap() {
                        black_box(message);
                    }
                }
            });
        });
        group.finish();
    }
}

fn headers(criterion: &mut Criterion) {
    let header = DataHeader {
        share: ShareNumber(1),
        kind: DataKind::Piece {
            piece: 70_000,
            offset: SLICE_LEN_MAX,
        },
        len: SLICE_LEN_MAX,
    };
    criterion.bench_function("header of a slice, write and read", |bencher| {
        bencher.iter(|| DataHeader::decode(black_box(&black_box(header).encode())).unwrap());
    });
}

criterion_group!(benches, frames, headers);
criterion_main!(benches);
