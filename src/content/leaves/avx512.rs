//! SHA-256 of several leaves in step: a register holds one word of each. Half of the instructions of a round are rotations and
//! functions of three words, which AVX-512 has and AVX2 has not. `sixteen` and `eight` differ in the width of the register.
//!
//! Safe intrinsics only; the caller has asked the CPU. Source: FIPS 180-4, sections 4.1.2, 4.2.2 and 6.2.

pub(super) mod eight;
pub(super) mod sixteen;

use super::super::merkle::LEAF_LEN;

/// Bytes of a leaf.
const LEN: usize = LEAF_LEN as usize;

/// Bytes of a message that one compression takes: sixteen words.
const BLOCK_LEN: usize = 64;

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

/// The hash of `$lanes` whole leaves, for registers of so many words. Beside it stand `words`, which takes a block of each leaf
/// apart into the same word of all, and `digests`, which puts the words of each hash together.
macro_rules! hash_in_step {
    (
        lanes: $lanes:literal,
        word: $Word:ident,
        splat: $splat:ident,
        zero: $zero:ident,
        add: $add:ident,
        rotate: $rotate:ident,
        shift: $shift:ident,
        three: $three:ident $(,)?
    ) => {
        /// Hashes of whole leaves, in order.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
        pub(in crate::content::leaves) fn hash(leaves: &[[u8; LEN]; $lanes]) -> [[u8; 32]; $lanes] {
            let mut state = INITIAL.map(|word| $splat(word.cast_signed()));
            for block in 0..LEN / BLOCK_LEN {
                compress(&mut state, words(leaves, block));
            }
            // What ends a message: a one bit, zeros, and its length in bits.
            let mut last = [$zero(); 16];
            last[0] = $splat(i32::MIN);
            last[15] = $splat(8 * LEN as i32);
            compress(&mut state, last);
            digests(state)
        }

        /// The compression function, on one block of each message.
        #[inline]
        #[target_feature(enable = "avx512f,avx512vl")]
        fn compress(state: &mut [$Word; 8], mut words: [$Word; 16]) {
            let mut next = *state;
            for (number, constants) in ROUNDS.iter().enumerate() {
                for at in 0..16 {
                    if number > 0 {
                        let (early, late) = (words[(at + 1) % 16], words[(at + 14) % 16]);
                        let early = xor(
                            $rotate::<7>(early),
                            $rotate::<18>(early),
                            $shift::<3>(early),
                        );
                        let late =
                            xor($rotate::<17>(late), $rotate::<19>(late), $shift::<10>(late));
                        let word = $add(words[at], words[(at + 9) % 16]);
                        words[at] = $add(word, $add(early, late));
                    }
                    let [a, b, c, d, e, f, g, h] = next;
                    // Each bit of `e` chooses one of `f` and `g`; the majority of three.
                    let choice = $three::<0xca>(e, f, g);
                    let majority = $three::<0xe8>(a, b, c);
                    let sum_1 = xor($rotate::<6>(e), $rotate::<11>(e), $rotate::<25>(e));
                    let sum_0 = xor($rotate::<2>(a), $rotate::<13>(a), $rotate::<22>(a));
                    let constant = $splat(constants[at].cast_signed());
                    let first = $add($add($add(h, constant), words[at]), $add(sum_1, choice));
                    let second = $add(sum_0, majority);
                    next = [$add(first, second), a, b, c, $add(d, first), e, f, g];
                }
            }
            for (word, more) in state.iter_mut().zip(next) {
                *word = $add(*word, more);
            }
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512vl")]
        fn xor(a: $Word, b: $Word, c: $Word) -> $Word {
            $three::<0x96>(a, b, c)
        }
    };
}

use hash_in_step;

/// Big-endian words to the CPU's and back, as an order of bytes for each 16 of them; from the last to the first.
const SWAPPED: [i32; 4] = [0x0c0d_0e0f, 0x0809_0a0b, 0x0405_0607, 0x0001_0203];

/// Eight bytes each, as a register takes and gives them.
fn quads<const N: usize>(bytes: &[[u8; 8]]) -> [i64; N] {
    std::array::from_fn(|at| i64::from_le_bytes(bytes[at]))
}
