//! Words of others: links and paths.

use data_encoding::BASE32_NOPAD;
use shoal::content::{Digest, Link, Name, RelativePath, escape_hostile, is_symlink_target_inside};

use super::memory::frugal;

/// A link in any spelling: it is shown in one, which reads back. No change of a link survives its checksum, so the input
/// is taken as what stands before one as well.
pub(super) fn link(data: &[u8]) {
    spelled(&String::from_utf8_lossy(data));
    let checksum = Digest::of_parts(&[b"shoal link", data]);
    spelled(&BASE32_NOPAD.encode(&[data, &checksum.as_bytes()[..4]].concat()));
}

fn spelled(text: &str) {
    let parsed = frugal(text.len(), || text.parse::<Link>());
    if let Ok(link) = parsed {
        let shown = link.to_string();
        assert!(shown.bytes().all(|byte| byte.is_ascii_graphic()), "{shown}");
        assert_eq!(shown.parse::<Link>().expect("our own"), link);
    }
}

/// A path below some folder never leads out of it, and a link inside neither.
pub(super) fn path(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let shown = escape_hostile(&text);
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    assert_eq!(escape_hostile(&shown), shown);
    if let Ok(path) = frugal(text.len(), || RelativePath::parse(&text)) {
        let plain =
            |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
        assert!(path.to_path_buf().components().all(plain), "{path:?}");
        assert_eq!(path.as_str(), text);
        let name = path.file_name();
        assert_eq!(
            Name::parse(name).expect("an element is a name").as_str(),
            name
        );
    }
    let (at, target) = text.split_once('\n').unwrap_or(("a/b", &text));
    if let Ok(link) = RelativePath::parse(at)
        && is_symlink_target_inside(&link, target)
    {
        // Walked from the folder of the link, it never passes the top.
        let mut depth = link.elements().count() as isize - 1;
        for element in target.split('/') {
            depth += if element == ".." { -1 } else { 1 };
            assert!(depth >= 0, "`{target}` leads out from `{at}`");
        }
    }
}
