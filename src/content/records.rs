//! `Record`: one entry in the canonical bytes of a manifest, borrowed from them, and the rules that entries obey.
//!
//! Owns the byte form of an entry and everything that a list of them has to fulfil, looked at one by one, so that a list
//! which breaks a rule is refused before there is room for it. Keeps none. Called by `manifest.rs` only.
//!
//! Source: the protocol document, "Content".

use super::{
    digest::Digest,
    encoding::{self, BorrowDecode, Cursor, Encode},
    manifest::{ENTRY_COUNT_MAX, Entry, EntryKind, Layout, ManifestError},
    path::{self, Name, PathError, RelativePath},
};

/// One entry in the canonical bytes.
#[derive(Encode, BorrowDecode)]
pub(super) struct Record<'a> {
    pub(super) path: &'a str,
    pub(super) kind: RecordKind<'a>,
}

#[derive(Encode, BorrowDecode)]
pub(super) enum RecordKind<'a> {
    File {
        len: u64,
        root: Option<Digest>,
        executable: bool,
    },
    Symlink {
        target: &'a str,
    },
    EmptyFolder,
}

/// Looks at one record after another, in path order.
pub(super) struct Rules<'a> {
    name: &'a Name,
    layout: Layout,
    previous: Option<&'a str>,
    /// Records so far.
    record_count: usize,
    /// Folders above them, each once.
    folder_count: usize,
    /// Bytes of every file so far.
    file_lens: Vec<u64>,
}

/// What records that break no rule are together.
pub(super) struct Checked {
    /// Bytes of every file.
    pub(super) file_lens: Vec<u64>,
    /// Folders above entries, which have no records.
    pub(super) folder_count: u32,
}

impl<'a> Rules<'a> {
    /// For a share of this name and layout, nothing looked at yet.
    pub(super) fn new(name: &'a Name, layout: Layout) -> Self {
        Self {
            name,
            layout,
            previous: None,
            record_count: 0,
            folder_count: 0,
            file_lens: Vec::new(),
        }
    }

    /// The next record, whose path is one.
    ///
    /// # Errors
    /// The rule it breaks; `NotCanonical` when it belongs before its predecessor.
    pub(super) fn check(&mut self, record: &Record<'a>) -> Result<(), ManifestError> {
        let path = |path| RelativePath::parse(path).map_err(ManifestError::Path);
        let previous = self.previous.replace(record.path);
        self.record_count += 1;
        self.folder_count += path::folders_not_above(record.path, previous.unwrap_or_default());
        // In path order what lies below a path follows it directly, so neighbours tell everything.
        if let Some(previous) = previous {
            if self.layout == Layout::File {
                return Err(self.not_one_file());
            }
            if path::is_below(record.path, previous) {
                return Err(ManifestError::NotAFolder {
                    path: path(previous)?,
                });
            }
            match path::compare(previous, record.path) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => {
                    return Err(ManifestError::Duplicate {
                        path: path(previous)?,
                    });
                }
                std::cmp::Ordering::Greater => return Err(ManifestError::NotCanonical),
            }
        }
        match record.kind {
            RecordKind::File { len, root, .. } if root.is_none() != (len == 0) => {
                return Err(ManifestError::Root {
                    path: path(record.path)?,
                    len,
                });
            }
            RecordKind::Symlink { target } if !path::is_inside(record.path, target) => {
                return Err(ManifestError::SymlinkTarget {
                    path: path(record.path)?,
                    target: target.to_owned(),
                });
            }
            RecordKind::File { len, .. } => self.file_lens.push(len),
            RecordKind::Symlink { .. } | RecordKind::EmptyFolder => {}
        }
        let is_the_file =
            record.path == self.name.as_str() && matches!(record.kind, RecordKind::File { .. });
        match self.layout {
            Layout::File if !is_the_file => Err(self.not_one_file()),
            Layout::File | Layout::Folder => Ok(()),
        }
    }

    /// What the records are together, when none is missing.
    ///
    /// # Errors
    /// `NotOneFile`, for a share of one file without it; `TooManyEntries`.
    pub(super) fn finish(self) -> Result<Checked, ManifestError> {
        if (self.layout, self.previous) == (Layout::File, None) {
            return Err(self.not_one_file());
        }
        let count = self.record_count + self.folder_count;
        if count > ENTRY_COUNT_MAX as usize {
            return Err(ManifestError::TooManyEntries { count });
        }
        Ok(Checked {
            file_lens: self.file_lens,
            // Below the number just checked.
            folder_count: self.folder_count as u32,
        })
    }

    fn not_one_file(&self) -> ManifestError {
        let name = self.name.clone();
        ManifestError::NotOneFile { name }
    }
}

/// What the `count` records are together that `cursor` has yet to read, which are all that is left of `bytes`.
/// Makes room for nothing but the lengths of files.
///
/// # Errors
/// When they do not decode, break a rule, are not in canonical form, or something follows them.
pub(super) fn check_all<'a>(
    mut cursor: Cursor<'a>,
    bytes: &'a [u8],
    count: u32,
    mut rules: Rules<'a>,
) -> Result<Checked, ManifestError> {
    let mut canonical = Vec::new();
    for _ in 0..count {
        let rest = &bytes[bytes.len() - cursor.remaining()..];
        let record: Record<'_> = cursor.take()?;
        path::check_path(record.path)?;
        rules.check(&record)?;
        canonical.clear();
        encoding::encode_onto(&record, &mut canonical);
        if rest[..rest.len() - cursor.remaining()] != canonical {
            return Err(ManifestError::NotCanonical);
        }
    }
    cursor.finish()?;
    rules.finish()
}

impl<'a> From<&'a Entry> for Record<'a> {
    fn from(entry: &'a Entry) -> Self {
        let kind = match &entry.kind {
            EntryKind::File {
                len,
                root,
                executable,
            } => RecordKind::File {
                len: *len,
                root: *root,
                executable: *executable,
            },
            EntryKind::Symlink { target } => RecordKind::Symlink { target },
            EntryKind::EmptyFolder => RecordKind::EmptyFolder,
        };
        Self {
            path: entry.path.as_str(),
            kind,
        }
    }
}

impl TryFrom<Record<'_>> for Entry {
    type Error = PathError;

    fn try_from(record: Record<'_>) -> Result<Self, Self::Error> {
        let path = RelativePath::parse(record.path)?;
        let kind = match record.kind {
            RecordKind::File {
                len,
                root,
                executable,
            } => EntryKind::File {
                len,
                root,
                executable,
            },
            RecordKind::Symlink { target } => EntryKind::Symlink {
                target: target.to_owned(),
            },
            RecordKind::EmptyFolder => EntryKind::EmptyFolder,
        };
        Ok(Self { path, kind })
    }
}
