//! Writer of a data stream: one job after the other, a piece in slices.
//!
//! The next piece is read from disk while the one before it is written. A stopped piece ends at its next
//! slice. Rate limits apply here, to piece bytes only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{DataJob, Session};
use crate::content::{Digest, LayerRange, PieceIndex, ShareId, ShareInfo};
use crate::engine::{DownCause, ServiceEnd};
use crate::network::PeerStream;
use crate::node::buffers::Buffer;
use crate::node::share::{Share, ShareInput};
use crate::wire::{DataHeader, DataKind, SLICE_LEN_MAX, ShareNumber};

/// Progress within a piece is reported this often; each report is a turn of the share's actor.
const REPORT_SPAN: Duration = Duration::from_millis(50);

/// A job whose bytes are in memory.
enum Loaded {
    Piece {
        share: Share,
        piece: PieceIndex,
        buffer: Buffer,
        stopped: Arc<AtomicBool>,
    },
    Manifest {
        share: Share,
    },
    Info {
        share: ShareNumber,
        bytes: Vec<u8>,
    },
    Hashes {
        share: ShareNumber,
        range: LayerRange,
        bytes: Vec<u8>,
    },
}

pub(super) async fn write(
    session: Session,
    mut stream: WriteHalf<PeerStream>,
    jobs: mpsc::Receiver<DataJob>,
) {
    let ending = session.0.ending.clone();
    // Room for one: the next piece is read while this one is written.
    let (loaded_queue, mut loaded) = mpsc::channel(1);
    let ended = tokio::select! {
        () = ending.cancelled() => return,
        () = load_all(&session, jobs, loaded_queue) => Ok(()),
        ended = write_all(&session, &mut stream, &mut loaded) => ended,
    };
    if let Err(error) = ended {
        let reason = error.to_string();
        session.end_after_control(DownCause::Closed, reason).await;
    }
}

async fn load_all(
    session: &Session,
    mut jobs: mpsc::Receiver<DataJob>,
    loaded: mpsc::Sender<Loaded>,
) {
    while let Some(job) = jobs.recv().await {
        if let Some(job) = load(session, job).await
            && loaded.send(job).await.is_err()
        {
            return;
        }
    }
}

fn share_of(session: &Session, id: ShareId) -> Option<Share> {
    session
        .0
        .shop
        .shares
        .all()
        .into_iter()
        .find(|share| share.id == id)
}

async fn load(session: &Session, job: DataJob) -> Option<Loaded> {
    match job {
        DataJob::Manifest { share } => Some(Loaded::Manifest {
            share: share_of(session, share)?,
        }),
        DataJob::Info { share } => {
            let share = share_of(session, share)?;
            let times = share.ready.get()?.store.modified();
            Some(Loaded::Info {
                share: share.number,
                bytes: ShareInfo::new(times).encode(),
            })
        }
        DataJob::Hashes { share, range } => {
            let share = share_of(session, share)?;
            let number = share.number;
            let bytes = tokio::task::spawn_blocking(move || {
                let ready = share.ready.get()?;
                let (hashes, proof) = ready.hashes.prove(ready.geometry(), range)?;
                Some(
                    hashes
                        .iter()
                        .chain(&proof)
                        .flat_map(|digest: &Digest| *digest.as_bytes())
                        .collect(),
                )
            });
            let bytes = bytes.await.ok().flatten()?;
            Some(Loaded::Hashes {
                share: number,
                range,
                bytes,
            })
        }
        DataJob::Piece {
            share,
            piece,
            stopped,
        } => {
            let share = share_of(session, share)?;
            load_piece(session, share, piece, stopped).await
        }
    }
}

async fn load_piece(
    session: &Session,
    share: Share,
    piece: PieceIndex,
    stopped: Arc<AtomicBool>,
) -> Option<Loaded> {
    let how = if stopped.load(Ordering::Relaxed) {
        ServiceEnd::Stopped
    } else {
        let len = share.ready.get()?.geometry().len_of(piece) as usize;
        let mut buffer = session.0.shop.buffers.take(len).await;
        let reading = {
            let share = share.clone();
            tokio::task::spawn_blocking(move || {
                let ready = share
                    .ready
                    .get()
                    .expect("pieces are served only of ready shares");
                ready.store.read_piece(piece, &mut buffer).map(|()| buffer)
            })
        };
        match reading.await {
            Ok(Ok(buffer)) => {
                return Some(Loaded::Piece {
                    share,
                    piece,
                    buffer,
                    stopped,
                });
            }
            Ok(Err(error)) => {
                // The share has left: nobody waits for this.
                let _ = share
                    .inputs
                    .send(ShareInput::Unreadable { piece, error })
                    .await;
                ServiceEnd::Unreadable
            }
            Err(_) => ServiceEnd::Unreadable,
        }
    };
    let _ = share
        .inputs
        .send(ShareInput::ServiceEnded {
            session: session.id(),
            piece,
            how,
        })
        .await;
    None
}

async fn write_all(
    session: &Session,
    stream: &mut WriteHalf<PeerStream>,
    loaded: &mut mpsc::Receiver<Loaded>,
) -> std::io::Result<()> {
    while let Some(job) = loaded.recv().await {
        match job {
            Loaded::Piece {
                share,
                piece,
                mut buffer,
                stopped,
            } => {
                let how =
                    write_piece(session, stream, &share, piece, &mut buffer, &stopped).await?;
                // The share has left: nobody waits for this.
                let _ = share
                    .inputs
                    .send(ShareInput::ServiceEnded {
                        session: session.id(),
                        piece,
                        how,
                    })
                    .await;
            }
            Loaded::Manifest { share } => {
                let Some(ready) = share.ready.get() else {
                    continue;
                };
                let total = ready.manifest_bytes.len() as u32;
                for (part, bytes) in (0..).zip(ready.manifest_bytes.chunks(SLICE_LEN_MAX as usize))
                {
                    let kind = DataKind::Manifest {
                        total,
                        offset: part * SLICE_LEN_MAX,
                    };
                    write_slice(
                        stream,
                        DataHeader {
                            share: share.number,
                            kind,
                            len: bytes.len() as u32,
                        },
                        bytes,
                    )
                    .await?;
                }
            }
            Loaded::Info { share, bytes } => {
                let total = bytes.len() as u32;
                for (part, bytes) in (0..).zip(bytes.chunks(SLICE_LEN_MAX as usize)) {
                    let kind = DataKind::Info {
                        total,
                        offset: part * SLICE_LEN_MAX,
                    };
                    let len = bytes.len() as u32;
                    write_slice(stream, DataHeader { share, kind, len }, bytes).await?;
                }
            }
            Loaded::Hashes {
                share,
                range,
                bytes,
            } => {
                let kind = DataKind::Hashes {
                    file: range.file.get(),
                    first: range.first,
                };
                write_slice(
                    stream,
                    DataHeader {
                        share,
                        kind,
                        len: bytes.len() as u32,
                    },
                    &bytes,
                )
                .await?;
            }
        }
        if loaded.is_empty() {
            stream.flush().await?;
        }
    }
    Ok(())
}

async fn write_piece(
    session: &Session,
    stream: &mut WriteHalf<PeerStream>,
    share: &Share,
    piece: PieceIndex,
    buffer: &mut Buffer,
    stopped: &AtomicBool,
) -> std::io::Result<ServiceEnd> {
    let slice_len = session.0.shop.up.take_max().min(SLICE_LEN_MAX as usize);
    let (mut offset, mut reported) = (0, 0);
    let mut reported_at = Instant::now();
    loop {
        let is_whole = offset == buffer.len();
        let is_stopped = stopped.load(Ordering::Relaxed);
        let is_due = is_whole || is_stopped || reported_at.elapsed() >= REPORT_SPAN;
        if is_due && offset > reported {
            let sent = ShareInput::Sent {
                session: session.id(),
                piece,
                bytes: (offset - reported) as u32,
            };
            // The share has left: nobody waits for this.
            let _ = share.inputs.send(sent).await;
            (reported, reported_at) = (offset, Instant::now());
        }
        if is_whole || is_stopped {
            let how = if is_whole {
                ServiceEnd::Whole
            } else {
                ServiceEnd::Stopped
            };
            return Ok(how);
        }
        let len = slice_len.min(buffer.len() - offset);
        session.0.shop.up.take(len).await;
        if stopped.load(Ordering::Relaxed) {
            continue;
        }
        let header = DataHeader {
            share: share.number,
            kind: DataKind::Piece {
                piece: piece.get(),
                offset: offset as u32,
            },
            len: len as u32,
        };
        let wait = buffer.wait(&session.0.squeezed);
        let slice = buffer.with_header(header.encode(), offset, len);
        stream.write_all(slice).await?;
        buffer.waited(wait, len);
        offset += len;
    }
}

async fn write_slice(
    stream: &mut WriteHalf<PeerStream>,
    header: DataHeader,
    bytes: &[u8],
) -> std::io::Result<()> {
    stream.write_all(&header.encode()).await?;
    stream.write_all(bytes).await
}
