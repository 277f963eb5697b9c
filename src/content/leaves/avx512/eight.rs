//! Eight leaves, in registers of 256 bits: what a piece of 128 KiB is made of.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_extract_epi64, _mm256_permute2x128_si256, _mm256_ror_epi32,
    _mm256_set_epi32, _mm256_set_epi64x, _mm256_set1_epi32, _mm256_setzero_si256,
    _mm256_shuffle_epi8, _mm256_srli_epi32, _mm256_ternarylogic_epi32, _mm256_unpackhi_epi32,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
};

use super::{BLOCK_LEN, INITIAL, LEN, ROUNDS, SWAPPED, hash_in_step, quads};

hash_in_step! {
    lanes: 8,
    word: __m256i,
    splat: _mm256_set1_epi32,
    zero: _mm256_setzero_si256,
    add: _mm256_add_epi32,
    rotate: _mm256_ror_epi32,
    shift: _mm256_srli_epi32,
    three: _mm256_ternarylogic_epi32,
}

#[inline]
#[target_feature(enable = "avx2")]
fn words(leaves: &[[u8; LEN]; 8], block: usize) -> [__m256i; 16] {
    let mut words = [_mm256_setzero_si256(); 16];
    for (half, words) in words.as_chunks_mut().0.iter_mut().enumerate() {
        for (row, leaf) in words.iter_mut().zip(leaves) {
            let bytes = &leaf[block * BLOCK_LEN + half * 32..][..32];
            let [a, b, c, d] = quads(bytes.as_chunks().0);
            *row = swap_bytes(_mm256_set_epi64x(d, c, b, a));
        }
        *words = transpose(*words);
    }
    words
}

#[inline]
#[target_feature(enable = "avx2")]
fn digests(state: [__m256i; 8]) -> [[u8; 32]; 8] {
    transpose(state).map(|row| bytes(swap_bytes(row)))
}

/// The bytes of a register, in the order of memory.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn bytes(register: __m256i) -> [u8; 32] {
    let quads = [
        _mm256_extract_epi64::<0>(register),
        _mm256_extract_epi64::<1>(register),
        _mm256_extract_epi64::<2>(register),
        _mm256_extract_epi64::<3>(register),
    ];
    let mut bytes = [0; 32];
    for (place, quad) in bytes.as_chunks_mut().0.iter_mut().zip(quads) {
        *place = quad.to_le_bytes();
    }
    bytes
}

#[inline]
#[target_feature(enable = "avx2")]
fn swap_bytes(words: __m256i) -> __m256i {
    let [d, c, b, a] = SWAPPED;
    _mm256_shuffle_epi8(words, _mm256_set_epi32(d, c, b, a, d, c, b, a))
}

/// Rows of words become columns.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(mut rows: [__m256i; 8]) -> [__m256i; 8] {
    // Of four rows each: register `column` gets words `column` and + 4 of all four, side by side.
    for four in rows.as_chunks_mut().0 {
        let [a, b, c, d] = *four;
        let (low, high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
        let (low_2, high_2) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
        *four = [
            _mm256_unpacklo_epi64(low, low_2),
            _mm256_unpackhi_epi64(low, low_2),
            _mm256_unpacklo_epi64(high, high_2),
            _mm256_unpackhi_epi64(high, high_2),
        ];
    }
    // The same with these halves of registers instead of words.
    for column in 0..4 {
        let (a, b) = (rows[column], rows[column + 4]);
        rows[column] = _mm256_permute2x128_si256::<0x20>(a, b);
        rows[column + 4] = _mm256_permute2x128_si256::<0x31>(a, b);
    }
    rows
}
