//! No link carries more than its rate: a rule for the simulator itself.

use std::time::Duration;

use super::{Broken, Findings};
use crate::sim::report::NodeReport;
use crate::sim::scenario::Scenario;

/// A slice may be under way when the run ends.
const SLACK_BYTES: u128 = 32 * 1024;

/// Looks at a run that is over.
pub(super) fn check(
    scenario: &Scenario,
    ended: Duration,
    nodes: &[NodeReport],
    findings: &mut Findings,
) {
    let carries = |per_sec: u64| u128::from(per_sec) * ended.as_millis() / 1_000 + SLACK_BYTES;
    for (node, (plan, report)) in scenario.nodes.iter().zip(nodes).enumerate() {
        let overran = u128::from(report.sent) > carries(plan.up_per_sec)
            || u128::from(report.received) > carries(plan.down_per_sec);
        if overran {
            findings.add(Broken::Overran { node });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::scenario;
    use super::*;

    #[test]
    fn more_bytes_than_a_link_carries_are_found() {
        let of = |sent| {
            let seed = NodeReport {
                sent,
                ..NodeReport::default()
            };
            let mut findings = Findings::default();
            let nodes = [seed, NodeReport::default()];
            check(&scenario(), Duration::from_secs(2), &nodes, &mut findings);
            findings.0
        };
        assert_eq!(of(2_000_000), []);
        assert_eq!(of(2_100_000), [Broken::Overran { node: 0 }]);
    }
}
