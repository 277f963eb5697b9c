//! The measure `wire`: how much of a bare encrypted connection is left at each layer of ours.
//!
//! Each run is a process of its own that holds both ends, on two runtimes, over loopback; it prints seconds and CPU
//! seconds. They take turns, so that the ratios of one call mean something.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use futures_rustls::{TlsAcceptor, TlsConnector};
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::{Value, json};
use shoal::content::hash_piece;
use shoal::network::{self, Keypair, NetworkConfig, NetworkEvent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::Result;
use crate::lab::{Lab, write_noise};
use crate::process::cpu_of;
use crate::report::{median, say, spread};

/// Bytes of a piece, and of one write.
const PIECE_LEN: usize = 1 << 20;
const WRITE_LEN: usize = 256 * 1024;

/// Leaves of 16 KiB in a piece.
const PIECE_WIDTH: u32 = 64;

/// Pieces that are hashed and written while the next is read.
const CHECKS_MAX: usize = 3;

/// What `cli/heap.rs` sets in the program itself.
const TUNABLES: &str = "glibc.malloc.trim_threshold=67108864:glibc.malloc.mmap_threshold=4194304:glibc.malloc.top_pad=1048576";

/// A bare transfer.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kind {
    /// rustls with AES-128-GCM over TCP, memory to memory.
    Tls,
    /// The data stream of a session, memory to memory.
    Stream,
    /// The same, from a file, hashed and written to a file.
    Files,
}

/// Runs every kind and the whole program in turn, and prints one table.
pub(crate) fn run(lab: &Lab, mib: u64, runs: usize) -> Result<Vec<Value>> {
    let input = lab.path("input.bin");
    write_noise(&input, mib << 20)?;
    let seeder = lab.seed(&input)?;
    let names = [
        "TLS, memory to memory",
        "session stream, memory to memory",
        "session stream, read, hashed, written",
        "shoal",
    ];
    let mut walls = [const { Vec::new() }; 4];
    let mut cpus = [const { Vec::new() }; 4];
    let mut lines = Vec::new();
    // The first round warms caches and is not counted.
    for round in 0..=runs {
        let mut results = Vec::new();
        for kind in [Kind::Tls, Kind::Stream, Kind::Files] {
            results.push(in_own_process(kind, mib, &lab.path(""))?);
        }
        let before = cpu_of(seeder.process.0.id())?;
        let (fetch, into) = lab.fetch(&seeder.link)?;
        std::fs::remove_dir_all(into)?;
        results.push((
            fetch.wall,
            fetch.cpu + cpu_of(seeder.process.0.id())? - before,
        ));
        if round == 0 {
            continue;
        }
        for (at, (wall, cpu)) in results.into_iter().enumerate() {
            walls[at].push(wall);
            cpus[at].push(cpu);
            lines.push(
                json!({ "bench": "wire", "what": names[at], "mib": mib, "secs": wall, "cpu": cpu }),
            );
        }
    }
    let (mb, gib) = ((mib << 20) as f64 / 1e6, mib as f64 / 1024.0);
    let bare = median(&walls[0]);
    say(&format!(
        "{mib} MiB over loopback, both ends, {runs} runs by turns, median (least-most)"
    ));
    say("| | seconds | MB/s | of TLS | CPU s/GiB |");
    say("|---|---|---|---|---|");
    for at in 0..names.len() {
        let wall = median(&walls[at]);
        say(&format!(
            "| {} | {} | {:.0} | {:.2} | {:.2} |",
            names[at],
            spread(&walls[at]),
            mb / wall,
            bare / wall,
            median(&cpus[at]) / gib,
        ));
    }
    Ok(lines)
}

/// Seconds and CPU seconds of one bare transfer.
fn in_own_process(kind: Kind, mib: u64, folder: &Path) -> Result<(f64, f64)> {
    let kind = kind.to_possible_value().ok_or("every kind has a name")?;
    let output = Command::new(std::env::current_exe()?)
        .args(["wire-once", kind.get_name(), "--mib", &mib.to_string()])
        .arg("--folder")
        .arg(folder)
        .env("GLIBC_TUNABLES", TUNABLES)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    match (output.status.success(), numbers.next(), numbers.next()) {
        (true, Some(Ok(wall)), Some(Ok(cpu))) => Ok((wall, cpu)),
        _ => Err(format!("{kind:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// One bare transfer in this process.
pub(crate) fn once(kind: Kind, mib: u64, folder: &Path) -> Result<()> {
    let bytes = (mib as usize) << 20;
    let (sending, receiving) = (Runtime::new()?, Runtime::new()?);
    let before = cpu_of(std::process::id())?;
    let wall = match kind {
        Kind::Tls => tls(&sending, &receiving, bytes)?,
        Kind::Stream => stream(&sending, &receiving, bytes, None)?,
        Kind::Files => stream(&sending, &receiving, bytes, Some(folder))?,
    };
    let cpu = cpu_of(std::process::id())? - before;
    writeln!(io::stdout(), "{wall} {cpu}")?;
    Ok(())
}

fn tls(sending: &Runtime, receiving: &Runtime, bytes: usize) -> Result<f64> {
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

fn config(listen: &str) -> Result<NetworkConfig> {
    Ok(NetworkConfig {
        identity: Keypair::generate(),
        listen: vec![listen.parse()?],
        mdns: false,
        dht: false,
        agent: "shoal/bench".to_owned(),
    })
}

fn stream(
    sending: &Runtime,
    receiving: &Runtime,
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
    let (taker, mut arrivals) =
        receiving.block_on(network::start(config("/ip4/127.0.0.1/tcp/0")?))?;
    let (giver, _events) = sending.block_on(network::start(config("/ip4/127.0.0.1/tcp/0")?))?;
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
