//! Stop rules: how long, how much, or until how many copies a share is served.
//!
//! The first rule met ends it; without rules only a signal does. Looks at snapshots, asks nobody. Shared by `seed` and
//! `fetch --seed`.

use std::time::Duration;

use tokio::sync::watch;

use crate::cli::args::RuleFlags;
use crate::cli::output::StopReason;
use crate::node::ShareStatus;

/// Waits until a rule of `rules` is met, counting time from the call.
///
/// # Cancel safety
/// A cancelled call forgets how long it waited, nothing else.
pub(super) async fn met(rules: &RuleFlags, mut status: watch::Receiver<ShareStatus>) -> StopReason {
    let time = async {
        match rules.time {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    let counted = async {
        loop {
            if let Some(reason) = met_now(rules, &status.borrow_and_update()) {
                return reason;
            }
            if status.changed().await.is_err() {
                // The share is gone; what ends it is not a rule.
                return std::future::pending().await;
            }
        }
    };
    tokio::select! {
        reason = counted => reason,
        () = time => StopReason::Time,
    }
}

/// The rule about counts that is met, if any.
fn met_now(rules: &RuleFlags, status: &ShareStatus) -> Option<StopReason> {
    let total = status.total.unwrap_or(0);
    // Of nothing, any ratio would be met before anybody came.
    let is_ratio_met = |ratio: f64| total > 0 && status.uploaded as f64 >= ratio * total as f64;
    if rules.ratio.is_some_and(is_ratio_met) {
        return Some(StopReason::Ratio);
    }
    let are_copies_met = |copies: u32| status.completed_peers >= copies;
    rules
        .until_copies
        .is_some_and(are_copies_met)
        .then_some(StopReason::Copies)
}

/// Waits until nobody has pulled for `quiet`.
///
/// # Cancel safety
/// A cancelled call forgets how long it was quiet, nothing else.
pub(super) async fn nobody_pulls(mut status: watch::Receiver<ShareStatus>, quiet: Duration) {
    loop {
        if status.wait_for(|status| !status.pulled).await.is_err() {
            return;
        }
        match tokio::time::timeout(quiet, status.wait_for(|status| status.pulled)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::status;

    /// Long enough that only what should end a wait ends it.
    const LONG: Duration = Duration::from_secs(3600);

    fn rules(time: Option<Duration>, ratio: Option<f64>, until_copies: Option<u32>) -> RuleFlags {
        RuleFlags {
            time,
            ratio,
            until_copies,
        }
    }

    #[tokio::test]
    async fn the_ratio_is_met_when_so_many_times_the_share_was_sent() {
        let (sender, receiver) = watch::channel(status());
        let rules = rules(None, Some(1.5), None);
        assert_eq!(met_now(&rules, &receiver.borrow()), None);
        sender.send_modify(|status| status.uploaded = 1_499);
        assert_eq!(met_now(&rules, &receiver.borrow()), None);
        sender.send_modify(|status| status.uploaded = 1_500);
        assert_eq!(met(&rules, receiver).await, StopReason::Ratio);
    }

    #[tokio::test]
    async fn copies_count_peers_that_said_they_are_complete() {
        let (sender, receiver) = watch::channel(status());
        let rules = rules(Some(LONG), Some(100.0), Some(2));
        let waiting = tokio::spawn(async move { met(&rules, receiver).await });
        for completed in 1..=2 {
            sender.send_modify(|status| status.completed_peers = completed);
        }
        assert_eq!(waiting.await.expect("no panic"), StopReason::Copies);
    }

    #[tokio::test]
    async fn time_counts_whatever_was_sent() {
        let (_sender, receiver) = watch::channel(status());
        let rules = rules(Some(Duration::from_millis(1)), Some(100.0), None);
        assert_eq!(met(&rules, receiver).await, StopReason::Time);
    }

    #[test]
    fn an_empty_share_meets_no_ratio() {
        let empty = ShareStatus {
            total: Some(0),
            uploaded: 0,
            ..status()
        };
        assert_eq!(met_now(&rules(None, Some(1.0), None), &empty), None);
    }

    #[tokio::test]
    async fn a_share_that_is_pulled_again_in_time_is_not_quiet() {
        let (sender, receiver) = watch::channel(ShareStatus {
            pulled: true,
            ..status()
        });
        let waiting = tokio::spawn(nobody_pulls(receiver.clone(), LONG));
        for pulled in [false, true, false, true] {
            sender.send_modify(|status| status.pulled = pulled);
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        waiting.abort();
        sender.send_modify(|status| status.pulled = false);
        nobody_pulls(receiver, Duration::from_millis(1)).await;
    }
}
