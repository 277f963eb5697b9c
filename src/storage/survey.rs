//! Looks at what already lies at a target, before anything is created there: earlier parts, equal files, different ones.
//!
//! Owns the decision which pieces are held at the start of a fetch and which files are in the way. It reads only what no
//! record vouches for, and changes nothing. Called by `fetch` when it opens.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::beneath::Beneath;
use super::hashing::{PieceBytes, Readable, Watch, visit_pieces};
use super::os::{Kind, Signature, Stat};
use super::part::PartFolder;
use super::record::{Entry, Replay};
use super::target::Place;
use super::{Chosen, StorageError};
use crate::content::{Bitfield, EntryKind, FileIndex, Layout, Manifest, PieceHashes, PieceIndex};

/// What is known of one file of the share.
#[derive(Clone, Debug)]
pub(super) struct FileState {
    /// Pieces not held.
    pub(super) remaining: u32,
    /// Set when it lies under its final name: what it looks like there.
    pub(super) published: Option<Signature>,
    /// Its part file has its length, and where nothing was ever stored it reads as zeros: what lies there without that is of
    /// no use to anybody.
    pub(super) is_begun: bool,
    /// It has the time it is to have: that of the share, or its own when it was there before us.
    pub(super) is_timed: bool,
}

/// What lies at a target.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) held: Bitfield,
    /// One per file of the manifest.
    pub(super) files: Vec<FileState>,
    /// What the record has to take back, in the order in which it has to.
    pub(super) corrections: Vec<Entry>,
    /// Pieces not held whose places in a part file that is begun have bytes of whatever kind.
    pub(super) unclean: BTreeSet<PieceIndex>,
    /// Files found under their final names, equal, that the record does not know.
    pub(super) adopted: Vec<FileIndex>,
    /// Files published by an earlier run and torn by a power loss: to become part files again. Good pieces of theirs are in
    /// `held` already.
    pub(super) taken_back: BTreeSet<FileIndex>,
    /// Bytes of disk the missing pieces will take.
    pub(super) needed: u64,
}

/// What a survey is made of.
pub(super) struct Surveyor<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) hashes: &'a PieceHashes,
    /// Pieces whose bytes are all zero.
    pub(super) zeros: &'a Bitfield,
    pub(super) place: &'a Place,
    /// The target folder, if it exists.
    pub(super) root: Option<&'a Beneath>,
    /// The part folder, if it exists.
    pub(super) part: Option<&'a PartFolder>,
    /// What the fetch is for; the rest is neither read nor in the way.
    pub(super) chosen: &'a Chosen,
    /// What its record says.
    pub(super) replay: &'a Replay,
    pub(super) overwrite: bool,
    /// Files take whole multiples of this many bytes.
    pub(super) block: u64,
    /// Told bytes read and how many there are to read.
    pub(super) progress: &'a (dyn Fn(u64, u64) + Sync),
}

/// A file under its final name that may be the wanted one.
struct Candidate {
    file: FileIndex,
    signature: Signature,
    executable: bool,
    /// When it is not the wanted one after all.
    otherwise: Otherwise,
}

/// What becomes of a different file under a final name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Otherwise {
    /// It is somebody's: the fetch ends.
    Refuse,
    /// The user allowed to replace it.
    Replace,
    /// It is our own of before a power loss: nobody's work is lost with it.
    TakeBack,
}

impl Surveyor<'_> {
    /// # Errors
    /// [`StorageError::TargetDiffers`], [`StorageError::Blocked`] when something is in the way; [`StorageError::Read`].
    pub(super) fn survey(&self) -> Result<Survey, StorageError> {
        let geometry = self.manifest.geometry();
        let mut survey = Survey {
            held: Bitfield::new(geometry.piece_count()),
            files: Vec::with_capacity(geometry.file_count() as usize),
            corrections: Vec::new(),
            unclean: BTreeSet::new(),
            adopted: Vec::new(),
            taken_back: BTreeSet::new(),
            needed: 0,
        };
        for (file, _) in self.manifest.files() {
            let remaining = geometry.file_pieces(file).len() as u32;
            survey.files.push(FileState {
                remaining,
                published: None,
                is_begun: false,
                is_timed: false,
            });
        }
        let mut read = Read {
            total: 0,
            before: 0,
        };
        if let Some(root) = self.existing_result()? {
            self.check_others(root)?;
            let candidates = self.look_at_files(root, &mut survey)?;
            read.total = candidates
                .iter()
                .map(|found| geometry.file_len(found.file))
                .sum();
            self.check_candidates(root, &candidates, &mut survey, &mut read)?;
        }
        if let Some(part) = self.part {
            self.take_parts(part, &mut survey, &mut read)?;
        }
        self.take_zeros(&mut survey);
        // Whatever happens in between, a dropped piece is not taken for one that was never stored.
        survey.corrections.sort_by_key(|entry| match entry {
            Entry::Lost(_) => 0,
            Entry::Dropped(_) => 1,
            _ => 2,
        });
        survey.needed = self.needed(&survey)?;
        Ok(survey)
    }

    /// Pieces of zeros of files still to be fetched are held: a part file that is begun reads as zeros there, and one that is
    /// not will. No record says so, which could be true of another file.
    fn take_zeros(&self, survey: &mut Survey) {
        for piece in self.zeros.iter() {
            let file = self.manifest.geometry().locate(piece).file;
            if self.chosen.has_file(file) {
                mark_held(survey, file, piece);
            }
        }
    }

    /// The target folder, if anything lies in it under the result's name.
    fn existing_result(&self) -> Result<Option<&Beneath>, StorageError> {
        let Some(root) = self.root else {
            return Ok(None);
        };
        let name = Path::new(&self.place.name);
        match (root.stat(name)?, self.manifest.layout()) {
            (None, _) => Ok(None),
            (Some(stat), Layout::Folder) if stat.kind != Kind::Folder => {
                Err(StorageError::TargetDiffers {
                    path: self.place.shown(),
                })
            }
            (Some(_), _) => Ok(Some(root)),
        }
    }

    /// Links, empty folders and empty files: what `finish` will make, or find made.
    fn check_others(&self, root: &Beneath) -> Result<(), StorageError> {
        for (place, entry) in self.manifest.entries().iter().enumerate() {
            let path = self.place.path_of(&entry.path);
            let has_bytes = matches!(entry.kind, EntryKind::File { len: 1.., .. });
            if has_bytes || !self.chosen.has_entry(place) {
                continue;
            }
            if other_state(root, &path, &entry.kind, self.overwrite)? == OtherState::InTheWay {
                return Err(StorageError::TargetDiffers {
                    path: root.shown(&path),
                });
            }
        }
        Ok(())
    }

    /// Takes published files that look as recorded, and lists those that have to be read.
    fn look_at_files(
        &self,
        root: &Beneath,
        survey: &mut Survey,
    ) -> Result<Vec<Candidate>, StorageError> {
        let mut candidates = Vec::new();
        for (file, entry) in self.manifest.files().filter(|(_, entry)| entry.len > 0) {
            let path = self.place.path_of(entry.path);
            let stat = match root.stat(&path) {
                Err(StorageError::Blocked { .. }) if !self.chosen.has_file(file) => continue,
                stat => stat?,
            };
            let Some(stat) = stat else {
                continue;
            };
            let recorded = self.replay.published.get(&file);
            let doubtful = self.replay.doubtful_files.contains(&file);
            if stat.kind == Kind::File && recorded == Some(&stat.signature) && !doubtful {
                self.mark_published(survey, file, stat.signature);
                continue;
            }
            if !self.chosen.has_file(file) {
                continue;
            }
            let otherwise = match stat.kind {
                Kind::File
                    if doubtful
                        && recorded.is_some_and(|known| known.inode == stat.signature.inode) =>
                {
                    Otherwise::TakeBack
                }
                Kind::Folder => Otherwise::Refuse,
                _ if self.overwrite => Otherwise::Replace,
                _ => Otherwise::Refuse,
            };
            if stat.kind == Kind::File && stat.signature.len == entry.len {
                let Stat {
                    signature,
                    executable,
                    ..
                } = stat;
                candidates.push(Candidate {
                    file,
                    signature,
                    executable,
                    otherwise,
                });
                continue;
            }
            match otherwise {
                Otherwise::Refuse => {
                    return Err(StorageError::TargetDiffers {
                        path: root.shown(&path),
                    });
                }
                Otherwise::Replace => {}
                Otherwise::TakeBack => take_back(survey, file),
            }
        }
        Ok(candidates)
    }

    /// Reads files that have the right name and length; equal ones are adopted.
    fn check_candidates(
        &self,
        root: &Beneath,
        candidates: &[Candidate],
        survey: &mut Survey,
        read: &mut Read,
    ) -> Result<(), StorageError> {
        let geometry = self.manifest.geometry();
        let pieces: Vec<_> = candidates
            .iter()
            .flat_map(|found| self.pieces_of(found.file))
            .collect();
        let from = Finals {
            root,
            place: self.place,
            manifest: self.manifest,
        };
        let refused: BTreeSet<_> = candidates
            .iter()
            .filter(|found| found.otherwise == Otherwise::Refuse)
            .map(|found| found.file)
            .collect();
        let good = self.visit(&pieces, &from, read, |piece, bytes| {
            let good = bytes.are(piece, geometry, self.hashes);
            let file = geometry.locate(piece).file;
            if !good && refused.contains(&file) {
                // One wrong piece decides; the rest of a large file need not be read.
                return Err(StorageError::TargetDiffers {
                    path: from.shown(file),
                });
            }
            Ok(good)
        })?;
        let mut answers = pieces.into_iter().zip(good);
        for found in candidates {
            let count = geometry.file_pieces(found.file).len();
            let (good, bad): (Vec<_>, Vec<_>) =
                answers.by_ref().take(count).partition(|(_, good)| *good);
            if !bad.is_empty() {
                if found.otherwise == Otherwise::TakeBack {
                    take_back(survey, found.file);
                    survey.files[found.file.as_usize()].is_begun = true;
                    for (piece, _) in good {
                        mark_held(survey, found.file, piece);
                        survey.corrections.push(Entry::Held(piece));
                    }
                    for (piece, _) in bad {
                        survey.unclean.insert(piece);
                        survey.corrections.push(Entry::Dropped(piece));
                    }
                }
                continue;
            }
            let path = self.place.path_of(self.manifest.file(found.file).path);
            if root.stat(&path)?.map(|stat| stat.signature) != Some(found.signature) {
                return Err(StorageError::TargetDiffers {
                    path: root.shown(&path),
                });
            }
            self.mark_published(survey, found.file, found.signature);
            let known = self.replay.published.get(&found.file) == Some(&found.signature);
            let lacks_bit = self.manifest.file(found.file).executable && !found.executable;
            if !known || lacks_bit {
                survey.adopted.push(found.file);
            }
        }
        Ok(())
    }

    /// Takes the pieces in part files that the record vouches for, and reads those it does not.
    fn take_parts(
        &self,
        part: &PartFolder,
        survey: &mut Survey,
        read: &mut Read,
    ) -> Result<(), StorageError> {
        let geometry = self.manifest.geometry();
        let mut by_file: BTreeMap<FileIndex, Vec<PieceIndex>> = BTreeMap::new();
        for &piece in &self.replay.held {
            by_file
                .entry(geometry.locate(piece).file)
                .or_default()
                .push(piece);
        }
        // Recorded as published and not found: a power loss may have undone the rename, so all of it may lie here.
        for &file in self.replay.published.keys() {
            by_file.insert(file, self.pieces_of(file).collect());
        }
        survey.unclean.extend(&self.replay.dropped);
        let mut unsure = Vec::new();
        for (file, pieces) in by_file {
            let published = survey.files[file.as_usize()].published.is_some();
            if published || survey.taken_back.contains(&file) {
                continue;
            }
            let was_published = self.replay.published.contains_key(&file);
            let stat = part.stat_file(file)?;
            let usable = stat.is_some_and(|stat| {
                stat.kind == Kind::File && stat.signature.len == geometry.file_len(file)
            });
            if was_published || !usable {
                survey.corrections.push(Entry::Lost(file));
            }
            if !usable {
                continue;
            }
            survey.files[file.as_usize()].is_begun = true;
            for piece in pieces {
                if was_published || self.replay.doubtful_pieces.contains(&piece) {
                    unsure.push(piece);
                } else {
                    mark_held(survey, file, piece);
                }
            }
        }
        read.total += unsure
            .iter()
            .map(|&piece| u64::from(geometry.len_of(piece)))
            .sum::<u64>();
        let good = self.visit(&unsure, &Parts { part }, read, |piece, bytes| {
            Ok(bytes.are(piece, geometry, self.hashes))
        })?;
        for (piece, good) in unsure.into_iter().zip(good) {
            let file = geometry.locate(piece).file;
            if good {
                mark_held(survey, file, piece);
                if self.replay.published.contains_key(&file) {
                    survey.corrections.push(Entry::Held(piece));
                }
            } else {
                survey.unclean.insert(piece);
                survey.corrections.push(Entry::Dropped(piece));
            }
        }
        Ok(())
    }

    fn mark_published(&self, survey: &mut Survey, file: FileIndex, signature: Signature) {
        for piece in self.pieces_of(file) {
            survey.held.insert(piece);
        }
        let state = &mut survey.files[file.as_usize()];
        state.remaining = 0;
        state.published = Some(signature);
        state.is_timed = self.replay.adopted.contains(&file);
    }

    /// Bytes of disk that missing pieces will take: what their part files do not occupy already, in whole blocks.
    fn needed(&self, survey: &Survey) -> Result<u64, StorageError> {
        let geometry = self.manifest.geometry();
        let mut missing = vec![0_u64; survey.files.len()];
        for piece in survey.held.iter_zeros() {
            let span = geometry.locate(piece);
            missing[span.file.as_usize()] += u64::from(span.len);
        }
        let mut needed = 0_u64;
        for (file, _) in self.manifest.files() {
            let mut bytes = missing[file.as_usize()];
            if bytes == 0 || !self.chosen.has_file(file) {
                continue;
            }
            if let Some(stat) = self
                .part
                .map(|part| part.stat_file(file))
                .transpose()?
                .flatten()
            {
                bytes = bytes.min(geometry.file_len(file).saturating_sub(stat.allocated));
            }
            needed = needed.saturating_add(bytes.next_multiple_of(self.block));
        }
        Ok(needed)
    }

    fn pieces_of(&self, file: FileIndex) -> impl Iterator<Item = PieceIndex> + use<> {
        self.manifest
            .geometry()
            .file_pieces(file)
            .map(PieceIndex::new)
    }

    fn visit(
        &self,
        pieces: &[PieceIndex],
        from: &impl Readable,
        read: &mut Read,
        visit: impl Fn(PieceIndex, PieceBytes<'_>) -> Result<bool, StorageError> + Sync,
    ) -> Result<Vec<bool>, StorageError> {
        let Read { total, before } = *read;
        let report = |bytes| (self.progress)(before + bytes, total);
        let watch = Watch {
            progress: &report,
            cancel: &AtomicBool::new(false),
        };
        let answers = visit_pieces(self.manifest.geometry(), pieces, from, &watch, visit)?;
        read.before = read.total;
        Ok(answers)
    }
}

/// Bytes to read in all, and those behind us.
#[derive(Clone, Copy)]
struct Read {
    total: u64,
    before: u64,
}

fn mark_held(survey: &mut Survey, file: FileIndex, piece: PieceIndex) {
    if survey.held.insert(piece) {
        survey.files[file.as_usize()].remaining -= 1;
    }
}

fn take_back(survey: &mut Survey, file: FileIndex) {
    survey.taken_back.insert(file);
    survey.corrections.push(Entry::Lost(file));
}

/// What lies where an entry without bytes belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OtherState {
    /// Nothing: make it.
    Missing,
    /// The wanted thing.
    Made,
    /// Something else, which may be replaced.
    Replaceable,
    /// Something else, which stays.
    InTheWay,
}

/// What lies at `path`, where a link, an empty folder or an empty file belongs.
pub(super) fn other_state(
    root: &Beneath,
    path: &Path,
    kind: &EntryKind,
    overwrite: bool,
) -> Result<OtherState, StorageError> {
    let Some(stat) = root.stat(path)? else {
        return Ok(OtherState::Missing);
    };
    let made = match kind {
        EntryKind::File { .. } => stat.kind == Kind::File && stat.signature.len == 0,
        EntryKind::Symlink { target } => {
            stat.kind == Kind::Link && root.read_link(path)? == Path::new(target)
        }
        EntryKind::EmptyFolder => stat.kind == Kind::Folder,
    };
    Ok(if made {
        OtherState::Made
    } else if overwrite && stat.kind != Kind::Folder && !matches!(kind, EntryKind::EmptyFolder) {
        OtherState::Replaceable
    } else {
        OtherState::InTheWay
    })
}

/// Files under their final names.
pub(super) struct Finals<'a> {
    pub(super) root: &'a Beneath,
    pub(super) place: &'a Place,
    pub(super) manifest: &'a Manifest,
}

impl Finals<'_> {
    fn shown(&self, file: FileIndex) -> PathBuf {
        self.root
            .shown(&self.place.path_of(self.manifest.file(file).path))
    }
}

impl Readable for Finals<'_> {
    fn open(&self, file: FileIndex) -> Result<File, StorageError> {
        self.root
            .open_file(&self.place.path_of(self.manifest.file(file).path))
    }

    fn failed(&self, file: FileIndex, source: io::Error) -> StorageError {
        StorageError::reading(&self.shown(file), source)
    }
}

/// Part files.
struct Parts<'a> {
    part: &'a PartFolder,
}

impl Readable for Parts<'_> {
    fn open(&self, file: FileIndex) -> Result<File, StorageError> {
        self.part.open_file(file)
    }

    fn failed(&self, _file: FileIndex, source: io::Error) -> StorageError {
        StorageError::reading(self.part.shown(), source)
    }
}
