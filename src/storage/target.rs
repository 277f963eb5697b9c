//! Where a fetch puts its result: the paths, and the checks that need no peer.
//!
//! Owns the choice of folder and name, and what names this system cannot hold. It creates nothing. What already lies at
//! the target is `survey`'s matter. Called by `part` and `fetch`; [`Target`] is filled in by `cli`.
//! Source: the protocol plan, "Names"; Microsoft, "Naming Files, Paths, and Namespaces".

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use icu_normalizer::ComposingNormalizerBorrowed;

use super::StorageError;
use super::os::{self, Kind};
use crate::content::{Layout, Manifest, Name, RelativePath, escape_hostile};

/// Where the result goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The folder that gets the result under the share's name; made when missing. Not used when `output` is set.
    pub dir: PathBuf,
    /// The exact path of the result instead, file or folder; the folders above it are made when missing.
    pub output: Option<PathBuf>,
    /// Replace existing files that differ, each when its successor is complete.
    pub overwrite: bool,
}

/// A target made concrete for one share.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The folder that holds the result and the part folder.
    pub(super) folder: PathBuf,
    /// The result's name in it.
    pub(super) name: OsString,
    layout: Layout,
}

impl Target {
    /// The folder that holds the result and the part folder.
    pub(super) fn folder(&self) -> Result<PathBuf, StorageError> {
        let Some(output) = &self.output else {
            return Ok(or_current(&self.dir));
        };
        if output.file_name().is_none() {
            return Err(StorageError::OutputName {
                path: output.clone(),
            });
        }
        Ok(or_current(output.parent().unwrap_or(Path::new(""))))
    }

    /// The result of a share of this name and layout.
    pub(super) fn place(&self, name: &Name, layout: Layout) -> Result<Place, StorageError> {
        let folder = self.folder()?;
        let name = match self.output.as_ref().and_then(|output| output.file_name()) {
            Some(name) => name.to_os_string(),
            None => OsString::from(name.as_str()),
        };
        Ok(Place {
            folder,
            name,
            layout,
        })
    }

    /// That the folder exists and takes files, or can be made.
    pub(super) fn check(&self) -> Result<(), StorageError> {
        let folder = self.folder()?;
        let nearest = nearest_existing(&folder)?;
        match os::check_writable(&nearest) {
            Ok(()) => Ok(()),
            Err(source) => Err(StorageError::NotWritable {
                path: nearest,
                source,
            }),
        }
    }
}

impl Place {
    /// The path of the result, for the user.
    pub(super) fn shown(&self) -> PathBuf {
        // `./name` for the current folder would be true, and odd in a message.
        if self.folder == Path::new(".") {
            PathBuf::from(&self.name)
        } else {
            self.folder.join(&self.name)
        }
    }

    /// Where an entry of the share lies, relative to the folder.
    pub(super) fn path_of(&self, entry: &RelativePath) -> PathBuf {
        self.path_at(entry.as_str())
    }

    /// The same of an entry or a folder above one, by the text of its path.
    pub(super) fn path_at(&self, path: &str) -> PathBuf {
        match self.layout {
            Layout::File => PathBuf::from(&self.name),
            Layout::Folder => Path::new(&self.name).join(path),
        }
    }
}

fn or_current(path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        path.to_path_buf()
    }
}

/// The folder itself, or the nearest one above it that exists.
///
/// # Errors
/// [`StorageError::NotAFolder`] when something else exists on the way.
pub(super) fn nearest_existing(folder: &Path) -> Result<PathBuf, StorageError> {
    let mut path = folder.to_path_buf();
    loop {
        match os::stat_path(&path) {
            Ok(stat) if stat.kind == Kind::Folder => return Ok(path),
            Ok(_) => return Err(StorageError::NotAFolder { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A dangling link cannot become a folder.
                if os::stat_link(&path).is_ok() {
                    return Err(StorageError::NotAFolder { path });
                }
                path = or_current(path.parent().unwrap_or(Path::new("")));
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                path = or_current(path.parent().unwrap_or(Path::new("")));
            }
            Err(source) => return Err(StorageError::Read { path, source }),
        }
    }
}

/// One name of a share that this system cannot hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IllegalName {
    /// The path in the share, of an entry or a folder above one, or the share's name.
    pub path: String,
    /// Why not.
    pub reason: IllegalReason,
}

/// Why a system cannot hold a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IllegalReason {
    /// A device of that name exists in every folder.
    Device,
    /// The character has a meaning of its own there.
    Character(char),
    /// A trailing dot or space would be dropped.
    Trailing,
    /// The same name as this one there, where neither case nor the form of accents counts.
    SameAs(String),
}

impl fmt::Display for IllegalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({})", escape_hostile(&self.path), self.reason)
    }
}

impl fmt::Display for IllegalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device => f.write_str("device name"),
            Self::Character(character) => write!(f, "character {character:?}"),
            Self::Trailing => f.write_str("trailing dot or space"),
            Self::SameAs(other) => write!(f, "same as `{}`", escape_hostile(other)),
        }
    }
}

/// Families of systems by what names they hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    /// Any bytes but `/` and NUL.
    Unix,
    /// As Unix, but neither case nor the form of accents counts.
    Apple,
    /// Devices, reserved characters, trailing dots; case does not count.
    Windows,
    /// What any of the others cannot hold.
    Any,
}

impl System {
    const HERE: Self = if cfg!(windows) {
        Self::Windows
    } else if cfg!(target_vendor = "apple") {
        Self::Apple
    } else {
        Self::Unix
    };
}

/// Lists every name of the share that this system cannot hold, before anything is created.
///
/// # Errors
/// [`StorageError::IllegalNames`] when there is one.
pub(super) fn refuse_illegal_names(manifest: &Manifest) -> Result<(), StorageError> {
    let names = illegal_names_of(manifest, System::HERE);
    if names.is_empty() {
        Ok(())
    } else {
        Err(StorageError::IllegalNames { names })
    }
}

/// Names of the share that Windows or macOS cannot hold, in path order: a fetch there is refused.
#[must_use]
pub fn unportable_names(manifest: &Manifest) -> Vec<IllegalName> {
    illegal_names_of(manifest, System::Any)
}

fn illegal_names_of(manifest: &Manifest, system: System) -> Vec<IllegalName> {
    let paths: Vec<&str> = manifest
        .entries()
        .iter()
        .map(|entry| entry.path.as_str())
        .collect();
    // The name of a share of one file is the path of that file.
    let share = match manifest.layout() {
        Layout::File => None,
        Layout::Folder => Some(manifest.name().as_str()),
    };
    illegal_names(share, &paths, system)
}

/// `paths` in path order. Each name is judged once, a folder too.
fn illegal_names(share: Option<&str>, paths: &[&str], system: System) -> Vec<IllegalName> {
    let mut found = Vec::new();
    if system == System::Unix {
        return found;
    }
    let mut add = |path: &str, reason| {
        found.push(IllegalName {
            path: path.to_owned(),
            reason,
        });
    };
    let has_windows = matches!(system, System::Windows | System::Any);
    if has_windows
        && let Some((share, reason)) =
            share.and_then(|share| Some((share, illegal_on_windows(share)?)))
    {
        add(share, reason);
    }
    // Every folder counts with its first spelling: `A/x` and `a/y` would be merged into one folder.
    let mut spellings: HashMap<String, &str> = HashMap::new();
    let mut previous = "";
    for path in paths {
        let shared = path
            .bytes()
            .zip(previous.bytes())
            .take_while(|(left, right)| left == right)
            .count();
        previous = path;
        let ends = path
            .match_indices('/')
            .map(|(end, _)| end)
            .chain([path.len()]);
        // A folder that ends before, the path before lies in too.
        let ends = ends.filter(|end| *end >= shared);
        for prefix in ends.map(|end| &path[..end]) {
            let element = prefix.rsplit('/').next().unwrap_or(prefix);
            if has_windows && let Some(reason) = illegal_on_windows(element) {
                add(prefix, reason);
            }
            let first = *spellings.entry(folded(prefix, system)).or_insert(prefix);
            if first != prefix {
                add(prefix, IllegalReason::SameAs(first.to_owned()));
            }
        }
    }
    found
}

/// What all names have in common that `system` takes for the same as `path`.
fn folded(path: &str, system: System) -> String {
    let composed = |text: &str| match system {
        System::Apple | System::Any if !text.is_ascii() => ComposingNormalizerBorrowed::new_nfc()
            .normalize(text)
            .into_owned(),
        _ => text.to_owned(),
    };
    // Lower case of what is composed may be something that is not.
    composed(&composed(path).to_lowercase())
}

fn illegal_on_windows(element: &str) -> Option<IllegalReason> {
    let reserved = |character: &char| {
        matches!(
            character,
            '<' | '>' | ':' | '"' | '|' | '?' | '*' | '\0'..='\x1f'
        )
    };
    if let Some(character) = element.chars().find(reserved) {
        return Some(IllegalReason::Character(character));
    }
    if element.ends_with(['.', ' ']) {
        return Some(IllegalReason::Trailing);
    }
    let stem = element
        .split('.')
        .next()
        .unwrap_or(element)
        .trim_end()
        .to_ascii_uppercase();
    let numbered = |prefix: &str| {
        let rest = stem
            .strip_prefix(prefix)
            .map(|rest| rest.chars().collect::<Vec<_>>());
        matches!(
            rest.as_deref(),
            Some(['1'..='9' | '\u{b9}' | '\u{b2}' | '\u{b3}'])
        )
    };
    let device = matches!(
        stem.as_str(),
        "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$"
    ) || numbered("COM")
        || numbered("LPT");
    device.then_some(IllegalReason::Device)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn target(dir: &Path, output: Option<PathBuf>) -> Target {
        Target {
            dir: dir.to_path_buf(),
            output,
            overwrite: false,
        }
    }

    #[test]
    fn a_name_is_refused_only_where_the_system_cannot_hold_it() {
        let cases = [
            ("CON", true, false),
            ("a/nul.txt", true, false),
            ("com1", true, false),
            ("com10", false, false),
            ("console", false, false),
            ("a:b", true, false),
            ("dot.", true, false),
            ("space /x", true, false),
            ("tab\tx", true, false),
            ("plain.txt", false, false),
        ];
        for (path, windows, apple) in cases {
            assert_eq!(
                !illegal_names(None, &[path], System::Windows).is_empty(),
                windows,
                "{path}"
            );
            assert_eq!(
                !illegal_names(None, &[path], System::Apple).is_empty(),
                apple,
                "{path}"
            );
            assert!(
                illegal_names(None, &[path], System::Unix).is_empty(),
                "{path}"
            );
        }
    }

    #[test]
    fn names_that_differ_in_case_only_collide_where_case_does_not_count() {
        let names = ["A/x", "A/z", "Z", "a/y", "a/z", "z"];
        let found = illegal_names(None, &names, System::Apple);
        let paths: Vec<_> = found.iter().map(|name| name.path.as_str()).collect();
        assert_eq!(paths, ["a", "a/z", "z"]);
        assert!(illegal_names(None, &names, System::Unix).is_empty());
    }

    #[test]
    fn names_that_differ_in_the_form_of_an_accent_only_collide_on_apple_systems() {
        let names = ["cafe\u{301}", "caf\u{c9}", "caf\u{e9}", "cafe"];
        let count = |system| illegal_names(None, &names, system).len();
        assert_eq!(count(System::Apple), 2);
        assert_eq!(count(System::Any), 2);
        assert_eq!(count(System::Windows), 1);
    }

    #[test]
    fn a_name_no_other_system_holds_is_told_once_however_much_lies_below_it() {
        let names = ["aux/1", "aux/2", "aux/b?/x", "fine"];
        let found = illegal_names(Some("dot."), &names, System::Any);
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "`dot.` (trailing dot or space)",
                "`aux` (device name)",
                "`aux/b?` (character '?')"
            ]
        );
    }

    #[test]
    fn the_output_path_wins_over_folder_and_share_name() {
        let name = Name::parse("share").unwrap();
        let plain = target(Path::new("down"), None)
            .place(&name, Layout::Folder)
            .unwrap();
        assert_eq!(plain.shown(), Path::new("down/share"));
        let entry = RelativePath::parse("a/b").unwrap();
        assert_eq!(plain.path_of(&entry), Path::new("share/a/b"));
        let exact = target(Path::new("down"), Some("else/out.bin".into()));
        let exact = exact.place(&name, Layout::File).unwrap();
        assert_eq!(exact.shown(), Path::new("else/out.bin"));
        assert_eq!(exact.path_of(&entry), Path::new("out.bin"));
        let beside = target(Path::new("down"), Some("out".into()))
            .place(&name, Layout::File)
            .unwrap();
        assert_eq!(beside.shown(), Path::new("out"));
        for output in ["..", "/", "a/.."] {
            let error = target(Path::new("."), Some(output.into()))
                .folder()
                .unwrap_err();
            assert!(matches!(error, StorageError::OutputName { .. }), "{output}");
        }
    }

    #[test]
    fn the_check_accepts_a_folder_that_can_be_made_and_makes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        target(&folder.path().join("new/deep"), None)
            .check()
            .unwrap();
        target(Path::new("unused"), Some(folder.path().join("new/out")))
            .check()
            .unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_check_refuses_a_file_where_the_folder_should_be() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("dangling")).unwrap();
        for dir in [
            file.clone(),
            file.join("below"),
            folder.path().join("dangling"),
        ] {
            let error = target(&dir, None).check().unwrap_err();
            assert!(
                matches!(error, StorageError::NotAFolder { .. }),
                "{error:?}"
            );
        }
    }
}
