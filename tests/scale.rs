//! Large shares that are mostly holes: one file of 50 GB, one of 2^20 pieces. What is zeros is neither read, sent nor written.
//!
//! They cost seconds because nothing of that size is ever moved, and fail by counters of the system and not by time.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::{Place, Process, fetch, noise, seed, skip, turn};

const MIB: u64 = 1 << 20;

/// Piece length of every share here.
const PIECE_LEN: u64 = MIB;

/// A fetch that goes on has received something this soon after it was started.
const RESUMED_MAX: Duration = Duration::from_secs(2);

/// A file of holes with some data.
struct Sparse {
    path: PathBuf,
    len: u64,
    /// Where the data is, and what.
    data: Vec<(u64, Vec<u8>)>,
}

impl Sparse {
    /// With `count` stretches of data of half a MiB at places that look random.
    ///
    /// `None` where files have no holes; the test is counted as skipped.
    fn new(test: &str, place: &Place, name: &str, len: u64, count: usize) -> Option<Self> {
        let path = place.path(name);
        let file = File::create(&path).unwrap();
        if let Err(error) = file.set_len(len) {
            skip(test, &format!("no file of {len} bytes here: {error}"));
            return None;
        }
        if file.metadata().unwrap().blocks() > 0 {
            skip(test, "files have no holes here");
            return None;
        }
        let places = noise(name, count * 8);
        let places = places.as_chunks::<8>().0.iter();
        let data: Vec<_> = places
            .enumerate()
            .map(|(number, place)| {
                let offset = u64::from_le_bytes(*place) % (len - MIB);
                let bytes = noise(&number.to_string(), MIB as usize / 2);
                file.write_all_at(&bytes, offset).unwrap();
                (offset, bytes)
            })
            .collect();
        Some(Self { path, len, data })
    }

    /// Bytes of the pieces that have data: all that may be sent.
    fn data_pieces_len(&self) -> u64 {
        let touched = |(offset, bytes): &(u64, Vec<u8>)| {
            let last = offset + bytes.len() as u64 - 1;
            offset / PIECE_LEN..=last / PIECE_LEN
        };
        let pieces: BTreeSet<u64> = self.data.iter().flat_map(touched).collect();
        let len_of = |piece: u64| PIECE_LEN.min(self.len - piece * PIECE_LEN);
        pieces.into_iter().map(len_of).sum()
    }

    /// That `copy` has the same data, and holes for the rest.
    fn check(&self, copy: &Path) {
        let file = File::open(copy).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), self.len);
        for (offset, bytes) in &self.data {
            let mut found = vec![0; bytes.len()];
            file.read_exact_at(&mut found, *offset).unwrap();
            assert!(found == *bytes, "the data at {offset} differs");
        }
        let source = fs::metadata(&self.path).unwrap().blocks();
        let taken = metadata.blocks();
        assert!(
            taken <= source + source / 10,
            "{taken} blocks where the source takes {source}"
        );
    }
}

/// What the system says about a running process.
fn number_of(process: &Process, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/{file}", process.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap().trim().trim_end_matches(" kB");
    value.parse().unwrap()
}

/// Bytes it has read by system calls, from sockets too.
fn read_by(process: &Process) -> u64 {
    number_of(process, "io", "rchar:")
}

/// Its most resident memory so far, in KiB.
fn peak_of(process: &Process) -> u64 {
    number_of(process, "status", "VmHWM:")
}

/// Waits until a fetch receives bytes of pieces.
fn wait_until_receiving(fetcher: &mut Process) {
    fetcher.wait_for("progress that receives", |line| {
        line["type"] == "progress" && line["down_per_sec"].as_u64() > Some(0)
    });
}

#[test]
fn a_file_of_50_gb_that_is_mostly_holes_costs_its_data_and_resumes_at_once() {
    let _turn = turn();
    let place = Place::new();
    let test = "a_file_of_50_gb_that_is_mostly_holes_costs_its_data_and_resumes_at_once";
    let Some(source) = Sparse::new(test, &place, "disk.img", 50_000_000_000, 24) else {
        return;
    };
    let (seeder, link) = seed(&place, "home", &source.path, &["--up", "6M"]);
    let into = place.folder("into");
    let mut fetcher = fetch(&place, "other", &link, &into, &[]);
    let zeros = source.len - source.data_pieces_len();
    fetcher.wait_for("piece", |line| {
        line["type"] == "progress" && line["bytes"].as_u64() > Some(zeros)
    });
    fetcher.kill();
    assert!(!into.join("disk.img").exists(), "it was killed on the way");

    let started = Instant::now();
    let mut fetcher = fetch(&place, "other", &link, &into, &["--linger", "0"]);
    wait_until_receiving(&mut fetcher);
    let resumed = started.elapsed();
    let read_at_start = read_by(&fetcher);
    assert_eq!(fetcher.wait(), 0);
    let done = fetcher.wait_for_type("done");
    let downloaded = done["downloaded"].as_u64().unwrap();
    println!(
        "resumed in {resumed:?}, having read {read_at_start} bytes; {downloaded} received; the seeder read {} with {} KiB",
        read_by(&seeder),
        peak_of(&seeder)
    );
    assert!(resumed < RESUMED_MAX, "{resumed:?}");
    assert!(read_at_start < 64 * MIB, "{read_at_start} bytes read again");
    assert!(downloaded < source.data_pieces_len(), "{downloaded}");
    assert_eq!(done["bytes"], source.len);
    source.check(&into.join("disk.img"));
    // Hashing the file once, and reading what was asked for.
    let read = read_by(&seeder);
    assert!(read < 4 * source.data_pieces_len() + 64 * MIB, "{read}");
    let verified = place.shoal("other").args(&["verify", &link]).arg(&into);
    let outcome = verified.local().run();
    assert_eq!(outcome.code, 0, "{outcome:?}");
}

#[test]
fn a_share_of_a_million_pieces_is_seeded_fetched_and_fetched_again() {
    let _turn = turn();
    let place = Place::new();
    let test = "a_share_of_a_million_pieces_is_seeded_fetched_and_fetched_again";
    let Some(source) = Sparse::new(test, &place, "large.img", MIB * PIECE_LEN, 8) else {
        return;
    };
    let began = Instant::now();
    let (mut seeder, link) = seed(&place, "home", &source.path, &[]);
    let seeded = began.elapsed();
    assert_eq!(seeder.wait_for_type("link")["pieces"], MIB);
    let into = place.folder("into");
    let began = Instant::now();
    let mut fetcher = fetch(&place, "other", &link, &into, &[]);
    let done = fetcher.wait_for_type("done");
    let (fetched, peak) = (began.elapsed(), peak_of(&fetcher));
    assert_eq!(fetcher.wait(), 0);
    assert_eq!(done["downloaded"], source.data_pieces_len());
    source.check(&into.join("large.img"));
    let began = Instant::now();
    let mut again = fetch(&place, "other", &link, &into, &[]);
    let done = again.wait_for_type("done");
    let adopted = began.elapsed();
    assert_eq!(again.wait(), 0);
    assert_eq!(done["downloaded"], 0);
    println!(
        "seeded in {seeded:?} with {} KiB, fetched in {fetched:?} with {peak} KiB, again in {adopted:?}",
        peak_of(&seeder)
    );
    let read = read_by(&seeder);
    assert!(read < 8 * source.data_pieces_len() + 128 * MIB, "{read}");
}
