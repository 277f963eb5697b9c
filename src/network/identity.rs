//! Who this process is: a key leased from the home's pool, the port used last with it, and the live record by which
//! other processes of this home find us. It never waits for a lock and never opens a connection.
//! Called by `node/` before the network starts; the lease is held for the life of the process.
//! Layout: `HOME/hosts/<host>/pool/<NN>/{lock,key,port,live}`; per host, because home folders lie on NFS in labs.
//! Source: libp2p peer-id specification (key encoding); flock(2); `PRODUCT.md` "Who uses it".

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use libp2p::{Multiaddr, PeerId, identity};
use serde::{Deserialize, Serialize};

/// Processes of one user on one host that run at the same time. More than anybody starts; bounds the search.
const POOL_MAX: usize = 512;

/// Largest live record read: 4,096 keys in hex and the addresses, with room to spare.
const LIVE_BYTES_MAX: u64 = 1024 * 1024;

/// Largest key or port file read.
const SMALL_FILE_BYTES_MAX: u64 = 4096;

/// Why no identity could be leased from the home.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// A folder or file of the home could not be made, read or written.
    #[error("cannot use `{path}` in the home folder: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Every identity of the pool is in use.
    #[error("all {POOL_MAX} identities under `{path}` are in use")]
    Exhausted {
        /// The pool's folder.
        path: PathBuf,
    },
}

/// The secret key that proves who we are. `Debug` shows the public half only.
#[derive(Clone)]
pub struct Keypair(identity::Keypair);

impl Keypair {
    /// A new Ed25519 key that is stored nowhere.
    #[must_use]
    pub fn generate() -> Self {
        Self(identity::Keypair::generate_ed25519())
    }

    /// The identity others know.
    #[must_use]
    pub fn peer_id(&self) -> PeerId {
        self.0.public().to_peer_id()
    }

    pub(super) fn as_libp2p(&self) -> &identity::Keypair {
        &self.0
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keypair").field(&self.peer_id()).finish()
    }
}

/// An identity that no other process has while this value lives.
#[derive(Debug)]
pub struct Lease {
    /// The key of this identity.
    pub keypair: Keypair,
    /// The port last used with it, if any: listening there again keeps old links valid.
    pub port: Option<u16>,
    /// Where the files are; `None` for a throwaway identity.
    folder: Option<PathBuf>,
    /// Held locked until the process ends, however it ends.
    _lock: Option<File>,
}

impl Lease {
    /// A throwaway identity, for a home that cannot be used: nothing is read, written or remembered.
    #[must_use]
    pub fn ephemeral() -> Self {
        Self {
            keypair: Keypair::generate(),
            port: None,
            folder: None,
            _lock: None,
        }
    }

    /// Remembers the port for the next process that leases this identity. A failure costs only that, and is logged.
    pub fn remember_port(&self, port: u16) {
        self.write("port", port.to_string().as_bytes());
    }

    /// Shows other processes of this home where we are and what we provide; replaces the record before. A failure costs
    /// only that, and is logged.
    pub fn publish(&self, record: LiveRecord) {
        let stored = StoredRecord::from(&record);
        match serde_json::to_vec(&stored) {
            Ok(bytes) => self.write("live", &bytes),
            Err(error) => tracing::warn!(%error, "live record not written"),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let Some(folder) = &self.folder else {
            return;
        };
        if let Err(error) = write_atomically(folder, name, bytes) {
            tracing::warn!(path = %folder.join(name).display(), %error, "not written");
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Still under the lock: nobody else can have written a record of their own here yet.
        if let Some(folder) = &self.folder {
            let _ = fs::remove_file(folder.join("live"));
        }
    }
}

/// Where a running process is and what it provides. A hint: a killed process leaves its record behind until its
/// identity is leased again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveRecord {
    /// Its identity.
    pub peer: PeerId,
    /// Where it listens, without `/p2p/`.
    pub addrs: Vec<Multiaddr>,
    /// Provider keys of its shares.
    pub keys: Vec<[u8; 32]>,
}

/// Leases the first free identity of the home, making it when it does not exist; never waits for a lock.
///
/// # Errors
/// [`HomeError`] when the home cannot be used (read-only, no locks); [`Lease::ephemeral`] is the way out.
pub fn lease(home: &Path) -> Result<Lease, HomeError> {
    let pool = pool_of(home);
    make_private_folder(&pool).map_err(|source| at(&pool, source))?;
    for number in 0..POOL_MAX {
        let folder = pool.join(format!("{number:02}"));
        make_private_folder(&folder).map_err(|source| at(&folder, source))?;
        let path = folder.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|source| at(&path, source))?;
        match lock.try_lock() {
            Ok(()) => return take(folder, lock),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(at(&path, source)),
        }
    }
    Err(HomeError::Exhausted { path: pool })
}

/// The records of other processes of this home on this host. Only reads, takes no lock; unreadable records and the one
/// of `except` are skipped. Never fails: a hint that is missing is only missing.
#[must_use]
pub fn live_neighbours(home: &Path, except: &PeerId) -> Vec<LiveRecord> {
    let Ok(entries) = fs::read_dir(pool_of(home)) else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .take(POOL_MAX)
        .collect();
    folders.sort();
    folders
        .iter()
        .filter_map(|folder| read_bounded(&folder.join("live"), LIVE_BYTES_MAX).ok())
        .filter_map(|bytes| serde_json::from_slice::<StoredRecord>(&bytes).ok())
        .filter_map(StoredRecord::into_record)
        .filter(|record| record.peer != *except)
        .collect()
}

/// Reads what the identity in `folder` has, now that its lock is ours.
fn take(folder: PathBuf, lock: File) -> Result<Lease, HomeError> {
    // A killed process left its record; while we hold the lock nobody is alive behind it.
    let _ = fs::remove_file(folder.join("live"));
    let keypair = load_or_make_key(&folder)?;
    let port = read_bounded(&folder.join("port"), SMALL_FILE_BYTES_MAX)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .and_then(|text| text.trim().parse().ok())
        .filter(|port| *port != 0);
    Ok(Lease {
        keypair,
        port,
        folder: Some(folder),
        _lock: Some(lock),
    })
}

fn load_or_make_key(folder: &Path) -> Result<Keypair, HomeError> {
    let path = folder.join("key");
    match read_bounded(&path, SMALL_FILE_BYTES_MAX) {
        Ok(bytes) => match identity::Keypair::from_protobuf_encoding(&bytes) {
            Ok(key) => {
                keep_private(&path).map_err(|source| at(&path, source))?;
                return Ok(Keypair(key));
            }
            // Torn or foreign: an identity is replaceable, a process that refuses to start is not.
            Err(error) => tracing::warn!(path = %path.display(), %error, "identity key replaced"),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(at(&path, source)),
    }
    let keypair = Keypair::generate();
    let bytes = keypair
        .0
        .to_protobuf_encoding()
        .map_err(|error| at(&path, io::Error::other(error)))?;
    // Durable, unlike the other files: links name this identity.
    write_atomically(folder, "key", &bytes)
        .and_then(|()| OpenOptions::new().write(true).open(&path)?.sync_all())
        .map_err(|source| at(&path, source))?;
    Ok(keypair)
}

/// The part of `home` that belongs to this host; not made by this call.
#[must_use]
pub fn host_folder(home: &Path) -> PathBuf {
    home.join("hosts").join(host_name())
}

fn pool_of(home: &Path) -> PathBuf {
    host_folder(home).join("pool")
}

/// The host's name as one safe path element, at most 64 characters.
fn host_name() -> String {
    #[cfg(unix)]
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").unwrap_or_default();
    as_path_element(&name)
}

fn as_path_element(name: &str) -> String {
    let safe: String = name
        .chars()
        .take(64)
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    if safe.trim_matches('.').is_empty() {
        "localhost".to_owned()
    } else {
        safe
    }
}

fn make_private_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn keep_private(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        }
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Readers see the old content or the new, never a part. The caller holds the lock, so the temporary name is ours.
fn write_atomically(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = folder.join(format!("{name}.new"));
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    keep_private(&temporary)?;
    file.write_all(bytes)?;
    drop(file);
    fs::rename(&temporary, folder.join(name))
}

fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn at(path: &Path, source: io::Error) -> HomeError {
    HomeError::Io {
        path: path.to_owned(),
        source,
    }
}

/// [`LiveRecord`] as it lies on disk: text only, so that a person can read it.
#[derive(Serialize, Deserialize)]
struct StoredRecord {
    peer: String,
    addrs: Vec<String>,
    keys: Vec<String>,
}

impl From<&LiveRecord> for StoredRecord {
    fn from(record: &LiveRecord) -> Self {
        Self {
            peer: record.peer.to_string(),
            addrs: record.addrs.iter().map(Multiaddr::to_string).collect(),
            keys: record.keys.iter().map(to_hex).collect(),
        }
    }
}

impl StoredRecord {
    fn into_record(self) -> Option<LiveRecord> {
        Some(LiveRecord {
            peer: self.peer.parse().ok()?,
            addrs: self
                .addrs
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect(),
            keys: self.keys.iter().filter_map(|text| from_hex(text)).collect(),
        })
    }
}

fn to_hex(key: &[u8; 32]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(peer: PeerId) -> LiveRecord {
        LiveRecord {
            peer,
            addrs: vec!["/ip4/127.0.0.1/tcp/4001".parse().unwrap()],
            keys: vec![[7; 32], [0xfe; 32]],
        }
    }

    #[test]
    fn two_leases_of_one_home_have_different_keys_and_a_freed_one_is_taken_again() {
        let home = tempfile::tempdir().unwrap();
        let first = lease(home.path()).unwrap();
        let second = lease(home.path()).unwrap();
        let first_peer = first.keypair.peer_id();
        assert_ne!(first_peer, second.keypair.peer_id());
        first.remember_port(4711);
        drop(first);
        let third = lease(home.path()).unwrap();
        assert_eq!(third.keypair.peer_id(), first_peer);
        assert_eq!(third.port, Some(4711));
        assert_eq!(second.port, None);
    }

    #[test]
    fn a_broken_key_or_port_file_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let peer = lease(home.path()).unwrap().keypair.peer_id();
        let folder = pool_of(home.path()).join("00");
        fs::write(folder.join("key"), b"torn").unwrap();
        fs::write(folder.join("port"), b"-1").unwrap();
        let replaced = lease(home.path()).unwrap();
        assert_ne!(replaced.keypair.peer_id(), peer);
        assert_eq!(replaced.port, None);
    }

    #[cfg(unix)]
    #[test]
    fn the_key_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let folder = pool_of(home.path()).join("00");
        drop(lease(home.path()).unwrap());
        assert_eq!(mode(&folder.join("key")), 0o600);
        assert_eq!(mode(&folder), 0o700);
        fs::set_permissions(folder.join("key"), fs::Permissions::from_mode(0o644)).unwrap();
        drop(lease(home.path()).unwrap());
        assert_eq!(mode(&folder.join("key")), 0o600);
    }

    #[test]
    fn neighbours_see_a_live_record_until_its_lease_ends() {
        let home = tempfile::tempdir().unwrap();
        let me = lease(home.path()).unwrap();
        let other = lease(home.path()).unwrap();
        let published = record(other.keypair.peer_id());
        other.publish(published.clone());
        me.publish(record(me.keypair.peer_id()));
        let seen = live_neighbours(home.path(), &me.keypair.peer_id());
        assert_eq!(seen, [published]);
        drop(other);
        assert!(live_neighbours(home.path(), &me.keypair.peer_id()).is_empty());
    }

    #[test]
    fn the_record_of_a_killed_process_goes_when_its_identity_is_leased_again() {
        let home = tempfile::tempdir().unwrap();
        let killed = lease(home.path()).unwrap();
        let stale =
            serde_json::to_vec(&StoredRecord::from(&record(killed.keypair.peer_id()))).unwrap();
        drop(killed);
        fs::write(pool_of(home.path()).join("00").join("live"), stale).unwrap();
        assert_eq!(live_neighbours(home.path(), &PeerId::random()).len(), 1);
        let _next = lease(home.path()).unwrap();
        assert!(live_neighbours(home.path(), &PeerId::random()).is_empty());
    }

    #[test]
    fn a_garbage_record_is_skipped() {
        let home = tempfile::tempdir().unwrap();
        let _lease = lease(home.path()).unwrap();
        let live = pool_of(home.path()).join("00").join("live");
        for garbage in ["", "{", r#"{"peer":"x","addrs":[],"keys":[]}"#, "[1,2]"] {
            fs::write(&live, garbage).unwrap();
            assert!(
                live_neighbours(home.path(), &PeerId::random()).is_empty(),
                "{garbage}"
            );
        }
    }

    #[test]
    fn a_host_name_is_always_one_safe_path_element() {
        let check = |name: &str, expected: &str| assert_eq!(as_path_element(name), expected);
        check("node-7.lab", "node-7.lab");
        check("../../etc", ".._.._etc");
        check("..", "localhost");
        check("", "localhost");
        assert_eq!(as_path_element(&"x".repeat(300)).len(), 64);
    }

    #[test]
    fn hex_keys_survive_a_round_trip_and_others_do_not_parse() {
        let key: [u8; 32] = std::array::from_fn(|i| u8::try_from(i * 8).unwrap());
        assert_eq!(from_hex(&to_hex(&key)), Some(key));
        assert_eq!(from_hex("00"), None);
        assert_eq!(from_hex(&"zz".repeat(32)), None);
    }
}
