//! What is in shares that this host has made or fetched, so that `verify` and `ls` of their links need no peer.
//!
//! Bounded by size, for one share and in all. A row proves itself: the id is the hash of the manifest, and the manifest has
//! the roots that the hashes must lead to. Called by `cli` and `node`.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{State, TOUCH_SECS, seconds_now};
use crate::content::{Digest, Manifest, Name, PieceHashes, ShareId};

/// Bytes kept of one share: some 60,000 files, or 1 TB in large ones. What needs more has to be asked of a peer.
const SHARE_MAX: usize = 8 * 1024 * 1024;
/// Bytes of all shares, half of what the state may take; the ones unused for longest make room.
const ALL_MAX: i64 = 32 * 1024 * 1024;

/// The shares this host knows. Never fails: what cannot be read is not known, what cannot be kept is lost.
#[derive(Debug)]
pub struct KnownShares(State);

impl KnownShares {
    /// Opens the state in `folder`; blocks for at most a quarter of a second when another process holds it.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        Self(State::open(folder))
    }

    /// Manifest and hashes of a share.
    pub fn find(&mut self, id: &ShareId) -> Option<(Manifest, PieceHashes)> {
        let found = find(self.0.connection.as_ref()?, id);
        let (manifest, digests) = found.unwrap_or_else(|error| {
            self.0.give_up(&error);
            None
        })?;
        let manifest = Manifest::decode(&manifest).ok()?;
        if manifest.id() != *id {
            return None;
        }
        let (digests, _) = digests.as_chunks::<32>();
        let digests = digests.iter().map(|bytes| Digest::from_bytes(*bytes));
        let hashes = PieceHashes::from_digests(&manifest, digests.collect()).ok()?;
        Some((manifest, hashes))
    }

    /// Those whose name is as `wanted` says; the last used first.
    pub(in crate::storage) fn named(
        &mut self,
        wanted: impl Fn(&Name) -> bool,
    ) -> Vec<(Manifest, PieceHashes)> {
        let Some(connection) = &self.0.connection else {
            return Vec::new();
        };
        let heads = heads(connection).unwrap_or_else(|error| {
            self.0.give_up(&error);
            Vec::new()
        });
        let is_wanted =
            |head: &[u8]| Manifest::name_at_head(head).is_some_and(|name| wanted(&name));
        let ids = heads.iter().filter(|(_, head)| is_wanted(head));
        let ids: Vec<_> = ids
            .map(|(id, _)| ShareId::from_digest(Digest::from_bytes(*id)))
            .collect();
        ids.iter().filter_map(|id| self.find(id)).collect()
    }

    /// Keeps them, unless they are too large.
    pub fn keep(&mut self, manifest: &Manifest, hashes: &PieceHashes) {
        let Some(connection) = &mut self.0.connection else {
            return;
        };
        if let Err(error) = keep(connection, manifest, hashes, seconds_now()) {
            self.0.give_up(&error);
        }
    }
}

fn find(connection: &Connection, id: &ShareId) -> rusqlite::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let query = "SELECT manifest, digests FROM shares WHERE id = ?1";
    let row = connection.query_row(query, params![id.digest().as_bytes()], |row| {
        Ok((row.get(0)?, row.get(1)?))
    });
    row.optional()
}

/// Ids and the first bytes of manifests.
fn heads(connection: &Connection) -> rusqlite::Result<Vec<([u8; 32], Vec<u8>)>> {
    let query = "SELECT id, substr(manifest, 1, ?1) FROM shares ORDER BY used DESC, id";
    let mut query = connection.prepare(query)?;
    let rows = query.query_map(params![Manifest::HEAD_LEN_MAX as i64], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    rows.collect()
}

fn keep(
    connection: &mut Connection,
    manifest: &Manifest,
    hashes: &PieceHashes,
    now: i64,
) -> rusqlite::Result<()> {
    let id = manifest.id();
    let query = "SELECT used FROM shares WHERE id = ?1";
    let used: Option<i64> = connection
        .query_row(query, params![id.digest().as_bytes()], |row| row.get(0))
        .optional()?;
    if used.is_some_and(|used| used + TOUCH_SECS >= now) {
        return Ok(());
    }
    let bytes = manifest.encode();
    if bytes.len() + hashes.as_slice().len() * 32 > SHARE_MAX {
        return Ok(());
    }
    let digests: Vec<u8> = hashes
        .as_slice()
        .iter()
        .flat_map(|digest| *digest.as_bytes())
        .collect();
    let writing = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    writing.execute(
        "INSERT OR REPLACE INTO shares VALUES (?1, ?2, ?3, ?4)",
        params![id.digest().as_bytes(), bytes, digests, now],
    )?;
    writing.execute(
        "DELETE FROM shares WHERE id IN (SELECT id FROM
             (SELECT id, sum(length(manifest) + length(digests)) OVER (ORDER BY used DESC, id) AS up_to FROM shares)
             WHERE up_to > ?1)",
        params![ALL_MAX],
    )?;
    writing.commit()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::storage::{ImportOptions, Imported, import};

    fn share(folder: &Path, text: &str) -> Imported {
        let path = folder.join("file");
        fs::write(&path, text).unwrap();
        let never = AtomicBool::new(false);
        import(&[path], &ImportOptions::default(), &|_| {}, &never).unwrap()
    }

    #[test]
    fn shares_are_found_by_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let (one, two) = (share(folder.path(), "one"), share(folder.path(), "two"));
        let mut known = KnownShares::open(&state);
        for share in [&one, &two] {
            known.keep(&share.manifest, &share.hashes);
        }
        let mut ids: Vec<_> = known
            .named(|name| name.as_str() == "file")
            .into_iter()
            .map(|(manifest, _)| manifest.id())
            .collect();
        ids.sort_unstable();
        let mut expected = [one.manifest.id(), two.manifest.id()];
        expected.sort_unstable();
        assert_eq!(ids, expected);
        assert!(known.named(|name| name.as_str() == "other").is_empty());
    }

    #[test]
    fn a_share_is_known_again_in_another_run_and_no_other_is() {
        let folder = tempfile::tempdir().unwrap();
        let (kept, other) = (share(folder.path(), "kept"), share(folder.path(), "other"));
        KnownShares::open(folder.path()).keep(&kept.manifest, &kept.hashes);
        let mut again = KnownShares::open(folder.path());
        let (manifest, hashes) = again.find(&kept.manifest.id()).unwrap();
        assert_eq!(manifest, kept.manifest);
        assert_eq!(hashes.as_slice(), kept.hashes.as_slice());
        assert!(again.find(&other.manifest.id()).is_none());
    }

    #[test]
    fn a_damaged_row_is_not_known() {
        let folder = tempfile::tempdir().unwrap();
        let kept = share(folder.path(), "kept");
        let mut shares = KnownShares::open(folder.path());
        for damage in [
            "UPDATE shares SET digests = zeroblob(length(digests))",
            "UPDATE shares SET manifest = CAST(x'00' || manifest AS BLOB)",
            "UPDATE shares SET manifest = x''",
        ] {
            let change = |shares: &KnownShares, sql| {
                shares
                    .0
                    .connection
                    .as_ref()
                    .unwrap()
                    .execute(sql, [])
                    .unwrap()
            };
            change(&shares, "DELETE FROM shares");
            shares.keep(&kept.manifest, &kept.hashes);
            assert!(shares.find(&kept.manifest.id()).is_some());
            assert_eq!(change(&shares, damage), 1);
            assert!(shares.find(&kept.manifest.id()).is_none(), "{damage}");
        }
    }

    #[test]
    fn the_shares_unused_for_longest_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut shares = KnownShares::open(folder.path());
        let database = shares.0.connection.as_mut().unwrap();
        let filler = "INSERT INTO shares VALUES (?1, zeroblob(7000000), x'', ?2)";
        for used in 0..5_u8 {
            database
                .execute(filler, params![[used; 32], i64::from(used)])
                .unwrap();
        }
        let kept = share(folder.path(), "kept");
        keep(database, &kept.manifest, &kept.hashes, 100_000_000).unwrap();
        let left = "SELECT group_concat(used) FROM (SELECT used FROM shares ORDER BY used)";
        let left: String = database.query_row(left, [], |row| row.get(0)).unwrap();
        assert_eq!(left, "1,2,3,4,100000000");
    }
}
