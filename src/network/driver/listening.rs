//! Where the driver listens, and which of these addresses peers are told. Part of `driver`, whose fields it uses; it dials
//! nobody. Source: libp2p addressing and identify specifications.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::Multiaddr;
use libp2p::core::transport::TransportError;

use super::Driver;
use crate::network::addresses::{self, Carrier};
use crate::network::{NetworkError, NetworkEvent, transport};

/// How long `start` waits for the system to name the addresses of its listeners.
const LISTENING_PATIENCE: Duration = Duration::from_millis(500);

/// No further address for this long: there are no more. The second while a listener has not named one yet.
const QUIET: Duration = Duration::from_millis(5);
const QUIET_UNHEARD: Duration = Duration::from_millis(15);

impl Driver {
    /// Listens on TCP, and with QUIC on the same port numbers where those are free; on other addresses of QUIC where they
    /// are asked for. Addresses that leave the port open get one number together.
    pub(super) fn listen(&mut self, wanted: &[Multiaddr]) -> Result<(), NetworkError> {
        let sockets = wanted.iter().filter_map(addresses::socket_address);
        let open: Vec<SocketAddr> = sockets.filter(|socket| socket.port() == 0).collect();
        let port = transport::free_port(&open);
        let numbered = |address: &Multiaddr| {
            let (bare, _) = addresses::split_peer(address);
            let is_open = addresses::socket_address(&bare).is_some_and(|socket| socket.port() == 0);
            if is_open {
                addresses::with_port(&bare, port)
            } else {
                bare
            }
        };
        let wanted: Vec<Multiaddr> = wanted.iter().map(numbered).collect();
        let by_tcp: Vec<SocketAddr> = wanted
            .iter()
            .filter(|address| !addresses::is_quic(address))
            .filter_map(addresses::socket_address)
            .collect();
        // Beside TCP there is QUIC anyhow.
        let is_beside = |address: &Multiaddr| {
            let socket = addresses::socket_address(address);
            addresses::is_quic(address) && socket.is_some_and(|socket| by_tcp.contains(&socket))
        };
        let mut skipped = None;
        let mut listeners = 0;
        for address in wanted.iter().filter(|address| !is_beside(address)) {
            match self.listen_on(address) {
                Ok(()) => listeners += 1,
                Err(error) if is_missing_ipv6(address, &error) => {
                    tracing::debug!(%address, %error, "not listening");
                    skipped = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        skipped.filter(|_| listeners == 0).map_or(Ok(()), Err)
    }

    fn listen_on(&mut self, address: &Multiaddr) -> Result<(), NetworkError> {
        let unsupported = || NetworkError::UnsupportedAddress {
            address: address.clone(),
        };
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => NetworkError::AddressInUse {
                address: address.clone(),
            },
            _ => NetworkError::Listen {
                address: address.clone(),
                source,
            },
        };
        let (carrier, socket) = addresses::endpoint(address).ok_or_else(unsupported)?;
        if carrier == Carrier::Tcp {
            transport::ensure_free(socket).map_err(failed)?;
        }
        match self.swarm.listen_on(address.clone()) {
            Ok(listener) => self.unheard.push(listener),
            Err(TransportError::MultiaddrNotSupported(_)) => return Err(unsupported()),
            Err(TransportError::Other(source)) => {
                return Err(failed(transport::unwrap_io(source)));
            }
        }
        if carrier == Carrier::Tcp && socket.port() != 0 {
            match self.swarm.listen_on(addresses::quic_beside(socket)) {
                Ok(listener) => self.unheard.push(listener),
                // Another program has the port of UDP: TCP is what counts.
                Err(error) => tracing::debug!(%address, %error, "no QUIC beside this address"),
            }
        }
        Ok(())
    }

    /// Drives the swarm until listeners have named addresses and nothing more comes at once.
    pub(super) async fn await_addresses(&mut self) {
        let patience = tokio::time::Instant::now() + LISTENING_PATIENCE;
        loop {
            // Addresses of several interfaces come in one burst. A listener of which nothing was heard may be late, or
            // have none: IPv6 is switched off on many machines.
            let quiet = tokio::time::Instant::now()
                + match self.unheard.is_empty() {
                    true => QUIET,
                    false => QUIET_UNHEARD,
                };
            let until = if self.listening.is_empty() {
                patience
            } else {
                quiet.min(patience)
            };
            match tokio::time::timeout_at(until, self.swarm.select_next_some()).await {
                Ok(event) => self.on_swarm_event(event, Instant::now()),
                Err(_) => return,
            }
        }
    }

    pub(super) fn on_listening(&mut self, address: Multiaddr, now: Instant) {
        if !addresses::is_dialable(&address) || self.listening.contains(&address) {
            return;
        }
        self.listening.push(address.clone());
        self.choose_announced(now);
        if let Ok(address) = address.with_p2p(*self.swarm.local_peer_id()) {
            self.deliver(NetworkEvent::Listening { address }, None);
        }
    }

    /// Tells libp2p which of our addresses are external: identify and announcements carry those, and on a LAN nobody
    /// would confirm any.
    pub(super) fn choose_announced(&mut self, now: Instant) {
        let chosen = addresses::announced(&self.listening, &self.preferred);
        let before = std::mem::replace(&mut self.announced, chosen);
        for gone in before.iter().filter(|old| !self.announced.contains(old)) {
            self.swarm.remove_external_address(gone);
        }
        let new: Vec<Multiaddr> = self
            .announced
            .iter()
            .filter(|address| !before.contains(address))
            .cloned()
            .collect();
        if !new.is_empty() {
            self.discovery.on_address(now);
        }
        for address in new {
            self.swarm.add_external_address(address);
        }
    }

    pub(super) fn on_not_listening(&mut self, address: &Multiaddr, now: Instant) {
        let before = self.listening.len();
        self.listening.retain(|known| known != address);
        self.choose_announced(now);
        let named = address.clone().with_p2p(*self.swarm.local_peer_id());
        if let Ok(address) = named
            && self.listening.len() < before
        {
            self.deliver(NetworkEvent::NotListening { address }, None);
        }
    }
}

/// Whether a default listener fails only because this system has no IPv6.
fn is_missing_ipv6(address: &Multiaddr, error: &NetworkError) -> bool {
    let is_any_v6 = addresses::socket_address(address)
        .is_some_and(|socket| socket.is_ipv6() && socket.ip().is_unspecified());
    is_any_v6 && matches!(error, NetworkError::Listen { .. })
}
