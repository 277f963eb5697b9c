//! Reads many pieces on all cores and hands each to a function: hashing at import, checking what lies at a target.
//!
//! One file of any size keeps every core busy, and so do 100,000 small ones. Holes are not read. It does not know what the
//! bytes are for. Called by `import`, `survey` and `compare`.
//!
//! Threads take short runs of pieces in order, so the disk sees a few nearly sequential readers rather than one per
//! half of the share, as a recursive split would give.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::StorageError;
use super::disk;
use super::holes::Holes;
use crate::content::{FileIndex, Geometry, PieceHashes, PieceIndex, PieceSpan};

/// Bytes a thread takes at once, about: enough to make taking them cheap, little enough to end together.
const RUN_BYTES: u32 = 4 * 1024 * 1024;
/// Bytes between two reports of progress.
const REPORT_BYTES: u64 = 1024 * 1024;

/// Where pieces are read from.
pub(super) trait Readable: Sync {
    /// Opens a file; called once per run of pieces of it.
    fn open(&self, file: FileIndex) -> Result<File, StorageError>;
    /// The error for a failed read of it.
    fn failed(&self, file: FileIndex, source: io::Error) -> StorageError;
}

/// The bytes of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceBytes<'a> {
    Read(&'a [u8]),
    /// It lies in a hole: all of them are zero.
    Hole,
}

impl PieceBytes<'_> {
    /// Whether these are the bytes of `piece`.
    pub(super) fn are(self, piece: PieceIndex, geometry: &Geometry, hashes: &PieceHashes) -> bool {
        match self {
            Self::Read(bytes) => hashes.verify(geometry, piece, bytes).is_some(),
            Self::Hole => hashes.is_zeros(geometry, piece),
        }
    }
}

/// Progress and the wish to stop, shared by all threads.
pub(super) struct Watch<'a> {
    /// Told the bytes read so far, about once per MiB, from any thread; numbers may arrive slightly out of order.
    pub(super) progress: &'a (dyn Fn(u64) + Sync),
    /// Ends the work with [`StorageError::Cancelled`].
    pub(super) cancel: &'a AtomicBool,
}

/// Calls `visit` with the bytes of each of `pieces`, in no order, from all cores. The answers come in the order of `pieces`.
///
/// # Errors
/// The one for the earliest piece that fails, of opening, reading, `visit` or [`StorageError::Cancelled`].
pub(super) fn visit_pieces<R: Send>(
    geometry: &Geometry,
    pieces: &[PieceIndex],
    from: &impl Readable,
    watch: &Watch<'_>,
    visit: impl Fn(PieceIndex, PieceBytes<'_>) -> Result<R, StorageError> + Sync,
) -> Result<Vec<R>, StorageError> {
    let Visited { answers, failed } =
        visit_pieces_partly(geometry, pieces, from, watch, OnFailure::Stop, visit);
    match failed.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(answers.into_iter().map(|(_, answer)| answer).collect()),
    }
}

/// What [`visit_pieces_partly`] got done.
pub(super) struct Visited<R> {
    /// Answers with their places in `pieces`, in that order; all of them when nothing failed.
    pub(super) answers: Vec<(usize, R)>,
    /// Failures with their places in `pieces`, in that order; of one file perhaps several.
    pub(super) failed: Vec<(usize, StorageError)>,
}

/// What happens to the rest when a piece fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnFailure {
    /// Nothing more is read.
    Stop,
    /// Nothing more is read of that file.
    LeaveFile,
}

/// As [`visit_pieces`], with the answers that were there when a piece failed.
pub(super) fn visit_pieces_partly<R: Send>(
    geometry: &Geometry,
    pieces: &[PieceIndex],
    from: &impl Readable,
    watch: &Watch<'_>,
    on_failure: OnFailure,
    visit: impl Fn(PieceIndex, PieceBytes<'_>) -> Result<R, StorageError> + Sync,
) -> Visited<R> {
    let mut visited = Visited {
        answers: Vec::new(),
        failed: Vec::new(),
    };
    if pieces.is_empty() {
        return visited;
    }
    let run = (RUN_BYTES / geometry.piece_len()).max(1) as usize;
    let next = AtomicUsize::new(0);
    let done = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let left: Vec<_> = (0..geometry.file_count())
        .map(|_| AtomicBool::new(false))
        .collect();
    let per_thread = rayon::broadcast(|_| {
        let (mut answers, mut failed) = (Vec::new(), Vec::new());
        let mut reader = Reader {
            from,
            open: None,
            buffer: Vec::new(),
        };
        while !stop.load(Ordering::Relaxed) {
            let first = next.fetch_add(run, Ordering::Relaxed);
            let Some(taken) = pieces.get(first..pieces.len().min(first + run)) else {
                break;
            };
            if taken.is_empty() {
                break;
            }
            for (position, &piece) in (first..).zip(taken) {
                let span = geometry.locate(piece);
                let is_left = &left[span.file.as_usize()];
                if is_left.load(Ordering::Relaxed) {
                    continue;
                }
                let answer = if watch.cancel.load(Ordering::Relaxed) {
                    Err(StorageError::Cancelled)
                } else {
                    reader.read(span).and_then(|bytes| visit(piece, bytes))
                };
                match answer {
                    Ok(answer) => answers.push((position, answer)),
                    Err(error) => {
                        let is_over = on_failure == OnFailure::Stop
                            || matches!(error, StorageError::Cancelled);
                        failed.push((position, error));
                        if is_over {
                            stop.store(true, Ordering::Relaxed);
                            break;
                        }
                        is_left.store(true, Ordering::Relaxed);
                        continue;
                    }
                }
                let len = u64::from(span.len);
                let before = done.fetch_add(len, Ordering::Relaxed);
                if (before + len) / REPORT_BYTES != before / REPORT_BYTES {
                    (watch.progress)(before + len);
                }
            }
        }
        (answers, failed)
    });
    let (answers, failures): (Vec<_>, Vec<_>) = per_thread.into_iter().unzip();
    visited.answers = answers.into_iter().flatten().collect();
    visited
        .answers
        .sort_unstable_by_key(|(position, _)| *position);
    visited.failed = failures.into_iter().flatten().collect();
    visited
        .failed
        .sort_unstable_by_key(|(position, _)| *position);
    if visited.failed.is_empty() {
        assert_eq!(
            visited.answers.len(),
            pieces.len(),
            "threads stop early only on an error"
        );
        (watch.progress)(done.load(Ordering::Relaxed));
    }
    visited
}

/// Reads pieces on one thread.
struct Reader<'a, F> {
    from: &'a F,
    /// A thread holds one file open at a time.
    open: Option<(FileIndex, File, Holes)>,
    buffer: Vec<u8>,
}

impl<F: Readable> Reader<'_, F> {
    fn read(&mut self, span: PieceSpan) -> Result<PieceBytes<'_>, StorageError> {
        if self.open.as_ref().is_none_or(|open| open.0 != span.file) {
            // Closed first.
            self.open = None;
            let file = self.from.open(span.file)?;
            let holes = Holes::of(&file);
            self.open = Some((span.file, file, holes));
        }
        let (_, file, holes) = self.open.as_mut().expect("opened just above");
        let end = span.offset + u64::from(span.len);
        if holes.cover(file, &(span.offset..end)) {
            return Ok(PieceBytes::Hole);
        }
        self.buffer.resize(span.len as usize, 0);
        disk::read_exact_at(file, &mut self.buffer, span.offset)
            .map_err(|source| self.from.failed(span.file, source))?;
        Ok(PieceBytes::Read(&self.buffer))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::path::PathBuf;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn path(&self, file: FileIndex) -> PathBuf {
            self.0.path().join(file.to_string())
        }
    }

    impl Readable for Folder {
        fn open(&self, file: FileIndex) -> Result<File, StorageError> {
            File::open(self.path(file)).map_err(|source| self.failed(file, source))
        }

        fn failed(&self, file: FileIndex, source: io::Error) -> StorageError {
            StorageError::reading(&self.path(file), source)
        }
    }

    fn scene(lens: &[usize]) -> (Folder, Geometry) {
        let folder = Folder(tempfile::tempdir().unwrap());
        for (index, len) in (0_u32..).zip(lens) {
            let bytes: Vec<u8> = (0..*len)
                .map(|at| (at / 7 + index as usize) as u8)
                .collect();
            std::fs::write(folder.path(FileIndex::new(index)), bytes).unwrap();
        }
        let lens: Vec<u64> = lens.iter().map(|len| *len as u64).collect();
        (folder, Geometry::new(16 * 1024, &lens).unwrap())
    }

    static NEVER: AtomicBool = AtomicBool::new(false);
    static QUIET: Watch<'_> = Watch {
        progress: &|_| {},
        cancel: &NEVER,
    };

    #[test]
    fn every_piece_is_visited_once_and_answers_keep_the_order() {
        let (folder, geometry) = scene(&[1, 0, 16 * 1024, 5_000_001, 40_000, 0, 3]);
        let pieces: Vec<_> = geometry.pieces().collect();
        let seen = visit_pieces(&geometry, &pieces, &folder, &QUIET, |piece, bytes| {
            let PieceBytes::Read(bytes) = bytes else {
                panic!("piece {piece} is no hole");
            };
            Ok((piece, bytes.to_vec()))
        })
        .unwrap();
        assert_eq!(seen.len(), geometry.piece_count() as usize);
        for (&expected, (piece, bytes)) in pieces.iter().zip(&seen) {
            let span = geometry.locate(expected);
            assert_eq!(*piece, expected);
            let whole = std::fs::read(folder.path(span.file)).unwrap();
            assert_eq!(bytes, &whole[span.offset as usize..][..span.len as usize]);
        }
    }

    #[test]
    fn a_piece_in_a_hole_is_not_read_and_counts_as_done() {
        let (folder, geometry) = scene(&[1_000_000, 20_000]);
        let file = File::options()
            .write(true)
            .open(folder.path(FileIndex::new(0)));
        file.as_ref().unwrap().set_len(0).unwrap();
        file.as_ref().unwrap().set_len(1_000_000).unwrap();
        std::os::unix::fs::FileExt::write_all_at(file.as_ref().unwrap(), &[7; 10], 500_000)
            .unwrap();
        let last = AtomicU64::new(0);
        let watch = Watch {
            progress: &|bytes| {
                last.fetch_max(bytes, Ordering::Relaxed);
            },
            cancel: &NEVER,
        };
        let pieces: Vec<_> = geometry.pieces().collect();
        let is_read = visit_pieces(&geometry, &pieces, &folder, &watch, |_, bytes| {
            Ok(bytes != PieceBytes::Hole)
        })
        .unwrap();
        let read = (0..)
            .zip(is_read)
            .filter_map(|(piece, read)| read.then_some(piece));
        assert_eq!(read.collect::<Vec<u32>>(), [500_000 / (16 * 1024), 62, 63]);
        assert_eq!(last.load(Ordering::Relaxed), 1_020_000);
    }

    #[test]
    fn progress_ends_at_the_total_and_the_wish_to_stop_ends_the_work() {
        let (folder, geometry) = scene(&[5_000_001]);
        let pieces: Vec<_> = geometry.pieces().collect();
        let last = AtomicU64::new(0);
        let watch = Watch {
            progress: &|bytes| {
                last.fetch_max(bytes, Ordering::Relaxed);
            },
            cancel: &AtomicBool::new(false),
        };
        visit_pieces(&geometry, &pieces, &folder, &watch, |_, _| Ok(())).unwrap();
        assert_eq!(last.load(Ordering::Relaxed), 5_000_001);
        let watch = Watch {
            progress: &|_| {},
            cancel: &AtomicBool::new(true),
        };
        let error = visit_pieces(&geometry, &pieces, &folder, &watch, |_, _| Ok(())).unwrap_err();
        assert!(matches!(error, StorageError::Cancelled));
    }

    #[test]
    fn a_file_that_became_shorter_is_a_changed_source() {
        let (folder, geometry) = scene(&[100_000]);
        let path = folder.path(FileIndex::new(0));
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(20_000)
            .unwrap();
        let pieces: Vec<_> = geometry.pieces().collect();
        let error = visit_pieces(&geometry, &pieces, &folder, &QUIET, |_, _| Ok(())).unwrap_err();
        assert!(
            matches!(error, StorageError::SourceChanged { .. }),
            "{error:?}"
        );
    }
}
