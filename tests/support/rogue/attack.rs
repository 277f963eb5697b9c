//! What a rogue does to the node that it dials. Each mode goes on until the node ends it, or the rogue is dropped.

use std::io;
use std::time::Duration;

use shoal::content::{Multiaddr, PeerId, ShareId};
use shoal::network::NetworkHandle;
use shoal::wire::{
    Control, DataHeader, DataKind, FrameBuffer, Hello, Run, ShareMessage, VERSION, encode_frame,
};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf};
use tokio::time::sleep;

use super::{NUMBER, open_frame, share_frame, slice};

type PeerRead = ReadHalf<shoal::network::PeerStream>;

/// Pieces that the share under attack has at least.
const PIECES: u32 = 256;

/// Requests in one message, and messages of them: a million.
const REQUESTS: u32 = 500;
const REQUEST_MESSAGES: u32 = 2_000;

/// How a rogue that dials misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Opens a session and says nothing.
    Silent,
    /// Opens the share, and from then on only shows that it is alive.
    Stay,
    /// Shows that it is alive, and opens no share.
    Loiter,
    /// Says hello, one byte each second.
    Dribble,
    /// Names itself with 10 kB.
    LongAgent,
    /// Sends piece bytes that nobody asked for.
    Unasked,
    /// Begins a piece that nobody asked for and leaves it at that, however long it takes.
    Hoard,
    /// Announces a frame of 4 GiB.
    WrongFrame,
    /// Announces a slice of 4 GiB.
    WrongSlice,
    /// Tells again and again that it has a piece.
    EndlessHave,
    /// Tells again and again that it has every piece, as often as a frame can say it.
    EverythingOften,
    /// Asks a million times, and reads nothing of what comes.
    Requests,
    /// Opens the share again and again.
    Reopen,
    /// Begins session upon session on one connection.
    Sessions,
}

pub(super) async fn misbehave(
    handle: &NetworkHandle,
    at: Multiaddr,
    share: ShareId,
    attack: Attack,
    hello: Vec<u8>,
) -> io::Result<()> {
    let streams = handle.open_session(None, vec![at.clone()]).await;
    let streams = streams.expect("a victim can be reached");
    if attack == Attack::Sessions {
        return begin_sessions(handle, streams.peer, &at).await;
    }
    let (local, victim) = (handle.local_peer(), streams.peer);
    let (mut heard, mut control) = tokio::io::split(streams.control);
    let (unread, mut data) = tokio::io::split(streams.data);
    let opened = open_bytes(share, local, victim);
    let outcome = match attack {
        Attack::Silent => drain(heard).await,
        Attack::Loiter => {
            say(&mut control, &hello).await?;
            until_ended(heard, keep_alive(&mut control)).await
        }
        Attack::Dribble => until_ended(heard, dribble(&mut control, &hello)).await,
        Attack::LongAgent => {
            say(&mut control, &long_hello()).await?;
            drain(heard).await
        }
        _ => {
            say(&mut control, &[hello, opened.clone()].concat()).await?;
            hear_ready(&mut heard).await?;
            let act = act(attack, &mut control, &mut data, &opened);
            until_ended(heard, act).await
        }
    };
    // As a peer that only asks would.
    drop(unread);
    outcome
}

async fn act(
    attack: Attack,
    control: &mut (impl AsyncWrite + Unpin),
    data: &mut (impl AsyncWrite + Unpin),
    opened: &[u8],
) -> io::Result<()> {
    match attack {
        Attack::Unasked => loop {
            say(data, &slice(0, 0, 65_536)).await?;
        },
        Attack::Hoard => {
            let mut begun = slice(0, 0, 65_536);
            begun.truncate(17);
            say(data, &begun).await?;
        }
        Attack::WrongFrame => say(control, &[0xff; 64]).await?,
        Attack::WrongSlice => {
            let kind = DataKind::Piece {
                piece: 0,
                offset: 0,
            };
            let (share, len) = (NUMBER, u32::MAX);
            say(data, &DataHeader { share, kind, len }.encode()).await?;
        }
        Attack::EndlessHave => {
            let have = message_of([(0, 1)]);
            let many = have.repeat(32 * 1024 / have.len());
            loop {
                say(control, &many).await?;
            }
        }
        Attack::EverythingOften => {
            // What one message may name at most, so that the node has to bear it.
            let many = message_of([(0, PIECES)]).repeat(1_000);
            loop {
                say(control, &many).await?;
            }
        }
        Attack::Requests => {
            for turn in 0..REQUEST_MESSAGES {
                let pieces = (0..REQUESTS).map(|number| (turn + number) % PIECES);
                let runs = pieces.map(|first| Run { first, count: 1 }).collect();
                let mut many = Vec::new();
                share_frame(ShareMessage::Request { runs }, &mut many);
                say(control, &many).await?;
            }
        }
        Attack::Stay => {}
        _ => loop {
            say(control, opened).await?;
        },
    }
    keep_alive(control).await
}

/// A sign of life now and then, so that nothing else ends it.
async fn keep_alive(control: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    loop {
        let mut alive = Vec::new();
        encode_frame(&Control::KeepAlive, &mut alive);
        say(control, &alive).await?;
        sleep(Duration::from_secs(1)).await;
    }
}

fn message_of<const COUNT: usize>(runs: [(u32, u32); COUNT]) -> Vec<u8> {
    let runs = runs.map(|(first, count)| Run { first, count }).to_vec();
    let mut bytes = Vec::new();
    share_frame(ShareMessage::Have { runs }, &mut bytes);
    bytes
}

fn open_bytes(share: ShareId, local: PeerId, victim: PeerId) -> Vec<u8> {
    let mut bytes = Vec::new();
    open_frame(share, local, victim, &mut bytes);
    share_frame(ShareMessage::Ready, &mut bytes);
    bytes
}

fn long_hello() -> Vec<u8> {
    let hello = Hello {
        version: VERSION,
        requests_max: 1,
        agent: "\u{1b}[2J\u{202e}\nforged".repeat(600),
    };
    let mut bytes = Vec::new();
    encode_frame(&Control::Hello(hello), &mut bytes);
    bytes
}

async fn begin_sessions(handle: &NetworkHandle, victim: PeerId, at: &Multiaddr) -> io::Result<()> {
    let mut held = std::collections::VecDeque::new();
    loop {
        let opened = handle.open_session(Some(victim), vec![at.clone()]).await;
        held.extend(opened.ok());
        if held.len() > 4 {
            held.pop_front();
        }
    }
}

async fn dribble(control: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        say(control, &[*byte]).await?;
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

async fn say(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Acts until the other side ends it.
async fn until_ended(heard: PeerRead, act: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::select! {
        ended = drain(heard) => ended,
        ended = act => ended,
    }
}

/// Reads until the other side ends it.
async fn drain(mut stream: PeerRead) -> io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    while stream.read(&mut bytes).await? > 0 {}
    Ok(())
}

async fn hear_ready(control: &mut PeerRead) -> io::Result<()> {
    let (mut frames, mut bytes) = (FrameBuffer::default(), vec![0; 4096]);
    loop {
        let len = control.read(&mut bytes).await?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        frames.feed(&bytes[..len]);
        while let Ok(Some(message)) = frames.next_message() {
            if let Control::Share { message, .. } = message
                && message == ShareMessage::Ready
            {
                return Ok(());
            }
        }
    }
}
