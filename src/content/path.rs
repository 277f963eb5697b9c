//! Names that cannot leave the folder they are used in: `RelativePath`, `Name`, and text made safe to show.
//!
//! Owns the rules every share obeys on every system. Never touches a file, and does not judge what only some systems
//! cannot hold (device names, letter case): the fetching side does that. Called by `manifest.rs` for what peers send
//! and by `storage/` for what users share; `escape_hostile` by every surface that shows a remote's words.
//!
//! Source: the protocol document, "Names".

use std::{cmp::Ordering, fmt, fmt::Write as _, path::PathBuf};

/// Most bytes of a path.
pub const PATH_LEN_MAX: usize = 4096;
/// Most elements of a path.
pub const PATH_DEPTH_MAX: usize = 64;
/// Most bytes of one element: what common file systems hold.
pub const ELEMENT_LEN_MAX: usize = 255;

/// Characters that an error shows of a path that is too long.
const BEGINNING_LEN: usize = 60;

/// Why text is not a path or name of a share. Shown with hostile characters escaped.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PathError {
    /// No text at all.
    #[error("empty path")]
    Empty,
    /// More than 4,096 bytes.
    #[error(
        "path of {len} bytes where at most {PATH_LEN_MAX} are allowed, it begins `{}`",
        escape_hostile(beginning)
    )]
    TooLong {
        /// Its first characters.
        beginning: String,
        /// Its bytes.
        len: usize,
    },
    /// More than 64 elements.
    #[error(
        "path of more than {PATH_DEPTH_MAX} elements: `{}`",
        escape_hostile(path)
    )]
    TooDeep {
        /// The path.
        path: String,
    },
    /// It begins with a separator.
    #[error("absolute path: `{}`", escape_hostile(path))]
    Absolute {
        /// The path.
        path: String,
    },
    /// Two separators in a row, or one at the end.
    #[error("empty element in path `{}`", escape_hostile(path))]
    EmptyElement {
        /// The path.
        path: String,
    },
    /// An element is `.` or `..`.
    #[error("dot element in path `{}`", escape_hostile(path))]
    DotElement {
        /// The path.
        path: String,
    },
    /// NUL, or a separator of some system inside an element.
    #[error("forbidden character {character:?} in path `{}`", escape_hostile(path))]
    Forbidden {
        /// The path.
        path: String,
        /// The character.
        character: char,
    },
    /// An element of more than 255 bytes.
    #[error(
        "element of {len} bytes where at most {ELEMENT_LEN_MAX} are allowed, in path `{}`",
        escape_hostile(path)
    )]
    ElementTooLong {
        /// The path.
        path: String,
        /// Bytes of the element.
        len: usize,
    },
}

/// A path below some folder, `/` between its elements on every system.
///
/// Orders by elements, bytewise, so that a folder comes directly before what is in it. Displays with hostile
/// characters escaped; [`as_str`](Self::as_str) is the real text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RelativePath(Box<str>);

impl RelativePath {
    /// Checks `text` by the rules of [`PathError`].
    ///
    /// # Errors
    /// When a rule is broken.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        check_path(text)?;
        Ok(Self(text.into()))
    }

    /// The elements, outermost first; at least one.
    pub fn elements(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The whole, `/` between elements.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path for use below a folder of this system. Whether this system can hold such names is not checked here.
    #[must_use]
    pub fn to_path_buf(&self) -> PathBuf {
        PathBuf::from(&*self.0)
    }

    /// The folder it is in; `None` when that is the outermost.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.0
            .rsplit_once('/')
            .map(|(parent, _)| Self(parent.into()))
    }

    /// The last element.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// This path below `folder`.
    ///
    /// # Errors
    /// When both together are too long or too deep.
    pub fn below(&self, folder: &Self) -> Result<Self, PathError> {
        Self::parse(&format!("{}/{}", folder.0, self.0))
    }

    /// Whether this path lies below `folder`, at any depth; false for the folder itself.
    #[must_use]
    pub fn is_below(&self, folder: &Self) -> bool {
        is_below(&self.0, &folder.0)
    }
}

/// As [`RelativePath::is_below`], of paths that are checked and not kept.
pub(super) fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// How many folders `path` lies below that are not above `previous`, the path before it in path order.
pub(super) fn folders_not_above(path: &str, previous: &str) -> usize {
    let (path, previous) = (path.as_bytes(), previous.as_bytes());
    let shared = path
        .iter()
        .zip(previous)
        .take_while(|(left, right)| left == right)
        .count();
    path[shared..].iter().filter(|byte| **byte == b'/').count()
}

/// The order of paths, of some that are checked and not kept.
pub(super) fn compare(ours: &str, theirs: &str) -> Ordering {
    let (ours, theirs) = (ours.as_bytes(), theirs.as_bytes());
    let shared = ours
        .iter()
        .zip(theirs)
        .take_while(|(left, right)| left == right)
        .count();
    // No element holds a byte 0, so a separator that counts as 0 sorts before every longer element.
    let sortable = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    let (ours, theirs) = (ours.get(shared), theirs.get(shared));
    ours.map(sortable).cmp(&theirs.map(sortable))
}

impl Ord for RelativePath {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for RelativePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escape_hostile(&self.0))
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl From<Name> for RelativePath {
    fn from(name: Name) -> Self {
        Self(name.0)
    }
}

/// The name of a share: one element of a path, never a path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

impl Name {
    /// Checks `text` by the rules of [`PathError`], with `/` forbidden too.
    ///
    /// # Errors
    /// When a rule is broken.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > PATH_LEN_MAX {
            return Err(too_long(text));
        }
        if text.contains('/') {
            return Err(PathError::Forbidden {
                path: text.into(),
                character: '/',
            });
        }
        check_element(text, text)?;
        Ok(Self(text.into()))
    }

    /// The real text. [`Display`](fmt::Display) shows it with hostile characters escaped.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escape_hostile(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Whether a symlink at `link` may hold `target`: relative, and inside the tree however it is followed.
///
/// `..` is allowed only at the front, and no more often than `link` is deep. The folders above a link are real
/// ones, so that much is safe; a `..` after a name could follow another symlink first and then climb out.
#[must_use]
pub fn is_symlink_target_inside(link: &RelativePath, target: &str) -> bool {
    is_inside(&link.0, target)
}

/// As [`is_symlink_target_inside`], of a path that is checked and not kept.
pub(super) fn is_inside(link: &str, target: &str) -> bool {
    let mut rest = target;
    let mut depth = link.split('/').count() - 1;
    loop {
        let is_parent = rest == ".." || rest.starts_with("../");
        if !is_parent {
            return check_path(rest).is_ok() && target.len() <= PATH_LEN_MAX;
        }
        if depth == 0 {
            return false;
        }
        if rest == ".." {
            return true;
        }
        depth -= 1;
        rest = &rest[3..];
    }
}

/// `text` with every character that could move, hide or disguise what is shown written as `\u{..}`.
///
/// These are control characters, line and paragraph separators, everything that changes the direction of text, and
/// what has no width. Use it on any text of a remote before it reaches a terminal, a log or a page.
///
/// Source: Unicode 16: categories Cc, Cf, Zl and Zp, and other code points without a width of their own.
#[must_use]
pub fn escape_hostile(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_hostile(character) {
            // Writing to a string cannot fail.
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// The same of bytes that should be UTF-8: those that are not are written as `\xe9`.
#[must_use]
pub fn escape_hostile_bytes(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        shown.push_str(&escape_hostile(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
                | '\u{890}' | '\u{891}' | '\u{8e2}' | '\u{115f}' | '\u{1160}' | '\u{17b4}'
                | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
                | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
                | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Whether `text` obeys the rules of [`PathError`].
pub(super) fn check_path(text: &str) -> Result<(), PathError> {
    if text.is_empty() {
        return Err(PathError::Empty);
    }
    if text.len() > PATH_LEN_MAX {
        return Err(too_long(text));
    }
    if text.starts_with('/') {
        return Err(PathError::Absolute { path: text.into() });
    }
    let mut depth = 0;
    for element in text.split('/') {
        depth += 1;
        if depth > PATH_DEPTH_MAX {
            return Err(PathError::TooDeep { path: text.into() });
        }
        check_element(element, text)?;
    }
    Ok(())
}

fn too_long(text: &str) -> PathError {
    PathError::TooLong {
        beginning: text.chars().take(BEGINNING_LEN).collect(),
        len: text.len(),
    }
}

fn check_element(element: &str, path: &str) -> Result<(), PathError> {
    if element.is_empty() {
        return Err(PathError::EmptyElement { path: path.into() });
    }
    if element == "." || element == ".." {
        return Err(PathError::DotElement { path: path.into() });
    }
    if let Some(character) = element
        .chars()
        .find(|character| matches!(character, '\0' | '\\'))
    {
        return Err(PathError::Forbidden {
            path: path.into(),
            character,
        });
    }
    if element.len() > ELEMENT_LEN_MAX {
        return Err(PathError::ElementTooLong {
            path: path.into(),
            len: element.len(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Numbers, *};

    fn path(text: &str) -> RelativePath {
        RelativePath::parse(text).unwrap()
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_numbers() {
        assert_eq!(
            escape_hostile_bytes(b"caf\xe9/\x1b[2J"),
            "caf\\xe9/\\u{1b}[2J"
        );
        assert_eq!(escape_hostile_bytes("caf\u{e9}".as_bytes()), "caf\u{e9}");
        assert_eq!(escape_hostile_bytes(b"\xff\xfe"), "\\xff\\xfe");
    }

    #[test]
    fn paths_that_could_leave_the_folder_or_break_a_system_are_refused() {
        type Check = fn(&PathError) -> bool;
        let long_element = "e".repeat(ELEMENT_LEN_MAX + 1);
        let long_path = "long/".repeat(PATH_LEN_MAX / 5) + "longer";
        let deep_path = "d/".repeat(PATH_DEPTH_MAX) + "d";
        let cases: [(&str, Check); 24] = [
            ("", |error| matches!(error, PathError::Empty)),
            ("/", |error| matches!(error, PathError::Absolute { .. })),
            ("/etc/passwd", |error| {
                matches!(error, PathError::Absolute { .. })
            }),
            ("//server/share", |error| {
                matches!(error, PathError::Absolute { .. })
            }),
            ("..", |error| matches!(error, PathError::DotElement { .. })),
            ("../a", |error| {
                matches!(error, PathError::DotElement { .. })
            }),
            ("a/../b", |error| {
                matches!(error, PathError::DotElement { .. })
            }),
            ("a/..", |error| {
                matches!(error, PathError::DotElement { .. })
            }),
            (".", |error| matches!(error, PathError::DotElement { .. })),
            ("./a", |error| matches!(error, PathError::DotElement { .. })),
            ("a/./b", |error| {
                matches!(error, PathError::DotElement { .. })
            }),
            ("a//b", |error| {
                matches!(error, PathError::EmptyElement { .. })
            }),
            ("a/", |error| {
                matches!(error, PathError::EmptyElement { .. })
            }),
            ("a\0b", |error| {
                matches!(
                    error,
                    PathError::Forbidden {
                        character: '\0',
                        ..
                    }
                )
            }),
            ("a/\0", |error| {
                matches!(
                    error,
                    PathError::Forbidden {
                        character: '\0',
                        ..
                    }
                )
            }),
            ("a\\b", |error| {
                matches!(
                    error,
                    PathError::Forbidden {
                        character: '\\',
                        ..
                    }
                )
            }),
            ("..\\a", |error| {
                matches!(
                    error,
                    PathError::Forbidden {
                        character: '\\',
                        ..
                    }
                )
            }),
            ("C:\\a", |error| {
                matches!(
                    error,
                    PathError::Forbidden {
                        character: '\\',
                        ..
                    }
                )
            }),
            ("\\\\server\\share", |error| {
                matches!(error, PathError::Forbidden { .. })
            }),
            ("a/b\\", |error| {
                matches!(error, PathError::Forbidden { .. })
            }),
            (&long_element, |error| {
                matches!(error, PathError::ElementTooLong { len: 256, .. })
            }),
            (&long_path, |error| {
                matches!(error, PathError::TooLong { .. })
            }),
            (&deep_path, |error| {
                matches!(error, PathError::TooDeep { .. })
            }),
            ("a/..\0", |error| {
                matches!(error, PathError::Forbidden { .. })
            }),
        ];
        for (text, is_expected) in cases {
            let error = RelativePath::parse(text).unwrap_err();
            assert!(is_expected(&error), "{text:?}: {error:?}");
            assert!(Name::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn paths_that_only_some_systems_cannot_hold_are_kept_as_they_are() {
        let longest = format!("{}/", "e".repeat(ELEMENT_LEN_MAX)).repeat(PATH_LEN_MAX / 256);
        let deepest = "d/".repeat(PATH_DEPTH_MAX - 1) + "d";
        let cases = [
            "a",
            "a/b/c",
            "...",
            "..a/.b/c..",
            "aux",
            "nul.txt",
            "C:",
            "12:30.log",
            "trailing.",
            "trailing ",
            " ",
            "a*b?c<d>e|f\"g",
            "line\nbreak",
            "\u{1f433}/\u{202e}cod.exe",
            "e\u{301}/\u{e9}",
            &longest[..longest.len() - 1],
            &deepest,
        ];
        for text in cases {
            let path = path(text);
            assert_eq!(path.as_str(), text);
            assert_eq!(path.elements().collect::<Vec<_>>().join("/"), text);
            assert_eq!(path.to_path_buf(), PathBuf::from(text));
            assert_eq!(Name::parse(text).is_ok(), !text.contains('/'), "{text}");
        }
    }

    #[test]
    fn a_path_knows_its_parent_and_its_last_element() {
        let cases = [
            ("a", None, "a"),
            ("a/b", Some("a"), "b"),
            ("a/b/c", Some("a/b"), "c"),
        ];
        for (text, parent, name) in cases {
            assert_eq!(path(text).parent(), parent.map(path));
            assert_eq!(path(text).file_name(), name);
            assert_eq!(
                path(text).below(&path("x/y")).unwrap().as_str(),
                format!("x/y/{text}")
            );
        }
        assert!(path("a/b").is_below(&path("a")) && path("a/b/c").is_below(&path("a")));
        for other in ["a", "ab", "ab/c", "b/a", "a-/b"] {
            assert!(!path(other).is_below(&path("a")), "{other}");
        }
        let deep = path(&("d/".repeat(PATH_DEPTH_MAX - 2) + "d"));
        assert!(deep.below(&path("a")).is_ok() && deep.below(&path("a/b")).is_err());
    }

    #[test]
    fn paths_order_by_their_elements() {
        let sorted = [
            "a", "a/b", "a/b/c", "a/c", "a\u{1}", "a b", "a-b", "a.b/c", "ab", "b", "\u{e9}",
        ];
        for pair in sorted.windows(2) {
            assert!(path(pair[0]) < path(pair[1]), "{pair:?}");
        }
        let mut numbers = Numbers::seeded(6);
        let mut some_path = || {
            let len = 1 + 2 * numbers.below(4);
            let text: String = (0..len)
                .map(|index| match (index % 2, numbers.below(3)) {
                    (0, 0) => "a",
                    (0, 1) => "a-",
                    (0, _) => "\u{e9}",
                    (_, 0) => "b",
                    (_, _) => "/",
                })
                .collect();
            path(&text)
        };
        for _ in 0..2000 {
            let (left, right) = (some_path(), some_path());
            let slow = left
                .elements()
                .map(str::as_bytes)
                .cmp(right.elements().map(str::as_bytes));
            assert_eq!(left.cmp(&right), slow, "{left:?} {right:?}");
        }
    }

    #[test]
    fn symlinks_may_point_anywhere_inside_and_nowhere_else() {
        let inside = [
            ("link", "a"),
            ("link", "a/b"),
            ("a/link", "b"),
            ("a/link", ".."),
            ("a/link", "../b"),
            ("a/b/link", "../.."),
            ("a/b/link", "../../c/d"),
            ("a/link", "..."),
            ("a/link", "..b"),
        ];
        for (link, target) in inside {
            assert!(
                is_symlink_target_inside(&path(link), target),
                "{link} -> {target}"
            );
        }
        let long = "x/".repeat(30) + &"y".repeat(PATH_LEN_MAX);
        let outside = [
            ("link", ".."),
            ("link", "../a"),
            ("a/link", "../.."),
            ("a/link", "../../a"),
            ("a/b/link", "../../../etc"),
            ("link", "/etc/passwd"),
            ("a/link", "..//etc"),
            ("a/link", "../"),
            ("link", ""),
            ("link", "."),
            ("link", "./a"),
            ("link", "a/"),
            ("link", "a/../b"),
            ("link", "a/.."),
            ("link", "a/../.."),
            ("a/link", "../b/../../c"),
            ("link", "a\\b"),
            ("a/link", "..\\..\\b"),
            ("link", "a\0"),
            ("link", &long),
        ];
        for (link, target) in outside {
            assert!(
                !is_symlink_target_inside(&path(link), target),
                "{link} -> {target}"
            );
        }
    }

    #[test]
    fn text_that_could_fool_a_reader_is_shown_as_code_points() {
        let cases = [
            (
                "plain \u{fc}ber \u{6f22}\u{5b57} \u{1f433}",
                "plain \u{fc}ber \u{6f22}\u{5b57} \u{1f433}",
            ),
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            (
                "a\r\nb\tc\u{7f}\u{9b}",
                "a\\u{d}\\u{a}b\\u{9}c\\u{7f}\\u{9b}",
            ),
            ("photo\u{202e}gpj.exe", "photo\\u{202e}gpj.exe"),
            (
                "\u{2066}a\u{2069}\u{61c}\u{200e}\u{200f}",
                "\\u{2066}a\\u{2069}\\u{61c}\\u{200e}\\u{200f}",
            ),
            (
                "a\u{200b}b\u{200d}c\u{feff}\u{2060}\u{ad}",
                "a\\u{200b}b\\u{200d}c\\u{feff}\\u{2060}\\u{ad}",
            ),
            (
                "\u{2028}\u{2029}\u{0}\u{e0041}",
                "\\u{2028}\\u{2029}\\u{0}\\u{e0041}",
            ),
        ];
        for (text, shown) in cases {
            assert_eq!(escape_hostile(text), shown);
        }
        assert_eq!(path("a/\u{202e}b").to_string(), "a/\\u{202e}b");
        assert_eq!(Name::parse("\u{7}").unwrap().to_string(), "\\u{7}");
        let error = RelativePath::parse("../\u{1b}[31m").unwrap_err();
        assert_eq!(error.to_string(), "dot element in path `../\\u{1b}[31m`");
    }
}
