//! A behaviour to which all connections together report only so much in a time, each in its turn. What a peer asks beyond
//! that stays unread in its streams: else one that asks without end would have the task to itself that serves all of them.
//! Wraps Kademlia, whose every question costs a walk through the routing table. Used by `behaviour`.

use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::handler::ConnectionEvent;
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};
use tokio::time::{Instant, Sleep, sleep};

/// Reports at once. Who joins a network of few nodes asks each of them hundreds of questions.
const BURST: u32 = 1_024;

/// A further one each: more than any node is asked, and of a core a few hundredths.
const EVERY: Duration = Duration::from_millis(1);

/// The behaviour; see the file header.
pub(super) struct Paced<B> {
    inner: B,
    turns: Arc<Turns>,
}

impl<B> Paced<B> {
    pub(super) fn new(inner: B) -> Self {
        let turns = Arc::new(Turns(Mutex::new(Instant::now())));
        Self { inner, turns }
    }

    fn handler<H: ConnectionHandler>(&self, inner: H) -> Handler<H> {
        let turns = Arc::clone(&self.turns);
        let held = None;
        Handler { inner, turns, held }
    }
}

impl<B> Deref for Paced<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.inner
    }
}

impl<B> DerefMut for Paced<B> {
    fn deref_mut(&mut self) -> &mut B {
        &mut self.inner
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Paced<B> {
    type ConnectionHandler = Handler<THandler<B>>;
    type ToSwarm = B::ToSwarm;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.inner
            .handle_pending_inbound_connection(connection, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let handler = self
            .inner
            .handle_established_inbound_connection(connection, peer, local, remote);
        handler.map(|handler| self.handler(handler))
    }

    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.inner
            .handle_pending_outbound_connection(connection, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        role: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let handler = self
            .inner
            .handle_established_outbound_connection(connection, peer, address, role, port_use);
        handler.map(|handler| self.handler(handler))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner
            .on_connection_handler_event(peer, connection, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.inner.poll(cx)
    }
}

/// When the next report may be made, as the time at which [`BURST`] of them may be made again.
#[derive(Debug)]
struct Turns(Mutex<Instant>);

impl Turns {
    /// Takes the next turn; how long to wait for it.
    fn take(&self, now: Instant) -> Duration {
        let mut full_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *full_at = now.max(*full_at) + EVERY;
        (*full_at - now).saturating_sub(EVERY * BURST)
    }
}

/// A report and its turn.
struct Held<E> {
    report: E,
    turn: Pin<Box<Sleep>>,
}

/// The part in a connection's task.
pub(super) struct Handler<H: ConnectionHandler> {
    inner: H,
    turns: Arc<Turns>,
    /// Nothing more is asked of `inner` meanwhile.
    held: Option<Held<H::ToBehaviour>>,
}

impl<H: ConnectionHandler> ConnectionHandler for Handler<H> {
    type FromBehaviour = H::FromBehaviour;
    type ToBehaviour = H::ToBehaviour;
    type InboundProtocol = H::InboundProtocol;
    type OutboundProtocol = H::OutboundProtocol;
    type InboundOpenInfo = H::InboundOpenInfo;
    type OutboundOpenInfo = H::OutboundOpenInfo;

    fn listen_protocol(&self) -> SubstreamProtocol<H::InboundProtocol, H::InboundOpenInfo> {
        self.inner.listen_protocol()
    }

    fn connection_keep_alive(&self) -> bool {
        self.inner.connection_keep_alive()
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<H::OutboundProtocol, H::OutboundOpenInfo, H::ToBehaviour>>
    {
        if self.held.is_none() {
            match ready!(self.inner.poll(cx)) {
                ConnectionHandlerEvent::NotifyBehaviour(report) => {
                    let wait = self.turns.take(Instant::now());
                    if wait.is_zero() {
                        return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
                    }
                    let turn = Box::pin(sleep(wait));
                    self.held = Some(Held { report, turn });
                }
                other => return Poll::Ready(other),
            }
        }
        if let Some(held) = &mut self.held {
            ready!(held.turn.as_mut().poll(cx));
        }
        match self.held.take() {
            Some(held) => Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(held.report)),
            None => Poll::Pending,
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<H::ToBehaviour>> {
        match self.held.take() {
            Some(held) => Poll::Ready(Some(held.report)),
            None => self.inner.poll_close(cx),
        }
    }

    fn on_behaviour_event(&mut self, event: H::FromBehaviour) {
        self.inner.on_behaviour_event(event);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            '_,
            H::InboundProtocol,
            H::OutboundProtocol,
            H::InboundOpenInfo,
            H::OutboundOpenInfo,
        >,
    ) {
        self.inner.on_connection_event(event);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use libp2p::core::upgrade::DeniedUpgrade;

    use super::*;

    /// A connection whose peer asks without end.
    struct Asked;

    impl ConnectionHandler for Asked {
        type FromBehaviour = ();
        type ToBehaviour = ();
        type InboundProtocol = DeniedUpgrade;
        type OutboundProtocol = DeniedUpgrade;
        type InboundOpenInfo = ();
        type OutboundOpenInfo = ();

        fn listen_protocol(&self) -> SubstreamProtocol<DeniedUpgrade, ()> {
            SubstreamProtocol::new(DeniedUpgrade, ())
        }

        fn poll(
            &mut self,
            _: &mut Context<'_>,
        ) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), ()>> {
            Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(()))
        }

        fn on_behaviour_event(&mut self, (): ()) {}

        fn on_connection_event(&mut self, _: ConnectionEvent<'_, DeniedUpgrade, DeniedUpgrade>) {}
    }

    /// How many reports each of two connections makes within `span`.
    async fn reports(handlers: &mut [Handler<Asked>; 2], span: Duration) -> [u32; 2] {
        let mut counts = [0; 2];
        let counting = poll_fn(|cx| -> Poll<()> {
            loop {
                let mut is_idle = true;
                for (handler, count) in handlers.iter_mut().zip(&mut counts) {
                    if handler.poll(cx).is_ready() {
                        *count += 1;
                        is_idle = false;
                    }
                }
                if is_idle {
                    return Poll::Pending;
                }
            }
        });
        let ended = tokio::time::timeout(span, counting).await;
        assert!(ended.is_err(), "they ask without end");
        counts
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_at_once_and_then_each_connection_in_its_turn() {
        let paced = Paced::new(());
        let mut handlers = [paced.handler(Asked), paced.handler(Asked)];
        // Timers are a turn late at most.
        let [one, other] = reports(&mut handlers, EVERY / 2).await;
        assert!(
            (BURST..=BURST + 2).contains(&(one + other)),
            "{one} and {other}"
        );
        let [one, other] = reports(&mut handlers, EVERY * 100).await;
        assert!(one.abs_diff(other) <= 1, "{one} and {other}");
        assert!((98..=102).contains(&(one + other)), "{one} and {other}");
        sleep(EVERY * BURST * 3).await;
        let [one, other] = reports(&mut handlers, EVERY / 2).await;
        assert!(one + other <= BURST + 4, "no more is saved than a burst");
    }
}
