//! The live view and the sentences about events: what people see on the terminal while a share moves.
//!
//! Pictures become lines in pure functions, [`frame()`] and [`Narrator`]; only [`screen`] touches the terminal, and
//! only stderr. Asks nobody anything and decides nothing about a share. Called by `cli/output`, and by `main` for
//! the log's way to the terminal.

mod frame;
mod header;
mod lanes;
mod map;
mod names;
mod narrator;
mod numbers;
pub mod screen;
mod style;

pub use frame::{Picture, Size, frame};
pub use header::summary;
pub use names::Names;
pub use narrator::{Narrator, Sentence, Weight};
pub use numbers::{bytes, contents, counted, rate, rough, seconds};
pub use style::{Glyphs, Line, Tone};
