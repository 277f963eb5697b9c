//! How a fetch begins: what lies at the target is looked at, found room for, and only then is anything made.
//!
//! Owns [`FetchStore::open`] and the promise that a failed one leaves the target as it was. Pieces are `fetch`'s matter, the
//! look at the target is `survey`'s. Called by `node`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, OnceLock};

use super::beneath::Beneath;
use super::fetch::{FetchStore, Names, OPEN_FILES_MAX, State, WRITE_TURNS, Which};
use super::part::{self, PartFolder, Resumable};
use super::recent::Recent;
use super::record::{Entry, LastRun, Record, Replay};
use super::room::Room;
use super::standing::Standings;
use super::survey::{Survey, Surveyor};
use super::target::{self, Target};
use super::{Chosen, StorageError, disk, os};
use crate::content::{Bitfield, FileIndex, Manifest, PieceHashes, PieceIndex, PieceSpan};

/// What an opening store writes down and puts right.
struct Changes {
    corrections: Vec<Entry>,
    adopted: Vec<FileIndex>,
    taken_back: BTreeSet<FileIndex>,
    boot: [u8; 16],
    last_run: LastRun,
}

impl FetchStore {
    /// Opens the target of a fetch of the `chosen` part of a share and tells which pieces are held already.
    ///
    /// Pieces of zeros are held from the beginning. Pieces of an earlier run are taken from its record without reading them;
    /// after a restart of the machine those not known to have reached the disk are read. Existing files of the right name and
    /// length are read, and equal ones adopted; what is not chosen is neither read nor in the way. `progress` gets bytes read and bytes to read, from several threads. When it fails, the target is as before.
    ///
    /// # Errors
    /// [`StorageError::IllegalNames`]; [`StorageError::TargetDiffers`] and [`StorageError::Blocked`] for what is in
    /// the way; [`StorageError::Busy`]; [`StorageError::DiskFull`] and [`StorageError::NoInodes`] when what is missing does not fit;
    /// [`StorageError::NotAFolder`], [`StorageError::OutputName`], [`StorageError::Read`], [`StorageError::Write`].
    ///
    /// # Panics
    /// When `resumable` or `chosen` is of another share.
    pub fn open(
        target: &Target,
        manifest: Manifest,
        hashes: PieceHashes,
        chosen: Chosen,
        resumable: Option<Resumable>,
        progress: &(dyn Fn(u64, u64) + Sync),
    ) -> Result<(Self, Bitfield), StorageError> {
        target::refuse_illegal_names(&manifest)?;
        let share = manifest.id();
        let place = target.place(manifest.name(), manifest.layout())?;
        let (root, part) = match resumable {
            Some(Resumable {
                manifest,
                root,
                part,
                ..
            }) => {
                assert_eq!(manifest.id(), share, "the earlier run is of the same share");
                (Some(root), Some(part))
            }
            None => match Beneath::open(&place.folder)? {
                Some(root) => {
                    let part = PartFolder::open(&root, &share)?;
                    (Some(root), part)
                }
                None => (None, None),
            },
        };
        let boot = os::boot_id();
        let (record, replay) = match &part {
            Some(part) => open_record(part, &manifest, &boot)
                .map(|(record, replay)| (Some(record), replay))?,
            None => (None, Replay::default()),
        };
        let zeros = hashes.zero_pieces(manifest.geometry());
        let space = os::space_at(&target::nearest_existing(&place.folder)?);
        let surveyor = Surveyor {
            manifest: &manifest,
            hashes: &hashes,
            zeros: &zeros,
            place: &place,
            root: root.as_ref(),
            part: part.as_ref(),
            chosen: &chosen,
            replay: &replay,
            overwrite: target.overwrite,
            block: space.map_or(1, |space| space.block),
            progress,
        };
        let survey = surveyor.survey()?;
        if let Some(space) = space {
            Room::needed(&surveyor, &survey)?.check(&place.shown(), space)?;
        }

        // From here on things are made; a failure takes them back.
        let (root, made) = match root {
            Some(root) => (root, Vec::new()),
            None => make_root(&place.folder)?,
        };
        let undo = |error| {
            remove_folders(&made);
            error
        };
        let part = match part {
            None if !is_here(&manifest, &chosen, &survey) => {
                Some(PartFolder::create(&root, &share).map_err(undo)?)
            }
            part => part,
        };
        let Survey {
            held,
            files,
            corrections,
            unclean,
            adopted,
            taken_back,
            ..
        } = survey;
        // What is not held any more is no matter of a sync.
        let unsynced = replay.unsynced.into_iter();
        let unsynced = unsynced.filter(|piece| held.contains(*piece)).collect();
        let store = Self {
            manifest,
            chosen,
            zeros,
            place,
            overwrite: target.overwrite,
            root,
            part,
            record: Mutex::new(record),
            state: Mutex::new(State {
                held: held.clone(),
                writing: BTreeSet::new(),
                files,
                unclean,
                unsynced,
                whole: BTreeSet::new(),
                is_broken: false,
            }),
            times: OnceLock::new(),
            written: Condvar::new(),
            open: Recent::new(OPEN_FILES_MAX),
            beginning: Mutex::new(()),
            turns: [const { Mutex::new(()) }; WRITE_TURNS],
            syncing: Mutex::new(Names {
                made: made.clone(),
                is_part_synced: false,
                changed: BTreeSet::new(),
            }),
            standings: Standings::default(),
            finished: Mutex::new(false),
        };
        let changes = Changes {
            corrections,
            adopted,
            taken_back,
            boot,
            last_run: replay.last_run,
        };
        match store.prepare(&hashes, &changes) {
            Ok(()) => Ok((store, held)),
            Err(error) => {
                store.remove_part(Which::Fresh);
                drop(store);
                Err(undo(error))
            }
        }
    }

    /// Writes down how things stand at the start.
    fn prepare(&self, hashes: &PieceHashes, changes: &Changes) -> Result<(), StorageError> {
        let Changes {
            corrections,
            adopted,
            taken_back,
            boot,
            last_run,
        } = changes;
        for &file in adopted {
            if self.manifest.file(file).executable {
                // The bytes are right; a mode we may not change, because somebody else owns the file, is no failure.
                let _ = self.root.make_executable(&self.path_of(file));
            }
        }
        let Some(part) = &self.part else {
            return self.refresh(adopted);
        };
        part.save(&self.manifest, hashes)?;
        if self.record().is_none() {
            let (record, _) = open_record(part, &self.manifest, boot)?;
            *self.record() = Some(record);
        }
        // Before the record says so: found in between, the record's "published" makes the part file be read.
        for &file in taken_back {
            self.root
                .take_back(&self.path_of(file), part.dir(), &part::file_name(file))?;
        }
        let cleaned = self.clean_zeros()?;
        for &entry in corrections.iter().chain(&cleaned) {
            self.append(entry)?;
        }
        if *last_run == LastRun::EarlierBoot {
            // What survived the restart, or was just read, is on the disk.
            let offset = self.record().as_ref().map_or(0, Record::offset);
            self.append(Entry::Synced(offset))?;
        }
        if *last_run != LastRun::ThisBoot {
            self.append(Entry::Boot(*boot))?;
        }
        self.refresh(adopted)?;
        for &file in adopted {
            part.remove_file(file)?;
        }
        self.note_found();
        self.find_whole();
        Ok(())
    }

    /// Makes pieces of zeros what they are to be where a torn or changed file has other bytes: nobody else will write there.
    /// Gives what to record of it.
    fn clean_zeros(&self) -> Result<Vec<Entry>, StorageError> {
        let mut unclean: BTreeMap<FileIndex, Vec<PieceSpan>> = BTreeMap::new();
        let mut cleaned = Vec::new();
        {
            let state = self.state();
            for &piece in &state.unclean {
                let span = self.geometry().locate(piece);
                let known = &state.files[span.file.as_usize()];
                if self.zeros.contains(piece) && known.is_begun && known.published.is_none() {
                    unclean.entry(span.file).or_default().push(span);
                    cleaned.push(Entry::Held(piece));
                }
            }
        }
        for (file, spans) in unclean {
            let handle = self.part_handle(file)?;
            let failed = |source| self.write_failed(file, 0, source);
            for span in spans {
                disk::write_all_at(&handle, &vec![0; span.len as usize], span.offset)
                    .map_err(failed)?;
            }
            // Before the record stops telling the next run to look here again.
            disk::sync_data(&handle).map_err(failed)?;
        }
        Ok(cleaned)
    }

    /// Whole files that are still part files get their names with the next sync: the run that wrote their last piece was
    /// killed before it could, or something was in the way.
    fn find_whole(&self) {
        let mut state = self.state();
        let whole: Vec<_> = (0..self.geometry().file_count())
            .map(FileIndex::new)
            .filter(|file| {
                let known = &state.files[file.as_usize()];
                self.chosen.has_file(*file)
                    && known.remaining == 0
                    && known.published.is_none()
                    && self.geometry().file_len(*file) > 0
            })
            .collect();
        state.whole.extend(whole);
    }

    /// Takes down what adopted files look like now, after their mode may have changed.
    fn refresh(&self, adopted: &[FileIndex]) -> Result<(), StorageError> {
        for &file in adopted {
            // The user's own, which only happens to be equal.
            self.state().files[file.as_usize()].is_timed = true;
            let path = self.path_of(file);
            let Some(stat) = self.root.stat(&path)? else {
                return Err(StorageError::TargetDiffers {
                    path: self.root.shown(&path),
                });
            };
            {
                let mut state = self.state();
                state.files[file.as_usize()].published = Some(stat.signature);
                // Nobody knows whether the user's copy of it has reached the disk, and a record would say so.
                if self.part.is_some() {
                    let pieces = self.geometry().file_pieces(file);
                    state.unsynced.extend(pieces.map(PieceIndex::new));
                }
            }
            // First: killed in between, nobody takes the file for ours.
            self.append(Entry::Adopted(file))?;
            self.append(Entry::Published(file, stat.signature))?;
        }
        Ok(())
    }
}

/// Whether every chosen file with bytes lies under its final name.
fn is_here(manifest: &Manifest, chosen: &Chosen, survey: &Survey) -> bool {
    let mut files = manifest.files().filter(|(_, entry)| entry.len > 0);
    files.all(|(file, _)| {
        !chosen.has_file(file) || survey.files[file.as_usize()].published.is_some()
    })
}

fn open_record(
    part: &PartFolder,
    manifest: &Manifest,
    boot: &[u8; 16],
) -> Result<(Record, Replay), StorageError> {
    let file = part.open_record()?;
    Record::open(file, &manifest.id(), manifest.geometry(), boot).map_err(|source| {
        StorageError::writing(part.shown().join("record"), part.shown(), 0, source)
    })
}

/// Makes the target folder and those above it; returns what was made, outermost first.
fn make_root(folder: &Path) -> Result<(Beneath, Vec<PathBuf>), StorageError> {
    let nearest = target::nearest_existing(folder)?;
    let mut missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|path| *path != nearest && !path.as_os_str().is_empty())
        .collect();
    missing.reverse();
    let mut made = Vec::new();
    let result = missing
        .into_iter()
        .try_for_each(|path| match disk::make_folder_at(path) {
            Ok(()) => {
                made.push(path.to_path_buf());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(source) => Err(StorageError::writing(
                path.to_path_buf(),
                &nearest,
                0,
                source,
            )),
        });
    let opened = result.and_then(|()| {
        Beneath::open(folder)?.ok_or_else(|| StorageError::NotFound {
            path: folder.to_path_buf(),
        })
    });
    match opened {
        Ok(root) => Ok((root, made)),
        Err(error) => {
            remove_folders(&made);
            Err(error)
        }
    }
}

/// Removes folders made for nothing, innermost first. One that is in use by now stays.
fn remove_folders(made: &[PathBuf]) {
    for path in made.iter().rev() {
        let _ = std::fs::remove_dir(path);
    }
}
