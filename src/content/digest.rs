//! `Digest`: 32 bytes of SHA-256, the only hash in the project.
//!
//! Owns hashing of plain byte strings and of pairs, and the hexadecimal form. Knows nothing of trees, which are in
//! `merkle.rs`. Called everywhere a content address is held or compared.
//!
//! Source: FIPS 180-4.

use std::{fmt, str::FromStr};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use sha2::{Digest as _, Sha256};

use super::encoding::{Decode, Encode};

/// The SHA-256 of something. Shown as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Digest([u8; 32]);

impl Digest {
    /// 32 zero bytes: what BEP 52 puts in the place of a leaf beyond the end of a file.
    pub const ZERO: Self = Self([0; 32]);

    /// Hashes `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Hashes `left` followed by `right`: the parent of two nodes of a tree.
    #[must_use]
    pub fn of_pair(left: &Self, right: &Self) -> Self {
        Self::of_parts(&[&left.0, &right.0])
    }

    /// Hashes the concatenation of `parts`.
    #[must_use]
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }

    /// A digest computed elsewhere.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not 64 hexadecimal digits")]
pub struct DigestError;

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .map_err(|_| DigestError)?;
        Ok(Self(bytes.try_into().map_err(|_| DigestError)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_sha_256() {
        let cases = [
            (
                "",
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            (
                "abc",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
        ];
        for (text, hex) in cases {
            assert_eq!(Digest::of(text.as_bytes()).to_string(), hex);
            assert_eq!(Digest::of(text.as_bytes()), hex.parse().unwrap());
            assert_eq!(
                Digest::of(text.as_bytes()),
                hex.to_uppercase().parse().unwrap()
            );
        }
    }

    #[test]
    fn a_pair_is_hashed_left_then_right() {
        let (left, right) = (Digest::of(b"left"), Digest::of(b"right"));
        let both = [*left.as_bytes(), *right.as_bytes()].concat();
        assert_eq!(Digest::of_pair(&left, &right), Digest::of(&both));
        assert_ne!(
            Digest::of_pair(&left, &right),
            Digest::of_pair(&right, &left)
        );
        assert_eq!(Digest::of_parts(&[b"a", b"", b"bc"]), Digest::of(b"abc"));
    }

    #[test]
    fn text_that_is_no_digest_is_refused() {
        let good = Digest::of(b"abc").to_string();
        for end in 0..good.len() {
            assert_eq!(
                good[..end].parse::<Digest>(),
                Err(DigestError),
                "{end} digits"
            );
        }
        for bad in [
            format!("{good}00"),
            good.replace('b', "g"),
            format!(" {good}"),
        ] {
            assert_eq!(bad.parse::<Digest>(), Err(DigestError), "{bad}");
        }
    }
}
