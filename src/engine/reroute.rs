//! What became of the pieces that lost their peer: one account for each fault, reported once.
//!
//! Keeps no piece state; it only counts. Called by `transfer`.

use std::collections::BTreeSet;

use super::{Cause, Event, PeerKey, Time, tuning};
use crate::content::PieceIndex;

#[derive(Debug)]
struct Account {
    peer: PeerKey,
    cause: Cause,
    began: Time,
    last: Time,
    open: BTreeSet<PieceIndex>,
    moved: u32,
    to: BTreeSet<PeerKey>,
}

/// The open accounts of a share.
#[derive(Debug, Default)]
pub(super) struct Reroutes {
    accounts: Vec<Account>,
}

impl Reroutes {
    /// `peer` failed while these pieces were asked of it.
    pub(super) fn begin(
        &mut self,
        now: Time,
        peer: PeerKey,
        cause: Cause,
        pieces: BTreeSet<PieceIndex>,
    ) {
        if pieces.is_empty() {
            return;
        }
        let same = |account: &&mut Account| {
            (account.peer, account.cause, account.began) == (peer, cause, now)
        };
        if let Some(account) = self.accounts.iter_mut().find(same) {
            account.open.extend(pieces);
            return;
        }
        let to = BTreeSet::new();
        self.accounts.push(Account {
            peer,
            cause,
            began: now,
            last: now,
            open: pieces,
            moved: 0,
            to,
        });
    }

    /// `piece` was asked of `peer`.
    pub(super) fn asked(&mut self, now: Time, piece: PieceIndex, peer: PeerKey) {
        for account in &mut self.accounts {
            if account.peer != peer && account.open.remove(&piece) {
                account.moved += 1;
                account.last = now;
                account.to.insert(peer);
            }
        }
    }

    /// `piece` arrived after all; nothing is left to move.
    pub(super) fn settled(&mut self, piece: PieceIndex) {
        for account in &mut self.accounts {
            account.open.remove(&piece);
        }
    }

    /// Closes accounts that are done or overdue and reports those that moved something.
    pub(super) fn report(&mut self, now: Time) -> Vec<Event> {
        let mut events = Vec::new();
        self.accounts.retain(|account| {
            let ends = account.open.is_empty() || now >= account.began + tuning::REROUTE_REPORT_MAX;
            if ends && account.moved > 0 {
                events.push(Event::Reroute {
                    peer: account.peer,
                    pieces: account.moved,
                    to: account.to.iter().copied().collect(),
                    after: account.last.duration_since(account.began),
                    cause: account.cause,
                });
            }
            !ends
        });
        events
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.accounts
            .iter()
            .map(|account| account.began + tuning::REROUTE_REPORT_MAX)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DEAD: PeerKey = PeerKey(1);

    fn at(millis: u64) -> Time {
        Time::from_start(Duration::from_millis(millis))
    }

    fn pieces(range: std::ops::Range<u32>) -> BTreeSet<PieceIndex> {
        range.map(PieceIndex::new).collect()
    }

    #[test]
    fn an_account_is_reported_once_when_its_last_piece_is_asked() {
        let mut reroutes = Reroutes::default();
        reroutes.begin(at(100), DEAD, Cause::Closed, pieces(0..3));
        reroutes.asked(at(110), PieceIndex::new(0), PeerKey(2));
        reroutes.asked(at(120), PieceIndex::new(1), PeerKey(3));
        assert_eq!(reroutes.report(at(120)), []);
        reroutes.asked(at(140), PieceIndex::new(2), PeerKey(2));
        let to = vec![PeerKey(2), PeerKey(3)];
        let after = Duration::from_millis(40);
        let expected = Event::Reroute {
            peer: DEAD,
            pieces: 3,
            to,
            after,
            cause: Cause::Closed,
        };
        assert_eq!(reroutes.report(at(150)), [expected]);
        assert_eq!(reroutes.report(at(160)), []);
    }

    #[test]
    fn pieces_that_nobody_holds_do_not_keep_an_account_open_for_ever() {
        let mut reroutes = Reroutes::default();
        reroutes.begin(at(0), DEAD, Cause::Silent, pieces(0..2));
        reroutes.asked(at(5), PieceIndex::new(0), PeerKey(2));
        let end = reroutes.deadline().expect("open");
        assert!(matches!(
            reroutes.report(end)[..],
            [Event::Reroute { pieces: 1, .. }]
        ));
        assert_eq!(reroutes.deadline(), None);
    }

    #[test]
    fn a_late_arrival_is_not_a_reroute() {
        let mut reroutes = Reroutes::default();
        reroutes.begin(at(0), DEAD, Cause::Silent, pieces(0..1));
        reroutes.settled(PieceIndex::new(0));
        assert_eq!(reroutes.report(at(1)), []);
        assert_eq!(reroutes.deadline(), None);
    }
}
