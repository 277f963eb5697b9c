//! Every state a crash can leave of a fetch of 64 pieces, at every operation: killed, and without power.
//!
//! The fetch runs once and its operations are written down; each state is then made in a folder and opened by the code that
//! resumes. A sample runs with the suite; `SHOAL_CRASH_STATES` says how many states to try, as `scripts/crash-states` does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::power::{Image, Loss, Names};
use super::share64::{Share64, alone, folder};
use super::watching::{Event, watch};
use crate::content::PieceIndex;
use crate::storage::StorageError;

/// States without power tried when nobody asks for more.
const SAMPLE: usize = 1500;

/// One of so many states is fetched to its end.
const COMPLETED_OF: usize = 8;

/// What was found, by kind.
#[derive(Default)]
struct Tally {
    states: usize,
    completed: usize,
    /// Pieces stored and not held, at most.
    lost_max: usize,
    /// States in which a torn file lay under its final name before anybody looked.
    torn: usize,
    /// States in which the fetch refused to go on, by its words.
    failures: BTreeMap<String, usize>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            states,
            completed,
            lost_max,
            torn,
            failures,
        } = self;
        write!(
            f,
            "{states} states, {completed} of them fetched to their end; a torn file shown in {torn}; \
             at most {lost_max} pieces lost; failures: {failures:?}"
        )
    }
}

/// A recorded fetch.
struct Recorded {
    share: Share64,
    events: Vec<Event>,
}

impl Recorded {
    fn new(sync_pieces: usize) -> Self {
        let share = Share64::new(sync_pieces);
        let top = folder();
        let watcher = Share64::watcher(top.path());
        let (watcher, result) = watch(watcher, || share.fetch(top.path()));
        result.unwrap();
        share.check_complete(top.path()).unwrap();
        Self {
            share,
            events: watcher.events,
        }
    }

    /// Whether something happens to the disk in event `at`.
    fn is_operation(&self, at: usize) -> bool {
        !matches!(
            self.events[at],
            Event::Seen { .. } | Event::Stored(_) | Event::Synced(_) | Event::Done
        )
    }

    /// Numbers of events before which a crash may come: operations, and the end.
    fn points(&self) -> Vec<usize> {
        let operations = (0..self.events.len()).filter(|at| self.is_operation(*at));
        operations.chain([self.events.len()]).collect()
    }

    /// Makes the state and lets a run find it.
    fn check(&self, at: usize, loss: Loss, chance: &mut StdRng, tally: &mut Tally) {
        let events = &self.events[..at];
        let top = folder();
        let mut watcher = Share64::watcher(top.path());
        let image = Image::after(events, loss, chance);
        image.lay_out(top.path(), &mut watcher);
        let is_killed = matches!(loss, Loss::Nothing | Loss::HalfOfLastWrite);
        watcher.boot = [if is_killed { 1 } else { 2 }; 16];
        let owed = owed(events, is_killed);
        let completes = tally.states.is_multiple_of(COMPLETED_OF);
        tally.states += 1;
        let torn = self.share.wrong_files(top.path());
        assert!(!is_killed || torn.is_empty(), "{at} {loss:?}: {torn:?}");
        tally.torn += usize::from(!torn.is_empty());
        if matches!(events.last(), Some(Event::Done)) {
            // A part folder that is back is no loss.
            let shown = self.share.check_shown(top.path());
            shown.unwrap_or_else(|wrong| panic!("a finished fetch, {loss:?}: {wrong}"));
        }
        let (_, outcome) = watch(watcher, || self.resume(top.path(), &owed, completes));
        match outcome {
            Ok(lost) => tally.lost_max = tally.lost_max.max(lost),
            Err(failure) => *tally.failures.entry(failure).or_default() += 1,
        }
        tally.completed += usize::from(completes);
    }

    /// What a run finds: the number of pieces it has to fetch again.
    fn resume(&self, top: &Path, owed: &Owed, completes: bool) -> Result<usize, String> {
        let failed = |error: StorageError| format!("{:?}", error.exit_class());
        let (store, held) = self.share.open(top).map_err(failed)?;
        self.share.check_held(&store, &held)?;
        let missing: Vec<_> = owed
            .pieces
            .iter()
            .filter(|piece| !held.contains(**piece))
            .collect();
        if !missing.is_empty() {
            return Err("a piece that cannot be lost is lost".to_owned());
        }
        let wrong = self.share.wrong_files(top);
        if !wrong.is_empty() {
            return Err("a wrong file has its final name".to_owned());
        }
        let lost = owed
            .stored
            .iter()
            .filter(|piece| !held.contains(**piece))
            .count();
        if completes {
            self.share.complete(&store, &held).map_err(failed)?;
            self.share.check_complete(top)?;
        }
        Ok(lost)
    }
}

/// What a run after a crash must find.
struct Owed {
    pieces: BTreeSet<PieceIndex>,
    stored: BTreeSet<PieceIndex>,
}

fn owed(events: &[Event], is_killed: bool) -> Owed {
    let mut owed = Owed {
        pieces: BTreeSet::new(),
        stored: BTreeSet::new(),
    };
    for event in events {
        match event {
            Event::Stored(piece) => {
                owed.stored.insert(*piece);
            }
            Event::Synced(pieces) => owed.pieces.extend(pieces),
            Event::Done => owed.pieces = owed.stored.clone(),
            _ => {}
        }
    }
    if is_killed {
        owed.pieces = owed.stored.clone();
    }
    owed
}

/// Syncs after so many pieces: several in one fetch, with some pieces synced by none but the last; and only the last, of more
/// files than are synced one by one.
const SYNCS: [usize; 2] = [9, 64];

#[test]
fn a_fetch_killed_at_any_operation_loses_no_piece_and_shows_no_wrong_byte() {
    alone(|| {
        let mut tally = Tally::default();
        for recorded in SYNCS.map(Recorded::new) {
            let points = recorded.points();
            assert!(points.len() > 2 * 64, "{}", points.len());
            let mut chance = StdRng::seed_from_u64(1);
            for at in points {
                recorded.check(at, Loss::Nothing, &mut chance, &mut tally);
                if matches!(recorded.events.get(at), Some(Event::Write { .. })) {
                    recorded.check(at + 1, Loss::HalfOfLastWrite, &mut chance, &mut tally);
                }
            }
        }
        println!("{tally}");
        assert!(tally.failures.is_empty(), "{:?}", tally.failures);
        assert_eq!(tally.lost_max, 0);
    });
}

#[test]
fn a_power_loss_at_any_operation_costs_what_is_unsynced_and_shows_no_wrong_byte() {
    let wanted = std::env::var("SHOAL_CRASH_STATES").ok();
    let is_sample = wanted.is_none();
    let count = wanted.map_or(SAMPLE, |count| count.parse().unwrap());
    alone(|| {
        let mut tally = Tally::default();
        let mut chance = StdRng::seed_from_u64(2);
        let fetches = SYNCS.map(Recorded::new);
        for recorded in &fetches {
            let losses = [
                Loss::All(Names::Ordered),
                Loss::All(Names::ByFolder),
                Loss::Bytes,
            ];
            for (turn, at) in recorded.points().into_iter().enumerate() {
                // A sample tries one of them at each point.
                for (number, loss) in losses.into_iter().enumerate() {
                    if !is_sample || number == turn % losses.len() {
                        recorded.check(at, loss, &mut chance, &mut tally);
                    }
                }
            }
        }
        for at in 0.. {
            if tally.states >= count {
                break;
            }
            let recorded = &fetches[at % fetches.len()];
            let points = recorded.points();
            let at = points[chance.random_range(0..points.len())];
            let loss = match chance.random_range(0..4) {
                0 => Loss::From(chance.random_range(0..=at)),
                1 | 2 => Loss::Chance(Names::Ordered),
                _ => Loss::Chance(Names::ByFolder),
            };
            recorded.check(at, loss, &mut chance, &mut tally);
        }
        println!("{tally}");
        assert!(tally.failures.is_empty(), "{:?}", tally.failures);
        assert_eq!(
            tally.torn, 0,
            "no final name stands over bytes that may be lost"
        );
        assert!(tally.lost_max > 0, "nothing was ever lost");
    });
}
