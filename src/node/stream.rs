//! The bytes of a share of one file in order, while it is being fetched.
//!
//! Reads back from the store what was verified and stored, and verifies it once more: between the two the file lay where
//! others may write. Holds one piece at a time, however slow its reader is. Made by [`super::ShareHandle`].

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use super::FetchError;
use super::share::ReadyShare;
use crate::content::PieceIndex;
use crate::storage::StorageError;

/// The bytes of a share of one file, from its beginning.
pub struct ByteStream {
    ready: Arc<OnceLock<ReadyShare>>,
    /// Pieces held without a gap from the first; `None` until the store is open.
    leading: watch::Receiver<Option<u32>>,
    next: u32,
}

impl ByteStream {
    pub(super) fn new(
        ready: Arc<OnceLock<ReadyShare>>,
        leading: watch::Receiver<Option<u32>>,
    ) -> Self {
        Self {
            ready,
            leading,
            next: 0,
        }
    }

    /// The next bytes, verified; `None` at the end of the file. Waits until they are here.
    ///
    /// # Errors
    /// [`FetchError::Closed`] when the fetch ended before they came; [`FetchError::Storage`] when they cannot be read
    /// back as they were stored.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, FetchError> {
        let next = self.next;
        let count_of = |ready: &ReadyShare| ready.geometry().piece_count();
        let count = || self.ready.get().map(count_of);
        let is_here = |leading: &Option<u32>| {
            leading.is_some_and(|leading| leading > next || Some(next) == count())
        };
        if self.leading.wait_for(is_here).await.is_err() {
            return Err(FetchError::Closed);
        }
        if Some(next) == count() {
            return Ok(None);
        }
        let ready = Arc::clone(&self.ready);
        let read = tokio::task::spawn_blocking(move || match ready.get() {
            Some(ready) => read_back(ready, PieceIndex::new(next)).map_err(FetchError::from),
            None => Err(FetchError::Closed),
        });
        let bytes = read.await.map_err(|_| FetchError::Closed)??;
        self.next += 1;
        Ok(Some(bytes))
    }
}

fn read_back(ready: &ReadyShare, piece: PieceIndex) -> Result<Vec<u8>, StorageError> {
    let mut bytes = vec![0; ready.geometry().len_of(piece) as usize];
    ready.store.read_piece(piece, &mut bytes)?;
    let is_good = ready
        .hashes
        .verify(ready.geometry(), piece, &bytes)
        .is_some();
    if is_good {
        Ok(bytes)
    } else {
        Err(StorageError::SourceChanged {
            path: ready.manifest.name().as_str().into(),
        })
    }
}
