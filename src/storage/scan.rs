//! Walks the paths a user wants to share and lists what becomes an entry.
//!
//! Owns which things are taken, skipped with a note, or refused, and what they are called in the share. It opens no file
//! and hashes nothing. Called by `import`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::StorageError;
use super::globs::Globs;
use super::os::{self, Kind, Signature, Stat};
use super::part;
use crate::content::{
    ENTRY_COUNT_MAX, Entry, EntryKind, Layout, Name, PATH_DEPTH_MAX, PATH_LEN_MAX, PathError,
    RelativePath, is_symlink_target_inside,
};

/// Files between two reports of progress.
const REPORT_FILES: u64 = 256;

/// Something that lies in a shared folder and is not, or cannot be, part of the share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Where it lies.
    pub path: PathBuf,
    /// Why it is left out.
    pub reason: SkipReason,
}

/// Why something is left out, or cannot be shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// A fifo, a socket or a device.
    Special,
    /// A symlink that is absolute or leads, or could lead, out of the shared folder.
    LinkOutside,
    /// The part folder of a fetch that is not complete.
    PartFolder,
    /// Its name is not UTF-8.
    NotUtf8,
    /// Its path breaks a rule that all shares obey.
    Name(PathError),
    /// It was there a moment ago, or the user named it.
    Gone,
    /// What the system said when it was looked at or read.
    Unreadable(String),
    /// It has bytes beyond the length that its file system tells, and that does not change.
    LongerThanLength,
    /// It has fewer bytes than the length that its file system tells, and that does not change.
    ShorterThanLength,
    /// It changed between the first look and the last byte.
    Changed,
}

impl SkipReason {
    /// Why something could not be read, by the error that says so.
    pub(super) fn of(error: &StorageError) -> Self {
        match error {
            StorageError::NotFound { .. } => Self::Gone,
            StorageError::SourceChanged { path } => match os::stat_link(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Gone,
                _ => Self::Changed,
            },
            StorageError::FalseLength { is_longer, .. } => {
                if *is_longer {
                    Self::LongerThanLength
                } else {
                    Self::ShorterThanLength
                }
            }
            StorageError::Read { source, .. } => Self::Unreadable(source.to_string()),
            other => Self::Unreadable(other.to_string()),
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Special => "not a file, folder or link",
            Self::LinkOutside => "link leads out of the folder",
            Self::PartFolder => "part of an unfinished fetch",
            Self::NotUtf8 => "its name is not UTF-8",
            // Without the path, which is told beside it.
            Self::Name(PathError::Forbidden { character, .. }) => {
                return write!(f, "its name has {character:?}, which no share can hold");
            }
            Self::Name(PathError::TooDeep { .. }) => {
                return write!(f, "it lies more than {PATH_DEPTH_MAX} names deep");
            }
            Self::Name(PathError::TooLong { len, .. }) => {
                return write!(f, "its path has {len} bytes, more than {PATH_LEN_MAX}");
            }
            Self::Name(reason) => return write!(f, "{reason}"),
            Self::Gone => "it does not exist",
            Self::Unreadable(reason) => return write!(f, "it cannot be read: {reason}"),
            Self::LongerThanLength => {
                "it is longer than its length says: its system does not tell file lengths"
            }
            Self::ShorterThanLength => {
                "it is shorter than its length says: its system does not tell file lengths"
            }
            Self::Changed => "it changed while it was read",
        })
    }
}

/// A regular file found.
#[derive(Debug)]
pub(super) struct Found {
    /// Its path in the share.
    pub(super) path: RelativePath,
    /// Where it lies.
    pub(super) source: PathBuf,
    /// What it looked like.
    pub(super) signature: Signature,
    pub(super) device: u64,
    pub(super) executable: bool,
}

/// All that was found.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) name: Name,
    pub(super) layout: Layout,
    /// In path order.
    pub(super) files: Vec<Found>,
    /// Links and empty folders.
    pub(super) others: Vec<Entry>,
    pub(super) skipped: Vec<Skipped>,
    /// What no share can hold, or nobody can look at.
    pub(super) refused: Vec<Skipped>,
    /// Entries left out by the user's patterns, a folder with all that is in it as one.
    pub(super) excluded: u64,
}

/// Told files and bytes found so far.
pub(super) type ScanProgress<'a> = &'a (dyn Fn(u64, u64) + Sync);

/// Walks `paths`. The share is called `name`, or by default as the first path. What matches `exclude` is left out; a
/// path that is named alone never is.
///
/// # Errors
/// See [`super::import()`].
pub(super) fn scan(
    paths: &[PathBuf],
    name: Option<&Name>,
    exclude: &Globs,
    progress: ScanProgress<'_>,
    cancel: &AtomicBool,
) -> Result<Scan, StorageError> {
    let first = paths.first().ok_or(StorageError::NothingToShare)?;
    let name = match (name, paths) {
        (Some(name), _) => name.clone(),
        (None, [path]) => base_name(path)?,
        // One that gives no name is refused below, with all others.
        (None, paths) => match paths.iter().find_map(|path| base_name(path).ok()) {
            Some(name) => name,
            None => base_name(first)?,
        },
    };
    let mut walk = Walk {
        exclude,
        progress,
        cancel,
        files: Vec::new(),
        others: Vec::new(),
        skipped: Vec::new(),
        refused: Vec::new(),
        excluded: 0,
        folders: 0,
        bytes: 0,
    };
    let layout = match paths {
        [path] => {
            let stat = walk.stat_named(path)?;
            if stat.kind == Kind::File {
                walk.file(path, RelativePath::from(name.clone()), &stat)?;
                Layout::File
            } else {
                let names = names_in(path).map_err(|error| StorageError::reading(path, error))?;
                walk.folder(path, names, None, 0)?;
                Layout::Folder
            }
        }
        paths => {
            let mut taken: HashMap<RelativePath, &PathBuf> = HashMap::new();
            for path in paths {
                let entry = match base_name(path) {
                    Ok(name) => RelativePath::from(name),
                    Err(error) => {
                        walk.refuse_named(path, error)?;
                        continue;
                    }
                };
                if let Some(first) = taken.insert(entry.clone(), path) {
                    return Err(StorageError::EqualNames {
                        first: first.clone(),
                        second: path.clone(),
                    });
                }
                let stat = match walk.stat_named(path) {
                    Ok(stat) => stat,
                    Err(error) => {
                        walk.refuse_named(path, error)?;
                        continue;
                    }
                };
                if walk.is_excluded(entry.as_str(), stat.kind) {
                    continue;
                }
                if stat.kind == Kind::File {
                    walk.file(path, entry, &stat)?;
                } else {
                    walk.folder_within(path, entry, 1)?;
                }
            }
            Layout::Folder
        }
    };
    progress(walk.files.len() as u64, walk.bytes);
    let Walk {
        mut files,
        others,
        skipped,
        refused,
        excluded,
        ..
    } = walk;
    files.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    Ok(Scan {
        name,
        layout,
        files,
        others,
        skipped,
        refused,
        excluded,
    })
}

/// What a path is called in the share: its last element, or for `.` and the like that of the folder it stands for.
fn base_name(path: &Path) -> Result<Name, StorageError> {
    let name = match path.file_name() {
        Some(name) => name.to_os_string(),
        None => {
            let real =
                fs::canonicalize(path).map_err(|source| StorageError::reading(path, source))?;
            match real.file_name() {
                Some(name) => name.to_os_string(),
                None => {
                    return Err(StorageError::NoName {
                        path: path.to_path_buf(),
                    });
                }
            }
        }
    };
    let text = name.to_str().ok_or_else(|| StorageError::NotUtf8 {
        path: path.to_path_buf(),
    })?;
    Name::parse(text).map_err(|reason| StorageError::SourceName {
        path: path.to_path_buf(),
        reason,
    })
}

struct Walk<'a> {
    exclude: &'a Globs,
    progress: ScanProgress<'a>,
    cancel: &'a AtomicBool,
    files: Vec<Found>,
    others: Vec<Entry>,
    skipped: Vec<Skipped>,
    refused: Vec<Skipped>,
    excluded: u64,
    /// Folders that are not empty, the top not counted.
    folders: usize,
    bytes: u64,
}

impl Walk<'_> {
    /// Looks at a path the user named, links followed.
    fn stat_named(&self, path: &Path) -> Result<Stat, StorageError> {
        let stat = os::stat_path(path).map_err(|source| StorageError::reading(path, source))?;
        match stat.kind {
            Kind::File | Kind::Folder => Ok(stat),
            Kind::Link | Kind::Special => Err(StorageError::NotAFileOrFolder {
                path: path.to_path_buf(),
            }),
        }
    }

    /// Whether one more entry is one too many: said before anything is read.
    fn count(&self) -> Result<(), StorageError> {
        let count = self.files.len() + self.others.len() + self.folders;
        if count >= ENTRY_COUNT_MAX as usize {
            return Err(StorageError::TooManyEntries);
        }
        Ok(())
    }

    fn file(&mut self, source: &Path, path: RelativePath, stat: &Stat) -> Result<(), StorageError> {
        self.count()?;
        let Stat {
            signature,
            device,
            executable,
            ..
        } = *stat;
        self.bytes += signature.len;
        self.files.push(Found {
            path,
            source: source.to_path_buf(),
            signature,
            device,
            executable,
        });
        if (self.files.len() as u64).is_multiple_of(REPORT_FILES) {
            (self.progress)(self.files.len() as u64, self.bytes);
        }
        Ok(())
    }

    fn other(&mut self, path: RelativePath, kind: EntryKind) -> Result<(), StorageError> {
        self.count()?;
        self.others.push(Entry { path, kind });
        Ok(())
    }

    /// Walks the folder at `source` that is the entry `path`, an empty one itself.
    fn folder_within(
        &mut self,
        source: &Path,
        path: RelativePath,
        named_depth: usize,
    ) -> Result<(), StorageError> {
        let names = match names_in(source) {
            Ok(names) => names,
            Err(error) => {
                self.refuse(source, &StorageError::reading(source, error));
                return Ok(());
            }
        };
        self.count()?;
        self.folders += 1;
        if !self.folder(source, names, Some(&path), named_depth)? {
            self.folders -= 1;
            self.other(path, EntryKind::EmptyFolder)?;
        }
        Ok(())
    }

    /// Walks the folder at `source` with these `names` in it, which is `at` in the share (`None`: its top). A link in it may
    /// climb no higher than the folder the user named, which is `named_depth` elements deep. Returns whether anything in it
    /// became an entry.
    fn folder(
        &mut self,
        source: &Path,
        names: Vec<OsString>,
        at: Option<&RelativePath>,
        named_depth: usize,
    ) -> Result<bool, StorageError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(StorageError::Cancelled);
        }
        let before = self.files.len() + self.others.len();
        for name in names {
            let source = source.join(&name);
            let stat = match os::stat_link(&source) {
                Ok(stat) => stat,
                // What it is nobody knows; who leaves its name out does not care.
                Err(error) => {
                    let within = Path::new(at.map_or("", RelativePath::as_str)).join(&name);
                    if !self.is_excluded(&within, Kind::File) {
                        self.refuse(&source, &StorageError::reading(&source, error));
                    }
                    continue;
                }
            };
            // Before everything that could be wrong with it: who leaves a thing out does not care.
            let within = Path::new(at.map_or("", RelativePath::as_str)).join(&name);
            if self.is_excluded(&within, stat.kind) {
                continue;
            }
            if stat.kind == Kind::Special {
                self.skip(source, SkipReason::Special);
                continue;
            }
            if stat.kind == Kind::Folder && part::is_part_folder_name(&name) {
                self.skip(source, SkipReason::PartFolder);
                continue;
            }
            let path = match entry_path(at, &name) {
                Ok(path) => path,
                Err(reason) => {
                    self.refused.push(Skipped {
                        path: source,
                        reason,
                    });
                    continue;
                }
            };
            match stat.kind {
                Kind::File => self.file(&source, path, &stat)?,
                Kind::Folder => self.folder_within(&source, path, named_depth)?,
                Kind::Link | Kind::Special => {
                    let target = match fs::read_link(&source) {
                        Ok(target) => target,
                        Err(error) => {
                            self.refuse(&source, &StorageError::reading(&source, error));
                            continue;
                        }
                    };
                    let target = target
                        .to_str()
                        .and_then(|target| inside(&below(&path, named_depth), target));
                    let Some(target) = target else {
                        self.skip(source, SkipReason::LinkOutside);
                        continue;
                    };
                    self.other(path, EntryKind::Symlink { target })?;
                }
            }
        }
        Ok(self.files.len() + self.others.len() > before)
    }

    /// Asks the user's patterns about `path`, as the share sees it, and counts what they leave out.
    fn is_excluded(&mut self, path: impl AsRef<Path>, kind: Kind) -> bool {
        let is_excluded = self.exclude.matches(path.as_ref(), kind == Kind::Folder);
        self.excluded += u64::from(is_excluded);
        is_excluded
    }

    fn skip(&mut self, path: PathBuf, reason: SkipReason) {
        self.skipped.push(Skipped { path, reason });
    }

    fn refuse(&mut self, path: &Path, error: &StorageError) {
        self.refused.push(Skipped {
            path: path.to_path_buf(),
            reason: SkipReason::of(error),
        });
    }

    /// One of several paths that the user named cannot be taken. What is wrong with the command itself stays an error.
    fn refuse_named(&mut self, path: &Path, error: StorageError) -> Result<(), StorageError> {
        match error {
            StorageError::NotUtf8 { .. } => self.refused.push(Skipped {
                path: path.to_path_buf(),
                reason: SkipReason::NotUtf8,
            }),
            StorageError::SourceName { reason, .. } => self.refused.push(Skipped {
                path: path.to_path_buf(),
                reason: SkipReason::Name(reason),
            }),
            error @ (StorageError::NotFound { .. } | StorageError::Read { .. }) => {
                self.refuse(path, &error);
            }
            error => return Err(error),
        }
        Ok(())
    }
}

/// Names in a folder, sorted, so that notes and errors come in the same order on every run.
fn names_in(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name());
    }
    names.sort_unstable();
    Ok(names)
}

fn entry_path(at: Option<&RelativePath>, name: &OsString) -> Result<RelativePath, SkipReason> {
    let name = name.to_str().ok_or(SkipReason::NotUtf8)?;
    match at {
        Some(at) => RelativePath::parse(&format!("{}/{name}", at.as_str())),
        None => RelativePath::parse(name),
    }
    .map_err(SkipReason::Name)
}

/// `path` without its first `depth` elements, of which it has more.
fn below(path: &RelativePath, depth: usize) -> RelativePath {
    let rest: Vec<_> = path.elements().skip(depth).collect();
    RelativePath::parse(&rest.join("/")).expect("the end of a path is a path")
}

/// The target of the link `link` in the form a manifest holds, when it stays inside. `link` is told as the folder that
/// the user named sees it: a link may climb no higher.
fn inside(link: &RelativePath, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    // `./a`, `a//b` and `a/` mean what the canonical text means.
    let parts = target
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".");
    let canonical = parts.collect::<Vec<_>>().join("/");
    is_symlink_target_inside(link, &canonical).then_some(canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_kept_only_when_it_cannot_lead_outside() {
        let cases = [
            ("file", 0, Some("file")),
            ("./file", 0, Some("file")),
            ("folder//file/", 0, Some("folder/file")),
            ("../file", 1, Some("../file")),
            ("..", 1, Some("..")),
            ("../file", 0, None),
            ("../../file", 1, None),
            ("/etc/passwd", 5, None),
            ("a/../../x", 1, None),
            ("a/../x", 5, None),
            (".", 1, None),
            ("", 1, None),
            ("a\\b", 1, None),
        ];
        for (target, depth, expected) in cases {
            let link = "d/".repeat(depth) + "link";
            let link = RelativePath::parse(&link).expect("a path");
            assert_eq!(
                inside(&link, target).as_deref(),
                expected,
                "{target} at {depth}"
            );
        }
    }

    #[test]
    fn a_link_climbs_no_higher_than_the_folder_that_was_named() {
        let link = RelativePath::parse("named/sub/link").expect("a path");
        let seen = below(&link, 1);
        assert_eq!(seen.as_str(), "sub/link");
        assert!(inside(&seen, "../file").is_some());
        assert!(inside(&seen, "../../file").is_none());
    }

    #[test]
    fn one_entry_more_than_a_share_can_hold_ends_the_walk() {
        let mut walk = Walk {
            exclude: &Globs::default(),
            progress: &|_, _| {},
            cancel: &AtomicBool::new(false),
            files: Vec::new(),
            others: Vec::new(),
            skipped: Vec::new(),
            refused: Vec::new(),
            excluded: 0,
            folders: ENTRY_COUNT_MAX as usize - 1,
            bytes: 0,
        };
        let path = |text| RelativePath::parse(text).expect("a path");
        assert!(walk.other(path("last"), EntryKind::EmptyFolder).is_ok());
        let error = walk.other(path("more"), EntryKind::EmptyFolder);
        let error = error.expect_err("one too many");
        assert!(matches!(error, StorageError::TooManyEntries), "{error:?}");
        assert!(
            error.to_string().contains("more than 1048576 files"),
            "{error}"
        );
    }
}
