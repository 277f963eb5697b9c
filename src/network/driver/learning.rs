//! What the driver does with what it hears: Kademlia's answers and requests, identify, mDNS. Addresses go through the
//! filter rules into the book and, for peers that speak our Kademlia, the routing table; providers go to the reader.
//! It dials nobody. Part of `super::Driver`, called from its event dispatch.
//! Source: libp2p kad-dht and identify specifications; `PROTOCOL.md` "Discovery".

use std::net::IpAddr;
use std::time::Instant;

use libp2p::kad::{self, GetProvidersOk, InboundRequest, ProviderRecord, QueryId, QueryResult};
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId, identify};

use super::{Around, Driver};
use crate::network::addresses::{self, ADDRESSES_PER_PEER_MAX, Speaker};
use crate::network::behaviour::{IDENTIFY_PROTOCOL, KAD_PROTOCOL};
use crate::network::discovery::Finished;
use crate::network::provider_store::ProviderStore;
use crate::network::{DiscoverySource, NetworkEvent};

/// Whether learned addresses go into Kademlia's table as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Routing {
    Add,
    Leave,
}

/// Adds an address to the routing table, whose entries libp2p does not bound: the oldest of a full peer are forgotten.
fn route(kad: &mut kad::Behaviour<ProviderStore>, peer: &PeerId, address: Multiaddr) {
    kad.add_address(peer, address);
    let known = routed(kad, peer);
    let surplus = known.len().saturating_sub(ADDRESSES_PER_PEER_MAX);
    for oldest in &known[..surplus] {
        kad.remove_address(peer, oldest);
    }
}

/// The addresses of `peer` in the routing table, oldest first.
fn routed(kad: &mut kad::Behaviour<ProviderStore>, peer: &PeerId) -> Vec<Multiaddr> {
    let Some(bucket) = kad.kbucket(*peer) else {
        return Vec::new();
    };
    bucket
        .iter()
        .filter(|entry| entry.node.key.preimage() == peer)
        .flat_map(|entry| entry.node.value.iter().cloned().collect::<Vec<_>>())
        .collect()
}

impl Driver {
    pub(super) fn on_kad_event(&mut self, event: kad::Event, now: Instant) {
        match event {
            kad::Event::OutboundQueryProgressed {
                id,
                result: QueryResult::GetProviders(result),
                step,
                ..
            } => {
                if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = result {
                    self.on_providers(id, providers.into_iter().collect());
                }
                if step.last
                    && let Finished::Done(key) = self.discovery.on_finished(&id, now)
                {
                    self.emit(NetworkEvent::LookupDone { key });
                }
            }
            kad::Event::InboundRequest {
                request:
                    InboundRequest::AddProvider {
                        record: Some(record),
                    },
            } => {
                self.on_announced(record, now);
            }
            kad::Event::RoutingUpdated {
                peer,
                addresses,
                is_new_peer,
                ..
            } => {
                let claimed = addresses.into_vec();
                self.learn(peer, claimed, Speaker::ThisMachine, Routing::Leave);
                if is_new_peer {
                    self.on_table_changed(now);
                }
            }
            _ => {}
        }
    }

    /// Reports providers at once. Their addresses live only in the running query, so the book takes them now.
    fn on_providers(&mut self, query: QueryId, mut providers: Vec<PeerId>) {
        let local_peer = *self.swarm.local_peer_id();
        providers.retain(|peer| *peer != local_peer);
        let Some((key, new)) = self.discovery.on_found(&query, providers) else {
            return;
        };
        // An answer does not say where it comes from: a loopback address in it helps only if somebody here is a peer.
        let speaker = match self.swarm.behaviour().streams.has_local_connection() {
            true => Speaker::ThisMachine,
            false => Speaker::Elsewhere,
        };
        let mut peers = Vec::with_capacity(new.len());
        for peer in new {
            let mut around = Around {
                swarm: &mut self.swarm,
                listening: &self.listening,
            };
            let claimed = around.kademlia_addresses(&peer);
            let addresses = self.learn(peer, claimed, speaker, Routing::Leave);
            peers.push((peer, addresses));
        }
        self.emit(NetworkEvent::Providers { key, peers });
    }

    /// A peer announced a key of its own (Kademlia let only its own through).
    fn on_announced(&mut self, mut record: ProviderRecord, now: Instant) {
        let provider = record.provider;
        let (speaker, from) = self.whereabouts(&provider);
        record.addresses = addresses::admit(&provider, record.addresses, speaker, &self.listening);
        for address in record.addresses.iter().rev() {
            self.swarm
                .behaviour_mut()
                .streams
                .book
                .add(provider, address.clone());
        }
        if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut()
            && let Err(reason) = kad.store_mut().admit(record, from, now)
        {
            tracing::debug!(%provider, ?reason, "provider record not stored");
        }
    }

    pub(super) fn on_identified(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        info: identify::Info,
        now: Instant,
    ) {
        let is_local = self
            .swarm
            .behaviour()
            .streams
            .address_of(&connection)
            .is_some_and(addresses::is_loopback);
        let speaker = if is_local {
            Speaker::ThisMachine
        } else {
            Speaker::Elsewhere
        };
        if info.protocol_version == IDENTIFY_PROTOCOL
            && let Some(address) = self.swarm.behaviour().streams.dialled(&connection).cloned()
        {
            self.emit(NetworkEvent::Reached { peer, address });
        }
        let is_in_table = info.protocols.contains(&KAD_PROTOCOL);
        let routing = if is_in_table {
            Routing::Add
        } else {
            Routing::Leave
        };
        self.learn(peer, info.listen_addrs, speaker, routing);
        if !is_in_table
            && let Some(kad) = self.swarm.behaviour_mut().kad.as_mut()
            && kad.remove_peer(&peer).is_some()
        {
            // A hint had put it there; it would only cost queries.
            self.on_table_changed(now);
        }
    }

    pub(super) fn on_nearby(&mut self, found: Vec<(PeerId, Multiaddr)>) {
        let mut by_peer: Vec<(PeerId, Vec<Multiaddr>)> = Vec::new();
        for (peer, address) in found {
            match by_peer.iter_mut().find(|(known, _)| *known == peer) {
                Some((_, claimed)) => claimed.push(address),
                None => by_peer.push((peer, vec![address])),
            }
        }
        for (peer, claimed) in by_peer {
            // Whether it is one of ours shows when it is dialled, so the table does not take it yet.
            let addresses = self.learn(peer, claimed, Speaker::Elsewhere, Routing::Leave);
            if !addresses.is_empty() {
                let source = DiscoverySource::Mdns;
                self.emit(NetworkEvent::Discovered {
                    peer,
                    addresses,
                    source,
                });
            }
        }
    }

    fn on_table_changed(&mut self, now: Instant) {
        if let Some(kad) = self.swarm.behaviour_mut().kad.as_mut() {
            let len = kad.kbuckets().map(|bucket| bucket.num_entries()).sum();
            self.discovery.on_table(len, now);
        }
    }

    /// Takes addresses of `peer` into the book and, where told, the routing table; returns those that were usable.
    pub(super) fn learn(
        &mut self,
        peer: PeerId,
        claimed: Vec<Multiaddr>,
        speaker: Speaker,
        routing: Routing,
    ) -> Vec<Multiaddr> {
        if peer == *self.swarm.local_peer_id() {
            return Vec::new();
        }
        let admitted = addresses::admit(&peer, claimed, speaker, &self.listening);
        let behaviour = self.swarm.behaviour_mut();
        for address in admitted.iter().rev() {
            behaviour.streams.book.add(peer, address.clone());
        }
        if routing == Routing::Add
            && let Some(kad) = behaviour.kad.as_mut()
        {
            // Not those of QUIC: a query would wait seconds for each node that has gone, where TCP is refused at once.
            for address in admitted
                .iter()
                .filter(|address| !addresses::is_quic(address))
            {
                route(kad, &peer, address.clone());
            }
        }
        admitted
    }

    /// Where a connected peer is: whether on this machine, and its address on a connection.
    fn whereabouts(&self, peer: &PeerId) -> (Speaker, Option<IpAddr>) {
        let streams = &self.swarm.behaviour().streams;
        let mut ips = streams
            .addresses_of_peer(peer)
            .filter_map(addresses::socket_address);
        let is_local = streams.addresses_of_peer(peer).any(addresses::is_loopback);
        let speaker = if is_local {
            Speaker::ThisMachine
        } else {
            Speaker::Elsewhere
        };
        (speaker, ips.next().map(|socket| socket.ip()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_peer_that_names_ever_new_addresses_has_eight_in_the_routing_table() {
        let (local, peer) = (PeerId::random(), PeerId::random());
        let mut kad = kad::Behaviour::with_config(
            local,
            ProviderStore::new(local, 1),
            kad::Config::new(KAD_PROTOCOL),
        );
        let address =
            |port: u16| -> Multiaddr { format!("/ip4/10.0.0.1/tcp/{port}").parse().unwrap() };
        for port in 1..=1_000 {
            route(&mut kad, &peer, address(port));
        }
        let newest: Vec<Multiaddr> = (993..=1_000).map(address).collect();
        let kept = routed(&mut kad, &peer);
        let bare: Vec<Multiaddr> = kept
            .iter()
            .map(|address| addresses::split_peer(address).0)
            .collect();
        assert_eq!(bare, newest);
    }
}
