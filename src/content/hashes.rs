//! `PieceHashes`: what every piece of a share has to hash to, and the only way to a `Verified` piece.
//!
//! Owns the check of pieces against hashes and of hashes against the manifest's roots, whether they were computed,
//! read from disk or collected from peers. Holds no piece bytes and asks nobody. Called by `storage/` before any
//! write and by the session that fetches hash layers.
//!
//! Source: BEP 52, "piece layers", and its hash request message for ranges with proof.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

use super::{
    bitfield::Bitfield,
    digest::Digest,
    geometry::{FileIndex, Geometry, PieceIndex},
    manifest::Manifest,
    merkle::{
        LEAF_LEN, hash_piece, hash_zeros, hash_zeros_with, layer_blocks, layer_proof, layer_root,
        verify_layer_range,
    },
};

/// The expected digest of every piece of one share, proven by its manifest. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PieceHashes {
    digests: Arc<[Digest]>,
    /// Of the layer of each file longer than a piece, once somebody asked for a proof.
    blocks: Arc<OnceLock<BTreeMap<FileIndex, Vec<Digest>>>>,
}

impl PartialEq for PieceHashes {
    fn eq(&self, other: &Self) -> bool {
        self.digests == other.digests
    }
}

impl Eq for PieceHashes {}

/// Bytes that hashed to what the share expects of their piece. Only [`PieceHashes::verify`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'a> {
    piece: PieceIndex,
    bytes: &'a [u8],
}

impl<'a> Verified<'a> {
    /// Which piece it is.
    #[must_use]
    pub fn piece(&self) -> PieceIndex {
        self.piece
    }

    /// All its bytes.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// An aligned range of the piece hashes of one file: the unit in which they are asked for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LayerRange {
    /// The file; longer than one piece.
    pub file: FileIndex,
    /// First piece, counted within the file; a multiple of `count`.
    pub first: u32,
    /// Pieces, a power of two; the range may run past the end of the file into the padding.
    pub count: u32,
}

impl LayerRange {
    /// The numbers, within the share, of the pieces whose hashes the range really has. `None` when there is no such
    /// range in a share of this geometry: the gate for ranges from outside.
    #[must_use]
    pub fn pieces(&self, geometry: &Geometry) -> Option<std::ops::Range<u32>> {
        let file = geometry.file(self.file.get())?;
        let pieces = geometry.file_pieces(file);
        let layer_len = pieces.len() as u32;
        let is_range = layer_len > 1
            && self.first < layer_len
            && self.count.is_power_of_two()
            && self.first.is_multiple_of(self.count)
            && self.count <= layer_len.next_power_of_two();
        let first = pieces.start.saturating_add(self.first);
        is_range.then(|| first..pieces.end.min(first.saturating_add(self.count)))
    }
}

/// Why digests are not the hashes of a share's pieces.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HashesError {
    /// More or fewer digests than pieces.
    #[error("{found} piece hashes for {expected} pieces")]
    Count {
        /// Pieces of the share.
        expected: u32,
        /// Digests given.
        found: usize,
    },
    /// The hashes of this file do not add up to its root.
    #[error("piece hashes of file {file} do not match its root")]
    Root {
        /// The file.
        file: FileIndex,
    },
    /// The share has no such range: unknown file, file without a layer, misaligned, or past the end.
    #[error("no hash range {}+{} in file {}", range.first, range.count, range.file)]
    Range {
        /// The range.
        range: LayerRange,
    },
    /// The proof does not link these hashes to the file's root.
    #[error("hash range {}+{} of file {} is not proven", range.first, range.count, range.file)]
    Proof {
        /// The range.
        range: LayerRange,
    },
}

impl PieceHashes {
    /// Takes `digests`, one for each piece in order, after checking them against the roots in `manifest`.
    ///
    /// # Errors
    /// When the number is wrong or a file's digests do not match its root.
    pub fn from_digests(manifest: &Manifest, digests: Vec<Digest>) -> Result<Self, HashesError> {
        let geometry = manifest.geometry();
        let expected = geometry.piece_count();
        if digests.len() != expected as usize {
            return Err(HashesError::Count {
                expected,
                found: digests.len(),
            });
        }
        let hashes = Self::unchecked(digests);
        for (file, entry) in manifest.files() {
            let layer = hashes.layer(geometry, file);
            if entry.root != (!layer.is_empty()).then(|| layer_root(layer, geometry.piece_width()))
            {
                return Err(HashesError::Root { file });
            }
        }
        Ok(hashes)
    }

    /// Digests known to lead to the roots.
    fn unchecked(digests: Vec<Digest>) -> Self {
        Self {
            digests: digests.into(),
            blocks: Arc::default(),
        }
    }

    /// What `piece` has to hash to.
    ///
    /// # Panics
    /// When `piece` is of another share and out of range.
    #[must_use]
    pub fn expected(&self, piece: PieceIndex) -> &Digest {
        &self.digests[piece.as_usize()]
    }

    /// All digests, one for each piece in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Digest] {
        &self.digests
    }

    /// The digests of the pieces of `file`; empty for an empty file.
    ///
    /// # Panics
    /// When `geometry` or `file` is of another share and out of range.
    #[must_use]
    pub fn layer(&self, geometry: &Geometry, file: FileIndex) -> &[Digest] {
        let pieces = geometry.file_pieces(file);
        &self.digests[pieces.start as usize..pieces.end as usize]
    }

    /// The hashes of `range` and the proof that goes with them. `None` when the share has no such range, so any
    /// range a remote asks for is allowed here.
    ///
    /// The first call hashes all layers of the share: for a file of 2^20 pieces that is about a tenth of a second.
    #[must_use]
    pub fn prove(
        &self,
        geometry: &Geometry,
        range: LayerRange,
    ) -> Option<(&[Digest], Vec<Digest>)> {
        let pieces = range.pieces(geometry)?;
        let layer = self.layer(geometry, range.file);
        let width = geometry.piece_width();
        let blocks = self.blocks.get_or_init(|| self.all_blocks(geometry));
        let blocks = blocks.get(&range.file)?;
        let proof = layer_proof(layer, blocks, width, range.first, range.count);
        let hashes = &self.digests[pieces.start as usize..pieces.end as usize];
        Some((hashes, proof))
    }

    fn all_blocks(&self, geometry: &Geometry) -> BTreeMap<FileIndex, Vec<Digest>> {
        let files = (0..geometry.file_count()).map(FileIndex::new);
        let with_layer = files.filter(|file| geometry.file_pieces(*file).len() > 1);
        with_layer
            .map(|file| {
                let layer = self.layer(geometry, file);
                (file, layer_blocks(layer, geometry.piece_width()))
            })
            .collect()
    }

    /// Hashes `bytes` and compares. `None` when they are not the bytes of `piece`, or not as many.
    ///
    /// Takes about a millisecond for each MiB: not for a task that has to stay responsive.
    ///
    /// # Panics
    /// When `geometry` or `piece` is of another share and out of range.
    #[must_use]
    pub fn verify<'a>(
        &self,
        geometry: &Geometry,
        piece: PieceIndex,
        bytes: &'a [u8],
    ) -> Option<Verified<'a>> {
        let is_good = bytes.len() == geometry.len_of(piece) as usize
            && hash_piece(bytes, geometry.width_of(piece)) == *self.expected(piece);
        is_good.then_some(Verified { piece, bytes })
    }

    /// Whether all bytes of `piece` are zero.
    ///
    /// # Panics
    /// As [`verify`](Self::verify).
    #[must_use]
    pub fn is_zeros(&self, geometry: &Geometry, piece: PieceIndex) -> bool {
        let zeros = hash_zeros(geometry.len_of(piece), geometry.width_of(piece));
        zeros == *self.expected(piece)
    }

    /// All pieces whose bytes are all zero: nobody has to send them.
    ///
    /// Takes some milliseconds for 2^20 pieces.
    ///
    /// # Panics
    /// When `geometry` is of another share.
    #[must_use]
    pub fn zero_pieces(&self, geometry: &Geometry) -> Bitfield {
        let mut zeros = Bitfield::new(geometry.piece_count());
        let whole = hash_zeros(geometry.piece_len(), geometry.piece_width());
        // Files end in all lengths, and a share may have 2^20 of them: one hash for each length of a last leaf.
        let mut short_leaves: HashMap<u32, Digest> = HashMap::new();
        for file in (0..geometry.file_count()).map(FileIndex::new) {
            let Some((last, others)) = self.layer(geometry, file).split_last() else {
                continue;
            };
            let first = geometry.file_pieces(file).start;
            for (piece, digest) in (first..).zip(others) {
                if *digest == whole {
                    zeros.insert(PieceIndex::new(piece));
                }
            }
            let piece = PieceIndex::new(first + others.len() as u32);
            let len = geometry.len_of(piece);
            let zeros_here = hash_zeros_with(len, geometry.width_of(piece), || {
                let short = len % LEAF_LEN;
                let hash = || hash_zeros(short, 1);
                *short_leaves.entry(short).or_insert_with(hash)
            });
            if *last == zeros_here {
                zeros.insert(piece);
            }
        }
        zeros
    }
}

/// Collects the piece hashes of a share from peers, range by range, each proven before it counts.
#[derive(Clone, Debug)]
pub struct HashesBuilder {
    geometry: Geometry,
    /// Root of each file; unused for an empty one.
    roots: Vec<Digest>,
    digests: Vec<Digest>,
    known: Bitfield,
    /// Every piece before this one is known.
    settled: u32,
}

impl HashesBuilder {
    /// Begins with what the manifest alone tells: the hash of a file of one piece is its root.
    #[must_use]
    pub fn new(manifest: &Manifest) -> Self {
        let geometry = manifest.geometry().clone();
        let mut digests = vec![Digest::ZERO; geometry.piece_count() as usize];
        let mut known = Bitfield::new(geometry.piece_count());
        let mut roots = Vec::with_capacity(geometry.file_count() as usize);
        for (file, entry) in manifest.files() {
            let root = entry.root.unwrap_or(Digest::ZERO);
            roots.push(root);
            let pieces = geometry.file_pieces(file);
            if pieces.len() == 1 {
                digests[pieces.start as usize] = root;
                known.insert(PieceIndex::new(pieces.start));
            }
        }
        Self {
            geometry,
            roots,
            digests,
            known,
            settled: 0,
        }
    }

    /// The first range with a missing hash for which `skip` is false: one to ask a peer for.
    ///
    /// `limit` is the number of hashes a range may have at most, a power of two (another number counts as the one
    /// below). `skip` is asked about each candidate in order, and says true for those asked for already. `None` when
    /// all are known or skipped.
    #[must_use]
    pub fn next_missing(
        &self,
        limit: u32,
        skip: &dyn Fn(LayerRange) -> bool,
    ) -> Option<LayerRange> {
        let limit = 1 << limit.max(1).ilog2();
        let mut from = self.settled;
        while let Some(missing) = self.known.first_zero(from) {
            let file = self.geometry.locate(missing).file;
            let pieces = self.geometry.file_pieces(file);
            let count = limit.min((pieces.len() as u32).next_power_of_two());
            let within = missing.get() - pieces.start;
            let range = LayerRange {
                file,
                first: within - within % count,
                count,
            };
            if !skip(range) {
                return Some(range);
            }
            from = pieces.end.min(pieces.start + range.first + count);
        }
        None
    }

    /// Takes the hashes of `range` with their proof, as [`PieceHashes::prove`] made them. Any range is allowed, also
    /// one that was never asked for or is known already.
    ///
    /// # Errors
    /// When the share has no such range or the proof does not hold; nothing is kept then. That is the sender's fault.
    pub fn insert(
        &mut self,
        range: LayerRange,
        hashes: &[Digest],
        proof: &[Digest],
    ) -> Result<(), HashesError> {
        let pieces = range
            .pieces(&self.geometry)
            .ok_or(HashesError::Range { range })?;
        let is_proven = verify_layer_range(
            &self.roots[range.file.as_usize()],
            self.geometry.file_pieces(range.file).len() as u32,
            self.geometry.piece_width(),
            range.first,
            hashes,
            range.count,
            proof,
        );
        if !is_proven {
            return Err(HashesError::Proof { range });
        }
        self.digests[pieces.start as usize..pieces.end as usize].copy_from_slice(hashes);
        for piece in pieces {
            self.known.insert(PieceIndex::new(piece));
        }
        self.settled = self
            .known
            .first_zero(self.settled)
            .map_or(self.known.len(), PieceIndex::get);
        Ok(())
    }

    /// Hashes known so far, of [`Geometry::piece_count`].
    #[must_use]
    pub fn known_count(&self) -> u32 {
        self.known.count()
    }

    /// Whether every hash is known.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.known.is_full()
    }

    /// The hashes, when complete.
    #[must_use]
    pub fn finish(self) -> Option<PieceHashes> {
        self.is_complete()
            .then(|| PieceHashes::unchecked(self.digests))
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeSet};

    use super::{
        super::{
            manifest::{Entry, EntryKind, Layout},
            path::{Name, RelativePath},
            testing::Numbers,
        },
        *,
    };

    const PIECE_LEN: usize = 64 * 1024;

    /// A share of five files (one empty, one of one piece, and of 2, 3 and 9 pieces), its hashes and its pieces.
    fn example() -> (Manifest, PieceHashes, Vec<Vec<u8>>) {
        let mut numbers = Numbers::seeded(8);
        let lens = [
            ("a", 0),
            ("b", PIECE_LEN - 1),
            ("c", PIECE_LEN + 1),
            ("d", 3 * PIECE_LEN),
            ("e", 9 * PIECE_LEN - 7),
        ];
        share_of(lens.map(|(name, len)| (name.to_owned(), numbers.bytes(len))))
    }

    /// A share of these files, in path order.
    fn share_of(
        files: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> (Manifest, PieceHashes, Vec<Vec<u8>>) {
        let (mut entries, mut digests, mut pieces) = (vec![], vec![], vec![]);
        for (name, bytes) in files {
            let len = bytes.len();
            let is_long = len > PIECE_LEN;
            let layer: Vec<Digest> = bytes
                .chunks(PIECE_LEN)
                .map(|piece| {
                    let leaves = if is_long { PIECE_LEN } else { piece.len() } as u32;
                    hash_piece(piece, leaves.div_ceil(LEAF_LEN).next_power_of_two())
                })
                .collect();
            let root = (len > 0).then(|| layer_root(&layer, 4));
            let path = RelativePath::parse(&name).unwrap();
            let kind = EntryKind::File {
                len: len as u64,
                root,
                executable: false,
            };
            entries.push(Entry { path, kind });
            digests.extend(layer);
            pieces.extend(bytes.chunks(PIECE_LEN).map(<[u8]>::to_vec));
        }
        let name = Name::parse("share").unwrap();
        let manifest = Manifest::new(name, Layout::Folder, entries).unwrap();
        let hashes = PieceHashes::from_digests(&manifest, digests).unwrap();
        (manifest, hashes, pieces)
    }

    #[test]
    fn pieces_of_zeros_are_told_by_their_hashes_alone() {
        let leaf = LEAF_LEN as usize;
        let lens = [
            1,
            leaf - 1,
            leaf,
            leaf + 1,
            3 * leaf,
            PIECE_LEN,
            PIECE_LEN + 1,
            PIECE_LEN + leaf,
            3 * PIECE_LEN - 1,
            4 * PIECE_LEN,
            5 * PIECE_LEN + leaf + 1,
        ];
        let mut numbers = Numbers::seeded(9);
        let mut files = Vec::new();
        for len in lens {
            // All zeros; a single one at the very end; zeros and noise piece by piece.
            let zeros = vec![0; len];
            let mut one = zeros.clone();
            one[len - 1] = 1;
            let mut mixed = zeros.clone();
            for piece in mixed.chunks_mut(PIECE_LEN).step_by(2) {
                piece.copy_from_slice(&numbers.bytes(piece.len()));
            }
            for bytes in [zeros, one, mixed] {
                files.push((format!("{:03}", files.len()), bytes));
            }
        }
        let (manifest, hashes, pieces) = share_of(files);
        let geometry = manifest.geometry();
        let found = hashes.zero_pieces(geometry);
        for (piece, bytes) in geometry.pieces().zip(&pieces) {
            let is_zeros = bytes.iter().all(|byte| *byte == 0);
            assert_eq!(found.contains(piece), is_zeros, "piece {piece}");
            assert_eq!(hashes.is_zeros(geometry, piece), is_zeros, "piece {piece}");
        }
        assert!(found.count() > 20 && found.count() + 20 < geometry.piece_count());
    }

    #[test]
    fn good_pieces_are_verified_and_bad_ones_are_not() {
        let (manifest, hashes, pieces) = example();
        let geometry = manifest.geometry();
        assert_eq!(geometry.piece_count() as usize, pieces.len());
        for (piece, bytes) in geometry.pieces().zip(&pieces) {
            let verified = hashes.verify(geometry, piece, bytes).unwrap();
            assert_eq!((verified.piece(), verified.bytes()), (piece, &bytes[..]));

            let mut changed = bytes.clone();
            changed[bytes.len() / 2] ^= 0x10;
            assert!(hashes.verify(geometry, piece, &changed).is_none());
            assert!(
                hashes
                    .verify(geometry, piece, &bytes[..bytes.len() - 1])
                    .is_none()
            );
            assert!(
                hashes
                    .verify(geometry, piece, &[&bytes[..], &[0]].concat())
                    .is_none()
            );
            assert!(hashes.verify(geometry, piece, &[]).is_none());
            let other = &pieces[(piece.as_usize() + 1) % pieces.len()];
            assert!(hashes.verify(geometry, piece, other).is_none());
        }
    }

    #[test]
    fn digests_that_do_not_add_up_to_the_roots_are_refused() {
        let (manifest, hashes, _) = example();
        let digests = hashes.as_slice();
        for piece in manifest.geometry().pieces() {
            let mut changed = digests.to_vec();
            changed[piece.as_usize()] = Digest::ZERO;
            let file = manifest.geometry().locate(piece).file;
            let error = PieceHashes::from_digests(&manifest, changed).unwrap_err();
            assert_eq!(error, HashesError::Root { file });
        }
        for count in [0, digests.len() - 1, digests.len() + 1] {
            let some = digests.iter().copied().cycle().take(count).collect();
            let error = PieceHashes::from_digests(&manifest, some).unwrap_err();
            assert_eq!(
                error,
                HashesError::Count {
                    expected: 15,
                    found: count
                }
            );
        }
    }

    #[test]
    fn layers_collected_range_by_range_are_the_hashes() {
        let (manifest, hashes, _) = example();
        for limit in [0, 1, 2, 3, 4, 8, 512, u32::MAX] {
            let mut builder = HashesBuilder::new(&manifest);
            assert_eq!(builder.known_count(), 1, "the file of one piece");
            while let Some(range) = builder.next_missing(limit, &|_| false) {
                assert!(range.count <= limit.max(1));
                let (digests, proof) = hashes.prove(manifest.geometry(), range).unwrap();
                let before = builder.known_count();
                builder.insert(range, digests, &proof).unwrap();
                assert!(builder.known_count() > before);
                builder.insert(range, digests, &proof).unwrap();
            }
            assert!(builder.is_complete());
            assert_eq!(builder.finish().as_ref(), Some(&hashes));
        }
    }

    #[test]
    fn ranges_asked_for_already_are_skipped_and_all_together_are_enough() {
        let (manifest, hashes, _) = example();
        let mut builder = HashesBuilder::new(&manifest);
        let asked = RefCell::new(BTreeSet::new());
        while let Some(range) = builder.next_missing(2, &|range| asked.borrow().contains(&range)) {
            assert!(asked.borrow_mut().insert(range));
        }
        let ranges: Vec<_> = asked
            .take()
            .into_iter()
            .map(|range| (range.file.get(), range.first, range.count))
            .collect();
        let expected = [
            (2, 0, 2),
            (3, 0, 2),
            (3, 2, 2),
            (4, 0, 2),
            (4, 2, 2),
            (4, 4, 2),
            (4, 6, 2),
            (4, 8, 2),
        ];
        assert_eq!(ranges, expected);
        assert!(!builder.is_complete());

        // Answers in the wrong order fill it all the same.
        for (file, first, count) in expected.into_iter().rev() {
            let range = LayerRange {
                file: FileIndex::new(file),
                first,
                count,
            };
            let (digests, proof) = hashes.prove(manifest.geometry(), range).unwrap();
            builder.insert(range, digests, &proof).unwrap();
        }
        assert_eq!(builder.next_missing(2, &|_| false), None);
        assert_eq!(builder.finish(), Some(hashes));
    }

    #[test]
    fn a_range_that_is_known_in_part_is_asked_for_as_a_whole() {
        let (manifest, hashes, _) = example();
        let file = FileIndex::new(4);
        let whole = LayerRange {
            file,
            first: 4,
            count: 4,
        };
        for known in [4, 5, 6, 7] {
            let mut builder = HashesBuilder::new(&manifest);
            let range = LayerRange {
                file,
                first: known,
                count: 1,
            };
            let (digests, proof) = hashes.prove(manifest.geometry(), range).unwrap();
            builder.insert(range, digests, &proof).unwrap();
            let is_before = |range: LayerRange| range.file < file || range.first < 4;
            assert_eq!(builder.next_missing(4, &is_before), Some(whole));
        }
    }

    #[test]
    fn an_unproven_range_is_refused_and_leaves_nothing() {
        let (manifest, hashes, _) = example();
        let mut builder = HashesBuilder::new(&manifest);
        let range = builder
            .next_missing(4, &|range| range.file.get() < 4)
            .unwrap();
        let (digests, proof) = hashes.prove(manifest.geometry(), range).unwrap();
        let mut wrong = digests.to_vec();
        wrong[1] = Digest::ZERO;
        let refused = Err(HashesError::Proof { range });
        assert_eq!(builder.insert(range, &wrong, &proof), refused);
        assert_eq!(builder.insert(range, &digests[1..], &proof), refused);
        assert_eq!(builder.insert(range, digests, &proof[1..]), refused);
        assert_eq!(builder.insert(range, &[], &[]), refused);
        let other = LayerRange { first: 4, ..range };
        assert_eq!(
            builder.insert(other, digests, &proof),
            Err(HashesError::Proof { range: other })
        );
        assert_eq!(builder.known_count(), 1);
        assert!(builder.finish().is_none());
    }

    #[test]
    fn ranges_a_share_does_not_have_are_refused_without_a_panic() {
        let (manifest, hashes, _) = example();
        let geometry = manifest.geometry();
        let mut builder = HashesBuilder::new(&manifest);
        let numbers = [0, 1, 2, 3, 4, 5, 8, 9, 15, 16, 17, 32, 1 << 31, u32::MAX];
        for file in numbers {
            for first in numbers {
                for count in numbers {
                    let layer_len = [0, 0, 2, 3, 9].get(file as usize).copied().unwrap_or(0);
                    let is_range = first < layer_len
                        && count.is_power_of_two()
                        && first % count == 0
                        && count <= layer_len.next_power_of_two();
                    let range = LayerRange {
                        file: FileIndex::new(file),
                        first,
                        count,
                    };
                    assert_eq!(
                        hashes.prove(geometry, range).is_some(),
                        is_range,
                        "{range:?}"
                    );
                    assert!(builder.insert(range, &[], &[]).is_err());
                }
            }
        }
    }

    #[test]
    fn a_share_without_layers_needs_nothing_but_its_manifest() {
        let name = Name::parse("share").unwrap();
        let root = Some(hash_piece(b"bytes", 1));
        let kind = EntryKind::File {
            len: 5,
            root,
            executable: false,
        };
        let path = RelativePath::parse("share").unwrap();
        let manifest = Manifest::new(name, Layout::File, vec![Entry { path, kind }]).unwrap();
        let builder = HashesBuilder::new(&manifest);
        assert_eq!(builder.next_missing(512, &|_| false), None);
        let hashes = builder.finish().unwrap();
        let piece = manifest.geometry().piece(0).unwrap();
        assert!(
            hashes
                .verify(manifest.geometry(), piece, b"bytes")
                .is_some()
        );
        assert!(
            hashes
                .verify(manifest.geometry(), piece, b"bytez")
                .is_none()
        );
    }
}
