//! Reader of a data stream: bytes go straight into the buffer of their piece.
//!
//! One piece is collected at a time; a slice of anything else drops it. A whole piece goes to `checks` while the next one
//! is read. Bytes nobody asked for end the session.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, ReadHalf};
use tokio::time::Instant;

use super::checks::Checks;
use super::{Session, UNASKED_BYTES_MAX, digests_of};
use crate::content::{PieceIndex, ShareId};
use crate::engine::DownCause;
use crate::network::PeerStream;
use crate::node::buffers::Buffer;
use crate::node::share::{Share, ShareInput};
use crate::wire::{DATA_HEADER_LEN, DataHeader, DataKind};

/// Progress within a piece is reported this often. More often costs the share's actor turns, less often makes a slow peer
/// look silent.
const REPORT_SPAN: Duration = Duration::from_millis(50);

/// Bytes dropped at once.
const DROP_LEN: usize = 16 * 1024;

/// Why reading ended.
type Ended = (DownCause, String);

/// A piece that is being collected.
struct Collected {
    share: ShareId,
    piece: PieceIndex,
    buffer: Buffer,
    filled: usize,
    /// Bytes that the share was told of, and when.
    reported: usize,
    reported_at: Instant,
}

pub(super) async fn read(session: Session, stream: ReadHalf<PeerStream>) {
    let ending = session.0.ending.clone();
    let mut reader = Reader {
        session: session.clone(),
        stream,
        collected: None,
        checks: Checks::new(),
        received: 0,
    };
    let (cause, reason) = tokio::select! {
        () = ending.cancelled() => return,
        ended = reader.read_slices() => ended,
    };
    session.end_after_control(cause, reason).await;
}

struct Reader {
    session: Session,
    stream: ReadHalf<PeerStream>,
    collected: Option<Collected>,
    checks: Checks,
    received: u64,
}

impl Reader {
    async fn read_slices(&mut self) -> Ended {
        loop {
            if let Err(ended) = self.read_slice().await {
                return ended;
            }
        }
    }

    async fn read_slice(&mut self) -> Result<(), Ended> {
        let mut header = [0; DATA_HEADER_LEN];
        self.stream.read_exact(&mut header).await.map_err(closed)?;
        let header = DataHeader::decode(&header).map_err(|error| violation(error.to_string()))?;
        self.received += u64::from(header.len);
        let asked = self.session.0.asked_bytes.load(Ordering::Relaxed);
        if self.received > asked + UNASKED_BYTES_MAX {
            return Err(violation("bytes nobody asked for"));
        }
        let len = header.len as usize;
        let session = self.session.id();
        // A number we do not know is a share that was closed while the bytes were on their way.
        let Some(share) = self.session.share(header.share) else {
            return self.drop_bytes(len).await;
        };
        match header.kind {
            // No memory for them: whoever is asked for nothing could hold a piece's worth for as long as it likes.
            DataKind::Piece { .. } if self.received > asked => self.drop_bytes(len).await,
            DataKind::Piece { piece, offset } => {
                self.read_piece(share, piece, offset as usize, len).await
            }
            DataKind::Manifest { total, offset } => {
                let bytes = self.read_bytes(len).await?;
                tell(
                    &share,
                    ShareInput::Manifest {
                        session,
                        total,
                        offset,
                        bytes,
                    },
                )
                .await;
                Ok(())
            }
            DataKind::Info { total, offset } => {
                let bytes = self.read_bytes(len).await?;
                tell(
                    &share,
                    ShareInput::Info {
                        session,
                        total,
                        offset,
                        bytes,
                    },
                )
                .await;
                Ok(())
            }
            DataKind::Hashes { file, first } => {
                let bytes = self.read_bytes(len).await?;
                let digests =
                    digests_of(&bytes).ok_or_else(|| violation("hashes of an odd length"))?;
                tell(
                    &share,
                    ShareInput::Hashes {
                        session,
                        file,
                        first,
                        digests,
                    },
                )
                .await;
                Ok(())
            }
        }
    }

    async fn read_piece(
        &mut self,
        share: Share,
        piece: u32,
        offset: usize,
        len: usize,
    ) -> Result<(), Ended> {
        let session = self.session.id();
        let Some(ready) = share.ready.get() else {
            return Err(violation("a piece before it was asked for"));
        };
        let geometry = ready.geometry();
        let piece = geometry
            .piece(piece)
            .ok_or_else(|| violation("a piece that does not exist"))?;
        let piece_len = geometry.len_of(piece) as usize;
        if offset + len > piece_len {
            return Err(violation("bytes beyond the end of a piece"));
        }
        let goes_on = |collected: &Collected| {
            (collected.share, collected.piece, collected.filled) == (share.id, piece, offset)
        };
        let mut collected = match self.collected.take() {
            Some(collected) if goes_on(&collected) => collected,
            _ if offset == 0 => {
                let buffer = self.session.0.shop.buffers.take(piece_len).await;
                Collected {
                    share: share.id,
                    piece,
                    buffer,
                    filled: 0,
                    reported: 0,
                    reported_at: Instant::now(),
                }
            }
            _ => return Err(violation("a slice out of order")),
        };
        self.fill(&share, &mut collected, offset + len).await?;
        if collected.filled < piece_len {
            self.collected = Some(collected);
            return Ok(());
        }
        let tasks = &self.session.0.shop.tasks;
        let whole = (piece, collected.buffer);
        self.checks.begin(tasks, share, session, whole).await;
        Ok(())
    }

    /// Reads into `collected` until it is filled up to `end`, and tells the share how it goes.
    async fn fill(
        &mut self,
        share: &Share,
        collected: &mut Collected,
        end: usize,
    ) -> Result<(), Ended> {
        let down = &self.session.0.shop.down;
        let mut allowed = collected.filled;
        while collected.filled < end {
            if collected.filled == allowed {
                allowed = end.min(allowed + down.take_max());
                down.take(allowed - collected.filled).await;
            }
            let wait = collected.buffer.wait(&self.session.0.squeezed);
            let into = &mut collected.buffer[collected.filled..allowed];
            let len = self.stream.read(into).await.map_err(closed)?;
            collected.buffer.waited(wait, len);
            if len == 0 {
                return Err(closed(std::io::ErrorKind::UnexpectedEof.into()));
            }
            collected.filled += len;
            let is_whole = collected.filled == collected.buffer.len();
            if is_whole || collected.reported_at.elapsed() >= REPORT_SPAN {
                let received = ShareInput::Received {
                    session: self.session.id(),
                    piece: collected.piece,
                    bytes: (collected.filled - collected.reported) as u32,
                };
                tell(share, received).await;
                collected.reported = collected.filled;
                collected.reported_at = Instant::now();
            }
        }
        Ok(())
    }

    async fn read_bytes(&mut self, len: usize) -> Result<Vec<u8>, Ended> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).await.map_err(closed)?;
        Ok(bytes)
    }

    async fn drop_bytes(&mut self, mut len: usize) -> Result<(), Ended> {
        let mut bytes = vec![0; DROP_LEN.min(len)];
        while len > 0 {
            let part = bytes.len().min(len);
            self.stream
                .read_exact(&mut bytes[..part])
                .await
                .map_err(closed)?;
            len -= part;
        }
        Ok(())
    }
}

/// Tells a share, waiting for room: that is how a busy share holds back its peers.
async fn tell(share: &Share, input: ShareInput) {
    // The share has left: nobody waits for this.
    let _ = share.inputs.send(input).await;
}

fn closed(error: std::io::Error) -> Ended {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => (DownCause::Closed, "connection closed".into()),
        _ => (DownCause::Closed, error.to_string()),
    }
}

fn violation(reason: impl Into<String>) -> Ended {
    (DownCause::Violation, reason.into())
}
