//! `Manifest`: what a share is. Its canonical bytes hash to the share's id.
//!
//! Owns the shape of a tree of files, its byte form and every rule a tree has to obey: a `Manifest` that exists is
//! valid, whoever made it. Reads no file and knows no peer. Built by the import in `storage/`, decoded from what
//! peers send, read by everybody.
//!
//! Source: roots are BEP 52 `pieces root`s; the byte form is ours and shown byte by byte in the tests below.

use super::{
    digest::Digest,
    encoding::{self, BorrowDecode, Cursor, DecodeError, Encode},
    geometry::{FILE_COUNT_MAX, FileIndex, Geometry, GeometryError, piece_len_for},
    link::ShareId,
    path::{Name, PathError, RelativePath, escape_hostile},
    records::{self, Checked, Record, Rules},
};

/// Most bytes of a manifest.
pub const MANIFEST_LEN_MAX: usize = 64 * 1024 * 1024;
/// Most entries of a manifest, of all kinds, together with the folders above them: whoever fetches a share makes all of it.
pub const ENTRY_COUNT_MAX: u32 = FILE_COUNT_MAX;

/// First byte of the canonical bytes.
const VERSION: u8 = 1;

/// Whether a share is one file or a folder.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, BorrowDecode)]
pub enum Layout {
    /// Exactly one entry, a file, whose path is the share's name.
    File,
    /// Entries lie below a folder that has the share's name. That name is not part of their paths.
    Folder,
}

/// Something in a share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Where it is. Folders above it are not listed.
    pub path: RelativePath,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Its bytes.
        len: u64,
        /// Its BEP 52 `pieces root`; `None` exactly when it is empty.
        root: Option<Digest>,
        /// Whether its owner may run it.
        executable: bool,
    },
    /// A symlink inside the share.
    Symlink {
        /// Where it points, from the folder it is in; `/` between elements, `..` only in front.
        target: String,
    },
    /// A folder with nothing in it. Other folders follow from the paths of what is in them.
    EmptyFolder,
}

/// A file of a manifest, borrowed from its entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileRef<'a> {
    /// Where it is.
    pub path: &'a RelativePath,
    /// Its bytes.
    pub len: u64,
    /// Its BEP 52 `pieces root`; `None` exactly when it is empty.
    pub root: Option<Digest>,
    /// Whether its owner may run it.
    pub executable: bool,
}

/// What a share is: name, piece length and entries in path order.
///
/// No two entries have the same path and no entry lies below one that is listed. A clone copies all entries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    name: Name,
    layout: Layout,
    entries: Vec<Entry>,
    /// Index in `entries` of each file.
    files: Vec<u32>,
    /// Folders above entries, each once.
    folder_count: u32,
    geometry: Geometry,
    id: ShareId,
}

/// Why entries or bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// More than 64 MiB.
    #[error("manifest of {len} bytes where at most {MANIFEST_LEN_MAX} are allowed")]
    TooLong {
        /// Its bytes.
        len: usize,
    },
    /// More than 2^20 entries and folders above them.
    #[error("{count} files, links and folders where at most {ENTRY_COUNT_MAX} are allowed")]
    TooManyEntries {
        /// All of them.
        count: usize,
    },
    /// Made by a later version, or not a manifest.
    #[error("manifest of version {found}, this version reads {VERSION}")]
    Version {
        /// Its version.
        found: u8,
    },
    /// The bytes do not decode.
    #[error("malformed manifest")]
    Encoding(#[from] DecodeError),
    /// The bytes decode, but the same manifest has other canonical bytes: wrong order or a wasteful number.
    #[error("manifest is not in canonical form")]
    NotCanonical,
    /// A path or the name breaks a rule.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The lengths make no geometry.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// Two entries have this path.
    #[error("path `{path}` appears twice")]
    Duplicate {
        /// The path.
        path: RelativePath,
    },
    /// An entry lies below this one, which is a file, a symlink or an empty folder.
    #[error("`{path}` has entries below it and is not a folder of its own")]
    NotAFolder {
        /// The path.
        path: RelativePath,
    },
    /// An empty file with a root, or another without.
    #[error("file `{path}` of {len} bytes has no root, or one too many")]
    Root {
        /// The path.
        path: RelativePath,
        /// Its bytes.
        len: u64,
    },
    /// A symlink that is absolute, malformed or could lead out of the share.
    #[error("symlink `{path}` may not point to `{}`", escape_hostile(target))]
    SymlinkTarget {
        /// The symlink.
        path: RelativePath,
        /// Where it points.
        target: String,
    },
    /// A share of one file has other entries, or its file another name than the share.
    #[error("a share of one file must hold just that file, named `{name}`")]
    NotOneFile {
        /// The name of the share.
        name: Name,
    },
}

/// The front of the canonical bytes.
#[derive(Encode, BorrowDecode)]
struct Header<'a> {
    layout: Layout,
    name: &'a str,
    piece_len: u32,
    entry_count: u32,
}

impl Manifest {
    /// Makes a manifest of `entries` in any order, with the piece length that [`piece_len_for`] says.
    ///
    /// # Errors
    /// When a rule of [`ManifestError`] is broken.
    pub fn new(name: Name, layout: Layout, mut entries: Vec<Entry>) -> Result<Self, ManifestError> {
        if entries.len() > ENTRY_COUNT_MAX as usize {
            return Err(ManifestError::TooManyEntries {
                count: entries.len(),
            });
        }
        // The stable sort: it gains from long sorted runs, which is what a walk over folders delivers.
        entries.sort_by(|left, right| left.path.cmp(&right.path));
        let piece_len = piece_len_for(&file_lens(&entries));
        Self::from_sorted(name, layout, piece_len, entries)
    }

    /// Reads canonical bytes. What a remote sends is safe to give here: the time is linear, and what is refused takes at
    /// most four times the memory of `bytes`, whatever lengths claim.
    ///
    /// # Errors
    /// When the bytes do not decode, break a rule of [`ManifestError`], or are not the canonical ones.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_LEN_MAX {
            return Err(ManifestError::TooLong { len: bytes.len() });
        }
        let mut cursor = Cursor::new(bytes, MANIFEST_LEN_MAX)?;
        let version = cursor.take()?;
        if version != VERSION {
            return Err(ManifestError::Version { found: version });
        }
        let header: Header<'_> = cursor.take()?;
        if header.entry_count > ENTRY_COUNT_MAX {
            return Err(ManifestError::TooManyEntries {
                count: header.entry_count as usize,
            });
        }
        let name = Name::parse(header.name)?;
        let canonical = [vec![VERSION], encoding::encode(&header)].concat();
        if !bytes.starts_with(&canonical) {
            return Err(ManifestError::NotCanonical);
        }
        // Twice over the bytes: there is no room made for entries before it is known that all of them will stay.
        let rules = Rules::new(&name, header.layout);
        let Checked {
            file_lens,
            folder_count,
        } = records::check_all(cursor.clone(), bytes, header.entry_count, rules)?;
        let geometry = Geometry::new(header.piece_len, &file_lens)?;
        drop(file_lens);
        let mut entries = Vec::with_capacity(header.entry_count as usize);
        for _ in 0..header.entry_count {
            entries.push(cursor.take::<Record<'_>>()?.try_into()?);
        }
        let files = files_of(&entries, &geometry);
        Ok(Self {
            name,
            layout: header.layout,
            entries,
            files,
            folder_count,
            geometry,
            id: ShareId::from_digest(Digest::of(bytes)),
        })
    }

    /// What the share is called whose canonical bytes begin with `bytes`, for which [`Self::HEAD_LEN_MAX`] are enough. Nothing
    /// else of them is looked at.
    #[must_use]
    pub fn name_at_head(bytes: &[u8]) -> Option<Name> {
        let mut cursor = Cursor::new(bytes, MANIFEST_LEN_MAX).ok()?;
        if cursor.take::<u8>().ok()? != VERSION {
            return None;
        }
        let header: Header<'_> = cursor.take().ok()?;
        Name::parse(header.name).ok()
    }

    /// Most bytes in front of the first entry: version, layout, name, and three numbers of at most five bytes.
    pub const HEAD_LEN_MAX: usize = 2 + 255 + 3 * 5;

    /// The canonical bytes: at most 64 MiB, and their SHA-256 is the id.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode_parts(
            &self.name,
            self.layout,
            self.geometry.piece_len(),
            &self.entries,
        )
    }

    /// The identity of the share. Computed once.
    #[must_use]
    pub fn id(&self) -> ShareId {
        self.id
    }

    /// The name of the file or folder.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Whether it is one file or a folder.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// All entries in path order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// All folders below the top: those that are listed because they are empty, and those that follow from paths.
    #[must_use]
    pub fn folder_count(&self) -> u32 {
        let is_empty = |entry: &&Entry| matches!(entry.kind, EntryKind::EmptyFolder);
        self.folder_count + self.entries.iter().filter(is_empty).count() as u32
    }

    /// Its links.
    #[must_use]
    pub fn link_count(&self) -> u32 {
        let is_link = |entry: &&Entry| matches!(entry.kind, EntryKind::Symlink { .. });
        self.entries.iter().filter(is_link).count() as u32
    }

    /// Files, links and folders: what has to be made for all of it, the top folder of a share of several files beside that. At
    /// most [`ENTRY_COUNT_MAX`].
    #[must_use]
    pub fn entry_count(&self) -> u32 {
        self.folder_count + self.entries.len() as u32
    }

    /// How the files become pieces.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The file of this index.
    ///
    /// # Panics
    /// When `file` is of another share and out of range.
    #[must_use]
    pub fn file(&self, file: FileIndex) -> FileRef<'_> {
        let entry = &self.entries[self.files[file.as_usize()] as usize];
        let EntryKind::File {
            len,
            root,
            executable,
        } = entry.kind
        else {
            unreachable!("`files` lists only entries that are files")
        };
        FileRef {
            path: &entry.path,
            len,
            root,
            executable,
        }
    }

    /// All files in path order, empty ones included.
    pub fn files(&self) -> impl Iterator<Item = (FileIndex, FileRef<'_>)> {
        (0..self.geometry.file_count())
            .map(FileIndex::new)
            .map(|file| (file, self.file(file)))
    }

    /// Checks everything but the number of `entries`.
    fn from_sorted(
        name: Name,
        layout: Layout,
        piece_len: u32,
        entries: Vec<Entry>,
    ) -> Result<Self, ManifestError> {
        let mut rules = Rules::new(&name, layout);
        for entry in &entries {
            rules.check(&Record::from(entry))?;
        }
        let Checked {
            file_lens,
            folder_count,
        } = rules.finish()?;
        let geometry = Geometry::new(piece_len, &file_lens)?;
        let canonical = encode_parts(&name, layout, piece_len, &entries);
        if canonical.len() > MANIFEST_LEN_MAX {
            return Err(ManifestError::TooLong {
                len: canonical.len(),
            });
        }
        let files = files_of(&entries, &geometry);
        Ok(Self {
            name,
            layout,
            entries,
            files,
            folder_count,
            geometry,
            id: ShareId::from_digest(Digest::of(&canonical)),
        })
    }
}

/// Index in `entries` of each file.
fn files_of(entries: &[Entry], geometry: &Geometry) -> Vec<u32> {
    let mut files = Vec::with_capacity(geometry.file_count() as usize);
    files.extend(
        (0_u32..)
            .zip(entries)
            .filter(|(_, entry)| matches!(entry.kind, EntryKind::File { .. }))
            .map(|(index, _)| index),
    );
    files
}

fn file_lens(entries: &[Entry]) -> Vec<u64> {
    let lens = entries.iter().map(|entry| match entry.kind {
        EntryKind::File { len, .. } => Some(len),
        EntryKind::Symlink { .. } | EntryKind::EmptyFolder => None,
    });
    lens.flatten().collect()
}

fn encode_parts(name: &Name, layout: Layout, piece_len: u32, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    let entry_count = entries.len() as u32;
    encoding::encode_onto(
        &Header {
            layout,
            name: name.as_str(),
            piece_len,
            entry_count,
        },
        &mut bytes,
    );
    for entry in entries {
        encoding::encode_onto(&Record::from(entry), &mut bytes);
    }
    bytes
}

#[cfg(test)]
mod names;

#[cfg(test)]
mod tests {
    use super::{
        super::{records::RecordKind, testing::Numbers},
        *,
    };

    fn entry(path: &str, kind: EntryKind) -> Entry {
        Entry {
            path: RelativePath::parse(path).unwrap(),
            kind,
        }
    }

    fn file(path: &str, len: u64) -> Entry {
        let root = (len > 0).then(|| Digest::of(path.as_bytes()));
        entry(
            path,
            EntryKind::File {
                len,
                root,
                executable: false,
            },
        )
    }

    fn symlink(path: &str, target: &str) -> Entry {
        entry(
            path,
            EntryKind::Symlink {
                target: target.into(),
            },
        )
    }

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn folder(entries: Vec<Entry>) -> Result<Manifest, ManifestError> {
        Manifest::new(name("tree"), Layout::Folder, entries)
    }

    /// One entry of each kind, out of order.
    fn example() -> Manifest {
        let root = Some(Digest::from_bytes([0xab; 32]));
        folder(vec![
            symlink("link", "b/run"),
            file("a", 0),
            entry("c", EntryKind::EmptyFolder),
            entry(
                "b/run",
                EntryKind::File {
                    len: 300,
                    root,
                    executable: true,
                },
            ),
        ])
        .unwrap()
    }

    /// The bytes of [`example`], with what they mean.
    fn example_bytes() -> Vec<u8> {
        let dump: [(&str, &str); 24] = [
            ("01", "version"),
            ("01", "layout: folder"),
            ("04 74 72 65 65", "name: 4 bytes, tree"),
            ("fc 00 00 01 00", "piece length: 65,536 as four bytes"),
            ("04", "entries"),
            ("01 61", "path: 1 byte, a"),
            ("00", "kind: file"),
            ("00", "length"),
            ("00", "root: none"),
            ("00", "executable: no"),
            ("05 62 2f 72 75 6e", "path: 5 bytes, b/run"),
            ("00", "kind: file"),
            ("fb 2c 01", "length: 300 as two bytes"),
            ("01", "root: 32 bytes"),
            ("abababababababababababababababab", ""),
            ("abababababababababababababababab", ""),
            ("01", "executable: yes"),
            ("01 63", "path: 1 byte, c"),
            ("02", "kind: empty folder"),
            ("04 6c 69 6e 6b", "path: 4 bytes, link"),
            ("01", "kind: symlink"),
            ("05", "target: 5 bytes"),
            ("62 2f", "b/"),
            ("72 75 6e", "run"),
        ];
        let digits: String = dump.iter().map(|(hex, _)| hex.replace(' ', "")).collect();
        data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap()
    }

    #[test]
    fn the_canonical_bytes_are_these_and_no_others() {
        assert_eq!(example().encode(), example_bytes());
        assert_eq!(Manifest::decode(&example_bytes()).unwrap(), example());
        assert_eq!(example().id().digest(), &Digest::of(&example_bytes()));
        let id = "6fkfvdtoyh4ltfscep4j3hamijfhpjfaftzddzyja4atsshtk3ojlu2u";
        assert_eq!(example().id().to_string(), id);
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = example_bytes();
        for end in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..end]).is_err(), "{end} bytes");
        }
        assert!(Manifest::decode(&[&bytes[..], &[0]].concat()).is_err());
    }

    #[test]
    fn every_changed_byte_is_refused_or_makes_another_share() {
        let bytes = example_bytes();
        for index in 0..bytes.len() {
            for value in 0..=u8::MAX {
                let mut changed = bytes.clone();
                changed[index] = value;
                if let Ok(manifest) = Manifest::decode(&changed) {
                    assert_eq!(manifest.encode(), changed);
                    assert_eq!(manifest.id() == example().id(), changed == bytes);
                }
            }
        }
    }

    #[test]
    fn garbage_is_refused_without_a_panic() {
        let mut numbers = Numbers::seeded(7);
        for _ in 0..20_000 {
            let mut bytes = example_bytes();
            for _ in 0..=numbers.below(3) {
                let index = numbers.below(bytes.len() as u32) as usize;
                let end = (index + numbers.below(12) as usize).min(bytes.len());
                let garbage_len = numbers.below(12) as usize;
                bytes.splice(index..end, numbers.bytes(garbage_len));
            }
            if let Ok(manifest) = Manifest::decode(&bytes) {
                assert_eq!(manifest.encode(), bytes);
            }
        }
    }

    #[test]
    fn entries_given_in_any_order_make_the_same_share() {
        let mut entries = example().entries;
        for _ in 0..entries.len() {
            entries.rotate_left(1);
            assert_eq!(folder(entries.clone()).unwrap(), example());
        }
        let renamed = Manifest::new(name("other"), Layout::Folder, entries).unwrap();
        assert_ne!(renamed.id(), example().id());
    }

    #[test]
    fn bytes_in_another_form_are_not_canonical() {
        let header = [1, 1, 1, b't', 252, 0, 0, 1, 0];
        let (a, b) = ([1, b'a', 2], [1, b'b', 2]);
        let sorted = [&header[..], &[2], &a, &b].concat();
        Manifest::decode(&sorted).unwrap();
        let cases = [
            ("unsorted", [&header[..], &[2], &b, &a].concat()),
            (
                "entry count as two bytes",
                [&header[..], &[251, 2, 0], &a, &b].concat(),
            ),
            (
                "path length as two bytes",
                [&header[..], &[1, 251, 1, 0, b'a', 2]].concat(),
            ),
            (
                "kind as two bytes",
                [&header[..], &[1, 1, b'a', 251, 2, 0]].concat(),
            ),
        ];
        for (case, bytes) in cases {
            let error = Manifest::decode(&bytes).unwrap_err();
            assert!(
                matches!(error, ManifestError::NotCanonical),
                "{case}: {error}"
            );
        }
        let twice = [&header[..], &[2], &a, &a].concat();
        assert!(matches!(
            Manifest::decode(&twice),
            Err(ManifestError::Duplicate { .. })
        ));
    }

    #[test]
    fn any_legal_piece_length_is_kept_and_no_other() {
        for level in 0..32 {
            let piece_len: u32 = 1 << level;
            let header = Header {
                layout: Layout::Folder,
                name: "t",
                piece_len,
                entry_count: 0,
            };
            let bytes = [vec![VERSION], encoding::encode(&header)].concat();
            match Manifest::decode(&bytes) {
                Ok(manifest) => assert_eq!(manifest.geometry().piece_len(), piece_len),
                Err(error) => assert!(!(14..=24).contains(&level), "{piece_len}: {error}"),
            }
        }
    }

    #[test]
    fn lengths_that_promise_more_than_there_is_are_refused() {
        let header = [1, 1, 1, b't', 252, 0, 0, 1, 0];
        let count = |count: u32| [&header[..], &encoding::encode(&count)].concat();
        let error = Manifest::decode(&count(ENTRY_COUNT_MAX + 1)).unwrap_err();
        assert!(
            matches!(error, ManifestError::TooManyEntries { .. }),
            "{error}"
        );
        let error = Manifest::decode(&count(ENTRY_COUNT_MAX)).unwrap_err();
        assert!(matches!(error, ManifestError::Encoding(_)), "{error}");
        for len in [300, 1 << 20, u64::from(u32::MAX), 1 << 40, u64::MAX] {
            let len = encoding::encode(&len);
            for bomb in [
                [&[1, 1][..], &len, b"name"].concat(),
                [&header[..], &[1], &len, b"path"].concat(),
                [&header[..], &[1, 1, b'a', 1], &len, b"target"].concat(),
            ] {
                let error = Manifest::decode(&bomb).unwrap_err();
                assert!(matches!(error, ManifestError::Encoding(_)), "{error}");
            }
        }
    }

    #[test]
    fn trees_that_break_a_rule_are_refused() {
        type Check = fn(&ManifestError) -> bool;
        let cases: [(Vec<Entry>, Check); 12] = [
            (vec![file("a", 1), file("a", 2)], |error| {
                matches!(error, ManifestError::Duplicate { .. })
            }),
            (vec![file("a", 1), symlink("a", "b")], |error| {
                matches!(error, ManifestError::Duplicate { .. })
            }),
            (
                vec![file("a/b", 1), file("a-b", 1), file("a", 1)],
                |error| matches!(error, ManifestError::NotAFolder { path } if path.as_str() == "a"),
            ),
            (vec![symlink("a", "b"), file("a/b/c/d", 1)], |error| {
                matches!(error, ManifestError::NotAFolder { .. })
            }),
            (
                vec![entry("a", EntryKind::EmptyFolder), file("a/b", 0)],
                |error| matches!(error, ManifestError::NotAFolder { .. }),
            ),
            (vec![symlink("a", "/etc")], |error| {
                matches!(error, ManifestError::SymlinkTarget { .. })
            }),
            (vec![symlink("a/b", "../../c")], |error| {
                matches!(error, ManifestError::SymlinkTarget { .. })
            }),
            (vec![symlink("a", "")], |error| {
                matches!(error, ManifestError::SymlinkTarget { .. })
            }),
            (
                vec![entry(
                    "a",
                    EntryKind::File {
                        len: 1,
                        root: None,
                        executable: false,
                    },
                )],
                |error| matches!(error, ManifestError::Root { len: 1, .. }),
            ),
            (
                vec![entry(
                    "a",
                    EntryKind::File {
                        len: 0,
                        root: Some(Digest::ZERO),
                        executable: false,
                    },
                )],
                |error| matches!(error, ManifestError::Root { len: 0, .. }),
            ),
            (vec![file("a", u64::MAX)], |error| {
                matches!(
                    error,
                    ManifestError::Geometry(GeometryError::TooManyPieces { .. })
                )
            }),
            (vec![file("a", 1 << 62), file("b", u64::MAX)], |error| {
                matches!(
                    error,
                    ManifestError::Geometry(GeometryError::TooManyPieces { .. })
                )
            }),
        ];
        for (entries, is_expected) in cases {
            let error = folder(entries.clone()).unwrap_err();
            assert!(is_expected(&error), "{entries:?}: {error:?}");

            let mut sorted = entries;
            sorted.sort_by(|left, right| left.path.cmp(&right.path));
            let bytes = encode_parts(&name("tree"), Layout::Folder, 1 << 24, &sorted);
            let error = Manifest::decode(&bytes).unwrap_err();
            assert!(is_expected(&error), "decoded: {error:?}");
        }
    }

    #[test]
    fn paths_and_names_of_a_remote_are_checked() {
        for path in ["../a", "/a", "a\\b", "a/./b", "a\0", ""] {
            let record = Record {
                path,
                kind: RecordKind::EmptyFolder,
            };
            let header = Header {
                layout: Layout::Folder,
                name: "t",
                piece_len: 1 << 16,
                entry_count: 1,
            };
            let bytes = [
                vec![VERSION],
                encoding::encode(&header),
                encoding::encode(&record),
            ];
            let error = Manifest::decode(&bytes.concat()).unwrap_err();
            assert!(
                matches!(error, ManifestError::Path(_)),
                "{path:?}: {error:?}"
            );

            let header = Header {
                layout: Layout::Folder,
                name: path,
                piece_len: 1 << 16,
                entry_count: 0,
            };
            let error =
                Manifest::decode(&[vec![VERSION], encoding::encode(&header)].concat()).unwrap_err();
            assert!(
                matches!(error, ManifestError::Path(_)),
                "{path:?}: {error:?}"
            );
        }
    }

    #[test]
    fn a_share_of_one_file_holds_that_file_under_its_name() {
        let one = |entries| Manifest::new(name("a"), Layout::File, entries);
        assert!(one(vec![file("a", 5)]).is_ok() && one(vec![file("a", 0)]).is_ok());
        for entries in [
            vec![],
            vec![file("b", 5)],
            vec![file("a", 5), file("b", 5)],
            vec![symlink("a", "b")],
            vec![entry("a", EntryKind::EmptyFolder)],
        ] {
            let error = one(entries).unwrap_err();
            assert!(
                matches!(error, ManifestError::NotOneFile { .. }),
                "{error:?}"
            );
        }
    }

    #[test]
    fn other_versions_and_sizes_are_refused_with_the_reason() {
        let mut bytes = example_bytes();
        bytes[0] = 2;
        assert!(matches!(
            Manifest::decode(&bytes),
            Err(ManifestError::Version { found: 2 })
        ));
        let bytes = vec![0; MANIFEST_LEN_MAX + 1];
        assert!(matches!(
            Manifest::decode(&bytes),
            Err(ManifestError::TooLong { .. })
        ));
        let entries = vec![entry("a", EntryKind::EmptyFolder); ENTRY_COUNT_MAX as usize + 1];
        assert!(matches!(
            folder(entries),
            Err(ManifestError::TooManyEntries { .. })
        ));
    }

    #[test]
    fn the_head_of_a_manifest_tells_the_longest_name() {
        let long = "n".repeat(255);
        let entries = (0..2_000).map(|index| file(&format!("{index}"), 1 << 20));
        let manifest = Manifest::new(name(&long), Layout::Folder, entries.collect()).unwrap();
        let bytes = manifest.encode();
        let told = Manifest::name_at_head(&bytes[..Manifest::HEAD_LEN_MAX]);
        assert_eq!(told.as_ref(), Some(manifest.name()));
        assert_eq!(Manifest::name_at_head(&bytes[..100]), None);
        assert_eq!(Manifest::name_at_head(&[]), None);
    }

    #[test]
    fn folders_above_entries_count_once_each() {
        let cases: [(&[&str], u32); 6] = [
            (&["a", "b"], 0),
            (&["d/a", "d/b"], 1),
            (&["d/a", "d.e/a"], 2),
            (&["a/b/c/x", "a/b/d/x", "a/e"], 4),
            (&["ab/x", "abc/x"], 2),
            (&["x/y/z", "y/x/z"], 4),
        ];
        for (paths, folders) in cases {
            let manifest = folder(paths.iter().map(|path| file(path, 1)).collect()).unwrap();
            assert_eq!(manifest.folder_count(), folders, "{paths:?}");
            assert_eq!(manifest.entry_count(), folders + paths.len() as u32);
            let decoded = Manifest::decode(&manifest.encode()).unwrap();
            assert_eq!(decoded.folder_count(), folders, "{paths:?}");
        }
        assert_eq!(example().folder_count(), 2, "one above a file, one empty");
    }

    #[test]
    fn a_few_bytes_cannot_make_more_folders_than_a_share_may_have_entries() {
        let below = "/d".repeat(63);
        let chains = |count: u32| -> Vec<Entry> {
            (0..count)
                .map(|chain| entry(&format!("{chain}{below}"), EntryKind::EmptyFolder))
                .collect()
        };
        let most = ENTRY_COUNT_MAX / 64;
        let manifest = folder(chains(most)).unwrap();
        assert_eq!(manifest.entry_count(), ENTRY_COUNT_MAX);
        assert!(Manifest::decode(&manifest.encode()).is_ok());
        let error = folder(chains(most + 1)).unwrap_err();
        assert!(
            matches!(error, ManifestError::TooManyEntries { count } if count == 64 + ENTRY_COUNT_MAX as usize),
            "{error:?}"
        );
        // As a peer would send it.
        let mut sent = vec![VERSION];
        let header = Header {
            layout: Layout::Folder,
            name: "tree",
            piece_len: 1 << 16,
            entry_count: most + 1,
        };
        encoding::encode_onto(&header, &mut sent);
        let mut entries = chains(most + 1);
        entries.sort_by(|left, right| left.path.cmp(&right.path));
        for entry in &entries {
            encoding::encode_onto(&Record::from(entry), &mut sent);
        }
        let error = Manifest::decode(&sent).unwrap_err();
        assert!(
            matches!(error, ManifestError::TooManyEntries { .. }),
            "{error:?}"
        );
    }

    #[test]
    fn a_share_longer_than_a_manifest_may_be_is_refused() {
        // 17,000 symlinks of 4 KiB each.
        let target = format!("{}/", "t".repeat(255)).repeat(15) + "end";
        let entries = (0..17_500)
            .map(|index| symlink(&format!("{index}"), &target))
            .collect();
        assert!(matches!(
            folder(entries),
            Err(ManifestError::TooLong { .. })
        ));
    }

    #[test]
    fn files_are_numbered_in_path_order_without_folders_and_symlinks() {
        let manifest = example();
        let files: Vec<_> = manifest
            .files()
            .map(|(index, file)| (index.get(), file))
            .collect();
        assert_eq!(files.len(), 2);
        assert_eq!(
            (files[0].0, files[0].1.path.as_str(), files[0].1.root),
            (0, "a", None)
        );
        assert_eq!(
            (files[1].0, files[1].1.path.as_str(), files[1].1.len),
            (1, "b/run", 300)
        );
        assert!(files[1].1.executable && !files[0].1.executable);
        assert_eq!(manifest.file(FileIndex::new(1)), files[1].1);
        assert_eq!(manifest.geometry().file_len(FileIndex::new(1)), 300);
        assert_eq!(folder(vec![]).unwrap().files().count(), 0);
    }
}
