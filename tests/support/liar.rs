//! A peer that speaks the protocol and lies: it says it holds everything and sends bytes of its own.
//!
//! Built from the crate's network and wire rooms; it knows manifest and hashes, so only its pieces are bad.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use shoal::content::{Manifest, Multiaddr, PeerId};
use shoal::network::{self, Keypair, NetworkConfig, NetworkEvent, SessionStreams};
use shoal::storage::{ImportOptions, import};
use shoal::wire::{
    Control, DataHeader, DataKind, FrameBuffer, Hello, SLICE_LEN_MAX, ShareMessage, ShareNumber,
    VERSION, encode_frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NUMBER: ShareNumber = ShareNumber(3);

/// A running liar; stops when dropped.
pub struct Liar {
    pub address: String,
    pub peer: String,
    _runtime: tokio::runtime::Runtime,
}

impl Liar {
    /// Claims to hold the share of `file`.
    pub fn start(file: &Path) -> Self {
        let imported = import(
            &[file.to_owned()],
            &ImportOptions::default(),
            &|_| {},
            &AtomicBool::new(false),
        )
        .unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listen: Multiaddr = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
        let identity = Keypair::generate();
        let local = identity.peer_id();
        let config = NetworkConfig {
            identity,
            listen: vec![listen],
            mdns: false,
            dht: false,
            agent: "liar/1".into(),
        };
        let (handle, mut events) = runtime.block_on(network::start(config)).unwrap();
        let address = runtime.block_on(handle.listeners()).remove(0).to_string();
        let manifest = imported.manifest;
        runtime.spawn(async move {
            // The network ends with its last handle.
            let _network = handle;
            while let Some(event) = events.recv().await {
                if let NetworkEvent::InboundSession(streams) = event {
                    // A session that breaks off has done its work.
                    tokio::spawn(lie(manifest.clone(), local, streams));
                }
            }
        });
        Self {
            address,
            peer: local.to_string(),
            _runtime: runtime,
        }
    }
}

async fn lie(manifest: Manifest, local: PeerId, streams: SessionStreams) -> std::io::Result<()> {
    let SessionStreams {
        peer,
        mut control,
        mut data,
        ..
    } = streams;
    let mut say = Vec::new();
    let hello = Hello {
        version: VERSION,
        requests_max: 512,
        agent: "liar/1".into(),
    };
    encode_frame(&Control::Hello(hello), &mut say);
    let mut frames = FrameBuffer::default();
    let mut bytes = vec![0; 4096];
    let geometry = manifest.geometry();
    loop {
        control.write_all(&say).await?;
        control.flush().await?;
        say.clear();
        let len = control.read(&mut bytes).await?;
        if len == 0 {
            return Ok(());
        }
        frames.feed(&bytes[..len]);
        while let Ok(Some(message)) = frames.next_message() {
            match message {
                Control::Open { .. } => {
                    let token = *manifest.id().open_token(&local, &peer).as_bytes();
                    encode_frame(
                        &Control::Open {
                            number: NUMBER,
                            token,
                        },
                        &mut say,
                    );
                    encode_frame(
                        &Control::Share {
                            number: NUMBER,
                            message: ShareMessage::Ready,
                        },
                        &mut say,
                    );
                }
                Control::Share {
                    message: ShareMessage::Ready,
                    ..
                } => {
                    encode_frame(
                        &Control::Share {
                            number: NUMBER,
                            message: ShareMessage::HaveAll,
                        },
                        &mut say,
                    );
                }
                Control::Share {
                    message: ShareMessage::GetManifest,
                    ..
                } => {
                    let manifest = manifest.encode();
                    let kind = DataKind::Manifest {
                        total: manifest.len() as u32,
                        offset: 0,
                    };
                    let header = DataHeader {
                        share: NUMBER,
                        kind,
                        len: manifest.len() as u32,
                    };
                    data.write_all(&header.encode()).await?;
                    data.write_all(&manifest).await?;
                }
                Control::Share {
                    message: ShareMessage::Request { runs },
                    ..
                } => {
                    for piece in runs.iter().flat_map(|run| run.first..run.first + run.count) {
                        let len = geometry.len_of(geometry.piece(piece).unwrap());
                        let lies = vec![0xa5; len as usize];
                        for (part, slice) in (0..).zip(lies.chunks(SLICE_LEN_MAX as usize)) {
                            let kind = DataKind::Piece {
                                piece,
                                offset: part * SLICE_LEN_MAX,
                            };
                            let header = DataHeader {
                                share: NUMBER,
                                kind,
                                len: slice.len() as u32,
                            };
                            data.write_all(&header.encode()).await?;
                            data.write_all(slice).await?;
                        }
                    }
                    data.flush().await?;
                }
                _ => {}
            }
        }
    }
}
