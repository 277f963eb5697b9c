//! Links of a simulated swarm: when a slice leaves its sender and when it reaches its receiver.
//!
//! Each node has an uplink that sends one slice at a time, its connections in turn and the pieces of one
//! connection one after the other, and a downlink that takes what arrives in order. A connection with
//! more slices on their way than its round trip holds waits, as TCP would. Knows no engine. Driven by
//! `swarm`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::content::PieceIndex;
use crate::engine::Time;

/// A slice takes a 16th of a second of the slower end, but has no more bytes than this.
const SLICE_MAX: u64 = 16 * 1024;

/// Slices of one connection on their way at once, beside those that its delay holds.
const UNPASSED_MAX: u32 = 2;

/// A piece being sent.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) to: usize,
    pub(super) connection: u64,
    pub(super) piece: PieceIndex,
    pub(super) len: u32,
    pub(super) sent: u32,
    /// Downlink of the receiver in bytes per second.
    pub(super) down_per_sec: u64,
    /// From the sender to the receiver.
    pub(super) delay: Duration,
}

/// What one connection has to send, in order.
#[derive(Debug)]
struct Line {
    connection: u64,
    services: VecDeque<Service>,
    /// Slices that have not passed the receiver's downlink.
    unpassed: u32,
}

/// A slice on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    pub(super) to: usize,
    pub(super) connection: u64,
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

    /// The next slice to leave and how long that takes; its connection goes to the back of the line.
    pub(super) fn next_slice(&mut self) -> Option<(Slice, Duration)> {
        let up_per_sec = self.up_per_sec;
        let slice_len =
            |service: &Service| (up_per_sec.min(service.down_per_sec) / 16).clamp(1, SLICE_MAX);
        let is_ready = |line: &Line| {
            line.services.front().is_some_and(|service| {
                let underway =
                    service.delay.as_millis() as u64 * up_per_sec / 1_000 / slice_len(service);
                line.unpassed < UNPASSED_MAX + underway as u32
            })
        };
        let ready = self.lines.iter().position(is_ready)?;
        let mut line = self.lines.remove(ready)?;
        let service = line.services.front_mut()?;
        let bytes = (slice_len(service) as u32).min(service.len - service.sent);
        service.sent += bytes;
        let whole = service.sent == service.len;
        let Service {
            to,
            connection,
            piece,
            ..
        } = *service;
        line.unpassed += 1;
        if whole {
            line.services.pop_front();
        }
        self.lines.push_back(line);
        Some((
            Slice {
                to,
                connection,
                piece,
                bytes,
                whole,
            },
            time_of(bytes, self.up_per_sec),
        ))
    }

    /// A slice of this connection has passed the receiver's downlink.
    pub(super) fn passed(&mut self, connection: u64) {
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
