//! What happened, told in sentences: `peer 12D3..k7 lost; 9 pieces moved to 3 peers in 40 ms`.
//!
//! Pure but for the little it remembers: the names it gave, and a loss whose pieces may still be on the move, so that
//! both become one sentence. Called by `cli/output`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::header::stall;
use super::lanes::{peers, reached};
use super::names::Names;
use super::numbers::{bytes, contents, counted, millis};
use super::style::Tone;
use crate::content::{PeerId, escape_hostile};
use crate::node::{Cause, NodeEvent};

/// How long a loss waits for the account of its pieces. Less tells it in two sentences more often, more tells it late.
const LOSS_WAITS: Duration = Duration::from_millis(500);
/// How long an account that came first is remembered for its loss.
const ACCOUNT_LASTS: Duration = Duration::from_secs(3);
/// Losses that wait at once, and accounts remembered; beyond, the oldest is told or forgotten.
const LOSSES_MAX: usize = 64;

/// Sentences about single files in a row, and for how long further ones are only counted then.
const FILES_TOLD_MAX: u64 = 10;
const FILES_COUNTED_FOR: Duration = Duration::from_secs(3);

/// Who wants to hear a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Only who asked for more.
    Detail,
    /// Who has no live view, which shows it anyway.
    Routine,
    /// Everybody: a user would retell it.
    Retold,
}

/// Something to tell, without a full stop; safe to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentence {
    /// The words.
    pub text: String,
    /// How to colour them.
    pub tone: Tone,
    /// Who wants to hear it.
    pub weight: Weight,
}

/// A lost peer, not told yet.
#[derive(Debug)]
struct Loss {
    peer: PeerId,
    reason: String,
    since: Instant,
}

/// Turns events into sentences.
#[derive(Debug, Default)]
pub struct Narrator {
    names: Names,
    losses: VecDeque<Loss>,
    /// Peers whose loss was told with the account of their pieces, and when.
    accounted: VecDeque<(PeerId, Instant)>,
    files: Files,
}

/// Sentences about single files: when thousands of them are away at once, each is one too many.
#[derive(Debug, Default)]
struct Files {
    /// Since when they are counted, how many came since, and how many of those were told.
    since: Option<Instant>,
    came: u64,
    told: u64,
}

impl Files {
    /// Whether one more is told; else it is counted.
    fn is_told(&mut self, now: Instant) -> bool {
        self.since.get_or_insert(now);
        self.came += 1;
        let is_told = self.told < FILES_TOLD_MAX;
        self.told += u64::from(is_told);
        is_told
    }

    /// How many were not told, once that is due.
    fn due(&mut self, now: Instant) -> Option<Sentence> {
        let since = self.since?;
        if now.duration_since(since) < FILES_COUNTED_FOR {
            return None;
        }
        let silent = self.came - self.told;
        *self = Self::default();
        (silent > 0).then(|| Sentence {
            text: format!("{silent} more such changes of files"),
            tone: Tone::Warning,
            weight: Weight::Retold,
        })
    }
}

impl Narrator {
    /// The names it gives to peers, for the view to give the same.
    pub fn names(&mut self) -> &mut Names {
        &mut self.names
    }

    /// What to say about `event`; nothing, or nothing yet, about many. Follow up with [`Self::due`].
    pub fn tell(&mut self, now: Instant, event: &NodeEvent) -> Vec<Sentence> {
        let (weight, tone, text) = match event {
            NodeEvent::Listening { address } => (
                Weight::Detail,
                Tone::Faint,
                format!("listening on {address}"),
            ),
            NodeEvent::Described {
                name,
                bytes: size,
                files,
                folders,
                links,
            } => (
                Weight::Retold,
                Tone::Plain,
                format!(
                    "{}: {} in {}",
                    escape_hostile(name),
                    bytes(*size),
                    contents(*files, *folders, *links)
                ),
            ),
            NodeEvent::PeerConnected { peer, address, via } => (
                Weight::Routine,
                Tone::Plain,
                format!(
                    "peer {} connected, {}",
                    self.names.of(peer),
                    reached(*via, &address.to_string())
                ),
            ),
            NodeEvent::PeerLost { peer, reason, .. } => return self.on_lost(now, peer, reason),
            NodeEvent::Rerouted {
                peer,
                pieces,
                to,
                after,
                cause,
            } => {
                if *cause == Cause::Closed {
                    self.on_account(now, *peer);
                }
                let text = format!(
                    "peer {} {}; {} moved to {} in {}",
                    self.names.of(peer),
                    fault(*cause),
                    counted((*pieces).into(), "piece"),
                    peers(to.len()),
                    millis(*after)
                );
                (Weight::Retold, Tone::Warning, text)
            }
            NodeEvent::Stalled {
                cause,
                missing,
                why,
            } => (
                Weight::Retold,
                Tone::Warning,
                format!("nothing arrives: {}", stall(*cause, *missing, why.as_ref())),
            ),
            NodeEvent::PieceStored { .. } => return Vec::new(),
            NodeEvent::FileComplete { path } => (
                Weight::Detail,
                Tone::Plain,
                format!("complete: {}", escape_hostile(path)),
            ),
            NodeEvent::Withdrawn {
                reason,
                is_away,
                left,
                ..
            } => return self.on_withdrawn(now, reason, *is_away, *left),
            NodeEvent::Offered {
                path, pieces, of, ..
            } => return self.on_offered(now, path, *pieces, *of),
            NodeEvent::SourceAway { what } => (
                Weight::Routine,
                Tone::Warning,
                format!("{}; it is looked for again", escape_hostile(what)),
            ),
            NodeEvent::PeerCompleted { peer } => (
                Weight::Routine,
                Tone::Good,
                format!("peer {} has everything", self.names.of(peer)),
            ),
        };
        vec![Sentence { text, tone, weight }]
    }

    fn on_withdrawn(
        &mut self,
        now: Instant,
        reason: &str,
        is_away: bool,
        left: u32,
    ) -> Vec<Sentence> {
        let bad = |text: String| Sentence {
            text,
            tone: Tone::Bad,
            weight: Weight::Retold,
        };
        let mut sentences = Vec::new();
        if self.files.is_told(now) {
            let what = if is_away {
                "its pieces are withdrawn and it is looked for again"
            } else {
                "its pieces are withdrawn while it is read again"
            };
            sentences.push(bad(format!("{}; {what}", escape_hostile(reason))));
        }
        if left == 0 {
            sentences.push(bad("nothing is left to offer".to_owned()));
        }
        sentences
    }

    fn on_offered(&mut self, now: Instant, path: &str, pieces: u32, of: u32) -> Vec<Sentence> {
        if !self.files.is_told(now) {
            return Vec::new();
        }
        let path = escape_hostile(path);
        let (tone, text) = match pieces {
            0 => (
                Tone::Bad,
                format!("`{path}` does not match the link any more: seed it again for a new link"),
            ),
            all if all == of => (
                Tone::Good,
                format!("`{path}` is as in the link: its pieces are offered again"),
            ),
            _ => (
                Tone::Warning,
                format!(
                    "`{path}` still has {pieces} of its {} as in the link: they are offered again",
                    counted(of.into(), "piece")
                ),
            ),
        };
        let weight = Weight::Retold;
        vec![Sentence { text, tone, weight }]
    }

    /// A loss waits for its account, unless that came first.
    fn on_lost(&mut self, now: Instant, peer: &PeerId, reason: &str) -> Vec<Sentence> {
        self.accounted
            .retain(|(_, at)| now.duration_since(*at) < ACCOUNT_LASTS);
        if let Some(at) = self.accounted.iter().position(|(of, _)| of == peer) {
            self.accounted.remove(at);
            return Vec::new();
        }
        self.losses.push_back(Loss {
            peer: *peer,
            reason: reason.to_owned(),
            since: now,
        });
        if self.losses.len() > LOSSES_MAX {
            self.tell_oldest_loss().into_iter().collect()
        } else {
            Vec::new()
        }
    }

    /// An account tells the loss too: one that waits, or else the one to come.
    fn on_account(&mut self, now: Instant, peer: PeerId) {
        let waiting = self.losses.len();
        self.losses.retain(|loss| loss.peer != peer);
        if self.losses.len() == waiting {
            self.accounted.push_back((peer, now));
            if self.accounted.len() > LOSSES_MAX {
                self.accounted.pop_front();
            }
        }
    }

    /// Losses that have waited long enough.
    pub fn due(&mut self, now: Instant) -> Vec<Sentence> {
        let mut sentences: Vec<_> = self.files.due(now).into_iter().collect();
        while self
            .losses
            .front()
            .is_some_and(|loss| now.duration_since(loss.since) >= LOSS_WAITS)
        {
            sentences.extend(self.tell_oldest_loss());
        }
        sentences
    }

    fn tell_oldest_loss(&mut self) -> Option<Sentence> {
        let Loss { peer, reason, .. } = self.losses.pop_front()?;
        Some(Sentence {
            text: format!(
                "peer {} lost: {}",
                self.names.of(&peer),
                escape_hostile(&reason)
            ),
            tone: Tone::Warning,
            weight: Weight::Retold,
        })
    }
}

/// What a peer did wrong, after its name.
fn fault(cause: Cause) -> &'static str {
    match cause {
        Cause::Closed => "lost",
        Cause::Silent => "silent",
        Cause::Slow => "slow",
        Cause::Corrupt => "sent a bad piece",
        Cause::Rejected => "refused",
    }
}

#[cfg(test)]
mod tests {
    use super::super::names::tests::peer;
    use super::*;
    use crate::node::{StallCause, Via};

    fn lost(number: u8, reason: &str) -> NodeEvent {
        NodeEvent::PeerLost {
            peer: peer(number),
            address: "/ip4/10.0.0.1/tcp/1".parse().expect("an address"),
            via: Via::Lan,
            reason: reason.into(),
        }
    }

    fn rerouted(number: u8, pieces: u32, to: &[u8], cause: Cause) -> NodeEvent {
        NodeEvent::Rerouted {
            peer: peer(number),
            pieces,
            to: to.iter().map(|number| peer(*number)).collect(),
            after: Duration::from_micros(39_500),
            cause,
        }
    }

    fn texts(sentences: Vec<Sentence>) -> Vec<String> {
        sentences
            .into_iter()
            .map(|sentence| sentence.text)
            .collect()
    }

    #[test]
    fn a_loss_and_its_moved_pieces_are_one_sentence() {
        let mut narrator = Narrator::default();
        let name = narrator.names().of(&peer(1));
        let start = Instant::now();
        assert_eq!(texts(narrator.tell(start, &lost(1, "reset"))), [""; 0]);
        let event = rerouted(1, 9, &[2, 3, 4], Cause::Closed);
        let told = texts(narrator.tell(start, &event));
        assert_eq!(
            told,
            [format!(
                "peer {name} lost; 9 pieces moved to 3 peers in 40 ms"
            )]
        );
        assert_eq!(texts(narrator.due(start + LOSS_WAITS)), [""; 0]);
    }

    #[test]
    fn an_account_that_comes_before_its_loss_is_the_one_sentence() {
        let mut narrator = Narrator::default();
        let start = Instant::now();
        let event = rerouted(1, 9, &[2, 3, 4], Cause::Closed);
        assert_eq!(narrator.tell(start, &event).len(), 1);
        assert_eq!(texts(narrator.tell(start, &lost(1, "reset"))), [""; 0]);
        assert_eq!(texts(narrator.due(start + LOSS_WAITS)), [""; 0]);
        // The next loss of the same peer is another matter.
        narrator.tell(start, &lost(1, "reset"));
        assert_eq!(narrator.due(start + LOSS_WAITS).len(), 1);
    }

    #[test]
    fn a_loss_that_moves_nothing_is_told_with_its_reason_after_a_moment() {
        let mut narrator = Narrator::default();
        let name = narrator.names().of(&peer(1));
        let start = Instant::now();
        narrator.tell(start, &lost(1, "reset by \x1bpeer"));
        assert_eq!(texts(narrator.due(start)), [""; 0]);
        let told = texts(narrator.due(start + LOSS_WAITS));
        assert_eq!(told, [format!("peer {name} lost: reset by \\u{{1b}}peer")]);
        assert_eq!(texts(narrator.due(start + 2 * LOSS_WAITS)), [""; 0]);
    }

    #[test]
    fn a_silent_peer_that_is_lost_later_is_told_twice() {
        let mut narrator = Narrator::default();
        let name = narrator.names().of(&peer(1));
        let start = Instant::now();
        let told = texts(narrator.tell(start, &rerouted(1, 1, &[2], Cause::Silent)));
        assert_eq!(
            told,
            [format!(
                "peer {name} silent; 1 piece moved to 1 peer in 40 ms"
            )]
        );
        narrator.tell(start, &lost(1, "timeout"));
        assert_eq!(narrator.due(start + LOSS_WAITS).len(), 1);
    }

    #[test]
    fn losses_that_wait_are_bounded() {
        let mut narrator = Narrator::default();
        let start = Instant::now();
        let told: usize = (0..200)
            .map(|number| narrator.tell(start, &lost(number, "gone")).len())
            .sum();
        assert_eq!(told, 200 - LOSSES_MAX);
    }

    #[test]
    fn each_fault_and_each_stall_has_its_words() {
        let mut narrator = Narrator::default();
        let now = Instant::now();
        for (cause, words) in [
            (Cause::Slow, " slow; "),
            (Cause::Corrupt, " sent a bad piece; "),
            (Cause::Rejected, " refused; "),
        ] {
            let told = texts(narrator.tell(now, &rerouted(1, 2, &[2], cause)));
            assert!(told[0].contains(words), "{told:?}");
        }
        for (cause, words) in [
            (StallCause::NoPeers, "nothing arrives: no peer known"),
            (
                StallCause::NoHolder,
                "nothing arrives: no holder of 3 pieces",
            ),
            (
                StallCause::Unreachable,
                "nothing arrives: no peer reachable",
            ),
        ] {
            let event = NodeEvent::Stalled {
                cause,
                missing: 3,
                why: None,
            };
            assert_eq!(texts(narrator.tell(now, &event)), [words]);
        }
    }
}
