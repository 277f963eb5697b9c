//! Links of a simulated swarm: when a slice leaves its sender and when it reaches its receiver.
//!
//! Each node has an uplink that sends one slice at a time, its services in turn, and a downlink that takes
//! what arrives in order. A service with [`UNPASSED_MAX`] slices that have not passed the receiver's downlink
//! waits, as TCP would. Knows no engine. Driven by `swarm`.

use std::collections::VecDeque;
use std::time::Duration;

use crate::content::PieceIndex;
use crate::engine::Time;

/// Bytes that leave an uplink at once: a 64th of a second of the slower end, between these bounds.
const SLICE_MIN: u64 = 1024;
const SLICE_MAX: u64 = 16 * 1024;

/// Slices of one service on their way at once.
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
    /// Slices that have not passed the receiver's downlink.
    pub(super) unpassed: u32,
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
    services: VecDeque<Service>,
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
            services: VecDeque::new(),
            busy: false,
            down_free_at: Time::default(),
        }
    }

    pub(super) fn serve(&mut self, service: Service) {
        self.services.push_back(service);
    }

    /// Ends the services that `gone` names and returns them.
    pub(super) fn end_services(&mut self, gone: impl Fn(&Service) -> bool) -> Vec<Service> {
        let (ended, kept) = std::mem::take(&mut self.services)
            .into_iter()
            .partition(|service| gone(service));
        self.services = kept;
        Vec::from_iter::<VecDeque<Service>>(ended)
    }

    /// The next slice to leave and how long that takes; its service goes to the back of the line.
    pub(super) fn next_slice(&mut self) -> Option<(Slice, Duration)> {
        let ready = self
            .services
            .iter()
            .position(|service| service.unpassed < UNPASSED_MAX)?;
        let mut service = self.services.remove(ready)?;
        let slice_len =
            (self.up_per_sec.min(service.down_per_sec) / 64).clamp(SLICE_MIN, SLICE_MAX) as u32;
        let bytes = slice_len.min(service.len - service.sent);
        service.sent += bytes;
        service.unpassed += 1;
        let whole = service.sent == service.len;
        let Service {
            to,
            connection,
            piece,
            ..
        } = service;
        if !whole {
            self.services.push_back(service);
        }
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

    /// A slice of this service has passed the receiver's downlink.
    pub(super) fn passed(&mut self, to: usize, piece: PieceIndex) {
        if let Some(service) = self
            .services
            .iter_mut()
            .find(|service| service.to == to && service.piece == piece)
        {
            service.unpassed = service.unpassed.saturating_sub(1);
        }
    }

    /// When a slice that reaches the downlink at `at` has passed it.
    pub(super) fn pass_down(&mut self, at: Time, bytes: u32) -> Time {
        let begin = self.down_free_at.max(at);
        self.down_free_at = begin + time_of(bytes, self.down_per_sec);
        self.down_free_at
    }
}
