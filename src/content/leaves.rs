//! SHA-256 of the leaves under a piece. Each leaf is a message of its own, so that several are hashed side by side where the CPU
//! can: sixteen at once with AVX-512, in half the time of one after the other with its SHA instructions.
//!
//! Owns the choice; what it gives is SHA-256 whatever the CPU. Called by `merkle.rs`.
//!
//! Source: FIPS 180-4; BEP 52 for what a leaf is.

use super::digest::Digest;
use super::merkle::LEAF_LEN;

#[cfg(target_arch = "x86_64")]
mod avx512;

/// Calls `each` with the hash of every leaf of `bytes`, in order; the last leaf may be short.
pub(super) fn hash_leaves(bytes: &[u8], mut each: impl FnMut(Digest)) {
    let (leaves, short) = bytes.as_chunks::<{ LEAF_LEN as usize }>();
    let rest = hash_side_by_side(leaves, &mut each);
    for leaf in rest {
        each(Digest::of(leaf));
    }
    if !short.is_empty() {
        each(Digest::of(short));
    }
}

/// Hashes as many of the first leaves as go side by side; returns the rest.
fn hash_side_by_side<'a>(
    leaves: &'a [[u8; LEAF_LEN as usize]],
    each: &mut impl FnMut(Digest),
) -> &'a [[u8; LEAF_LEN as usize]] {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512bw") {
        let (groups, rest) = leaves.as_chunks();
        for group in groups {
            #[expect(
                unsafe_code,
                reason = "the compiler cannot know what was asked of the CPU"
            )]
            // SAFETY: the function needs nothing but these two features.
            let digests = unsafe { avx512::hash(group) };
            digests
                .into_iter()
                .map(Digest::from_bytes)
                .for_each(&mut *each);
        }
        return rest;
    }
    let _ = each;
    leaves
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Numbers, *};

    #[test]
    fn leaves_hash_like_their_slow_twins() {
        let leaf = LEAF_LEN as usize;
        let bytes = Numbers::seeded(7).bytes(34 * leaf);
        for len in [
            0,
            1,
            leaf,
            15 * leaf,
            16 * leaf,
            16 * leaf + 1,
            31 * leaf,
            33 * leaf - 1,
            34 * leaf,
        ] {
            let mut digests = Vec::new();
            hash_leaves(&bytes[..len], |digest| digests.push(digest));
            let twins: Vec<Digest> = bytes[..len].chunks(leaf).map(Digest::of).collect();
            assert_eq!(digests, twins, "{len} bytes");
        }
    }

    #[test]
    fn every_byte_of_every_lane_counts() {
        let leaf = LEAF_LEN as usize;
        let mut bytes = vec![0; 16 * leaf];
        let hash = |bytes: &[u8]| {
            let mut digests = Vec::new();
            hash_leaves(bytes, |digest| digests.push(digest));
            digests
        };
        let zeros = hash(&bytes);
        for lane in 0..16 {
            for at in [0, 3, 4, 63, 64, 8_191, leaf - 1] {
                bytes[lane * leaf + at] = 1;
                let digests = hash(&bytes);
                for other in 0..16 {
                    assert_eq!(digests[other] == zeros[other], other != lane, "{lane} {at}");
                }
                assert_eq!(digests[lane], Digest::of(&bytes[lane * leaf..][..leaf]));
                bytes[lane * leaf + at] = 0;
            }
        }
    }
}
