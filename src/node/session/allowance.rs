//! How much work a peer may cause with its messages: each piece that one names is a step of the share's actor, and a few
//! bytes can name all pieces there are, again and again.
//!
//! Beyond its allowance a peer waits to be read. Who speaks by the protocol names each piece a few times in all and never
//! comes near it. Used by `control`.

use std::time::Duration;

use tokio::time::Instant;

use crate::wire::ShareMessage;

/// Steps that each second allows: pieces of 64 KiB, each told of when it comes, at 1.2 GB/s. An actor does some million.
const STEPS_PER_SEC: u32 = 20_000;

/// Steps that may be taken at once by a peer that was quiet, beside those for the pieces of its shares.
const BURST: u64 = 65_536;

/// Steps for each piece of a share: told of in a message of its own, and asked for in another.
const TIMES: u64 = 4;

/// Steps of a token, which is compared with those of all shares.
pub(super) const OPEN_STEPS: u64 = 64;

/// The allowance of one session.
#[derive(Debug)]
pub(super) struct Allowance {
    burst: u64,
    /// Steps taken that time has not paid for yet, as of `at`.
    owed: u64,
    at: Instant,
}

impl Allowance {
    pub(super) fn new() -> Self {
        Self {
            burst: BURST,
            owed: 0,
            at: Instant::now(),
        }
    }

    /// One more share is spoken of, which has so many pieces.
    pub(super) fn share(&mut self, piece_count: u32) {
        self.burst += TIMES * u64::from(piece_count);
    }

    /// Takes `steps`, and waits until they are allowed.
    pub(super) async fn take(&mut self, steps: u64) {
        let now = Instant::now();
        let paid = now.duration_since(self.at).as_micros() * u128::from(STEPS_PER_SEC) / 1_000_000;
        if paid > 0 {
            self.owed = self.owed.saturating_sub(paid as u64);
            self.at = now;
        }
        self.owed = self.owed.saturating_add(steps);
        let beyond = self.owed.saturating_sub(self.burst);
        if beyond > 0 {
            let seconds = beyond as f64 / f64::from(STEPS_PER_SEC);
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        }
    }
}

/// Pieces that a message names, each as often as it does.
pub(super) fn pieces_of(message: &ShareMessage) -> u64 {
    match message {
        ShareMessage::Have { runs }
        | ShareMessage::DontHave { runs }
        | ShareMessage::Request { runs }
        | ShareMessage::Cancel { runs } => runs.iter().map(|run| u64::from(run.count)).sum(),
        ShareMessage::Bitfield { bytes, .. } => bytes.len() as u64 * 8,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Run;

    const PIECES: u32 = 1 << 20;

    fn have(first: u32, count: u32) -> ShareMessage {
        let runs = vec![Run { first, count }];
        ShareMessage::Have { runs }
    }

    /// How long it takes until all of them are read.
    async fn time_of(messages: impl IntoIterator<Item = ShareMessage>) -> Duration {
        let (began, mut allowance) = (Instant::now(), Allowance::new());
        allowance.share(PIECES);
        for message in messages {
            allowance.take(1 + pieces_of(&message)).await;
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn who_tells_of_each_piece_once_never_waits() {
        let one_by_one = (0..PIECES).map(|piece| have(piece, 1));
        assert_eq!(time_of(one_by_one).await, Duration::ZERO);
        assert_eq!(time_of([have(0, PIECES)]).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_tells_of_all_pieces_again_and_again_is_read_as_slowly_as_if_it_told_of_each() {
        let again = |times| (0..times).map(|_| have(0, PIECES));
        let each = Duration::from_secs(u64::from(PIECES / STEPS_PER_SEC));
        let (few, many) = (time_of(again(10)).await, time_of(again(20)).await);
        assert!(many - few >= each * 10, "{few:?}, {many:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_waited_for_is_paid_and_rest_pays_too() {
        let mut allowance = Allowance::new();
        allowance.take(BURST + u64::from(STEPS_PER_SEC)).await;
        let began = Instant::now();
        allowance.take(u64::from(STEPS_PER_SEC)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        tokio::time::sleep(Duration::from_secs(2)).await;
        let began = Instant::now();
        allowance.take(u64::from(STEPS_PER_SEC)).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
