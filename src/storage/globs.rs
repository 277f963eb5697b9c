//! `Globs`: patterns as in `.gitignore`, for leaving things out of a share and for choosing among what is in one.
//!
//! Owns reading and checking the patterns; `ignore` does the matching. They are matched against paths within the share,
//! so `/build` means its top. Nothing matches unless the user gave a pattern. Called by `scan` and `chosen`; made by `cli`.
//! Source: gitignore(5).

use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::StorageError;

/// Patterns that were checked. None match anything by default.
#[derive(Clone, Debug)]
pub struct Globs {
    matcher: Gitignore,
}

impl Default for Globs {
    fn default() -> Self {
        Self {
            matcher: Gitignore::empty(),
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
        lines: &[impl AsRef<str>],
    ) -> Result<Self, StorageError> {
        // Without a root: what is matched is relative to the share already.
        let mut builder = GitignoreBuilder::new("");
        let mut add = |line: &str| {
            builder
                .add_line(None, line)
                .map(drop)
                .map_err(|error| StorageError::Glob {
                    glob: line.to_owned(),
                    reason: reason_of(&error),
                })
        };
        for file in files {
            let path = file.as_ref();
            let bytes =
                std::fs::read(path).map_err(|source| StorageError::reading(path, source))?;
            for line in String::from_utf8_lossy(&bytes).lines() {
                add(line)?;
            }
        }
        for line in lines {
            add(line.as_ref())?;
        }
        let matcher = builder.build().map_err(|error| StorageError::Glob {
            glob: String::new(),
            reason: reason_of(&error),
        })?;
        Ok(Self { matcher })
    }

    /// Whether there is no pattern at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.matcher.is_empty()
    }

    /// Whether `path` itself matches. For a walk from the top that does not enter folders that match.
    pub(super) fn matches(&self, path: &Path, is_folder: bool) -> bool {
        matches!(self.matcher.matched(path, is_folder), Match::Ignore(_))
    }

    /// Whether `path`, a path of a share, or a folder above it matches.
    pub(super) fn matches_within(&self, path: &str, is_folder: bool) -> bool {
        // The crate asks with folders in the way that `..` or a leading slash would confuse: a share has neither.
        let found = self.matcher.matched_path_or_any_parents(path, is_folder);
        matches!(found, Match::Ignore(_))
    }
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
