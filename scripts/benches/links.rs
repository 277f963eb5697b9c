//! Links on one host: machines in namespaces behind one bridge, each with a shaped uplink, and a loopback that loses
//! packets. Needs root, `ip`, `tc`, `nft`.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Result;

/// What a shaped link sends at once, and how long it queues. As in the runs that the figures are compared with.
const BURST: &str = "256k";
const QUEUE: &str = "50ms";

/// A star of machines; gone when dropped.
pub(crate) struct Star {
    bridge: String,
    machines: Vec<Machine>,
}

/// One of them.
pub(crate) struct Machine {
    namespace: String,
    /// The end of its wire at the bridge.
    wire: String,
    pub(crate) address: String,
}

impl Star {
    /// `count` machines whose uplinks carry `up` bytes per second.
    pub(crate) fn new(count: usize, up: u64) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        // Interface names have 15 characters at most.
        let tag = format!(
            "{}-{}",
            std::process::id() % 100_000,
            MADE.fetch_add(1, Ordering::Relaxed)
        );
        let bridge = format!("sb{tag}");
        // The names are known before anything is made, so that whatever was made is removed again.
        let machine = |at: usize| Machine {
            namespace: format!("shoal-bench-{tag}-{at}"),
            wire: format!("sv{tag}-{at}"),
            address: format!("10.78.0.{}", at + 1),
        };
        let star = Self {
            bridge,
            machines: (0..count).map(machine).collect(),
        };
        ip(&format!("link add {} type bridge", star.bridge))?;
        ip(&format!("link set {} up", star.bridge))?;
        for Machine {
            namespace,
            wire,
            address,
        } in &star.machines
        {
            ip(&format!("netns add {namespace}"))?;
            ip(&format!(
                "link add {wire} type veth peer name eth0 netns {namespace}"
            ))?;
            ip(&format!("link set {wire} master {} up", star.bridge))?;
            ip(&format!("-n {namespace} address add {address}/24 dev eth0"))?;
            ip(&format!("-n {namespace} link set eth0 up"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
            let shape = format!(
                "qdisc add dev eth0 root tbf rate {}bit burst {BURST} latency {QUEUE}",
                up * 8
            );
            run(&format!("ip netns exec {namespace} tc {shape}"))?;
        }
        Ok(star)
    }

    pub(crate) fn machines(&self) -> &[Machine] {
        &self.machines
    }
}

impl Drop for Star {
    fn drop(&mut self) {
        // What was never made cannot be removed.
        for Machine {
            namespace, wire, ..
        } in &self.machines
        {
            let _ = ip(&format!("link del {wire}"));
            let _ = ip(&format!("netns del {namespace}"));
        }
        let _ = ip(&format!("link del {}", self.bridge));
    }
}

impl Machine {
    /// The start of a command line that runs in this machine.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]);
        command
    }

    /// Bytes it has sent, headers included.
    pub(crate) fn sent(&self) -> Result<u64> {
        self.count("rx_bytes")
    }

    /// Bytes it has received, headers included.
    pub(crate) fn received(&self) -> Result<u64> {
        self.count("tx_bytes")
    }

    fn count(&self, what: &str) -> Result<u64> {
        let path = format!("/sys/class/net/{}/statistics/{what}", self.wire);
        Ok(fs::read_to_string(path)?.trim().parse()?)
    }

    /// Packets it has sent and received.
    pub(crate) fn packets(&self) -> Result<u64> {
        Ok(self.count("rx_packets")? + self.count("tx_packets")?)
    }

    /// Takes its wire off the bridge: nothing arrives any more, and nobody is told.
    pub(crate) fn cut(&self) -> Result<()> {
        ip(&format!("link set {} down", self.wire))
    }
}

/// What is one packet on a link.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Packets {
    /// What was sent in one call: of QUIC up to ten datagrams, which are lost together.
    Batches,
    /// One datagram, as on a wire.
    Single,
}

/// A namespace whose loopback loses packets; gone when dropped. Needs `nft` too.
pub(crate) struct Lossy {
    namespace: String,
}

impl Lossy {
    /// One that loses nothing yet.
    pub(crate) fn new(packets: Packets) -> Result<Self> {
        let lossy = Self {
            namespace: format!("shoal-bench-{}-{packets:?}", std::process::id() % 100_000),
        };
        let namespace = &lossy.namespace;
        ip(&format!("netns add {namespace}"))?;
        if matches!(packets, Packets::Single) {
            ip(&format!("-n {namespace} link set lo gso_max_segs 1"))?;
        }
        ip(&format!("-n {namespace} link set lo up"))?;
        Ok(lossy)
    }

    /// Loses `percent` of what arrives, on either side, from now on.
    pub(crate) fn lose(&self, percent: u32) -> Result<()> {
        let nft = |rule: &str| run(&format!("ip netns exec {} nft {rule}", self.namespace));
        // Made, so that it can be removed whether it was there or not.
        nft("add table ip lossy")?;
        nft("delete table ip lossy")?;
        nft("add table ip lossy")?;
        nft("add chain ip lossy arriving { type filter hook input priority 0 ; }")?;
        nft(&format!(
            "add rule ip lossy arriving numgen random mod 100 < {percent} drop"
        ))
    }

    /// The start of a command line that runs in it.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]);
        command
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = ip(&format!("netns del {}", self.namespace));
    }
}

fn ip(args: &str) -> Result<()> {
    run(&format!("ip {args}"))
}

fn run(line: &str) -> Result<()> {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap_or_default())
        .args(words)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "`{line}`: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )
    .into())
}
