//! quinn alone, memory to memory, set as libp2p sets it for us: the same certificates, ciphers and windows.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use libp2p_identity::Keypair;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, ServerConfig, TransportConfig, VarInt};
use tokio::runtime::Runtime;

use super::{PIECE_LEN, WRITE_LEN};
use crate::Result;

/// Windows of a stream and of a connection. Source: defaults of libp2p-quic, which `network/transport/quic` leaves.
const STREAM_WINDOW: u32 = 10_000_000;
const CONNECTION_WINDOW: u32 = 15_000_000;

/// Gives seconds.
pub(super) fn quinn(sending: &Runtime, receiving: &Runtime, bytes: usize) -> Result<f64> {
    let (taker, giver) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .datagram_receive_buffer_size(None)
        .allow_spin(false);
    let transport = Arc::new(transport);
    let server = QuicServerConfig::try_from(libp2p_tls::make_server_config(&taker)?)?;
    let mut server = ServerConfig::with_crypto(Arc::new(server));
    server.transport = Arc::clone(&transport);
    let client = QuicClientConfig::try_from(libp2p_tls::make_client_config(&giver, None)?)?;
    let mut client = ClientConfig::new(Arc::new(client));
    client.transport_config(transport);

    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    // An endpoint belongs to the runtime it is made in.
    let listening = {
        let _entered = receiving.enter();
        Endpoint::server(server, here)?
    };
    let address = listening.local_addr()?;
    let dialling = {
        let _entered = sending.enter();
        Endpoint::client(here)?
    };
    let received = receiving.spawn(async move {
        let incoming = listening.accept().await;
        let connection = incoming.ok_or(io::ErrorKind::BrokenPipe)?.await?;
        let (_answers, mut stream) = connection.accept_bi().await?;
        let began = Instant::now();
        let (mut buffer, mut left) = (vec![0; PIECE_LEN], bytes);
        while left > 0 {
            match stream.read(&mut buffer).await.map_err(io::Error::other)? {
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(len) => left -= len,
            }
        }
        Ok::<_, io::Error>(began.elapsed().as_secs_f64())
    });
    let sent = sending.spawn(async move {
        let connecting = dialling.connect_with(client, address, "l");
        let connection = connecting.map_err(io::Error::other)?.await?;
        let (mut stream, _answers) = connection.open_bi().await?;
        let buffer = vec![7; WRITE_LEN];
        for _ in 0..bytes / WRITE_LEN {
            stream.write_all(&buffer).await.map_err(io::Error::other)?;
        }
        Ok::<_, io::Error>((dialling, connection, stream))
    });
    let wall = receiving.block_on(received)??;
    drop(sending.block_on(sent)??);
    Ok(wall)
}
