//! A share of 64 pieces and one fetch of it, killed once on the way: what `crashes` and `faults` put through everything.
//!
//! One big file, one of several pieces in a folder, small ones, an empty one, a link and an empty folder; some pieces are zeros,
//! some partly so; pieces come in no order, with a sync now and then. The disk it lies on is memory where the system has such a folder, for speed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::watching::{Event, Watcher, tell};
use super::{Scene, noise};
use crate::content::{Bitfield, FileIndex, PieceIndex};
use crate::storage::{Chosen, FetchStore, Imported, PartFolder, PieceStore, StorageError, Target};

/// Pieces stored when the process is killed.
const KILLED_AT: usize = 31;
const PIECE_LEN: usize = 64 * 1024;
/// Files of one piece: as many as make 64 pieces.
const SMALL_FILES: usize = 34;

/// The share, its bytes, and an order of its pieces.
pub(super) struct Share64 {
    pub(super) scene: Scene,
    pub(super) pieces: Vec<Vec<u8>>,
    order: Vec<PieceIndex>,
    /// Pieces stored between two syncs.
    sync_pieces: usize,
    /// Expected bytes by path below the result.
    files: Vec<(FileIndex, String)>,
}

/// A folder in memory if there is one.
pub(super) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory)
            .or_else(|_| tempfile::tempdir())
            .unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// Runs `act` where all that is parallel runs on its thread, which is the one that is watched.
pub(super) fn alone<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let builder = rayon::ThreadPoolBuilder::new().num_threads(1);
            let _pool = builder.use_current_thread().build().unwrap();
            act()
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl Share64 {
    pub(super) fn new(sync_pieces: usize) -> Self {
        let source = folder();
        let top = source.path().join("source/tree");
        fs::create_dir_all(top.join("sub/hollow")).unwrap();
        fs::create_dir_all(top.join("small")).unwrap();
        let mut big = noise(PIECE_LEN * 20 - 777, 1);
        big[PIECE_LEN * 5..PIECE_LEN * 7].fill(0);
        big[PIECE_LEN * 9 + 5000..PIECE_LEN * 10 - 5000].fill(0);
        big[PIECE_LEN * 18..].fill(0);
        fs::write(top.join("big"), big).unwrap();
        fs::write(top.join("sub/some"), noise(PIECE_LEN * 9 + 1, 2)).unwrap();
        fs::write(top.join("none"), b"").unwrap();
        std::os::unix::fs::symlink("../big", top.join("sub/link")).unwrap();
        for number in 0..SMALL_FILES {
            let mut bytes = noise(600 + number * 250, number as u64 + 3);
            if number == 7 {
                bytes.fill(0);
            }
            fs::write(top.join(format!("small/{number}")), bytes).unwrap();
        }
        let scene = Scene::of(source, &top);
        let geometry = scene.geometry();
        assert_eq!(geometry.piece_count(), 64);
        let mut order: Vec<_> = geometry.pieces().collect();
        order.shuffle(&mut StdRng::seed_from_u64(64));
        let pieces = geometry.pieces().map(|piece| scene.bytes(piece)).collect();
        let files = scene.share.manifest.files();
        let files = files
            .map(|(file, entry)| (file, entry.path.as_str().to_owned()))
            .collect();
        Self {
            scene,
            pieces,
            order,
            sync_pieces,
            files,
        }
    }

    pub(super) fn target(top: &Path) -> Target {
        Target {
            dir: top.join("down"),
            output: None,
            overwrite: false,
        }
    }

    /// A watcher of what happens below `top`.
    pub(super) fn watcher(top: &Path) -> Watcher {
        let mut watcher = Watcher::default();
        watcher.boot = [1; 16];
        watcher.id_of(fs::metadata(top).unwrap().ino());
        watcher
    }

    /// Opens as a run of the program does: with what an earlier one left, if that is readable.
    pub(super) fn open(&self, top: &Path) -> Result<(FetchStore, Bitfield), StorageError> {
        let target = Self::target(top);
        let Imported {
            manifest, hashes, ..
        } = &self.scene.share;
        let found = PartFolder::open_existing(&target, &manifest.id())?;
        if let Some(found) = &found {
            assert_eq!(
                found.manifest, *manifest,
                "what is saved is right or not there"
            );
        }
        FetchStore::open(
            &target,
            manifest.clone(),
            hashes.clone(),
            Chosen::all(manifest),
            found,
            &|_, _| {},
        )
    }

    /// Fetches everything, killed once on the way, telling the watcher what it achieved.
    ///
    /// # Errors
    /// The first, which ends a fetch.
    pub(super) fn fetch(&self, top: &Path) -> Result<(), StorageError> {
        let (store, _) = self.open(top)?;
        let times = vec![1_000_000_000_000_000_000; self.files.len()];
        store.set_modified(times.clone());
        let mut stored = Vec::new();
        self.store(&store, &self.order[..KILLED_AT], &mut stored)?;
        drop(store);
        let (store, _) = self.open(top)?;
        store.set_modified(times);
        self.store(&store, &self.order[KILLED_AT..], &mut stored)?;
        store.finish()?;
        tell(Event::Done);
        Ok(())
    }

    fn store(
        &self,
        store: &FetchStore,
        pieces: &[PieceIndex],
        stored: &mut Vec<PieceIndex>,
    ) -> Result<(), StorageError> {
        for &piece in pieces {
            self.write(store, piece)?;
            tell(Event::Stored(piece));
            stored.push(piece);
            if stored.len().is_multiple_of(self.sync_pieces) {
                store.sync()?;
                tell(Event::Synced(stored.clone()));
            }
        }
        Ok(())
    }

    fn write(&self, store: &FetchStore, piece: PieceIndex) -> Result<(), StorageError> {
        let bytes = &self.pieces[piece.get() as usize];
        let hashes = &self.scene.share.hashes;
        let verified = hashes.verify(self.scene.geometry(), piece, bytes);
        store.write_piece(verified.unwrap()).map(|_| ())
    }

    /// Fetches what is missing and finishes; then the result is the source and nothing lies beside it.
    pub(super) fn complete(&self, store: &FetchStore, held: &Bitfield) -> Result<(), StorageError> {
        for piece in held.iter_zeros() {
            self.write(store, piece)?;
        }
        store.finish().map(|_| ())
    }

    /// That the result lies where it should and is the source, whatever lies beside it.
    pub(super) fn check_shown(&self, top: &Path) -> Result<(), String> {
        let expected = super::list(&self.scene.folder.path().join("source/tree"));
        let found = super::list(&top.join("down/tree"));
        if found != expected {
            return Err(format!("the result differs: {found:?}"));
        }
        Ok(())
    }

    /// That a complete fetch is what it should be.
    pub(super) fn check_complete(&self, top: &Path) -> Result<(), String> {
        self.check_shown(top)?;
        match super::names(&top.join("down")).as_slice() {
            [only] if only == "tree" => Ok(()),
            names => Err(format!("left over: {names:?}")),
        }
    }

    /// Files under their final names that are not what they should be.
    pub(super) fn wrong_files(&self, top: &Path) -> Vec<PathBuf> {
        let result = top.join("down/tree");
        self.files
            .iter()
            .filter_map(|(file, path)| {
                let path = result.join(path);
                let bytes = fs::read(&path).ok()?;
                let pieces = self.scene.geometry().file_pieces(*file);
                let expected = pieces.map(|piece| self.pieces[piece as usize].as_slice());
                let is_right = bytes == expected.collect::<Vec<_>>().concat();
                (!is_right).then_some(path)
            })
            .collect()
    }

    /// That every piece counted as held is the right one.
    pub(super) fn check_held(&self, store: &FetchStore, held: &Bitfield) -> Result<(), String> {
        for piece in held.iter() {
            let expected = &self.pieces[piece.get() as usize];
            let mut bytes = vec![0; expected.len()];
            store
                .read_piece(piece, &mut bytes)
                .map_err(|error| format!("held piece {piece} is not read: {error}"))?;
            if bytes != *expected {
                return Err(format!("held piece {piece} is wrong"));
            }
        }
        Ok(())
    }
}
