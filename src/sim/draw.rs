//! Scenarios drawn from a seed: the faulty swarms of the sweeps.
//!
//! The same seed gives the same scenario on every machine. Called by tests.

use std::time::Duration;

use rand::{RngExt, SeedableRng};

use super::network::REGION_COUNT;
use super::scenario::{Fault, NodePlan, Scenario};
use crate::engine::Random;

fn millis(random: &mut Random, most: u64) -> Duration {
    Duration::from_millis(random.random_range(0..most))
}

impl Scenario {
    /// A swarm of `count` nodes drawn from `seed`: mixed rates, delays, regions and losses, late joins, and
    /// every fault there is. Node 0 is a seed without faults, so every sound node can finish.
    pub fn faulty(seed: u64, count: usize) -> Self {
        let mut random = Random::seed_from_u64(seed ^ 0x0053_4841_524b);
        let mut nodes = Vec::with_capacity(count);
        // A network parts for all at the same time.
        let parts = millis(&mut random, 30_000);
        let mends = parts + millis(&mut random, 15_000);
        // In some swarms more than half of all meet the same fault at the same time.
        let at = millis(&mut random, 30_000);
        let is_common = random.random_bool(0.2);
        let common = drawn_fault(&mut random, at, (parts, mends)).filter(|_| is_common);
        for index in 0..count {
            let mut node = drawn_node(&mut random, index == 0);
            if index > 0 {
                node.joins = if random.random_bool(0.5) {
                    Duration::ZERO
                } else {
                    millis(&mut random, 20_000)
                };
                let at = node.joins + millis(&mut random, 30_000);
                let own = drawn_fault(&mut random, at, (parts, mends));
                let is_struck = random.random_bool(0.6);
                node.faults.extend(common.filter(|_| is_struck).or(own));
                node.leaves = !node.seed && random.random_bool(0.2);
            }
            nodes.push(node);
        }
        let piece_count = random.random_range(1..120);
        let piece_len = (16 * 1024) << random.random_range(0..4_u32);
        Self {
            seed,
            piece_len,
            piece_count,
            nodes,
            ends: Duration::from_secs(3_600),
            watched: None,
        }
    }

    /// A swarm of `count` nodes in which people come and go: two seeds, half of the others there from the
    /// start and half joining within 20 s, one in five killed at a random moment, and everybody who
    /// finishes leaves. Node 0, a seed, stays.
    pub fn coming_and_going(seed: u64, count: usize, piece_count: u32) -> Self {
        let mut random = Random::seed_from_u64(seed ^ 0x0043_4855_524e);
        let mut scenario = Self::plain(seed, count - 1, piece_count, 1_000_000);
        scenario.nodes[1].seed = true;
        for (index, node) in scenario.nodes.iter_mut().enumerate().skip(1) {
            node.delay = millis(&mut random, 40);
            node.leaves = !node.seed;
            if index % 2 == 1 && !node.seed {
                node.joins = millis(&mut random, 20_000);
            }
            if index % 5 == 4 {
                let at = node.joins + millis(&mut random, 20_000);
                node.faults.push(Fault::Crash { at });
            }
        }
        scenario
    }
}

fn drawn_node(random: &mut Random, is_first: bool) -> NodePlan {
    let up_per_sec = 50_000 << random.random_range(0..5_u32);
    let down_per_sec = up_per_sec * random.random_range(1..=8_u64);
    let is_seed = is_first || random.random_bool(0.1);
    let mut node = NodePlan::new(is_seed, up_per_sec, down_per_sec);
    node.delay = millis(random, 60);
    node.region = random.random_range(0..REGION_COUNT);
    node.disk = millis(random, 20);
    if random.random_bool(0.2) {
        node.loss_ppm = random.random_range(100..20_000);
    }
    node
}

fn drawn_fault(random: &mut Random, at: Duration, part: (Duration, Duration)) -> Option<Fault> {
    Some(match random.random_range(0..24) {
        0..3 => Fault::Crash { at },
        3 => Fault::Silence {
            from: at,
            until: None,
        },
        4 | 5 => Fault::Silence {
            from: at,
            until: Some(at + millis(random, 20_000)),
        },
        6 | 7 => Fault::Slow {
            at,
            up_per_sec: 1 + random.random_range(0..2_000),
        },
        8 | 9 => Fault::Liar,
        10 => Fault::Flap {
            at,
            every: Duration::from_secs(1) + millis(random, 9_000),
            times: 5,
        },
        11 => Fault::FreeRider,
        12 => Fault::Clog {
            from: at,
            until: at + millis(random, 15_000),
        },
        13 | 14 => Fault::Partition {
            from: part.0,
            until: part.1,
        },
        15 => Fault::HaveLiar {
            answers: random.random_bool(0.5),
        },
        _ => return None,
    })
}
