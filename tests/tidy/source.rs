//! One Rust file as the rules ask about it: its text, tokens, the paths it names, attributes, `mod` lines.
//!
//! Values only; [`super::reader`] makes them from tokens. Called by every rule that looks into code.

use std::collections::BTreeSet;

use super::lexer::{Token, tokens};
use super::reader::{Contents, read};
use super::tree::Tree;

/// A Rust file, read.
pub(crate) struct Source<'t> {
    /// Relative to the project's root.
    pub(crate) path: &'t str,
    /// The text as it is on disk.
    pub(crate) text: &'t str,
    /// Without comments; see [`super::lexer`].
    pub(crate) tokens: Vec<Token>,
    /// Every path named in code, imports first unfolded.
    pub(crate) names: Vec<Name>,
    /// Every attribute.
    pub(crate) attributes: Vec<Attribute>,
    /// Every `mod name;`.
    pub(crate) modules: Vec<Module>,
}

/// A path such as `std::fs::read`, resolved as far as one file allows.
#[derive(Debug)]
pub(crate) struct Name {
    /// Counted from 1.
    pub(crate) line: usize,
    /// `["crate", "wire", "Frame"]` or `["std", "fs", "*"]`.
    pub(crate) segments: Vec<String>,
    /// Whether a `use` names it.
    pub(crate) imported: bool,
}

impl Name {
    /// Whether the path is `prefix`, lies below it, or takes in all of a parent of it.
    pub(crate) fn is_within(&self, prefix: &[&str]) -> bool {
        let shared = self
            .segments
            .iter()
            .zip(prefix)
            .take_while(|(a, b)| a == b)
            .count();
        shared == prefix.len()
            || (shared > 0 && self.segments.get(shared).is_some_and(|last| last == "*"))
    }
}

/// `#[...]` or `#![...]`.
pub(crate) struct Attribute {
    /// Counted from 1.
    pub(crate) line: usize,
    /// The words in it, in order.
    pub(crate) words: Vec<String>,
}

/// `mod name;`, possibly inside inline modules.
pub(crate) struct Module {
    /// Folder names its inline parents add, then its own name.
    pub(crate) path: Vec<String>,
}

/// All sources of `tree` whose path begins with `prefix`.
pub(crate) fn sources<'t>(tree: &'t Tree, prefix: &'t str) -> impl Iterator<Item = Source<'t>> {
    tree.rust(prefix)
        .map(|(path, text)| Source::read(path, text))
}

/// Findings of `rule` over the files of `src`, by line, each once.
pub(crate) fn scan(
    tree: &Tree,
    rule: impl Fn(&Source<'_>, &mut dyn FnMut(usize, String)),
) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources(tree, "src/") {
        let mut of_file = BTreeSet::new();
        rule(&source, &mut |line, what| {
            of_file.insert((line, what));
        });
        findings.extend(
            of_file
                .iter()
                .map(|(line, what)| source.finding(*line, what)),
        );
    }
    findings
}

/// Where a file's own module stands: `src/engine/mod.rs` is `["engine"]`, `src/lib.rs` is `[]`.
pub(crate) fn module_of(path: &str) -> Vec<String> {
    let path = path.split_once('/').map_or(path, |(_, below)| below);
    let mut module: Vec<String> = path
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_owned)
        .collect();
    let is_root = module.len() == 1 && ["lib", "main"].contains(&module[0].as_str());
    if is_root || module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

impl<'t> Source<'t> {
    /// Reads the file at `path`; a text that does not compile is read as far as it makes sense.
    pub(crate) fn read(path: &'t str, text: &'t str) -> Self {
        let tokens = tokens(text);
        let Contents {
            names,
            attributes,
            modules,
        } = read(&tokens, module_of(path));
        Self {
            path,
            text,
            tokens,
            names,
            attributes,
            modules,
        }
    }

    /// Every word in code, with its line.
    pub(crate) fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        self.tokens
            .iter()
            .filter_map(|token| Some((token.line, token.word()?)))
    }

    /// A finding on `line`.
    pub(crate) fn finding(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_knows_its_place() {
        let place = |path| module_of(path).join("::");
        assert_eq!(place("src/engine/mod.rs"), "engine");
        assert_eq!(place("src/engine/picker.rs"), "engine::picker");
        assert_eq!(place("src/cli/commands/seed.rs"), "cli::commands::seed");
        assert_eq!(
            (place("src/lib.rs"), place("src/main.rs")),
            (String::new(), String::new())
        );
    }

    #[test]
    fn a_glob_of_a_parent_takes_in_the_child() {
        let source = Source::read("src/a.rs", "use std::*;");
        assert!(source.names[0].is_within(&["std", "fs"]));
        assert!(!source.names[0].is_within(&["tokio"]));
        let source = Source::read("src/a.rs", "use std::fmt::*;");
        assert!(!source.names[0].is_within(&["std", "fs"]));
    }
}
