//! `Globs`: patterns as in `.gitignore`, for leaving things out of a share and for choosing among what is in one.
//!
//! Owns reading and checking the patterns; `ignore` does the matching. They are matched against paths within the share,
//! so `/build` means its top. Nothing matches unless the user gave a pattern. Called by `scan` and `chosen`; made by `cli`.
//! Source: gitignore(5).

use std::ffi::OsStr;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::StorageError;

/// Patterns that were checked. None match anything by default.
#[derive(Clone, Debug)]
pub struct Globs {
    matcher: Gitignore,
    /// Patterns with bytes that are not UTF-8, matched against paths in the same spelling: see [`spelled`]. They decide
    /// before the others.
    bytes: Gitignore,
}

impl Default for Globs {
    fn default() -> Self {
        Self {
            matcher: Gitignore::empty(),
            bytes: Gitignore::empty(),
        }
    }
}

impl Globs {
    /// The patterns in `files`, one a line as in `.gitignore`, then those of `lines`: of several that match, the last
    /// one decides.
    ///
    /// # Errors
    /// [`StorageError::Glob`] for one that cannot be meant; [`StorageError::NotFound`] and [`StorageError::Read`] for
    /// a file.
    pub fn read(
        files: &[impl AsRef<Path>],
        lines: &[impl AsRef<OsStr>],
    ) -> Result<Self, StorageError> {
        // Without a root: what is matched is relative to the share already.
        let mut builder = GitignoreBuilder::new("");
        let mut bytes_builder = GitignoreBuilder::new("");
        let mut add = |line: &[u8]| {
            let added = match str::from_utf8(line) {
                Ok(line) => builder.add_line(None, line),
                Err(_) => bytes_builder.add_line(None, &spelled(line)),
            };
            added.map(drop).map_err(|error| StorageError::Glob {
                glob: String::from_utf8_lossy(line).into_owned(),
                reason: reason_of(&error),
            })
        };
        for file in files {
            let path = file.as_ref();
            let bytes =
                std::fs::read(path).map_err(|source| StorageError::reading(path, source))?;
            for line in bytes.split(|byte| *byte == b'\n') {
                add(line.strip_suffix(b"\r").unwrap_or(line))?;
            }
        }
        for line in lines {
            add(line.as_ref().as_encoded_bytes())?;
        }
        let built = |builder: GitignoreBuilder| {
            builder.build().map_err(|error| StorageError::Glob {
                glob: String::new(),
                reason: reason_of(&error),
            })
        };
        Ok(Self {
            matcher: built(builder)?,
            bytes: built(bytes_builder)?,
        })
    }

    /// Whether there is no pattern at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.matcher.is_empty() && self.bytes.is_empty()
    }

    /// Whether `path` itself matches. For a walk from the top that does not enter folders that match.
    pub(super) fn matches(&self, path: &Path, is_folder: bool) -> bool {
        if !self.bytes.is_empty() {
            let path = spelled(path.as_os_str().as_encoded_bytes());
            match self.bytes.matched(&path, is_folder) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        matches!(self.matcher.matched(path, is_folder), Match::Ignore(_))
    }

    /// Whether `path`, a path of a share, or a folder above it matches.
    pub(super) fn matches_within(&self, path: &str, is_folder: bool) -> bool {
        // The crate asks with folders in the way that `..` or a leading slash would confuse: a share has neither.
        let found = self.matcher.matched_path_or_any_parents(path, is_folder);
        matches!(found, Match::Ignore(_))
    }
}

/// `bytes` as text in which each byte that is not UTF-8 is a character of its own, from the end of the private planes.
fn spelled(bytes: &[u8]) -> String {
    const FIRST: u32 = 0x10_ff00;
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        let characters = chunk.invalid().iter();
        text.extend(characters.filter_map(|byte| char::from_u32(FIRST + u32::from(*byte))));
    }
    text
}

/// What is wrong, without the crate's repetition of the pattern.
fn reason_of(error: &ignore::Error) -> String {
    match error {
        ignore::Error::Glob { err, .. } => err.clone(),
        ignore::Error::WithPath { err, .. }
        | ignore::Error::WithLineNumber { err, .. }
        | ignore::Error::WithDepth { err, .. } => reason_of(err),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn globs(lines: &[&str]) -> Globs {
        Globs::read(&[] as &[&Path], lines).unwrap()
    }

    #[test]
    fn patterns_mean_what_they_mean_to_git() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&["*.tmp"], "a.tmp", true),
            (&["*.tmp"], "deep/down/a.tmp", true),
            (&["*.tmp"], "a.tmp.txt", false),
            (&["/build"], "build", true),
            (&["/build"], "sub/build", false),
            (&["docs/"], "docs/a/b.txt", true),
            (&["docs/"], "docs", false),
            (&["docs/*.txt"], "docs/a.txt", true),
            (&["docs/*.txt"], "docs/sub/a.txt", false),
            (&["docs/**/*.txt"], "docs/sub/a.txt", true),
            (&["*.txt", "!keep.txt"], "keep.txt", false),
            (&["*.txt", "!keep.txt"], "lose.txt", true),
            (&["# a comment", ""], "# a comment", false),
            (&["\\#file"], "#file", true),
            (&["n\u{e4}\u{ef}*"], "n\u{e4}\u{ef}ve", true),
            (&[], "anything", false),
        ];
        for (lines, path, expected) in cases {
            assert_eq!(
                globs(lines).matches_within(path, false),
                *expected,
                "{lines:?} {path}"
            );
        }
    }

    #[test]
    fn a_pattern_may_have_bytes_that_are_not_utf8() {
        use std::os::unix::ffi::OsStrExt;
        let file = |bytes| Path::new(OsStr::from_bytes(bytes));
        let lines = [
            OsStr::from_bytes(b"caf\xe9"),
            OsStr::from_bytes(b"n\xe4*"),
            OsStr::new("x?"),
        ];
        let read = Globs::read(&[] as &[&Path], &lines).unwrap();
        for (name, expected) in [
            (&b"caf\xe9"[..], true),
            (b"deep/caf\xe9", true),
            (b"n\xe4\xefve", true),
            (b"caf\xe8", false),
            (b"cafe", false),
            ("caf\u{e9}".as_bytes(), false),
            (b"x\xff", true),
        ] {
            assert_eq!(read.matches(file(name), false), expected, "{name:?}");
        }
    }

    #[test]
    fn a_file_of_patterns_comes_before_those_of_the_command_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("patterns");
        std::fs::write(&file, "# none of these\n*.log\r\n").unwrap();
        let read = Globs::read(&[&file], &["!keep.log"]).unwrap();
        assert!(read.matches(Path::new("a.log"), false));
        assert!(!read.matches(Path::new("keep.log"), false));
        assert!(!read.is_empty() && Globs::default().is_empty());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_pattern() {
        let error = Globs::read(&[] as &[&Path], &["a{b"]).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("`a{b` is no pattern: "), "{text}");
        let missing = Globs::read(&[Path::new("not-there")], &[] as &[&str]).unwrap_err();
        assert!(
            matches!(missing, StorageError::NotFound { .. }),
            "{missing:?}"
        );
    }
}
