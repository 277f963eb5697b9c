//! Shows what becomes of a share while a command waits for something. Shared by `seed` and `fetch`.
//!
//! Passes events on as they come and pictures several times a second; decides neither what is shown nor when the wait
//! ends.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};
use tokio::time::MissedTickBehavior;

use crate::cli::output::Output;
use crate::node::{ShareHandle, ShareStatus, Told};
use crate::tui::Picture;

/// Between two pictures: often enough to look alive, no more often than a node renews them.
pub(super) const SHOW_EVERY: Duration = Duration::from_millis(200);

/// What is known of a share from now on.
pub(super) struct Watch {
    status: watch::Receiver<ShareStatus>,
    events: broadcast::Receiver<Told>,
    since: Instant,
}

impl Watch {
    /// Watches `share` with events that were subscribed to before it was opened.
    pub(super) fn new(share: &ShareHandle, events: broadcast::Receiver<Told>) -> Self {
        Self {
            status: share.status(),
            events,
            since: Instant::now(),
        }
    }

    /// The latest picture.
    pub(super) fn status(&self) -> ShareStatus {
        self.status.borrow().clone()
    }

    /// Pictures as they come.
    pub(super) fn follow(&self) -> watch::Receiver<ShareStatus> {
        self.status.clone()
    }

    /// Shows what happens until `end` is ready, and everything that happened before it was.
    pub(super) async fn until<T>(
        &mut self,
        output: &mut Output,
        end: impl Future<Output = T>,
    ) -> T {
        tokio::pin!(end);
        let mut show = tokio::time::interval(SHOW_EVERY);
        show.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_open = true;
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut end => break ended,
                _ = show.tick() => self.show(output),
                told = self.events.recv(), if is_open => match told {
                    Ok(told) => output.told(&told),
                    Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "events were missed"),
                    Err(RecvError::Closed) => is_open = false,
                },
            }
        };
        loop {
            match self.events.try_recv() {
                Ok(told) => output.told(&told),
                Err(TryRecvError::Lagged(_)) => {}
                Err(_) => return ended,
            }
        }
    }

    fn show(&mut self, output: &mut Output) {
        let status = self.status.borrow_and_update().clone();
        let elapsed = self.since.elapsed();
        output.show(&Picture::Share {
            status: &status,
            elapsed,
        });
    }
}
