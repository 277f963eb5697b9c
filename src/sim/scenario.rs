//! Who takes part in a simulated swarm and what goes wrong in it.
//!
//! Plain data; [`Scenario::faulty`] draws one from a seed. Played by `swarm`.

use std::time::Duration;

use rand::{RngExt, SeedableRng};

use crate::engine::Random;

/// What goes wrong with one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies; its connections close at once.
    Crash {
        /// When.
        at: Duration,
    },
    /// The process stops: nothing is read or sent, no connection closes.
    Silence {
        /// When it stops.
        from: Duration,
        /// When it goes on; never if `None`.
        until: Option<Duration>,
    },
    /// Its uplink falls to this rate.
    Slow {
        /// When.
        at: Duration,
        /// The rate in bytes per second.
        up_per_sec: u64,
    },
    /// Every piece it sends is bad.
    Liar,
    /// All its connections close, several times.
    Flap {
        /// When for the first time.
        at: Duration,
        /// From one time to the next.
        every: Duration,
        /// How often.
        times: u32,
    },
    /// It takes and never says what it holds, so that nobody asks it for anything.
    FreeRider,
}

/// One node.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// Whether it holds everything from the start.
    pub seed: bool,
    /// When it joins.
    pub joins: Duration,
    /// Uplink in bytes per second.
    pub up_per_sec: u64,
    /// Downlink in bytes per second.
    pub down_per_sec: u64,
    /// One-way delay to the core of the network.
    pub delay: Duration,
    /// Whether it leaves as soon as it holds everything.
    pub leaves: bool,
    /// What goes wrong with it.
    pub faults: Vec<Fault>,
}

/// A swarm to be played.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Source of every random choice.
    pub seed: u64,
    /// Length of a piece in bytes.
    pub piece_len: u32,
    /// Number of pieces, the last one being shorter.
    pub piece_count: u32,
    /// The nodes; node 0 is known to all.
    pub nodes: Vec<NodePlan>,
    /// When to give up.
    pub ends: Duration,
}

impl NodePlan {
    /// A node with equal links of `rate` bytes per second each way times `down_factor` down.
    pub fn new(seed: bool, up_per_sec: u64, down_per_sec: u64) -> Self {
        let delay = Duration::from_millis(5);
        Self {
            seed,
            joins: Duration::ZERO,
            up_per_sec,
            down_per_sec,
            delay,
            leaves: false,
            faults: Vec::new(),
        }
    }

    /// The same with a fault.
    #[must_use]
    pub fn with(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Whether it is expected to finish: it neither dies, nor stays silent, nor lies.
    pub fn is_sound(&self) -> bool {
        self.faults.iter().all(|fault| match fault {
            Fault::Crash { .. } | Fault::Liar => false,
            Fault::Silence { until, .. } => until.is_some(),
            Fault::Slow { .. } | Fault::Flap { .. } | Fault::FreeRider => true,
        })
    }
}

impl Scenario {
    /// One seed and `receivers` receivers of equal rates, all sound.
    pub fn plain(seed: u64, receivers: usize, piece_count: u32, up_per_sec: u64) -> Self {
        let mut nodes = vec![NodePlan::new(true, up_per_sec, 4 * up_per_sec)];
        nodes.extend((0..receivers).map(|_| NodePlan::new(false, up_per_sec, 4 * up_per_sec)));
        Self {
            seed,
            piece_len: 64 * 1024,
            piece_count,
            nodes,
            ends: Duration::from_secs(3_600),
        }
    }

    /// A swarm of `count` nodes drawn from `seed`: mixed rates and delays, late joins, crashes, silence,
    /// slow links and liars. Node 0 is a seed without faults, so every sound node can finish.
    pub fn faulty(seed: u64, count: usize) -> Self {
        let mut random = Random::seed_from_u64(seed ^ 0x0053_4841_524b);
        let millis =
            |random: &mut Random, most: u64| Duration::from_millis(random.random_range(0..most));
        let mut nodes = Vec::with_capacity(count);
        for index in 0..count {
            let up_per_sec = 50_000 << random.random_range(0..5_u32);
            let down_per_sec = up_per_sec * random.random_range(1..=8_u64);
            let mut node = NodePlan::new(
                index == 0 || random.random_bool(0.1),
                up_per_sec,
                down_per_sec,
            );
            node.delay = millis(&mut random, 80);
            if index > 0 {
                node.joins = if random.random_bool(0.5) {
                    Duration::ZERO
                } else {
                    millis(&mut random, 20_000)
                };
                let at = node.joins + millis(&mut random, 30_000);
                let fault = match random.random_range(0..20) {
                    0..3 => Some(Fault::Crash { at }),
                    3 => Some(Fault::Silence {
                        from: at,
                        until: None,
                    }),
                    4..6 => Some(Fault::Silence {
                        from: at,
                        until: Some(at + millis(&mut random, 20_000)),
                    }),
                    6..8 => Some(Fault::Slow {
                        at,
                        up_per_sec: 1 + random.random_range(0..2_000),
                    }),
                    8..10 => Some(Fault::Liar),
                    10 => Some(Fault::Flap {
                        at,
                        every: Duration::from_secs(1) + millis(&mut random, 9_000),
                        times: 5,
                    }),
                    11 => Some(Fault::FreeRider),
                    _ => None,
                };
                node.faults.extend(fault);
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
        }
    }
}
