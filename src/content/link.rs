//! What users hand to each other: the share id and the link around it.
//!
//! Owns the text forms, with checksums so that a typing error is found before anything is dialled, and the keys
//! derived from an id. Never resolves or dials an address. Called by the command line, by discovery for its key and
//! by sessions for the token that opens a share.
//!
//! Source: RFC 4648 (base32); `multiaddr` and peer ids as in the libp2p specifications.

use std::{fmt, str::FromStr};

use data_encoding::BASE32_NOPAD;
pub use libp2p_identity::PeerId;
pub use multiaddr::Multiaddr;

use super::{
    digest::Digest,
    encoding::{self, AtMost, Decode, Encode},
    path::ELEMENT_LEN_MAX,
};

/// Most addresses in a link.
pub const LINK_ADDRESSES_MAX: usize = 8;

const PREFIX: &str = "shoal:";
/// Version of the payload of a link with hints.
const VERSION: u8 = 1;
const ID_CHECKSUM_LEN: usize = 3;
const LINK_CHECKSUM_LEN: usize = 4;
/// Characters of an id: 35 bytes, without spare bits. A link with hints is always longer.
const ID_TEXT_LEN: usize = (32 + ID_CHECKSUM_LEN) * 8 / 5;
/// Longest text looked at: eight addresses of 200 bytes and the longest name take 3,200 characters.
const LINK_TEXT_LEN_MAX: usize = 8 * 1024;

/// The identity of a share: the digest of its manifest's canonical bytes. A right to read it, too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ShareId(Digest);

impl ShareId {
    /// The id of the share whose manifest hashes to `digest`.
    #[must_use]
    pub const fn from_digest(digest: Digest) -> Self {
        Self(digest)
    }

    /// The digest of the manifest.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.0
    }

    /// The digest under which providers are announced. Who indexes it cannot fetch the share with it.
    #[must_use]
    pub fn provider_key(&self) -> [u8; 32] {
        *Digest::of_parts(&[b"shoal/provider/1", self.0.as_bytes()]).as_bytes()
    }

    /// What `opener` sends to `receiver` to open the share: it shows knowledge of the id, and is of no use to
    /// anybody else, nor between others.
    #[must_use]
    pub fn open_token(&self, opener: &PeerId, receiver: &PeerId) -> Digest {
        let (opener, receiver) = (opener.to_bytes(), receiver.to_bytes());
        Digest::of_parts(&[b"shoal/open/1", self.0.as_bytes(), &opener, &receiver])
    }

    fn checksum(&self) -> [u8; ID_CHECKSUM_LEN] {
        first_bytes(&Digest::of_parts(&[b"shoal id", self.0.as_bytes()]))
    }
}

impl fmt::Display for ShareId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&base32(
            &[&self.0.as_bytes()[..], &self.checksum()].concat(),
        ))
    }
}

impl fmt::Debug for ShareId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ShareId {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != ID_TEXT_LEN {
            return Err(LinkError::Length { len: text.len() });
        }
        let bytes = from_base32(text)?;
        let (digest, checksum) = bytes
            .split_first_chunk::<32>()
            .expect("56 characters of base32 are 35 bytes");
        let id = Self(Digest::from_bytes(*digest));
        if checksum != id.checksum() {
            return Err(LinkError::Checksum);
        }
        Ok(id)
    }
}

/// A share, and possibly where to begin looking for it.
///
/// Displays as `shoal:` and lower-case base32, which no shell or chat touches. Parses with or without the prefix, in
/// either case, with white space around it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// The share.
    pub share: ShareId,
    /// Who made the link; `None` in the short form, the bare id, which relies on discovery.
    pub hints: Option<LinkHints>,
}

/// What a link says besides the id. Nothing here is proven before the manifest has arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkHints {
    /// The peer that made the link and is at `addresses`.
    pub peer: PeerId,
    /// Name of the share, at most 255 bytes; a remote's words, see [`escape_hostile`](super::escape_hostile).
    pub name: String,
    /// Bytes of the share.
    pub total_len: u64,
    /// Where the peer listens, best first, at most eight, without `/p2p/`.
    pub addresses: Vec<Multiaddr>,
}

/// Why text is not a link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Too short or too long for an id or a link.
    #[error("link of {len} characters is cut off, or not a link")]
    Length {
        /// Its characters, without prefix.
        len: usize,
    },
    /// A character base32 does not have, or a number of them that it cannot make.
    #[error("link has characters that no link has")]
    Base32,
    /// Some character is wrong or missing.
    #[error("link is mistyped or cut off (its checksum does not match)")]
    Checksum,
    /// Made by a later version.
    #[error("link of version {found}, this version reads {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
    /// The checksum matches and the content does not decode: its maker is at fault.
    #[error("link has malformed content")]
    Malformed,
}

/// The payload of a link with hints, before the checksum.
#[derive(Encode, Decode)]
struct LinkRecord {
    version: u8,
    share: ShareId,
    peer: Vec<u8>,
    name: String,
    total_len: u64,
    addresses: AtMost<Vec<u8>, LINK_ADDRESSES_MAX>,
}

impl fmt::Display for Link {
    /// Beyond the limits a hint is shortened: a name to whole characters in 255 bytes, addresses to the first eight.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(hints) = &self.hints else {
            return write!(f, "{PREFIX}{}", self.share);
        };
        let addresses = hints.addresses.iter().take(LINK_ADDRESSES_MAX);
        let mut bytes = encoding::encode(&LinkRecord {
            version: VERSION,
            share: self.share,
            peer: hints.peer.to_bytes(),
            name: shortened(&hints.name).to_owned(),
            total_len: hints.total_len,
            addresses: addresses.map(Multiaddr::to_vec).collect::<Vec<_>>().into(),
        });
        bytes.extend_from_slice(&checksum(&bytes));
        write!(f, "{PREFIX}{}", base32(&bytes))
    }
}

impl FromStr for Link {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let text = match text.split_at_checked(PREFIX.len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
            _ => text,
        };
        if text.len() == ID_TEXT_LEN {
            return Ok(Self {
                share: text.parse()?,
                hints: None,
            });
        }
        if !(ID_TEXT_LEN..=LINK_TEXT_LEN_MAX).contains(&text.len()) {
            return Err(LinkError::Length { len: text.len() });
        }
        let bytes = from_base32(text)?;
        let (payload, sum) = bytes
            .split_last_chunk::<LINK_CHECKSUM_LEN>()
            .ok_or(LinkError::Checksum)?;
        if *sum != checksum(payload) {
            return Err(LinkError::Checksum);
        }
        match payload.first() {
            Some(&VERSION) => Self::from_payload(payload).ok_or(LinkError::Malformed),
            Some(&found) => Err(LinkError::Version { found }),
            None => Err(LinkError::Malformed),
        }
    }
}

impl Link {
    fn from_payload(payload: &[u8]) -> Option<Self> {
        let record: LinkRecord = encoding::decode(payload, LINK_TEXT_LEN_MAX).ok()?;
        let is_canonical = encoding::encode(&record) == payload;
        if !is_canonical || record.name.len() > ELEMENT_LEN_MAX {
            return None;
        }
        let addresses = record
            .addresses
            .into_vec()
            .into_iter()
            .map(|bytes| Multiaddr::try_from(bytes).ok());
        Some(Self {
            share: record.share,
            hints: Some(LinkHints {
                peer: PeerId::from_bytes(&record.peer).ok()?,
                name: record.name,
                total_len: record.total_len,
                addresses: addresses.collect::<Option<_>>()?,
            }),
        })
    }
}

/// As many whole characters of `name` as a link holds.
fn shortened(name: &str) -> &str {
    let end = (0..=name.len().min(ELEMENT_LEN_MAX))
        .rev()
        .find(|end| name.is_char_boundary(*end));
    &name[..end.unwrap_or(0)]
}

fn checksum(payload: &[u8]) -> [u8; LINK_CHECKSUM_LEN] {
    first_bytes(&Digest::of_parts(&[b"shoal link", payload]))
}

fn first_bytes<const LEN: usize>(digest: &Digest) -> [u8; LEN] {
    *digest
        .as_bytes()
        .first_chunk()
        .expect("a checksum is shorter than a digest")
}

fn base32(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

fn from_base32(text: &str) -> Result<Vec<u8>, LinkError> {
    BASE32_NOPAD
        .decode(text.to_ascii_uppercase().as_bytes())
        .map_err(|_| LinkError::Base32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share() -> ShareId {
        ShareId::from_digest(Digest::of(b"a manifest"))
    }

    fn peer() -> PeerId {
        "12D3KooWNH7SAnHFyQwFtoK2EwTfkJZiD1oGGRqC6LKT8rD3zyz3"
            .parse()
            .unwrap()
    }

    fn other_peer() -> PeerId {
        let digest = Digest::of(b"another peer");
        PeerId::from_bytes(&[&[0x12, 32], &digest.as_bytes()[..]].concat()).unwrap()
    }

    fn link(name: &str, addresses: &[&str]) -> Link {
        let hints = LinkHints {
            peer: peer(),
            name: name.into(),
            total_len: 5_000_000_000,
            addresses: addresses
                .iter()
                .map(|address| address.parse().unwrap())
                .collect(),
        };
        Link {
            share: share(),
            hints: Some(hints),
        }
    }

    fn example() -> Link {
        link(
            "photos 2024",
            &["/ip4/192.168.1.7/tcp/4001", "/ip6/fd00::1/udp/4001/quic-v1"],
        )
    }

    /// The text of a link of these bytes, with a checksum that matches.
    fn forged(payload: &[u8]) -> String {
        format!("shoal:{}", base32(&[payload, &checksum(payload)].concat()))
    }

    fn record(link: &Link) -> LinkRecord {
        let bytes = from_base32(&link.to_string()[PREFIX.len()..]).unwrap();
        encoding::decode(&bytes[..bytes.len() - LINK_CHECKSUM_LEN], usize::MAX).unwrap()
    }

    #[test]
    fn links_read_back_as_they_were_written() {
        let most = ["/ip4/10.0.0.1/tcp/1"; LINK_ADDRESSES_MAX];
        let bare = Link {
            share: share(),
            hints: None,
        };
        let longest = "n".repeat(ELEMENT_LEN_MAX);
        for link in [
            bare,
            example(),
            link("", &[]),
            link(&longest, &most),
            link("\u{202e}", &[]),
        ] {
            let text = link.to_string();
            assert_eq!(text.parse::<Link>().unwrap(), link, "{text}");
            let payload = text.strip_prefix("shoal:").unwrap();
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte);
            assert!(payload.bytes().all(is_plain), "{text}");
        }
    }

    #[test]
    fn the_text_of_a_link_is_this_and_no_other() {
        let id = "4wlclkbcjf6bmtlaobplh7ljoxbxlsrbhoauae32qjvho6ijq2uxg6s7";
        assert_eq!(share().to_string(), id);
        assert_eq!(
            Link {
                share: share(),
                hints: None
            }
            .to_string(),
            format!("shoal:{id}")
        );
        assert_eq!(
            link("a", &["/ip4/127.0.0.1/tcp/4001"]).to_string(),
            concat!(
                "shoal:",
                "ahszmjniejexyfsnmbyf5m75nf24g5okee5ycqatpkbgu53zbgdksjqaeqeacera",
                "xetehxvb5qizecntvxud4hyrr7v5yssdlugoajv4drpoyr42rmkacyp5adzakkqb",
                "aaaaaaiiar7qaaabayh2cygkfpoa"
            )
        );
    }

    #[test]
    fn a_link_may_be_pasted_carelessly() {
        let text = example().to_string();
        let bare = share().to_string();
        for pasted in [
            format!("  {text}\r\n"),
            text.to_uppercase(),
            text.replacen("shoal:", "Shoal:", 1),
            text.replacen("shoal:", "", 1),
        ] {
            assert_eq!(pasted.parse::<Link>().unwrap(), example(), "{pasted}");
        }
        for pasted in [
            bare.clone(),
            bare.to_uppercase(),
            format!("\tshoal:{bare}\n"),
        ] {
            let link: Link = pasted.parse().unwrap();
            assert_eq!(
                link,
                Link {
                    share: share(),
                    hints: None
                },
                "{pasted}"
            );
        }
        assert_eq!(bare.parse::<ShareId>().unwrap(), share());
        assert_eq!(bare.len(), 56);
    }

    #[test]
    fn every_truncation_of_a_link_is_refused() {
        for text in [
            example().to_string(),
            Link {
                share: share(),
                hints: None,
            }
            .to_string(),
        ] {
            for end in 0..text.len() {
                assert!(text[..end].parse::<Link>().is_err(), "{}", &text[..end]);
            }
            for longer in ["a", "aa", "aaaaaaaa"] {
                assert!(format!("{text}{longer}").parse::<Link>().is_err());
            }
        }
    }

    #[test]
    fn every_mistyped_character_is_refused() {
        for text in [
            example().to_string(),
            Link {
                share: share(),
                hints: None,
            }
            .to_string(),
        ] {
            for index in 0..text.len() {
                for typed in ('!'..='~').filter(|typed| !text[index..].starts_with(*typed)) {
                    let mut changed = text.clone();
                    changed.replace_range(index..=index, &typed.to_string());
                    let is_same = changed.eq_ignore_ascii_case(&text);
                    assert_eq!(changed.parse::<Link>().is_ok(), is_same, "{changed}");
                }
            }
        }
    }

    #[test]
    fn swapped_and_missing_characters_are_refused() {
        let text = example().to_string();
        for index in PREFIX.len()..text.len() - 1 {
            let mut swapped = text.clone().into_bytes();
            swapped.swap(index, index + 1);
            let swapped = String::from_utf8(swapped).unwrap();
            assert_eq!(swapped.parse::<Link>().is_ok(), swapped == text);
            let mut missing = text.clone();
            missing.remove(index);
            assert!(missing.parse::<Link>().is_err());
        }
    }

    #[test]
    fn text_that_is_no_link_is_refused() {
        let long = format!("shoal:{}", "a".repeat(1 << 20));
        let bare = share().to_string();
        let broken = format!("shoal:{} {}", &bare[..20], &bare[20..]);
        for text in [
            "",
            "shoal:",
            "magnet:?xt=urn:btih:0",
            "\u{1f433}",
            "shoal:\u{1f433}",
            &long,
            &broken,
        ] {
            assert!(text.parse::<Link>().is_err(), "{text:.50}");
        }
        assert!("\u{e9}".repeat(28).parse::<ShareId>().is_err());
    }

    #[test]
    fn a_link_whose_maker_broke_a_rule_is_refused() {
        let refused = |record: &LinkRecord| {
            let error = forged(&encoding::encode(record))
                .parse::<Link>()
                .unwrap_err();
            assert!(matches!(error, LinkError::Malformed), "{error}");
        };
        let good = || record(&example());
        assert_eq!(
            forged(&encoding::encode(&good())).parse::<Link>().unwrap(),
            example()
        );
        refused(&LinkRecord {
            name: "n".repeat(ELEMENT_LEN_MAX + 1),
            ..good()
        });
        refused(&LinkRecord {
            peer: vec![1, 2, 3],
            ..good()
        });
        refused(&LinkRecord {
            addresses: vec![vec![0xff; 9]].into(),
            ..good()
        });
        let address = good().addresses.into_vec().remove(0);
        refused(&LinkRecord {
            addresses: vec![address; LINK_ADDRESSES_MAX + 1].into(),
            ..good()
        });
    }

    #[test]
    fn a_link_of_another_form_or_version_is_refused() {
        let payload = encoding::encode(&record(&example()));
        let mut later = payload.clone();
        later[0] = 2;
        let error = forged(&later).parse::<Link>().unwrap_err();
        assert!(matches!(error, LinkError::Version { found: 2 }), "{error}");

        // The length of the peer id as two bytes instead of one.
        let (front, back) = payload.split_at(33);
        let wasteful = [front, &[251, back[0], 0], &back[1..]].concat();
        let error = forged(&wasteful).parse::<Link>().unwrap_err();
        assert!(matches!(error, LinkError::Malformed), "{error}");
        assert!(
            forged(&[&payload[..], &[0]].concat())
                .parse::<Link>()
                .is_err()
        );
        for end in 0..payload.len() {
            assert!(
                forged(&payload[..end]).parse::<Link>().is_err(),
                "{end} bytes"
            );
        }
    }

    #[test]
    fn what_does_not_fit_a_link_is_left_out() {
        let name = "\u{e9}".repeat(200);
        let text = link(&name, &["/ip4/10.0.0.1/tcp/1"; 20]).to_string();
        let hints = text.parse::<Link>().unwrap().hints.unwrap();
        assert_eq!(hints.name, "\u{e9}".repeat(127));
        assert_eq!(hints.addresses.len(), LINK_ADDRESSES_MAX);
    }

    #[test]
    fn derived_keys_differ_from_the_id_and_from_each_other() {
        let id = share();
        let other = ShareId::from_digest(Digest::of(b"another manifest"));
        assert_ne!(id.provider_key(), *id.digest().as_bytes());
        assert_ne!(id.provider_key(), other.provider_key());
        let plain = [&b"shoal/provider/1"[..], id.digest().as_bytes()].concat();
        assert_eq!(id.provider_key(), *Digest::of(&plain).as_bytes());
        let (opener, receiver) = (peer(), other_peer());
        let plain = [
            &b"shoal/open/1"[..],
            id.digest().as_bytes(),
            &opener.to_bytes(),
            &receiver.to_bytes(),
        ]
        .concat();
        let token = id.open_token(&opener, &receiver);
        assert_eq!(token, Digest::of(&plain));
        assert_ne!(token, id.open_token(&receiver, &opener));
        assert_ne!(token, other.open_token(&opener, &receiver));
    }
}
