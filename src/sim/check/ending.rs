//! Every sound node finishes while a sound seed is there.

use super::{Broken, Findings};
use crate::sim::report::NodeReport;
use crate::sim::scenario::{NodePlan, Scenario};

/// Looks at a run that is over.
pub(super) fn check(scenario: &Scenario, nodes: &[NodeReport], findings: &mut Findings) {
    let source = |node: &NodePlan| node.seed && node.is_sound() && !node.leaves;
    if !scenario.nodes.iter().any(source) {
        return;
    }
    for (node, (plan, report)) in scenario.nodes.iter().zip(nodes).enumerate() {
        if plan.is_sound() && report.finished.is_none() {
            findings.add(Broken::Unfinished { node });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::scenario;
    use super::*;
    use crate::sim::Fault;

    #[test]
    fn a_sound_node_that_does_not_finish_is_found_and_a_dead_one_is_not() {
        let mut scenario = scenario();
        let seed = NodeReport {
            finished: Some(Duration::ZERO),
            ..NodeReport::default()
        };
        let nodes = [seed, NodeReport::default()];
        let found = |scenario: &Scenario| {
            let mut findings = Findings::default();
            check(scenario, &nodes, &mut findings);
            findings.0
        };
        assert_eq!(found(&scenario), [Broken::Unfinished { node: 1 }]);
        let at = Duration::ZERO;
        scenario.nodes[1].faults.push(Fault::Crash { at });
        assert_eq!(found(&scenario), []);
    }
}
