//! Walks the paths a user wants to share and lists what becomes an entry.
//!
//! Owns which things are taken, skipped with a note, or refused, and what they are called in the share. It opens no file
//! and hashes nothing. Called by `import`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::StorageError;
use super::globs::Globs;
use super::os::{self, Kind, Signature, Stat};
use super::part;
use crate::content::{
    Entry, EntryKind, Layout, Name, PathError, RelativePath, is_symlink_target_inside,
};

/// Files between two reports of progress.
const REPORT_FILES: u64 = 256;

/// Something that lies in a shared folder and is not part of the share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Where it lies.
    pub path: PathBuf,
    /// Why it is left out.
    pub reason: SkipReason,
}

/// Why something is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// A fifo, a socket or a device.
    Special,
    /// A symlink that is absolute or leads, or could lead, out of the shared folder.
    LinkOutside,
    /// The part folder of a fetch that is not complete.
    PartFolder,
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Special => "not a file, folder or link",
            Self::LinkOutside => "link leads out of the folder",
            Self::PartFolder => "part of an unfinished fetch",
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
    let name = match name {
        Some(name) => name.clone(),
        None => base_name(first)?,
    };
    let mut walk = Walk {
        exclude,
        progress,
        cancel,
        files: Vec::new(),
        others: Vec::new(),
        skipped: Vec::new(),
        excluded: 0,
        bytes: 0,
    };
    let layout = match paths {
        [path] => {
            let stat = walk.stat_named(path)?;
            if stat.kind == Kind::File {
                walk.file(path, RelativePath::from(name.clone()), &stat);
                Layout::File
            } else {
                walk.folder(path, None, 0)?;
                Layout::Folder
            }
        }
        paths => {
            let mut taken: HashMap<RelativePath, &PathBuf> = HashMap::new();
            for path in paths {
                let entry = RelativePath::from(base_name(path)?);
                if let Some(first) = taken.insert(entry.clone(), path) {
                    return Err(StorageError::EqualNames {
                        first: first.clone(),
                        second: path.clone(),
                    });
                }
                let stat = walk.stat_named(path)?;
                if walk.is_excluded(entry.as_str(), stat.kind) {
                    continue;
                }
                if stat.kind == Kind::File {
                    walk.file(path, entry, &stat);
                } else if !walk.folder(path, Some(&entry), 1)? {
                    walk.others.push(Entry {
                        path: entry,
                        kind: EntryKind::EmptyFolder,
                    });
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
    excluded: u64,
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

    fn file(&mut self, source: &Path, path: RelativePath, stat: &Stat) {
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
    }

    /// Walks the folder at `source`, which is `at` in the share (`None`: its top). A link in it may climb no higher than the
    /// folder the user named, which is `named_depth` elements deep. Returns whether anything in it became an entry.
    fn folder(
        &mut self,
        source: &Path,
        at: Option<&RelativePath>,
        named_depth: usize,
    ) -> Result<bool, StorageError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(StorageError::Cancelled);
        }
        let mut any = false;
        for name in names_in(source)? {
            let source = source.join(&name);
            let stat =
                os::stat_link(&source).map_err(|error| StorageError::reading(&source, error))?;
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
            let path = entry_path(at, &name, &source)?;
            match stat.kind {
                Kind::File => self.file(&source, path, &stat),
                Kind::Folder => {
                    if !self.folder(&source, Some(&path), named_depth)? {
                        self.others.push(Entry {
                            path,
                            kind: EntryKind::EmptyFolder,
                        });
                    }
                }
                Kind::Link | Kind::Special => {
                    let target = fs::read_link(&source)
                        .map_err(|error| StorageError::reading(&source, error))?;
                    let target = target
                        .to_str()
                        .and_then(|target| inside(&below(&path, named_depth), target));
                    let Some(target) = target else {
                        self.skip(source, SkipReason::LinkOutside);
                        continue;
                    };
                    self.others.push(Entry {
                        path,
                        kind: EntryKind::Symlink { target },
                    });
                }
            }
            any = true;
        }
        Ok(any)
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
}

/// Names in a folder, sorted, so that notes and errors come in the same order on every run.
fn names_in(folder: &Path) -> Result<Vec<OsString>, StorageError> {
    let failed = |source| StorageError::reading(folder, source);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
    }
    names.sort_unstable();
    Ok(names)
}

fn entry_path(
    at: Option<&RelativePath>,
    name: &OsString,
    source: &Path,
) -> Result<RelativePath, StorageError> {
    let name = name.to_str().ok_or_else(|| StorageError::NotUtf8 {
        path: source.to_path_buf(),
    })?;
    let refused = |reason: PathError| StorageError::SourceName {
        path: source.to_path_buf(),
        reason,
    };
    match at {
        Some(at) => RelativePath::parse(&format!("{}/{name}", at.as_str())).map_err(refused),
        None => RelativePath::parse(name).map_err(refused),
    }
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
}
