//! `Bitfield`: a set of pieces of one share, one bit each.
//!
//! Owns the bit arithmetic, word by word, and the byte form peers exchange. Knows neither who has the pieces nor what
//! they are. Called by the engine's picker for every peer, and by `storage/` for what is held.
//!
//! Source: BEP 3, "bitfield" message (the first piece is the most significant bit of the first byte).

use super::geometry::PieceIndex;

const WORD_BITS: u32 = u64::BITS;

/// A set of pieces below a fixed length. The number of members is kept, not counted.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitfield {
    /// Bit `i % 64` of word `i / 64`, least significant first; bits past `len` are zero.
    words: Box<[u64]>,
    len: u32,
    count: u32,
}

/// Why bytes are not a bitfield of the length asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BitfieldError {
    /// More or fewer bytes than the pieces need.
    #[error("bitfield of {found} bytes where {expected} are needed")]
    Length {
        /// Bytes that were needed.
        expected: usize,
        /// Bytes that were given.
        found: usize,
    },
    /// A bit past the last piece is set.
    #[error("bitfield with a bit past the last piece")]
    SpareBits,
}

impl Bitfield {
    /// No piece of `len`.
    #[must_use]
    pub fn new(len: u32) -> Self {
        Self {
            words: vec![0; len.div_ceil(WORD_BITS) as usize].into(),
            len,
            count: 0,
        }
    }

    /// All of `len` pieces.
    #[must_use]
    pub fn full(len: u32) -> Self {
        let mut words: Box<[u64]> = vec![u64::MAX; len.div_ceil(WORD_BITS) as usize].into();
        if let Some(last) = words.last_mut() {
            *last &= last_word_mask(len);
        }
        Self {
            words,
            len,
            count: len,
        }
    }

    /// Pieces that could be members.
    #[must_use]
    #[allow(
        clippy::len_without_is_empty,
        reason = "`none` asks about members, and is the word used here"
    )]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Pieces that are members.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether every piece is a member; true for a length of zero.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count == self.len
    }

    /// Whether no piece is a member.
    #[must_use]
    pub fn none(&self) -> bool {
        self.count == 0
    }

    /// Whether `piece` is a member; false past the end.
    #[must_use]
    pub fn contains(&self, piece: PieceIndex) -> bool {
        let (word, mask) = position(piece.get());
        self.words.get(word).is_some_and(|word| word & mask != 0)
    }

    /// Adds `piece`; true when it is new.
    ///
    /// # Panics
    /// When `piece` is past the end.
    pub fn insert(&mut self, piece: PieceIndex) -> bool {
        assert!(piece.get() < self.len, "piece {piece} of {}", self.len);
        let (word, mask) = position(piece.get());
        let is_new = self.words[word] & mask == 0;
        self.words[word] |= mask;
        self.count += u32::from(is_new);
        is_new
    }

    /// Takes `piece` out; true when it was a member.
    ///
    /// # Panics
    /// When `piece` is past the end.
    pub fn remove(&mut self, piece: PieceIndex) -> bool {
        assert!(piece.get() < self.len, "piece {piece} of {}", self.len);
        let (word, mask) = position(piece.get());
        let was_set = self.words[word] & mask != 0;
        self.words[word] &= !mask;
        self.count -= u32::from(was_set);
        was_set
    }

    /// The members, in order.
    pub fn iter(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        ones(self.words.iter().copied())
    }

    /// The pieces that are not members, in order.
    pub fn iter_zeros(&self) -> impl Iterator<Item = PieceIndex> + '_ {
        let len = self.len;
        ones(self.words.iter().map(|word| !word)).take_while(move |piece| piece.get() < len)
    }

    /// The members as maximal runs, in order: first piece and number of pieces of each.
    pub fn runs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut from = 0;
        std::iter::from_fn(move || {
            let first = self.next_at(from, |word| word)?;
            let end = self
                .next_at(first, |word| !word)
                .unwrap_or(self.len)
                .min(self.len);
            from = end;
            Some((first, end - first))
        })
    }

    /// The first piece at or after `from` that is not a member.
    #[must_use]
    pub fn first_zero(&self, from: u32) -> Option<PieceIndex> {
        self.next_at(from, |word| !word)
            .filter(|piece| *piece < self.len)
            .map(PieceIndex::new)
    }

    /// The first piece at or after `from` that is a member of both.
    #[must_use]
    pub fn first_in_both(&self, other: &Self, from: u32) -> Option<PieceIndex> {
        let (start, mask) = position_from(from);
        let pairs = self.words.iter().zip(&other.words).enumerate().skip(start);
        for (index, (ours, theirs)) in pairs {
            let both = ours & theirs & if index == start { mask } else { u64::MAX };
            if both != 0 {
                return Some(PieceIndex::new(bit_index(index, both)));
            }
        }
        None
    }

    /// Whether every member is one of `other` too.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        let theirs = other.words.iter().copied().chain(std::iter::repeat(0));
        self.words
            .iter()
            .zip(theirs)
            .all(|(ours, theirs)| ours & !theirs == 0)
    }

    /// The bytes peers exchange: the first piece is the most significant bit of the first byte, spare bits are 0.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = self
            .words
            .iter()
            .flat_map(|word| word.to_le_bytes().map(u8::reverse_bits));
        bytes.take(byte_len(self.len)).collect()
    }

    /// A set of `len` pieces from the bytes of [`to_bytes`](Self::to_bytes).
    ///
    /// # Errors
    /// When the bytes are too many, too few, or have a bit past the last piece. Nothing is allocated then.
    pub fn from_bytes(len: u32, bytes: &[u8]) -> Result<Self, BitfieldError> {
        if bytes.len() != byte_len(len) {
            return Err(BitfieldError::Length {
                expected: byte_len(len),
                found: bytes.len(),
            });
        }
        if let Some(last) = bytes.last()
            && !len.is_multiple_of(8)
            && last & (0xff >> (len % 8)) != 0
        {
            return Err(BitfieldError::SpareBits);
        }
        let words: Box<[u64]> = bytes
            .chunks(8)
            .map(|chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                u64::from_le_bytes(word.map(u8::reverse_bits))
            })
            .collect();
        let count = words.iter().map(|word| word.count_ones()).sum();
        Ok(Self { words, len, count })
    }

    /// Index of the first one bit at or after `from` in the words as `view` shows them; may lie past `len`.
    fn next_at(&self, from: u32, view: impl Fn(u64) -> u64) -> Option<u32> {
        let (start, mask) = position_from(from);
        let first = view(*self.words.get(start)?) & mask;
        if first != 0 {
            return Some(bit_index(start, first));
        }
        let rest = self.words.iter().enumerate().skip(start + 1);
        rest.map(|(index, word)| (index, view(*word)))
            .find(|(_, word)| *word != 0)
            .map(|(index, word)| bit_index(index, word))
    }
}

impl std::fmt::Debug for Bitfield {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bitfield({}/{}:", self.count, self.len)?;
        for (first, len) in self.runs() {
            write!(f, " {first}+{len}")?;
        }
        write!(f, ")")
    }
}

fn position(index: u32) -> (usize, u64) {
    ((index / WORD_BITS) as usize, 1 << (index % WORD_BITS))
}

/// The word of `index` and the mask of its bits from `index` on.
fn position_from(index: u32) -> (usize, u64) {
    (
        (index / WORD_BITS) as usize,
        u64::MAX << (index % WORD_BITS),
    )
}

fn bit_index(word_index: usize, word: u64) -> u32 {
    word_index as u32 * WORD_BITS + word.trailing_zeros()
}

fn last_word_mask(len: u32) -> u64 {
    match len % WORD_BITS {
        0 => u64::MAX,
        used => (1 << used) - 1,
    }
}

fn byte_len(len: u32) -> usize {
    len.div_ceil(8) as usize
}

fn ones(words: impl Iterator<Item = u64>) -> impl Iterator<Item = PieceIndex> {
    words.enumerate().flat_map(|(index, mut word)| {
        std::iter::from_fn(move || {
            if word == 0 {
                return None;
            }
            let piece = PieceIndex::new(bit_index(index, word));
            word &= word - 1;
            Some(piece)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Numbers, *};

    const LENS: [u32; 13] = [0, 1, 7, 8, 9, 63, 64, 65, 127, 128, 129, 500, 1000];

    fn field_of(bits: &[bool]) -> Bitfield {
        let mut field = Bitfield::new(bits.len() as u32);
        for index in indexes(bits, true) {
            field.insert(PieceIndex::new(index));
        }
        field
    }

    fn indexes(bits: &[bool], value: bool) -> Vec<u32> {
        (0..)
            .zip(bits)
            .filter(|(_, bit)| **bit == value)
            .map(|(index, _)| index)
            .collect()
    }

    fn numbers(pieces: impl Iterator<Item = PieceIndex>) -> Vec<u32> {
        pieces.map(PieceIndex::get).collect()
    }

    /// Sets and clears at random, about half set at the end, in long and short runs.
    fn some_bits(len: u32, numbers: &mut Numbers) -> Vec<bool> {
        let mut bits = vec![false; len as usize];
        for _ in 0..len.min(12) {
            let first = numbers.below(len) as usize;
            let end = (first + 1 + numbers.below(len / 4 + 1) as usize).min(len as usize);
            bits[first..end].fill(numbers.below(2) == 0);
        }
        bits
    }

    /// Compares everything a bitfield can tell with its slow twin.
    fn check_twins(field: &Bitfield, bits: &[bool]) {
        let ones = indexes(bits, true);
        assert_eq!(field.len() as usize, bits.len());
        assert_eq!(field.count() as usize, ones.len());
        assert_eq!(field.none(), ones.is_empty());
        assert_eq!(field.is_full(), ones.len() == bits.len());
        assert_eq!(numbers(field.iter()), ones);
        assert_eq!(numbers(field.iter_zeros()), indexes(bits, false));
        let runs: Vec<u32> = field
            .runs()
            .flat_map(|(first, len)| first..first + len)
            .collect();
        assert_eq!(runs, ones);
        let mut previous_end = None;
        for (first, len) in field.runs() {
            assert!(
                len > 0 && previous_end.is_none_or(|end| first > end),
                "runs are maximal"
            );
            previous_end = Some(first + len);
        }
        for from in 0..=field.len() + 65 {
            let zero = (from..field.len()).find(|index| !bits[*index as usize]);
            assert_eq!(field.first_zero(from).map(PieceIndex::get), zero);
            assert_eq!(
                field.contains(PieceIndex::new(from)),
                bits.get(from as usize).is_some_and(|bit| *bit)
            );
        }
        let bytes = field.to_bytes();
        assert_eq!(bytes.len(), bits.len().div_ceil(8));
        for (index, bit) in bits.iter().enumerate() {
            assert_eq!(bytes[index / 8] & (0x80 >> (index % 8)) != 0, *bit);
        }
        assert_eq!(&Bitfield::from_bytes(field.len(), &bytes).unwrap(), field);
    }

    #[test]
    fn a_bitfield_tells_what_its_slow_twin_tells() {
        let mut numbers = Numbers::seeded(2);
        for len in LENS {
            check_twins(&Bitfield::new(len), &vec![false; len as usize]);
            check_twins(&Bitfield::full(len), &vec![true; len as usize]);
            for _ in 0..20 {
                let bits = some_bits(len, &mut numbers);
                check_twins(&field_of(&bits), &bits);
            }
        }
    }

    #[test]
    fn insert_and_remove_tell_whether_something_changed() {
        let mut numbers = Numbers::seeded(3);
        for len in LENS.into_iter().filter(|len| *len > 0) {
            let mut field = Bitfield::new(len);
            let mut bits = vec![false; len as usize];
            for _ in 0..300 {
                let index = numbers.below(len);
                let bit = &mut bits[index as usize];
                if numbers.below(2) == 0 {
                    assert_eq!(field.insert(PieceIndex::new(index)), !*bit);
                    *bit = true;
                } else {
                    assert_eq!(field.remove(PieceIndex::new(index)), *bit);
                    *bit = false;
                }
            }
            check_twins(&field, &bits);
        }
    }

    #[test]
    fn two_bitfields_compare_like_their_slow_twins() {
        let mut numbers = Numbers::seeded(4);
        for len in LENS {
            for _ in 0..20 {
                let ours = some_bits(len, &mut numbers);
                let theirs = some_bits(len, &mut numbers);
                let (left, right) = (field_of(&ours), field_of(&theirs));
                for from in 0..=len + 65 {
                    let both =
                        (from..len).find(|index| ours[*index as usize] && theirs[*index as usize]);
                    assert_eq!(left.first_in_both(&right, from).map(PieceIndex::get), both);
                }
                let is_subset = ours
                    .iter()
                    .zip(&theirs)
                    .all(|(ours, theirs)| !ours || *theirs);
                assert_eq!(left.is_subset(&right), is_subset);
                assert!(
                    left.is_subset(&Bitfield::full(len)) && Bitfield::new(len).is_subset(&left)
                );
            }
        }
    }

    #[test]
    fn the_first_piece_is_the_most_significant_bit() {
        let mut field = Bitfield::new(10);
        field.insert(PieceIndex::new(0));
        field.insert(PieceIndex::new(9));
        assert_eq!(field.to_bytes(), [0b1000_0000, 0b0100_0000]);
        assert_eq!(format!("{field:?}"), "Bitfield(2/10: 0+1 9+1)");
    }

    #[test]
    fn bytes_of_the_wrong_length_or_with_spare_bits_are_refused() {
        for len in LENS {
            let bytes = Bitfield::full(len).to_bytes();
            let longer = [&bytes[..], &[0]].concat();
            let expected = bytes.len();
            let error = BitfieldError::Length {
                expected,
                found: expected + 1,
            };
            assert_eq!(Bitfield::from_bytes(len, &longer), Err(error));
            if let Some((_, shorter)) = bytes.split_last() {
                let error = BitfieldError::Length {
                    expected,
                    found: expected - 1,
                };
                assert_eq!(Bitfield::from_bytes(len, shorter), Err(error));
            }
            for spare in len % 8..if len % 8 == 0 { 0 } else { 8 } {
                let mut spoilt = Bitfield::new(len).to_bytes();
                *spoilt.last_mut().unwrap() |= 0x80 >> spare;
                assert_eq!(
                    Bitfield::from_bytes(len, &spoilt),
                    Err(BitfieldError::SpareBits)
                );
            }
        }
    }

    #[test]
    #[should_panic(expected = "piece 10 of 10")]
    fn a_piece_past_the_end_is_a_broken_invariant() {
        Bitfield::new(10).insert(PieceIndex::new(10));
    }
}
