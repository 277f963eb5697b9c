//! Pieces of older versions beside the target: taken when they are what they should be, never anything else.

use super::*;
use crate::storage::KnownShares;

/// Bytes of a file of some pieces of 64 KiB.
const LEN: usize = 40 * 65_536 + 1_000;

/// A folder in which versions of one file are made and fetched.
struct Versions {
    folder: tempfile::TempDir,
}

impl Versions {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn down(&self) -> PathBuf {
        self.folder.path().join("down")
    }

    fn memory(&self) -> PathBuf {
        self.folder.path().join("memory")
    }

    /// A share of the file `data.bin` with these bytes.
    fn share(&self, version: &str, bytes: &[u8]) -> Imported {
        let path = self.folder.path().join(version).join("data.bin");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        let never = AtomicBool::new(false);
        import(&[path], &ImportOptions::default(), &|_| {}, &never).unwrap()
    }

    fn open(&self, share: &Imported, output: Option<&str>) -> FetchStore {
        let target = Target {
            dir: self.down(),
            output: output.map(|name| self.down().join(name)),
            overwrite: true,
        };
        let (manifest, hashes) = (share.manifest.clone(), share.hashes.clone());
        let all = Chosen::all(&manifest);
        let opened = FetchStore::open(&target, manifest, hashes, all, None, &|_, _| {});
        opened.unwrap().0
    }

    /// Fetches the first `count` pieces of `share`.
    fn fetch(&self, share: &Imported, count: u32) -> FetchStore {
        let store = self.open(share, None);
        let geometry = share.manifest.geometry();
        for piece in geometry.pieces().take(count as usize) {
            let mut bytes = vec![0; geometry.len_of(piece) as usize];
            share.store.read_piece(piece, &mut bytes).unwrap();
            let verified = share.hashes.verify(geometry, piece, &bytes).unwrap();
            store.write_piece(verified).unwrap();
        }
        store
    }

    /// What an open of `share` finds and takes: pieces found, pieces taken.
    fn reuse(&self, share: &Imported, store: &FetchStore) -> (u32, u32) {
        let reusable = store.reusable(&share.hashes, &self.memory());
        let geometry = share.manifest.geometry();
        let (mut taken, mut lost) = (0, 0);
        let told = |piece, outcome| {
            match outcome {
                Reused::Lost => lost += 1,
                Reused::Stored(_) => {
                    taken += 1;
                    let mut bytes = vec![0; geometry.len_of(piece) as usize];
                    store.read_piece(piece, &mut bytes).unwrap();
                    assert!(share.hashes.verify(geometry, piece, &bytes).is_some());
                }
            }
            true
        };
        store.reuse(&share.hashes, &reusable, told).unwrap();
        let found = reusable.pieces(geometry.piece_count()).count();
        assert_eq!(found, taken + lost, "each is told");
        (found, taken)
    }
}

/// `bytes` with one changed in each of three pieces.
fn changed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for piece in [2, 9, 30] {
        bytes[piece * 65_536 + 5] ^= 1;
    }
    bytes
}

#[test]
fn an_unfinished_older_version_gives_the_pieces_it_holds_and_stays_as_it_was() {
    let versions = Versions::new();
    let first = noise(LEN, 1);
    let (old, new) = (
        versions.share("v1", &first),
        versions.share("v2", &changed(&first)),
    );
    drop(versions.fetch(&old, 20));
    let before = list(&versions.down());
    let store = versions.open(&new, None);
    assert_eq!(versions.reuse(&new, &store), (18, 18));
    drop(store);
    let id = new.manifest.id().to_string();
    fs::remove_dir_all(versions.down().join(format!(".shoal-{}.part", &id[..16]))).unwrap();
    assert_eq!(list(&versions.down()), before);
}

#[test]
fn a_finished_older_version_gives_its_pieces_whether_its_hashes_are_known_or_not() {
    for is_known in [true, false] {
        let versions = Versions::new();
        let first = noise(LEN, 1);
        let (old, new) = (
            versions.share("v1", &first),
            versions.share("v2", &changed(&first)),
        );
        let count = old.manifest.geometry().piece_count();
        versions.fetch(&old, count).finish().unwrap();
        if is_known {
            KnownShares::open(&versions.memory()).keep(&old.manifest, &old.hashes);
        }
        for output in [None, Some("other.bin")] {
            let store = versions.open(&new, output);
            let (found, taken) = versions.reuse(&new, &store);
            assert_eq!(taken, count - 3, "{is_known} {output:?}");
            // Known hashes tell which are not equal.
            assert_eq!(found, if is_known { count - 3 } else { count });
            assert_eq!(fs::read(versions.down().join("data.bin")).unwrap(), first);
            store.part.as_ref().unwrap().remove(&store.root).unwrap();
        }
    }
}

#[test]
fn a_file_of_the_same_name_that_is_no_older_version_holds_up_nothing() {
    let versions = Versions::new();
    let new = versions.share("v2", &noise(LEN, 1));
    fs::create_dir_all(versions.down()).unwrap();
    fs::write(versions.down().join("data.bin"), noise(LEN, 9)).unwrap();
    let store = versions.open(&new, None);
    assert_eq!(versions.reuse(&new, &store), (0, 0));
}

#[test]
fn an_older_version_whose_bytes_changed_gives_only_what_is_as_it_should_be() {
    let versions = Versions::new();
    let first = noise(LEN, 1);
    let old = versions.share("v1", &first);
    let new = versions.share("v2", &changed(&first));
    drop(versions.fetch(&old, 20));
    let id = old.manifest.id().to_string();
    let part = versions.down().join(format!(".shoal-{}.part/0", &id[..16]));
    let mut bytes = fs::read(&part).unwrap();
    bytes[5 * 65_536] ^= 1;
    fs::write(&part, bytes).unwrap();
    let store = versions.open(&new, None);
    let (_, taken) = versions.reuse(&new, &store);
    assert_eq!(taken, 17);
    assert!(!store.state().held.contains(PieceIndex::new(5)));
}

#[test]
fn an_older_version_in_pieces_of_another_length_is_recognised_by_its_roots_or_its_bytes() {
    let first = noise(LEN, 1);
    for (bytes, expected) in [(first.clone(), 21), (changed(&first), 18)] {
        let versions = Versions::new();
        let share = |version: &str, bytes: &[u8], hole: u64| {
            let top = versions.folder.path().join(version).join("tree");
            fs::create_dir_all(&top).unwrap();
            fs::write(top.join("data.bin"), bytes).unwrap();
            let file = fs::File::create(top.join("hole")).unwrap();
            file.set_len(hole).unwrap();
            let never = AtomicBool::new(false);
            import(&[top], &ImportOptions::default(), &|_| {}, &never).unwrap()
        };
        let (old, new) = (share("v1", &first, 0), share("v2", &bytes, 300 << 20));
        assert_eq!(new.manifest.geometry().piece_len(), 128 << 10);
        let store = versions.fetch(&old, old.manifest.geometry().piece_count());
        // Stopped before it could give names.
        drop(store);
        let store = versions.open(&new, None);
        assert_eq!(versions.reuse(&new, &store).1, expected);
    }
}
