//! What peers have sent on their streams and nobody has read yet: counted for each connection and over all of them.
//!
//! yamux bounds the bytes of one connection. It bounds neither what it keeps them in, a frame of one byte takes a hundred,
//! nor all connections together. `joined` sees the frames arrive and reads no more beyond the bounds here; the streams tell
//! what was read. Nothing is closed: TCP holds back who sends. Source: libp2p specification `yamux/README.md`, "Framing".

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::frames::Frames;

/// Bytes of one connection: windows that are all full of large frames have less, so that only small ones reach it. Whoever
/// is held back too long loses its connection, by its own kernel.
const CONNECTION_MAX: usize = super::WINDOWS_MAX + 256 * 1024;

/// Bytes of all connections, beyond which each may have [`SHARE`] only. Reached where our own disk or our own limit is slow
/// and many peers send, or where peers ask and read no answers.
const ALL_MAX: usize = 64 * 1024 * 1024;

/// What a connection may have in any case: the first window of a stream, and some messages.
const SHARE: usize = 320 * 1024;

/// What a frame takes beside its bytes: an allocation of at least 32, its place of 32 in the queue of yamux and of 4 in that
/// here, both of which double when they are full and are there three times then; a third more for what allocators and pages
/// add.
const FRAME_COST: usize = 192;

/// All connections of a transport.
#[derive(Debug, Default)]
pub(in crate::network::transport) struct All {
    kept: AtomicUsize,
    /// Connections that do not read because of the others.
    held_back: Mutex<Vec<Waker>>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Unread {
    all: Arc<All>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    frames: Frames,
    streams: HashMap<u32, Kept>,
    /// Sum over the streams.
    kept: usize,
    held_back: Option<Waker>,
}

/// What one stream has unread: the bytes left of each frame. yamux frees a frame when all of it was read.
#[derive(Debug, Default)]
struct Kept(VecDeque<u32>);

impl Kept {
    /// Takes `len` bytes off; what that frees.
    fn read(&mut self, len: usize) -> usize {
        let (mut left, mut freed) = (len, len);
        while left > 0
            && let Some(front) = self.0.front_mut()
        {
            let taken = left.min(*front as usize);
            left -= taken;
            *front -= taken as u32;
            if *front == 0 {
                self.0.pop_front();
                freed += FRAME_COST;
            }
        }
        freed - left
    }

    fn cost(&self) -> usize {
        let cost_of = |len: &u32| *len as usize + FRAME_COST;
        self.0.iter().map(cost_of).sum()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unread {
    pub(super) fn new(all: Arc<All>) -> Self {
        Self {
            all,
            state: Mutex::default(),
        }
    }

    /// Pending while no more is to be read from the peer.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        let has_room = |state: &State| match state.kept {
            kept if kept > CONNECTION_MAX => false,
            kept => kept <= SHARE || self.all.kept.load(Ordering::Acquire) <= ALL_MAX,
        };
        if has_room(&state) {
            return Poll::Ready(());
        }
        state.held_back = Some(cx.waker().clone());
        let mut others = lock(&self.all.held_back);
        if !others.iter().any(|waker| waker.will_wake(cx.waker())) {
            others.push(cx.waker().clone());
        }
        drop(others);
        // Others may have read in between, and woken nobody.
        match has_room(&state) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// These bytes came from the peer.
    pub(super) fn on_received(&self, bytes: &[u8]) {
        let mut state = lock(&self.state);
        let State {
            frames, streams, ..
        } = &mut *state;
        let mut grown = 0;
        frames.on_bytes(bytes, |header| {
            if header.is_new {
                streams.entry(header.stream).or_default();
            }
            // What comes for a stream that we dropped is not kept.
            if header.len > 0
                && let Some(kept) = streams.get_mut(&header.stream)
            {
                kept.0.push_back(header.len as u32);
                grown += header.len + FRAME_COST;
            }
        });
        state.kept += grown;
        self.all.kept.fetch_add(grown, Ordering::AcqRel);
    }

    /// We have opened this stream.
    pub(super) fn on_opened(&self, stream: u32) {
        lock(&self.state).streams.entry(stream).or_default();
    }

    /// `len` bytes of a stream were read.
    pub(super) fn on_read(&self, stream: u32, len: usize) {
        let mut state = lock(&self.state);
        let kept = state.streams.get_mut(&stream);
        let freed = kept.map_or(0, |kept| kept.read(len));
        self.freed(state, freed);
    }

    /// A stream was dropped, and what was unread with it.
    pub(super) fn on_dropped(&self, stream: u32) {
        let mut state = lock(&self.state);
        let freed = state.streams.remove(&stream).map_or(0, |kept| kept.cost());
        self.freed(state, freed);
    }

    fn freed(&self, mut state: MutexGuard<'_, State>, bytes: usize) {
        state.kept -= bytes;
        let woken = state.held_back.take();
        drop(state);
        self.all.freed(bytes);
        // It looks again.
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.all.freed(state.kept);
    }
}

impl All {
    fn freed(&self, bytes: usize) {
        let before = self.kept.fetch_sub(bytes, Ordering::AcqRel);
        if before > ALL_MAX && before - bytes <= ALL_MAX {
            mem::take(&mut *lock(&self.held_back))
                .into_iter()
                .for_each(Waker::wake);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use futures::task::{ArcWake, noop_waker, waker_ref};

    use super::super::frames::{SYN, WINDOW_UPDATE, frame};
    use super::*;

    fn has_room(unread: &Unread) -> bool {
        let waker = noop_waker();
        unread
            .poll_room(&mut Context::from_waker(&waker))
            .is_ready()
    }

    fn kept(unread: &Unread) -> usize {
        lock(&unread.state).kept
    }

    #[test]
    fn what_is_read_or_dropped_counts_no_more() {
        let all = Arc::<All>::default();
        let unread = Unread::new(Arc::clone(&all));
        unread.on_opened(2);
        unread.on_received(&[frame(0, SYN, 1, 100), frame(0, 0, 2, 50)].concat());
        assert_eq!(kept(&unread), 150 + 2 * FRAME_COST);
        unread.on_read(1, 60);
        assert_eq!(
            kept(&unread),
            90 + 2 * FRAME_COST,
            "yamux keeps whole frames"
        );
        unread.on_read(1, 40);
        assert_eq!(kept(&unread), 50 + FRAME_COST);
        unread.on_dropped(2);
        // On its way when the stream was dropped.
        unread.on_received(&frame(0, 0, 2, 1_000));
        assert_eq!((kept(&unread), all.kept.load(Ordering::Relaxed)), (0, 0));
        unread.on_received(&frame(0, 0, 1, 10));
        drop(unread);
        assert_eq!(all.kept.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn frames_of_one_byte_fill_a_connection_as_what_they_take() {
        let unread = Unread::new(Arc::default());
        unread.on_received(&frame(WINDOW_UPDATE, SYN, 1, 0));
        let mut bytes = 0;
        while has_room(&unread) {
            unread.on_received(&frame(0, 0, 1, 1));
            bytes += 1;
        }
        assert!(bytes <= CONNECTION_MAX / FRAME_COST, "{bytes}");
        unread.on_read(1, bytes / 2);
        assert!(has_room(&unread));
    }

    #[test]
    fn a_stream_that_is_never_empty_counts_what_it_has_and_not_what_it_had() {
        let unread = Unread::new(Arc::default());
        unread.on_received(&frame(0, SYN, 1, 1_000));
        for _ in 0..100_000 {
            unread.on_received(&frame(0, 0, 1, 1_000));
            unread.on_read(1, 1_000);
        }
        assert_eq!(kept(&unread), 1_000 + FRAME_COST);
    }

    #[test]
    fn when_all_together_have_too_much_each_has_its_share_and_others_are_woken_by_reads() {
        let all = Arc::<All>::default();
        let fill = |len: u32| {
            let unread = Unread::new(Arc::clone(&all));
            unread.on_received(&frame(0, SYN, 1, len));
            unread
        };
        let greedy: Vec<Unread> = (0..8).map(|_| fill(ALL_MAX as u32 / 8)).collect();
        let modest = fill(SHARE as u32 / 2);
        assert!(has_room(&modest));
        let woken: Vec<Arc<Woken>> = greedy.iter().map(|_| Arc::default()).collect();
        for (unread, woken) in greedy.iter().zip(&woken) {
            let waker = waker_ref(woken);
            let mut cx = Context::from_waker(&waker);
            assert!(unread.poll_room(&mut cx).is_pending());
            assert!(unread.poll_room(&mut cx).is_pending(), "kept once");
        }
        assert_eq!(lock(&all.held_back).len(), 8, "all of them wait");
        greedy[0].on_read(1, ALL_MAX / 8);
        assert!(woken.iter().all(|woken| woken.0.load(Ordering::Relaxed)));
        assert!(greedy.iter().all(has_room));
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl ArcWake for Woken {
        fn wake_by_ref(woken: &Arc<Self>) {
            woken.0.store(true, Ordering::Relaxed);
        }
    }
}
