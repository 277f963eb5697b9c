//! The files of a project as paths and texts, from disk or made up by a test.
//!
//! Rules see only this value, so that each can be shown to fire on a tree of three lines. On disk it takes what
//! git would commit (tracked, and new but not ignored), or walks the folder where git does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::{fs, io};

/// A project: texts by path (relative to the root, separated by `/`) and the names in its root folder.
pub(crate) struct Tree {
    /// Text by path; empty for a file that is not UTF-8.
    pub(crate) files: BTreeMap<String, String>,
    /// Names in the root folder, tracked or not.
    pub(crate) top: BTreeSet<String>,
}

impl Tree {
    /// A made-up tree.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files: BTreeMap<String, String> = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
            .collect();
        let top = files
            .keys()
            .filter_map(|path| path.split('/').next())
            .map(str::to_owned)
            .collect();
        Self { files, top }
    }

    /// The project below `root`.
    ///
    /// # Errors
    /// When the folder or one of its files cannot be read.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut top = BTreeSet::new();
        for entry in fs::read_dir(root)? {
            top.insert(entry?.file_name().to_string_lossy().into_owned());
        }
        let mut paths = git_files(root).unwrap_or_default();
        if paths.is_empty() {
            walk(root, "", &mut paths)?;
        }
        let mut files = BTreeMap::new();
        for path in paths {
            match fs::read(root.join(&path)) {
                Ok(bytes) => files.insert(path, String::from_utf8(bytes).unwrap_or_default()),
                // Deleted but not yet committed, or a link to a folder.
                Err(error)
                    if [io::ErrorKind::NotFound, io::ErrorKind::IsADirectory]
                        .contains(&error.kind()) =>
                {
                    None
                }
                Err(error) => return Err(error),
            };
        }
        Ok(Self { files, top })
    }

    /// The `.rs` files whose path begins with `prefix`, with their texts.
    pub(crate) fn rust(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .filter(move |(path, _)| path.starts_with(prefix) && path.ends_with(".rs"))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Whether `path` is a file or a folder with a file in it; the empty path is the root.
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        path.is_empty()
            || self
                .files
                .keys()
                .any(|file| file == path || file.starts_with(&folder))
    }
}

/// What git would commit, or `None` where there is no git or no repository.
fn git_files(root: &Path) -> Option<Vec<String>> {
    let output = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(root)
        // A git hook sets these for its own command, which may run elsewhere.
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .output()
        .ok()?;
    let text = output
        .status
        .success()
        .then(|| String::from_utf8(output.stdout).ok())??;
    Some(
        text.split('\0')
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

fn walk(root: &Path, folder: &str, paths: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() {
            name
        } else {
            format!("{folder}/{name}")
        };
        if entry.file_type()?.is_dir() {
            if !["target", ".git"].contains(&path.as_str()) {
                walk(root, &path, paths)?;
            }
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_git_is_walked_and_build_output_is_left_out() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let root = folder.path();
        for (path, bytes) in [
            ("src/a/b.rs", &b"x"[..]),
            ("target/c.rs", b"x"),
            ("picture", b"\xff"),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("every path has a folder"))
                .expect("the folder can be made");
            fs::write(path, bytes).expect("the file can be written");
        }
        let tree = Tree::read(root).expect("the tree can be read");
        assert_eq!(
            tree.files.keys().collect::<Vec<_>>(),
            ["picture", "src/a/b.rs"]
        );
        assert_eq!(tree.files["picture"], "");
        assert_eq!(
            tree.top.iter().collect::<Vec<_>>(),
            ["picture", "src", "target"]
        );
    }

    #[test]
    fn a_path_is_there_as_a_file_or_as_a_folder() {
        let tree = Tree::of(&[("src/wire/mod.rs", "")]);
        assert!(tree.has("src/wire/mod.rs") && tree.has("src/wire") && tree.has(""));
        assert!(!tree.has("src/wir") && !tree.has("src/wire/mod"));
    }
}
