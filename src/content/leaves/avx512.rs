//! SHA-256 of sixteen leaves in step: a register holds one word of each. Half of the instructions of a round are rotations and
//! functions of three words, which AVX-512 has and AVX2 has not.
//!
//! Safe intrinsics only; the caller has asked the CPU. Source: FIPS 180-4, sections 4.1.2, 4.2.2 and 6.2.

use std::arch::x86_64::{
    __m128i, __m512i, _mm_extract_epi64, _mm512_add_epi32, _mm512_extracti32x4_epi32,
    _mm512_ror_epi32, _mm512_set_epi64, _mm512_set1_epi32, _mm512_set4_epi32, _mm512_setzero_si512,
    _mm512_shuffle_epi8, _mm512_shuffle_i32x4, _mm512_srli_epi32, _mm512_ternarylogic_epi32,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use super::LEAF_LEN;

/// Words of 32 bits in a register.
const LANES: usize = 16;

/// Bytes of a message that one compression takes: sixteen words.
const BLOCK_LEN: usize = 64;

/// The same word of each of the messages.
type Word = __m512i;

const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

#[rustfmt::skip]
const ROUNDS: [[u32; 16]; 4] = [
    [
        0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
        0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    ],
    [
        0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
        0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    ],
    [
        0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
        0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    ],
    [
        0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
        0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
    ],
];

/// Hashes of sixteen whole leaves, in order.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn hash(leaves: &[[u8; LEAF_LEN as usize]; LANES]) -> [[u8; 32]; LANES] {
    let mut state = INITIAL.map(|word| of(word));
    for block in 0..LEAF_LEN as usize / BLOCK_LEN {
        let mut words = [_mm512_setzero_si512(); 16];
        for (row, leaf) in words.iter_mut().zip(leaves) {
            *row = load(&leaf.as_chunks().0[block]);
        }
        transpose(&mut words);
        compress(&mut state, words);
    }
    // What ends a message: a one bit, zeros, and its length in bits.
    let mut words = [_mm512_setzero_si512(); 16];
    words[0] = of(1 << 31);
    words[15] = of(8 * LEAF_LEN);
    compress(&mut state, words);

    let mut digests = [_mm512_setzero_si512(); 16];
    digests[..8].copy_from_slice(&state);
    transpose(&mut digests);
    digests.map(|digest| store(digest))
}

/// The compression function, on one block of each message.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn compress(state: &mut [Word; 8], mut words: [Word; 16]) {
    let mut next = *state;
    for (number, constants) in ROUNDS.iter().enumerate() {
        for at in 0..16 {
            if number > 0 {
                words[at] = add(
                    add(words[at], small_sigma_0(words[(at + 1) % 16])),
                    add(words[(at + 9) % 16], small_sigma_1(words[(at + 14) % 16])),
                );
            }
            let [a, b, c, d, e, f, g, h] = next;
            // Each bit of `e` chooses one of `f` and `g`; the majority of three.
            let choice = _mm512_ternarylogic_epi32::<0xca>(e, f, g);
            let majority = _mm512_ternarylogic_epi32::<0xe8>(a, b, c);
            let first = add(
                add(add(h, of(constants[at])), words[at]),
                add(big_sigma_1(e), choice),
            );
            let second = add(big_sigma_0(a), majority);
            next = [add(first, second), a, b, c, add(d, first), e, f, g];
        }
    }
    for (word, more) in state.iter_mut().zip(next) {
        *word = add(*word, more);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn of(word: u32) -> Word {
    _mm512_set1_epi32(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(a: Word, b: Word) -> Word {
    _mm512_add_epi32(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn xor(a: Word, b: Word, c: Word) -> Word {
    _mm512_ternarylogic_epi32::<0x96>(a, b, c)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn big_sigma_0(a: Word) -> Word {
    xor(
        _mm512_ror_epi32::<2>(a),
        _mm512_ror_epi32::<13>(a),
        _mm512_ror_epi32::<22>(a),
    )
}

#[inline]
#[target_feature(enable = "avx512f")]
fn big_sigma_1(e: Word) -> Word {
    xor(
        _mm512_ror_epi32::<6>(e),
        _mm512_ror_epi32::<11>(e),
        _mm512_ror_epi32::<25>(e),
    )
}

#[inline]
#[target_feature(enable = "avx512f")]
fn small_sigma_0(word: Word) -> Word {
    xor(
        _mm512_ror_epi32::<7>(word),
        _mm512_ror_epi32::<18>(word),
        _mm512_srli_epi32::<3>(word),
    )
}

#[inline]
#[target_feature(enable = "avx512f")]
fn small_sigma_1(word: Word) -> Word {
    xor(
        _mm512_ror_epi32::<17>(word),
        _mm512_ror_epi32::<19>(word),
        _mm512_srli_epi32::<10>(word),
    )
}

/// The sixteen words of a block of one message; words are big-endian.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn load(block: &[u8; BLOCK_LEN]) -> __m512i {
    let [a, b, c, d, e, f, g, h] = *block.as_chunks().0 else {
        unreachable!("64 bytes are eight times eight");
    };
    let [a, b, c, d, e, f, g, h] = [a, b, c, d, e, f, g, h].map(i64::from_le_bytes);
    swap_bytes(_mm512_set_epi64(h, g, f, e, d, c, b, a))
}

/// The hash that is in the first eight words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn store(words: __m512i) -> [u8; 32] {
    let words = swap_bytes(words);
    let halves: [__m128i; 2] = [
        _mm512_extracti32x4_epi32::<0>(words),
        _mm512_extracti32x4_epi32::<1>(words),
    ];
    let mut bytes = [0; 32];
    for (place, half) in bytes.as_chunks_mut::<16>().0.iter_mut().zip(halves) {
        place[..8].copy_from_slice(&_mm_extract_epi64::<0>(half).to_le_bytes());
        place[8..].copy_from_slice(&_mm_extract_epi64::<1>(half).to_le_bytes());
    }
    bytes
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn swap_bytes(words: __m512i) -> __m512i {
    let order = _mm512_set4_epi32(0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203);
    _mm512_shuffle_epi8(words, order)
}

/// Sixteen rows of sixteen words become the columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(rows: &mut [__m512i; 16]) {
    // Of four rows each: register `column` gets words `column`, `column` + 4, + 8, + 12 of all four, side by side.
    for four in rows.as_chunks_mut::<4>().0 {
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
}
