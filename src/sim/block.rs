//! Seeds by the thousand: what one run of many seeds leaves behind to be compared with.
//!
//! A block is [`BLOCK_SEEDS`] seeds of [`Scenario::many`]; its digest stands for every event of every
//! one of them. Called by tests and by `scripts/simulate-many`.

use super::report::Report;
use super::scenario::Scenario;

/// Seeds of a block; block `b` has those from `b * BLOCK_SEEDS` on.
pub const BLOCK_SEEDS: u64 = 1_000;

impl Scenario {
    /// The scenario of a seed in a block: a faulty swarm of 8 to 20 nodes.
    pub fn many(seed: u64) -> Self {
        Self::faulty(seed, 8 + (seed % 13) as usize)
    }
}

/// The digest of the reports of a block, in the order of their seeds.
pub fn block_digest(reports: impl IntoIterator<Item = u64>) -> u64 {
    let add =
        |sum: u64, digest: u64| (sum.rotate_left(17) ^ digest).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    reports.into_iter().fold(0, add)
}

impl Report {
    /// What a block keeps of this report: its digest, and whether a rule was broken.
    pub fn block_part(&self) -> u64 {
        self.digest ^ self.broken.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_other_report_or_another_order_gives_another_digest() {
        let digest = block_digest([1, 2, 3]);
        assert_ne!(digest, block_digest([1, 2, 4]));
        assert_ne!(digest, block_digest([2, 1, 3]));
    }
}
