//! Getting the share info from peers: hints beside the manifest, one peer after the other, until one has them.
//!
//! Nothing waits for it and nothing fails by it: a bad or late answer only means that the next peer is asked. Knows no
//! sessions beyond their ids. Called by the actor of a share that is fetched.

use std::collections::BTreeSet;

use super::share::SessionId;
use crate::content::INFO_LEN_MAX;

/// How far the info of a share has come.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Peers that were asked; nobody is asked twice.
    asked: BTreeSet<SessionId>,
    arriving: Option<(SessionId, Vec<u8>)>,
    is_done: bool,
}

impl Hints {
    /// Whom of `sources` to ask now.
    pub(super) fn ask(&mut self, sources: &[SessionId]) -> Option<SessionId> {
        if let Some((from, _)) = &self.arriving
            && sources.contains(from)
        {
            return None;
        }
        self.arriving = None;
        if self.is_done {
            return None;
        }
        let next = *sources.iter().find(|source| !self.asked.contains(source))?;
        self.asked.insert(next);
        self.arriving = Some((next, Vec::new()));
        Some(next)
    }

    /// Takes a part; gives the whole when it was the last.
    pub(super) fn on_part(
        &mut self,
        from: SessionId,
        (total, offset): (u32, u32),
        part: &[u8],
    ) -> Option<Vec<u8>> {
        let (of, bytes) = self.arriving.as_mut()?;
        if *of != from {
            return None;
        }
        let end = offset as usize + part.len();
        if total as usize > INFO_LEN_MAX || offset as usize != bytes.len() || end > total as usize {
            self.arriving = None;
            return None;
        }
        bytes.extend_from_slice(part);
        if bytes.len() < total as usize {
            return None;
        }
        self.arriving.take().map(|(_, bytes)| bytes)
    }

    /// The info is here and was good.
    pub(super) fn settle(&mut self) {
        self.is_done = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);

    #[test]
    fn one_peer_is_asked_at_a_time_and_none_twice() {
        let mut hints = Hints::default();
        assert_eq!(hints.ask(&[]), None);
        assert_eq!(hints.ask(&[A, B]), Some(A));
        assert_eq!(hints.ask(&[A, B]), None);
        assert_eq!(hints.ask(&[B]), Some(B), "the first one left");
        assert_eq!(hints.on_part(A, (2, 0), b"no"), None);
        assert_eq!(hints.on_part(B, (4, 0), b"ye"), None);
        assert_eq!(hints.on_part(B, (4, 2), b"es"), Some(b"yees".to_vec()));
        assert_eq!(hints.ask(&[A, B]), None, "everybody was asked");
        hints.settle();
        assert_eq!(hints.ask(&[SessionId(3)]), None);
    }

    #[test]
    fn parts_out_of_order_or_beyond_the_end_cost_the_answer_alone() {
        for (total, offset) in [(4, 1), (1, 0), (u32::MAX, 0)] {
            let mut hints = Hints::default();
            hints.ask(&[A]);
            assert_eq!(hints.on_part(A, (total, offset), b"xy"), None);
            assert_eq!(hints.ask(&[A, B]), Some(B));
        }
    }
}
