//! TLS 1.3 as libp2p has it: each end shows one certificate that its identity key has signed, and nothing else is believed.
//! Certificates are made and judged by `libp2p-tls`; what is ours is the choice of ciphers, which `libp2p-tls` fixes with
//! ChaCha20 first, and buffers for whole yamux frames. Used by `security`.
//! Source: libp2p specification `tls/tls.md`; RFC 8446.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures::future::Either;
use futures::{AsyncRead, AsyncWrite};
use futures_rustls::{TlsAcceptor, TlsConnector, client, server};
use libp2p::PeerId;
use libp2p_tls::certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName,
    OtherError, ServerConfig, SignatureScheme, SupportedCipherSuite,
};

use super::muxer;
use crate::network::identity::Keypair;

/// The name of this protocol within TLS.
const ALPN: &[u8] = b"libp2p";

/// Plaintext that TLS takes before it has to be written to the socket: a whole frame of the multiplexer and its header, so
/// that a frame leaves in one system call. Less cuts frames, more only adds memory.
const WRITE_BUFFER_LEN: usize = muxer::FRAME_LEN_MAX + 1024;

/// Signatures a certificate may bear; elliptic curves first. What RSA with SHA-1 signed is refused.
const SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

/// A connection after the handshake: of who dialled, or of who accepted.
pub(super) type TlsStream<C> = Either<client::TlsStream<C>, server::TlsStream<C>>;

/// Both roles for one identity; cheap to clone.
#[derive(Clone)]
pub(super) struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Tls {
    /// Makes a certificate for `identity`, for as long as the process lives.
    ///
    /// # Errors
    /// The certificate could not be made from the key.
    pub(super) fn new(identity: &Keypair) -> Result<Self, rustls::Error> {
        let (certificate, key) = certificate::generate(identity.as_libp2p())
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let key = ring::sign::any_ecdsa_type(&key)?;
        Self::with_certificate(CertifiedKey::new(vec![certificate], key))
    }

    fn with_certificate(certificate: CertifiedKey) -> Result<Self, rustls::Error> {
        let provider = Arc::new(provider());
        let certificate = Arc::new(OneCertificate(Arc::new(certificate)));
        let versions = &[&rustls::version::TLS13];

        let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Judge))
            .with_client_cert_resolver(Arc::clone(&certificate) as _);
        client.alpn_protocols = vec![ALPN.to_vec()];
        // All peers have the same name here: a ticket of one would be shown to another.
        client.resumption = Resumption::disabled();

        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(Arc::new(Judge))
            .with_cert_resolver(certificate);
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.send_tls13_tickets = 0;

        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        })
    }

    /// The handshake of who accepted the connection, and whom it proved.
    ///
    /// # Errors
    /// Of the socket, or `InvalidData` when the peer's certificate or TLS is not acceptable.
    pub(super) async fn accept<C>(self, socket: C) -> io::Result<(PeerId, TlsStream<C>)>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = self.acceptor.accept(socket).await?;
        let (_, state) = stream.get_mut();
        state.set_buffer_limit(Some(WRITE_BUFFER_LEN));
        Ok((peer_of(state)?, Either::Right(stream)))
    }

    /// The handshake of who dialled. Errors as for [`Self::accept`].
    pub(super) async fn connect<C>(self, socket: C) -> io::Result<(PeerId, TlsStream<C>)>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        // An address instead of a name: the specification forbids to send a name.
        let nobody = ServerName::from(IpAddr::from(Ipv4Addr::UNSPECIFIED));
        let mut stream = self.connector.connect(nobody, socket).await?;
        let (_, state) = stream.get_mut();
        state.set_buffer_limit(Some(WRITE_BUFFER_LEN));
        Ok((peer_of(state)?, Either::Left(stream)))
    }
}

fn peer_of(state: &CommonState) -> io::Result<PeerId> {
    let [certificate] = state.peer_certificates().unwrap_or_default() else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not exactly one certificate",
        ));
    };
    judge(certificate, &[]).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Everything of ring, though aws-lc is here too for QUIC: its AES was 1.25 times as fast (935 against 743 MB/s), and the
/// first random number of aws-lc costs each process 37 ms, more than all other work of a small fetch.
fn provider() -> CryptoProvider {
    let cipher_suites = if has_aes() {
        AES_FIRST.to_vec()
    } else {
        AES_FIRST.iter().rev().copied().collect()
    };
    CryptoProvider {
        cipher_suites,
        ..ring::default_provider()
    }
}

/// With AES in the CPU, AES-128-GCM costs two thirds of ChaCha20-Poly1305; without, several times as much.
const AES_FIRST: [SupportedCipherSuite; 3] = [
    TLS13_AES_128_GCM_SHA256,
    TLS13_AES_256_GCM_SHA384,
    TLS13_CHACHA20_POLY1305_SHA256,
];

/// Whether the CPU multiplies and encrypts for AES-GCM.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let has = std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}

/// Shows the same certificate to everybody.
#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesClientCert for OneCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// Judges the certificates of both roles alike: there is no authority, and a client without a certificate is refused.
/// Whether the peer is the one that was meant is for the swarm to say, which knows whom it dialled.
#[derive(Debug)]
struct Judge;

/// The peer whose identity key signed the key of this one certificate: valid now, signed by itself, with the extension of
/// libp2p and no critical one that is unknown.
fn judge(
    certificate: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
) -> Result<PeerId, rustls::Error> {
    if !others.is_empty() {
        return Err(refused(io::Error::other("more than one certificate")));
    }
    let certificate = certificate::parse(certificate).map_err(refused)?;
    Ok(certificate.peer_id())
}

/// The end that shows `certificate` holds its key: it signed this very handshake.
fn judge_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    certificate::parse(certificate)
        .map_err(refused)?
        .verify_signature(signed.scheme, message, signed.signature())
        .map_err(|_| CertificateError::BadSignature)?;
    Ok(HandshakeSignatureValid::assertion())
}

fn refused(error: impl std::error::Error + Send + Sync + 'static) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(error))).into()
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        judge(certificate, others).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        judge_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

impl ClientCertVerifier for Judge {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        judge(certificate, others).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        judge_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

#[cfg(test)]
mod tests;
