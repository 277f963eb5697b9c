//! The composed behaviour: connection limits, identify, Kademlia, mDNS and our session streams, each with its
//! settings and the reason for them. It decides nothing at run time; `driver` reads its events.
//! Source: libp2p specifications of each part; the limits are those of `PROTOCOL.md` "Versions and limits".

use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{PeerId, StreamProtocol, identify, kad, mdns};

use super::NetworkConfig;
use super::paced::Paced;
use super::provider_store::{PROVIDER_TTL, ProviderStore};
use super::{streams, transport};

/// Our own Kademlia: nodes of other networks never enter the table.
pub(super) const KAD_PROTOCOL: StreamProtocol = StreamProtocol::new("/shoal/kad/1");

/// What identify calls the network.
pub(super) const IDENTIFY_PROTOCOL: &str = "/shoal/1";

/// Characters of the agent string sent: an identify message holds 4,096 bytes in all.
const AGENT_LEN_MAX: usize = 64;

/// Handshakes under way that we began: each costs a key exchange.
const DIALS_MAX: u32 = 64;

/// The same of others. The transport bounds them; those it has given up are counted for a moment more.
const ACCEPTS_MAX: u32 = transport::HANDSHAKES_MAX as u32 + 16;

/// Connections that others begin: a table of 40 peers per share, Kademlia's neighbours, and room for newcomers. Beyond
/// [`streams::CROWD`] others make room for them, and are counted until they are closed.
const INBOUND_MAX: u32 = 256;

const _: () = assert!(streams::CROWD + 16 <= INBOUND_MAX as usize);

/// Connections in all: what strangers fill leaves room for those that we begin.
const ESTABLISHED_MAX: u32 = INBOUND_MAX + 64;

/// Connections per peer. Both sides may dial at once, and one of two may be dead without knowing: with 1 each side would
/// close the other's.
const PER_PEER_MAX: u32 = 3;

/// One query in all. A node that does not answer costs 10 s of it.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// Peers asked at once within a query: providers are candidates of the walk, and dead ones must not hold it up.
const QUERY_PARALLELISM: NonZeroUsize = NonZeroUsize::new(6).expect("it is not zero");

/// How often a peer that stays connected is asked again who it is. What changes in between is pushed.
const IDENTIFY_EVERY: Duration = Duration::from_secs(60 * 60);

/// How often the routing table is walked without need. For that all neighbours are dialled again, since connections end
/// when idle: 390 kB with ten of them. A table of fewer than 20 peers is walked whenever it grows, and every announcement
/// and lookup walks a part. Source: Maymounkov and Mazieres, "Kademlia" (2002), section 2.3: buckets are refreshed hourly.
const REFRESH_EVERY: Duration = Duration::from_secs(60 * 60);

/// Everything our node speaks. The limits come first: what they refuse the others never see. Not ping: a busy connection
/// makes its answers wait, an idle session has its own keep-alives, and the kernel finds hosts that are gone.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    pub(super) identify: identify::Behaviour,
    pub(super) kad: Toggle<Paced<kad::Behaviour<ProviderStore>>>,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(super) mdns_ipv6: Toggle<mdns::tokio::Behaviour>,
    pub(super) streams: streams::Behaviour,
}

impl Behaviour {
    /// Composes the behaviour of one node; `seed` feeds the sampling of provider answers.
    pub(super) fn new(config: &NetworkConfig, seed: u64) -> Self {
        let local_peer = config.identity.peer_id();
        Self {
            limits: connection_limits::Behaviour::new(
                ConnectionLimits::default()
                    .with_max_pending_incoming(Some(ACCEPTS_MAX))
                    .with_max_pending_outgoing(Some(DIALS_MAX))
                    .with_max_established_incoming(Some(INBOUND_MAX))
                    .with_max_established(Some(ESTABLISHED_MAX))
                    .with_max_established_per_peer(Some(PER_PEER_MAX)),
            ),
            identify: identify(config),
            kad: Toggle::from(config.dht.then(|| Paced::new(kademlia(local_peer, seed)))),
            mdns: Toggle::from(config.mdns.then(|| multicast(local_peer, Ip::V4)).flatten()),
            mdns_ipv6: Toggle::from(config.mdns.then(|| multicast(local_peer, Ip::V6)).flatten()),
            streams: streams::Behaviour::new(),
        }
    }
}

fn identify(config: &NetworkConfig) -> identify::Behaviour {
    let identity = config.identity.as_libp2p();
    let agent: String = config.agent.chars().take(AGENT_LEN_MAX).collect();
    identify::Behaviour::new(
        identify::Config::new_with_signed_peer_record(IDENTIFY_PROTOCOL.to_owned(), identity)
            .with_agent_version(agent)
            .with_interval(IDENTIFY_EVERY)
            .with_push_listen_addr_updates(true)
            // What is told are our external addresses, which the driver chooses: a message holds 4,096 bytes, each address
            // twice, and one that is longer is lost as a whole. A machine of labs and containers has 60 interfaces.
            .with_hide_listen_addrs(true)
            // Off: it would add unfiltered addresses to every dial; our own book keeps the filtered ones.
            .with_cache_size(0),
    )
}

fn kademlia(local_peer: PeerId, seed: u64) -> kad::Behaviour<ProviderStore> {
    let mut config = kad::Config::new(KAD_PROTOCOL);
    config
        .set_query_timeout(QUERY_TIMEOUT)
        .set_periodic_bootstrap_interval(Some(REFRESH_EVERY))
        .set_parallelism(QUERY_PARALLELISM)
        .set_provider_record_ttl(Some(PROVIDER_TTL))
        // Ours: `discovery`. The built-in one starts a hundred announcements at once and never sees the table grow.
        .set_provider_publication_interval(None)
        // No values are kept.
        .set_publication_interval(None)
        .set_replication_interval(None)
        .set_record_ttl(None)
        .set_caching(kad::Caching::Disabled)
        // Records come to the driver, which knows where their sender is, before they reach the store.
        .set_record_filtering(kad::StoreInserts::FilterBoth);
    let store = ProviderStore::new(local_peer, seed);
    let mut kademlia = kad::Behaviour::with_config(local_peer, store, config);
    // Explicit: else a node stays a client until somebody confirms an address, which on a LAN nobody does.
    kademlia.set_mode(Some(kad::Mode::Server));
    kademlia
}

/// Over which of the two multicast speaks: libp2p's does one or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ip {
    V4,
    V6,
}

/// `None` when multicast is not possible here (no network, a container without it): the other means remain.
fn multicast(local_peer: PeerId, ip: Ip) -> Option<mdns::tokio::Behaviour> {
    let settings = mdns::Config {
        enable_ipv6: ip == Ip::V6,
        ..mdns::Config::default()
    };
    mdns::tokio::Behaviour::new(settings, local_peer)
        .inspect_err(|error| tracing::warn!(%error, "mDNS is not available"))
        .ok()
}
