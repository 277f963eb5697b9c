//! Walks the tokens of one Rust file and collects the paths it names, its attributes and its `mod` lines.
//!
//! Use trees are unfolded, `super` and `self` are spelled out from the file's place, and a path that begins with an
//! imported name is completed by that import. Scopes are not followed: an import counts for its whole file,
//! which errs on the side of finding too much. It reads any text to its end. Called by [`super::source`].

use std::collections::BTreeMap;

use super::lexer::{Kind, Token};
use super::source::{Attribute, Module, Name};

/// What a file says, in order.
pub(super) struct Contents {
    pub(super) names: Vec<Name>,
    pub(super) attributes: Vec<Attribute>,
    pub(super) modules: Vec<Module>,
}

/// Reads the file whose own module path is `home`.
pub(super) fn read(tokens: &[Token], home: Vec<String>) -> Contents {
    let mut reader = Reader {
        tokens,
        home,
        ..Reader::default()
    };
    reader.run();
    let Reader {
        mut names,
        aliases,
        attributes,
        modules,
        ..
    } = reader;
    for name in &mut names {
        complete(&mut name.segments, &aliases);
    }
    Contents {
        names,
        attributes,
        modules,
    }
}

/// Puts the imported path in the place of its alias; imports may build on imports.
fn complete(segments: &mut Vec<String>, aliases: &BTreeMap<String, Vec<String>>) {
    for _ in 0..aliases.len() {
        match segments.first().and_then(|first| aliases.get(first)) {
            Some(whole) if whole.first() != segments.first() => {
                segments.splice(..1, whole.iter().cloned());
            }
            _ => return,
        }
    }
}

#[derive(Default)]
struct Reader<'s> {
    tokens: &'s [Token],
    at: usize,
    /// The file's module path.
    home: Vec<String>,
    /// Inline modules open here, each with the brace depth at which it closes.
    inline: Vec<(String, usize)>,
    depth: usize,
    names: Vec<Name>,
    aliases: BTreeMap<String, Vec<String>>,
    attributes: Vec<Attribute>,
    modules: Vec<Module>,
}

impl Reader<'_> {
    fn run(&mut self) {
        while let Some(token) = self.tokens.get(self.at) {
            let line = token.line;
            match &token.kind {
                Kind::Mark('{') => {
                    self.depth += 1;
                    self.at += 1;
                }
                Kind::Mark('}') => {
                    self.depth = self.depth.saturating_sub(1);
                    self.inline.retain(|(_, depth)| *depth < self.depth);
                    self.at += 1;
                }
                Kind::Mark('#') => {
                    self.attribute(line);
                    self.at += 1;
                }
                Kind::Word(word) if word == "mod" && self.word(1).is_some() => self.module(),
                // `use<'a>` captures lifetimes and imports nothing.
                Kind::Word(word) if word == "use" && !self.is_mark(1, '<') => {
                    self.at += 1;
                    self.use_tree(&[], line);
                }
                Kind::Word(_) if !self.is_member() => self.path(line),
                Kind::PathSep if self.word(1).is_some() && !self.follows_type() => {
                    self.at += 1;
                    self.path(line);
                }
                // The rest of `<T as Trait>::name`.
                Kind::PathSep if self.word(1).is_some() => self.at += 2,
                _ => self.at += 1,
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<&Kind> {
        self.tokens.get(self.at + ahead).map(|token| &token.kind)
    }

    fn word(&self, ahead: usize) -> Option<String> {
        self.tokens.get(self.at + ahead)?.word().map(str::to_owned)
    }

    fn is_mark(&self, ahead: usize, mark: char) -> bool {
        self.peek(ahead) == Some(&Kind::Mark(mark))
    }

    fn behind(&self, back: usize) -> Option<&Kind> {
        self.at.checked_sub(back).map(|at| &self.tokens[at].kind)
    }

    /// A field or method: after one dot, not after the two of a range.
    fn is_member(&self) -> bool {
        self.behind(1) == Some(&Kind::Mark('.')) && self.behind(2) != Some(&Kind::Mark('.'))
    }

    /// Whether a path separator here goes on from a type, `Vec::` or `<T as U>::`, not from `->` or `=>`.
    fn follows_type(&self) -> bool {
        match self.behind(1) {
            Some(Kind::Mark('>')) => !matches!(self.behind(2), Some(Kind::Mark('-' | '='))),
            before => matches!(before, Some(Kind::Word(_))),
        }
    }

    fn attribute(&mut self, line: usize) {
        let open = if self.is_mark(1, '!') { 2 } else { 1 };
        if !self.is_mark(open, '[') {
            return;
        }
        let mut words = Vec::new();
        let mut depth = 0_usize;
        for token in &self.tokens[self.at + open..] {
            match &token.kind {
                Kind::Mark('[') => depth += 1,
                Kind::Mark(']') => depth -= 1,
                Kind::Word(word) => words.push(word.clone()),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        self.attributes.push(Attribute { line, words });
    }

    fn module(&mut self) {
        let name = self.word(1).expect("the caller saw a word after `mod`");
        if self.is_mark(2, '{') {
            self.inline.push((name, self.depth));
            self.at += 2;
        } else {
            if self.is_mark(2, ';') {
                let mut path: Vec<String> =
                    self.inline.iter().map(|(name, _)| name.clone()).collect();
                path.push(name);
                self.modules.push(Module { path });
            }
            self.at += 3;
        }
    }

    fn path(&mut self, line: usize) {
        let mut segments = Vec::new();
        while let Some(word) = self.word(0) {
            segments.push(word);
            self.at += 1;
            if self.peek(0) != Some(&Kind::PathSep) || self.word(1).is_none() {
                break;
            }
            self.at += 1;
        }
        self.record(line, segments, false, None);
    }

    /// One branch of a `use`, up to but not with the `,`, `}` or `;` after it.
    fn use_tree(&mut self, prefix: &[String], start: usize) {
        let mut segments = prefix.to_vec();
        loop {
            let line = self.tokens.get(self.at).map_or(start, |token| token.line);
            match self.peek(0).cloned() {
                Some(Kind::PathSep) => self.at += 1,
                Some(Kind::Mark('{')) => {
                    self.at += 1;
                    while self.peek(0).is_some() && !self.is_mark(0, '}') && !self.is_mark(0, ';') {
                        self.use_tree(&segments, line);
                        self.at += usize::from(self.is_mark(0, ','));
                    }
                    self.at += 1;
                    return;
                }
                Some(Kind::Mark('*')) => {
                    segments.push("*".to_owned());
                    self.at += 1;
                    return self.record(line, segments, true, None);
                }
                Some(Kind::Word(word)) if word == "as" => {
                    let alias = self.word(1);
                    self.at += 2;
                    return self.record(line, segments, true, alias);
                }
                Some(Kind::Word(word)) => {
                    // `a::{self}` imports `a`.
                    if word != "self" || segments.is_empty() {
                        segments.push(word);
                    }
                    self.at += 1;
                    if self.word(0).as_deref() != Some("as") && self.peek(0) != Some(&Kind::PathSep)
                    {
                        return self.record(line, segments, true, None);
                    }
                }
                _ => {
                    // Not a use tree: leave a mark that nobody else would step over.
                    self.at += usize::from(!self.is_mark(0, '}') && !self.is_mark(0, ';'));
                    return;
                }
            }
        }
    }

    fn record(
        &mut self,
        line: usize,
        segments: Vec<String>,
        imported: bool,
        alias: Option<String>,
    ) {
        if segments.is_empty() {
            return;
        }
        let segments = self.spell_out(segments);
        if imported && let Some(last) = alias.or_else(|| segments.last().cloned()) {
            self.aliases.insert(last, segments.clone());
        }
        self.names.push(Name {
            line,
            segments,
            imported,
        });
    }

    /// Spells `self` and `super` out from `crate`.
    fn spell_out(&self, segments: Vec<String>) -> Vec<String> {
        let mut here: Vec<&String> = self
            .home
            .iter()
            .chain(self.inline.iter().map(|(name, _)| name))
            .collect();
        let mut rest = segments.as_slice();
        match rest.first().map(String::as_str) {
            Some("self") => rest = &rest[1..],
            Some("super") => {}
            _ => return segments,
        }
        while rest.first().is_some_and(|first| first == "super") {
            here.pop();
            rest = &rest[1..];
        }
        std::iter::once("crate".to_owned())
            .chain(here.into_iter().cloned())
            .chain(rest.iter().cloned())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;

    /// The paths of more than one segment that `text` names in `src/engine/picker.rs`.
    fn check(text: &str, expected: &[&str]) {
        let source = Source::read("src/engine/picker.rs", text);
        let found: Vec<String> = source
            .names
            .iter()
            .filter(|name| name.segments.len() > 1)
            .map(|name| name.segments.join("::"))
            .collect();
        assert_eq!(found, expected, "in {text:?}");
    }

    #[test]
    fn use_trees_are_unfolded() {
        check("use crate::content::Digest;", &["crate::content::Digest"]);
        check(
            "use crate::{content::{self, Digest as D}, wire::*};",
            &["crate::content", "crate::content::Digest", "crate::wire::*"],
        );
        check(
            "pub(crate) use ::std::{\n fs,\n io::{self, Read},\n};",
            &["std::fs", "std::io", "std::io::Read"],
        );
        check("use {std::fs, std::net};", &["std::fs", "std::net"]);
        check(
            "fn f() -> impl Fn() + use<'a> { std::fs::read }",
            &["std::fs::read"],
        );
    }

    #[test]
    fn paths_in_code_are_found_wherever_they_stand() {
        check(
            "fn f(x: &crate::wire::Frame) -> ::tokio::Task {}",
            &["crate::wire::Frame", "tokio::Task"],
        );
        check(
            "let x = <T as crate::wire::Code>::decode(y);",
            &["crate::wire::Code"],
        );
        check("Vec::<crate::wire::Frame>::new()", &["crate::wire::Frame"]);
        check("for i in 0..crate::wire::MAX {}", &["crate::wire::MAX"]);
        check(
            "#[derive(crate::content::Encode)] struct A;",
            &["crate::content::Encode"],
        );
        check(
            "macro_rules! m { () => { $crate::wire::f() } }",
            &["crate::wire::f"],
        );
        check(
            "x.crate_.wire(); // crate::wire\n\"crate::wire\"; pub(crate) fn f() {}",
            &[],
        );
    }

    #[test]
    fn super_and_self_are_spelled_out_from_the_root() {
        check(
            "use super::super::storage::Store;",
            &["crate::storage::Store"],
        );
        check(
            "use super::rate::Rate; use self::a::B;",
            &["crate::engine::rate::Rate", "crate::engine::picker::a::B"],
        );
        check(
            "mod tests { use super::super::super::node::N; }",
            &["crate::node::N"],
        );
        check(
            "mod tests { mod deep {} } use super::rate::Rate;",
            &["crate::engine::rate::Rate"],
        );
        check(
            "mod tests { fn f() {} use super::A; }",
            &["crate::engine::picker::A"],
        );
    }

    #[test]
    fn an_imported_name_is_completed_by_its_import() {
        check(
            "use std::time; fn f() { time::Instant::now() }",
            &["std::time", "std::time::Instant::now"],
        );
        check(
            "use std::time::Instant as Clock; fn f() { Clock::now() }",
            &["std::time::Instant", "std::time::Instant::now"],
        );
        check(
            "use std::time; use time::Instant; fn f() { Instant::now() }",
            &["std::time", "std::time::Instant", "std::time::Instant::now"],
        );
        check(
            "use crate::content; fn f() { content::len() }",
            &["crate::content", "crate::content::len"],
        );
    }

    #[test]
    fn imports_that_name_each_other_in_a_ring_end() {
        let source = Source::read("src/a.rs", "use a::b; use b::a; fn f() { a::c }");
        assert_eq!(
            source
                .names
                .last()
                .map(|name| name.segments.last().cloned()),
            Some(Some("c".to_owned()))
        );
    }

    #[test]
    fn modules_and_attributes_are_listed() {
        let source = Source::read(
            "src/a.rs",
            "#![allow(dead)] mod b; mod c { pub mod d; #[test] fn e() { [1]; } } mod f;",
        );
        let modules: Vec<String> = source
            .modules
            .iter()
            .map(|module| module.path.join("/"))
            .collect();
        assert_eq!(modules, ["b", "c/d", "f"]);
        let attributes: Vec<&[String]> = source
            .attributes
            .iter()
            .map(|attribute| attribute.words.as_slice())
            .collect();
        assert_eq!(
            attributes,
            [
                &["allow".to_owned(), "dead".to_owned()][..],
                &["test".to_owned()]
            ]
        );
    }

    #[test]
    fn source_that_does_not_compile_is_read_to_its_end() {
        for text in [
            "use",
            "use {",
            "use a::{b",
            "mod",
            "mod a",
            "#[",
            "::",
            "use =;",
            "}}}",
            "use a::{=}",
            "use {a; b}",
            "use as x;",
            "a::",
        ] {
            let source = Source::read("src/a.rs", text);
            assert!(
                source.names.iter().all(|name| !name.segments.is_empty()),
                "in {text:?}"
            );
        }
    }
}
