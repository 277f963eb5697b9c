//! rustls with AES-128-GCM over TCP, memory to memory.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use futures::{AsyncReadExt, AsyncWriteExt};
use futures_rustls::{TlsAcceptor, TlsConnector};
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::{PIECE_LEN, WRITE_LEN};
use crate::Result;

/// Gives seconds.
pub(super) fn tls(sending: &Runtime, receiving: &Runtime, bytes: usize) -> Result<f64> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.key_pair.serialize_der()));
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    let provider = Arc::new(provider);
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();

    let listener = receiving.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address: SocketAddr = listener.local_addr()?;
    let received = receiving.spawn(async move {
        let (socket, _) = listener.accept().await?;
        let mut stream = TlsAcceptor::from(Arc::new(server))
            .accept(socket.compat())
            .await?;
        let began = Instant::now();
        let (mut buffer, mut left) = (vec![0; PIECE_LEN], bytes);
        while left > 0 {
            match stream.read(&mut buffer).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => left -= len,
            }
        }
        Ok::<_, io::Error>(began.elapsed().as_secs_f64())
    });
    let sent = sending.spawn(async move {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let name = "localhost".try_into().map_err(io::Error::other)?;
        let mut stream = TlsConnector::from(Arc::new(client))
            .connect(name, socket.compat())
            .await?;
        stream.get_mut().1.set_buffer_limit(Some(WRITE_LEN));
        let buffer = vec![7; WRITE_LEN];
        for _ in 0..bytes / WRITE_LEN {
            stream.write_all(&buffer).await?;
        }
        stream.flush().await?;
        Ok::<_, io::Error>(stream)
    });
    let wall = receiving.block_on(received)??;
    sending.block_on(sent)??;
    Ok(wall)
}
