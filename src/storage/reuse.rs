//! `Reusable`: pieces of a share being fetched that lie beside its target already, in an older version of it.
//!
//! Owns where to look: part folders of other shares in the target's folder, finished files of shares this host knows, and
//! whatever else has the names of wanted files. It looks nowhere else on the machine, so a share tells its maker
//! nothing about other files. Old files are only read, and every byte is hashed before it is taken. Called by `node`.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cap_std::fs::Dir;

use super::fetch::FetchStore;
use super::holes::Holes;
use super::os::{self, Kind};
use super::part;
use super::state::KnownShares;
use super::{PieceStore, StorageError, beneath, disk};
use crate::content::{
    Bitfield, Digest, FileIndex, Layout, Manifest, Name, PieceHashes, PieceIndex, PieceSpan,
};

/// How long to look before the transfer begins. Less misses old pieces on slow disks, more delays the first byte there.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Part folders looked into.
const FOLDERS_MAX: usize = 64;
/// Names in the target's folder that are looked through.
const NEIGHBOURS_MAX: usize = 100_000;
/// Pieces of a file of which nobody knows the hashes that are read to find out whether it is an older version.
const SAMPLE_LEN: usize = 8;
/// Pieces in a row that are not what they should be after which a file is read no further.
const BAD_MAX: usize = 16;

/// Pieces that lie in older files, as far as can be told without reading all of them.
#[derive(Debug, Default)]
pub struct Reusable {
    folders: Vec<Dir>,
    origins: Vec<Origin>,
    /// Where each piece lies: index of the origin, offset there.
    places: Vec<(usize, u64, PieceIndex)>,
}

/// An older file.
#[derive(Clone, Debug)]
enum Origin {
    /// A part file, in the folder of this index.
    Part(usize, OsString),
    /// A file below the target folder.
    Final(PathBuf),
}

/// What became of a piece of [`Reusable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reused {
    /// It is stored; the file that it made whole, if it did.
    Stored(Option<FileIndex>),
    /// The older file has other bytes there by now.
    Lost,
}

impl Reusable {
    /// The pieces, of `count` in all.
    #[must_use]
    pub fn pieces(&self, count: u32) -> Bitfield {
        let mut pieces = Bitfield::new(count);
        for (_, _, piece) in &self.places {
            pieces.insert(*piece);
        }
        pieces
    }

    fn open(&self, store: &FetchStore, origin: usize) -> Option<File> {
        match &self.origins[origin] {
            Origin::Part(folder, name) => beneath::open_file_in(&self.folders[*folder], name).ok(),
            Origin::Final(path) => store.root.open_file(path).ok(),
        }
    }
}

impl FetchStore {
    /// Looks for missing pieces in older files beside the target; `memory` is the folder with the state of this host.
    /// Ends after some seconds at the latest.
    #[must_use]
    pub fn reusable(&self, hashes: &PieceHashes, memory: &Path) -> Reusable {
        let mut search = Search {
            store: self,
            hashes,
            until: Instant::now() + LOOK_MAX,
            held: self.state().held.clone(),
            wanted: HashMap::new(),
            roots: HashMap::new(),
            taken: Bitfield::new(self.geometry().piece_count()),
            found: Reusable::default(),
        };
        // Without a part folder nothing is missing.
        if self.part.is_some() {
            let neighbours = search.neighbours();
            search.part_folders(&neighbours);
            if neighbours
                .iter()
                .any(|name| !part::is_part_folder_name(name))
            {
                search.known_shares(&neighbours, memory);
                search.same_names(&neighbours);
            }
            search.found.places.sort_unstable();
        }
        search.found
    }

    /// Reads each of the pieces, stores those that are as they should be, and tells of each; ends early when `told` says so.
    ///
    /// # Errors
    /// As [`PieceStore::write_piece`].
    pub fn reuse(
        &self,
        hashes: &PieceHashes,
        reusable: &Reusable,
        mut told: impl FnMut(PieceIndex, Reused) -> bool,
    ) -> Result<(), StorageError> {
        let mut reader = Reader::default();
        for (origin, offset, piece) in &reusable.places {
            let open = |origin| reusable.open(self, origin);
            let bytes = reader.read(*origin, open, self.geometry().len_of(*piece), *offset);
            let good = bytes.and_then(|bytes| hashes.verify(self.geometry(), *piece, bytes));
            let outcome = match good {
                Some(verified) => Reused::Stored(self.write_piece(verified)?),
                None => Reused::Lost,
            };
            reader.bad = match outcome {
                Reused::Stored(_) => 0,
                Reused::Lost => reader.bad + 1,
            };
            if !told(*piece, outcome) {
                break;
            }
        }
        Ok(())
    }
}

/// Reads from one older file after another.
#[derive(Default)]
struct Reader {
    open: Option<(usize, Option<File>)>,
    /// Pieces in a row of this file that were not good.
    bad: usize,
    buffer: Vec<u8>,
}

impl Reader {
    fn read(
        &mut self,
        origin: usize,
        open: impl FnOnce(usize) -> Option<File>,
        len: u32,
        offset: u64,
    ) -> Option<&[u8]> {
        if self.open.as_ref().is_none_or(|(of, _)| *of != origin) {
            self.open = Some((origin, open(origin)));
            self.bad = 0;
        }
        let (_, file) = self.open.as_ref()?;
        if self.bad >= BAD_MAX {
            return None;
        }
        self.buffer.resize(len as usize, 0);
        disk::read_exact_at(file.as_ref()?, &mut self.buffer, offset).ok()?;
        Some(&self.buffer)
    }
}

/// A look around.
struct Search<'a> {
    store: &'a FetchStore,
    hashes: &'a PieceHashes,
    until: Instant,
    held: Bitfield,
    /// Missing pieces by their hashes; filled when there is something to compare with.
    wanted: HashMap<Digest, Vec<PieceIndex>>,
    /// Files with missing pieces by their roots.
    roots: HashMap<Digest, Vec<FileIndex>>,
    /// Pieces that have a place.
    taken: Bitfield,
    found: Reusable,
}

impl Search<'_> {
    /// What lies in the target's folder beside our part folder; nothing when that is too much to look through.
    fn neighbours(&self) -> HashSet<OsString> {
        let ours = part::name_of(&self.store.manifest.id());
        let Ok(entries) = self.store.root.dir().entries() else {
            return HashSet::new();
        };
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
        let names = names.filter(|name| **name != *ours);
        let names: HashSet<_> = names.take(NEIGHBOURS_MAX + 1).collect();
        if names.len() > NEIGHBOURS_MAX {
            return HashSet::new();
        }
        names
    }

    /// Unfinished fetches of other shares into the same folder.
    fn part_folders(&mut self, neighbours: &HashSet<OsString>) {
        let root = self.store.root.dir();
        let names = neighbours.iter();
        let mut names: Vec<_> = names
            .filter(|name| part::is_part_folder_name(name))
            .collect();
        names.sort_unstable();
        names.truncate(FOLDERS_MAX);
        for name in names {
            if !os::is_ours(root, Path::new(name)).unwrap_or(false) {
                continue;
            }
            let Ok(dir) = beneath::open_folder_in(root, name) else {
                continue;
            };
            let Some((manifest, hashes)) = part::saved_in(&dir) else {
                continue;
            };
            let folder = self.found.folders.len();
            self.found.folders.push(dir);
            self.compare(&manifest, &hashes, |file, _| {
                Origin::Part(folder, part::file_name(file).into())
            });
            // Its whole files have their names already.
            let top = OsString::from(manifest.name().as_str());
            self.compare(&manifest, &hashes, |_, path| {
                Origin::Final(below(&top, manifest.layout(), path))
            });
        }
    }

    /// Finished files of shares that this host made or fetched, where a fetch into this folder puts them.
    fn known_shares(&mut self, neighbours: &HashSet<OsString>, memory: &Path) {
        let store = self.store;
        let lies_here = |name: &str| neighbours.contains(OsStr::new(name));
        let our_name = store.manifest.name();
        // The result may have got another name than its share.
        let is_result_here = neighbours.contains(&store.place.name);
        let is_candidate =
            |name: &Name| lies_here(name.as_str()) || (is_result_here && name == our_name);
        for (manifest, hashes) in KnownShares::open(memory).named(is_candidate) {
            if manifest.id() == store.manifest.id() {
                continue;
            }
            let mut tops = vec![OsString::from(manifest.name().as_str())];
            if store.place.name != tops[0] {
                tops.push(store.place.name.clone());
            }
            for top in tops {
                self.compare(&manifest, &hashes, |_, path| {
                    Origin::Final(below(&top, manifest.layout(), path))
                });
            }
        }
    }

    /// Files that have the names of wanted ones, and whose hashes nobody knows: a few of their pieces tell.
    fn same_names(&mut self, neighbours: &HashSet<OsString>) {
        let store = self.store;
        let mut tops = vec![store.place.name.clone()];
        let name = OsString::from(store.manifest.name().as_str());
        if !tops.contains(&name) {
            tops.push(name);
        }
        tops.retain(|top| neighbours.contains(top));
        for top in tops {
            for (file, entry) in store.manifest.files() {
                if self.is_over() {
                    return;
                }
                let is_published = || store.state().files[file.as_usize()].published.is_some();
                if entry.len == 0 || !store.chosen.has_file(file) || is_published() {
                    continue;
                }
                let path = below(&top, store.manifest.layout(), entry.path.as_str());
                let is_file = |path: &Path| {
                    let stat = store.root.stat(path).ok().flatten();
                    stat.is_some_and(|stat| stat.kind == Kind::File)
                };
                if is_file(&path) {
                    self.guess(file, Origin::Final(path));
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Takes note of what is missing.
    fn fill(&mut self) {
        if !self.wanted.is_empty() {
            return;
        }
        let geometry = self.store.geometry();
        for piece in self.store.chosen.pieces().iter() {
            if self.held.contains(piece) {
                continue;
            }
            let digest = *self.hashes.expected(piece);
            self.wanted.entry(digest).or_default().push(piece);
            let file = geometry.locate(piece).file;
            if let Some(root) = self.store.manifest.file(file).root {
                let files = self.roots.entry(root).or_default();
                if files.last() != Some(&file) {
                    files.push(file);
                }
            }
        }
    }

    /// Finds what an older share has, whose files lie where `origin_of` says.
    fn compare(
        &mut self,
        manifest: &Manifest,
        hashes: &PieceHashes,
        origin_of: impl Fn(FileIndex, &str) -> Origin,
    ) {
        self.fill();
        let (old, new) = (manifest.geometry(), self.store.geometry());
        let by_name = self.files_by_name(manifest);
        for (file, entry) in manifest.files() {
            if self.is_over() {
                return;
            }
            let mut places = Vec::new();
            let whole = entry.root.and_then(|root| self.roots.get(&root));
            for wanted in whole.into_iter().flatten() {
                let pieces = new.file_pieces(*wanted).map(PieceIndex::new);
                places.extend(pieces.map(|piece| (new.locate(piece).offset, piece)));
            }
            for piece in old.file_pieces(file).map(PieceIndex::new) {
                let span = old.locate(piece);
                let wanted = self.wanted.get(hashes.expected(piece));
                let equal = wanted.into_iter().flatten();
                let equal = equal.filter(|wanted| new.len_of(**wanted) == span.len);
                places.extend(equal.map(|wanted| (span.offset, *wanted)));
            }
            let origin = || origin_of(file, entry.path.as_str());
            if !places.is_empty() {
                self.take(origin(), places);
            } else if let Some(wanted) = by_name.get(entry.path.as_str()) {
                self.guess(*wanted, origin());
            }
        }
    }

    /// The files with names that an older share has too, if its pieces are of another length: their hashes are no help.
    fn files_by_name(&self, older: &Manifest) -> HashMap<String, FileIndex> {
        let manifest = &self.store.manifest;
        if older.geometry().piece_len() == manifest.geometry().piece_len() {
            return HashMap::new();
        }
        // Of a share of one file the name may be another.
        if older.layout() == Layout::File && manifest.layout() == Layout::File {
            let names = older
                .files()
                .map(|(file, entry)| (entry.path.as_str().to_owned(), file));
            return names.collect();
        }
        let names = manifest.files();
        let names = names.map(|(file, entry)| (entry.path.as_str().to_owned(), file));
        names.collect()
    }

    /// Takes pieces from an older file, those that are not in its holes.
    fn take(&mut self, origin: Origin, places: Vec<(u64, PieceIndex)>) {
        let index = self.found.origins.len();
        self.found.origins.push(origin);
        let Some(file) = self.found.open(self.store, index) else {
            return;
        };
        let Ok(stat) = os::stat_file(&file) else {
            return;
        };
        let mut holes = Holes::of(&file);
        for (offset, piece) in places {
            let end = offset + u64::from(self.store.geometry().len_of(piece));
            let is_there = end <= stat.signature.len && !holes.cover(&file, &(offset..end));
            if is_there && !self.held.contains(piece) && self.taken.insert(piece) {
                self.found.places.push((index, offset, piece));
            }
        }
    }

    /// Takes the pieces of `file` from an older file, each at its own offset, when at least one of a few is there.
    fn guess(&mut self, file: FileIndex, origin: Origin) {
        let geometry = self.store.geometry();
        let missing = geometry.file_pieces(file).map(PieceIndex::new);
        let missing =
            missing.filter(|piece| !self.held.contains(*piece) && !self.taken.contains(*piece));
        let spans: Vec<_> = missing
            .map(|piece| (geometry.locate(piece), piece))
            .collect();
        let index = self.found.origins.len();
        self.found.origins.push(origin.clone());
        let Some(handle) = self.found.open(self.store, index) else {
            return;
        };
        let mut buffer = Vec::new();
        let is_there = |(span, piece): &(PieceSpan, PieceIndex)| {
            buffer.resize(span.len as usize, 0);
            let read = disk::read_exact_at(&handle, &mut buffer, span.offset);
            read.is_ok() && self.hashes.verify(geometry, *piece, &buffer).is_some()
        };
        let step = spans.len().div_ceil(SAMPLE_LEN).max(1);
        // From the middle of each stretch: what was added in front or behind is passed by.
        let mut sample = spans.iter().skip(step / 2).step_by(step);
        if sample.any(is_there) {
            let places = spans.into_iter().map(|(span, piece)| (span.offset, piece));
            self.take(origin, places.collect());
        }
    }
}

/// Where a fetch puts the file `path` of a share, when `top` is what it calls the result.
fn below(top: &OsString, layout: Layout, path: &str) -> PathBuf {
    match layout {
        Layout::File => PathBuf::from(top),
        Layout::Folder => Path::new(top).join(path),
    }
}
