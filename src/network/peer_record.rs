//! Signed peer records: where a node is, in its own words, so that others may pass them on unchanged.
//! Made from our key, checked when they arrive; to everybody above they are opaque bytes with addresses beside them.
//! Sends nothing and keeps nothing. Used by `node/exchange`.
//! Source: libp2p RFC 2 (signed envelopes) and RFC 3 (routing records), in the form Go and JavaScript use as well.

use libp2p::core::{PeerRecord as SignedRecord, SignedEnvelope};
use libp2p::{Multiaddr, PeerId};

use super::addresses::{self, ADDRESSES_PER_PEER_MAX, Speaker};
use super::identity::Keypair;
use crate::wire::RECORD_LEN_MAX;

/// A record whose signature is that of its peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    /// Who is there.
    pub peer: PeerId,
    /// Counts up with every newer record of the peer: seconds since 1970.
    pub sequence: u64,
    /// Where, without `/p2p/`: dialable, TCP before QUIC, at most eight.
    pub addresses: Vec<Multiaddr>,
    /// The record as it travels, at most [`RECORD_LEN_MAX`].
    pub bytes: Vec<u8>,
}

/// Why bytes are no record: the fault of whoever sent them.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Longer than a record may be.
    #[error("peer record of {0} bytes")]
    Length(usize),
    /// Not decodable, or not signed by the peer it names.
    #[error("peer record is malformed or not signed by its peer")]
    Signature,
}

impl PeerRecord {
    /// Says that we are at `addresses`; undialable ones and those beyond eight are left out. `None` when nothing is
    /// left to say, or the key cannot sign.
    #[must_use]
    pub(super) fn sign(identity: &Keypair, addresses: &[Multiaddr]) -> Option<Self> {
        let peer = identity.peer_id();
        let claimed = addresses.iter().cloned();
        let addresses = addresses::admit(&peer, claimed, Speaker::ThisMachine, &[]);
        if addresses.is_empty() {
            return None;
        }
        let signed = SignedRecord::new_interop(identity.as_libp2p(), addresses.clone());
        let signed = signed
            .inspect_err(|error| tracing::warn!(%error, "no peer record"))
            .ok()?;
        let sequence = signed.seq();
        let bytes = signed.into_signed_envelope().into_protobuf_encoding();
        (bytes.len() <= RECORD_LEN_MAX).then_some(Self {
            peer,
            sequence,
            addresses,
            bytes,
        })
    }

    /// Checks a record that somebody sent. Costs one signature check, about 0.1 ms.
    ///
    /// # Errors
    /// [`RecordError`] when it is too long, malformed, or not signed by the peer it names.
    pub fn open(bytes: Vec<u8>) -> Result<Self, RecordError> {
        if bytes.len() > RECORD_LEN_MAX {
            return Err(RecordError::Length(bytes.len()));
        }
        let envelope = SignedEnvelope::from_protobuf_encoding(&bytes);
        let envelope = envelope.map_err(|_| RecordError::Signature)?;
        let signed = SignedRecord::from_signed_envelope_interop(envelope)
            .map_err(|_| RecordError::Signature)?;
        let peer = signed.peer_id();
        let claimed = signed.addresses().iter().cloned();
        Ok(Self {
            peer,
            sequence: signed.seq(),
            addresses: addresses::admit(&peer, claimed, Speaker::ThisMachine, &[]),
            bytes,
        })
    }

    /// Whether it holds an address that means something on its own machine only.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.addresses.iter().any(addresses::is_loopback)
    }
}

const _: () = assert!(ADDRESSES_PER_PEER_MAX * 64 <= RECORD_LEN_MAX);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<Multiaddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_record_reads_back_as_it_was_signed() {
        let identity = Keypair::generate();
        let said = addresses(&["/ip4/10.0.0.1/tcp/1", "/ip6/fd00::1/udp/1/quic-v1"]);
        let record = PeerRecord::sign(&identity, &said).unwrap();
        assert_eq!(record.peer, identity.peer_id());
        assert_eq!(record.addresses, said);
        assert!(!record.is_local());
        assert_eq!(PeerRecord::open(record.bytes.clone()).unwrap(), record);
    }

    #[test]
    fn a_record_changed_or_cut_anywhere_is_refused() {
        let said = addresses(&["/ip4/10.0.0.1/tcp/1"]);
        let good = PeerRecord::sign(&Keypair::generate(), &said).unwrap().bytes;
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1;
            assert!(PeerRecord::open(changed).is_err(), "byte {at}");
            assert!(PeerRecord::open(good[..at].to_vec()).is_err(), "{at} bytes");
        }
        let long = vec![0; RECORD_LEN_MAX + 1];
        assert!(matches!(
            PeerRecord::open(long),
            Err(RecordError::Length(_))
        ));
    }

    #[test]
    fn what_cannot_be_dialled_is_neither_said_nor_believed() {
        let identity = Keypair::generate();
        assert_eq!(PeerRecord::sign(&identity, &[]), None);
        let said = addresses(&["/ip4/0.0.0.0/tcp/1", "/ip6/fe80::1/tcp/1"]);
        assert_eq!(PeerRecord::sign(&identity, &said), None);
        let many: Vec<Multiaddr> = (1..=30)
            .map(|port| format!("/ip6/2001:db8::1/tcp/{port}").parse().unwrap())
            .collect();
        let signed = SignedRecord::new_interop(identity.as_libp2p(), many).unwrap();
        let bytes = signed.into_signed_envelope().into_protobuf_encoding();
        let opened = PeerRecord::open(bytes).unwrap();
        assert_eq!(opened.addresses.len(), ADDRESSES_PER_PEER_MAX);
    }

    #[test]
    fn loopback_makes_a_record_local() {
        let said = addresses(&["/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1"]);
        assert!(
            PeerRecord::sign(&Keypair::generate(), &said)
                .unwrap()
                .is_local()
        );
    }
}
