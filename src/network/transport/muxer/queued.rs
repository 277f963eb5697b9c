//! Frames that a stream has given to yamux and that have not begun to leave.
//!
//! yamux takes ten of each stream. On a slow connection that is most of what a cancel or a Have has to wait for, and a piece that
//! is no longer wanted leaves all the same. So a stream of a slow connection waits until the frame before has begun to leave:
//! one leaves, one is ready. `joined` tells what leaves, the streams ask. On a fast connection the queue costs nothing, and saves
//! a switch of tasks for each frame.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::frames::Frames;

/// One connection.
#[derive(Debug, Default)]
pub(super) struct Queued(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    leaving: Frames,
    streams: HashMap<u32, Line>,
    /// Nothing leaves any more.
    is_over: bool,
}

/// One stream.
#[derive(Debug, Default)]
struct Line {
    frames: usize,
    writer: Option<Waker>,
}

impl Queued {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pending while a frame of `stream` has not begun to leave and still can.
    pub(super) fn poll_empty(&self, stream: u32, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        let is_over = state.is_over;
        match state.streams.get_mut(&stream) {
            Some(line) if line.frames > 0 && !is_over => {
                line.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    /// `stream` is about to give a frame with a body to yamux.
    pub(super) fn on_queued(&self, stream: u32) {
        self.lock().streams.entry(stream).or_default().frames += 1;
    }

    /// yamux did not take it.
    pub(super) fn on_refused(&self, stream: u32) {
        if let Some(line) = self.lock().streams.get_mut(&stream) {
            line.frames = line.frames.saturating_sub(1);
        }
    }

    /// These bytes leave.
    pub(super) fn on_leaving(&self, bytes: &[u8]) {
        let mut state = self.lock();
        let State {
            leaving, streams, ..
        } = &mut *state;
        leaving.on_bytes(bytes, |header| {
            if header.len > 0
                && let Some(line) = streams.get_mut(&header.stream)
            {
                line.frames = line.frames.saturating_sub(1);
                // It looks again.
                line.writer.take().into_iter().for_each(Waker::wake);
            }
        });
    }

    /// The connection is gone; whoever waits learns it from yamux.
    pub(super) fn on_end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        let writers = state.streams.values_mut();
        writers
            .filter_map(|line| line.writer.take())
            .for_each(Waker::wake);
    }

    /// A stream was dropped.
    pub(super) fn on_dropped(&self, stream: u32) {
        self.lock().streams.remove(&stream);
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker;

    use super::super::frames::{WINDOW_UPDATE, frame};
    use super::*;

    fn is_empty(queued: &Queued, stream: u32) -> bool {
        let waker = noop_waker();
        queued
            .poll_empty(stream, &mut Context::from_waker(&waker))
            .is_ready()
    }

    #[test]
    fn a_stream_waits_for_its_own_frames_until_they_begin_to_leave() {
        let queued = Queued::default();
        queued.on_queued(1);
        queued.on_queued(1);
        queued.on_queued(3);
        let bytes = frame(0, 0, 1, 100);
        queued.on_leaving(&bytes[..5]);
        queued.on_leaving(&bytes[5..]);
        queued.on_leaving(&frame(0, 0, 3, 100)[..12]);
        assert!(!is_empty(&queued, 1), "one of two is left");
        assert!(is_empty(&queued, 3));
    }

    #[test]
    fn frames_without_a_body_and_streams_that_are_gone_do_not_count() {
        let queued = Queued::default();
        queued.on_queued(1);
        queued.on_leaving(&frame(WINDOW_UPDATE, 0, 1, 1 << 20));
        queued.on_leaving(&frame(0, 0, 1, 0));
        assert!(!is_empty(&queued, 1));
        queued.on_dropped(1);
        assert!(is_empty(&queued, 1));
        queued.on_leaving(&frame(0, 0, 1, 100));
        assert!(is_empty(&queued, 1));
    }

    #[test]
    fn nobody_waits_for_frames_that_yamux_refused_or_that_never_leave() {
        let queued = Queued::default();
        queued.on_queued(1);
        queued.on_refused(1);
        assert!(is_empty(&queued, 1));
        queued.on_queued(1);
        assert!(!is_empty(&queued, 1));
        queued.on_end();
        assert!(is_empty(&queued, 1));
    }
}
