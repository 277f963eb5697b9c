//! A small map of the things used most recently: open file handles and open folders.
//!
//! It never opens anything itself and holds its lock for a look-up only, so two threads may both open a thing that was
//! missing; the later one stays. Called by `source`, `fetch` and `beneath`.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// At most `capacity` values; a new one drops the one unused for longest.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    capacity: usize,
    inner: Mutex<Inner<K, V>>,
}

#[derive(Debug)]
struct Inner<K, V> {
    /// Value and the tick of its last use.
    values: HashMap<K, (V, u64)>,
    tick: u64,
}

impl<K: Eq + Hash + Clone, V: Clone> Recent<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            inner: Mutex::new(Inner {
                values: HashMap::new(),
                tick: 0,
            }),
        }
    }

    /// The value of `key`, which counts as used now.
    pub(super) fn get(&self, key: &K) -> Option<V> {
        let mut inner = self.lock();
        inner.tick += 1;
        let now = inner.tick;
        let (value, used) = inner.values.get_mut(key)?;
        *used = now;
        Some(value.clone())
    }

    pub(super) fn insert(&self, key: K, value: V) {
        let mut inner = self.lock();
        inner.tick += 1;
        let now = inner.tick;
        if inner.values.len() >= self.capacity && !inner.values.contains_key(&key) {
            // A scan is cheap: the capacity is a few dozen.
            let oldest = inner
                .values
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                inner.values.remove(&oldest);
            }
        }
        inner.values.insert(key, (value, now));
    }

    pub(super) fn forget(&self, key: &K) {
        self.lock().values.remove(key);
    }

    pub(super) fn clear(&self) {
        self.lock().values.clear();
    }

    // Every change under this lock is a single map call: a panic elsewhere cannot leave it half done.
    fn lock(&self) -> MutexGuard<'_, Inner<K, V>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_unused_for_longest_makes_room() {
        let recent = Recent::new(2);
        recent.insert("a", 1);
        recent.insert("b", 2);
        assert_eq!(recent.get(&"a"), Some(1));
        recent.insert("c", 3);
        assert_eq!(recent.get(&"b"), None);
        assert_eq!(recent.get(&"a"), Some(1));
        assert_eq!(recent.get(&"c"), Some(3));
        recent.forget(&"a");
        assert_eq!(recent.get(&"a"), None);
        recent.clear();
        assert_eq!(recent.get(&"c"), None);
    }
}
