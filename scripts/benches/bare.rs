//! Bare transfers over loopback: what a connection gives with nothing of ours, and with our session streams alone.
//!
//! Each runs in a process of its own that holds both ends, on two runtimes, and prints seconds and CPU seconds.

mod quinn;
mod stream;
mod tls;

use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

use clap::ValueEnum;
use tokio::runtime::Runtime;

use crate::Result;
use crate::process::cpu_of;

/// Bytes of a piece, and of one write.
const PIECE_LEN: usize = 1 << 20;
const WRITE_LEN: usize = 256 * 1024;

/// Where both ends of a session listen.
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";

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
    /// quinn with the certificates, ciphers and windows that our QUIC has, memory to memory.
    Quinn,
    /// The data stream of a session over QUIC, memory to memory.
    QuicStream,
}

/// Seconds and CPU seconds of one bare transfer of `mib`; `command` begins the command line, if it is to run in a
/// namespace.
pub(crate) fn in_own_process(
    command: Option<Command>,
    kind: Kind,
    mib: u64,
    folder: &Path,
) -> Result<(f64, f64)> {
    let kind = kind.to_possible_value().ok_or("every kind has a name")?;
    let ourselves = std::env::current_exe()?;
    let mut command = match command {
        Some(mut command) => {
            command.arg(ourselves);
            command
        }
        None => Command::new(ourselves),
    };
    let output = command
        .args(["bare", kind.get_name(), "--mib", &mib.to_string()])
        .arg("--folder")
        .arg(folder)
        .env("GLIBC_TUNABLES", TUNABLES)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    match (output.status.success(), numbers.next(), numbers.next()) {
        (true, Some(Ok(wall)), Some(Ok(cpu))) => Ok((wall, cpu)),
        _ => {
            let reason = String::from_utf8_lossy(&output.stderr);
            Err(format!("{}: {text}{reason}", kind.get_name()).into())
        }
    }
}

/// One bare transfer in this process.
pub(crate) fn once(kind: Kind, mib: u64, folder: &Path) -> Result<()> {
    let bytes = (mib as usize) << 20;
    let (sending, receiving) = (Runtime::new()?, Runtime::new()?);
    let before = cpu_of(std::process::id())?;
    let wall = match kind {
        Kind::Tls => tls::tls(&sending, &receiving, bytes)?,
        Kind::Stream => stream::stream(&sending, &receiving, TCP, bytes, None)?,
        Kind::Files => stream::stream(&sending, &receiving, TCP, bytes, Some(folder))?,
        Kind::Quinn => quinn::quinn(&sending, &receiving, bytes)?,
        Kind::QuicStream => stream::stream(&sending, &receiving, QUIC, bytes, None)?,
    };
    let cpu = cpu_of(std::process::id())? - before;
    writeln!(io::stdout(), "{wall} {cpu}")?;
    Ok(())
}
