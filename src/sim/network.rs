//! Links of a simulated swarm: when a slice leaves its sender and when it reaches its receiver.
//!
//! Each node has an uplink that sends one slice at a time, its connections in turn and the pieces of one
//! connection one after the other, and a downlink that takes what arrives in order. A connection with
//! more slices on their way than its round trip holds waits, as TCP would. Turns and windows together
//! share the links max-min fairly (a test below compares). Knows no engine. Driven by `swarm`.
//! Sources: Hahne 1991 (round robin with windows is max-min fair), Mathis et al. 1997 (window under loss).

use std::collections::VecDeque;
use std::time::Duration;

use super::happening::ConnectionId;
use crate::content::PieceIndex;
use crate::engine::Time;

/// A slice takes a 16th of a second of the slower end, but has no more bytes than this.
const SLICE_MAX: u64 = 16 * 1024;

/// Slices of one connection on their way at once, beside those that its delay holds.
const UNPASSED_MAX: u32 = 2;

/// Regions of the simulated world.
pub const REGION_COUNT: u8 = 4;

/// One way through the core from region to region, in milliseconds: half of the round trips between
/// data centres of western Europe, eastern America, western America and eastern Asia as their operators
/// publish them, rounded. Within a region the access links make the delay.
const CORE_MILLIS: [[u64; REGION_COUNT as usize]; REGION_COUNT as usize] = [
    [0, 40, 70, 110],
    [40, 0, 35, 95],
    [70, 35, 0, 60],
    [110, 95, 60, 0],
];

/// One way through the core between two regions.
///
/// # Panics
/// When one is not below [`REGION_COUNT`].
pub fn core_delay(a: u8, b: u8) -> Duration {
    Duration::from_millis(CORE_MILLIS[usize::from(a)][usize::from(b)])
}

/// The way between two nodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    /// One way.
    pub(super) delay: Duration,
    /// Downlink of the receiver in bytes per second.
    pub(super) down_per_sec: u64,
    /// Bytes on their way at once that loss leaves to a connection; `None` without loss.
    pub(super) window: Option<u64>,
}

/// The mean window of a TCP connection that loses this many of a million packets: 1.22 segments of 1,460
/// bytes over the root of the loss (Mathis et al. 1997).
pub(super) fn window_under_loss(loss_ppm: u32) -> Option<u64> {
    let root = u64::from(loss_ppm).isqrt();
    (root > 0).then(|| 1_460 * 1_220 / root)
}

/// A piece being sent.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) to: u32,
    pub(super) connection: ConnectionId,
    pub(super) piece: PieceIndex,
    pub(super) len: u32,
    pub(super) sent: u32,
    pub(super) path: Path,
}

impl Service {
    /// Length of a slice, and how many of them may be on their way.
    fn slices(&self, up_per_sec: u64) -> (u64, u32) {
        let rate = up_per_sec.min(self.path.down_per_sec);
        let len = (rate / 16).clamp(1, SLICE_MAX);
        match self.path.window {
            // A slice counts as passed one way later, not one round trip later: hence the half.
            Some(window) => {
                let half = (window / 2).max(1);
                let len = len.min(half);
                (len, (half / len) as u32)
            }
            None => {
                let underway = self.path.delay.as_millis() as u64 * up_per_sec / 1_000 / len;
                (len, UNPASSED_MAX + underway as u32)
            }
        }
    }
}

/// What one connection has to send, in order.
#[derive(Debug)]
struct Line {
    connection: ConnectionId,
    services: VecDeque<Service>,
    /// Slices that have not passed the receiver's downlink.
    unpassed: u32,
}

/// A slice on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    pub(super) to: u32,
    pub(super) connection: ConnectionId,
    pub(super) piece: PieceIndex,
    pub(super) bytes: u32,
    pub(super) whole: bool,
}

/// The links of one node.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) up_per_sec: u64,
    pub(super) down_per_sec: u64,
    lines: VecDeque<Line>,
    /// Whether a slice is leaving right now.
    pub(super) busy: bool,
    down_free_at: Time,
}

fn time_of(bytes: u32, per_sec: u64) -> Duration {
    Duration::from_nanos(u64::from(bytes) * 1_000_000_000 / per_sec.max(1))
}

impl Links {
    pub(super) fn new(up_per_sec: u64, down_per_sec: u64) -> Self {
        Self {
            up_per_sec,
            down_per_sec,
            lines: VecDeque::new(),
            busy: false,
            down_free_at: Time::default(),
        }
    }

    pub(super) fn serve(&mut self, service: Service) {
        let connection = service.connection;
        match self
            .lines
            .iter_mut()
            .find(|line| line.connection == connection)
        {
            Some(line) => line.services.push_back(service),
            None => self.lines.push_back(Line {
                connection,
                services: VecDeque::from([service]),
                unpassed: 0,
            }),
        }
    }

    /// Ends the services that `gone` names and returns them.
    pub(super) fn end_services(&mut self, gone: impl Fn(&Service) -> bool) -> Vec<Service> {
        let mut ended = Vec::new();
        for line in &mut self.lines {
            if !line.services.iter().any(&gone) {
                continue;
            }
            let (stopped, kept) = std::mem::take(&mut line.services)
                .into_iter()
                .partition(&gone);
            line.services = kept;
            ended.extend::<VecDeque<Service>>(stopped);
        }
        self.lines
            .retain(|line| line.unpassed > 0 || !line.services.is_empty());
        ended
    }

    /// Nothing of this connection will pass any more.
    pub(super) fn cut(&mut self, connection: ConnectionId) {
        self.lines.retain(|line| line.connection != connection);
    }

    /// The next slice to leave and how long that takes; its connection goes to the back of the line.
    pub(super) fn next_slice(&mut self) -> Option<(Slice, Duration)> {
        let up_per_sec = self.up_per_sec;
        let is_ready = |line: &Line| {
            let service = line.services.front();
            service.is_some_and(|service| line.unpassed < service.slices(up_per_sec).1)
        };
        let ready = self.lines.iter().position(is_ready)?;
        let mut line = self.lines.remove(ready)?;
        let service = line.services.front_mut()?;
        let bytes = (service.slices(up_per_sec).0 as u32).min(service.len - service.sent);
        service.sent += bytes;
        let slice = Slice {
            to: service.to,
            connection: service.connection,
            piece: service.piece,
            bytes,
            whole: service.sent == service.len,
        };
        line.unpassed += 1;
        if slice.whole {
            line.services.pop_front();
        }
        self.lines.push_back(line);
        Some((slice, time_of(bytes, up_per_sec)))
    }

    /// A slice of this connection has passed the receiver's downlink.
    pub(super) fn passed(&mut self, connection: ConnectionId) {
        if let Some(at) = self
            .lines
            .iter()
            .position(|line| line.connection == connection)
        {
            let line = &mut self.lines[at];
            line.unpassed = line.unpassed.saturating_sub(1);
            if line.unpassed == 0 && line.services.is_empty() {
                self.lines.remove(at);
            }
        }
    }

    /// When a slice that reaches the downlink at `at` has passed it.
    pub(super) fn pass_down(&mut self, at: Time, bytes: u32) -> Time {
        let begin = self.down_free_at.max(at);
        self.down_free_at = begin + time_of(bytes, self.down_per_sec);
        self.down_free_at
    }
}

#[cfg(test)]
mod tests {
    use super::super::queue::Queue;
    use super::*;

    const SECONDS: u64 = 60;

    /// Rates of nodes, and flows between them.
    type Case = (&'static [(u64, u64)], &'static [(usize, usize)]);

    enum Event {
        Sent(usize, Slice),
        Here(usize, Slice),
    }

    /// Bytes per second of endless flows `(from, to)` among nodes of `(up, down)` rates.
    fn rates(nodes: &[(u64, u64)], flows: &[(usize, usize)], path: Path) -> Vec<u64> {
        let mut links: Vec<Links> = nodes
            .iter()
            .map(|(up, down)| Links::new(*up, *down))
            .collect();
        for (connection, (from, to)) in (0..).zip(flows) {
            let down_per_sec = nodes[*to].1;
            links[*from].serve(Service {
                to: *to as u32,
                connection,
                piece: PieceIndex::new(0),
                len: u32::MAX,
                sent: 0,
                path: Path {
                    down_per_sec,
                    ..path
                },
            });
        }
        let mut queue = Queue::new();
        let mut received = vec![0; flows.len()];
        let send = |now: Time, from: usize, links: &mut Vec<Links>, queue: &mut Queue<Event>| {
            if !links[from].busy
                && let Some((slice, takes)) = links[from].next_slice()
            {
                links[from].busy = true;
                queue.push(now + takes, Event::Sent(from, slice));
            }
        };
        (0..nodes.len()).for_each(|from| send(Time::default(), from, &mut links, &mut queue));
        while let Some((now, event)) = queue.pop() {
            if now.since_start() > Duration::from_secs(SECONDS) {
                break;
            }
            match event {
                Event::Sent(from, slice) => {
                    links[from].busy = false;
                    let here = links[slice.to as usize].pass_down(now + path.delay, slice.bytes);
                    queue.push(here, Event::Here(from, slice));
                    send(now, from, &mut links, &mut queue);
                }
                Event::Here(from, slice) => {
                    received[slice.connection as usize] += u64::from(slice.bytes);
                    links[from].passed(slice.connection);
                    send(now, from, &mut links, &mut queue);
                }
            }
        }
        received.iter().map(|bytes| bytes / SECONDS).collect()
    }

    /// Max-min fair rates by filling all flows evenly and freezing those that a full link holds.
    fn fair(nodes: &[(u64, u64)], flows: &[(usize, usize)]) -> Vec<u64> {
        let mut rates: Vec<Option<u64>> = vec![None; flows.len()];
        while rates.contains(&None) {
            let level = |node: usize, end: fn(&(usize, usize)) -> usize, rate: u64| {
                let through = (0..flows.len()).filter(|flow| end(&flows[*flow]) == node);
                let (mut left, mut open) = (rate, 0);
                for flow in through {
                    match rates[flow] {
                        Some(rate) => left -= rate,
                        None => open += 1,
                    }
                }
                (open > 0).then(|| left / open)
            };
            let levels: Vec<(u64, bool, usize)> = (0..nodes.len())
                .flat_map(|node| {
                    let up = level(node, |flow| flow.0, nodes[node].0);
                    let down = level(node, |flow| flow.1, nodes[node].1);
                    [
                        up.map(|at| (at, true, node)),
                        down.map(|at| (at, false, node)),
                    ]
                })
                .flatten()
                .collect();
            let (at, is_up, node) = *levels.iter().min().expect("a flow is open");
            for (flow, (from, to)) in flows.iter().enumerate() {
                if rates[flow].is_none() && node == if is_up { *from } else { *to } {
                    rates[flow] = Some(at);
                }
            }
        }
        rates.into_iter().flatten().collect()
    }

    fn path(millis: u64) -> Path {
        Path {
            delay: Duration::from_millis(millis),
            down_per_sec: 0,
            window: None,
        }
    }

    #[test]
    fn links_are_shared_max_min_fairly() {
        let cases: &[Case] = &[
            // One uplink, three downlinks of which one is slow: the other two share what it leaves.
            (
                &[(900_000, 1), (1, 100_000), (1, 900_000), (1, 900_000)],
                &[(0, 1), (0, 2), (0, 3)],
            ),
            // Two senders into one downlink, one of them with a second flow.
            (
                &[(600_000, 1), (600_000, 1), (1, 500_000), (1, 900_000)],
                &[(0, 2), (1, 2), (1, 3)],
            ),
            // A slow sender leaves its part of the common downlink to the fast one.
            (
                &[(100_000, 1), (1_000_000, 1), (1, 600_000)],
                &[(0, 2), (1, 2)],
            ),
        ];
        for (nodes, flows) in cases {
            let expected = fair(nodes, flows);
            let measured = rates(nodes, flows, path(20));
            for (measured, expected) in measured.iter().zip(&expected) {
                let most = expected / 10;
                assert!(
                    measured.abs_diff(*expected) <= most,
                    "{measured} where {expected} is fair, of {flows:?}"
                );
            }
        }
    }

    #[test]
    fn loss_bounds_a_connection_by_its_round_trip() {
        // 1 % loss: a window of 17.8 kB, here each 80 ms.
        let window = window_under_loss(10_000);
        assert_eq!(window, Some(17_812));
        let lossy = Path { window, ..path(40) };
        let measured = rates(&[(10_000_000, 1), (1, 10_000_000)], &[(0, 1)], lossy);
        assert!((200_000..=230_000).contains(&measured[0]), "{measured:?}");
        assert_eq!(window_under_loss(0), None);
    }
}
