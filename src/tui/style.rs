//! Lines of text with meaning instead of colour, and how they become bytes for a terminal.
//!
//! Whether colour is wanted is decided once, in `cli/output`. Text in a span is shown as it is, so whoever puts a
//! remote's words in one escapes them before. Called by the rest of this folder.
//! Source: ECMA-48 (SGR); no-color.org.

use std::fmt::Write as _;

/// What a stretch of text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    Plain,
    /// What a line is about.
    Strong,
    /// Less important.
    Faint,
    /// Going well.
    Good,
    /// Worth a look.
    Warning,
    /// Failed.
    Bad,
}

impl Tone {
    /// The SGR sequence that begins it; empty when there is none.
    const fn begin(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "\x1b[1m",
            Self::Faint => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Warning => "\x1b[33m",
            Self::Bad => "\x1b[1;31m",
        }
    }
}

const RESET: &str = "\x1b[0m";

/// Which characters a terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glyphs {
    /// All of Unicode.
    Unicode,
    /// No more than ASCII.
    Ascii,
}

/// One line of a terminal, in stretches of one tone each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(Vec<(Tone, String)>);

impl Line {
    /// A line of one tone.
    #[must_use]
    pub fn of(tone: Tone, text: impl Into<String>) -> Self {
        Self(vec![(tone, text.into())])
    }

    /// Adds a stretch at the end.
    pub fn push(&mut self, tone: Tone, text: impl Into<String>) {
        self.0.push((tone, text.into()));
    }

    /// Adds another line at the end.
    pub(super) fn append(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Columns it takes on a terminal, or a little less than that.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.0.iter().map(|(_, text)| columns(text)).sum()
    }

    /// The text alone.
    #[must_use]
    pub fn plain(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// The text with colours.
    #[must_use]
    pub fn coloured(&self) -> String {
        let mut shown = String::new();
        for (tone, text) in &self.0 {
            if tone.begin().is_empty() {
                shown.push_str(text);
            } else {
                // Writing to a string cannot fail.
                let _ = write!(shown, "{}{text}{RESET}", tone.begin());
            }
        }
        shown
    }

    /// Without blanks at the end.
    pub(super) fn trimmed(mut self) -> Self {
        while let Some((_, text)) = self.0.last_mut() {
            text.truncate(text.trim_end().len());
            if !text.is_empty() {
                break;
            }
            self.0.pop();
        }
        self
    }

    /// No wider than `columns_max`.
    pub(super) fn cut(mut self, columns_max: usize) -> Self {
        let mut left = columns_max;
        for (_, text) in &mut self.0 {
            let whole = columns(text);
            if whole > left {
                *text = shortened(text, left);
            }
            left -= columns(text).min(left);
        }
        self
    }
}

/// Columns of `text`, never too few. A character that might be wide counts as wide: a line that ends early does no
/// harm, one that wraps spoils the view. What has no width was escaped before.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(column_count).sum()
}

fn column_count(character: char) -> usize {
    match character {
        // Arrows, blocks and lines, among them all we draw with.
        '\u{2190}'..='\u{21ff}' | '\u{2500}'..='\u{25ff}' => 1,
        '\u{0}'..='\u{10ff}' => 1,
        _ => 2,
    }
}

/// `text`, or as much of its beginning as fits with two dots after it.
pub(super) fn shortened(text: &str, columns_max: usize) -> String {
    const DOTS: &str = "..";
    if columns(text) <= columns_max {
        return text.to_owned();
    }
    let mut left = columns_max.saturating_sub(DOTS.len());
    let mut shown = String::new();
    for character in text.chars() {
        if column_count(character) > left {
            break;
        }
        left -= column_count(character);
        shown.push(character);
    }
    shown.push_str(&DOTS[..DOTS.len().min(columns_max)]);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_reset_after_each_stretch_and_absent_from_plain_text() {
        let mut line = Line::of(Tone::Bad, "error: ");
        line.push(Tone::Plain, "no");
        assert_eq!(line.coloured(), "\x1b[1;31merror: \x1b[0mno");
        assert_eq!(line.plain(), "error: no");
    }

    /// On a dark terminal and on a light one: nothing but the eight colours that themes keep readable, neither of the two
    /// that are a background, and no background of our own.
    #[test]
    fn no_tone_vanishes_on_a_dark_or_a_light_terminal() {
        const ALL: [Tone; 6] = [
            Tone::Plain,
            Tone::Strong,
            Tone::Faint,
            Tone::Good,
            Tone::Warning,
            Tone::Bad,
        ];
        // Bold, faint; red to cyan without black (30) and white (37).
        let readable =
            |code: &str| matches!(code, "1" | "2" | "31" | "32" | "33" | "34" | "35" | "36");
        for tone in ALL {
            let begin = tone.begin();
            let codes = begin
                .strip_prefix("\x1b[")
                .and_then(|codes| codes.strip_suffix('m'));
            assert!(begin.is_empty() || codes.is_some(), "{tone:?}: {begin:?}");
            assert!(
                codes.unwrap_or("1").split(';').all(readable),
                "{tone:?}: {begin:?}"
            );
        }
    }

    #[test]
    fn a_line_is_cut_to_its_columns_wherever_a_stretch_ends() {
        let mut line = Line::of(Tone::Strong, "abc");
        line.push(Tone::Plain, "defgh");
        for columns_max in 0..10 {
            let cut = line.clone().cut(columns_max);
            assert!(cut.columns() <= columns_max, "{columns_max}: {cut:?}");
        }
        assert_eq!(line.clone().cut(7).plain(), "abcde..");
        assert_eq!(line.cut(8).plain(), "abcdefgh");
    }

    #[test]
    fn blanks_at_the_end_are_dropped_and_no_others() {
        let mut line = Line::of(Tone::Strong, " a ");
        line.push(Tone::Plain, "  ");
        assert_eq!(line.trimmed(), Line::of(Tone::Strong, " a"));
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(columns("魚"), 2);
        assert_eq!(shortened("魚魚魚", 5), "魚..");
        assert_eq!(shortened("é", 1), "é");
    }
}
