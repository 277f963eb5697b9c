//! A process on a pseudo-terminal, and the screen its user would see.
//!
//! The process has the terminal for stdin, stdout, stderr and as its controlling terminal, so that Ctrl-C is a key here.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::Child;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use pty_process::Size;
use pty_process::blocking::{Command, Pty, open};

use super::{PATIENCE, Shoal, code_of};

/// Lines kept above the screen; nothing looks at them.
const SCROLLED_BACK_MAX: usize = 100;

fn some(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

/// A running process and its screen; killed when dropped.
pub struct Terminal {
    child: Child,
    pty: Arc<Pty>,
    bytes: Receiver<Vec<u8>>,
    parser: vt100::Parser,
    /// Everything that was written to the terminal.
    pub written: Vec<u8>,
}

impl Shoal {
    /// Starts it on a terminal of this size that takes UTF-8 and colours.
    pub fn spawn_on_terminal(mut self, columns: u16, rows: u16) -> Terminal {
        for name in ["NO_COLOR", "LC_ALL", "LC_CTYPE"] {
            if !self
                .command
                .get_envs()
                .any(|(set, value)| set == name && value.is_some())
            {
                self.command.env_remove(name);
            }
        }
        let has_term = self.command.get_envs().any(|(set, _)| set == "TERM");
        self.command.env("LANG", "C.UTF-8");
        if !has_term {
            self.command.env("TERM", "xterm-256color");
        }
        let (pty, pts) = open().unwrap();
        pty.resize(Size::new(rows, columns)).unwrap();
        let child = Command::from(self.command).spawn(pts).unwrap();
        let pty = Arc::new(pty);
        let (sender, bytes) = channel();
        let reader = Arc::clone(&pty);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of the process is an error on the terminal's side.
            while let Ok(len) = (&*reader).read(&mut buffer) {
                if len == 0 || sender.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal {
            child,
            pty,
            bytes,
            parser: vt100::Parser::new(some(rows), some(columns), SCROLLED_BACK_MAX),
            written: Vec::new(),
        }
    }
}

impl Terminal {
    /// Waits until the screen shows what is `wanted`, and gives it line by line.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let lines = self.lines();
            if wanted(&lines) {
                return lines;
            }
            match self
                .bytes
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(bytes) => self.feed(&bytes),
                Err(RecvTimeoutError::Timeout) => panic!("no {what} in time: {lines:#?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("ended without {what}: {lines:#?}"),
            }
        }
    }

    /// Waits for the end; gives the exit code. The screen is then as it was left.
    pub fn wait(&mut self) -> i32 {
        let until = Instant::now() + PATIENCE;
        while let Ok(bytes) = self
            .bytes
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.feed(&bytes);
        }
        code_of(self.child.wait().unwrap())
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.written.extend_from_slice(bytes);
        self.parser.process(bytes);
    }

    /// The lines of the screen, without blanks at their ends and without empty ones below the last.
    pub fn lines(&self) -> Vec<String> {
        let (_, columns) = self.parser.screen().size();
        let mut lines: Vec<String> = self
            .parser
            .screen()
            .rows(0, columns.get())
            .map(|line| line.trim_end().to_owned())
            .collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines
    }

    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.pty.resize(Size::new(rows, columns)).unwrap();
        self.parser.screen_mut().set_size(some(rows), some(columns));
    }

    pub fn press(&self, key: u8) {
        (&*self.pty).write_all(&[key]).unwrap();
    }

    /// Whether any character on the screen has a colour or another attribute.
    pub fn is_coloured(&self) -> bool {
        let screen = self.parser.screen();
        let (rows, columns) = screen.size();
        (0..rows.get()).any(|row| {
            (0..columns.get())
                .filter_map(|column| screen.cell(row, column))
                .any(|cell| {
                    cell.fgcolor() != vt100::Color::Default
                        || cell.bgcolor() != vt100::Color::Default
                        || cell.bold()
                        || cell.dim()
                })
        })
    }

    /// What a shell finds: its prompt begins a line, is seen, and has no colour of ours.
    #[track_caller]
    pub fn check_left_clean(&mut self) {
        let screen = self.parser.screen();
        let (_, column) = screen.cursor_position();
        assert_eq!(
            column,
            0,
            "the prompt would begin in the middle: {:#?}",
            self.lines()
        );
        assert!(!screen.hide_cursor(), "the cursor is hidden");
        assert!(!screen.alternate_screen() && !screen.application_cursor());
        assert_eq!((screen.fgcolor(), screen.bgcolor()), Default::default());
        assert!(!screen.bold() && !screen.dim() && !screen.inverse() && !screen.underline());
        self.parser.process(b"$ ");
        assert_eq!(self.lines().last().map(String::as_str), Some("$"));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
