//! `import`: hashing of what is to be shared, from the page cache.

use std::fs;
use std::process::Stdio;
use std::time::Instant;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Result;
use crate::lab::{Lab, write_noise};
use crate::process::measure;
use crate::report::{median, say, spread};

/// Bytes hashed as the yardstick, a piece of cached memory again and again.
const YARDSTICK_MIB: usize = 512;

pub(crate) fn run(lab: &Lab, mib: u64, runs: usize) -> Result<Vec<Value>> {
    let input = lab.path("input.bin");
    write_noise(&input, mib << 20)?;
    let path = input.to_str().ok_or("the path is text")?;
    let count = std::thread::available_parallelism()?.get();
    let (mut walls, mut cores, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..=runs {
        // Without what an earlier run remembered.
        if lab.path("home").exists() {
            fs::remove_dir_all(lab.path("home"))?;
        }
        let mut link = std::process::Command::new(&lab.binary);
        link.args(["link", path, "--quiet", "--home"])
            .arg(lab.path("home"));
        let run = measure(link.stdout(Stdio::null()))?;
        let core = one_core();
        if number > 0 {
            lines.push(json!({ "bench": "import", "mib": mib, "secs": run.wall, "cpu": run.cpu, "core_mb_per_sec": core,
                "cores": count }));
            walls.push(run.wall);
            cores.push(core);
        }
    }
    let rate = mib as f64 * 1.048_576 / median(&walls);
    let core = median(&cores);
    say(&format!(
        "import of {mib} MiB from the page cache, {runs} runs: {} s, {rate:.0} MB/s",
        spread(&walls)
    ));
    say(&format!(
        "SHA-256 on one core {core:.0} MB/s; import is {:.2} of {count} cores",
        rate / (core * count as f64)
    ));
    Ok(lines)
}

/// SHA-256 of one core in MB/s.
fn one_core() -> f64 {
    let block = vec![7_u8; 1 << 20];
    let mut hasher = Sha256::new();
    let began = Instant::now();
    for _ in 0..YARDSTICK_MIB {
        hasher.update(&block);
    }
    std::hint::black_box(hasher.finalize());
    YARDSTICK_MIB as f64 * 1.048_576 / began.elapsed().as_secs_f64()
}
