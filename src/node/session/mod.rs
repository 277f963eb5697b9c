//! One peer: the tasks that move its frames and bytes, and the handle others hold of them.
//!
//! Four tasks share a session: reader and writer of the control stream, reader and writer of the data
//! stream. None of them decides anything; they tell share actors what came and write what they are
//! given. When one ends, all end, and every share linked here is told at once. Source:
//! `src/wire/PROTOCOL.md`.

mod allowance;
mod checks;
mod control;
mod data_in;
mod data_out;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::buffers::Buffers;
use super::limiter::Limiter;
use super::share::{SessionId, Share, ShareInput, Shares};
use crate::content::{Digest, LayerRange, Multiaddr, PeerId, PieceIndex, ShareId};
use crate::engine::DownCause;
use crate::network::{InUse, SessionStreams};
use crate::wire::{Control, ShareMessage, ShareNumber};

/// Control messages that wait to be written. A peer that lets them pile up is dropped.
const CONTROL_QUEUE_MAX: usize = 4_096;

/// Jobs that wait for the data stream. More are a peer that asks and does not read: it is dropped.
const DATA_QUEUE_MAX: usize = 1_024;

/// Bytes that may arrive without having been asked for.
const UNASKED_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes of the messages of one session that wait for the actors of their shares: one as large as a frame allows, decoded.
/// A peer that says more than they take in waits.
const MESSAGES_LEN_MAX: usize = 256 * 1024;

/// How long the control stream may still be read when another stream ended. Far more than reading takes; on a connection
/// whose control stream lives on, a loss is told this much later.
const LAST_WORDS_MAX: Duration = Duration::from_millis(50);

/// What all sessions of a process use together.
pub(super) struct Shop {
    pub(super) local_peer: PeerId,
    pub(super) shares: Shares,
    pub(super) buffers: Buffers,
    pub(super) up: Limiter,
    pub(super) down: Limiter,
    pub(super) tasks: TaskTracker,
    pub(super) agent: String,
}

/// Something to write on the data stream.
#[derive(Debug)]
pub(super) enum DataJob {
    /// A piece, unless it was stopped.
    Piece {
        share: ShareId,
        piece: PieceIndex,
        stopped: Arc<AtomicBool>,
    },
    /// The manifest.
    Manifest { share: ShareId },
    /// The share info.
    Info { share: ShareId },
    /// A range of piece hashes.
    Hashes { share: ShareId, range: LayerRange },
}

/// The shares of a session, and how each side calls them.
#[derive(Default)]
struct Links {
    opened: BTreeSet<ShareNumber>,
    theirs: BTreeMap<ShareNumber, Share>,
}

/// What both sides see alike in a session: whether the smaller of the two peer ids dialled its connection, then whether
/// it began the session. The second counts when both began one on the same connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Standing {
    dialled_by_smaller: bool,
    opened_by_smaller: bool,
}

struct Inner {
    id: SessionId,
    peer: PeerId,
    remote_address: Multiaddr,
    began: Instant,
    standing: Standing,
    agent: OnceLock<String>,
    control: mpsc::Sender<Control>,
    data: mpsc::Sender<DataJob>,
    links: Mutex<Links>,
    asked_bytes: AtomicU64,
    ending: CancellationToken,
    /// Set when others need the memory that this session holds and does not move.
    squeezed: CancellationToken,
    /// Bytes of messages that shares have not taken yet: what is left of the room for them.
    room: Arc<Semaphore>,
    /// Set once everything queued before a goodbye was written.
    flushed: Notify,
    /// Why the session ended, from whoever noticed first.
    reason: OnceLock<(DownCause, String)>,
    /// Dropped when the session ends, for handles of it live on.
    in_use: Mutex<Option<InUse>>,
    shop: Arc<Shop>,
}

/// A handle of a session; cheap to clone.
#[derive(Clone)]
pub(super) struct Session(Arc<Inner>);

impl Session {
    /// Takes the streams and spawns the tasks.
    pub(super) fn start(id: SessionId, streams: SessionStreams, shop: Arc<Shop>) -> Self {
        let SessionStreams {
            peer,
            dialled_by_us,
            opened_by_us,
            remote_address,
            in_use,
            control,
            data,
            ..
        } = streams;
        let we_are_smaller = shop.local_peer < peer;
        let (control_queue, control_jobs) = mpsc::channel(CONTROL_QUEUE_MAX);
        let (data_queue, data_jobs) = mpsc::channel(DATA_QUEUE_MAX);
        let session = Self(Arc::new(Inner {
            id,
            peer,
            remote_address,
            began: Instant::now(),
            standing: Standing {
                dialled_by_smaller: dialled_by_us == we_are_smaller,
                opened_by_smaller: opened_by_us == we_are_smaller,
            },
            agent: OnceLock::new(),
            control: control_queue,
            data: data_queue,
            links: Mutex::default(),
            asked_bytes: AtomicU64::new(0),
            ending: CancellationToken::new(),
            squeezed: CancellationToken::new(),
            room: Arc::new(Semaphore::new(MESSAGES_LEN_MAX)),
            flushed: Notify::new(),
            reason: OnceLock::new(),
            in_use: Mutex::new(Some(in_use)),
            shop: Arc::clone(&shop),
        }));
        let (control_read, control_write) = tokio::io::split(control);
        let (data_read, data_write) = tokio::io::split(data);
        shop.tasks
            .spawn(control::read(session.clone(), control_read));
        shop.tasks
            .spawn(control::write(session.clone(), control_write, control_jobs));
        shop.tasks.spawn(data_in::read(session.clone(), data_read));
        shop.tasks
            .spawn(data_out::write(session.clone(), data_write, data_jobs));
        session
    }

    pub(super) fn id(&self) -> SessionId {
        self.0.id
    }

    pub(super) fn peer(&self) -> PeerId {
        self.0.peer
    }

    /// Where the peer is, without `/p2p/`.
    pub(super) fn remote_address(&self) -> &Multiaddr {
        &self.0.remote_address
    }

    /// The program of the peer, as it says: hostile text.
    pub(super) fn agent(&self) -> &str {
        self.0.agent.get().map_or("", String::as_str)
    }

    pub(super) fn began(&self) -> Instant {
        self.0.began
    }

    /// Which of two that crossed stays: the greater one.
    pub(super) fn standing(&self) -> Standing {
        self.0.standing
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.0.ending.is_cancelled()
    }

    /// Resolves when the session ends.
    pub(super) async fn ended(&self) {
        self.0.ending.cancelled().await;
    }

    /// Ends the session; every linked share is told why. Only the first reason counts.
    pub(super) fn end(&self, cause: DownCause, reason: impl Into<String>) {
        if self.0.reason.set((cause, reason.into())).is_err() {
            return;
        }
        self.0.ending.cancel();
        drop(
            self.0
                .in_use
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let (cause, reason) = self.0.reason.get().cloned().expect("set just now");
        tracing::debug!(peer = %self.0.peer, ?cause, reason, "session ended");
        let mut links = std::mem::take(&mut *self.lock_links());
        for share in links.theirs.into_values() {
            if links.opened.remove(&share.number) {
                self.tell(
                    &share,
                    ShareInput::Unlinked {
                        session: self.0.id,
                        cause,
                        reason: reason.clone(),
                    },
                );
            }
        }
        // Opened, and never answered.
        let mut unanswered = self.0.shop.shares.all();
        unanswered.retain(|share| links.opened.contains(&share.number));
        for share in unanswered {
            self.tell(
                &share,
                ShareInput::DialFailed {
                    peer: Some(self.0.peer),
                    tried: Vec::new(),
                },
            );
        }
    }

    /// Ends the session because one of its streams did. What the peer said before it left, its last pieces and that it
    /// is complete, may still be unread in the control stream: whose reader ends the session itself when it is through.
    async fn end_after_control(&self, cause: DownCause, reason: impl Into<String>) {
        if cause == DownCause::Closed {
            // A peer that was killed ends both streams at once, and nobody waits.
            let _ = tokio::time::timeout(LAST_WORDS_MAX, self.ended()).await;
        }
        self.end(cause, reason);
    }

    /// Says goodbye and ends the session once that is written, or after a moment.
    pub(super) async fn leave(&self) {
        let flushed = self.0.flushed.notified();
        if self.0.control.try_send(Control::Goodbye).is_ok() {
            let wait = Duration::from_millis(200);
            // A peer that does not read its goodbye in time does without.
            let _ = tokio::time::timeout(wait, flushed).await;
        }
        self.end(DownCause::Left, "we left");
    }

    /// Tells a share from a place that must not wait: the input goes in its turn from a task.
    fn tell(&self, share: &Share, input: ShareInput) {
        if let Err(mpsc::error::TrySendError::Full(input)) = share.inputs.try_send(input) {
            let inputs = share.inputs.clone();
            self.0.shop.tasks.spawn(async move {
                // The share has left: there is nobody to tell.
                let _ = inputs.send(input).await;
            });
        }
    }

    fn lock_links(&self) -> std::sync::MutexGuard<'_, Links> {
        self.0.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // -- shares -----------------------------------------------------------------------------------

    /// Opens `share` towards the peer, once.
    pub(super) fn open(&self, share: &Share) {
        if self.lock_links().opened.insert(share.number) {
            let token = *share
                .id
                .open_token(&self.0.shop.local_peer, &self.0.peer)
                .as_bytes();
            self.control(Control::Open {
                number: share.number,
                token,
            });
        }
    }

    /// Whether `share` was opened towards the peer.
    pub(super) fn has_opened(&self, share: &Share) -> bool {
        self.lock_links().opened.contains(&share.number)
    }

    /// Whether any share is open, from either side.
    fn has_share(&self) -> bool {
        let links = self.lock_links();
        !links.opened.is_empty() || !links.theirs.is_empty()
    }

    /// Leaves `share` in this session; the session goes on for others.
    pub(super) fn close_share(&self, share: &Share, complete: bool) {
        let (was_open, is_last) = {
            let mut links = self.lock_links();
            let was_open = links.opened.remove(&share.number);
            links.theirs.retain(|_, theirs| theirs.id != share.id);
            (was_open, links.opened.is_empty())
        };
        if was_open {
            self.control(Control::Close {
                number: share.number,
                complete,
            });
        }
        if was_open && is_last {
            let session = self.clone();
            self.0
                .shop
                .tasks
                .spawn(async move { session.leave().await });
        }
    }

    fn on_open(&self, number: ShareNumber, token: &[u8; 32]) {
        let Some(share) = self
            .0
            .shop
            .shares
            .by_token(token, &self.0.peer, &self.0.shop.local_peer)
        else {
            self.control(Control::Unknown { number });
            return;
        };
        self.open(&share);
        let before = {
            let mut links = self.lock_links();
            let mut theirs = links.theirs.values();
            let is_linked = theirs.any(|known| known.id == share.id);
            links.theirs.insert(number, share.clone());
            is_linked
        };
        if before {
            return self.end(DownCause::Violation, "a share that is open already");
        }
        self.tell(&share, ShareInput::Linked(self.clone()));
    }

    fn on_unknown(&self, number: ShareNumber) {
        let is_ours = self.lock_links().opened.remove(&number);
        let share = self
            .0
            .shop
            .shares
            .all()
            .into_iter()
            .find(|share| share.number == number);
        if let Some(share) = share.filter(|_| is_ours) {
            self.tell(&share, ShareInput::Refused { peer: self.0.peer });
        }
    }

    fn on_close(&self, number: ShareNumber, complete: bool) {
        let share = {
            let mut links = self.lock_links();
            let share = links.theirs.remove(&number);
            if let Some(share) = &share {
                links.opened.remove(&share.number);
            }
            share
        };
        if let Some(share) = share {
            let reason = if complete { "it is done" } else { "it left" }.to_owned();
            self.tell(
                &share,
                ShareInput::Unlinked {
                    session: self.0.id,
                    cause: DownCause::Left,
                    reason,
                },
            );
        }
    }

    /// The share that the peer calls `number`, if both have it open.
    fn share(&self, number: ShareNumber) -> Option<Share> {
        self.lock_links().theirs.get(&number).cloned()
    }

    // -- sending ----------------------------------------------------------------------------------

    /// Queues a control message; a peer that reads so slowly that the queue is full is dropped.
    fn control(&self, message: Control) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.0.control.try_send(message) {
            self.end(DownCause::Closed, "it does not read");
        }
    }

    /// Queues a message about a share.
    pub(super) fn send(&self, share: &Share, message: ShareMessage) {
        self.control(Control::Share {
            number: share.number,
            message,
        });
    }

    /// Queues something for the data stream; false when the queue is full.
    pub(super) fn send_data(&self, job: DataJob) -> bool {
        match self.0.data.try_send(job) {
            Ok(()) => true,
            Err(_) => {
                self.end(DownCause::Violation, "it asks for more than it reads");
                false
            }
        }
    }

    /// `bytes` more may arrive on the data stream.
    pub(super) fn expect_bytes(&self, bytes: u64) {
        self.0.asked_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Splits hashes and proof from a body of 32-byte digests; `None` when its length is no multiple.
fn digests_of(bytes: &[u8]) -> Option<Vec<Digest>> {
    let (chunks, rest) = bytes.as_chunks::<32>();
    rest.is_empty().then(|| {
        chunks
            .iter()
            .map(|chunk| Digest::from_bytes(*chunk))
            .collect()
    })
}
