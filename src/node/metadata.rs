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
    Digest, FileIndex, HashesBuilder, LayerRange, MANIFEST_LEN_MAX, Manifest, PieceHashes, ShareId,
};
use crate::wire::{HASHES_PER_RANGE_MAX, ShareMessage};

/// An answer that made no progress for this long is asked of somebody else.
const LATE: Duration = Duration::from_secs(2);

/// Ranges asked of one peer at once.
const RANGES_MAX: usize = 8;

/// Bytes of a proof at most: one hash for each level.
const PROOF_LEN_MAX: u64 = 32 * 32;

/// The answer broke a rule: the fault of who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bad(pub(super) String);

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
    heard: Instant,
    bytes: Vec<u8>,
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
        let is_late =
            |session: SessionId, since: Instant| now >= since + LATE || !sources.contains(&session);
        match &mut self.stage {
            Stage::Manifest(asked) => {
                if let Some(ask) = asked.take_if(|ask| is_late(ask.from, ask.heard)) {
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
    /// [`Bad`] when it is too large, out of order, or not the manifest of the share.
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
        let manifest = match Manifest::decode(&ask.bytes) {
            Ok(manifest) => manifest,
            Err(error) => {
                return Err(self.bad(session, &format!("a manifest that breaks a rule: {error}")));
            }
        };
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
        Bad(reason.to_owned())
    }

    /// Name and length of the share, once the manifest is here.
    pub(super) fn manifest(&self) -> Option<&Manifest> {
        match &self.stage {
            Stage::Hashes { manifest, .. } => Some(manifest),
            Stage::Manifest(_) | Stage::Done => None,
        }
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
