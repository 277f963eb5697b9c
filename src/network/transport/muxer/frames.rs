//! The frames of yamux in a stream of bytes, of either direction. Used by `unread` and `queued`.
//! Source: libp2p specification `yamux/README.md`, "Framing".

pub(super) const HEADER_LEN: usize = 12;

/// Kinds of frames that may open a stream, which the flag says.
const DATA: u8 = 0;
pub(super) const WINDOW_UPDATE: u8 = 1;
pub(super) const SYN: u16 = 1;

/// Finds the headers in bytes as they pass.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; HEADER_LEN],
    header_len: usize,
    /// Bytes of the body that are still to come.
    body_left: usize,
}

/// What a header says that matters to us.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) stream: u32,
    pub(super) is_new: bool,
    /// Bytes that follow.
    pub(super) len: usize,
}

impl Frames {
    pub(super) fn on_bytes(&mut self, mut bytes: &[u8], mut on_header: impl FnMut(Header)) {
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let len = self.body_left.min(bytes.len());
                self.body_left -= len;
                bytes = &bytes[len..];
                continue;
            }
            let len = (HEADER_LEN - self.header_len).min(bytes.len());
            self.header[self.header_len..][..len].copy_from_slice(&bytes[..len]);
            self.header_len += len;
            bytes = &bytes[len..];
            if self.header_len == HEADER_LEN {
                self.header_len = 0;
                let header = header_of(&self.header);
                self.body_left = header.len;
                on_header(header);
            }
        }
    }
}

fn header_of(bytes: &[u8; HEADER_LEN]) -> Header {
    let [_, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = *bytes;
    // Only frames of data have a body; in the others the length is a number.
    let len = match kind {
        DATA => u32::from_be_bytes([l0, l1, l2, l3]) as usize,
        _ => 0,
    };
    let flags = u16::from_be_bytes([f0, f1]);
    Header {
        stream: u32::from_be_bytes([s0, s1, s2, s3]),
        is_new: matches!(kind, DATA | WINDOW_UPDATE) && flags & SYN != 0,
        len,
    }
}

/// A frame as it is on the wire.
#[cfg(test)]
pub(super) fn frame(kind: u8, flags: u16, stream: u32, len: u32) -> Vec<u8> {
    let mut bytes = vec![0, kind];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(stream.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    if kind == DATA {
        bytes.resize(bytes.len() + len as usize, 7);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_however_the_bytes_are_cut() {
        let bytes = [
            frame(WINDOW_UPDATE, SYN, 1, 1 << 20),
            frame(0, 0, 1, 5),
            frame(2, SYN, 0, 77),
            frame(0, SYN, 3, 300),
            frame(0, 0, 1, 0),
        ]
        .concat();
        let expected = [
            (1, true, 0),
            (1, false, 5),
            (0, false, 0),
            (3, true, 300),
            (1, false, 0),
        ];
        for cut in 1..bytes.len() {
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for part in bytes.chunks(cut) {
                frames.on_bytes(part, |header| found.push(header));
            }
            let found: Vec<_> = found
                .iter()
                .map(|header| (header.stream, header.is_new, header.len))
                .collect();
            assert_eq!(found, expected, "cut at {cut}");
        }
    }
}
