//! What a single fault costs, one named scenario each.

use std::time::Duration;

use shoal::engine::{Cause, Event, PeerKey, StallCause};
use shoal::sim::{Fault, NodePlan, Report, Scenario, run};

use super::seconds;

fn reroutes(report: &Report, node: usize) -> Vec<(Duration, Event)> {
    let is_reroute = |(_, event): &&(Duration, Event)| matches!(event, Event::Reroute { .. });
    report.nodes[node]
        .events
        .iter()
        .filter(is_reroute)
        .cloned()
        .collect()
}

/// Two seeds and one receiver; the second seed has `fault`.
fn two_seeds(fault: Fault) -> Report {
    let mut scenario = Scenario::plain(3, 0, 400, 1_000_000);
    scenario
        .nodes
        .push(NodePlan::new(true, 1_000_000, 4_000_000).with(fault));
    scenario
        .nodes
        .push(NodePlan::new(false, 1_000_000, 4_000_000));
    let report = run(&scenario);
    assert_eq!(report.broken, []);
    report
}

#[test]
fn a_dead_seed_is_rerouted_within_a_tenth_of_a_second() {
    let at = seconds(5);
    let report = two_seeds(Fault::Crash { at });
    let (when, event) = reroutes(&report, 2)
        .into_iter()
        .find(|(when, _)| *when >= at)
        .expect("a reroute is told");
    assert!(
        when - at < Duration::from_millis(100),
        "told {:?} after the crash",
        when - at
    );
    let Event::Reroute {
        peer,
        pieces,
        to,
        after,
        cause,
    } = event
    else {
        unreachable!("filtered above")
    };
    assert_eq!(
        (peer, cause, to),
        (PeerKey(1), Cause::Closed, vec![PeerKey(0)])
    );
    assert!(pieces >= 1 && after < Duration::from_millis(100));
}

#[test]
fn a_silent_seed_is_rerouted_within_two_seconds() {
    let from = seconds(5);
    let report = two_seeds(Fault::Silence { from, until: None });
    let told = reroutes(&report, 2);
    let (when, event) = told
        .into_iter()
        .find(|(when, _)| *when >= from)
        .expect("a reroute is told");
    assert!(
        when - from < seconds(2),
        "told {:?} after the silence began",
        when - from
    );
    assert!(
        matches!(
            event,
            Event::Reroute {
                cause: Cause::Silent,
                peer: PeerKey(1),
                ..
            }
        ),
        "{event:?}"
    );
}

#[test]
fn a_seed_that_falls_to_a_byte_per_second_does_not_hold_the_last_pieces() {
    let at = seconds(5);
    let report = two_seeds(Fault::Slow { at, up_per_sec: 1 });
    // 26 MB at 2 MB/s for 5 s, the rest at 1 MB/s: 21 s for the one that is left.
    let finished = report.nodes[2].finished.expect("it finishes");
    assert!(finished < seconds(26), "{finished:?}");
}

#[test]
fn a_liar_is_caught_at_its_first_piece_and_named() {
    let report = two_seeds(Fault::Liar);
    assert_eq!(report.nodes[2].bad_pieces, [(1, 1)]);
    let told = reroutes(&report, 2);
    let is_corrupt = |(_, event): &(Duration, Event)| {
        matches!(
            event,
            Event::Reroute {
                cause: Cause::Corrupt,
                peer: PeerKey(1),
                ..
            }
        )
    };
    assert!(told.iter().any(is_corrupt), "{told:?}");
}

#[test]
fn when_the_only_seed_dies_too_early_the_receivers_say_that_pieces_are_nowhere() {
    let mut scenario = Scenario::plain(4, 3, 400, 500_000);
    scenario.ends = seconds(120);
    scenario.nodes[0]
        .faults
        .push(Fault::Crash { at: seconds(10) });
    let report = run(&scenario);
    for node in 1..=3 {
        assert_eq!(report.nodes[node].finished, None);
        let stalled = report.nodes[node]
            .events
            .iter()
            .find_map(|(when, event)| match event {
                Event::Stalled { cause, missing } => Some((*when, *cause, *missing)),
                _ => None,
            });
        let (when, cause, missing) = stalled.expect("a stall is told");
        assert_eq!(cause, StallCause::NoHolder);
        assert!(missing > 0 && when > seconds(10));
    }
    let held: Vec<u64> = report.nodes[1..].iter().map(|node| node.kept).collect();
    assert!(
        held.iter().all(|kept| *kept == held[0]),
        "they shared all there was: {held:?}"
    );
}

#[test]
fn a_receiver_that_was_stopped_goes_on_with_the_peers_it_had() {
    let mut scenario = Scenario::plain(5, 2, 200, 1_000_000);
    scenario.nodes[1].faults.push(Fault::Silence {
        from: seconds(3),
        until: Some(seconds(13)),
    });
    let report = run(&scenario);
    assert_eq!(report.broken, []);
    assert!(report.last_finish([1, 2]).expect("both finish") < seconds(60));
}

#[test]
fn half_a_swarm_that_falls_silent_and_returns_finishes_with_the_others() {
    let mut scenario = Scenario::plain(6, 10, 200, 1_000_000);
    let silence = Fault::Silence {
        from: seconds(4),
        until: Some(seconds(16)),
    };
    scenario.nodes[6..]
        .iter_mut()
        .for_each(|node| node.faults.push(silence));
    let report = run(&scenario);
    assert_eq!(report.broken, []);
    assert!(report.last_finish(1..6).expect("the near half finishes") < seconds(20));
    assert!(report.last_finish(6..11).expect("the far half finishes") < seconds(40));
}

#[test]
fn peers_whose_connections_keep_closing_finish_and_hold_up_nobody() {
    let mut scenario = Scenario::plain(7, 8, 200, 1_000_000);
    let flap = Fault::Flap {
        at: seconds(2),
        every: seconds(3),
        times: 5,
    };
    scenario.nodes[5..]
        .iter_mut()
        .for_each(|node| node.faults.push(flap));
    let report = run(&scenario);
    assert_eq!(report.broken, []);
    assert!(report.last_finish(1..5).expect("the steady finish") < seconds(20));
    assert!(report.last_finish(5..9).expect("the flapping finish") < seconds(40));
}

#[test]
fn a_late_joiner_is_served_by_the_swarm_after_the_seed_has_left() {
    let mut scenario = Scenario::plain(9, 4, 200, 1_000_000);
    scenario.nodes[0]
        .faults
        .push(Fault::Crash { at: seconds(30) });
    let mut late = NodePlan::new(false, 1_000_000, 4_000_000);
    late.joins = seconds(40);
    scenario.nodes.push(late);
    let report = run(&scenario);
    assert!(report.last_finish(1..5).expect("the swarm finishes") < seconds(30));
    let finished = report.last_finish([5]).expect("the late one finishes");
    assert!(finished < seconds(50), "13 MB at 4 MB/s: {finished:?}");
}

#[test]
fn a_free_rider_costs_the_others_little() {
    let mut scenario = Scenario::plain(8, 8, 256, 1_000_000);
    scenario.nodes[8].faults.push(Fault::FreeRider);
    let report = run(&scenario);
    assert_eq!(report.broken, []);
    // 17 s for one copy; the free rider takes one of nine shares of the uplinks.
    assert!(report.last_finish(1..8).expect("those that give finish") < seconds(23));
    assert!(
        report.nodes[8].finished.is_some(),
        "nobody is left out for good"
    );
}

#[test]
fn a_swarm_whose_peers_leave_on_completion_finishes_to_the_last() {
    for seed in 0..5 {
        let mut scenario = Scenario::plain(seed, 20, 128, 1_000_000);
        scenario.nodes[1..]
            .iter_mut()
            .for_each(|node| node.leaves = true);
        let report = run(&scenario);
        assert_eq!(report.broken, [], "seed {seed}");
        assert!(
            report.last_finish(1..21).expect("all finish") < seconds(25),
            "seed {seed}"
        );
    }
}

#[test]
fn a_piece_does_not_wander_between_peers_that_fell_silent() {
    // Each of these stayed unfinished for ever while moving a request began the silence of its new peer anew.
    for (seed, from) in [(12, 5), (50, 3), (51, 2)] {
        let mut scenario = Scenario::plain(seed, 10, 100, 1_000_000);
        let from = seconds(from);
        let silent = NodePlan::new(false, 1_000_000, 4_000_000);
        let silence = Fault::Silence { from, until: None };
        scenario
            .nodes
            .extend((0..10).map(|_| silent.clone().with(silence)));
        scenario.ends = seconds(60);
        let report = run(&scenario);
        assert_eq!(report.broken, [], "seed {seed}");
    }
}

#[test]
fn peers_that_all_lack_the_same_pieces_meet_the_seed_that_joins_late() {
    // Sixty receivers fill each other's tables; their seed dies before it has sent everything once.
    let mut scenario = Scenario::plain(10, 60, 100, 1_000_000);
    scenario.nodes[0]
        .faults
        .push(Fault::Crash { at: seconds(4) });
    let mut late = NodePlan::new(true, 1_000_000, 4_000_000);
    late.joins = seconds(30);
    scenario.nodes.push(late);
    scenario.ends = seconds(300);
    let report = run(&scenario);
    assert_eq!(report.broken, []);
    let last = report.last_finish(1..=60).expect("all finish");
    assert!(last > seconds(30), "the late seed was needed: {last:?}");
    assert!(last < seconds(90), "{last:?}");
}

#[test]
fn a_seed_whose_suggestions_nobody_takes_up_serves_what_it_is_asked_for() {
    // Thirteen peers, most of them liars, wait at the only seed, have no room for what it suggests, and so
    // always leave one suggestion open.
    let report = run(&Scenario::many(13_320));
    assert_eq!(report.broken, []);
}

#[test]
fn a_piece_that_dribbles_on_after_bytes_of_an_earlier_request_is_asked_elsewhere() {
    // Half of a piece was on its way when it was asked of the same peer again, whose uplink then fell to six bytes a second.
    let report = run(&Scenario::many(56_588));
    assert_eq!(report.broken, []);
}

#[test]
fn peers_whose_files_are_meddled_with_all_the_time_all_finish_and_nobody_is_banned_for_it() {
    for seed in 0..20 {
        let mut scenario = Scenario::plain(seed, 8, 200, 1_000_000);
        for (number, node) in (0_u64..).zip(&mut scenario.nodes) {
            node.faults.push(Fault::Meddled {
                at: Duration::from_millis(300 * number),
                every: Duration::from_millis(900),
                times: 60,
            });
        }
        let report = run(&scenario);
        assert_eq!(report.broken, [], "seed {seed}");
        let last = report.last_finish(1..9).expect("all finish");
        assert!(last < seconds(60), "seed {seed}: {last:?}");
    }
}

#[test]
fn the_only_seed_may_take_everything_back_again_and_again_and_is_fetched_from_all_the_same() {
    let mut scenario = Scenario::plain(11, 1, 100, 1_000_000);
    scenario.nodes[0].faults.push(Fault::Meddled {
        at: seconds(1),
        every: Duration::from_millis(400),
        times: 1_000,
    });
    let report = run(&scenario);
    assert_eq!(report.broken, []);
    assert!(report.last_finish([1]).expect("it finishes") < seconds(300));
}
