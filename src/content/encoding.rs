//! The one canonical encoding: little-endian variable-length integers, no field names, nothing optional.
//!
//! Owns every call into `bincode` (pinned, see `Cargo.toml`) and the bounds on what decoding may allocate. Never
//! touches piece bytes. Called by `manifest.rs` and `link.rs`, and by `wire/` for its messages; the derives used
//! there come from here too, so that a change of library is a change of this file.
//!
//! Source: the `bincode` 2 specification, "standard" configuration; golden bytes in `manifest.rs` pin it.

use bincode::config;
pub use bincode::{BorrowDecode, Decode, Encode};

/// Memory a decode may claim for each byte of input, before rounding up to the next ceiling of [`decode`].
///
/// A list claims the in-memory size of all its elements before the first is read, so this has to exceed the
/// in-memory size of an element divided by its shortest encoding (an empty `Vec` is 24 bytes here, 1 byte there).
const CLAIM_PER_BYTE: usize = 32;

/// Memory one value read by [`Cursor::take`] may claim, in bytes: two paths of 4,096 bytes and change.
const CURSOR_CLAIM_MAX: usize = 16 * 1024;

/// Why bytes are not an encoding of the type asked for.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Refused before looking at the bytes.
    #[error("{len} bytes where at most {max} are allowed")]
    TooLong {
        /// Bytes offered.
        len: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The bytes end early, claim more than they can hold, or hold a value the type does not have.
    #[error("malformed encoding")]
    Malformed(#[source] bincode::error::DecodeError),
    /// The value is complete and bytes are left over.
    #[error("{count} bytes after the end of the value")]
    Trailing {
        /// Bytes left over.
        count: usize,
    },
}

/// The canonical bytes of `value`.
///
/// # Panics
/// Never for types made of integers, strings, byte arrays, lists, options and enums, the only ones used here:
/// encoding into memory cannot fail for them.
#[must_use]
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_onto(value, &mut bytes);
    bytes
}

/// Appends the canonical bytes of `value` to `bytes`.
///
/// # Panics
/// As [`encode`]: never for the types used here.
pub fn encode_onto<T: Encode>(value: &T, bytes: &mut Vec<u8>) {
    bincode::encode_into_std_write(value, bytes, config::standard())
        .expect("plain data always encodes into memory");
}

/// The value that `bytes` encode, all of them.
///
/// At most 256 bytes of memory are claimed for each byte of input (1 KiB for the shortest), however large the
/// lengths inside say they are: a claim beyond that is an error before anything is allocated. Variable-length
/// integers have more than one accepted encoding; who needs a canonical one compares with [`encode`].
///
/// # Errors
/// When `bytes` are more than `max_len`, malformed, or longer than the value.
pub fn decode<T: Decode<()>>(bytes: &[u8], max_len: usize) -> Result<T, DecodeError> {
    if bytes.len() > max_len {
        return Err(DecodeError::TooLong {
            len: bytes.len(),
            max: max_len,
        });
    }
    // The library takes its limit as a constant, so the proportional limit is rounded up to one of a few.
    let claim = bytes.len().saturating_mul(CLAIM_PER_BYTE);
    let decode_within = if claim <= 0x400 {
        decode_within::<T, 0x400>
    } else if claim <= 0x2000 {
        decode_within::<T, 0x2000>
    } else if claim <= 0x1_0000 {
        decode_within::<T, 0x1_0000>
    } else if claim <= 0x8_0000 {
        decode_within::<T, 0x8_0000>
    } else if claim <= 0x40_0000 {
        decode_within::<T, 0x40_0000>
    } else if claim <= 0x200_0000 {
        decode_within::<T, 0x200_0000>
    } else if claim <= 0x1000_0000 {
        decode_within::<T, 0x1000_0000>
    } else {
        decode_within::<T, 0x8000_0000>
    };
    let (value, used) = decode_within(bytes).map_err(DecodeError::Malformed)?;
    match bytes.len() - used {
        0 => Ok(value),
        count => Err(DecodeError::Trailing { count }),
    }
}

fn decode_within<T: Decode<()>, const CLAIM_MAX: usize>(
    bytes: &[u8],
) -> Result<(T, usize), bincode::error::DecodeError> {
    bincode::decode_from_slice(bytes, config::standard().with_limit::<CLAIM_MAX>())
}

/// Reads one small value after another from the front of some bytes, borrowing strings from them.
///
/// For long lists: the caller grows its own collection as the elements prove to be there, so a length prefix
/// alone allocates nothing.
#[derive(Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Starts at the first of `bytes`.
    ///
    /// # Errors
    /// When there are more than `max_len` of them.
    pub fn new(bytes: &'a [u8], max_len: usize) -> Result<Self, DecodeError> {
        if bytes.len() > max_len {
            return Err(DecodeError::TooLong {
                len: bytes.len(),
                max: max_len,
            });
        }
        Ok(Self { rest: bytes })
    }

    /// The next value, which may claim at most 16 KiB.
    ///
    /// # Errors
    /// When the bytes end early or do not encode a `T`. The cursor does not move then.
    pub fn take<T: BorrowDecode<'a, ()>>(&mut self) -> Result<T, DecodeError> {
        let limited = config::standard().with_limit::<CURSOR_CLAIM_MAX>();
        let (value, used) = bincode::borrow_decode_from_slice(self.rest, limited)
            .map_err(DecodeError::Malformed)?;
        self.rest = &self.rest[used..];
        Ok(value)
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// When bytes are left over.
    pub fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::Trailing { count }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_one_three_five_or_nine_bytes_least_significant_first() {
        let cases: [(u64, &[u8]); 7] = [
            (0, &[0]),
            (250, &[250]),
            (251, &[251, 251, 0]),
            (0xffff, &[251, 0xff, 0xff]),
            (0x1_0000, &[252, 0, 0, 1, 0]),
            (0xffff_ffff, &[252, 0xff, 0xff, 0xff, 0xff]),
            (0x1_0000_0000, &[253, 0, 0, 0, 0, 1, 0, 0, 0]),
        ];
        for (number, bytes) in cases {
            assert_eq!(encode(&number), bytes);
            assert_eq!(decode::<u64>(bytes, 9).unwrap(), number);
        }
    }

    #[test]
    fn a_list_is_its_length_and_its_elements() {
        assert_eq!(
            encode(&vec![(1_u32, 2_u8), (300, 4)]),
            [2, 1, 2, 251, 44, 1, 4]
        );
        assert_eq!(encode(&"ab".to_owned()), [2, b'a', b'b']);
        assert_eq!(encode(&Some([7_u8; 3])), [1, 7, 7, 7]);
    }

    /// A list of `len` elements that ends after its length.
    fn claim(len: u64) -> Vec<u8> {
        encode(&len)
    }

    fn is_refused_by_its_claim<T: Decode<()>>(bytes: &[u8]) -> bool {
        let error = decode::<T>(bytes, usize::MAX)
            .err()
            .expect("bytes that end early");
        matches!(
            error,
            DecodeError::Malformed(bincode::error::DecodeError::LimitExceeded)
        )
    }

    #[test]
    fn a_length_beyond_the_input_is_refused_before_anything_is_allocated() {
        for len in [1 << 20, 1 << 31, 1 << 40, 1 << 62, u64::MAX] {
            assert!(
                is_refused_by_its_claim::<Vec<u8>>(&claim(len)),
                "{len} bytes"
            );
            assert!(
                is_refused_by_its_claim::<String>(&claim(len)),
                "{len} characters"
            );
            assert!(
                is_refused_by_its_claim::<Vec<[u8; 32]>>(&claim(len)),
                "{len} digests"
            );
            assert!(
                is_refused_by_its_claim::<Vec<Vec<u8>>>(&claim(len)),
                "{len} lists"
            );
        }
    }

    #[test]
    fn a_claim_is_bounded_by_256_times_the_input() {
        for input_len in [
            32,
            33,
            256,
            257,
            2048,
            2049,
            1 << 14,
            1 << 17,
            (1 << 20) + 1,
        ] {
            let mut bytes = claim(input_len as u64 * 256 + 1024);
            bytes.resize(input_len, 0);
            assert!(
                is_refused_by_its_claim::<Vec<u8>>(&bytes),
                "{input_len} bytes of input"
            );
        }
    }

    #[test]
    fn a_list_of_short_encodings_is_no_bomb() {
        for len in [0, 1, 10, 1000, 100_000] {
            let lists = vec![Vec::<u8>::new(); len];
            assert_eq!(
                decode::<Vec<Vec<u8>>>(&encode(&lists), 1 << 20).unwrap(),
                lists
            );
        }
    }

    #[test]
    fn bytes_after_the_value_are_refused() {
        let error = decode::<u8>(&[1, 2, 3], 8).unwrap_err();
        assert!(
            matches!(error, DecodeError::Trailing { count: 2 }),
            "{error}"
        );
    }

    #[test]
    fn too_many_bytes_are_refused_unread() {
        let error = decode::<Vec<u8>>(&[200; 9], 8).unwrap_err();
        assert!(
            matches!(error, DecodeError::TooLong { len: 9, max: 8 }),
            "{error}"
        );
        assert!(matches!(
            Cursor::new(&[0; 9], 8),
            Err(DecodeError::TooLong { len: 9, max: 8 })
        ));
    }

    #[test]
    fn a_cursor_takes_values_in_order_and_ends_when_all_are_taken() {
        let bytes = [encode(&300_u32), encode(&"abc".to_owned()), encode(&true)].concat();
        let mut cursor = Cursor::new(&bytes, bytes.len()).unwrap();
        assert_eq!(cursor.take::<u32>().unwrap(), 300);
        assert_eq!(cursor.take::<&str>().unwrap(), "abc");
        assert_eq!(cursor.remaining(), 1);
        assert!(cursor.take::<u32>().is_ok_and(|one| one == 1));
        assert!(cursor.take::<u8>().is_err());
        cursor.finish().unwrap();

        let mut unread = Cursor::new(&bytes, bytes.len()).unwrap();
        assert!(unread.take::<u32>().is_ok());
        assert!(matches!(
            unread.finish(),
            Err(DecodeError::Trailing { count: 5 })
        ));
    }

    #[test]
    fn a_string_longer_than_the_input_ends_a_cursor() {
        for len in [5, 1 << 14, 1 << 40, u64::MAX] {
            let bytes = [claim(len), b"abcd".to_vec()].concat();
            let mut cursor = Cursor::new(&bytes, bytes.len()).unwrap();
            assert!(cursor.take::<&str>().is_err(), "{len} characters");
            assert_eq!(cursor.remaining(), bytes.len(), "the cursor does not move");
        }
    }
}
