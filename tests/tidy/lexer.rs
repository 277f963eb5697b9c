//! Splits Rust source into words and marks, each with its line.
//!
//! Comments vanish; strings, characters and numbers become [`Kind::Literal`] without their text, so that a
//! rule never fires on prose. It knows just enough of the language for that, and it never fails: source that
//! does not compile gives some tokens, and the compiler speaks about it. Called by [`super::source`].
//! Source: the Rust reference, chapters "Comments" and "Tokens".

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An identifier or a keyword; a raw identifier keeps its `r#`.
    Word(String),
    /// `::`
    PathSep,
    /// One character of punctuation.
    Mark(char),
    /// `'a`
    Lifetime,
    /// A string, character or number of any sort.
    Literal,
}

/// One token and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// The line it begins on, counted from 1.
    pub(crate) line: usize,
    /// What it is.
    pub(crate) kind: Kind,
}

impl Token {
    /// The word this token is, if it is one.
    pub(crate) fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    /// Whether it is the punctuation `mark`.
    pub(crate) fn is_mark(&self, mark: char) -> bool {
        self.kind == Kind::Mark(mark)
    }
}

/// The tokens of `text`, in order.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut cursor = Cursor {
        chars: text.chars().collect(),
        at: 0,
        line: 1,
    };
    let mut tokens = Vec::new();
    while let Some(next) = cursor.peek(0) {
        let line = cursor.line;
        let kind = match (next, cursor.peek(1)) {
            ('/', Some('/')) => {
                cursor.skip_line();
                continue;
            }
            ('/', Some('*')) => {
                cursor.skip_block();
                continue;
            }
            (':', Some(':')) => {
                cursor.skip(2);
                Kind::PathSep
            }
            ('"', _) => cursor.string(),
            ('\'', _) => cursor.quote(),
            (next, _) if next.is_whitespace() => {
                cursor.skip(1);
                continue;
            }
            (next, _) if next.is_ascii_digit() => {
                cursor.take_word();
                Kind::Literal
            }
            (next, _) if starts_word(next) => cursor.word(),
            (next, _) => {
                cursor.skip(1);
                Kind::Mark(next)
            }
        };
        tokens.push(Token { line, kind });
    }
    tokens
}

fn starts_word(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn continues_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

struct Cursor {
    chars: Vec<char>,
    at: usize,
    line: usize,
}

impl Cursor {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn skip(&mut self, count: usize) {
        for _ in 0..count {
            if self.peek(0) == Some('\n') {
                self.line += 1;
            }
            self.at += 1;
        }
    }

    fn skip_line(&mut self) {
        while self.peek(0).is_some_and(|c| c != '\n') {
            self.skip(1);
        }
    }

    /// Block comments nest.
    fn skip_block(&mut self) {
        let mut depth = 0_usize;
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('/', Some('*')) => {
                    depth += 1;
                    self.skip(2);
                }
                ('*', Some('/')) => {
                    depth -= 1;
                    self.skip(2);
                    if depth == 0 {
                        return;
                    }
                }
                _ => self.skip(1),
            }
        }
    }

    fn string(&mut self) -> Kind {
        self.skip(1);
        self.skip_escaped('"');
        Kind::Literal
    }

    /// Up to and with the first `end` that no backslash precedes.
    fn skip_escaped(&mut self, end: char) {
        while let Some(c) = self.peek(0) {
            self.skip(if c == '\\' { 2 } else { 1 });
            if c == end {
                return;
            }
        }
    }

    /// A character when a closing quote follows one (possibly escaped) character, else a lifetime.
    fn quote(&mut self) -> Kind {
        let escaped = self.peek(1) == Some('\\');
        self.skip(1);
        if escaped || (self.peek(0) != Some('\'') && self.peek(1) == Some('\'')) {
            self.skip_escaped('\'');
            return Kind::Literal;
        }
        self.take_word();
        Kind::Lifetime
    }

    fn take_word(&mut self) -> String {
        let start = self.at;
        while self.peek(0).is_some_and(continues_word) {
            self.at += 1;
        }
        self.chars[start..self.at].iter().collect()
    }

    /// A word, or the string or character of which it is the prefix.
    fn word(&mut self) -> Kind {
        let word = self.take_word();
        let mut hashes = 0;
        while self.peek(hashes) == Some('#') {
            hashes += 1;
        }
        match (word.as_str(), self.peek(0), self.peek(hashes)) {
            ("r" | "br" | "cr", _, Some('"')) => self.raw_string(hashes),
            ("b" | "c", Some('"'), _) => self.string(),
            ("b", Some('\''), _) => self.quote(),
            ("r", Some('#'), Some(next)) if hashes == 1 && starts_word(next) => {
                self.skip(1);
                Kind::Word(format!("r#{}", self.take_word()))
            }
            _ => Kind::Word(word),
        }
    }

    fn raw_string(&mut self, hashes: usize) -> Kind {
        self.skip(hashes + 1);
        while let Some(c) = self.peek(0) {
            self.skip(1);
            if c == '"' && (0..hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                self.skip(hashes);
                break;
            }
        }
        Kind::Literal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens in short: words as they are, `_` for a literal, `'` for a lifetime.
    fn check(text: &str, expected: &str) {
        let short: Vec<String> = tokens(text)
            .into_iter()
            .map(|token| match token.kind {
                Kind::Word(word) => word,
                Kind::PathSep => "::".into(),
                Kind::Mark(mark) => mark.into(),
                Kind::Lifetime => "'".into(),
                Kind::Literal => "_".into(),
            })
            .collect();
        assert_eq!(short.join(" "), expected, "in {text:?}");
    }

    #[test]
    fn comments_vanish_and_block_comments_nest() {
        check("a // b\nc", "a c");
        check("a /* b /* c */ d */ e", "a e");
        check("a /// \"\n//! '\nb", "a b");
        check("a /**/ b /* never closed", "a b");
        check("a / b * c", "a / b * c");
    }

    #[test]
    fn strings_hide_what_looks_like_code_or_comment() {
        check(r#"f("use crate::a; // x", b)"#, "f ( _ , b )");
        check(r#"f("a \" b", c)"#, "f ( _ , c )");
        check(r#"f("a \\", b)"#, "f ( _ , b )");
        check(r#"f(b"/*", c"*/", d)"#, "f ( _ , _ , d )");
        check("\"a\nb\" c", "_ c");
    }

    #[test]
    fn raw_strings_end_at_their_own_number_of_hashes() {
        check(r###"f(r"a\", b)"###, "f ( _ , b )");
        check(r###"f(r#"a " b"#, c)"###, "f ( _ , c )");
        check(r####"f(br##"a "# b"##, c)"####, "f ( _ , c )");
        check(r###"f(cr#"// "#, c)"###, "f ( _ , c )");
        check("r#type r #", "r#type r #");
    }

    #[test]
    fn characters_and_lifetimes_are_told_apart() {
        check("f('a', b)", "f ( _ , b )");
        check(
            r"f('\'', '\\', '\u{1F600}', b'\'', b)",
            "f ( _ , _ , _ , _ , b )",
        );
        check("f('\"', a, '/', '/')", "f ( _ , a , _ , _ )");
        check(
            "fn f<'a>(x: &'a str, c: '_)",
            "fn f < ' > ( x : & ' str , c : ' )",
        );
        check("'outer: loop { break 'outer; }", "' : loop { break ' ; }");
        check(
            "match c { 'a'..='z' => 'ß' }",
            "match c { _ . . = _ = > _ }",
        );
    }

    #[test]
    fn numbers_are_literals_and_ranges_stay_marks() {
        check("0..n 1_000u64 0xff 1.5", "_ . . n _ _ _ . _");
    }

    #[test]
    fn paths_keep_their_separators() {
        check(
            "use crate::{a::b, c as d};",
            "use crate :: { a :: b , c as d } ;",
        );
        check("a: B::<C>::d", "a : B :: < C > :: d");
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let lines: Vec<usize> = tokens("a\n/* \n\n */ b \"\n\" c\nr\"\n\"\nd \"\\\n\" e")
            .iter()
            .map(|t| t.line)
            .collect();
        assert_eq!(lines, [1, 4, 4, 5, 6, 8, 8, 9]);
    }
}
