//! Names that only one file or folder may say: libp2p, the encoding, process exit, unbounded queues, `unsafe`.
//!
//! What the pure folders may not say is in [`super::pure`]. Source: `src/ARCHITECTURE.md`, the "never" column and
//! the invariants.

use super::pure::is_pure;
use super::source::{Name, scan, sources};
use super::tree::Tree;

/// The one file of a pure folder that may name the bare value types of addresses and peer ids.
const LINK: &str = "src/content/link.rs";

/// The one file that may name the encoding.
const ENCODING: &str = "src/content/encoding.rs";

/// Files that may hold `unsafe`, each with the reason.
const UNSAFE: &[(&str, &str)] = &[
    ("src/cli/heap.rs", "mallopt has no safe wrapper"),
    (
        "src/content/leaves.rs",
        "the compiler does not know what was asked of the CPU",
    ),
    (
        "tests/fuzz/memory.rs",
        "an allocator that counts implements an unsafe trait",
    ),
    (
        "tests/support/disk.rs",
        "the request that takes the power from ext4 has no safe wrapper",
    ),
];

/// Queues without a ceiling, with std's under the path that makes one.
const UNBOUNDED_WORDS: &[&str] = &["unbounded_channel", "UnboundedSender", "UnboundedReceiver"];
const UNBOUNDED_PATHS: &[&[&str]] = &[
    &["std", "sync", "mpsc", "channel"],
    &["futures", "channel", "mpsc", "unbounded"],
];

/// libp2p is named in `network/` alone, and the bare address crate in no other pure file than the link's.
pub(crate) fn libp2p_outside_network(tree: &Tree) -> Vec<String> {
    scan(tree, |source, found| {
        let is_link = source.path == LINK;
        let is_network = source.path.starts_with("src/network/");
        for (line, word) in source.words() {
            let named = word == "libp2p" || word.starts_with("libp2p_");
            if named && !is_network && !(is_link && word == "libp2p_identity") {
                found(
                    line,
                    format!(
                        "`{word}` outside network/: use what `network` or `content` gives (`NetworkHandle`, `PeerId`, `Multiaddr`)"
                    ),
                );
            }
        }
        let names_crate = |name: &&Name| {
            name.segments[0] == "multiaddr" && (name.imported || name.segments.len() > 1)
        };
        if is_pure(source.path) && !is_link {
            for name in source.names.iter().filter(names_crate) {
                found(
                    name.line,
                    "`multiaddr` in a pure folder: use `content::Multiaddr`".to_owned(),
                );
            }
        }
    })
}

/// bincode is named in one file, so that a swap is a change of one file.
pub(crate) fn bincode_outside_encoding(tree: &Tree) -> Vec<String> {
    scan(tree, |source, found| {
        for (line, word) in source.words() {
            if (word == "bincode" || word == "bincode_derive") && source.path != ENCODING {
                found(
                    line,
                    format!(
                        "`{word}` outside {ENCODING}: use `content::{{Encode, Decode, encode, decode}}`"
                    ),
                );
            }
        }
    })
}

/// Only `main` ends the process.
pub(crate) fn exits_outside_main(tree: &Tree) -> Vec<String> {
    scan(tree, |source, found| {
        for name in &source.names {
            for path in [&["std", "process", "exit"], &["std", "process", "abort"]] {
                let is_glob = name.segments.last().is_some_and(|last| last == "*");
                if name.is_within(path) && !is_glob && source.path != "src/main.rs" {
                    found(
                        name.line,
                        format!(
                            "`{}` outside main.rs: return an error or an exit code to the caller",
                            path.join("::")
                        ),
                    );
                }
            }
        }
    })
}

/// Every queue has a ceiling.
pub(crate) fn unbounded_queues(tree: &Tree) -> Vec<String> {
    const INSTEAD: &str =
        "has no ceiling: use a bounded channel and document what happens when it is full";
    scan(tree, |source, found| {
        for (line, word) in source.words() {
            if UNBOUNDED_WORDS.contains(&word) {
                found(line, format!("`{word}` {INSTEAD}"));
            }
        }
        for name in &source.names {
            for path in UNBOUNDED_PATHS
                .iter()
                .filter(|path| name.segments == **path)
            {
                found(name.line, format!("`{}` {INSTEAD}", path.join("::")));
            }
        }
    })
}

/// `unsafe` stands only where the list above says why, and the list names no file without it.
pub(crate) fn unlisted_unsafe(tree: &Tree) -> Vec<String> {
    unsafe_but(tree, UNSAFE)
}

fn unsafe_but(tree: &Tree, allowed: &[(&str, &str)]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut used = Vec::new();
    for source in sources(tree, "") {
        for (line, _) in source.words().filter(|(_, word)| *word == "unsafe") {
            if allowed.iter().any(|(path, _)| *path == source.path) {
                used.push(source.path);
            } else {
                findings.push(source.finding(line, "`unsafe`: use a safe crate, or list the file with its reason in tests/tidy/names.rs"));
            }
        }
    }
    for (path, _) in allowed.iter().filter(|(path, _)| !used.contains(path)) {
        findings.push(format!(
            "{path}:1: listed in tests/tidy/names.rs without any `unsafe`: take it off the list"
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::{fires, quiet};
    use super::*;

    #[test]
    fn libp2p_stays_in_its_folder() {
        let rule = libp2p_outside_network;
        fires(
            rule,
            "src/node/a.rs",
            "use libp2p::Swarm;",
            "`libp2p` outside network/",
        );
        fires(
            rule,
            "src/storage/a.rs",
            "fn f(x: ::libp2p_kad::Key) {}",
            "`libp2p_kad`",
        );
        fires(
            rule,
            "src/content/link.rs",
            "use libp2p::PeerId;",
            "`libp2p`",
        );
        fires(
            rule,
            "src/content/path.rs",
            "use libp2p_identity::PeerId;",
            "`libp2p_identity`",
        );
        fires(
            rule,
            "src/engine/a.rs",
            "use multiaddr::Multiaddr;",
            "`multiaddr` in a pure folder",
        );
        fires(
            rule,
            "src/wire/a.rs",
            "fn f(x: multiaddr::Multiaddr) {}",
            "`multiaddr`",
        );
        quiet(
            rule,
            "src/network/a.rs",
            "use libp2p::Swarm; use libp2p_identity::PeerId; use multiaddr::X;",
        );
        quiet(
            rule,
            "src/content/link.rs",
            "pub use libp2p_identity::PeerId; pub use multiaddr::Multiaddr;",
        );
        quiet(
            rule,
            "src/engine/a.rs",
            "// libp2p\nuse crate::content::Multiaddr; fn f(multiaddr: Multiaddr) {}",
        );
        quiet(rule, "src/cli/a.rs", "use multiaddr::Protocol;");
    }

    #[test]
    fn bincode_stays_in_its_file() {
        let rule = bincode_outside_encoding;
        fires(
            rule,
            "src/wire/a.rs",
            "#[derive(bincode::Encode)] struct A;",
            "`bincode` outside src/content/encoding.rs",
        );
        fires(rule, "src/content/mod.rs", "use bincode as b;", "`bincode`");
        quiet(
            rule,
            "src/content/encoding.rs",
            "pub use bincode::{Decode, Encode};",
        );
        quiet(
            rule,
            "src/wire/a.rs",
            "/// bincode\nuse crate::content::Encode;",
        );
    }

    #[test]
    fn only_main_ends_the_process() {
        let rule = exits_outside_main;
        fires(
            rule,
            "src/cli/mod.rs",
            "fn f() { std::process::exit(1) }",
            "`std::process::exit` outside main.rs",
        );
        fires(
            rule,
            "src/cli/mod.rs",
            "use std::process::{Command, exit};",
            "`std::process::exit`",
        );
        fires(
            rule,
            "src/cli/mod.rs",
            "use std::process; fn f() { process::abort() }",
            "`std::process::abort`",
        );
        quiet(rule, "src/main.rs", "fn main() { std::process::exit(1) }");
        quiet(
            rule,
            "src/cli/exit.rs",
            "use std::process::{Command, ExitCode}; fn exit() {} fn f() { exit(); super::exit::f() }",
        );
    }

    #[test]
    fn every_queue_has_a_ceiling() {
        let rule = unbounded_queues;
        fires(
            rule,
            "src/node/a.rs",
            "let x = tokio::sync::mpsc::unbounded_channel();",
            "`unbounded_channel` has no ceiling",
        );
        fires(
            rule,
            "src/node/a.rs",
            "use tokio::sync::mpsc::UnboundedSender as S;",
            "`UnboundedSender`",
        );
        fires(
            rule,
            "src/node/a.rs",
            "fn f() { std::sync::mpsc::channel() }",
            "`std::sync::mpsc::channel`",
        );
        fires(
            rule,
            "src/node/a.rs",
            "use futures::channel::mpsc::unbounded;",
            "`futures::channel::mpsc::unbounded`",
        );
        quiet(
            rule,
            "src/node/a.rs",
            "use tokio::sync::mpsc; fn f() { mpsc::channel(8) } // unbounded_channel",
        );
        quiet(
            rule,
            "src/node/a.rs",
            "use std::sync::mpsc; fn f(unbounded: bool) { mpsc::sync_channel(8) }",
        );
    }

    #[test]
    fn unsafe_needs_a_row_with_a_reason_and_a_row_needs_unsafe() {
        let text = "fn f() {\n    unsafe { g() }\n}";
        let tree = Tree::of(&[
            ("src/node/a.rs", text),
            ("tests/b.rs", "// unsafe\n\"unsafe\""),
        ]);
        // The rows of the real list have no file here, and are found as well.
        let is_here = |finding: &String| finding.starts_with("src/node/a.rs:2: `unsafe`");
        let found = unlisted_unsafe(&tree);
        assert_eq!(found.iter().filter(|finding| is_here(finding)).count(), 1);
        assert_eq!(found.len(), 1 + UNSAFE.len());
        assert!(unsafe_but(&tree, &[])[0].starts_with("src/node/a.rs:2: `unsafe`"));
        assert!(unsafe_but(&tree, &[("src/node/a.rs", "why")]).is_empty());
        assert!(
            unsafe_but(&tree, &[("src/node/a.rs", "why"), ("src/b.rs", "why")])[0]
                .starts_with("src/b.rs:1: listed")
        );
    }
}
