//! SHA-256 of the leaves under a piece. Each leaf is a message of its own, so that several are hashed side by side where the CPU
//! can: sixteen or eight at once with AVX-512, in about half or three quarters of the time that its SHA instructions take.
//!
//! Owns the choice; what it gives is SHA-256 whatever the CPU. Called by `merkle.rs`.
//!
//! Source: FIPS 180-4; BEP 52 for what a leaf is.

use super::digest::Digest;
use super::merkle::LEAF_LEN;

#[cfg(target_arch = "x86_64")]
mod avx512;

/// Bytes of a whole leaf.
const LEN: usize = LEAF_LEN as usize;

/// Calls `each` with the hash of every leaf of `bytes`, in order; the last leaf may be short.
pub(super) fn hash_leaves(bytes: &[u8], mut each: impl FnMut(Digest)) {
    let (whole, short) = bytes.as_chunks::<LEN>();
    for leaf in hash_in_step(whole, &mut each) {
        each(Digest::of(leaf));
    }
    if !short.is_empty() {
        each(Digest::of(short));
    }
}

/// Hashes as many of the first leaves as go in step; returns the rest.
#[cfg(target_arch = "x86_64")]
#[expect(
    unsafe_code,
    reason = "the compiler does not know what was asked of the CPU"
)]
fn hash_in_step<'a>(leaves: &'a [[u8; LEN]], each: &mut impl FnMut(Digest)) -> &'a [[u8; LEN]] {
    let can = std::is_x86_feature_detected!("avx512f")
        && std::is_x86_feature_detected!("avx512bw")
        && std::is_x86_feature_detected!("avx512vl");
    if !can {
        return leaves;
    }
    let mut tell = |digests: &[[u8; 32]]| {
        for digest in digests {
            each(Digest::from_bytes(*digest));
        }
    };
    let (sixteens, leaves) = leaves.as_chunks();
    for leaves in sixteens {
        // SAFETY: the function needs nothing but these features.
        tell(&unsafe { avx512::sixteen::hash(leaves) });
    }
    let (eights, leaves) = leaves.as_chunks();
    for leaves in eights {
        // SAFETY: as above.
        tell(&unsafe { avx512::eight::hash(leaves) });
    }
    leaves
}

#[cfg(not(target_arch = "x86_64"))]
fn hash_in_step<'a>(leaves: &'a [[u8; LEN]], _: &mut impl FnMut(Digest)) -> &'a [[u8; LEN]] {
    leaves
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Numbers, *};

    fn hashed(bytes: &[u8]) -> Vec<Digest> {
        let mut digests = Vec::new();
        hash_leaves(bytes, |digest| digests.push(digest));
        digests
    }

    #[test]
    fn leaves_hash_like_their_slow_twins() {
        let bytes = Numbers::seeded(7).bytes(34 * LEN);
        for whole in 0..=33 {
            for more in [0, 1, LEN - 1] {
                let bytes = &bytes[..whole * LEN + more];
                let twins: Vec<Digest> = bytes.chunks(LEN).map(Digest::of).collect();
                assert_eq!(hashed(bytes), twins, "{whole} leaves and {more} bytes");
            }
        }
    }

    #[test]
    fn a_byte_counts_wherever_it_stands_and_in_its_leaf_alone() {
        for leaves in [8, 16] {
            let mut bytes = vec![0; leaves * LEN];
            let zeros = hashed(&bytes);
            for changed in 0..leaves {
                for at in [0, 3, 4, 31, 32, 63, 64, 8_191, LEN - 1] {
                    let place = changed * LEN + at;
                    bytes[place] = 1;
                    let mut expected = zeros.clone();
                    expected[changed] = Digest::of(&bytes[changed * LEN..][..LEN]);
                    assert_eq!(hashed(&bytes), expected, "byte {at} of leaf {changed}");
                    bytes[place] = 0;
                }
            }
        }
    }
}
