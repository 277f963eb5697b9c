//! Sixteen leaves, in registers of 512 bits: what a piece of 256 KiB and more is made of.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_extracti64x4_epi64, _mm512_ror_epi32, _mm512_set_epi64,
    _mm512_set1_epi32, _mm512_set4_epi32, _mm512_setzero_si512, _mm512_shuffle_epi8,
    _mm512_shuffle_i32x4, _mm512_srli_epi32, _mm512_ternarylogic_epi32, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use super::{BLOCK_LEN, INITIAL, LEN, ROUNDS, SWAPPED, eight, hash_in_step, quads};

hash_in_step! {
    lanes: 16,
    word: __m512i,
    splat: _mm512_set1_epi32,
    zero: _mm512_setzero_si512,
    add: _mm512_add_epi32,
    rotate: _mm512_ror_epi32,
    shift: _mm512_srli_epi32,
    three: _mm512_ternarylogic_epi32,
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn words(leaves: &[[u8; LEN]; 16], block: usize) -> [__m512i; 16] {
    let mut rows = [_mm512_setzero_si512(); 16];
    for (row, leaf) in rows.iter_mut().zip(leaves) {
        let bytes = &leaf[block * BLOCK_LEN..][..BLOCK_LEN];
        let [a, b, c, d, e, f, g, h] = quads(bytes.as_chunks().0);
        *row = swap_bytes(_mm512_set_epi64(h, g, f, e, d, c, b, a));
    }
    transpose(rows)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn digests(state: [__m512i; 8]) -> [[u8; 32]; 16] {
    let mut columns = [_mm512_setzero_si512(); 16];
    columns[..8].copy_from_slice(&state);
    transpose(columns).map(|row| eight::bytes(_mm512_extracti64x4_epi64::<0>(swap_bytes(row))))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn swap_bytes(words: __m512i) -> __m512i {
    let [d, c, b, a] = SWAPPED;
    _mm512_shuffle_epi8(words, _mm512_set4_epi32(d, c, b, a))
}

/// Rows of words become columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(mut rows: [__m512i; 16]) -> [__m512i; 16] {
    // Of four rows each: register `column` gets words `column`, + 4, + 8 and + 12 of all four, side by side.
    for four in rows.as_chunks_mut().0 {
        let [a, b, c, d] = *four;
        let (low, high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (low_2, high_2) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        *four = [
            _mm512_unpacklo_epi64(low, low_2),
            _mm512_unpackhi_epi64(low, low_2),
            _mm512_unpacklo_epi64(high, high_2),
            _mm512_unpackhi_epi64(high, high_2),
        ];
    }
    // The same with these quarters of registers instead of words.
    for column in 0..4 {
        let [a, b, c, d] = [0, 4, 8, 12].map(|row| rows[row + column]);
        let (low, high) = (
            _mm512_shuffle_i32x4::<0x44>(a, b),
            _mm512_shuffle_i32x4::<0xee>(a, b),
        );
        let (low_2, high_2) = (
            _mm512_shuffle_i32x4::<0x44>(c, d),
            _mm512_shuffle_i32x4::<0xee>(c, d),
        );
        rows[column] = _mm512_shuffle_i32x4::<0x88>(low, low_2);
        rows[column + 4] = _mm512_shuffle_i32x4::<0xdd>(low, low_2);
        rows[column + 8] = _mm512_shuffle_i32x4::<0x88>(high, high_2);
        rows[column + 12] = _mm512_shuffle_i32x4::<0xdd>(high, high_2);
    }
    rows
}
