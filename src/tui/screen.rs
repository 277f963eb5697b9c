//! The terminal behind stderr: a view that is painted over in place, and lines that stay, above it.
//!
//! Everything this process says on stderr goes through here, the log too, so that nothing lands in the middle of the
//! view. There is one stderr, so there is one screen. Between two calls the terminal is always in order: the cursor is
//! shown and stands below the view, so even SIGKILL leaves nothing to repair. A stderr that is closed or gone is no
//! error. Called by `cli`; `main` gives [`LogWriter`] to the log.
//! Source: ECMA-48 (cursor and erase sequences); the terminal extension for synchronised output (DEC mode 2026).

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use crossterm::cursor::{Hide, MoveToColumn, MoveUp, Show};
use crossterm::queue;
use crossterm::terminal::{BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate};

use super::frame::Size;
use super::style::Line;
use crate::content::escape_hostile;

/// What is assumed of a terminal that does not say.
const SIZE_UNKNOWN: Size = Size {
    columns: 80,
    rows: 24,
};

/// Characters shown of one record of the log. What a remote says in one is at most some thousand.
const RECORD_CHARACTERS_MAX: usize = 8 * 1024;

const ESCAPE: char = '\u{1b}';

static SCREEN: Mutex<Screen> = Mutex::new(Screen { view: Vec::new() });

/// Shows `view` in place of the one before; `coloured` or as plain text.
pub fn paint(view: &[Line], coloured: bool) {
    let view = view
        .iter()
        .map(|line| Painted {
            columns: line.columns(),
            text: if coloured {
                line.coloured()
            } else {
                line.plain()
            },
        })
        .collect();
    let mut screen = lock();
    if screen.view != view {
        let shown = screen.replaced(b"", view, size().columns);
        send(&shown);
    }
}

/// Writes a line that stays, above the view if there is one.
pub fn say(text: &str) {
    write_above(format!("{text}\n").as_bytes());
}

/// Takes the view off the terminal.
pub fn clear() {
    lock().clear();
}

/// Makes a panic take the view off before it is reported, so that the report is readable.
pub fn clear_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        send(&cleared_for_panic(&SCREEN, size().columns));
        report(panic);
    }));
}

/// The bytes that take the view off. None when the panic comes from a thread that is painting: waiting for it would
/// never end.
fn cleared_for_panic(screen: &Mutex<Screen>, columns: usize) -> Vec<u8> {
    match screen.try_lock() {
        Ok(mut screen) => screen.replaced(b"", Vec::new(), columns),
        Err(TryLockError::Poisoned(screen)) => {
            screen.into_inner().replaced(b"", Vec::new(), columns)
        }
        Err(TryLockError::WouldBlock) => Vec::new(),
    }
}

/// Whether stderr is a terminal.
#[must_use]
pub fn is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Room for a view: one column less than there is, for terminals that wrap after the last one, and one row less, for
/// the cursor.
#[must_use]
pub fn room() -> Size {
    let Size { columns, rows } = size();
    Size {
        columns: columns.saturating_sub(1).max(1),
        rows: rows.saturating_sub(1).max(1),
    }
}

/// Takes one record of the log and writes it above the view when dropped.
#[derive(Debug, Default)]
pub struct LogWriter(Vec<u8>);

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        if self.0.is_empty() {
            return;
        }
        write_above(format!("{}\n", harmless(&self.0)).as_bytes());
    }
}

/// A record of the log as one line that only shows: libraries put words of remotes into it as they came. Colours stay.
///
/// `tracing_subscriber` writes the escape character in fields as text; it leaves line ends and changes of direction.
fn harmless(record: &[u8]) -> String {
    let text = String::from_utf8_lossy(record);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let (text, cut) = match text.char_indices().nth(RECORD_CHARACTERS_MAX) {
        Some((end, _)) => (&text[..end], ".."),
        None => (text, ""),
    };
    let mut rest = text;
    let mut shown = String::new();
    while !rest.is_empty() {
        let colour_len = colour_len(rest);
        shown.push_str(&rest[..colour_len]);
        rest = &rest[colour_len..];
        // At least one character, which may be an escape character that begins no colour.
        let plain_len = rest
            .char_indices()
            .skip(1)
            .find(|(_, character)| *character == ESCAPE)
            .map_or(rest.len(), |(at, _)| at);
        shown.push_str(&escape_hostile(&rest[..plain_len]));
        rest = &rest[plain_len..];
    }
    shown + cut
}

/// Length of the colour sequences (ECMA-48, SGR) at the beginning of `text`.
fn colour_len(text: &str) -> usize {
    let mut len = 0;
    while let Some(parameters) = text[len..].strip_prefix("\u{1b}[") {
        let end = parameters.find(|character: char| !matches!(character, '0'..='9' | ';'));
        match end {
            Some(end) if parameters[end..].starts_with('m') => len += 2 + end + 1,
            _ => break,
        }
    }
    len
}

/// A line as it is on the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Painted {
    columns: usize,
    text: String,
}

/// What is on the terminal right above the cursor.
#[derive(Debug)]
struct Screen {
    view: Vec<Painted>,
}

impl Screen {
    /// The bytes that put `above`, whole lines, and then `view` in place of the view there is.
    fn replaced(&mut self, above: &[u8], view: Vec<Painted>, columns: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let rows = self.rows(columns);
        let is_view = rows > 0 || !view.is_empty();
        // Writing to a vector cannot fail.
        if is_view {
            let _ = queue!(bytes, BeginSynchronizedUpdate, Hide, MoveToColumn(0));
        }
        if rows > 0 {
            let _ = queue!(bytes, MoveUp(rows), Clear(ClearType::FromCursorDown));
        }
        bytes.extend_from_slice(above);
        for line in &view {
            let _ = queue!(bytes, Clear(ClearType::UntilNewLine));
            bytes.extend_from_slice(line.text.as_bytes());
            bytes.push(b'\n');
        }
        if is_view {
            let _ = queue!(bytes, Show, EndSynchronizedUpdate);
        }
        self.view = view;
        bytes
    }

    /// Rows the view takes on a terminal that is `columns` wide by now: narrower than before, and its lines wrap.
    fn rows(&self, columns: usize) -> u16 {
        let rows: usize = self
            .view
            .iter()
            .map(|line| line.columns.div_ceil(columns.max(1)).max(1))
            .sum();
        u16::try_from(rows).unwrap_or(u16::MAX)
    }

    fn clear(&mut self) {
        if !self.view.is_empty() {
            let bytes = self.replaced(b"", Vec::new(), size().columns);
            send(&bytes);
        }
    }
}

fn write_above(bytes: &[u8]) {
    let mut screen = lock();
    let view = screen.view.clone();
    let columns = if view.is_empty() { 0 } else { size().columns };
    let bytes = screen.replaced(bytes, view, columns);
    send(&bytes);
}

/// One write, so that no other process's output and no repaint of the terminal falls between its parts.
fn send(bytes: &[u8]) {
    let mut stderr = io::stderr().lock();
    // Nobody is left to tell when stderr is closed.
    let _ = stderr.write_all(bytes).and_then(|()| stderr.flush());
}

fn lock() -> MutexGuard<'static, Screen> {
    // Whatever panicked while it painted, the next paint begins anew.
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn size() -> Size {
    match measured() {
        Some((columns, rows)) if columns > 0 && rows > 0 => Size {
            columns: columns.into(),
            rows: rows.into(),
        },
        _ => SIZE_UNKNOWN,
    }
}

/// Columns and rows of the terminal behind stderr.
#[cfg(unix)]
fn measured() -> Option<(u16, u16)> {
    // Not `crossterm`'s: that one asks the controlling terminal, and starts a process when there is none.
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok()?;
    Some((size.ws_col, size.ws_row))
}

#[cfg(not(unix))]
fn measured() -> Option<(u16, u16)> {
    crossterm::terminal::size().ok()
}

#[cfg(test)]
mod tests {
    use super::super::style::Tone;
    use super::*;

    #[test]
    fn a_record_of_the_log_is_one_line_without_anything_that_moves_or_hides_text() {
        let cases = [
            ("plain \u{fc}ber\n", "plain \u{fc}ber"),
            ("\u{1b}[2mtime\u{1b}[0m a\n", "\u{1b}[2mtime\u{1b}[0m a"),
            ("a\nWARN forged\r\n", "a\\u{a}WARN forged\\u{d}"),
            (
                "\u{1b}[2Jgone \u{1b}]0;t\u{7}",
                "\\u{1b}[2Jgone \\u{1b}]0;t\\u{7}",
            ),
            ("\u{1b}\u{1b}[0m\u{202e}", "\\u{1b}\u{1b}[0m\\u{202e}"),
            ("\u{1b}[", "\\u{1b}["),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("", ""),
        ];
        for (record, shown) in cases {
            assert_eq!(harmless(record.as_bytes()), shown, "{record:?}");
        }
        assert_eq!(harmless(&[b'a', 0xff]), "a\u{fffd}");
        let long = "\u{e9}".repeat(RECORD_CHARACTERS_MAX + 5);
        assert_eq!(
            harmless(long.as_bytes()).chars().count(),
            RECORD_CHARACTERS_MAX + 2
        );
    }

    /// A terminal of `columns` that understands what we send: text, new lines, and the sequences of `replaced`.
    struct Terminal {
        columns: usize,
        rows: Vec<String>,
        row: usize,
        is_cursor_shown: bool,
    }

    impl Terminal {
        fn new(columns: usize) -> Self {
            Self {
                columns,
                rows: vec![String::new()],
                row: 0,
                is_cursor_shown: true,
            }
        }

        fn feed(&mut self, bytes: &[u8]) {
            let text = std::str::from_utf8(bytes).expect("text");
            let mut rest = text;
            while let Some(character) = rest.chars().next() {
                if let Some(sequence) = rest.strip_prefix("\x1b[") {
                    let end = sequence
                        .find(|character: char| character.is_ascii_alphabetic())
                        .expect("a final byte");
                    self.obey(&sequence[..end], sequence.as_bytes()[end]);
                    rest = &sequence[end + 1..];
                    continue;
                }
                if character == '\n' {
                    self.row += 1;
                } else {
                    if self.rows[self.row].chars().count() == self.columns {
                        self.row += 1;
                    }
                    self.grow();
                    self.rows[self.row].push(character);
                }
                self.grow();
                rest = &rest[character.len_utf8()..];
            }
        }

        fn grow(&mut self) {
            while self.rows.len() <= self.row {
                self.rows.push(String::new());
            }
        }

        fn obey(&mut self, parameters: &str, what: u8) {
            match (parameters, what) {
                ("?25", b'l') => self.is_cursor_shown = false,
                ("?25", b'h') => self.is_cursor_shown = true,
                (count, b'A') => self.row -= count.parse::<usize>().expect("a count"),
                ("", b'J') => {
                    self.rows.truncate(self.row);
                    self.grow();
                }
                ("", b'K') => self.rows[self.row].clear(),
                ("?2026", b'l' | b'h') | ("1", b'G') => {}
                other => panic!("unknown sequence {other:?}"),
            }
        }

        fn text(&self) -> Vec<&str> {
            self.rows.iter().map(String::as_str).collect()
        }
    }

    fn view(texts: &[&str]) -> Vec<Painted> {
        texts
            .iter()
            .map(|text| Painted {
                columns: Line::of(Tone::Plain, *text).columns(),
                text: (*text).into(),
            })
            .collect()
    }

    #[test]
    fn each_view_takes_the_place_of_the_one_before_and_lines_stay_above() {
        let mut screen = Screen { view: Vec::new() };
        let mut terminal = Terminal::new(20);
        terminal.feed(b"$ shoal\n");
        terminal.feed(&screen.replaced(b"", view(&["one", "two", "three"]), 20));
        assert_eq!(terminal.text(), ["$ shoal", "one", "two", "three", ""]);
        terminal.feed(&screen.replaced(b"peer lost\n", view(&["four"]), 20));
        assert_eq!(terminal.text(), ["$ shoal", "peer lost", "four", ""]);
        assert!(terminal.is_cursor_shown);
        terminal.feed(&screen.replaced(b"", Vec::new(), 20));
        assert_eq!(terminal.text(), ["$ shoal", "peer lost", ""]);
        assert!(terminal.is_cursor_shown);
    }

    #[test]
    fn a_view_that_wraps_since_the_terminal_became_narrow_is_erased_whole() {
        let mut screen = Screen { view: Vec::new() };
        screen.replaced(b"", view(&["0123456789", "x", ""]), 20);
        let mut terminal = Terminal::new(4);
        terminal.feed(b"$\n0123456789\nx\n\n");
        assert_eq!(terminal.text(), ["$", "0123", "4567", "89", "x", "", ""]);
        terminal.feed(&screen.replaced(b"", view(&["new"]), 4));
        assert_eq!(terminal.text(), ["$", "new", ""]);
    }

    #[test]
    fn a_panic_takes_the_view_off_and_leaves_the_cursor_at_the_beginning_of_a_line() {
        let screen = Mutex::new(Screen { view: Vec::new() });
        let mut terminal = Terminal::new(20);
        terminal.feed(b"$ shoal\n");
        let shown = lock_of(&screen).replaced(b"", view(&["one", "two"]), 20);
        terminal.feed(&shown);
        let is_poisoned = std::thread::scope(|scope| {
            let painter = scope.spawn(|| {
                let _guard = lock_of(&screen);
                assert_eq!(
                    cleared_for_panic(&screen, 20),
                    b"",
                    "the painter itself cannot wait"
                );
                panic!("expected by this test");
            });
            painter.join().is_err()
        });
        assert!(is_poisoned && screen.is_poisoned());
        terminal.feed(&cleared_for_panic(&screen, 20));
        assert_eq!(terminal.text(), ["$ shoal", ""]);
        assert!(terminal.is_cursor_shown);
    }

    fn lock_of(screen: &Mutex<Screen>) -> MutexGuard<'_, Screen> {
        screen.lock().expect("nobody panicked yet")
    }

    #[test]
    fn without_a_view_a_line_is_sent_as_it_is() {
        let mut screen = Screen { view: Vec::new() };
        assert_eq!(screen.replaced(b"line\n", Vec::new(), 0), b"line\n");
    }
}
