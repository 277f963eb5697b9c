//! Who takes part in a simulated swarm and what goes wrong in it.
//!
//! Plain data; `draw` makes one from a seed. Played by `swarm`.

use std::time::Duration;

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
    /// All its connections close, several times.
    Flap {
        /// When for the first time.
        at: Duration,
        /// From one time to the next.
        every: Duration,
        /// How often.
        times: u32,
    },
    /// Its link carries nothing either way; what was under way arrives afterwards.
    Clog {
        /// When it begins.
        from: Duration,
        /// When it ends.
        until: Duration,
    },
    /// It is on the far side of a network that falls in two: nothing passes between the sides, and what
    /// was under way arrives afterwards.
    Partition {
        /// When it begins.
        from: Duration,
        /// When it ends.
        until: Duration,
    },
    /// Its files are meddled with: runs of the pieces it holds are withdrawn and found again, several times.
    Meddled {
        /// When for the first time.
        at: Duration,
        /// From one time to the next.
        every: Duration,
        /// How often.
        times: u32,
    },
    /// Every piece it sends is bad.
    Liar,
    /// It says that it holds everything and serves nothing.
    HaveLiar {
        /// Whether it refuses what is asked of it, or says nothing.
        answers: bool,
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
    /// Where it is, below [`REGION_COUNT`](super::REGION_COUNT); see [`core_delay`](super::core_delay).
    pub region: u8,
    /// Packets of a million that its link loses; a connection has the losses of both its ends.
    pub loss_ppm: u32,
    /// Time to verify and store a piece.
    pub disk: Duration,
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
    /// The node whose goodput is recorded.
    pub watched: Option<usize>,
}

impl NodePlan {
    /// A node without faults, with links of these rates in bytes per second.
    pub fn new(seed: bool, up_per_sec: u64, down_per_sec: u64) -> Self {
        Self {
            seed,
            joins: Duration::ZERO,
            up_per_sec,
            down_per_sec,
            delay: Duration::from_millis(5),
            region: 0,
            loss_ppm: 0,
            disk: Duration::from_millis(2),
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
            Fault::Crash { .. } | Fault::Liar | Fault::HaveLiar { .. } => false,
            Fault::Silence { until, .. } => until.is_some(),
            Fault::Slow { .. }
            | Fault::Flap { .. }
            | Fault::Clog { .. }
            | Fault::Partition { .. }
            | Fault::Meddled { .. }
            | Fault::FreeRider => true,
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
            watched: None,
        }
    }

    /// Bytes of the share that is moved.
    pub fn total(&self) -> u64 {
        let piece_len = u64::from(self.piece_len);
        piece_len * u64::from(self.piece_count) - piece_len / 3
    }
}
