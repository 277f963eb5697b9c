//! The data stream of a session: memory to memory, or from a file, hashed and written to a file.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use shoal::content::hash_piece;
use shoal::network::{self, Keypair, NetworkConfig, NetworkEvent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::PIECE_LEN;
use crate::Result;

/// Leaves of 16 KiB in a piece.
const PIECE_WIDTH: u32 = 64;

/// Pieces that are hashed and written while the next is read.
const CHECKS_MAX: usize = 3;

/// Over TCP or QUIC, as `listen` says; with files when there is a `folder`. Gives seconds.
pub(super) fn stream(
    sending: &Runtime,
    receiving: &Runtime,
    listen: &str,
    bytes: usize,
    folder: Option<&Path>,
) -> Result<f64> {
    let (input, output) = match folder {
        None => (None, None),
        Some(folder) => {
            let output = folder.join("stream.bin");
            (
                Some(File::open(folder.join("input.bin"))?),
                Some((File::create(&output)?, output)),
            )
        }
    };
    let (taker, mut arrivals) = receiving.block_on(network::start(config(listen)?))?;
    let (giver, _events) = sending.block_on(network::start(config(listen)?))?;
    let addresses = receiving.block_on(taker.listeners());
    let peer = taker.local_peer();
    let (file, made): (Option<Arc<File>>, Option<PathBuf>) = match output {
        Some((file, path)) => (Some(Arc::new(file)), Some(path)),
        None => (None, None),
    };
    let received = receiving.spawn(async move {
        let mut session = loop {
            match arrivals.recv().await {
                Some(NetworkEvent::InboundSession(session)) => break session,
                Some(_) => {}
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        let began = Instant::now();
        let checks = Arc::new(Semaphore::new(CHECKS_MAX));
        // Not given back to the kernel between pieces, as in the program.
        let mut free = vec![vec![0; PIECE_LEN]; CHECKS_MAX + 1];
        let (give_back, mut given_back) = tokio::sync::mpsc::channel(CHECKS_MAX + 1);
        for piece in 0..bytes / PIECE_LEN {
            let mut buffer = match free.pop() {
                Some(buffer) => buffer,
                None => given_back.recv().await.ok_or(io::ErrorKind::BrokenPipe)?,
            };
            session.data.read_exact(&mut buffer).await?;
            let Some(file) = file.clone() else {
                free.push(buffer);
                continue;
            };
            let permit = Arc::clone(&checks)
                .acquire_owned()
                .await
                .map_err(io::Error::other)?;
            let give_back = give_back.clone();
            tokio::task::spawn_blocking(move || {
                std::hint::black_box(hash_piece(&buffer, PIECE_WIDTH));
                let written = file.write_all_at(&buffer, (piece * PIECE_LEN) as u64);
                // The receiver ends when all pieces are in.
                let _ = give_back.blocking_send(buffer);
                drop(permit);
                written
            });
        }
        let all = u32::try_from(CHECKS_MAX).map_err(io::Error::other)?;
        let _all = checks.acquire_many(all).await.map_err(io::Error::other)?;
        Ok::<_, io::Error>(began.elapsed().as_secs_f64())
    });
    let sent = sending.spawn(async move {
        let mut session = giver
            .open_session(Some(peer), addresses)
            .await
            .map_err(io::Error::other)?;
        let input = input.map(Arc::new);
        let mut buffer = vec![7; PIECE_LEN];
        for piece in 0..bytes / PIECE_LEN {
            if let Some(input) = input.clone() {
                buffer = tokio::task::spawn_blocking(move || {
                    input
                        .read_exact_at(&mut buffer, (piece * PIECE_LEN) as u64)
                        .map(|()| buffer)
                })
                .await??;
            }
            session.data.write_all(&buffer).await?;
        }
        session.data.flush().await?;
        Ok::<_, io::Error>((giver, session))
    });
    let wall = receiving.block_on(received)??;
    drop(sending.block_on(sent)??);
    if let Some(path) = made {
        std::fs::remove_file(path)?;
    }
    Ok(wall)
}

fn config(listen: &str) -> Result<NetworkConfig> {
    Ok(NetworkConfig {
        identity: Keypair::generate(),
        listen: vec![listen.parse()?],
        mdns: false,
        dht: false,
        agent: "shoal/bench".to_owned(),
    })
}
