//! The handshake against the stock implementation in both directions, and against peers that break one rule each.
#![allow(clippy::unwrap_used)]

use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};
use libp2p_tls::Config as Stock;
use rcgen::{CertificateParams, CustomExtension, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::*;

/// The name of the protocol in multistream-select.
const NAME: &str = "/tls/1.0.0";

type End = tokio_util::compat::Compat<tokio::io::DuplexStream>;

fn pipe() -> (End, End) {
    let (a, b) = tokio::io::duplex(1 << 16);
    (a.compat(), b.compat())
}

/// Writes on one end and reads the same on the other, both ways.
async fn assert_carries<A, B>(a: &mut A, b: &mut B)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let bytes: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    for _ in 0..2 {
        let write = async {
            a.write_all(&bytes).await.unwrap();
            a.flush().await.unwrap();
        };
        let mut read = vec![0; bytes.len()];
        let ((), outcome) = tokio::join!(write, b.read_exact(&mut read));
        outcome.unwrap();
        assert_eq!(read, bytes);
        let mut answer = [0; 3];
        b.write_all(b"yes").await.unwrap();
        b.flush().await.unwrap();
        a.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"yes");
    }
}

#[tokio::test]
async fn a_stock_peer_is_dialled() {
    let (ours, theirs) = (Keypair::generate(), Keypair::generate());
    let stock = Stock::new(theirs.as_libp2p()).unwrap();
    let (a, b) = pipe();
    let (dialled, accepted) = tokio::join!(
        Tls::new(&ours).unwrap().connect(a),
        stock.upgrade_inbound(b, NAME)
    );
    let ((them, mut dialled), (us, mut accepted)) = (dialled.unwrap(), accepted.unwrap());
    assert_eq!((us, them), (ours.peer_id(), theirs.peer_id()));
    assert_carries(&mut dialled, &mut accepted).await;
}

#[tokio::test]
async fn a_stock_peer_dials_us() {
    let (ours, theirs) = (Keypair::generate(), Keypair::generate());
    let stock = Stock::new(theirs.as_libp2p()).unwrap();
    let (a, b) = pipe();
    let (dialled, accepted) = tokio::join!(
        stock.upgrade_outbound(a, NAME),
        Tls::new(&ours).unwrap().accept(b)
    );
    let ((us, mut dialled), (them, mut accepted)) = (dialled.unwrap(), accepted.unwrap());
    assert_eq!((us, them), (ours.peer_id(), theirs.peer_id()));
    assert_carries(&mut dialled, &mut accepted).await;
}

#[tokio::test]
async fn two_of_us_use_the_aes_of_the_cpu() {
    let (a, b) = pipe();
    let dialler = Tls::new(&Keypair::generate()).unwrap();
    let acceptor = Tls::new(&Keypair::generate()).unwrap();
    let (dialled, accepted) = tokio::join!(dialler.connect(a), acceptor.accept(b));
    let (Either::Left(dialled), Either::Right(_)) = (dialled.unwrap().1, accepted.unwrap().1)
    else {
        panic!("each has its role");
    };
    let state = dialled.get_ref().1;
    let cipher = state.negotiated_cipher_suite().unwrap().suite();
    let expected = if has_aes() {
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256
    } else {
        rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
    };
    assert_eq!(cipher, expected);
}

/// A certificate that a dishonest peer may show, and the key it signs the handshake with.
struct Shown {
    params: CertificateParams,
    key: rcgen::KeyPair,
}

impl Shown {
    /// Breaks nothing, unless `mend` changes it.
    fn new(identity: &Keypair, mend: impl FnOnce(&mut Self)) -> Self {
        let key = rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.custom_extensions = vec![extension(identity, identity, &key)];
        let mut shown = Self { params, key };
        mend(&mut shown);
        shown
    }

    fn der(&self) -> CertificateDer<'static> {
        self.params.clone().self_signed(&self.key).unwrap().into()
    }

    fn tls(&self) -> Tls {
        show(vec![self.der()], &self.key)
    }
}

/// A peer that shows these certificates and signs with `key`.
fn show(certificates: Vec<CertificateDer<'static>>, key: &rcgen::KeyPair) -> Tls {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = ring::sign::any_ecdsa_type(&key).unwrap();
    Tls::with_certificate(CertifiedKey::new(certificates, key)).unwrap()
}

/// The extension in which `claimed` says that `key` is its own, signed by `signer`.
fn extension(claimed: &Keypair, signer: &Keypair, key: &rcgen::KeyPair) -> CustomExtension {
    let message = [b"libp2p-tls-handshake:", &key.public_key_der()[..]].concat();
    let signature = signer.as_libp2p().sign(&message).unwrap();
    let public = claimed.as_libp2p().public().encode_protobuf();
    // SEQUENCE of two OCTET STRINGs, all shorter than 128 bytes.
    let mut content = Vec::new();
    for part in [&public, &signature] {
        content.extend([4, u8::try_from(part.len()).unwrap()]);
        content.extend(part);
    }
    content.splice(0..0, [0x30, u8::try_from(content.len()).unwrap()]);
    let mut extension =
        CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 53594, 1, 1], content);
    extension.set_criticality(true);
    extension
}

/// The errors of an honest dialler and of an honest acceptor who meet this peer; `None` where it is believed.
async fn met(peer: &Tls) -> [Option<String>; 2] {
    let honest = Tls::new(&Keypair::generate()).unwrap();
    let refusal = |outcome: io::Result<()>| outcome.err().map(|error| error.to_string());
    let (a, b) = pipe();
    let (as_dialler, _) = tokio::join!(honest.clone().connect(a), peer.clone().accept(b));
    let (a, b) = pipe();
    let (as_acceptor, _) = tokio::join!(honest.accept(b), peer.clone().connect(a));
    [
        refusal(as_dialler.map(|_| ())),
        refusal(as_acceptor.map(|_| ())),
    ]
}

async fn assert_refused(peer: &Tls, why: &str) {
    for error in met(peer).await {
        let error = error.expect("it is refused");
        assert!(error.contains(why), "{error}");
    }
}

#[tokio::test]
async fn what_breaks_no_rule_is_believed() {
    let peer = Shown::new(&Keypair::generate(), |_| {});
    assert_eq!(met(&peer.tls()).await, [None, None]);
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let stolen = Shown::new(&Keypair::generate(), |_| {});
    let key = rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    assert_refused(&show(vec![stolen.der()], &key), "BadSignature").await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let peer = Shown::new(&Keypair::generate(), |shown| {
        shown.params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        shown.params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    });
    assert_refused(&peer.tls(), "InvalidCertValidity").await;
}

#[tokio::test]
async fn a_certificate_of_the_future_is_refused() {
    let peer = Shown::new(&Keypair::generate(), |shown| {
        shown.params.not_before = rcgen::date_time_ymd(3001, 1, 1);
    });
    assert_refused(&peer.tls(), "InvalidCertValidity").await;
}

#[tokio::test]
async fn an_identity_that_did_not_sign_the_certificate_is_refused() {
    let (claimed, signer) = (Keypair::generate(), Keypair::generate());
    let peer = Shown::new(&claimed, |shown| {
        shown.params.custom_extensions = vec![extension(&claimed, &signer, &shown.key)];
    });
    assert_refused(&peer.tls(), "UnknownIssuer").await;
}

#[tokio::test]
async fn an_identity_that_signed_another_certificate_is_refused() {
    let identity = Keypair::generate();
    let other = rcgen::KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let peer = Shown::new(&identity, |shown| {
        shown.params.custom_extensions = vec![extension(&identity, &identity, &other)];
    });
    assert_refused(&peer.tls(), "UnknownIssuer").await;
}

#[tokio::test]
async fn a_certificate_that_another_key_signed_is_refused() {
    let peer = Shown::new(&Keypair::generate(), |_| {});
    let mut der = peer.der().to_vec();
    // The signature stands last.
    *der.last_mut().unwrap() ^= 1;
    assert_refused(
        &show(vec![der.into()], &peer.key),
        "SignatureAlgorithmMismatch",
    )
    .await;
}

#[tokio::test]
async fn a_certificate_without_an_identity_is_refused() {
    let peer = Shown::new(&Keypair::generate(), |shown| {
        shown.params.custom_extensions.clear();
    });
    assert_refused(&peer.tls(), "BadDer").await;
}

#[tokio::test]
async fn a_second_certificate_is_refused() {
    let peer = Shown::new(&Keypair::generate(), |_| {});
    let both = vec![peer.der(), peer.der()];
    assert_refused(&show(both, &peer.key), "more than one certificate").await;
}
