//! Getting manifest and piece hashes from peers, before there is anything for the engine to decide.
//!
//! Asks one peer for the manifest and several for ranges of hashes, asks again elsewhere when an answer
//! is late, and verifies every answer: the manifest against the share id, hashes against the roots in it.
//! Knows no sessions beyond their ids and sends nothing itself. Called by the actor of a share that is
//! fetched.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::share::SessionId;
use crate::content::{
    Digest, FileIndex, HashesBuilder, LayerRange, MANIFEST_LEN_MAX, Manifest, ManifestError,
    PieceHashes, ShareId,
};
use crate::wire::{HASHES_PER_RANGE_MAX, ShareMessage};

/// An answer that made no progress for this long is asked of somebody else.
const LATE: Duration = Duration::from_secs(2);

/// A manifest that comes slower than this is asked of somebody else, if there is somebody: a few bytes now and then are
/// progress too, and would hold up the fetch for ever.
const MANIFEST_BYTES_PER_SEC_MIN: u64 = 64 * 1024;

/// How long it may be slower at first. Each answer that was late doubles it, so that a slow network gets there too.
const SLOW_MAX: Duration = Duration::from_secs(5);

/// Doublings of [`SLOW_MAX`] at most.
const DOUBLINGS_MAX: u32 = 8;

/// Ranges asked of one peer at once.
const RANGES_MAX: usize = 8;

/// Bytes of a proof at most: one hash for each level.
const PROOF_LEN_MAX: u64 = 32 * 32;

/// Why an answer was not taken.
#[derive(Debug)]
pub(super) enum Bad {
    /// It is not what was asked for: the fault of who sent it.
    Answer(String),
    /// It is the manifest of the share, which breaks a rule: everybody has the same, and nobody can fetch it.
    Share(ManifestError),
}

/// Something to ask for, with the bytes that may arrive for it.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) session: SessionId,
    pub(super) message: ShareMessage,
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct ManifestAsk {
    from: SessionId,
    began: Instant,
    heard: Instant,
    bytes: Vec<u8>,
}

impl ManifestAsk {
    fn is_slow(&self, now: Instant, patience: Duration) -> bool {
        let since = now.duration_since(self.began);
        since >= patience
            && (self.bytes.len() as u64) < since.as_secs() * MANIFEST_BYTES_PER_SEC_MIN
    }
}

#[derive(Debug)]
enum Stage {
    Manifest(Option<ManifestAsk>),
    Hashes {
        manifest: Box<Manifest>,
        builder: HashesBuilder,
        asked: BTreeMap<(u32, u32), (SessionId, LayerRange, Instant)>,
    },
    Done,
}

/// What is known of a share's manifest and hashes so far.
#[derive(Debug)]
pub(super) struct Metadata {
    share: ShareId,
    stage: Stage,
    /// Who gave a bad or late answer is asked last.
    late: BTreeMap<SessionId, u32>,
}

impl Metadata {
    pub(super) fn new(share: ShareId) -> Self {
        Self {
            share,
            stage: Stage::Manifest(None),
            late: BTreeMap::new(),
        }
    }

    /// What to ask now of the peers that have the share ready.
    pub(super) fn asks(&mut self, now: Instant, sources: &[SessionId]) -> Vec<Ask> {
        self.drop_late(now, sources);
        let mut order = sources.to_vec();
        order.sort_by_key(|session| (self.late.get(session).copied().unwrap_or(0), *session));
        match &mut self.stage {
            Stage::Manifest(asked) => {
                let Some(from) = order.first().copied().filter(|_| asked.is_none()) else {
                    return Vec::new();
                };
                *asked = Some(ManifestAsk {
                    from,
                    began: now,
                    heard: now,
                    bytes: Vec::new(),
                });
                vec![Ask {
                    session: from,
                    message: ShareMessage::GetManifest,
                    bytes: MANIFEST_LEN_MAX as u64,
                }]
            }
            Stage::Hashes { builder, asked, .. } => {
                let mut asks = Vec::new();
                for session in order {
                    while asked.values().filter(|(of, ..)| *of == session).count() < RANGES_MAX {
                        let skip = |range: LayerRange| {
                            asked.contains_key(&(range.file.get(), range.first))
                        };
                        let Some(range) = builder.next_missing(HASHES_PER_RANGE_MAX, &skip) else {
                            return asks;
                        };
                        let LayerRange { file, first, count } = range;
                        asked.insert((file.get(), first), (session, range, now));
                        let message = ShareMessage::GetHashes {
                            file: file.get(),
                            first,
                            count,
                        };
                        asks.push(Ask {
                            session,
                            message,
                            bytes: u64::from(count) * 32 + PROOF_LEN_MAX,
                        });
                    }
                }
                asks
            }
            Stage::Done => Vec::new(),
        }
    }

    fn drop_late(&mut self, now: Instant, sources: &[SessionId]) {
        let mut late = Vec::new();
        let doublings = self.late.values().sum::<u32>().min(DOUBLINGS_MAX);
        let patience = SLOW_MAX * 2_u32.pow(doublings);
        let is_late =
            |session: SessionId, since: Instant| now >= since + LATE || !sources.contains(&session);
        match &mut self.stage {
            Stage::Manifest(asked) => {
                if let Some(ask) = asked.take_if(|ask| {
                    let is_slow = sources.len() > 1 && ask.is_slow(now, patience);
                    is_slow || is_late(ask.from, ask.heard)
                }) {
                    late.push(ask.from);
                }
            }
            Stage::Hashes { asked, .. } => asked.retain(|_, (session, _, since)| {
                let gone = is_late(*session, *since);
                if gone {
                    late.push(*session);
                }
                !gone
            }),
            Stage::Done => {}
        }
        for session in late {
            *self.late.entry(session).or_default() += 1;
        }
    }

    /// When [`Self::asks`] is worth calling again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Manifest(asked) => asked.as_ref().map(|ask| ask.heard + LATE),
            Stage::Hashes { asked, .. } => asked.values().map(|(_, _, since)| *since + LATE).min(),
            Stage::Done => None,
        }
    }

    /// Takes part of a manifest.
    ///
    /// # Errors
    /// [`Bad`] when it is too large, out of order, not the manifest of the share, or one that no share may have.
    pub(super) fn on_manifest(
        &mut self,
        now: Instant,
        session: SessionId,
        (total, offset): (u32, u32),
        bytes: &[u8],
    ) -> Result<(), Bad> {
        let Stage::Manifest(Some(ask)) = &mut self.stage else {
            return Ok(());
        };
        if ask.from != session {
            return Ok(());
        }
        let total = total as usize;
        if total > MANIFEST_LEN_MAX
            || offset as usize != ask.bytes.len()
            || offset as usize + bytes.len() > total
        {
            return Err(self.bad(session, "a manifest out of order"));
        }
        ask.bytes.extend_from_slice(bytes);
        ask.heard = now;
        if ask.bytes.len() < total {
            return Ok(());
        }
        if Digest::of(&ask.bytes) != *self.share.digest() {
            return Err(self.bad(session, "a manifest that is not of this share"));
        }
        let manifest = Manifest::decode(&ask.bytes).map_err(Bad::Share)?;
        let builder = HashesBuilder::new(&manifest);
        self.stage = Stage::Hashes {
            manifest: Box::new(manifest),
            builder,
            asked: BTreeMap::new(),
        };
        Ok(())
    }

    /// Takes an answer to `GetHashes`: hashes of the range, then the proof.
    ///
    /// # Errors
    /// [`Bad`] when the proof does not hold.
    pub(super) fn on_hashes(
        &mut self,
        session: SessionId,
        (file, first): (u32, u32),
        digests: &[Digest],
    ) -> Result<(), Bad> {
        let Stage::Hashes {
            manifest,
            builder,
            asked,
        } = &mut self.stage
        else {
            return Ok(());
        };
        let Some((of, range, _)) = asked.get(&(file, first)).copied() else {
            return Ok(());
        };
        if of != session {
            return Ok(());
        }
        asked.remove(&(file, first));
        let layer_len = manifest.geometry().file_pieces(FileIndex::new(file)).len() as u32;
        let real = range.count.min(layer_len.saturating_sub(first)) as usize;
        let fits = digests.len() >= real;
        let (hashes, proof) = digests.split_at(if fits { real } else { 0 });
        builder
            .insert(range, hashes, proof)
            .map_err(|error| self.bad(session, &error.to_string()))
    }

    fn bad(&mut self, session: SessionId, reason: &str) -> Bad {
        if let Stage::Manifest(asked) = &mut self.stage {
            *asked = None;
        }
        *self.late.entry(session).or_default() += 100;
        Bad::Answer(reason.to_owned())
    }

    /// Name and length of the share, once the manifest is here.
    pub(super) fn manifest(&self) -> Option<&Manifest> {
        match &self.stage {
            Stage::Hashes { manifest, .. } => Some(manifest),
            Stage::Manifest(_) | Stage::Done => None,
        }
    }

    /// Both are known from elsewhere: nobody is asked any more, and what still comes is not taken.
    pub(super) fn settle(&mut self) {
        self.stage = Stage::Done;
    }

    /// Manifest and hashes, once, when both are complete.
    pub(super) fn take(&mut self) -> Option<(Manifest, PieceHashes)> {
        if !matches!(&self.stage, Stage::Hashes { builder, .. } if builder.is_complete()) {
            return None;
        }
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Hashes {
                manifest, builder, ..
            } => builder.finish().map(|hashes| (*manifest, hashes)),
            Stage::Manifest(_) | Stage::Done => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ask_of(asks: &[Ask]) -> Option<SessionId> {
        let [ask] = asks else { return None };
        assert_eq!(ask.message, ShareMessage::GetManifest);
        Some(ask.session)
    }

    #[test]
    fn a_manifest_that_comes_byte_by_byte_is_asked_of_somebody_else() {
        let mut metadata = Metadata::new(ShareId::from_digest(Digest::of(b"some share")));
        let sources = [SessionId(1), SessionId(2)];
        let start = Instant::now();
        let first = ask_of(&metadata.asks(start, &sources)).unwrap();
        let mut turned_at = None;
        for second in 1..60 {
            let now = start + Duration::from_secs(second);
            let place = (1_000_000, second as u32 - 1);
            metadata.on_manifest(now, first, place, b"x").unwrap();
            if let Some(next) = ask_of(&metadata.asks(now, &sources)) {
                assert_ne!(next, first);
                turned_at = Some(now - start);
                break;
            }
        }
        assert_eq!(turned_at, Some(SLOW_MAX));
    }

    #[test]
    fn the_only_source_may_be_as_slow_as_it_is() {
        let mut metadata = Metadata::new(ShareId::from_digest(Digest::of(b"some share")));
        let sources = [SessionId(1)];
        let start = Instant::now();
        let only = ask_of(&metadata.asks(start, &sources)).unwrap();
        for second in 1..60 {
            let now = start + Duration::from_secs(second);
            let place = (1_000_000, second as u32 - 1);
            metadata.on_manifest(now, only, place, b"x").unwrap();
            assert!(metadata.asks(now, &sources).is_empty());
        }
    }

    #[test]
    fn what_is_known_from_elsewhere_is_not_asked_for_and_not_taken() {
        let bytes = b"\x01\x01\x01n\xfc\x00\x00\x01\x00\x00";
        let mut metadata = Metadata::new(ShareId::from_digest(Digest::of(bytes)));
        let (now, sources) = (Instant::now(), [SessionId(1)]);
        assert_eq!(metadata.asks(now, &sources).len(), 1);
        metadata.settle();
        assert!(metadata.asks(now, &sources).is_empty());
        let place = (bytes.len() as u32, 0);
        metadata.on_manifest(now, sources[0], place, bytes).unwrap();
        assert!(metadata.take().is_none());
    }

    #[test]
    fn the_right_bytes_that_break_a_rule_end_the_share_and_wrong_ones_the_peer() {
        // Version, folder, name of one byte, pieces of 64 KiB, one entry: an empty folder named `..`.
        let bytes = b"\x01\x01\x01n\xfc\x00\x00\x01\x00\x01\x02..\x02";
        let mut metadata = Metadata::new(ShareId::from_digest(Digest::of(bytes)));
        let now = Instant::now();
        let place = (bytes.len() as u32, 0);
        metadata.asks(now, &[SessionId(1)]);
        let mut wrong = *bytes;
        wrong[3] = b'm';
        let answer = metadata.on_manifest(now, SessionId(1), place, &wrong);
        assert!(matches!(answer, Err(Bad::Answer(_))), "{answer:?}");
        metadata.asks(now, &[SessionId(1)]);
        let answer = metadata.on_manifest(now, SessionId(1), place, bytes);
        let Err(Bad::Share(error)) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(error.to_string(), "dot element in path `..`");
    }
}
