//! Measures the built binary as processes: a table of medians for people, every run as a JSON line for programs.
//!
//! Only ratios within one call mean something on a busy machine, so each run of a measure is paired with a run of
//! its yardsticks. Run by `scripts/bench`.

mod bare;
mod fan_out;
mod figures;
mod fleet;
mod idle;
mod import;
mod lab;
mod links;
mod memory;
mod peers;
mod process;
mod quic;
mod report;
mod small_files;
mod start_up;
mod swarm;
mod transfer;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::lab::Lab;
use self::report::say;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[derive(Parser)]
#[command(about = "Measures Shoal")]
struct Bench {
    #[command(subcommand)]
    what: What,
    /// Counted runs of each measure.
    #[arg(long, default_value_t = 5, global = true)]
    runs: usize,
    /// Folder on the disk to measure.
    #[arg(long, global = true)]
    work: Option<PathBuf>,
    /// Folder with `peers.py`, which runs other programs on the same work in the same call; left out when not there.
    #[arg(
        long,
        global = true,
        env = "PEERS_BENCH",
        default_value = "../shared/bench"
    )]
    peers: PathBuf,
    /// Which of them, separated by commas.
    #[arg(
        long,
        global = true,
        env = "CONTENDERS",
        default_value = "aria2,libtorrent,rqbit"
    )]
    contenders: String,
}

#[derive(Subcommand)]
enum What {
    /// One seeder, one fetcher, loopback, no limits; beside `cp` and a plain TCP pipe with SHA-256.
    Transfer {
        /// Size of the file.
        #[arg(long, default_value_t = 2048)]
        mib: u64,
    },
    /// The program beside its own data stream and beside TLS alone, in CPU seconds and ratios.
    Wire {
        /// Bytes moved, in MiB.
        #[arg(long, default_value_t = 1024)]
        mib: u64,
    },
    /// QUIC beside quinn alone with the same cipher, and what both keep where 1 % of the packets are lost; the latter
    /// needs root, `ip` and `nft`.
    Quic {
        /// Bytes moved, in MiB.
        #[arg(long, default_value_t = 1024)]
        mib: u64,
    },
    /// One bare transfer of `wire` or `quic`, in this process.
    #[command(hide = true)]
    Bare {
        kind: bare::Kind,
        #[arg(long)]
        mib: u64,
        #[arg(long)]
        folder: PathBuf,
    },
    /// Many small files; beside `tar` through a plain TCP pipe.
    SmallFiles {
        /// Number of files of 4 KiB.
        #[arg(long, default_value_t = 100_000)]
        count: u32,
    },
    /// Hashing of a file in the page cache; beside SHA-256 on one core.
    Import {
        /// Size of the file.
        #[arg(long, default_value_t = 4096)]
        mib: u64,
    },
    /// Shaped links between network namespaces, and seeders that fail. Needs root, `ip` and `tc`.
    Swarm {
        /// Only scenarios whose name contains this.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// One seeder, four fetchers at once, links that nobody waits for. Needs root, `ip` and `tc`.
    FanOut {
        /// Size of the file.
        #[arg(long, default_value_t = 512)]
        mib: u64,
    },
    /// Peak memory of seeder and fetcher: a long transfer, and 50 fetchers at once. Needs root, `ip` and `tc`.
    Memory {
        /// Size of the file of the long transfer; that much is written to the disk.
        #[arg(long, default_value_t = 10_240)]
        mib: u64,
    },
    /// A seed with ten peers and nothing to do. Needs root, `ip` and `tc`.
    Idle {
        /// How long to watch.
        #[arg(long, default_value_t = 600)]
        secs: u64,
    },
    /// `fetch` of a 1 KiB file by its link, from process start to exit.
    StartUp,
    /// Measures nothing: prints the tables of the README from the runs that were kept, the last call of each command.
    Figures,
}

fn main() -> ExitCode {
    match run(&Bench::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("FAILED: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(bench: &Bench) -> Result<()> {
    if let What::Bare { kind, mib, folder } = &bench.what {
        return bare::once(*kind, *mib, folder);
    }
    let lab = Lab::new(bench.work.as_deref())?;
    let (kept, folder) = (lab.kept()?, lab.path("."));
    if let What::Figures = bench.what {
        return figures::print(&kept);
    }
    let peers = || peers::Peers::find(&bench.peers, &bench.contenders);
    let lines = match &bench.what {
        What::Transfer { mib } => transfer::run(&lab, &peers(), *mib, bench.runs)?,
        What::Wire { mib } => wire::run(&lab, *mib, bench.runs)?,
        What::Quic { mib } => quic::run(&lab.over_quic(), *mib, bench.runs)?,
        What::SmallFiles { count } => small_files::run(&lab, *count, bench.runs)?,
        What::Import { mib } => import::run(&lab, *mib, bench.runs)?,
        What::Swarm { only } => swarm::run(&lab, &peers(), only, bench.runs)?,
        What::FanOut { mib } => fan_out::run(&lab, &peers(), *mib, bench.runs)?,
        What::Memory { mib } => memory::run(&lab, *mib, bench.runs)?,
        What::Idle { secs } => idle::run(&lab, *secs)?,
        What::StartUp => start_up::run(&lab, bench.runs.max(20))?,
        What::Bare { .. } | What::Figures => Vec::new(),
    };
    figures::keep(&kept, &folder, lines)
}
