//! The protocol's bytes, written down: a change that breaks peers of this version breaks this test.
//!
//! Each dump is annotated by hand from `src/wire/PROTOCOL.md`; none was copied from the encoder's output.

use shoal::wire::{
    Control, DataHeader, DataKind, FrameBuffer, Hello, RejectReason, Run, ShareMessage,
    ShareNumber, SourceState, encode_frame,
};

#[track_caller]
fn check(message: Control, body: &[u8]) {
    let mut expected = (body.len() as u32).to_be_bytes().to_vec();
    expected.extend_from_slice(body);
    let mut bytes = Vec::new();
    encode_frame(&message, &mut bytes);
    assert_eq!(bytes, expected, "{message:?}");
    let mut buffer = FrameBuffer::default();
    buffer.feed(&expected);
    assert_eq!(buffer.next_message().unwrap(), Some(message));
}

fn share(number: u16, message: ShareMessage) -> Control {
    Control::Share {
        number: ShareNumber(number),
        message,
    }
}

#[test]
fn a_hello_is_these_bytes() {
    let hello = Hello {
        version: 1,
        requests_max: 512,
        agent: "shoal/0.1".into(),
    };
    #[rustfmt::skip]
    check(Control::Hello(hello), &[
        0,                // Hello
        1,                // version
        251, 0x00, 0x02,  // requests_max 512: 251 says two bytes follow, little-endian
        9,                // length of the agent string
        b's', b'h', b'o', b'a', b'l', b'/', b'0', b'.', b'1',
    ]);
}

#[test]
fn opening_and_closing_a_share_are_these_bytes() {
    let mut open = vec![1, 7];
    open.extend([0xab; 32]);
    check(
        Control::Open {
            number: ShareNumber(7),
            token: [0xab; 32],
        },
        &open,
    );
    check(
        Control::Unknown {
            number: ShareNumber(7),
        },
        &[2, 7],
    );
    check(
        Control::Close {
            number: ShareNumber(300),
            complete: true,
        },
        &[3, 251, 0x2c, 0x01, 1],
    );
    check(Control::KeepAlive, &[5]);
    check(Control::Goodbye, &[6]);
}

#[test]
fn every_share_message_is_these_bytes() {
    // 4: Share; 2: number of the share; then the tag of the message.
    let runs = || {
        vec![
            Run { first: 3, count: 2 },
            Run {
                first: 70_000,
                count: 1,
            },
        ]
    };
    // Two runs; 70,000 = 0x0001_1170 takes the marker 252 and four bytes, little-endian.
    let run_bytes = [2, 3, 2, 252, 0x70, 0x11, 0x01, 0x00, 1];
    let with_runs = |tag: u8| [&[4, 2, tag][..], &run_bytes].concat();
    check(share(2, ShareMessage::Ready), &[4, 2, 0]);
    check(share(2, ShareMessage::HaveAll), &[4, 2, 1]);
    check(share(2, ShareMessage::HaveNone), &[4, 2, 2]);
    check(
        share(
            2,
            ShareMessage::Bitfield {
                first: 8,
                bytes: vec![0xf0, 0x01],
            },
        ),
        &[4, 2, 3, 8, 2, 0xf0, 0x01],
    );
    check(share(2, ShareMessage::Have { runs: runs() }), &with_runs(4));
    check(
        share(2, ShareMessage::DontHave { runs: runs() }),
        &with_runs(5),
    );
    check(
        share(2, ShareMessage::Request { runs: runs() }),
        &with_runs(6),
    );
    check(
        share(2, ShareMessage::Cancel { runs: runs() }),
        &with_runs(7),
    );
    check(share(2, ShareMessage::Queued { in_line: 3 }), &[4, 2, 8, 3]);
    check(
        share(2, ShareMessage::Serving { piece: 250 }),
        &[4, 2, 9, 250],
    );
    check(
        share(2, ShareMessage::Suggest { piece: 251 }),
        &[4, 2, 10, 251, 251, 0],
    );
    for (tag, reason) in [
        RejectReason::NotHeld,
        RejectReason::Busy,
        RejectReason::Unreadable,
        RejectReason::Leaving,
    ]
    .into_iter()
    .enumerate()
    {
        check(
            share(2, ShareMessage::Reject { piece: 9, reason }),
            &[4, 2, 11, 9, tag as u8],
        );
    }
    check(share(2, ShareMessage::GetManifest), &[4, 2, 12]);
    check(share(2, ShareMessage::GetInfo), &[4, 2, 15]);
    for (tag, state) in [
        SourceState::Offered,
        SourceState::Rereading,
        SourceState::Differs,
        SourceState::Away,
    ]
    .into_iter()
    .enumerate()
    {
        check(
            share(2, ShareMessage::Source { file: 7, state }),
            &[4, 2, 16, 7, tag as u8],
        );
    }
    check(
        share(
            2,
            ShareMessage::GetHashes {
                file: 1,
                first: 64,
                count: 32,
            },
        ),
        &[4, 2, 13, 1, 64, 32],
    );
    check(
        share(
            2,
            ShareMessage::Peers {
                records: vec![vec![0xaa, 0xbb]].into(),
            },
        ),
        &[4, 2, 14, 1, 2, 0xaa, 0xbb],
    );
}

#[test]
fn data_headers_are_these_bytes() {
    let cases = [
        (
            DataKind::Piece {
                piece: 0x0102_0304,
                offset: 0x0004_0000,
            },
            [1, 0, 0, 5, 1, 2, 3, 4, 0, 4, 0, 0, 0, 0, 0x10, 0],
        ),
        (
            DataKind::Manifest {
                total: 0x1000,
                offset: 0,
            },
            [2, 0, 0, 5, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x10, 0],
        ),
        (
            DataKind::Hashes {
                file: 2,
                first: 0x2000,
            },
            [3, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0x20, 0, 0, 0, 0x10, 0],
        ),
    ];
    for (kind, bytes) in cases {
        let header = DataHeader {
            share: ShareNumber(5),
            kind,
            len: 0x1000,
        };
        assert_eq!(header.encode(), bytes);
        assert_eq!(DataHeader::decode(&bytes), Ok(header));
    }
}
