//! Frames of the control stream: a 4-byte big-endian length, then one encoded [`Control`].
//!
//! The length is checked against [`FRAME_LEN_MAX`] before anything is allocated or waited for. Called
//! by the control reader and writer of `node/session`. Source: `PROTOCOL.md`, "Control stream".

use super::message::Control;
use crate::content::{DecodeError, decode, encode};

/// Largest body of a control frame in bytes; a larger length ends the session.
pub const FRAME_LEN_MAX: usize = 64 * 1024;

/// Bytes of the length before a body.
const LENGTH_LEN: usize = 4;

const _: () = assert!(super::BITFIELD_PART_LEN_MAX + 64 <= FRAME_LEN_MAX);
const _: () = assert!(super::RECORDS_MAX * (super::RECORD_LEN_MAX + 8) <= FRAME_LEN_MAX);

/// A control stream that does not follow the protocol: the remote's fault, it ends the session.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The announced length is beyond [`FRAME_LEN_MAX`] or zero.
    #[error("frame of {len} bytes, allowed are 1 to {FRAME_LEN_MAX}")]
    Length {
        /// The announced length in bytes.
        len: usize,
    },
    /// The body is no message.
    #[error("frame is not a message")]
    Body(#[from] DecodeError),
}

/// Appends `message` as one frame to `out`.
///
/// # Panics
/// When the message is larger than [`FRAME_LEN_MAX`]: senders split what can grow.
pub fn encode_frame(message: &Control, out: &mut Vec<u8>) {
    let body = encode(message);
    assert!(
        body.len() <= FRAME_LEN_MAX,
        "senders split messages below the frame ceiling"
    );
    let len = u32::try_from(body.len()).expect("a frame is at most 64 KiB");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&body);
}

/// Collects bytes as they arrive and yields whole messages. Holds at most one frame and one read.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl FrameBuffer {
    /// Adds bytes that were read from the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` until more bytes are fed.
    ///
    /// # Errors
    /// [`FrameError`] when the bytes break the protocol; nothing after that can be trusted.
    pub fn next_message(&mut self) -> Result<Option<Control>, FrameError> {
        let pending = &self.bytes[self.start..];
        let Some((length, rest)) = pending.split_first_chunk::<LENGTH_LEN>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*length) as usize;
        if len == 0 || len > FRAME_LEN_MAX {
            return Err(FrameError::Length { len });
        }
        let Some(body) = rest.get(..len) else {
            return Ok(None);
        };
        let message = decode(body, FRAME_LEN_MAX)?;
        self.start += LENGTH_LEN + len;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    fn every_message() -> Vec<Control> {
        let share = |message| Control::Share {
            number: ShareNumber(7),
            message,
        };
        let runs = vec![
            Run { first: 1, count: 2 },
            Run {
                first: 70_000,
                count: 300,
            },
        ];
        vec![
            Control::Hello(Hello {
                version: VERSION,
                requests_max: 512,
                agent: "shoal/0.1".into(),
            }),
            Control::Open {
                number: ShareNumber(7),
                token: [0xab; 32],
            },
            Control::Unknown {
                number: ShareNumber(7),
            },
            Control::Close {
                number: ShareNumber(7),
                complete: true,
            },
            Control::KeepAlive,
            Control::Goodbye,
            share(ShareMessage::Ready),
            share(ShareMessage::HaveAll),
            share(ShareMessage::HaveNone),
            share(ShareMessage::Bitfield {
                first: 8,
                bytes: vec![0xf0, 1],
            }),
            share(ShareMessage::Have { runs: runs.clone() }),
            share(ShareMessage::DontHave { runs: runs.clone() }),
            share(ShareMessage::Request { runs: runs.clone() }),
            share(ShareMessage::Cancel { runs }),
            share(ShareMessage::Queued { in_line: 3 }),
            share(ShareMessage::Serving { piece: 5 }),
            share(ShareMessage::Suggest { piece: 6 }),
            share(ShareMessage::Reject {
                piece: 9,
                reason: RejectReason::NotHeld,
            }),
            share(ShareMessage::GetManifest),
            share(ShareMessage::GetHashes {
                file: 1,
                first: 64,
                count: 64,
            }),
            share(ShareMessage::Peers {
                records: vec![vec![1, 2, 3], vec![]].into(),
            }),
            share(ShareMessage::GetInfo),
        ]
    }

    fn encoded(message: &Control) -> Vec<u8> {
        let mut out = Vec::new();
        encode_frame(message, &mut out);
        out
    }

    #[test]
    fn every_message_survives_the_round_trip_in_one_byte_steps() {
        let mut buffer = FrameBuffer::default();
        for message in every_message() {
            let bytes = encoded(&message);
            for (at, byte) in bytes.iter().enumerate() {
                buffer.feed(&[*byte]);
                let got = buffer.next_message().expect("a valid frame");
                if at + 1 == bytes.len() {
                    assert_eq!(got, Some(message.clone()));
                } else {
                    assert_eq!(got, None, "complete only at the last byte");
                }
            }
        }
    }

    #[test]
    fn a_body_cut_at_any_byte_is_refused() {
        for message in every_message() {
            let bytes = encoded(&message);
            for len in 0..bytes.len() - LENGTH_LEN {
                let mut cut = (len as u32).to_be_bytes().to_vec();
                cut.extend_from_slice(&bytes[LENGTH_LEN..LENGTH_LEN + len]);
                let mut buffer = FrameBuffer::default();
                buffer.feed(&cut);
                assert!(
                    buffer.next_message().is_err(),
                    "{message:?} cut to {len} bytes"
                );
            }
        }
    }

    #[test]
    fn a_body_with_a_byte_too_many_is_refused() {
        for message in every_message() {
            let mut bytes = encoded(&message);
            bytes.push(0);
            let len = (bytes.len() - LENGTH_LEN) as u32;
            bytes[..LENGTH_LEN].copy_from_slice(&len.to_be_bytes());
            let mut buffer = FrameBuffer::default();
            buffer.feed(&bytes);
            assert!(buffer.next_message().is_err(), "{message:?}");
        }
    }

    #[test]
    fn a_length_beyond_the_ceiling_is_refused_before_its_body_arrives() {
        for len in [0, FRAME_LEN_MAX as u32 + 1, u32::MAX] {
            let mut buffer = FrameBuffer::default();
            buffer.feed(&len.to_be_bytes());
            assert!(
                matches!(buffer.next_message(), Err(FrameError::Length { .. })),
                "{len}"
            );
        }
    }

    #[test]
    fn a_list_that_claims_more_than_the_frame_holds_is_refused() {
        // Share message, number 7, Have, then a list length of 2^32 - 1 and nothing behind it.
        let body = [4, 7, 4, 252, 0xff, 0xff, 0xff, 0xff];
        let mut buffer = FrameBuffer::default();
        buffer.feed(&(body.len() as u32).to_be_bytes());
        buffer.feed(&body);
        assert!(matches!(buffer.next_message(), Err(FrameError::Body(_))));
    }

    #[test]
    fn garbage_never_panics() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..20_000 {
            let len = (next() % 64) as usize + 1;
            let body: Vec<u8> = (0..len).map(|_| next() as u8).collect();
            let mut buffer = FrameBuffer::default();
            buffer.feed(&(len as u32).to_be_bytes());
            buffer.feed(&body);
            if let Ok(Some(message)) = buffer.next_message() {
                assert_eq!(
                    encoded(&message)[LENGTH_LEN..],
                    body,
                    "what is accepted is canonical"
                );
            }
        }
    }
}
