//! Checks of pieces that arrived in one session: verified and stored on blocking threads, a few at a time.
//!
//! Whoever tells a share that a piece has arrived owes it the outcome, also when the session ends in between: without it
//! the piece would count as being checked for ever, and be asked of nobody. Used by `data_in`.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::content::PieceIndex;
use crate::node::buffers::Buffer;
use crate::node::share::{Checked, ReadyShare, SessionId, Share, ShareInput};
use crate::storage::StorageError;

/// Pieces of one session being verified and stored at once: the next is read meanwhile.
const CHECKS_MAX: usize = 3;

/// The checks of one session.
#[derive(Debug)]
pub(super) struct Checks(Arc<Semaphore>);

impl Checks {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(CHECKS_MAX)))
    }

    /// Waits for its turn, tells the share that `piece` has arrived, and lets a task check it and tell the outcome.
    ///
    /// # Cancel safety
    /// Cancelled, it has told nothing: the turn comes first, and nothing is waited for after the telling.
    pub(super) async fn begin(
        &self,
        tasks: &TaskTracker,
        share: Share,
        session: SessionId,
        (piece, buffer): (PieceIndex, Buffer),
    ) {
        let turn = Arc::clone(&self.0)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        // The share has left: nobody waits for this.
        let _ = share
            .inputs
            .send(ShareInput::Arrived { session, piece })
            .await;
        tasks.spawn(async move {
            let outcome = check(share.clone(), piece, buffer).await;
            let checked = ShareInput::Checked {
                session,
                piece,
                outcome,
            };
            // As above.
            let _ = share.inputs.send(checked).await;
            drop(turn);
        });
    }
}

/// Verifies and stores a piece on a blocking thread.
async fn check(share: Share, piece: PieceIndex, buffer: Buffer) -> Checked {
    let checking = tokio::task::spawn_blocking(move || {
        let ready = share
            .ready
            .get()
            .expect("pieces are read only for ready shares");
        verify_and_store(ready, piece, &buffer)
    });
    checking.await.unwrap_or_else(|panic| {
        let path = std::path::PathBuf::new();
        Checked::Failed(StorageError::Write {
            path,
            source: std::io::Error::other(panic.to_string()),
        })
    })
}

fn verify_and_store(ready: &ReadyShare, piece: PieceIndex, bytes: &[u8]) -> Checked {
    let Some(verified) = ready.hashes.verify(ready.geometry(), piece, bytes) else {
        return Checked::Corrupt;
    };
    match ready.store.write_piece(verified) {
        Ok(whole) => Checked::Stored {
            whole: whole.map(|file| ready.manifest.file(file).path.as_str().to_owned()),
        },
        Err(error) => Checked::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::OnceLock;
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;
    use crate::node::actor::set_ready;
    use crate::node::buffers::Buffers;
    use crate::storage::MemoryStore;
    use crate::wire::ShareNumber;

    const SESSION: SessionId = SessionId(1);

    fn share() -> (Share, mpsc::Receiver<ShareInput>) {
        let (manifest, hashes, _) = MemoryStore::share_of("share", &[("a", b"one piece")]);
        let store = Arc::new(MemoryStore::empty(manifest.geometry()));
        let (id, ready) = (manifest.id(), Arc::new(OnceLock::new()));
        set_ready(&ready, manifest, hashes, store);
        let (inputs, told) = mpsc::channel(8);
        let number = ShareNumber(0);
        (
            Share {
                id,
                number,
                inputs,
                ready,
            },
            told,
        )
    }

    async fn whole_piece(buffers: &Buffers) -> (PieceIndex, Buffer) {
        let mut buffer = buffers.take(9).await;
        buffer.copy_from_slice(b"one piece");
        (PieceIndex::new(0), buffer)
    }

    #[tokio::test]
    async fn a_session_that_ends_while_a_piece_waits_for_its_turn_has_told_nothing() {
        let (share, mut told) = share();
        let (checks, tasks, buffers) = (Checks::new(), TaskTracker::new(), Buffers::new());
        let turns = Arc::clone(&checks.0).acquire_many_owned(CHECKS_MAX as u32);
        let turns = turns.await.unwrap();
        let piece = whole_piece(&buffers).await;
        let waiting = checks.begin(&tasks, share.clone(), SESSION, piece);
        let ended = tokio::time::timeout(Duration::from_millis(20), waiting).await;
        assert!(ended.is_err(), "every turn is taken");
        assert!(
            told.try_recv().is_err(),
            "told of a piece that nobody checks"
        );

        drop(turns);
        let piece = whole_piece(&buffers).await;
        checks.begin(&tasks, share, SESSION, piece).await;
        assert!(matches!(
            told.recv().await,
            Some(ShareInput::Arrived { .. })
        ));
        let checked = told.recv().await;
        let is_stored = |outcome: &Checked| matches!(outcome, Checked::Stored { .. });
        assert!(
            matches!(checked, Some(ShareInput::Checked { outcome, .. }) if is_stored(&outcome))
        );
    }
}
