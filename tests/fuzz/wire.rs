//! What a peer says on its streams: frames, messages, data headers and signed peer records.

use std::sync::LazyLock;

use libp2p::core::SignedEnvelope;
use libp2p::identity::Keypair;
use shoal::content::{decode, encode};
use shoal::network::PeerRecord;
use shoal::wire::{Control, DATA_HEADER_LEN, DataHeader, FRAME_LEN_MAX, FrameBuffer, encode_frame};

use super::memory::frugal;

/// The body of one frame. A number has more than one encoding, so the value comes back and not the bytes.
pub(super) fn control(data: &[u8]) {
    let decoded = frugal(data.len(), || decode::<Control>(data, FRAME_LEN_MAX));
    if let Ok(message) = decoded {
        let bytes = encode(&message);
        assert!(bytes.len() <= data.len(), "ours is the shortest encoding");
        assert_eq!(
            decode::<Control>(&bytes, FRAME_LEN_MAX).expect("our own"),
            message
        );
    }
}

fn read(data: &[u8], step: usize) -> (Vec<Control>, bool) {
    let mut buffer = FrameBuffer::default();
    let mut messages = Vec::new();
    for part in data.chunks(step) {
        buffer.feed(part);
        loop {
            match frugal(data.len(), || buffer.next_message()) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, false),
            }
        }
    }
    (messages, true)
}

/// A control stream, whole and in small parts: the same messages, and the same end.
pub(super) fn frame(data: &[u8]) {
    let whole = read(data, data.len().max(1));
    assert_eq!(whole, read(data, 7));
    let mut again = Vec::new();
    for message in &whole.0 {
        encode_frame(message, &mut again);
    }
    assert_eq!(read(&again, again.len().max(1)), (whole.0, true));
}

/// One header on the data stream.
pub(super) fn data_header(data: &[u8]) {
    let Some(bytes) = data.first_chunk::<DATA_HEADER_LEN>() else {
        return;
    };
    if let Ok(header) = frugal(DATA_HEADER_LEN, || DataHeader::decode(bytes)) {
        assert_eq!(header.encode(), *bytes);
    }
}

/// Somebody who signs whatever is put before him: changes of a record do not survive its signature.
static SIGNER: LazyLock<Keypair> =
    LazyLock::new(|| Keypair::ed25519_from_bytes([7; 32]).expect("any 32 bytes are a key"));

/// A record that peers pass on: the bytes as they are, then as what the signer says of himself.
pub(super) fn peer_record(data: &[u8]) {
    open(data);
    let him = SIGNER.public().to_peer_id().to_bytes();
    // Field 1 of the record, before whatever else.
    let said = [&[0x0a, him.len() as u8], &him[..], data].concat();
    // As `PROTOCOL.md` has it: the domain and payload type of other implementations too.
    let domain = "libp2p-peer-record".to_owned();
    let envelope = SignedEnvelope::new(&SIGNER, domain, vec![0x03, 0x01], said);
    open(&envelope.expect("a key that signs").into_protobuf_encoding());
}

fn open(data: &[u8]) {
    let opened = frugal(data.len(), || PeerRecord::open(data.to_vec()));
    if let Ok(record) = opened {
        assert_eq!(record.bytes, data);
        // To open them again would check one more signature, which is most of what this target costs.
        assert!(record.addresses.len() <= 8, "{:?}", record.addresses);
    }
}
