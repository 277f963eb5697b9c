//! What is said of the pieces of a share: which are held, and what they hash to.

use std::sync::LazyLock;

use shoal::content::{
    Bitfield, Digest, Entry, EntryKind, FileIndex, HashesBuilder, LayerRange, Layout, Manifest,
    Name, PieceHashes, PieceIndex, RelativePath, layer_root,
};

use super::memory::frugal;

/// A set of as many pieces as the first two bytes say, against a twin that looks at one bit after another.
pub(super) fn bitfield(data: &[u8]) {
    let Some((len, bytes)) = data.split_first_chunk::<2>() else {
        return;
    };
    let len = u32::from(u16::from_le_bytes(*len));
    let has = |piece: u32| {
        let byte = bytes.get(piece as usize / 8);
        byte.is_some_and(|byte| byte & (0x80 >> (piece % 8)) != 0)
    };
    let mut spare = len..len.next_multiple_of(8);
    let fits = bytes.len() == len.div_ceil(8) as usize && !spare.any(has);
    let read = frugal(data.len(), || Bitfield::from_bytes(len, bytes));
    assert_eq!(read.is_ok(), fits, "{read:?}");
    let Ok(set) = read else {
        return;
    };
    assert_eq!(set.to_bytes(), bytes);
    let numbers = |wanted: bool| (0..len).filter(move |piece| has(*piece) == wanted);
    assert!(set.iter().map(PieceIndex::get).eq(numbers(true)));
    assert!(set.iter_zeros().map(PieceIndex::get).eq(numbers(false)));
    assert_eq!(set.count() as usize, numbers(true).count());
    let runs: Vec<(u32, u32)> = set.runs().collect();
    assert!(
        runs.iter()
            .flat_map(|(first, len)| *first..first + len)
            .eq(numbers(true))
    );
    assert!(
        runs.windows(2)
            .all(|pair| pair[0].0 + pair[0].1 < pair[1].0),
        "{runs:?}"
    );
    assert_eq!(
        set.first_zero(0).map(PieceIndex::get),
        numbers(false).next()
    );
    let mut again = Bitfield::new(len);
    for piece in set.iter() {
        assert!(again.insert(piece) && !again.insert(piece));
    }
    assert_eq!(again, set);
}

/// A share with files of 0, 1, 2, 3 and 9 pieces and their hashes.
struct Example {
    manifest: Manifest,
    hashes: PieceHashes,
    /// Every hash of a piece, and every other that a proof may hold.
    known: Vec<Digest>,
}

static EXAMPLE: LazyLock<Example> = LazyLock::new(|| {
    const PIECE_COUNTS: [u8; 5] = [0, 1, 2, 3, 9];
    let layer = |file: u8| {
        let pieces = 0..PIECE_COUNTS[usize::from(file)];
        pieces
            .map(move |piece| Digest::of(&[file, piece]))
            .collect::<Vec<_>>()
    };
    // Pieces of so small a share are of 64 KiB: four leaves.
    let entry = |file: u8| {
        let layer = layer(file);
        Entry {
            path: RelativePath::parse(&format!("{file}")).expect("a digit"),
            kind: EntryKind::File {
                len: layer.len() as u64 * (64 << 10),
                root: (!layer.is_empty()).then(|| layer_root(&layer, 4)),
                executable: false,
            },
        }
    };
    let name = Name::parse("t").expect("a letter");
    let manifest = Manifest::new(name, Layout::Folder, (0..5).map(entry).collect());
    let manifest = manifest.expect("a small share");
    let hashes = PieceHashes::from_digests(&manifest, (0..5).flat_map(layer).collect());
    let hashes = hashes.expect("its hashes");
    let mut known = hashes.as_slice().to_vec();
    for file in 0..5 {
        for count in [1, 2, 4, 8, 16] {
            for first in (0..9).step_by(count as usize) {
                let file = FileIndex::new(file);
                let range = LayerRange { file, first, count };
                let proof = hashes.prove(manifest.geometry(), range);
                known.extend(proof.into_iter().flat_map(|(_, proof)| proof));
            }
        }
    }
    known.sort();
    known.dedup();
    Example {
        manifest,
        hashes,
        known,
    }
});

/// Answers to requests for hashes, one after the other: file, first, a power of two or any number, how many hashes and
/// proofs follow, and for each a byte that says which of the share's it is. What is taken is what the share has there.
pub(super) fn hashes(data: &[u8]) {
    let Example {
        manifest,
        hashes,
        known,
    } = &*EXAMPLE;
    let geometry = manifest.geometry();
    let mut builder = HashesBuilder::new(manifest);
    let mut rest = data;
    while let Some((&[file, first, count, hash_count, proof_count], after)) =
        rest.split_first_chunk::<5>()
    {
        let range = LayerRange {
            file: FileIndex::new(file.into()),
            first: first.into(),
            count: if count < 32 { 1 << count } else { count.into() },
        };
        let len = (usize::from(hash_count) + usize::from(proof_count)).min(after.len());
        let (numbers, after) = after.split_at(len);
        rest = after;
        let given: Vec<Digest> = numbers
            .iter()
            .map(|number| known[usize::from(*number) % known.len()])
            .collect();
        let (layer, proof) = given.split_at(len.min(hash_count.into()));
        let is_taken = frugal(given.len() * 32, || builder.insert(range, layer, proof)).is_ok();
        let real = hashes.prove(geometry, range);
        assert_eq!(is_taken, real == Some((layer, proof.to_vec())), "{range:?}");
    }
    // What is still missing is asked for and comes.
    for _ in 0..geometry.piece_count() {
        let Some(range) = builder.next_missing(4, &|_| false) else {
            break;
        };
        let (layer, proof) = hashes.prove(geometry, range).expect("a range of the share");
        let before = builder.known_count();
        builder
            .insert(range, layer, &proof)
            .expect("the share's own");
        assert!(builder.known_count() > before, "{range:?} brought nothing");
    }
    assert_eq!(builder.finish().as_ref(), Some(hashes));
    let raw: Vec<Digest> = data
        .chunks_exact(32)
        .filter_map(|bytes| Some(Digest::from_bytes(*bytes.first_chunk()?)))
        .collect();
    let is_taken = frugal(data.len(), || {
        PieceHashes::from_digests(manifest, raw.clone())
    })
    .is_ok();
    assert_eq!(is_taken, raw == hashes.as_slice());
}
