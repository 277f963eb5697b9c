//! A node that speaks libp2p and nothing of ours, as other programs on a network do. For tests of `network` and `node`.

use futures::StreamExt;
use libp2p::swarm::{SwarmEvent, dummy};
use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::task::JoinHandle;

use crate::network::{Keypair, transport};

/// One that runs.
pub(crate) struct Foreign {
    pub(crate) peer: PeerId,
    /// On loopback, without `/p2p/`.
    pub(crate) address: Multiaddr,
    /// To be aborted at the end.
    pub(crate) serving: JoinHandle<()>,
}

/// Starts one.
pub(crate) async fn start() -> Foreign {
    let identity = Keypair::generate();
    let settings = libp2p::swarm::Config::with_tokio_executor();
    let mut swarm = Swarm::new(
        transport::build(&identity).unwrap(),
        dummy::Behaviour,
        identity.peer_id(),
        settings,
    );
    swarm
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let serving = tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    });
    Foreign {
        peer: identity.peer_id(),
        address,
        serving,
    }
}
