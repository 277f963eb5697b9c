//! Inputs too long to be committed, which claim as much memory as their kind can: at their size the 64 KiB that a decoder
//! may claim in any case hide nothing.

use data_encoding::BASE32_NOPAD;
use shoal::content::{Digest, encode};

use super::run;

/// The front of a manifest of a folder `t` with pieces of 64 KiB and `count` entries.
fn manifest(count: u32, records: Vec<u8>) -> Vec<u8> {
    let front = [1, 1, 1, b't', 252, 0, 0, 1, 0];
    [&front[..], &encode(&count), &records].concat()
}

/// A message of share 1: its tag, the length of its list, and as many bytes as a frame has room for.
fn message(tag: u8, count: u32, rest: u8) -> Vec<u8> {
    let mut body = [&[4, 1, tag][..], &encode(&count)].concat();
    body.resize(64 * 1024, rest);
    body
}

/// Names of three letters in their order.
fn names(count: usize) -> impl Iterator<Item = [u8; 3]> {
    let digit = |number: usize| b"0123456789abcdefghijklmnopqrstuvwxyz"[number % 36];
    (0..count).map(move |number| [digit(number / 1296), digit(number / 36), digit(number)])
}

fn bombs() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut bombs = Vec::new();
    let mut bomb = |target, what, bytes| bombs.push((target, what, bytes));
    for tag in 0..=20 {
        bomb(
            "control",
            "short elements that are there",
            message(tag, 32_000, 0),
        );
        bomb("control", "a claim", message(tag, u32::MAX, 0));
        bomb("control", "long elements", message(tag, 50, 250));
    }
    for count in [1 << 20, 300_000] {
        bomb("manifest", "one path again and again", {
            manifest(count, [1, b'a', 2].repeat(300_000))
        });
        bomb("manifest", "empty files, the last one wrong", {
            let files = names(40_000).flat_map(|name| [&[3], &name[..], &[0, 0, 0, 0]].concat());
            manifest(40_000, files.chain([9]).collect())
        });
        bomb("manifest", "numbers in a wasteful form", {
            let wasteful = |name: [u8; 3]| [&[251, 3, 0], &name[..], &[2]].concat();
            manifest(40_000, names(40_000).flat_map(wasteful).collect())
        });
    }
    bomb("manifest", "empty files", {
        let files = names(40_000).flat_map(|name| [&[3], &name[..], &[0, 0, 0, 0]].concat());
        manifest(40_000, files.collect())
    });
    bomb("manifest", "empty folders", {
        let folders = names(40_000).flat_map(|name| [&[3], &name[..], &[2]].concat());
        manifest(40_000, folders.collect())
    });
    bomb("info", "times of files nobody knows", {
        let times = vec![0; 1 << 20];
        [&[255, 1], &encode(&(1_u32 << 20))[..], &times].concat()
    });
    bomb("path", "elements", b"ab/".repeat(1 << 18));
    bomb(
        "path",
        "a link",
        [b"a\n".to_vec(), b"../".repeat(1 << 18)].concat(),
    );
    bomb("link", "addresses", {
        // Version, share, peer, name, length, and no more than the longest link has room for.
        let mut payload = [&[1][..], &[7; 32], &[0, 0, 0], &encode(&5_000_u32)].concat();
        payload.resize(5_000, 0);
        let sum = Digest::of_parts(&[b"shoal link", &payload]);
        BASE32_NOPAD
            .encode(&[&payload[..], &sum.as_bytes()[..4]].concat())
            .into_bytes()
    });
    let frame = |body: &[u8]| [&(body.len() as u32).to_be_bytes()[..], body].concat();
    bomb(
        "frame",
        "many short records",
        frame(&message(14, 60_000, 0)),
    );
    bomb("frame", "keep-alives", frame(&[5]).repeat(20_000));
    bombs
}

#[test]
fn a_long_input_claims_no_more_for_each_byte_than_a_short_one() {
    let bombs = bombs();
    let broken = bombs.iter().filter(|(name, what, bytes)| {
        let is_broken = std::panic::catch_unwind(|| run(name, bytes)).is_err();
        if is_broken {
            eprintln!("`{name}`: {what}, {} bytes", bytes.len());
        }
        is_broken
    });
    assert_eq!(broken.count(), 0);
}
