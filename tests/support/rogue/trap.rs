//! What a rogue answers to who asks it. All claim to hold everything.

use std::io;
use std::time::Duration;

use shoal::content::{PeerId, ShareId};
use shoal::network::{PeerStream, SessionStreams};
use shoal::wire::{Control, DataHeader, DataKind, FrameBuffer, Run, SLICE_LEN_MAX, ShareMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::{NUMBER, open_frame, share_frame, slice};

/// How a rogue that waits misbehaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trap {
    /// Never answers.
    Mute,
    /// Answers with one byte each second.
    Dribble,
    /// Sends bytes beyond the end of a piece.
    WrongLength,
    /// Announces a manifest of 4 GiB.
    HugeManifest,
    /// Answers with these bytes when asked for the manifest.
    Manifest(Vec<u8>),
}

impl Trap {
    pub(super) async fn answer(
        self,
        streams: SessionStreams,
        local: PeerId,
        share: ShareId,
        hello: Vec<u8>,
    ) -> io::Result<()> {
        let SessionStreams {
            peer,
            mut control,
            mut data,
            ..
        } = streams;
        let mut words = hello;
        let (mut frames, mut bytes) = (FrameBuffer::default(), vec![0; 4096]);
        loop {
            control.write_all(&words).await?;
            control.flush().await?;
            words.clear();
            let len = control.read(&mut bytes).await?;
            if len == 0 {
                return Ok(());
            }
            frames.feed(&bytes[..len]);
            while let Ok(Some(message)) = frames.next_message() {
                match message {
                    Control::Open { .. } => {
                        open_frame(share, local, peer, &mut words);
                        share_frame(ShareMessage::Ready, &mut words);
                    }
                    Control::Share { message, .. } => match message {
                        ShareMessage::Ready => share_frame(ShareMessage::HaveAll, &mut words),
                        ShareMessage::GetManifest => self.send_manifest(&mut data).await?,
                        ShareMessage::Request { runs } => self.send_piece(&runs, &mut data).await?,
                        _ => {}
                    },
                    _ => {}
                }
            }
        }
    }

    async fn send_manifest(&self, data: &mut PeerStream) -> io::Result<()> {
        match self {
            Self::Manifest(bytes) => send(data, bytes.len() as u32, bytes).await,
            Self::HugeManifest => send(data, u32::MAX, &[1; 4096]).await,
            Self::Dribble => {
                for offset in 0.. {
                    let kind = DataKind::Manifest {
                        total: 1_000_000,
                        offset,
                    };
                    dribble(data, kind, 1).await?;
                }
                Ok(())
            }
            Self::Mute | Self::WrongLength => Ok(()),
        }
    }

    async fn send_piece(&self, runs: &[Run], data: &mut PeerStream) -> io::Result<()> {
        let piece = runs.first().map_or(0, |run| run.first);
        match self {
            Self::Dribble => {
                let kind = DataKind::Piece { piece, offset: 0 };
                dribble(data, kind, 65_536).await
            }
            Self::WrongLength => {
                data.write_all(&slice(piece, 0, SLICE_LEN_MAX)).await?;
                let beyond = slice(piece, SLICE_LEN_MAX, SLICE_LEN_MAX);
                data.write_all(&beyond).await?;
                data.flush().await
            }
            _ => Ok(()),
        }
    }
}

async fn send(data: &mut PeerStream, total: u32, bytes: &[u8]) -> io::Result<()> {
    let kind = DataKind::Manifest { total, offset: 0 };
    let (share, len) = (NUMBER, bytes.len() as u32);
    data.write_all(&DataHeader { share, kind, len }.encode())
        .await?;
    data.write_all(bytes).await?;
    data.flush().await
}

/// A slice whose bytes come one each second.
async fn dribble(data: &mut PeerStream, kind: DataKind, len: u32) -> io::Result<()> {
    let share = NUMBER;
    data.write_all(&DataHeader { share, kind, len }.encode())
        .await?;
    for _ in 0..len {
        data.write_all(&[1]).await?;
        data.flush().await?;
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
