//! The trace file: which peer gave which piece, when, and every reroute with its cause, as JSON lines.
//!
//! Shapes are `json`'s. A write that fails is logged once and ends the trace, never the transfer. Called by `output`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::json::Body;
use crate::node::Told;

/// An open trace file.
#[derive(Debug)]
pub(super) struct Trace(Option<BufWriter<File>>);

impl Trace {
    /// Creates the file, or empties the one there is.
    ///
    /// # Errors
    /// As the system says.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(Some(BufWriter::new(File::create(path)?))))
    }

    /// Writes the line for an event, if it has one.
    pub(super) fn told(&mut self, told: &Told) {
        if let Some(body) = Body::piece(&told.event).or_else(|| Body::event(&told.event)) {
            let line = body.line(told.at);
            self.attempt(|file| file.write_all(line.as_bytes()));
        }
    }

    /// Makes what was written visible to others.
    pub(super) fn flush(&mut self) {
        self.attempt(Write::flush);
    }

    fn attempt(&mut self, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) {
        let Some(file) = &mut self.0 else {
            return;
        };
        if let Err(error) = write(file) {
            tracing::warn!(%error, "cannot write the trace; it ends here");
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::node::NodeEvent;

    #[test]
    fn a_piece_is_one_line_and_a_complete_file_none() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut trace = Trace::create(file.path()).expect("a trace");
        let peer = crate::content::PeerId::from_bytes(&[0, 1, 7]).expect("a peer id");
        for event in [
            NodeEvent::PieceStored {
                peer,
                piece: 7,
                bytes: 9,
            },
            NodeEvent::FileComplete { path: "a".into() },
        ] {
            trace.told(&Told {
                at: SystemTime::UNIX_EPOCH,
                event,
            });
        }
        trace.flush();
        let text = std::fs::read_to_string(file.path()).expect("the trace can be read");
        assert_eq!(
            text,
            format!(
                "{{\"v\":1,\"type\":\"piece\",\"ts\":0.0,\"piece\":7,\"bytes\":9,\"peer\":\"{peer}\"}}\n"
            )
        );
    }
}
