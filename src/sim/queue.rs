//! What is to happen, in the order of time and, at one moment, in the order of planning.
//!
//! The heap moves small keys only; what is planned stays where it was put. Knows nothing of swarms. Called
//! by `swarm`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use crate::engine::Time;

/// Nanoseconds since the start, place in the order of planning, slot.
type Key = Reverse<(u64, u64, u32)>;

/// A queue of planned things.
#[derive(Debug)]
pub(super) struct Queue<T> {
    keys: BinaryHeap<Key>,
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    planned: u64,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            keys: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            planned: 0,
        }
    }

    pub(super) fn push(&mut self, at: Time, what: T) {
        let nanos = at.since_start().as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        self.planned += 1;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(what);
                slot
            }
            None => {
                self.slots.push(Some(what));
                u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 things are planned")
            }
        };
        self.keys.push(Reverse((nanos, self.planned, slot)));
    }

    /// The next thing and its time.
    pub(super) fn pop(&mut self) -> Option<(Time, T)> {
        let Reverse((nanos, _, slot)) = self.keys.pop()?;
        let what = self.slots[slot as usize]
            .take()
            .expect("a slot is full until its key is popped");
        self.free.push(slot);
        Some((Time::from_start(Duration::from_nanos(nanos)), what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_come_by_time_and_at_one_moment_in_the_order_of_planning() {
        let at = |millis| Time::from_start(Duration::from_millis(millis));
        let mut queue = Queue::new();
        for (millis, what) in [(5, "c"), (1, "a"), (5, "d"), (2, "b")] {
            queue.push(at(millis), what);
        }
        assert_eq!(queue.pop(), Some((at(1), "a")));
        queue.push(at(5), "e");
        let rest: String = std::iter::from_fn(|| queue.pop().map(|(_, what)| what)).collect();
        assert_eq!(rest, "bcde");
    }
}
