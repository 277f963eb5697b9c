//! Our hash trees against trees nobody here made: torrents written by libtorrent.
//!
//! Compares the root and the piece layer of every file in `tests/data/*.torrent`. The content is not kept: it is
//! made again from the length alone, as `scripts/make-merkle-golden` documents.
//!
//! Source: BEP 3 (bencoding), BEP 52 (`file tree`, `pieces root`, `piece layers`).

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::Path};

use shoal::content::{
    Digest, Entry, EntryKind, Geometry, HashesBuilder, Layout, Manifest, Name, PieceHashes,
    RelativePath, hash_piece, layer_root,
};

/// Piece length of every torrent, in bytes: four leaves.
const PIECE_LEN: u32 = 64 * 1024;

#[test]
fn roots_and_layers_of_single_files_are_those_of_libtorrent() {
    // Files, and those of them with a layer.
    let names: [(&str, usize); 7] = [
        ("one-byte", 0),
        ("leaf-less-one", 0),
        ("leaf", 0),
        ("leaf-plus-one", 0),
        ("piece", 0),
        ("piece-plus-one", 1),
        ("many-pieces", 1),
    ];
    for (name, layer_count) in names {
        let torrent = Torrent::read(name);
        assert_eq!(torrent.files.len(), 1, "{name}");
        assert_eq!(torrent.check_layers(), layer_count, "{name}");
    }
}

#[test]
fn roots_and_layers_of_a_folder_are_those_of_libtorrent() {
    let torrent = Torrent::read("folder");
    assert_eq!(torrent.files.len(), 8);
    assert_eq!(torrent.check_layers(), 2);
}

#[test]
fn a_manifest_with_the_roots_of_libtorrent_takes_its_layers() {
    let torrent = Torrent::read("folder");
    let entries = torrent.files.iter().map(|(path, file)| Entry {
        path: RelativePath::parse(path).unwrap(),
        kind: EntryKind::File {
            len: file.len,
            root: file.root,
            executable: false,
        },
    });
    let name = Name::parse("folder").unwrap();
    let manifest = Manifest::new(name, Layout::Folder, entries.collect()).unwrap();
    assert_eq!(
        manifest.geometry().piece_len(),
        PIECE_LEN,
        "the rule picks the torrent's length"
    );

    let digests = manifest.files().flat_map(|(_, file)| match file.root {
        Some(root) => torrent.layers.get(&root).cloned().unwrap_or(vec![root]),
        None => vec![],
    });
    let hashes = PieceHashes::from_digests(&manifest, digests.collect()).unwrap();

    let mut builder = HashesBuilder::new(&manifest);
    while let Some(range) = builder.next_missing(32, &|_| false) {
        let (digests, proof) = hashes.prove(manifest.geometry(), range).unwrap();
        builder.insert(range, digests, &proof).unwrap();
    }
    assert_eq!(builder.finish(), Some(hashes));
}

struct File {
    len: u64,
    root: Option<Digest>,
}

struct Torrent {
    files: BTreeMap<String, File>,
    layers: BTreeMap<Digest, Vec<Digest>>,
}

impl Torrent {
    fn read(name: &str) -> Self {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let bytes = fs::read(data.join(format!("{name}.torrent"))).unwrap();
        let mut rest = &bytes[..];
        let torrent = Bencode::read(&mut rest);
        assert!(rest.is_empty());
        let info = torrent.get("info");
        assert_eq!(info.get("meta version").number(), 2);
        assert_eq!(info.get("piece length").number(), u64::from(PIECE_LEN));

        let mut files = BTreeMap::new();
        collect_files(info.get("file tree"), "", &mut files);
        let layers = torrent.get("piece layers").dict().iter();
        let layers = layers
            .map(|(root, layer)| (digest(root), layer.digests()))
            .collect();
        Self { files, layers }
    }

    /// Hashes every file anew and compares; returns how many have a layer.
    fn check_layers(&self) -> usize {
        let mut layer_count = 0;
        for (path, file) in &self.files {
            let content = content(file.len);
            let geometry = Geometry::new(PIECE_LEN, &[file.len]).unwrap();
            let layer: Vec<Digest> = geometry
                .pieces()
                .map(|piece| {
                    let span = geometry.locate(piece);
                    let first = span.offset as usize;
                    let bytes = &content[first..first + span.len as usize];
                    hash_piece(bytes, geometry.width_of(piece))
                })
                .collect();
            let root = (!layer.is_empty()).then(|| layer_root(&layer, geometry.piece_width()));
            assert_eq!(root, file.root, "root of {path}");
            if file.len > u64::from(PIECE_LEN) {
                assert_eq!(
                    self.layers.get(&root.unwrap()),
                    Some(&layer),
                    "layer of {path}"
                );
                layer_count += 1;
            }
        }
        assert_eq!(layer_count, self.layers.len());
        layer_count
    }
}

fn collect_files(tree: &Bencode<'_>, folder: &str, files: &mut BTreeMap<String, File>) {
    for (name, node) in tree.dict() {
        let path = format!("{folder}{}", str::from_utf8(name).unwrap());
        if let Some(file) = node.dict().get(&b""[..]) {
            let root = file
                .dict()
                .get(&b"pieces root"[..])
                .map(|root| digest(root.text()));
            files.insert(
                path,
                File {
                    len: file.get("length").number(),
                    root,
                },
            );
        } else {
            collect_files(node, &format!("{path}/"), files);
        }
    }
}

fn digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(bytes.try_into().unwrap())
}

/// `len` bytes of SplitMix64, seeded with `len`, each word least significant byte first.
fn content(len: u64) -> Vec<u8> {
    let mut state = len;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    });
    words
        .flat_map(u64::to_le_bytes)
        .take(len as usize)
        .collect()
}

/// A value of a torrent. Panics on what torrents do not have.
enum Bencode<'a> {
    Number(u64),
    Text(&'a [u8]),
    Dict(BTreeMap<&'a [u8], Self>),
}

impl<'a> Bencode<'a> {
    /// Takes one value from the front of `rest`.
    fn read(rest: &mut &'a [u8]) -> Self {
        match rest[0] {
            b'i' => {
                *rest = &rest[1..];
                Self::Number(read_number(rest, b'e'))
            }
            b'd' => {
                *rest = &rest[1..];
                let mut entries = BTreeMap::new();
                while rest[0] != b'e' {
                    let key = read_text(rest);
                    entries.insert(key, Self::read(rest));
                }
                *rest = &rest[1..];
                Self::Dict(entries)
            }
            _ => Self::Text(read_text(rest)),
        }
    }

    fn get(&self, key: &str) -> &Self {
        &self.dict()[key.as_bytes()]
    }

    fn dict(&self) -> &BTreeMap<&'a [u8], Self> {
        let Self::Dict(entries) = self else {
            panic!("not a dictionary")
        };
        entries
    }

    fn number(&self) -> u64 {
        let Self::Number(number) = self else {
            panic!("not a number")
        };
        *number
    }

    fn text(&self) -> &'a [u8] {
        let Self::Text(text) = self else {
            panic!("not a string")
        };
        text
    }

    fn digests(&self) -> Vec<Digest> {
        let (digests, rest) = self.text().as_chunks::<32>();
        assert!(rest.is_empty());
        digests.iter().copied().map(Digest::from_bytes).collect()
    }
}

fn read_number(rest: &mut &[u8], end: u8) -> u64 {
    let len = rest.iter().position(|byte| *byte == end).unwrap();
    let number = str::from_utf8(&rest[..len]).unwrap().parse().unwrap();
    *rest = &rest[len + 1..];
    number
}

fn read_text<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let len = read_number(rest, b':') as usize;
    let (text, after) = rest.split_at(len);
    *rest = after;
    text
}
