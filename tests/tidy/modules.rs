//! Dead and unnamed files: every `.rs` is reached by `mod` lines from a root, and every file of `src` says in a
//! `//!` header what it is.

use std::collections::BTreeSet;

use super::source::{Source, sources};
use super::tree::Tree;

/// Files the compiler starts from; in the folder of a root, modules lie beside it.
const ROOTS: &[&str] = &["src/lib.rs", "src/main.rs", "tests/suite.rs"];

/// Below it every file is a root as well: the programs of the package that `scripts/fuzz` builds.
const PROGRAMS: &str = "tests/fuzz/fuzz_targets/";

/// Every `.rs` file below `src` and `tests` is part of a build.
pub(crate) fn unreached_files(tree: &Tree) -> Vec<String> {
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let mut open: Vec<String> = ROOTS.iter().map(|root| (*root).to_owned()).collect();
    while let Some(path) = open.pop() {
        let Some(text) = tree.files.get(&path) else {
            continue;
        };
        let folder = folder_of_children(&path);
        for module in &Source::read(&path, text).modules {
            let stem = format!("{folder}/{}", module.path.join("/"));
            open.extend(
                [format!("{stem}.rs"), format!("{stem}/mod.rs")]
                    .into_iter()
                    .filter(|child| !reached.contains(child)),
            );
        }
        reached.insert(path);
    }
    let all = tree
        .rust("src/")
        .chain(tree.rust("tests/"))
        .map(|(path, _)| path);
    all.filter(|path| !reached.contains(*path) && !path.starts_with(PROGRAMS))
        .map(|path| {
            format!(
                "{path}:1: no `mod` line reaches this file: name it in its parent, or delete it"
            )
        })
        .collect()
}

/// The folder in which `mod x;` of the file at `path` looks for `x.rs`.
fn folder_of_children(path: &str) -> &str {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    if ROOTS.contains(&path) || name == "mod.rs" {
        folder
    } else {
        path.trim_end_matches(".rs")
    }
}

/// A module lies where its name says, so that the rule above (and a reader) finds it.
pub(crate) fn path_attributes(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources(tree, "") {
        for attribute in source
            .attributes
            .iter()
            .filter(|attribute| attribute.words.first().is_some_and(|word| word == "path"))
        {
            findings.push(source.finding(
                attribute.line,
                "`#[path]` hides where a module lies: name the file after it",
            ));
        }
    }
    findings
}

/// Every file of `src` begins with a `//!` header.
pub(crate) fn missing_headers(tree: &Tree) -> Vec<String> {
    tree.rust("src/")
        .filter(|(_, text)| {
            let first = text.lines().next().and_then(|line| line.strip_prefix("//!"));
            first.is_none_or(|header| header.trim().is_empty())
        })
        .map(|(path, _)| format!("{path}:1: no `//!` header: begin with what it owns, what it never does, who calls it, its source"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn a_file_that_no_mod_reaches_is_found() {
        check(
            unreached_files,
            &[
                ("src/lib.rs", "pub mod content; // mod orphan;"),
                ("src/content/mod.rs", "mod digest;"),
                ("src/content/digest.rs", ""),
                ("src/content/old.rs", "mod older;"),
                ("src/content/old/older.rs", ""),
                ("src/orphan.rs", ""),
                ("tests/suite.rs", "const X: &str = \"mod forgotten;\";"),
                ("tests/forgotten.rs", ""),
            ],
            &[
                "src/content/old.rs:1: no `mod` line reaches this file",
                "src/content/old/older.rs:1: no `mod`",
                "src/orphan.rs:1: no `mod`",
                "tests/forgotten.rs:1: no `mod`",
            ],
        );
    }

    #[test]
    fn files_beside_below_and_inside_inline_modules_are_reached() {
        check(
            unreached_files,
            &[
                ("src/main.rs", "mod start;"),
                ("src/start.rs", ""),
                ("src/lib.rs", "pub mod cli; #[cfg(test)] mod testing;"),
                ("src/testing/mod.rs", "mod deep;"),
                ("src/testing/deep.rs", ""),
                ("src/cli/mod.rs", "pub(crate) mod commands;"),
                (
                    "src/cli/commands.rs",
                    "mod seed { mod inner; } mod fetch { fn f() {} }",
                ),
                ("src/cli/commands/seed/inner.rs", ""),
                ("tests/suite.rs", "mod support; mod tidy;"),
                ("tests/support/mod.rs", ""),
                ("tests/tidy.rs", "mod lexer;"),
                ("tests/tidy/lexer.rs", ""),
                ("scripts/tool.rs", ""),
            ],
            &[],
        );
    }

    #[test]
    fn a_path_attribute_is_found() {
        check(
            path_attributes,
            &[("src/a.rs", "\n#[path = \"b.rs\"] mod c;")],
            &["src/a.rs:2: `#[path]`"],
        );
        check(
            path_attributes,
            &[(
                "src/a.rs",
                "// #[path = \"b.rs\"]\n#[doc = \"path\"] fn path() { [path] }",
            )],
            &[],
        );
    }

    #[test]
    fn a_file_of_src_without_a_header_is_found() {
        for text in [
            "",
            "\n//! late",
            "// plain",
            "//!",
            "//!  \n//! late",
            "/// item",
        ] {
            check(
                missing_headers,
                &[("src/a.rs", text)],
                &["src/a.rs:1: no `//!` header"],
            );
        }
        check(
            missing_headers,
            &[
                ("src/a.rs", "//! What it owns.\n"),
                ("tests/b.rs", ""),
                ("src/c.md", ""),
            ],
            &[],
        );
    }
}
