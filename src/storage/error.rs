//! `StorageError`: everything that can go wrong between Shoal and the file system, in words for the user.
//!
//! Owns texts and their classes; decides no exit code itself (`cli/exit` maps [`ErrorClass`]). Paths may come from a
//! remote, so every text escapes them. Used by every file of this room.

use std::io;
use std::path::{Path, PathBuf};

use super::os;
use super::scan::Skipped;
use super::target::IllegalName;
use crate::content::{
    ENTRY_COUNT_MAX, HashesError, ManifestError, PathError, PieceIndex, escape_hostile,
    escape_hostile_bytes,
};

/// Names listed in one message; the rest is counted.
const NAMES_SHOWN_MAX: usize = 5;
/// Things that cannot be shared that are listed, a line each; the rest is counted.
const THINGS_SHOWN_MAX: usize = 10;

/// What went wrong with files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// A path the user named does not exist.
    #[error("`{}` does not exist", shown(path))]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },
    /// A path the user named is a fifo, a socket or a device.
    #[error("`{}` is neither a file nor a folder", shown(path))]
    NotAFileOrFolder {
        /// The path as given.
        path: PathBuf,
    },
    /// A pattern is not one.
    #[error("`{}` is no pattern: {}", escape_hostile(glob), escape_hostile(reason))]
    Glob {
        /// The pattern.
        glob: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The user's patterns match nothing in the share.
    #[error("nothing in the share matches")]
    NothingChosen,
    /// No path to share was given.
    #[error("nothing to share")]
    NothingToShare,
    /// Several paths would get one name in the share.
    #[error("`{}` and `{}` have the same name", shown(first), shown(second))]
    EqualNames {
        /// The earlier one.
        first: PathBuf,
        /// The later one.
        second: PathBuf,
    },
    /// A path such as `/` gives the share no name.
    #[error("`{}` gives the share no name", shown(path))]
    NoName {
        /// The path as given.
        path: PathBuf,
    },
    /// A file to share has a name that no share can hold, because it is not UTF-8.
    #[error("the name of `{}` is not valid UTF-8", shown(path))]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// A file to share has a name that no share can hold.
    #[error("`{}` cannot be shared: {reason}", shown(path))]
    SourceName {
        /// The file.
        path: PathBuf,
        /// The rule it breaks.
        reason: PathError,
    },
    /// Things that no share can hold, or that cannot be read; all that were found.
    #[error("{}", cannot_share_text(things))]
    CannotShare {
        /// Each with the reason; at least one.
        things: Vec<Skipped>,
        /// It is the only thing that the user named: nothing would be left without it.
        is_all: bool,
    },
    /// A file has more or fewer bytes than its file system says, and nobody changes it.
    #[error("`{}` is {} than its length says: its system does not tell file lengths", shown(path), if *is_longer { "longer" } else { "shorter" })]
    FalseLength {
        /// The file.
        path: PathBuf,
        /// It has more bytes.
        is_longer: bool,
    },
    /// There is more than one share can hold.
    #[error(
        "these are more than {ENTRY_COUNT_MAX} files, links and folders, the most that one share can hold"
    )]
    TooManyEntries,
    /// The files together cannot be described: too many, too long.
    #[error("these files cannot be shared: {reason}")]
    Unshareable {
        /// The limit.
        reason: ManifestError,
    },
    /// Piece hashes and manifest do not belong together.
    #[error("piece hashes do not fit the manifest: {reason}")]
    Hashes {
        /// Where they differ.
        reason: HashesError,
    },
    /// A file is not what was imported, or published, any more.
    #[error("`{}` changed", shown(path))]
    SourceChanged {
        /// The file.
        path: PathBuf,
    },
    /// Reading or looking failed.
    #[error("cannot read `{}`: {source}", shown(path))]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Writing, creating or renaming failed.
    #[error("cannot write `{}`: {source}", shown(path))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system takes no more files and folders, however many bytes are free.
    #[error("{}", inodes_text(path, *needed, *free))]
    NoInodes {
        /// What was to be made.
        path: PathBuf,
        /// Files, folders and links that were to be made; at least 1.
        needed: u64,
        /// Those that can be made.
        free: u64,
    },
    /// The user's quota has no room.
    #[error("no space for `{}`: your quota is used up (`quota`)", shown(path))]
    QuotaFull {
        /// What was to be written.
        path: PathBuf,
    },
    /// The disk has no room.
    #[error("no space for `{}`{}{}", shown(path), needed_text(*needed), free_text(*free))]
    DiskFull {
        /// What was to be written.
        path: PathBuf,
        /// Bytes that were to be written, 0 for a name; for a whole share, those still missing.
        needed: u64,
        /// Bytes free; `None` when the file system does not say.
        free: Option<u64>,
    },
    /// The target folder is something else.
    #[error("`{}` is not a folder", shown(path))]
    NotAFolder {
        /// The path as given.
        path: PathBuf,
    },
    /// The target folder takes no new files.
    #[error("cannot write to folder `{}`: {source}", shown(path))]
    NotWritable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path of the result ends in no name.
    #[error("`{}` is no name for a file or folder", shown(path))]
    OutputName {
        /// The path as given.
        path: PathBuf,
    },
    /// Names of the share that this system cannot hold.
    #[error("names this system cannot hold: {}", names_text(names))]
    IllegalNames {
        /// All of them, in path order; at least one.
        names: Vec<IllegalName>,
    },
    /// Something else already has the name of the result.
    #[error("`{}` exists and differs", shown(path))]
    TargetDiffers {
        /// What exists.
        path: PathBuf,
    },
    /// A file that this fetch gave its final name was changed by somebody else before the fetch was complete.
    #[error("`{}` was changed after it was fetched", shown(path))]
    Edited {
        /// The file, which is left as it is.
        path: PathBuf,
    },
    /// A link or a file lies where a folder of the share belongs. Nothing below it is touched.
    #[error("`{}` is in the way: a folder belongs there", shown(path))]
    Blocked {
        /// What lies there.
        path: PathBuf,
    },
    /// Another process fetches this share to this place.
    #[error("another fetch is writing to `{}`", shown(path))]
    Busy {
        /// Its part folder.
        path: PathBuf,
    },
    /// Not all pieces are held yet.
    #[error("`{}` lacks {missing} pieces", shown(path))]
    Incomplete {
        /// The result.
        path: PathBuf,
        /// Pieces not held.
        missing: u32,
    },
    /// The piece is not held.
    #[error("piece {piece} is not held")]
    NotHeld {
        /// The piece.
        piece: PieceIndex,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// What kind of failure it is, for exit codes and hints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The command line cannot be meant: exit code 2.
    Usage,
    /// A path that was named does not exist: exit code 6.
    NotFound,
    /// Unreadable or changed source, unwritable folder, any other I/O: exit code 6.
    Io,
    /// No room: exit code 6.
    DiskFull,
    /// The target exists and differs, or another fetch holds it: exit code 7.
    Exists,
    /// A path is refused: exit code 7.
    Name,
    /// Not all pieces are there: exit code 4.
    Incomplete,
    /// Stopped by the caller: the exit code of whatever asked for it.
    Cancelled,
}

impl StorageError {
    /// The kind of failure.
    #[must_use]
    pub fn exit_class(&self) -> ErrorClass {
        match self {
            Self::Glob { .. }
            | Self::NothingChosen
            | Self::NothingToShare
            | Self::EqualNames { .. }
            | Self::NoName { .. }
            | Self::OutputName { .. } => ErrorClass::Usage,
            Self::NotFound { .. } => ErrorClass::NotFound,
            Self::NotAFileOrFolder { .. }
            | Self::NotUtf8 { .. }
            | Self::SourceName { .. }
            | Self::CannotShare { .. }
            | Self::FalseLength { .. }
            | Self::TooManyEntries
            | Self::Unshareable { .. }
            | Self::Hashes { .. }
            | Self::SourceChanged { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::NotAFolder { .. }
            | Self::NotWritable { .. }
            | Self::NotHeld { .. } => ErrorClass::Io,
            Self::DiskFull { .. } | Self::NoInodes { .. } | Self::QuotaFull { .. } => {
                ErrorClass::DiskFull
            }
            Self::TargetDiffers { .. } | Self::Edited { .. } | Self::Busy { .. } => {
                ErrorClass::Exists
            }
            Self::IllegalNames { .. } | Self::Blocked { .. } => ErrorClass::Name,
            Self::Incomplete { .. } => ErrorClass::Incomplete,
            Self::Cancelled => ErrorClass::Cancelled,
        }
    }

    /// More about it, a line each: every thing that cannot be shared, where there are several.
    #[must_use]
    pub fn details(&self) -> Vec<String> {
        let Self::CannotShare { things, .. } = self else {
            return Vec::new();
        };
        if things.len() == 1 {
            return Vec::new();
        }
        let mut lines: Vec<_> = things
            .iter()
            .take(THINGS_SHOWN_MAX)
            .map(|Skipped { path, reason }| format!("`{}`: {reason}", shown(path)))
            .collect();
        if things.len() > THINGS_SHOWN_MAX {
            lines.push(format!("and {} more", things.len() - THINGS_SHOWN_MAX));
        }
        lines
    }

    /// The error for a failed write of `needed` bytes to `path`, somewhere on the file system of `folder`.
    pub(super) fn writing(path: PathBuf, folder: &Path, needed: u64, source: io::Error) -> Self {
        if !os::is_disk_full(&source) {
            return Self::Write { path, source };
        }
        if os::is_over_quota(&source) {
            return Self::QuotaFull { path };
        }
        match os::space_at(folder) {
            Some(space) if space.inodes == Some(0) && space.free > needed => Self::NoInodes {
                path,
                needed: 1,
                free: 0,
            },
            space => Self::DiskFull {
                path,
                needed,
                free: space.map(|space| space.free),
            },
        }
    }

    /// The error for a failed read of `path`, which the user named or which lies below a path the user named.
    pub(super) fn reading(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::NotFound { path },
            // The file is shorter than it was.
            io::ErrorKind::UnexpectedEof => Self::SourceChanged { path },
            _ => Self::Read { path, source },
        }
    }
}

/// A path as a terminal may see it, bytes that are not UTF-8 as `\xe9`.
#[must_use]
pub fn shown(path: &Path) -> String {
    escape_hostile_bytes(path.as_os_str().as_encoded_bytes())
}

fn cannot_share_text(things: &[Skipped]) -> String {
    match things {
        [Skipped { path, reason }] => format!("`{}` cannot be shared: {reason}", shown(path)),
        things => format!("{} files or folders cannot be shared", things.len()),
    }
}

/// "0 bytes needed" would be no reason.
fn needed_text(needed: u64) -> String {
    match needed {
        0 => ": the disk is full".to_owned(),
        needed => format!(": {needed} bytes needed"),
    }
}

fn inodes_text(path: &Path, needed: u64, free: u64) -> String {
    let path = shown(path);
    if free == 0 && needed == 1 {
        return format!(
            "no inodes left for `{path}`: the file system takes no more files (`df -i`)"
        );
    }
    format!(
        "no room for `{path}`: it needs {needed} files and folders, the file system has room for {free} (`df -i`)"
    )
}

fn free_text(free: Option<u64>) -> String {
    free.map_or_else(String::new, |free| format!(", {free} free"))
}

/// The first few of `names`, and how many more there are.
#[must_use]
pub fn names_text(names: &[IllegalName]) -> String {
    let mut text: Vec<_> = names
        .iter()
        .take(NAMES_SHOWN_MAX)
        .map(ToString::to_string)
        .collect();
    if names.len() > NAMES_SHOWN_MAX {
        text.push(format!("and {} more", names.len() - NAMES_SHOWN_MAX));
    }
    text.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_path_reaches_no_message_unescaped() {
        let error = StorageError::TargetDiffers {
            path: PathBuf::from("a\u{1b}[2J\u{202e}b"),
        };
        let text = error.to_string();
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
        assert!(text.starts_with("`a\\u{1b}[2J"), "{text:?}");
    }

    #[test]
    fn a_full_disk_names_path_needed_and_free() {
        let source = io::Error::from(rustix::io::Errno::NOSPC);
        let error = StorageError::writing(PathBuf::from("big"), Path::new("/"), 77, source);
        assert_eq!(error.exit_class(), ErrorClass::DiskFull);
        let text = error.to_string();
        assert!(
            text.starts_with("no space for `big`: 77 bytes needed, "),
            "{text}"
        );
        assert!(text.ends_with(" free"), "{text}");
    }

    #[test]
    fn no_message_says_that_nothing_is_needed_or_that_there_is_room() {
        let full = |errno: rustix::io::Errno| {
            StorageError::writing(PathBuf::from("f"), Path::new("/"), 0, errno.into()).to_string()
        };
        let text = full(rustix::io::Errno::NOSPC);
        assert!(
            text.starts_with("no space for `f`: the disk is full, "),
            "{text}"
        );
        let text = full(rustix::io::Errno::DQUOT);
        assert!(text.contains("quota") && !text.contains("free"), "{text}");
        let none = StorageError::NoInodes {
            path: PathBuf::from("f"),
            needed: 1,
            free: 0,
        };
        assert_eq!(none.exit_class(), ErrorClass::DiskFull);
        assert!(
            none.to_string().starts_with("no inodes left for `f`"),
            "{none}"
        );
    }
}
