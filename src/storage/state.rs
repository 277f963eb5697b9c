//! The state of a host, in one SQLite file: hashes of files that were read before, so that seeding unchanged data reads
//! none of it, peers that were reached before (in `peers`), and what is in shares made or fetched here (in `shares`).
//!
//! Owns the file and its tables. It is a cache and nothing else: whatever is wrong with it (lost, locked, damaged, read
//! only, no locks there) is logged and costs a reading of the files or a search for peers, never more. Called by `import`,
//! and through `peers` and `shares` by `node` and `cli`.
//!
//! Homes lie on NFS: no write-ahead log and no memory map, which need memory that two hosts cannot share, a file per host,
//! and a short wait for locks. Each row carries a checksum over all of it: a wrong hash would make us look like a liar.
//! Source: sqlite.org on PRAGMA journal_mode, busy_timeout and user_version.

mod peers;
mod shares;

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, params};

use super::os::{Kind, Signature, stat_link};
use crate::content::Digest;

pub use peers::{KnownPeer, KnownPeers};
pub use shares::KnownShares;

/// The file's name in the folder of the host.
const FILE: &str = "state.db";
/// How long another process may hold the file. Longer makes everybody's start slow, shorter gives up for nothing: a
/// transaction of ours takes some milliseconds.
const BUSY_MAX: Duration = Duration::from_millis(250);
/// Version of the tables; another one is dropped and made anew.
const VERSION: i32 = 3;
/// Size of the file above which the oldest rows go: hashes of some 2 TB in large files, or of some 300,000 small ones.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A row used again is marked as used at most this often: reading should not write.
const TOUCH_SECS: i64 = 24 * 60 * 60;
/// A file that was changed less than this before it was looked at may be changed again without its times moving: two
/// seconds is the coarsest clock of a file system (FAT).
const RACY_NS: i128 = 2_000_000_000;

const TABLES: &str = "
    CREATE TABLE hashes (
        path BLOB NOT NULL,
        piece_len INTEGER NOT NULL,
        len INTEGER NOT NULL,
        mtime_ns BLOB NOT NULL,
        ctime_ns BLOB NOT NULL,
        inode BLOB NOT NULL,
        device BLOB NOT NULL,
        digests BLOB NOT NULL,
        checksum BLOB NOT NULL,
        used INTEGER NOT NULL,
        PRIMARY KEY (path, piece_len)
    ) WITHOUT ROWID;
    CREATE TABLE peers (
        key BLOB NOT NULL,
        peer BLOB NOT NULL,
        addresses TEXT NOT NULL,
        used INTEGER NOT NULL,
        PRIMARY KEY (key, peer)
    ) WITHOUT ROWID;
    CREATE TABLE shares (
        id BLOB NOT NULL PRIMARY KEY,
        manifest BLOB NOT NULL,
        digests BLOB NOT NULL,
        used INTEGER NOT NULL
    );";

/// A file whose hashes are looked for or kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// Its absolute path.
    pub(super) path: &'a Path,
    /// What it looks like.
    pub(super) signature: &'a Signature,
    pub(super) device: u64,
    /// Length of the pieces that are hashed; 0 for a file of one piece, whose hash is the same whatever the length.
    pub(super) piece_len: u32,
}

/// What this host remembers. Cheap to have and not to have.
#[derive(Debug)]
pub(super) struct State {
    /// `None` when it cannot be used.
    connection: Option<Connection>,
}

impl State {
    /// Opens the state in `folder`, making it when there is none and anew when it is damaged. Never fails.
    pub(super) fn open(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let opened = open(folder, &path).or_else(|error| {
            if !is_damage(&error) {
                return Err(error);
            }
            tracing::warn!(path = %path.display(), %error, "state of this host is damaged: made anew");
            remove(&path);
            open(folder, &path)
        });
        let connection = opened.inspect_err(|error| unusable(&path, error)).ok();
        Self { connection }
    }

    /// The piece hashes of each of `files`, where they are known and the file is as it was.
    pub(super) fn known(&mut self, files: &[Known<'_>]) -> Vec<Option<Vec<Digest>>> {
        let none = || vec![None; files.len()];
        let Some(connection) = &mut self.connection else {
            return none();
        };
        match known(connection, files) {
            Ok(found) => found,
            Err(error) => {
                self.give_up(&error);
                none()
            }
        }
    }

    /// Keeps the piece hashes of files that were `looked` at, then read. Files that are too young are left out.
    pub(super) fn keep(&mut self, looked: SystemTime, files: &[(Known<'_>, &[Digest])]) {
        let looked_ns = nanoseconds(looked);
        let old: Vec<_> = files
            .iter()
            .filter(|(file, _)| is_settled(file.signature, looked_ns))
            .collect();
        let Some(connection) = self.connection.as_mut().filter(|_| !old.is_empty()) else {
            return;
        };
        if let Err(error) = keep(connection, &old, BYTES_MAX) {
            self.give_up(&error);
        }
    }

    /// Does without from now on. A damaged file is removed, for the next run.
    fn give_up(&mut self, error: &rusqlite::Error) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let path = connection.path().map(std::path::PathBuf::from);
        drop(connection);
        let path = path.unwrap_or_default();
        unusable(&path, error);
        if is_damage(error) {
            remove(&path);
        }
    }
}

fn unusable(path: &Path, error: &rusqlite::Error) {
    // Nothing a user has to act upon: files are read again, that is all.
    tracing::info!(path = %path.display(), %error, "state of this host cannot be used");
}

/// Whether a file last changed so long before `looked_ns` that any later change shows in its times.
fn is_settled(signature: &Signature, looked_ns: i128) -> bool {
    signature.mtime_ns.max(signature.ctime_ns) + RACY_NS <= looked_ns
}

fn nanoseconds(at: SystemTime) -> i128 {
    at.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as i128)
}

/// Seconds since 1970, the clock of `used`.
fn seconds_now() -> i64 {
    (nanoseconds(SystemTime::now()) / 1_000_000_000) as i64
}

fn open(folder: &Path, path: &Path) -> rusqlite::Result<Connection> {
    let failed = |what: String| {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
        rusqlite::Error::SqliteFailure(code, Some(what))
    };
    std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
    // Opening a fifo would block.
    if stat_link(path).is_ok_and(|stat| stat.kind != Kind::File) {
        return Err(failed("not a file".to_owned()));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_MAX)?;
    connection.pragma_update(None, "journal_mode", "truncate")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    let version = |connection: &Connection| {
        connection.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0))
    };
    if version(&connection)? != VERSION {
        let change =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        // Another process may have been here in between.
        if version(&change)? != VERSION {
            change.execute_batch(
                "DROP TABLE IF EXISTS hashes; DROP TABLE IF EXISTS peers; DROP TABLE IF EXISTS shares;",
            )?;
            change.execute_batch(TABLES)?;
            change.pragma_update(None, "user_version", VERSION)?;
        }
        change.commit()?;
    }
    Ok(connection)
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    ) || matches!(error, rusqlite::Error::InvalidColumnType(..))
        // A table that is not what its version says.
        || matches!(error.sqlite_error_code(), Some(ErrorCode::Unknown))
}

/// Removes the file and its journal. Another process that has it open goes on with what nobody will see.
fn remove(path: &Path) {
    let mut journal = path.as_os_str().to_os_string();
    journal.push("-journal");
    for path in [path.as_os_str(), journal.as_os_str()] {
        // What cannot be removed cannot be used either, and is noticed when it is opened.
        let _ = std::fs::remove_file(path);
    }
}

fn known(
    connection: &mut Connection,
    files: &[Known<'_>],
) -> rusqlite::Result<Vec<Option<Vec<Digest>>>> {
    let now = seconds_now();
    let mut touched = Vec::new();
    let mut found = Vec::with_capacity(files.len());
    {
        // One read transaction: a lock for each row would be most of the time.
        let reading = connection.transaction()?;
        let mut select = reading.prepare(
            "SELECT len, mtime_ns, ctime_ns, inode, device, digests, checksum, used
             FROM hashes WHERE path = ?1 AND piece_len = ?2",
        )?;
        for file in files {
            let row = select
                .query_row(params![bytes_of(file.path), file.piece_len], |row| {
                    let digests: Vec<u8> = row.get(5)?;
                    let is_same = row.get::<_, i64>(0)? as u64 == file.signature.len
                        && row.get::<_, [u8; 16]>(1)? == file.signature.mtime_ns.to_le_bytes()
                        && row.get::<_, [u8; 16]>(2)? == file.signature.ctime_ns.to_le_bytes()
                        && row.get::<_, [u8; 8]>(3)? == file.signature.inode.to_le_bytes()
                        && row.get::<_, [u8; 8]>(4)? == file.device.to_le_bytes()
                        && row.get::<_, [u8; 32]>(6)? == *checksum(file, &digests).as_bytes();
                    Ok((is_same.then_some(digests), row.get::<_, i64>(7)?))
                })
                .optional()?;
            let (digests, used) = row.unwrap_or((None, now));
            if digests.is_some() && used + TOUCH_SECS < now {
                touched.push(*file);
            }
            found.push(digests.map(|bytes| {
                let (digests, _) = bytes.as_chunks::<32>();
                digests
                    .iter()
                    .map(|bytes| Digest::from_bytes(*bytes))
                    .collect()
            }));
        }
    }
    if !touched.is_empty() {
        let writing = connection.transaction()?;
        for file in touched {
            writing.execute(
                "UPDATE hashes SET used = ?3 WHERE path = ?1 AND piece_len = ?2",
                params![bytes_of(file.path), file.piece_len, now],
            )?;
        }
        writing.commit()?;
    }
    Ok(found)
}

fn keep(
    connection: &mut Connection,
    files: &[&(Known<'_>, &[Digest])],
    bytes_max: u64,
) -> rusqlite::Result<()> {
    let now = seconds_now();
    let writing = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    {
        let mut insert = writing.prepare(
            "INSERT OR REPLACE INTO hashes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?;
        for (file, digests) in files {
            let digests: Vec<u8> = digests
                .iter()
                .flat_map(|digest| *digest.as_bytes())
                .collect();
            let checksum = checksum(file, &digests);
            insert.execute(params![
                bytes_of(file.path),
                file.piece_len,
                file.signature.len as i64,
                file.signature.mtime_ns.to_le_bytes(),
                file.signature.ctime_ns.to_le_bytes(),
                file.signature.inode.to_le_bytes(),
                file.device.to_le_bytes(),
                digests,
                checksum.as_bytes(),
                now,
            ])?;
        }
    }
    prune(&writing, bytes_max)?;
    writing.commit()
}

/// Drops the rows unused for longest, a quarter at a time, until what is left fits.
fn prune(writing: &Transaction<'_>, bytes_max: u64) -> rusqlite::Result<()> {
    let number = |name: &str| {
        writing.pragma_query_value(None, name, |row| {
            row.get::<_, i64>(0).map(i64::unsigned_abs)
        })
    };
    let page = number("page_size")?;
    while (number("page_count")? - number("freelist_count")?) * page > bytes_max {
        let dropped = writing.execute(
            "DELETE FROM hashes WHERE (path, piece_len) IN (
                 SELECT path, piece_len FROM hashes ORDER BY used
                 LIMIT (SELECT (count(*) + 3) / 4 FROM hashes))",
            [],
        )?;
        if dropped == 0 {
            break;
        }
    }
    Ok(())
}

fn bytes_of(path: &Path) -> &[u8] {
    OsStr::as_encoded_bytes(path.as_os_str())
}

/// Over everything a row is used for.
fn checksum(file: &Known<'_>, digests: &[u8]) -> Digest {
    let path = bytes_of(file.path);
    let mut all = Vec::with_capacity(path.len() + digests.len() + 72);
    all.extend_from_slice(&(path.len() as u64).to_le_bytes());
    all.extend_from_slice(path);
    all.extend_from_slice(&file.piece_len.to_le_bytes());
    all.extend_from_slice(&file.signature.len.to_le_bytes());
    all.extend_from_slice(&file.signature.mtime_ns.to_le_bytes());
    all.extend_from_slice(&file.signature.ctime_ns.to_le_bytes());
    all.extend_from_slice(&file.signature.inode.to_le_bytes());
    all.extend_from_slice(&file.device.to_le_bytes());
    all.extend_from_slice(digests);
    Digest::of(&all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::time::Instant;

    use super::*;

    fn signature(len: u64) -> Signature {
        Signature {
            len,
            mtime_ns: 1_000,
            ctime_ns: -5,
            inode: u64::MAX,
        }
    }

    fn file<'a>(path: &'a str, signature: &'a Signature) -> Known<'a> {
        Known {
            path: Path::new(path),
            signature,
            device: 7,
            piece_len: 65_536,
        }
    }

    fn digests(count: u8) -> Vec<Digest> {
        (0..count).map(|index| Digest::of(&[index])).collect()
    }

    fn keep_one(state: &mut State, path: &str) {
        let signature = signature(100);
        let digests = digests(3);
        state.keep(SystemTime::now(), &[(file(path, &signature), &digests)]);
    }

    fn knows(state: &mut State, path: &str) -> bool {
        let signature = signature(100);
        let found = state.known(&[file(path, &signature)]);
        let is_known = found[0].is_some();
        assert!(!is_known || found == [Some(digests(3))]);
        is_known
    }

    #[test]
    fn hashes_are_known_again_in_another_run_and_only_for_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path());
        assert!(!knows(&mut state, "/a"));
        keep_one(&mut state, "/a");
        drop(state);
        let mut state = State::open(folder.path());
        assert!(knows(&mut state, "/a"));
        assert!(!knows(&mut state, "/b"));
        let same = signature(100);
        let others = [
            Signature { len: 101, ..same },
            Signature {
                mtime_ns: 1_001,
                ..same
            },
            Signature {
                ctime_ns: -6,
                ..same
            },
            Signature { inode: 1, ..same },
        ];
        for other in &others {
            assert_eq!(state.known(&[file("/a", other)]), [None], "{other:?}");
        }
        let moved = Known {
            device: 8,
            ..file("/a", &same)
        };
        let longer = Known {
            piece_len: 131_072,
            ..file("/a", &same)
        };
        assert_eq!(state.known(&[moved, longer]), [None, None]);
    }

    #[test]
    fn a_file_changed_within_two_seconds_is_not_remembered() {
        let second = 1_000_000_000;
        let looked = 10 * second;
        let at = |mtime_ns, ctime_ns| Signature {
            mtime_ns,
            ctime_ns,
            ..signature(1)
        };
        assert!(is_settled(&at(8 * second, 0), looked));
        assert!(!is_settled(&at(8 * second + 1, 0), looked));
        assert!(
            !is_settled(&at(0, 9 * second), looked),
            "nor one renamed or touched"
        );
        assert!(
            !is_settled(&at(99 * second, 0), looked),
            "nor one from the future"
        );
    }

    #[test]
    fn a_locked_database_costs_a_moment_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        keep_one(&mut State::open(folder.path()), "/a");
        let holder = Connection::open(folder.path().join(FILE)).unwrap();
        holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let begin = Instant::now();
        let mut state = State::open(folder.path());
        assert!(!knows(&mut state, "/a"));
        keep_one(&mut state, "/b");
        assert!(
            begin.elapsed() < Duration::from_secs(5),
            "{:?}",
            begin.elapsed()
        );
        holder.execute_batch("COMMIT").unwrap();
        assert!(
            knows(&mut State::open(folder.path()), "/a"),
            "it was only locked"
        );
    }

    #[test]
    fn a_damaged_database_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        keep_one(&mut State::open(folder.path()), "/a");
        let whole = fs::read(&path).unwrap();
        let mut torn = whole.clone();
        for byte in &mut torn[100..] {
            *byte ^= 0xa5;
        }
        for damage in [
            b"no database at all".to_vec(),
            torn,
            whole[..whole.len() / 2].to_vec(),
        ] {
            fs::write(&path, &damage).unwrap();
            // The damage may show only when the rows are read; then the next run has a new one.
            assert!(!knows(&mut State::open(folder.path()), "/a"));
            let mut state = State::open(folder.path());
            keep_one(&mut state, "/a");
            assert!(knows(&mut state, "/a"), "{} bytes", damage.len());
        }
    }

    #[test]
    fn a_flipped_bit_in_a_row_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        keep_one(&mut State::open(folder.path()), "/a");
        let mut bytes = fs::read(&path).unwrap();
        let digest = digests(3)[1];
        let at = bytes
            .windows(32)
            .position(|window| window == digest.as_bytes())
            .unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(!knows(&mut State::open(folder.path()), "/a"));
    }

    #[test]
    fn a_folder_that_cannot_hold_it_costs_the_cache() {
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("blocked");
        fs::create_dir_all(blocked.join(FILE)).unwrap();
        let below_a_file = folder.path().join("file");
        fs::write(&below_a_file, b"").unwrap();
        // Not even root writes there.
        let read_only = Path::new("/proc/sys");
        for home in [&blocked, &below_a_file.join("home"), read_only] {
            let mut state = State::open(home);
            keep_one(&mut state, "/a");
            assert!(!knows(&mut state, "/a"), "{}", home.display());
        }
    }

    #[test]
    fn another_version_is_dropped_and_a_lost_file_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        keep_one(&mut State::open(folder.path()), "/a");
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", 99)
            .unwrap();
        assert!(!knows(&mut State::open(folder.path()), "/a"));
        let mut state = State::open(folder.path());
        keep_one(&mut state, "/a");
        fs::remove_file(&path).unwrap();
        let mut again = State::open(folder.path());
        assert!(!knows(&mut again, "/a"));
        keep_one(&mut again, "/a");
        assert!(knows(&mut again, "/a"));
    }

    #[test]
    fn the_rows_unused_for_longest_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut state = State::open(folder.path());
        let signature = signature(100);
        let digests = digests(200);
        for index in 0..40 {
            let path = format!("/{index:02}");
            state.keep(SystemTime::now(), &[(file(&path, &signature), &digests)]);
            let connection = state.connection.as_ref().unwrap();
            let set = "UPDATE hashes SET used = ?2 WHERE path = ?1";
            connection
                .execute(set, params![path.as_bytes(), index])
                .unwrap();
        }
        let fresh = ("/new", &signature);
        let new = (file(fresh.0, fresh.1), digests.as_slice());
        keep(state.connection.as_mut().unwrap(), &[&new], 200_000).unwrap();
        let is_known =
            |state: &mut State, path: &str| state.known(&[file(path, &signature)])[0].is_some();
        assert!(!is_known(&mut state, "/00"));
        assert!(is_known(&mut state, "/39") && is_known(&mut state, "/new"));
        let size = fs::metadata(folder.path().join(FILE)).unwrap().len();
        assert!(size < 500_000, "{size}");
    }
}
