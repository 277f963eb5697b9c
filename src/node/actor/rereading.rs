//! Files that may have changed under us: withdrawn at once, read again beside everything else, offered again where they match.
//!
//! Decides when each is read again, and looks now and then at those that nobody asks for. What matches is the store's to say,
//! on a blocking thread, one file at a time. Peers hear why pieces are gone; the user hears of each change once.
//!
//! | file | found changed | is due | read again | changed meanwhile | cannot be opened |
//! |---|---|---|---|---|---|
//! | Settled | Queued, told | – | – | – | – |
//! | Queued | Queued | Reading | – | – | – |
//! | Reading | Queued | – | Settled, told | Queued | Away |
//! | Away | Queued | Away | Settled, told | Queued | Away |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Actor;
use crate::content::{FileIndex, PieceIndex};
use crate::engine::Input;
use crate::node::FetchError;
use crate::node::share::{ReadyShare, ShareInput};
use crate::node::status::{NodeEvent, Phase, StallCause, Whose, Withheld, WithheldWhy};
use crate::storage::{Reread, StorageError};
use crate::wire::{ShareMessage, SourceState};

/// First and longest pause between two looks for what is away. Less costs more while a disk is away for long, more delays
/// its return.
const AWAY_MIN: Duration = Duration::from_millis(250);
const AWAY_MAX: Duration = Duration::from_secs(4);

/// Pause before a file that changed while it was read is read once more; doubles each time, up to the longest.
const AGAIN_MIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(4);

/// A file that was left alone for this long begins with the shortest pause again.
const CALM_AFTER: Duration = Duration::from_secs(10);

/// Files read again, or looked for, in one job.
const JOB_FILES_MAX: usize = 64;

/// How often files are looked at that nobody asks for, and how many at a time: some ten microseconds of work each second.
const LOOK_EVERY: Duration = Duration::from_secs(3);
const LOOK_FILES: u32 = 64;

/// The same for all other files once one of them was found changed: it is seldom alone.
const LOOK_SOON: Duration = Duration::from_millis(50);
const LOOK_SOON_FILES: u32 = 1_024;

/// Pieces that match are offered in runs, at least this often.
const OFFER_EVERY: Duration = Duration::from_millis(50);

/// A piece of a file being fetched that cannot be read is tried again after this long.
const PIECE_RETRY: Duration = Duration::from_secs(1);

/// Files of which peers are told why they are not offered.
const FILES_TOLD_MAX: usize = 32;

/// Between two words to the user about why nothing arrives.
const STALL_TOLD_EVERY: Duration = Duration::from_secs(3);

/// Where a file stands that was found changed at least once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// To be read again at this time.
    Queued { at: Instant },
    /// Being read again.
    Reading,
    /// It cannot be opened.
    Away,
    /// It was read: so many pieces match.
    Settled { intact: u32 },
}

#[derive(Debug)]
struct Doubtful {
    /// How often the store had found it changed when we dealt with that last.
    changes: u64,
    stage: Stage,
    /// How often in a row it changed while it was read.
    interrupted: u32,
    /// How long its last reading took, and when that ended.
    last_read: Option<(Duration, Instant)>,
    /// What the user was told.
    reason: String,
}

impl Doubtful {
    /// How long to wait before it is read: no longer than it was read for, unless it changes all the time.
    fn pause(&self, now: Instant) -> Duration {
        if self.interrupted > 0 {
            let doubled = AGAIN_MIN * 2_u32.saturating_pow(self.interrupted - 1).min(64);
            return doubled.min(AGAIN_MAX);
        }
        match self.last_read {
            Some((took, ended)) if now.duration_since(ended) < CALM_AFTER => took.min(AGAIN_MAX),
            _ => Duration::ZERO,
        }
    }
}

/// Files that were found changed, and when the others are looked at.
#[derive(Debug)]
pub(in crate::node) struct Rereading {
    files: BTreeMap<FileIndex, Doubtful>,
    away: BTreeSet<FileIndex>,
    /// Whether a job reads, and whether one looks.
    is_reading: bool,
    is_looking: bool,
    away_at: Instant,
    away_pause: Duration,
    /// The last file that was looked for.
    away_last: Option<FileIndex>,
    look_at: Instant,
    /// The next file to look at.
    look_next: u32,
    /// Files still to be looked at soon.
    look_soon: u32,
    /// Files of which peers know that they are withheld.
    told: BTreeMap<FileIndex, SourceState>,
    /// Pieces of files being fetched that could not be read.
    pieces: Vec<(Instant, PieceIndex)>,
    /// What the user was told of a stall, and when.
    pub(super) stall_told: (Option<Withheld>, Instant),
}

impl Rereading {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            files: BTreeMap::new(),
            away: BTreeSet::new(),
            is_reading: false,
            is_looking: false,
            away_at: now,
            away_pause: AWAY_MIN,
            away_last: None,
            look_at: now + LOOK_EVERY,
            look_next: 0,
            look_soon: 0,
            told: BTreeMap::new(),
            pieces: Vec::new(),
            stall_told: (None, now),
        }
    }

    /// Whether `file` was found changed and not all of it is known to match.
    pub(super) fn withholds(&self, file: FileIndex) -> bool {
        let is_settled = |known: &Doubtful| matches!(known.stage, Stage::Settled { .. });
        self.files
            .get(&file)
            .is_some_and(|known| !is_settled(known))
            || self.told.contains_key(&file)
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let queued = |known: &Doubtful| match known.stage {
            Stage::Queued { at } => Some(at),
            _ => None,
        };
        let reading = self.files.values().filter_map(queued).min();
        let reading = reading.filter(|_| !self.is_reading);
        let away = (!self.away.is_empty() && !self.is_reading).then_some(self.away_at);
        let looking = (!self.is_looking).then_some(self.look_at);
        let piece = self.pieces.iter().map(|(at, _)| *at).min();
        [reading, away, looking, piece].into_iter().flatten().min()
    }

    /// The files to be read now, or looked for.
    fn due(&mut self, now: Instant) -> Vec<FileIndex> {
        let is_due = |known: &Doubtful| matches!(known.stage, Stage::Queued { at } if at <= now);
        let queued = self.files.iter().filter(|(_, known)| is_due(known));
        let due: Vec<FileIndex> = queued.map(|(file, _)| *file).take(JOB_FILES_MAX).collect();
        if !due.is_empty() || self.away.is_empty() || now < self.away_at {
            return due;
        }
        let after = self.away_last.take();
        let is_later = |file: &&FileIndex| after.is_none_or(|last| **file > last);
        let later = self.away.iter().filter(is_later);
        let due: Vec<FileIndex> = later.copied().take(JOB_FILES_MAX).collect();
        // The next round begins with the first.
        self.away_last = due.last().copied();
        self.away_at = now + self.away_pause;
        self.away_pause = (self.away_pause * 2).min(AWAY_MAX);
        if due.is_empty() {
            self.away.iter().copied().take(JOB_FILES_MAX).collect()
        } else {
            due
        }
    }

    fn begin(&mut self, files: &[FileIndex]) {
        self.is_reading = true;
        for file in files {
            if let Some(known) = self.files.get_mut(file)
                && known.stage != Stage::Away
            {
                known.stage = Stage::Reading;
            }
        }
    }

    fn is_away(&mut self, now: Instant, file: FileIndex) {
        if self.away.insert(file) {
            self.away_pause = AWAY_MIN;
            self.away_at = self.away_at.min(now + AWAY_MIN).max(now);
        }
    }
}

impl Actor {
    // -- time -------------------------------------------------------------------------------------

    pub(super) fn reread(&mut self, now: Instant) {
        if self.transfer.is_none() {
            return;
        }
        let due = |(at, _): &mut (Instant, PieceIndex)| *at <= now;
        let pieces: Vec<_> = self.rereading.pieces.extract_if(.., due).collect();
        for (_, first) in pieces {
            self.engine(Input::PiecesFound { first, count: 1 });
        }
        if !self.rereading.is_reading {
            let files = self.rereading.due(now);
            if !files.is_empty() {
                self.rereading.begin(&files);
                self.read_files(files);
            }
        }
        if !self.rereading.is_looking && now >= self.rereading.look_at {
            self.look_at_files();
        }
        self.end_if_only_edited_files_are_left();
    }

    /// Reads files again on a blocking thread; the answers come as [`ShareInput::Found`] and [`ShareInput::Reread`].
    fn read_files(&self, files: Vec<FileIndex>) {
        let (ready, inputs) = (Arc::clone(&self.share.ready), self.share.inputs.clone());
        let stop = self.stop.clone();
        self.hub.shop.tasks.spawn_blocking(move || {
            let Some(ready) = ready.get() else { return };
            for file in files {
                if stop.is_cancelled() {
                    return;
                }
                let began = Instant::now();
                let mut offered_at = began;
                let mut run: Option<(PieceIndex, u32)> = None;
                let offer = |run: &mut Option<(PieceIndex, u32)>| {
                    if let Some((first, count)) = run.take() {
                        // The share has left: nobody waits for this.
                        let _ = inputs.blocking_send(ShareInput::Found { file, first, count });
                    }
                };
                let outcome = ready.store.reread(file, &ready.hashes, &mut |piece| {
                    match &mut run {
                        Some((first, count)) if first.get() + *count == piece.get() => *count += 1,
                        other => {
                            offer(other);
                            *other = Some((piece, 1));
                        }
                    }
                    if offered_at.elapsed() >= OFFER_EVERY {
                        offered_at = Instant::now();
                        offer(&mut run);
                    }
                    !stop.is_cancelled()
                });
                offer(&mut run);
                let took = began.elapsed();
                let reread = ShareInput::Reread {
                    file,
                    outcome,
                    took,
                };
                let _ = inputs.blocking_send(reread);
            }
            let _ = inputs.blocking_send(ShareInput::RereadEnded);
        });
    }

    /// Looks at some files on a blocking thread; the answer comes as [`ShareInput::Looked`].
    fn look_at_files(&mut self) {
        let Some(ready) = self.share.ready.get() else {
            return;
        };
        let count = ready.geometry().file_count();
        let rereading = &mut self.rereading;
        let most = match rereading.look_soon {
            0 => LOOK_FILES,
            soon => soon.min(LOOK_SOON_FILES),
        };
        let looks = most.min(count);
        rereading.look_soon = rereading.look_soon.saturating_sub(looks);
        let first = if rereading.look_next < count {
            rereading.look_next
        } else {
            0
        };
        rereading.look_next = first + looks;
        rereading.is_looking = true;
        let (ready, inputs) = (Arc::clone(&self.share.ready), self.share.inputs.clone());
        self.hub.shop.tasks.spawn_blocking(move || {
            let Some(ready) = ready.get() else { return };
            let files = (first..first + looks).map(|file| FileIndex::new(file % count));
            let looked = files.filter_map(|file| Some((file, ready.store.look(file).err()?)));
            // The share has left: nobody waits for this.
            let _ = inputs.blocking_send(ShareInput::Looked(looked.collect()));
        });
    }

    // -- inputs -----------------------------------------------------------------------------------

    pub(super) fn on_looked(&mut self, changed: Vec<(FileIndex, StorageError)>) {
        let now = Instant::now();
        if !changed.is_empty()
            && self.rereading.look_soon == 0
            && let Some(ready) = self.share.ready.get()
        {
            self.rereading.look_soon = ready.geometry().file_count();
        }
        self.rereading.is_looking = false;
        self.rereading.look_at = match self.rereading.look_soon {
            0 => now + LOOK_EVERY,
            _ => now + LOOK_SOON,
        };
        for (file, error) in changed {
            self.on_doubted(file, &error);
        }
    }

    pub(super) fn on_unreadable(&mut self, piece: PieceIndex, error: StorageError) {
        let Some(ready) = self.share.ready.get() else {
            return;
        };
        let file = ready.geometry().locate(piece).file;
        if ready.store.changes(file) > 0 {
            return self.on_doubted(file, &error);
        }
        match error {
            // It was never held.
            StorageError::NotHeld { .. } => {}
            // What we are writing was cut off by somebody else.
            StorageError::SourceChanged { .. } => self.fail(FetchError::Storage(error)),
            _ => {
                tracing::warn!(%piece, %error, "a piece cannot be read");
                self.engine(Input::PiecesDoubted {
                    first: piece,
                    count: 1,
                });
                self.rereading
                    .pieces
                    .push((Instant::now() + PIECE_RETRY, piece));
            }
        }
    }

    /// The store found a file changed, or away: nothing of it is offered until it was read again.
    fn on_doubted(&mut self, file: FileIndex, error: &StorageError) {
        let now = Instant::now();
        let Some(ready) = self.share.ready.get() else {
            return;
        };
        let changes = ready.store.changes(file);
        let path = ready.manifest.file(file).path.as_str().to_owned();
        let known = self.rereading.files.get(&file);
        if known.is_some_and(|known| known.changes == changes) {
            // Several reads were under way when it changed.
            return;
        }
        let was_settled = known.is_none_or(|known| matches!(known.stage, Stage::Settled { .. }));
        let pieces = self.withdraw(file);
        let reason = error.to_string();
        let known = self.rereading.files.entry(file).or_insert(Doubtful {
            changes,
            stage: Stage::Queued { at: now },
            interrupted: 0,
            last_read: None,
            reason: String::new(),
        });
        known.changes = changes;
        let at = now + known.pause(now);
        known.stage = Stage::Queued { at };
        self.rereading.away.remove(&file);
        if was_settled {
            known.reason.clone_from(&reason);
            let left = self.offered();
            self.hub.tell(NodeEvent::Withdrawn {
                path,
                pieces,
                reason,
                is_away: is_away(error),
                left,
            });
            let state = if is_away(error) {
                SourceState::Away
            } else {
                SourceState::Rereading
            };
            self.tell_source(file, state);
        }
    }

    /// Takes what is held of a file back; gives how many pieces that were.
    fn withdraw(&mut self, file: FileIndex) -> u32 {
        let (Some(ready), Some(transfer)) = (self.share.ready.get(), &self.transfer) else {
            return 0;
        };
        let all = ready.geometry().file_pieces(file);
        let (first, count) = (PieceIndex::new(all.start), all.len() as u32);
        let held = all.map(PieceIndex::new);
        let held: Vec<_> = held
            .filter(|piece| transfer.held().contains(*piece))
            .collect();
        self.numbers.held_bytes -= self.bytes_of(ready, held.iter().copied());
        self.engine(Input::PiecesDoubted { first, count });
        held.len() as u32
    }

    /// Bytes of those of `pieces` that were chosen.
    fn bytes_of(&self, ready: &ReadyShare, pieces: impl Iterator<Item = PieceIndex>) -> u64 {
        let chosen = self.fetch.as_ref().and_then(|fetch| fetch.chosen.as_ref());
        let is_chosen =
            |piece: &PieceIndex| chosen.is_none_or(|chosen| chosen.pieces().contains(*piece));
        let geometry = ready.geometry();
        let lens = pieces
            .filter(is_chosen)
            .map(|piece| u64::from(geometry.len_of(piece)));
        lens.sum()
    }

    /// Pieces that others can have from us.
    fn offered(&self) -> u32 {
        let transfer = self.transfer.as_ref();
        transfer.map_or(0, |transfer| transfer.held().count())
    }

    /// Pieces of a file match, `first .. first + count`.
    pub(super) fn on_found(&mut self, file: FileIndex, first: PieceIndex, count: u32) {
        let (Some(ready), Some(transfer)) = (self.share.ready.get(), &self.transfer) else {
            return;
        };
        let changes = ready.store.changes(file);
        let is_valid = |known: &Doubtful| {
            known.changes == changes && !matches!(known.stage, Stage::Queued { .. })
        };
        if !self.rereading.files.get(&file).is_some_and(is_valid) {
            // It changed again.
            return;
        }
        let run = (first.get()..first.get() + count).map(PieceIndex::new);
        let new = run.filter(|piece| !transfer.held().contains(*piece));
        self.numbers.held_bytes += self.bytes_of(ready, new);
        self.last_verified = Instant::now();
        self.engine(Input::PiecesFound { first, count });
    }

    pub(super) fn on_reread(
        &mut self,
        file: FileIndex,
        outcome: Result<Reread, StorageError>,
        took: Duration,
    ) {
        let now = Instant::now();
        let Some(ready) = self.share.ready.get() else {
            return;
        };
        let changes = ready.store.changes(file);
        let of = ready.geometry().file_pieces(file).len() as u32;
        let path = ready.manifest.file(file).path.as_str().to_owned();
        let Some(known) = self.rereading.files.get_mut(&file) else {
            return;
        };
        if matches!(known.stage, Stage::Queued { .. }) {
            // It was found changed since, and waits for the next job.
            known.interrupted = known.interrupted.saturating_add(1);
            let at = now + known.pause(now);
            known.stage = Stage::Queued { at };
            return;
        }
        let is_as_begun = known.changes == changes;
        match outcome {
            Ok(Reread::Stopped) => {}
            Ok(Reread::TooYoung { wait }) => {
                known.stage = Stage::Queued { at: now + wait };
                self.rereading.away.remove(&file);
            }
            Ok(Reread::Read {
                intact,
                is_readable,
            }) if is_as_begun => {
                known.interrupted = 0;
                known.last_read = Some((took, now));
                known.stage = Stage::Settled { intact };
                let was_away = self.rereading.away.remove(&file);
                if was_away {
                    // It is seldom alone.
                    self.rereading.away_at = now;
                    self.rereading.away_pause = AWAY_MIN;
                }
                let state = match (intact == of, is_readable) {
                    (true, _) => SourceState::Offered,
                    (false, true) => SourceState::Differs,
                    (false, false) => SourceState::Away,
                };
                if !is_readable {
                    known.stage = Stage::Away;
                    self.rereading.is_away(now, file);
                }
                let left = self.offered();
                if is_readable || !was_away {
                    self.hub.tell(NodeEvent::Offered {
                        path,
                        pieces: intact,
                        of,
                        left,
                    });
                }
                self.tell_source(file, state);
            }
            Ok(Reread::Read { .. } | Reread::ChangedAgain) => {
                known.interrupted = known.interrupted.saturating_add(1);
                known.changes = changes;
                let at = now + known.pause(now);
                known.stage = Stage::Queued { at };
                self.rereading.away.remove(&file);
                self.withdraw(file);
            }
            Err(error) => {
                known.stage = Stage::Away;
                let reason = error.to_string();
                if known.reason != reason {
                    known.reason.clone_from(&reason);
                    self.hub.tell(NodeEvent::SourceAway { what: reason });
                }
                self.rereading.is_away(now, file);
                self.tell_source(file, SourceState::Away);
            }
        }
    }

    pub(super) fn on_reread_ended(&mut self) {
        self.rereading.is_reading = false;
    }

    // -- what others hear -------------------------------------------------------------------------

    /// Tells peers what became of a file, if they do not know.
    fn tell_source(&mut self, file: FileIndex, state: SourceState) {
        let told = &mut self.rereading.told;
        let before = match state {
            SourceState::Offered => told.remove(&file),
            _ if told.len() >= FILES_TOLD_MAX && !told.contains_key(&file) => return,
            _ => told.insert(file, state),
        };
        if before == Some(state) || (before.is_none() && state == SourceState::Offered) {
            return;
        }
        let file = file.get();
        for linked in self.linked.values().filter(|linked| linked.is_up) {
            let message = ShareMessage::Source { file, state };
            linked.session.send(&self.share, message);
        }
    }

    /// Tells a peer that has just come.
    pub(super) fn tell_sources(&self, peer: &crate::content::PeerId) {
        let Some(linked) = self.linked.get(peer) else {
            return;
        };
        for (file, state) in &self.rereading.told {
            let (file, state) = (file.get(), *state);
            let message = ShareMessage::Source { file, state };
            linked.session.send(&self.share, message);
        }
    }

    /// A peer says what became of a file of its own.
    pub(super) fn on_source(
        &mut self,
        peer: &crate::content::PeerId,
        file: u32,
        state: SourceState,
    ) {
        let Some(ready) = self.share.ready.get() else {
            return;
        };
        let Some(linked) = self.linked.get_mut(peer) else {
            return;
        };
        if file >= ready.geometry().file_count() {
            return;
        }
        let file = FileIndex::new(file);
        if state == SourceState::Offered {
            linked.withheld.remove(&file);
        } else if linked.withheld.len() < FILES_TOLD_MAX || linked.withheld.contains_key(&file) {
            linked.withheld.insert(file, state);
        }
        let now = Instant::now();
        let why = self.withheld();
        let (told, at) = &self.rereading.stall_told;
        let is_news = why.is_some() && why != *told && now >= *at + STALL_TOLD_EVERY;
        if let Some(cause) = self.stalled.filter(|cause| *cause == StallCause::NoHolder)
            && is_news
            && let Some(transfer) = &self.transfer
        {
            let missing = transfer.status(self.now()).without_holder;
            self.tell_stalled(cause, missing);
        }
    }

    pub(in crate::node) fn tell_stalled(&mut self, cause: StallCause, missing: u32) {
        let why = self.withheld().filter(|_| cause == StallCause::NoHolder);
        self.rereading.stall_told = (why.clone(), Instant::now());
        self.stalled = Some(cause);
        self.hub.tell(NodeEvent::Stalled {
            cause,
            missing,
            why,
        });
    }

    /// Which file keeps a fetch from its end, as far as anybody told: one of a peer, or one of our own.
    pub(in crate::node) fn withheld(&self) -> Option<Withheld> {
        let (ready, transfer) = (self.share.ready.get()?, self.transfer.as_ref()?);
        let chosen = self.fetch.as_ref()?.chosen.as_ref()?;
        let is_lacking = |file: &FileIndex| {
            let mut pieces = ready.geometry().file_pieces(*file).map(PieceIndex::new);
            pieces.any(|piece| chosen.pieces().contains(piece) && !transfer.held().contains(piece))
        };
        let theirs = self.linked.values().flat_map(|linked| &linked.withheld);
        let theirs = theirs.map(|(file, state)| (*file, *state, Whose::Peer));
        let ours = self.rereading.told.iter();
        let ours = ours.map(|(file, state)| (*file, *state, Whose::Ours));
        let mut all = theirs.chain(ours);
        let (file, state, whose) = all.find(|(file, _, _)| is_lacking(file))?;
        let why = match state {
            SourceState::Offered => return None,
            SourceState::Rereading => WithheldWhy::Rereading,
            SourceState::Differs => WithheldWhy::Differs,
            SourceState::Away => WithheldWhy::Away,
        };
        Some(Withheld {
            path: ready.manifest.file(file).path.as_str().to_owned(),
            why,
            whose,
        })
    }

    /// Files that are not offered whole.
    pub(in crate::node) fn withheld_files(&self) -> u32 {
        let files = &self.rereading.files;
        let Some(ready) = self.share.ready.get() else {
            return 0;
        };
        let is_whole = |(file, known): &(&FileIndex, &Doubtful)| {
            let of = ready.geometry().file_pieces(**file).len() as u32;
            known.stage == (Stage::Settled { intact: of })
        };
        files.iter().filter(|entry| !is_whole(entry)).count() as u32
    }

    /// A file that somebody edited after it had its final name is theirs: it is neither fetched again nor written over. When
    /// nothing else is missing, the fetch ends without it.
    fn end_if_only_edited_files_are_left(&mut self) {
        let is_fetching = self.phase == Phase::Fetch
            && self
                .fetch
                .as_ref()
                .is_some_and(|fetch| fetch.outcome.is_some());
        if !is_fetching || self.rereading.told.is_empty() {
            return;
        }
        let (Some(ready), Some(transfer)) = (self.share.ready.get(), &self.transfer) else {
            return;
        };
        if !transfer.wants_nothing() {
            return;
        }
        let is_edited = |file: FileIndex| {
            let of = ready.geometry().file_pieces(file).len() as u32;
            let known = self.rereading.files.get(&file);
            known.is_some_and(
                |known| matches!(known.stage, Stage::Settled { intact } if intact < of),
            )
        };
        let chosen = self.fetch.as_ref().and_then(|fetch| fetch.chosen.as_ref());
        let Some(chosen) = chosen else { return };
        let mut lacking = chosen
            .pieces()
            .iter()
            .filter(|piece| !transfer.held().contains(*piece))
            .peekable();
        let is_over = lacking.peek().is_some()
            && lacking.all(|piece| is_edited(ready.geometry().locate(piece).file));
        drop(lacking);
        if is_over {
            // It says which.
            self.finish();
        }
    }
}

/// Whether a file is not there, or cannot be read, rather than changed.
fn is_away(error: &StorageError) -> bool {
    !matches!(error, StorageError::SourceChanged { .. })
}
