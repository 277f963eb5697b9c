//! The rules of names over manifests as a hostile peer could write them, byte by byte, against a slow oracle.
//! The oracle is written from the protocol document and calls nothing of ours; encoder and order are its own too.
//! `SHOAL_NAME_MANIFESTS` raises the number of manifests; a million of them are the promise.

use std::collections::BTreeMap;

use super::super::testing::Numbers;
use super::*;

/// Manifests in the suite.
const MANIFESTS: u32 = 50_000;

/// An entry as written: nothing about it is sure.
#[derive(Clone, Debug)]
struct Raw {
    path: Vec<u8>,
    kind: RawKind,
}

#[derive(Clone, Debug)]
enum RawKind {
    File(u8),
    Symlink(Vec<u8>),
    Folder,
}

#[derive(Debug)]
struct RawManifest {
    is_folder: bool,
    name: Vec<u8>,
    entries: Vec<Raw>,
}

/// What the rules say.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    /// Each text that breaks a rule; one of them has to be named.
    Refused(Vec<Vec<u8>>),
    /// Bytes that are no text, or entries out of order: nothing has a name that could be said.
    Unreadable,
}

/// Whether one element of a path may be there at all.
fn is_element(element: &[u8]) -> bool {
    let is_dots = element == b"." || element == b"..";
    let is_forbidden = element.iter().any(|byte| [0, b'\\'].contains(byte));
    !element.is_empty() && !is_dots && !is_forbidden && element.len() <= 255
}

fn elements(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == b'/').collect()
}

fn is_path(path: &[u8]) -> bool {
    let elements = elements(path);
    path.len() <= 4096 && elements.len() <= 64 && elements.iter().all(|element| is_element(element))
}

/// Follows a link from its folder, never above the share, never back down and up again.
fn is_target(link: &[u8], target: &[u8]) -> bool {
    let parts = elements(target);
    let ups = parts.iter().take_while(|part| **part == b"..").count();
    let folders = elements(link).len() - 1;
    let below = parts[ups..].join(&b'/');
    target.len() <= 4096 && ups <= folders && (parts.len() == ups || is_path(&below))
}

fn judge(manifest: &RawManifest) -> Verdict {
    let mut texts = vec![&manifest.name];
    for entry in &manifest.entries {
        texts.push(&entry.path);
        if let RawKind::Symlink(target) = &entry.kind {
            texts.push(target);
        }
    }
    if texts.iter().any(|text| std::str::from_utf8(text).is_err()) {
        return Verdict::Unreadable;
    }
    let mut broken = Vec::new();
    if !is_path(&manifest.name) || elements(&manifest.name).len() != 1 {
        broken.push(manifest.name.clone());
    }
    for (index, entry) in manifest.entries.iter().enumerate() {
        if !is_path(&entry.path) {
            broken.push(entry.path.clone());
        } else if let RawKind::Symlink(target) = &entry.kind
            && !is_target(&entry.path, target)
        {
            broken.push(entry.path.clone());
        }
        for (other_index, other) in manifest.entries.iter().enumerate() {
            let (ours, theirs) = (elements(&entry.path), elements(&other.path));
            if index != other_index && theirs.starts_with(&ours) {
                broken.push(entry.path.clone());
            }
        }
    }
    let is_one_file = match &manifest.entries[..] {
        [
            Raw {
                path,
                kind: RawKind::File(_),
            },
        ] => *path == manifest.name,
        _ => false,
    };
    if !manifest.is_folder && !is_one_file {
        broken.push(manifest.name.clone());
    }
    if !broken.is_empty() {
        return Verdict::Refused(broken);
    }
    let in_order = |pair: &[Raw]| elements(&pair[0].path) <= elements(&pair[1].path);
    match manifest.entries.windows(2).all(in_order) {
        true => Verdict::Accepted,
        false => Verdict::Unreadable,
    }
}

/// Little-endian numbers of variable length, as the dump beside `Manifest` shows them.
fn number(value: usize, bytes: &mut Vec<u8>) {
    match value {
        0..=250 => bytes.push(value as u8),
        251..=0xffff => {
            bytes.push(251);
            bytes.extend((value as u16).to_le_bytes());
        }
        _ => {
            bytes.push(252);
            bytes.extend((value as u32).to_le_bytes());
        }
    }
}

fn text(text: &[u8], bytes: &mut Vec<u8>) {
    number(text.len(), bytes);
    bytes.extend(text);
}

fn write(manifest: &RawManifest) -> Vec<u8> {
    let mut bytes = vec![1, u8::from(manifest.is_folder)];
    text(&manifest.name, &mut bytes);
    number(1 << 16, &mut bytes);
    number(manifest.entries.len(), &mut bytes);
    for entry in &manifest.entries {
        text(&entry.path, &mut bytes);
        match &entry.kind {
            RawKind::File(0) => bytes.extend([0, 0, 0, 0]),
            RawKind::File(len) => {
                bytes.extend([0, *len, 1]);
                bytes.extend([7; 32]);
                bytes.push(len % 2);
            }
            RawKind::Symlink(target) => {
                bytes.push(1);
                text(target, &mut bytes);
            }
            RawKind::Folder => bytes.push(2),
        }
    }
    bytes
}

/// Elements that are fine, or that only some systems cannot hold.
const HARMLESS: [&str; 24] = [
    "a",
    "b",
    "A",
    "ab",
    "a b",
    "...",
    "..a",
    ".hidden",
    "aux",
    "NUL.txt",
    "COM1",
    "C:",
    "12:30",
    "dot.",
    "space ",
    " ",
    "*?<>|\"",
    "\u{1b}[2J",
    "line\nbreak",
    "\u{202e}cod.exe",
    "\u{e9}",
    "e\u{301}",
    "\u{1f433}",
    "\u{feff}",
];

/// Elements that no share may have.
const BROKEN: [&str; 10] = [
    "", ".", "..", "\0", "a\0b", "\\", "..\\x", "C:\\x", "\\\\host", "a\\",
];

fn element(numbers: &mut Numbers, one_in: u32) -> Vec<u8> {
    let chosen = |numbers: &mut Numbers, from: &[&str]| {
        from[numbers.below(from.len() as u32) as usize]
            .as_bytes()
            .to_vec()
    };
    if numbers.below(one_in) > 0 {
        return match numbers.below(60) {
            0 => vec![b'e'; 255],
            1 => "\u{e9}".repeat(127).into_bytes(),
            _ => chosen(numbers, &HARMLESS),
        };
    }
    match numbers.below(14) {
        0 => vec![b'e'; 256 + numbers.below(300) as usize],
        1 => vec![b'a', 0xff],
        2 => vec![0xc0, 0xae, 0xc0, 0xae],
        3 => "\u{e9}".repeat(128).into_bytes(),
        _ => chosen(numbers, &BROKEN),
    }
}

fn path(numbers: &mut Numbers, one_in: u32) -> Vec<u8> {
    let depth = match numbers.below(120) {
        // About the limits of depth and of length.
        0 => 63 + numbers.below(4),
        1 => return vec![vec![b'e'; 254]; 16 + numbers.below(2) as usize].join(&b'/'),
        2 => {
            let mut long = vec![vec![b'e'; 255]; 16].join(&b'/');
            long.truncate(4094 + numbers.below(2) as usize);
            long.extend(vec![b'f'; numbers.below(3) as usize]);
            return long;
        }
        _ => 1 + numbers.below(3),
    };
    let parts: Vec<_> = (0..depth).map(|_| element(numbers, one_in)).collect();
    parts.join(&b'/')
}

fn target(numbers: &mut Numbers, one_in: u32) -> Vec<u8> {
    let ups = numbers.below(3) as usize;
    let mut parts = vec![b"..".to_vec(); ups];
    if ups == 0 || numbers.below(2) == 0 {
        parts.push(path(numbers, one_in));
    }
    parts.join(&b'/')
}

fn draw(numbers: &mut Numbers) -> RawManifest {
    // Half of them with hardly a broken text, so that many are accepted.
    let one_in = if numbers.below(2) == 0 { 400 } else { 12 };
    let count = numbers.below(6);
    let mut entries: Vec<Raw> = (0..count)
        .map(|_| Raw {
            path: path(numbers, one_in),
            kind: match numbers.below(8) {
                0 => RawKind::Symlink(target(numbers, one_in)),
                1 => RawKind::Folder,
                _ => RawKind::File(numbers.below(200) as u8),
            },
        })
        .collect();
    let copied = entries.first().cloned();
    match (numbers.below(16), copied) {
        (0, Some(copy)) => entries.push(copy),
        (1, Some(mut below)) => {
            below.path = [&below.path[..], b"below"].join(&b'/');
            entries.push(below);
        }
        _ => {}
    }
    if numbers.below(20) > 0 {
        entries.sort_by(|left, right| elements(&left.path).cmp(&elements(&right.path)));
    }
    let is_folder = numbers.below(8) > 0;
    let name = match (&entries[..], is_folder) {
        ([only], false) if numbers.below(4) > 0 => only.path.clone(),
        _ => element(numbers, one_in),
    };
    RawManifest {
        is_folder,
        name,
        entries,
    }
}

/// The beginning of a text as an error would show it.
fn as_shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    escape_hostile(&text.chars().take(40).collect::<String>())
}

#[test]
fn hostile_manifests_are_refused_as_a_whole_and_the_offender_is_named() {
    let count =
        std::env::var("SHOAL_NAME_MANIFESTS").map_or(MANIFESTS, |text| text.parse().unwrap());
    let mut numbers = Numbers::seeded(5);
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for turn in 0..count {
        let raw = draw(&mut numbers);
        let bytes = write(&raw);
        let decoded = Manifest::decode(&bytes);
        let verdict = judge(&raw);
        let kind = match (&verdict, &decoded) {
            (Verdict::Accepted, Ok(manifest)) => {
                assert_eq!(manifest.encode(), bytes, "{turn}: {raw:?}");
                "accepted"
            }
            (Verdict::Unreadable, Err(_)) => "unreadable",
            (Verdict::Refused(broken), Err(error)) => {
                let message = error.to_string();
                assert!(!message.contains(char::is_control), "{turn}: {message:?}");
                // Out of order as well: said first, before entries are compared with each other.
                let is_unsorted = matches!(error, ManifestError::NotCanonical);
                let is_named = broken.iter().any(|text| message.contains(&as_shown(text)));
                assert!(is_named || is_unsorted, "{turn}: {message} for {raw:?}");
                match error {
                    ManifestError::Path(PathError::TooLong { .. }) => "too long",
                    ManifestError::Path(PathError::TooDeep { .. }) => "too deep",
                    ManifestError::Path(PathError::Absolute { .. }) => "absolute",
                    ManifestError::Path(PathError::EmptyElement { .. }) => "empty element",
                    ManifestError::Path(PathError::DotElement { .. }) => "dots",
                    ManifestError::Path(PathError::Forbidden { .. }) => "forbidden",
                    ManifestError::Path(PathError::ElementTooLong { .. }) => "long element",
                    ManifestError::Path(PathError::Empty) => "empty",
                    ManifestError::Duplicate { .. } => "duplicate",
                    ManifestError::NotAFolder { .. } => "file and folder",
                    ManifestError::SymlinkTarget { .. } => "symlink",
                    ManifestError::NotOneFile { .. } => "not one file",
                    ManifestError::NotCanonical => "unsorted",
                    other => panic!("{turn}: {other} for {raw:?}"),
                }
            }
            (verdict, decoded) => panic!("{turn}: {verdict:?}, but {decoded:?} for {raw:?}"),
        };
        *seen.entry(kind).or_default() += 1;
    }
    eprintln!("{count} manifests: {seen:?}");
    // Each rule was broken alone many times, and what is harmless passed.
    assert_eq!(seen.len(), 15, "{seen:?}");
    assert!(
        seen.values().all(|times| *times * 5_000 >= count),
        "{seen:?}"
    );
    assert!(seen["accepted"] * 5 >= count, "{seen:?}");
}
