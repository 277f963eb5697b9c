//! The choice between TLS and noise on a fresh connection. TLS is preferred: it may use the AES of the CPU, noise cannot.
//! Who accepts takes either; who dials offers one, because the dialler of a single protocol need not wait for the answer
//! and begins the handshake at once. Used by `tcp`.
//! Source: libp2p specifications `tls/tls.md`, `noise/README.md` and multistream-select (lazy variant).

use std::io;

use futures::future::{BoxFuture, Either};
use futures::{AsyncRead, AsyncWrite, FutureExt, TryFutureExt};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::{PeerId, noise};

use super::tls::{Tls, TlsStream};
use crate::network::identity::Keypair;

/// What is offered, or taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    Tls,
    Noise,
    Both,
}

impl Offer {
    /// The names in multistream-select, the preferred one first.
    fn names(self) -> &'static [&'static str] {
        const NAMES: &[&str] = &["/tls/1.0.0", "/noise"];
        match self {
            Self::Tls => &NAMES[..1],
            Self::Noise => &NAMES[1..],
            Self::Both => NAMES,
        }
    }
}

/// A connection on which everything is encrypted and the peer is proven.
pub(super) type Secured<C> = Either<TlsStream<C>, noise::Output<C>>;

/// The upgrade; cheap to clone.
#[derive(Clone)]
pub(super) struct Security {
    offer: Offer,
    tls: Tls,
    noise: noise::Config,
}

impl Security {
    /// Takes both.
    ///
    /// # Errors
    /// The key cannot be used.
    pub(super) fn new(identity: &Keypair) -> io::Result<Self> {
        Ok(Self {
            offer: Offer::Both,
            tls: Tls::new(identity).map_err(io::Error::other)?,
            noise: noise::Config::new(identity.as_libp2p()).map_err(io::Error::other)?,
        })
    }

    /// The same with another offer.
    pub(super) fn offering(&self, offer: Offer) -> Self {
        Self {
            offer,
            ..self.clone()
        }
    }
}

impl UpgradeInfo for Security {
    type Info = &'static str;
    type InfoIter = std::iter::Copied<std::slice::Iter<'static, &'static str>>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.offer.names().iter().copied()
    }
}

impl<C> InboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = (PeerId, Secured<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_inbound(self, socket: C, name: Self::Info) -> Self::Future {
        if name == Offer::Noise.names()[0] {
            let handshake = self.noise.upgrade_inbound(socket, name);
            handshake.map(with_noise).boxed()
        } else {
            self.tls.accept(socket).map_ok(with_tls).boxed()
        }
    }
}

impl<C> OutboundConnectionUpgrade<C> for Security
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = (PeerId, Secured<C>);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_outbound(self, socket: C, name: Self::Info) -> Self::Future {
        if name == Offer::Noise.names()[0] {
            let handshake = self.noise.upgrade_outbound(socket, name);
            handshake.map(with_noise).boxed()
        } else {
            self.tls.connect(socket).map_ok(with_tls).boxed()
        }
    }
}

fn with_tls<C>((peer, stream): (PeerId, TlsStream<C>)) -> (PeerId, Secured<C>) {
    (peer, Either::Left(stream))
}

fn with_noise<C>(
    outcome: Result<(PeerId, noise::Output<C>), noise::Error>,
) -> io::Result<(PeerId, Secured<C>)> {
    let (peer, stream) = outcome.map_err(|error| match error {
        noise::Error::Io(error) => error,
        error => io::Error::other(error),
    })?;
    Ok((peer, Either::Right(stream)))
}
