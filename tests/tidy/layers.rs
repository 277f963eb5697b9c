//! Which folder of `src` may name which: the layer table as data, and the rules that hold the code to it.
//!
//! An arrow is a path `crate::folder` (or `shoal::folder` in `main.rs`) in code, imported or inline, reached by
//! `super` or not. Tests inside `src` count like the rest. The same table stands in `src/ARCHITECTURE.md`.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Source, module_of, scan, sources};
use super::tree::Tree;

/// Each folder (and `main`), lowest first, with the folders it may name.
pub(crate) const LAYERS: &[(&str, &[&str])] = &[
    ("content", &[]),
    ("wire", &["content"]),
    ("engine", &["wire", "content"]),
    ("network", &["wire", "content"]),
    ("storage", &["content"]),
    ("node", &["engine", "storage", "network", "wire", "content"]),
    ("sim", &["engine", "wire", "content"]),
    ("tui", &["node", "content"]),
    ("http", &["node", "content"]),
    ("cli", &["tui", "http", "node", "sim", "storage", "content"]),
    ("main", &["cli"]),
];

fn allowed(folder: &str) -> Option<&'static [&'static str]> {
    LAYERS
        .iter()
        .find(|(name, _)| *name == folder)
        .map(|(_, below)| *below)
}

/// A path that leaves its folder.
struct Arrow {
    from: String,
    /// `None` when the path stops at the crate's root.
    to: Option<String>,
    line: usize,
}

/// The folder a file belongs to; `None` for `lib.rs`, the contents page.
fn folder_of(path: &str) -> Option<String> {
    if path == "src/main.rs" {
        Some("main".to_owned())
    } else {
        module_of(path).into_iter().next()
    }
}

fn arrows_of(source: &Source<'_>) -> Vec<Arrow> {
    let Some(from) = folder_of(source.path) else {
        return Vec::new();
    };
    let leaves = source.names.iter().filter_map(|name| {
        let segments: Vec<&str> = name.segments.iter().map(String::as_str).collect();
        let to = match segments.as_slice() {
            ["crate" | "shoal", to, ..] => Some((*to).to_owned()),
            // Alone, `crate` is a visibility and `shoal` may be a variable.
            ["crate" | "shoal"] if name.imported => None,
            _ => return None,
        };
        Some(Arrow {
            from: from.clone(),
            to,
            line: name.line,
        })
    });
    leaves
        .filter(|arrow| arrow.to.as_ref() != Some(&from))
        .collect()
}

/// Every path from one folder to another is an arrow of the table.
pub(crate) fn arrows_outside_the_table(tree: &Tree) -> Vec<String> {
    scan(tree, |source, found| {
        let Some(from) = folder_of(source.path) else {
            return;
        };
        let Some(below) = allowed(&from) else {
            let what = format!(
                "`{from}` is not in the layer table: move the file, or give it a row in tests/tidy/layers.rs and ARCHITECTURE.md"
            );
            return found(1, what);
        };
        for Arrow { to, line, .. } in arrows_of(source) {
            let what = match to.as_deref() {
                Some(to) if below.contains(&to) => continue,
                Some(to) if allowed(to).is_some() => format!(
                    "`{from}` may not name `{to}` (it may name: {}): let the caller pass what is needed, or move the item down",
                    if below.is_empty() {
                        "nothing".to_owned()
                    } else {
                        below.join(", ")
                    }
                ),
                Some(to) => format!(
                    "`{to}` at the crate's root is not a folder: name the folder the item lives in"
                ),
                None => {
                    "the crate's root under another name hides arrows: name the folder".to_owned()
                }
            };
            found(line, what);
        }
    })
}

/// No folder reaches itself through the imports of others; each ring is found once, at its smallest name.
pub(crate) fn import_cycles(tree: &Tree) -> Vec<String> {
    let mut edges: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for source in sources(tree, "src/") {
        for Arrow { from, to, line } in arrows_of(&source) {
            if let Some(to) = to {
                edges
                    .entry(from)
                    .or_default()
                    .entry(to)
                    .or_insert_with(|| format!("{}:{line}", source.path));
            }
        }
    }
    edges
        .keys()
        .filter_map(|start| {
            let ring = ring_from(start, &edges)?;
            let first = &edges[start][&ring[1]];
            Some(format!(
                "{first}: folders import each other in a ring: {}: move what both need down",
                ring.join(" -> ")
            ))
        })
        .collect()
}

/// A shortest way from `start` back to itself over greater names only.
fn ring_from(
    start: &str,
    edges: &BTreeMap<String, BTreeMap<String, String>>,
) -> Option<Vec<String>> {
    let mut ways = std::collections::VecDeque::from([vec![start.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        let next = way
            .last()
            .and_then(|last| edges.get(last))
            .into_iter()
            .flat_map(BTreeMap::keys);
        for folder in next {
            let mut longer = way.clone();
            longer.push(folder.clone());
            if folder == start {
                return Some(longer);
            }
            if folder.as_str() > start && seen.insert(folder.clone()) {
                ways.push_back(longer);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn the_table_points_down_only() {
        for (at, (folder, below)) in LAYERS.iter().enumerate() {
            for lower in *below {
                assert!(
                    LAYERS[..at].iter().any(|(name, _)| name == lower),
                    "`{folder}` names `{lower}` above it"
                );
            }
        }
    }

    #[test]
    fn an_arrow_that_is_not_in_the_table_is_found_however_it_is_written() {
        for line in [
            "use crate::node::Node;",
            "use crate::{content::Digest, node::{Node, Other}};",
            "use super::super::node;",
            "fn f() { let x = crate::node::start(); }",
            "fn f(x: Vec<crate::node::Node>) {}",
            "mod tests { use super::super::super::node::Node; }",
            "pub use shoal::node::Node;",
            "macro_rules! m { () => { $crate::node::f() } }",
        ] {
            let text = format!("//! x\n{line}\n");
            check(
                arrows_outside_the_table,
                &[("src/engine/picker.rs", &text)],
                &[
                    "src/engine/picker.rs:2: `engine` may not name `node` (it may name: wire, content)",
                ],
            );
        }
    }

    #[test]
    fn each_line_of_a_grouped_import_is_named() {
        check(
            arrows_outside_the_table,
            &[(
                "src/storage/mod.rs",
                "use crate::{\n    content::Digest,\n    engine::Transfer,\n    network::{\n        Handle,\n    },\n};",
            )],
            &[
                "src/storage/mod.rs:3: `storage` may not name `engine`",
                "src/storage/mod.rs:5: `storage` may not name `network`",
            ],
        );
    }

    #[test]
    fn main_may_only_run_the_command_line() {
        check(
            arrows_outside_the_table,
            &[(
                "src/main.rs",
                "fn main() {\n    shoal::cli::run();\n    shoal::node::start();\n}",
            )],
            &["src/main.rs:3: `main` may not name `node` (it may name: cli)"],
        );
    }

    #[test]
    fn a_folder_without_a_row_and_an_item_of_the_root_are_found() {
        check(
            arrows_outside_the_table,
            &[("src/utils/mod.rs", "")],
            &["src/utils/mod.rs:1: `utils` is not in the layer table"],
        );
        check(
            arrows_outside_the_table,
            &[("src/utils.rs", "")],
            &["src/utils.rs:1: `utils` is not in the layer table"],
        );
        check(
            arrows_outside_the_table,
            &[(
                "src/cli/mod.rs",
                "use crate::VERSION;\nuse crate as all;\nuse crate::*;",
            )],
            &[
                "src/cli/mod.rs:1: `VERSION` at the crate's root",
                "src/cli/mod.rs:2: the crate's root",
                "src/cli/mod.rs:3: `*` at the crate's root",
            ],
        );
    }

    #[test]
    fn arrows_of_the_table_and_prose_are_quiet() {
        check(
            arrows_outside_the_table,
            &[
                ("src/lib.rs", "//! x\npub mod content;"),
                (
                    "src/content/mod.rs",
                    "pub(crate) mod a; // crate::node\nconst X: &str = \"crate::node\";",
                ),
                (
                    "src/content/link.rs",
                    "use super::a::B; use crate::content::C; use self::d::E; pub(in crate::content) fn f() {}",
                ),
                (
                    "src/node/mod.rs",
                    "use crate::{content::Digest, engine::Transfer, storage, network::*, wire::Frame};",
                ),
                (
                    "src/cli/commands/seed.rs",
                    "use crate::node::Node; use super::super::output; fn f() { super::g() }",
                ),
                ("src/main.rs", "fn main() { shoal::cli::run() }"),
                (
                    "tests/suite.rs",
                    "use crate::anything::At; use shoal::network::All;",
                ),
            ],
            &[],
        );
    }

    #[test]
    fn a_ring_of_folders_is_found_once() {
        check(
            import_cycles,
            &[
                ("src/content/mod.rs", "//! x\nuse crate::wire::Frame;"),
                (
                    "src/wire/mod.rs",
                    "use crate::engine::A;\nuse crate::content::Digest;",
                ),
                ("src/engine/mod.rs", "use crate::wire::Frame;"),
            ],
            &[
                "src/content/mod.rs:2: folders import each other in a ring: content -> wire -> content",
                "src/engine/mod.rs:1: folders import each other in a ring: engine -> wire -> engine",
            ],
        );
    }

    #[test]
    fn a_long_ring_is_found_and_a_diamond_is_quiet() {
        let sides = [
            ("src/b/mod.rs", "use crate::d::X;"),
            ("src/c/mod.rs", "use crate::d::X;"),
        ];
        let diamond = [
            ("src/a/mod.rs", "use crate::b::X; use crate::c::X;"),
            sides[0],
            sides[1],
            ("src/d/mod.rs", "use crate::d::Y;"),
        ];
        check(import_cycles, &diamond, &[]);
        let ring = [
            diamond[0],
            sides[0],
            sides[1],
            ("src/d/mod.rs", "use crate::a::X;"),
        ];
        check(
            import_cycles,
            &ring,
            &["src/a/mod.rs:1: folders import each other in a ring: a -> b -> d -> a"],
        );
    }
}
