//! The hash tree of one file, exactly as in BEP 52: 16 KiB leaves, balanced, padded with zero hashes.
//!
//! Owns the arithmetic of subtrees, layers and proofs on plain slices; holds no state and knows no files, pieces or
//! peers. Called by `hashes.rs` for every verification and by the import in `storage/`.
//! Memory is a fixed stack of one digest per level, whatever is hashed.
//!
//! Source: BEP 52, "pieces root" and "piece layers".

use std::sync::LazyLock;

use super::digest::Digest;
use super::leaves::hash_leaves;

/// Bytes under one leaf. Only the last leaf of a file may cover fewer, and those are hashed as they are.
pub const LEAF_LEN: u32 = 16 * 1024;

/// Levels of any tree whose layer length and leaf width are 32-bit numbers.
const LEVELS_MAX: usize = 64;

/// Finished subtrees there can be at once over at most 2^32 nodes.
const SPINE_LEN: usize = 33;

/// Levels between a layer and its [`layer_blocks`]: about as many nodes below one block as there are blocks in a layer of 2^20.
const BLOCK_LEVELS: u32 = 10;

/// Root of the all-padding subtree of 2^level leaves, by level.
static PADDING: LazyLock<[Digest; LEVELS_MAX]> = LazyLock::new(|| {
    let mut roots = [Digest::ZERO; LEVELS_MAX];
    for level in 1..LEVELS_MAX {
        roots[level] = Digest::of_pair(&roots[level - 1], &roots[level - 1]);
    }
    roots
});

/// A whole leaf of zero bytes. Not to be taken for padding, which has no bytes and hashes to nothing but zeros.
static ZERO_LEAF: [u8; LEAF_LEN as usize] = [0; LEAF_LEN as usize];

/// Root of the subtree over 2^level whole leaves of zero bytes, by level.
static ZEROS: LazyLock<[Digest; LEVELS_MAX]> = LazyLock::new(|| {
    let mut roots = [Digest::of(&ZERO_LEAF); LEVELS_MAX];
    for level in 1..LEVELS_MAX {
        roots[level] = Digest::of_pair(&roots[level - 1], &roots[level - 1]);
    }
    roots
});

/// Root of the subtree over one piece.
///
/// `width` is the number of leaves of the subtree; leaves that `bytes` do not reach are zero hashes.
///
/// # Panics
/// When `width` is not a power of two or `bytes` are none or more than `width` leaves hold.
///
/// Source: BEP 52.
#[must_use]
pub fn hash_piece(bytes: &[u8], width: u32) -> Digest {
    assert!(
        width.is_power_of_two(),
        "a subtree has a power of two of leaves, not {width}"
    );
    assert!(!bytes.is_empty(), "a piece is never empty");
    assert!(
        bytes.len() as u64 <= u64::from(width) * u64::from(LEAF_LEN),
        "{} bytes do not fit {width} leaves",
        bytes.len()
    );
    let mut spine = Spine::new(0);
    hash_leaves(bytes, |leaf| spine.push(leaf, 0));
    spine.close(width.trailing_zeros())
}

/// What [`hash_piece`] gives for `len` zero bytes, by hashing one leaf of them at most.
///
/// # Panics
/// As [`hash_piece`].
#[must_use]
pub fn hash_zeros(len: u32, width: u32) -> Digest {
    let short = (len % LEAF_LEN) as usize;
    hash_zeros_with(len, width, || Digest::of(&ZERO_LEAF[..short]))
}

/// As [`hash_zeros`]; `short_leaf` is asked for the hash of a last leaf of fewer bytes than others.
pub(super) fn hash_zeros_with(len: u32, width: u32, short_leaf: impl FnOnce() -> Digest) -> Digest {
    assert!(len > 0, "a piece is never empty");
    let levels = leaf_levels(width);
    assert!(
        u64::from(len) <= u64::from(width) * u64::from(LEAF_LEN),
        "{len} bytes do not fit {width} leaves"
    );
    let whole_leaves = len / LEAF_LEN;
    let mut spine = Spine::new(0);
    // The largest subtree first: each then begins at a multiple of its own width.
    for level in (0..=levels).rev() {
        if whole_leaves & (1 << level) != 0 {
            spine.push(ZEROS[level as usize], level);
        }
    }
    if !len.is_multiple_of(LEAF_LEN) {
        spine.push(short_leaf(), 0);
    }
    spine.close(levels)
}

/// Root of a file, from the hashes of its pieces.
///
/// `width` is the number of leaves under each piece; the layer is padded to a power of two with the root of that
/// many zero leaves.
///
/// # Panics
/// When `layer` is empty or `width` is not a power of two.
///
/// Source: BEP 52.
#[must_use]
pub fn layer_root(layer: &[Digest], width: u32) -> Digest {
    assert!(!layer.is_empty(), "a file with a layer has a piece");
    subtree_root(layer, leaf_levels(width), 0, levels_above(layer.len()))
}

/// The nodes that link `count` neighbouring hashes of a layer to the file's root, from the bottom up.
///
/// `blocks` are the [`layer_blocks`] of the layer: with them some thousand nodes are hashed at most, however long it is.
/// `count` is a power of two and `first` a multiple of it. The range may run past the end of the layer, into the
/// padding, but not past the padding. The result has log2(padded layer length / `count`) digests.
///
/// # Panics
/// When the range is not as described.
pub(super) fn layer_proof(
    layer: &[Digest],
    blocks: &[Digest],
    width: u32,
    first: u32,
    count: u32,
) -> Vec<Digest> {
    assert!(!layer.is_empty(), "a file with a layer has a piece");
    let top = levels_above(layer.len());
    assert!(
        is_aligned_range(first, count, top),
        "range {first}+{count} of {} hashes",
        layer.len()
    );
    let base = leaf_levels(width);
    (count.trailing_zeros()..top)
        .map(|level| {
            let sibling = ((first >> level) ^ 1) << level;
            match level.checked_sub(BLOCK_LEVELS) {
                None => subtree_root(layer, base, sibling as usize, level),
                Some(above) => {
                    let sibling = sibling >> BLOCK_LEVELS;
                    subtree_root(blocks, base + BLOCK_LEVELS, sibling as usize, above)
                }
            }
        })
        .collect()
}

/// The nodes of a layer's tree some levels up, from which proofs are made without hashing the whole layer again.
pub(super) fn layer_blocks(layer: &[Digest], width: u32) -> Vec<Digest> {
    let base = leaf_levels(width);
    (0..layer.len())
        .step_by(1 << BLOCK_LEVELS)
        .map(|first| subtree_root(layer, base, first, BLOCK_LEVELS))
        .collect()
}

/// Whether `hashes` are the hashes of a layer from `first` on, by a proof as
/// [`PieceHashes::prove`](super::PieceHashes::prove) gives it.
///
/// `layer_len` is the number of pieces of the file, `width` the leaves under each. `hashes` are only the real ones:
/// `count` of them, or fewer when the layer ends first. Any input is allowed: what a remote makes up is `false`.
#[must_use]
pub fn verify_layer_range(
    root: &Digest,
    layer_len: u32,
    width: u32,
    first: u32,
    hashes: &[Digest],
    count: u32,
    proof: &[Digest],
) -> bool {
    if layer_len == 0 || first >= layer_len || !width.is_power_of_two() {
        return false;
    }
    let top = levels_above(layer_len as usize);
    if !is_aligned_range(first, count, top) {
        return false;
    }
    let level = count.trailing_zeros();
    let real = count.min(layer_len - first);
    if hashes.len() != real as usize || proof.len() != (top - level) as usize {
        return false;
    }
    let mut node = subtree_root(hashes, leaf_levels(width), 0, level);
    for (uncle, level) in proof.iter().zip(level..) {
        node = if (first >> level) & 1 == 0 {
            Digest::of_pair(&node, uncle)
        } else {
            Digest::of_pair(uncle, &node)
        };
    }
    node == *root
}

/// Levels of a subtree of `width` leaves.
fn leaf_levels(width: u32) -> u32 {
    assert!(
        width.is_power_of_two(),
        "a subtree has a power of two of leaves, not {width}"
    );
    width.trailing_zeros()
}

/// Levels between a layer of `len` hashes, padded to a power of two, and the root.
fn levels_above(len: usize) -> u32 {
    (len as u64).next_power_of_two().trailing_zeros()
}

fn is_aligned_range(first: u32, count: u32, top: u32) -> bool {
    count.is_power_of_two()
        && first.is_multiple_of(count)
        && u64::from(first) + u64::from(count) <= 1 << top
}

/// Root over the 2^`level` nodes of `layer` from `first` on; nodes past its end are padding of `base` levels.
fn subtree_root(layer: &[Digest], base: u32, first: usize, level: u32) -> Digest {
    let first = first.min(layer.len());
    let end = layer.len().min(first.saturating_add(1 << level));
    let mut spine = Spine::new(base);
    for node in &layer[first..end] {
        spine.push(*node, 0);
    }
    spine.close(level)
}

/// The left edge of a tree that is built from left to right: at most one finished subtree for each level.
struct Spine {
    /// Finished subtrees, the largest first; as many as `count` has one bits.
    subtrees: [Digest; SPINE_LEN],
    depth: usize,
    /// Bottom nodes covered so far.
    count: u64,
    /// Leaf levels under a bottom node.
    base: u32,
}

impl Spine {
    fn new(base: u32) -> Self {
        Self {
            subtrees: [Digest::ZERO; SPINE_LEN],
            depth: 0,
            count: 0,
            base,
        }
    }

    /// Adds a subtree of 2^`level` bottom nodes; `count` is a multiple of that.
    fn push(&mut self, mut node: Digest, level: u32) {
        let mut left = self.count >> level;
        while left & 1 == 1 {
            self.depth -= 1;
            node = Digest::of_pair(&self.subtrees[self.depth], &node);
            left >>= 1;
        }
        self.subtrees[self.depth] = node;
        self.depth += 1;
        self.count += 1 << level;
    }

    /// Pads to 2^`level` bottom nodes and returns the root over them.
    fn close(mut self, level: u32) -> Digest {
        while self.count < 1 << level {
            // The largest padding that fits here; for a tree without any node this is the whole of it.
            let step = self.count.trailing_zeros().min(level);
            self.push(PADDING[(self.base + step) as usize], step);
        }
        self.subtrees[0]
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Numbers, *};

    /// The slow twin: the root over 2^`level` leaves of a file, straight from the definition.
    fn slow_root(leaves: &[Digest], level: u32) -> Digest {
        if level == 0 {
            return leaves.first().copied().unwrap_or(Digest::ZERO);
        }
        let (left, right) = leaves.split_at(leaves.len().min(1 << (level - 1)));
        Digest::of_pair(&slow_root(left, level - 1), &slow_root(right, level - 1))
    }

    fn some_digests(count: u32) -> Vec<Digest> {
        (0..count)
            .map(|index| Digest::of(&index.to_le_bytes()))
            .collect()
    }

    fn flipped(digest: &Digest) -> Digest {
        let mut bytes = *digest.as_bytes();
        bytes[31] ^= 1;
        Digest::from_bytes(bytes)
    }

    #[test]
    fn a_piece_hashes_like_its_slow_twin() {
        let leaf = LEAF_LEN as usize;
        let bytes = Numbers::seeded(1).bytes(9 * leaf);
        for len in [
            1,
            leaf - 1,
            leaf,
            leaf + 1,
            2 * leaf,
            3 * leaf - 5,
            4 * leaf,
            5 * leaf,
            9 * leaf,
        ] {
            let leaves: Vec<Digest> = bytes[..len].chunks(leaf).map(Digest::of).collect();
            for level in 0..8 {
                if leaves.len() <= 1 << level {
                    let root = slow_root(&leaves, level);
                    assert_eq!(
                        hash_piece(&bytes[..len], 1 << level),
                        root,
                        "{len} in 2^{level}"
                    );
                }
            }
        }
    }

    #[test]
    fn zeros_hash_as_if_they_were_read() {
        let leaf = LEAF_LEN;
        let zeros = vec![0; 16 * leaf as usize];
        for leaves in 0..16 {
            for more in [0, 1, leaf / 2, leaf - 1] {
                let len = leaves * leaf + more;
                for level in 0..6 {
                    let width = 1 << level;
                    if len > 0 && len <= width * leaf {
                        let read = hash_piece(&zeros[..len as usize], width);
                        assert_eq!(hash_zeros(len, width), read, "{len} in {width}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_layer_adds_up_to_the_root_of_all_leaves() {
        let leaves = some_digests(70);
        for leaf_count in 1..=leaves.len() {
            let leaves = &leaves[..leaf_count];
            for base in 0..4 {
                let width = 1 << base;
                let layer: Vec<Digest> = leaves
                    .chunks(width)
                    .map(|piece| slow_root(piece, base))
                    .collect();
                let level = base + layer.len().next_power_of_two().ilog2();
                let root = slow_root(leaves, level);
                assert_eq!(
                    layer_root(&layer, width as u32),
                    root,
                    "{leaf_count} by {width}"
                );
            }
        }
    }

    fn proof_of(layer: &[Digest], width: u32, first: u32, count: u32) -> Vec<Digest> {
        layer_proof(layer, &layer_blocks(layer, width), width, first, count)
    }

    /// Calls `check` with every aligned range that begins in a layer of 1 to 20 hashes.
    fn for_every_range(check: impl Fn(&[Digest], u32, u32)) {
        let layer = some_digests(20);
        for len in 1..=layer.len() {
            let mut count = 1;
            while count <= len.next_power_of_two() as u32 {
                for first in (0..len as u32).step_by(count as usize) {
                    check(&layer[..len], first, count);
                }
                count *= 2;
            }
        }
    }

    fn real(layer: &[Digest], first: u32, count: u32) -> Vec<Digest> {
        layer
            .iter()
            .skip(first as usize)
            .take(count as usize)
            .copied()
            .collect()
    }

    #[test]
    fn a_proof_holds_the_uncles_from_the_bottom_up() {
        for_every_range(|layer, first, count| {
            // The padding of a layer of single leaves is zero leaves, as the slow twin has it.
            let top = layer.len().next_power_of_two().ilog2();
            let uncles = (count.ilog2()..top).map(|level| {
                let sibling = ((first >> level) ^ 1) << level;
                slow_root(layer.get(sibling as usize..).unwrap_or_default(), level)
            });
            let uncles: Vec<Digest> = uncles.collect();
            assert_eq!(proof_of(layer, 1, first, count), uncles, "{first}+{count}");
        });
    }

    #[test]
    fn a_layer_of_many_blocks_is_proven_too() {
        let block = 1 << BLOCK_LEVELS;
        for len in [block, block + 1, 5 * block + 3, 8 * block] {
            let layer = some_digests(len);
            let root = layer_root(&layer, 4);
            let top = len.next_power_of_two();
            let counts = [1, 2, block / 2, block, 2 * block, top];
            for count in counts.into_iter().filter(|count| *count <= top) {
                let last = (len - 1) / count * count;
                for first in [0, last / count / 2 * count, last] {
                    let proof = proof_of(&layer, 4, first, count);
                    let hashes = real(&layer, first, count);
                    assert!(
                        verify_layer_range(&root, len, 4, first, &hashes, count, &proof),
                        "{first}+{count} of {len}"
                    );
                }
            }
        }
    }

    #[test]
    fn proven_ranges_are_accepted_with_any_width() {
        for_every_range(|layer, first, count| {
            for width in [1, 4, 1024] {
                let root = layer_root(layer, width);
                let proof = proof_of(layer, width, first, count);
                let hashes = real(layer, first, count);
                let len = layer.len() as u32;
                assert!(
                    verify_layer_range(&root, len, width, first, &hashes, count, &proof),
                    "{first}+{count} of {len}"
                );
            }
        });
    }

    #[test]
    fn anything_changed_in_a_proven_range_is_refused() {
        for_every_range(|layer, first, count| {
            let len = layer.len() as u32;
            let root = layer_root(layer, 4);
            let proof = proof_of(layer, 4, first, count);
            let hashes = real(layer, first, count);
            let refused = |first, hashes: &[Digest], count, proof: &[Digest]| {
                assert!(
                    !verify_layer_range(&root, len, 4, first, hashes, count, proof),
                    "{first}+{count} of {len}"
                );
            };
            for index in 0..hashes.len() {
                let mut changed = hashes.clone();
                changed[index] = flipped(&changed[index]);
                refused(first, &changed, count, &proof);
            }
            for index in 0..proof.len() {
                let mut changed = proof.clone();
                changed[index] = flipped(&changed[index]);
                refused(first, &hashes, count, &changed);
                refused(first, &hashes, count, &proof[..index]);
            }
            refused(first, &hashes[..hashes.len() - 1], count, &proof);
            refused(
                first,
                &[&hashes[..], &[Digest::ZERO]].concat(),
                count,
                &proof,
            );
            refused(
                first,
                &hashes,
                count,
                &[&proof[..], &[Digest::ZERO]].concat(),
            );
            refused(first + count, &hashes, count, &proof);
            refused(first, &hashes, count * 2, &proof);
        });
    }

    #[test]
    fn a_proof_of_any_length_is_refused_without_a_panic() {
        let layer = some_digests(5);
        let root = layer_root(&layer, 4);
        let proof = proof_of(&layer, 4, 0, 2);
        for len in 0..100 {
            let mut resized = proof.clone();
            resized.resize(len, Digest::ZERO);
            let verified = verify_layer_range(&root, 5, 4, 0, &layer[..2], 2, &resized);
            assert_eq!(verified, len == proof.len(), "{len} digests");
        }
    }

    #[test]
    fn senseless_ranges_are_refused_without_a_panic() {
        let layer = some_digests(5);
        let root = layer_root(&layer, 4);
        let odd = [0, 1, 2, 3, 5, 7, 8, 1 << 31, u32::MAX];
        for first in odd {
            for count in odd {
                for (layer_len, width) in [(5, 4), (5, 3), (5, 0), (0, 4), (u32::MAX, 1 << 31)] {
                    for len in 0..=5 {
                        let is_whole = (first, count, len, layer_len, width) == (0, 8, 5, 5, 4);
                        let verified = verify_layer_range(
                            &root,
                            layer_len,
                            width,
                            first,
                            &layer[..len],
                            count,
                            &[],
                        );
                        assert_eq!(verified, is_whole, "{first}+{count} of {layer_len}");
                    }
                }
            }
        }
    }
}
