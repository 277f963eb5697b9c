//! The one canonical encoding: little-endian variable-length integers, no field names, nothing optional.
//!
//! Owns every call into `bincode` (pinned, see `Cargo.toml`) and the bounds on what decoding may allocate. Never
//! touches piece bytes. Called by `manifest.rs` and `link.rs`, and by `wire/` for its messages; the derives used
//! there come from here too, so that a change of library is a change of this file.
//!
//! Source: the `bincode` 2 specification, "standard" configuration; golden bytes in `manifest.rs` pin it.

use bincode::config;
use bincode::de::{BorrowDecoder, Decoder};
pub use bincode::{BorrowDecode, Decode, Encode};

/// Memory a decode may claim for each byte of input, before rounding up to the next ceiling of [`decode`].
///
/// A list claims the in-memory size of all its elements before the first is read: four bytes for one is what numbers take,
/// and pairs of them. Lists of something larger are [`AtMost`] a few elements long.
const CLAIM_PER_BYTE: usize = 4;

/// Memory a decode may claim in any case: the fixed part of a message, and a full [`AtMost`].
const CLAIM_ALWAYS: usize = 2 * 1024;

/// Most bytes that [`decode`] looks at: a frame. What is longer is read element by element, with a [`Cursor`].
const DECODE_LEN_MAX: usize = 64 * 1024;

/// From one ceiling of [`decode`] to the next.
const CLAIM_STEP: usize = 48 * 1024;
const _: () = assert!(DECODE_LEN_MAX * CLAIM_PER_BYTE + CLAIM_ALWAYS <= 6 * CLAIM_STEP);

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
/// At most four bytes of memory are claimed for each byte of input, rounded up by at most 50 KiB, however large the
/// lengths inside say they are: a claim beyond that is an error before anything is allocated. Variable-length
/// integers have more than one accepted encoding; who needs a canonical one compares with [`encode`].
///
/// # Errors
/// When `bytes` are more than `max_len` (or 64 KiB), malformed, or longer than the value.
pub fn decode<T: Decode<()>>(bytes: &[u8], max_len: usize) -> Result<T, DecodeError> {
    let max = max_len.min(DECODE_LEN_MAX);
    if bytes.len() > max {
        return Err(DecodeError::TooLong {
            len: bytes.len(),
            max,
        });
    }
    // The library takes its limit as a constant, so the proportional limit is rounded up to one of a few.
    let claim = bytes.len() * CLAIM_PER_BYTE + CLAIM_ALWAYS;
    let decode_within = match claim.div_ceil(CLAIM_STEP) {
        0 | 1 => decode_within::<T, CLAIM_STEP>,
        2 => decode_within::<T, { 2 * CLAIM_STEP }>,
        3 => decode_within::<T, { 3 * CLAIM_STEP }>,
        4 => decode_within::<T, { 4 * CLAIM_STEP }>,
        5 => decode_within::<T, { 5 * CLAIM_STEP }>,
        _ => decode_within::<T, { 6 * CLAIM_STEP }>,
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

/// A list of at most `MAX` elements, which the decoder knows before it makes room for the first.
///
/// On the wire it is a list like any other. Making one that is longer is not prevented: nobody will read it.
#[derive(Clone, Debug, PartialEq, Eq, Encode)]
pub struct AtMost<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> AtMost<T, MAX> {
    /// The elements.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }

    /// The list as it is.
    #[must_use]
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> From<Vec<T>> for AtMost<T, MAX> {
    fn from(list: Vec<T>) -> Self {
        Self(list)
    }
}

impl<T: Decode<Context>, Context, const MAX: usize> Decode<Context> for AtMost<T, MAX> {
    fn decode<D: Decoder<Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        let len = usize::try_from(u64::decode(decoder)?).unwrap_or(usize::MAX);
        if len > MAX {
            return Err(bincode::error::DecodeError::LimitExceeded);
        }
        decoder.claim_container_read::<T>(len)?;
        let mut list = Vec::with_capacity(len);
        for _ in 0..len {
            decoder.unclaim_bytes_read(size_of::<T>());
            list.push(T::decode(decoder)?);
        }
        Ok(Self(list))
    }
}

// The derive of a type that holds one asks for both.
impl<'de, T: Decode<Context>, Context, const MAX: usize> BorrowDecode<'de, Context>
    for AtMost<T, MAX>
{
    fn borrow_decode<D: BorrowDecoder<'de, Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        Self::decode(decoder)
    }
}

/// Reads one small value after another from the front of some bytes, borrowing strings from them.
///
/// For long lists: the caller grows its own collection as the elements prove to be there, so a length prefix
/// alone allocates nothing. A clone reads the same once more.
#[derive(Clone, Debug)]
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
    fn a_claim_is_bounded_by_four_times_the_input_and_a_step() {
        for input_len in [32, 2048, 12_000, 1 << 14, 1 << 15, 60_000, DECODE_LEN_MAX] {
            let step = CLAIM_ALWAYS + CLAIM_STEP;
            let mut bytes = claim((input_len * CLAIM_PER_BYTE + step) as u64);
            bytes.resize(input_len, 0);
            assert!(
                is_refused_by_its_claim::<Vec<u8>>(&bytes),
                "{input_len} bytes of input"
            );
        }
    }

    #[test]
    fn a_list_of_short_encodings_is_no_bomb() {
        for len in [0, 1, 10, 1000, 32_000] {
            let pairs = vec![(1_u32, 2_u32); len];
            assert_eq!(
                decode::<Vec<(u32, u32)>>(&encode(&pairs), 1 << 20).unwrap(),
                pairs
            );
        }
        let lists = encode(&vec![Vec::<u8>::new(); 60_000]);
        assert!(is_refused_by_its_claim::<Vec<Vec<u8>>>(&lists));
    }

    #[test]
    fn a_short_list_is_as_long_as_it_may_be_and_a_longer_one_is_refused_unread() {
        for len in [0, 1, 50] {
            let list = vec![vec![7_u8; 1024]; len];
            let bytes = encode(&AtMost::<_, 50>::from(list.clone()));
            assert_eq!(bytes, encode(&list));
            let read: AtMost<Vec<u8>, 50> = decode(&bytes, 1 << 20).unwrap();
            assert_eq!(read.into_vec(), list);
        }
        let long = encode(&vec![Vec::<u8>::new(); 51]);
        assert!(is_refused_by_its_claim::<AtMost<Vec<u8>, 50>>(&long));
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
