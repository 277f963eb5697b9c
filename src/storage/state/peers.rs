//! Peers that were reached in earlier runs, with the addresses that led to them.
//!
//! Rows have a key: the provider key of a share whose peer it was, or [`KnownPeers::ANY`] for every node that was reached.
//! Bounded by number and age. An address is a hint like any other: a handshake proves who is there. Called by `node`.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{State, seconds_now};
use crate::content::{Multiaddr, PeerId};

/// Peers remembered under one key: as many as a fetch dials at first. More only makes more dead dials.
const PEERS_PER_KEY_MAX: usize = 16;
/// Addresses of each; those reached last.
const ADDRESSES_MAX: usize = 4;
/// Rows in all, some 200 bytes each; the ones unused for longest make room.
const ROWS_MAX: usize = 4_096;
/// A peer not reached for so long is forgotten.
const AGE_MAX_SECS: i64 = 30 * 24 * 60 * 60;

/// A peer and where it was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPeer {
    /// Who.
    pub peer: PeerId,
    /// Where, without `/p2p/`, last reached first.
    pub addresses: Vec<Multiaddr>,
}

/// The remembered peers of this host. Never fails: what cannot be read is not known, what cannot be kept is lost.
#[derive(Debug)]
pub struct KnownPeers(State);

impl KnownPeers {
    /// The key of nodes whatever their shares.
    pub const ANY: [u8; 32] = [0; 32];

    /// Opens the state in `folder`; blocks for at most a quarter of a second when another process holds it.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        Self(State::open(folder))
    }

    /// The peers under `key`, reached last first.
    pub fn recall(&mut self, key: &[u8; 32]) -> Vec<KnownPeer> {
        let Some(connection) = &self.0.connection else {
            return Vec::new();
        };
        recall(connection, key).unwrap_or_else(|error| {
            self.0.give_up(&error);
            Vec::new()
        })
    }

    /// Remembers peers that were reached now; their addresses go before those known already.
    pub fn remember(&mut self, reached: &[([u8; 32], KnownPeer)]) {
        let Some(connection) = self.0.connection.as_mut().filter(|_| !reached.is_empty()) else {
            return;
        };
        if let Err(error) = remember(connection, reached, seconds_now()) {
            self.0.give_up(&error);
        }
    }
}

fn recall(connection: &Connection, key: &[u8; 32]) -> rusqlite::Result<Vec<KnownPeer>> {
    let mut select = connection.prepare(
        "SELECT peer, addresses FROM peers WHERE key = ?1 AND used >= ?2 ORDER BY used DESC LIMIT ?3",
    )?;
    let oldest = seconds_now() - AGE_MAX_SECS;
    let rows = select.query_map(params![key, oldest, PEERS_PER_KEY_MAX as i64], |row| {
        Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, String>(1)?))
    })?;
    let mut found = Vec::new();
    for row in rows {
        let (peer, addresses) = row?;
        // A row that means nothing is as good as none.
        if let Ok(peer) = PeerId::from_bytes(&peer) {
            let addresses = parse(&addresses);
            found.push(KnownPeer { peer, addresses });
        }
    }
    Ok(found)
}

fn parse(addresses: &str) -> Vec<Multiaddr> {
    let parsed = addresses.lines().filter_map(|line| line.parse().ok());
    parsed.take(ADDRESSES_MAX).collect()
}

fn remember(
    connection: &mut Connection,
    reached: &[([u8; 32], KnownPeer)],
    now: i64,
) -> rusqlite::Result<()> {
    let writing = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (key, known) in reached {
        let peer = known.peer.to_bytes();
        let before: Option<String> = writing
            .query_row(
                "SELECT addresses FROM peers WHERE key = ?1 AND peer = ?2",
                params![key, peer],
                |row| row.get(0),
            )
            .optional()?;
        let mut addresses: Vec<Multiaddr> = Vec::new();
        for address in (known.addresses.iter().cloned()).chain(parse(&before.unwrap_or_default())) {
            if addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let lines: Vec<String> = addresses.iter().map(Multiaddr::to_string).collect();
        writing.execute(
            "INSERT OR REPLACE INTO peers VALUES (?1, ?2, ?3, ?4)",
            params![key, peer, lines.join("\n"), now],
        )?;
        writing.execute(
            "DELETE FROM peers WHERE key = ?1 AND peer NOT IN (
                 SELECT peer FROM peers WHERE key = ?1 ORDER BY used DESC LIMIT ?2)",
            params![key, PEERS_PER_KEY_MAX as i64],
        )?;
    }
    prune(&writing, now)?;
    writing.commit()
}

fn prune(writing: &Transaction<'_>, now: i64) -> rusqlite::Result<()> {
    writing.execute(
        "DELETE FROM peers WHERE used < ?1",
        params![now - AGE_MAX_SECS],
    )?;
    writing.execute(
        "DELETE FROM peers WHERE (key, peer) IN (
             SELECT key, peer FROM peers ORDER BY used DESC LIMIT -1 OFFSET ?1)",
        params![ROWS_MAX as i64],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::storage::state::FILE;

    const KEY: [u8; 32] = [7; 32];

    fn known(peer: PeerId, addresses: &[&str]) -> KnownPeer {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        KnownPeer { peer, addresses }
    }

    fn somebody(port: u16) -> KnownPeer {
        known(PeerId::random(), &[&format!("/ip4/10.0.0.1/tcp/{port}")])
    }

    #[test]
    fn a_peer_is_known_again_in_another_run_under_its_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (somebody(1), somebody(2));
        let reached = [(KEY, one.clone()), (KnownPeers::ANY, other.clone())];
        KnownPeers::open(folder.path()).remember(&reached);
        let mut again = KnownPeers::open(folder.path());
        assert_eq!(again.recall(&KEY), [one]);
        assert_eq!(again.recall(&KnownPeers::ANY), [other]);
        assert_eq!(again.recall(&[8; 32]), []);
    }

    #[test]
    fn the_address_reached_last_comes_first_and_four_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let peer = PeerId::random();
        let mut peers = KnownPeers::open(folder.path());
        for port in 1..=6 {
            peers.remember(&[(KEY, known(peer, &[&format!("/ip4/10.0.0.1/tcp/{port}")]))]);
        }
        let again = known(peer, &["/ip4/10.0.0.1/tcp/4"]);
        peers.remember(&[(KEY, again)]);
        let ports = ["4", "6", "5", "3"].map(|port| format!("/ip4/10.0.0.1/tcp/{port}"));
        let expected = known(peer, &ports.each_ref().map(String::as_str));
        assert_eq!(peers.recall(&KEY), [expected]);
    }

    #[test]
    fn peers_are_bounded_by_number_under_each_key_and_in_all_and_by_age() {
        let folder = tempfile::tempdir().unwrap();
        let mut peers = KnownPeers::open(folder.path());
        let connection = |peers: &mut KnownPeers| peers.0.connection.take().unwrap();
        let mut database = connection(&mut peers);
        let now = seconds_now();
        for port in 0..40_u16 {
            let at = now - 40 + i64::from(port);
            remember(&mut database, &[(KEY, somebody(port + 1))], at).unwrap();
        }
        let found = recall(&database, &KEY).unwrap();
        assert_eq!(found.len(), PEERS_PER_KEY_MAX);
        assert_eq!(found[0].addresses[0].to_string(), "/ip4/10.0.0.1/tcp/40");
        // One key each, so that only the bound of all holds.
        let many: Vec<_> = (0..ROWS_MAX as u32 + 100)
            .map(|number| {
                let mut key = [1; 32];
                key[..4].copy_from_slice(&number.to_le_bytes());
                (key, somebody(1))
            })
            .collect();
        remember(&mut database, &many, now).unwrap();
        let rows = |database: &Connection| {
            database
                .query_row("SELECT count(*) FROM peers", [], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        assert_eq!(rows(&database), ROWS_MAX as i64);
        assert_eq!(recall(&database, &KEY).unwrap(), [], "the oldest made room");
        let later = now + AGE_MAX_SECS + 1;
        remember(&mut database, &[(KEY, somebody(1))], later).unwrap();
        assert_eq!(rows(&database), 1, "the others are too old");
    }

    #[test]
    fn a_lost_locked_damaged_or_unwritable_state_costs_the_peers_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let one = somebody(1);
        KnownPeers::open(folder.path()).remember(&[(KEY, one.clone())]);
        let path = folder.path().join(FILE);

        let holder = Connection::open(&path).unwrap();
        holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let began = Instant::now();
        let mut locked = KnownPeers::open(folder.path());
        assert_eq!(locked.recall(&KEY), []);
        locked.remember(&[(KEY, somebody(2))]);
        assert!(began.elapsed() < Duration::from_secs(5));
        holder.execute_batch("COMMIT").unwrap();
        assert_eq!(KnownPeers::open(folder.path()).recall(&KEY), [one]);

        for damage in [&b"no database at all"[..], b""] {
            fs::write(&path, damage).unwrap();
            let mut damaged = KnownPeers::open(folder.path());
            assert_eq!(damaged.recall(&KEY), []);
            damaged.remember(&[(KEY, somebody(3))]);
            assert_eq!(KnownPeers::open(folder.path()).recall(&KEY).len(), 1);
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(KnownPeers::open(folder.path()).recall(&KEY), []);
        // Not even root writes there.
        let mut unwritable = KnownPeers::open(Path::new("/proc/sys"));
        unwritable.remember(&[(KEY, somebody(4))]);
        assert_eq!(unwritable.recall(&KEY), []);
    }
}
