//! The part of the stream behaviour that lives in one connection's task: opening a session's two streams, and pairing
//! those the peer opens. It never sees other connections, and reads of a stream only the bytes named here.
//! Driven by libp2p; created by `super::Behaviour`. Source: libp2p multistream-select specification; `PROTOCOL.md` in `wire`.
//!
//! Both streams begin with the same 8 bytes, chosen by the opener, that say which two belong together; on the control
//! stream the acceptor answers one byte, [`TAKEN`] or [`BUSY`]. So an open session is one the other side has in hand:
//!
//! | opener | acceptor |
//! |---|---|
//! | control: `token` (8 bytes) | waits for the data stream of the same token, at most 5 s |
//! | data: `token` (8 bytes) | a place free: `TAKEN`, the session is handed over; none: `BUSY`, both streams end |
//! | session open, or refused | |

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, StreamExt};
use libp2p::core::upgrade::{InboundUpgrade, NegotiationError, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, StreamUpgradeError,
    SubstreamProtocol,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::OPEN_TIMEOUT;
use crate::network::dial_error::DialFailure;
use crate::wire;

const CONTROL: StreamProtocol = StreamProtocol::new(wire::CONTROL_PROTOCOL);
const DATA: StreamProtocol = StreamProtocol::new(wire::DATA_PROTOCOL);

/// The acceptor's answer: the session is in its hands.
const TAKEN: u8 = 1;
/// The acceptor's answer: too many sessions wait for its application.
const BUSY: u8 = 2;

/// Inbound sessions of one connection that are accepted but not yet taken by the application.
const INBOUND_PER_CONNECTION_MAX: usize = 4;

/// Streams of one connection that wait for their other half.
const HALVES_MAX: usize = 4;

/// Timers and answers of one connection under way; a peer that opens streams faster loses the surplus.
const WAITS_MAX: usize = 64;

/// Which of a session's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::network) enum Kind {
    Control,
    Data,
}

/// Keeps a place of the inbound queue taken.
#[derive(Debug)]
pub(in crate::network) struct Place {
    _everywhere: OwnedSemaphorePermit,
    _here: OwnedSemaphorePermit,
}

/// Asks a connection's handler for a session.
#[derive(Debug)]
pub(in crate::network) struct Open {
    pub(super) opening: u64,
}

/// What a connection's handler reports.
pub(in crate::network) enum FromHandler {
    Opened {
        opening: u64,
        control: Stream,
        data: Stream,
    },
    Failed {
        opening: u64,
        failure: DialFailure,
    },
    Inbound {
        control: Stream,
        data: Stream,
        place: Place,
    },
}

impl fmt::Debug for FromHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opened { .. } => "Opened",
            Self::Failed { .. } => "Failed",
            Self::Inbound { .. } => "Inbound",
        })
    }
}

/// A session we are opening: filled by two upgrades in any order.
struct Outgoing {
    opening: u64,
    control: Option<Stream>,
    data: Option<Stream>,
}

/// Something the handler waits for by itself.
enum Waited {
    /// The acceptor's answer was written, or could not be.
    Answered(Option<Box<FromHandler>>),
    /// A half waited long enough.
    Expired { token: u64 },
}

/// The part of the behaviour that lives in one connection's task.
pub(in crate::network) struct Handler {
    everywhere: Arc<Semaphore>,
    here: Arc<Semaphore>,
    requests: VecDeque<SubstreamProtocol<OpenStream, (u64, Kind)>>,
    outgoing: Vec<Outgoing>,
    /// Inbound streams whose other half has not come, oldest first.
    halves: VecDeque<Half>,
    waits: FuturesUnordered<BoxFuture<'static, Waited>>,
    reports: VecDeque<FromHandler>,
}

impl Handler {
    pub(super) fn new(everywhere: Arc<Semaphore>) -> Self {
        Self {
            everywhere,
            here: Arc::new(Semaphore::new(INBOUND_PER_CONNECTION_MAX)),
            requests: VecDeque::new(),
            outgoing: Vec::new(),
            halves: VecDeque::new(),
            waits: FuturesUnordered::new(),
            reports: VecDeque::new(),
        }
    }

    fn on_outbound(&mut self, opening: u64, kind: Kind, stream: Stream) {
        let Some(index) = self
            .outgoing
            .iter()
            .position(|outgoing| outgoing.opening == opening)
        else {
            return; // The other half failed already; dropping the stream resets it.
        };
        let outgoing = &mut self.outgoing[index];
        match kind {
            Kind::Control => outgoing.control = Some(stream),
            Kind::Data => outgoing.data = Some(stream),
        }
        if outgoing.control.is_some() && outgoing.data.is_some() {
            let outgoing = self.outgoing.swap_remove(index);
            if let (Some(control), Some(data)) = (outgoing.control, outgoing.data) {
                self.reports.push_back(FromHandler::Opened {
                    opening,
                    control,
                    data,
                });
            }
        }
    }

    fn on_outbound_failed(&mut self, opening: u64, failure: DialFailure) {
        if let Some(index) = self
            .outgoing
            .iter()
            .position(|outgoing| outgoing.opening == opening)
        {
            self.outgoing.swap_remove(index);
            self.reports
                .push_back(FromHandler::Failed { opening, failure });
        }
    }

    fn on_inbound(&mut self, half: Half) {
        if self.waits.len() >= WAITS_MAX {
            return;
        }
        let other = self
            .halves
            .iter()
            .position(|other| other.token == half.token && other.kind != half.kind);
        let Some(other) = other.and_then(|index| self.halves.remove(index)) else {
            let token = half.token;
            self.halves.push_back(half);
            if self.halves.len() > HALVES_MAX {
                self.halves.pop_front();
            }
            let expired = async move {
                tokio::time::sleep(OPEN_TIMEOUT).await;
                Waited::Expired { token }
            };
            self.waits.push(expired.boxed());
            return;
        };
        let (control, data) = match half.kind {
            Kind::Control => (half.stream, other.stream),
            Kind::Data => (other.stream, half.stream),
        };
        let here = Arc::clone(&self.here).try_acquire_owned();
        let everywhere = Arc::clone(&self.everywhere).try_acquire_owned();
        let place = here
            .ok()
            .zip(everywhere.ok())
            .map(|(here, everywhere)| Place {
                _here: here,
                _everywhere: everywhere,
            });
        self.waits
            .push(answer(control, data, place).map(Waited::Answered).boxed());
    }
}

/// Tells the opener whether its session has a place; gives the report of it back if it has.
async fn answer(
    mut control: Stream,
    data: Stream,
    place: Option<Place>,
) -> Option<Box<FromHandler>> {
    let byte = if place.is_some() { TAKEN } else { BUSY };
    let written = tokio::time::timeout(OPEN_TIMEOUT, async {
        control.write_all(&[byte]).await?;
        control.flush().await?;
        if place.is_none() {
            control.close().await?;
        }
        io::Result::Ok(())
    });
    written.await.ok()?.ok()?;
    let place = place?;
    Some(Box::new(FromHandler::Inbound {
        control,
        data,
        place,
    }))
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = FromHandler;
    type InboundProtocol = AcceptStream;
    type OutboundProtocol = OpenStream;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = (u64, Kind);

    fn listen_protocol(&self) -> SubstreamProtocol<AcceptStream> {
        SubstreamProtocol::new(AcceptStream, ()).with_timeout(OPEN_TIMEOUT)
    }

    fn on_behaviour_event(&mut self, Open { opening }: Open) {
        self.outgoing.push(Outgoing {
            opening,
            control: None,
            data: None,
        });
        for kind in [Kind::Control, Kind::Data] {
            let stream = OpenStream {
                kind,
                token: opening,
            };
            let request =
                SubstreamProtocol::new(stream, (opening, kind)).with_timeout(OPEN_TIMEOUT);
            self.requests.push_back(request);
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, AcceptStream, OpenStream, (), (u64, Kind)>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol, ..
            }) => {
                self.on_inbound(protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info,
            }) => {
                self.on_outbound(info.0, info.1, protocol);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.on_outbound_failed(info.0, failure_of(error));
            }
            _ => {}
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<OpenStream, (u64, Kind), FromHandler>> {
        while let Poll::Ready(Some(waited)) = self.waits.poll_next_unpin(cx) {
            match waited {
                Waited::Answered(Some(report)) => self.reports.push_back(*report),
                Waited::Answered(None) => {}
                Waited::Expired { token } => self.halves.retain(|half| half.token != token),
            }
        }
        if let Some(report) = self.reports.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(report));
        }
        if let Some(protocol) = self.requests.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }
}

/// One inbound stream with its token read.
pub(in crate::network) struct Half {
    kind: Kind,
    token: u64,
    stream: Stream,
}

/// Inbound upgrade: which stream it is, and its token.
#[derive(Debug, Clone, Copy)]
pub(in crate::network) struct AcceptStream;

impl UpgradeInfo for AcceptStream {
    type Info = StreamProtocol;
    type InfoIter = [StreamProtocol; 2];

    fn protocol_info(&self) -> Self::InfoIter {
        [CONTROL, DATA]
    }
}

impl InboundUpgrade<Stream> for AcceptStream {
    type Output = Half;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Half>>;

    fn upgrade_inbound(self, mut stream: Stream, protocol: StreamProtocol) -> Self::Future {
        let kind = if protocol == CONTROL {
            Kind::Control
        } else {
            Kind::Data
        };
        async move {
            let mut token = [0; 8];
            stream.read_exact(&mut token).await?;
            let token = u64::from_be_bytes(token);
            Ok(Half {
                kind,
                token,
                stream,
            })
        }
        .boxed()
    }
}

/// Outbound upgrade: writes the token; on the control stream waits for the answer.
#[derive(Debug, Clone, Copy)]
pub(in crate::network) struct OpenStream {
    kind: Kind,
    token: u64,
}

/// Why a stream did not open after its protocol was agreed.
#[derive(Debug)]
pub(in crate::network) enum OpenError {
    Busy,
    Io(io::Error),
}

impl UpgradeInfo for OpenStream {
    type Info = StreamProtocol;
    type InfoIter = [StreamProtocol; 1];

    fn protocol_info(&self) -> Self::InfoIter {
        match self.kind {
            Kind::Control => [CONTROL],
            Kind::Data => [DATA],
        }
    }
}

impl OutboundUpgrade<Stream> for OpenStream {
    type Output = Stream;
    type Error = OpenError;
    type Future = BoxFuture<'static, Result<Stream, OpenError>>;

    fn upgrade_outbound(self, mut stream: Stream, _: StreamProtocol) -> Self::Future {
        async move {
            stream
                .write_all(&self.token.to_be_bytes())
                .await
                .map_err(OpenError::Io)?;
            stream.flush().await.map_err(OpenError::Io)?;
            if self.kind == Kind::Control {
                let mut answer = [0; 1];
                stream
                    .read_exact(&mut answer)
                    .await
                    .map_err(OpenError::Io)?;
                if answer != [TAKEN] {
                    return Err(OpenError::Busy);
                }
            }
            Ok(stream)
        }
        .boxed()
    }
}

fn failure_of(error: StreamUpgradeError<OpenError>) -> DialFailure {
    match error {
        StreamUpgradeError::Timeout => DialFailure::Timeout,
        StreamUpgradeError::NegotiationFailed => DialFailure::NotShoal,
        StreamUpgradeError::Apply(OpenError::Busy) => DialFailure::Denied,
        // The protocol is proposed together with the first bytes, so a peer without it is noticed on reading.
        StreamUpgradeError::Apply(OpenError::Io(error)) | StreamUpgradeError::Io(error) => {
            let refused = error.get_ref().and_then(|inner| inner.downcast_ref());
            match refused {
                Some(NegotiationError::Failed) => DialFailure::NotShoal,
                _ => DialFailure::Closed,
            }
        }
    }
}
