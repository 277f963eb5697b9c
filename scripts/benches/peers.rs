//! Other programs on the same work, through a `peers.py` that knows how to run them.
//!
//! Its contract: `peers.py SCENARIO:NAME --file F --runs 1 --tmp DIR --out FILE [--fetchers N --up BYTES_PER_SEC
//! --fault-at SECS]` appends one JSON object with `name`, `secs`, CPU seconds and, of a failed run, `error`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Result;
use crate::lab::Lab;
use crate::report::say;

/// CPU seconds in what `peers.py` writes.
pub(crate) const CPU_OF_SEEDER: &str = "cpu_seed";
pub(crate) const CPU_OF_FETCHER: &str = "cpu_fetch";

/// The programs that are here.
pub(crate) struct Peers {
    script: PathBuf,
    pub(crate) names: Vec<String>,
}

impl Peers {
    pub(crate) fn find(folder: &Path, names: &str) -> Self {
        let script = folder.join("peers.py");
        let has_script = script.exists();
        if !has_script {
            say(&format!("only Shoal: no {}", script.display()));
        }
        let is_here = |name: &&str| has_script && is_installed(name);
        let names: Vec<_> = names
            .split(',')
            .filter(is_here)
            .map(str::to_owned)
            .collect();
        Self { script, names }
    }

    /// One run; `None` when it failed, which is said.
    pub(crate) fn run(
        &self,
        lab: &Lab,
        scenario: &str,
        name: &str,
        flags: &[String],
    ) -> Result<Option<Value>> {
        let out = lab.path("peers.ndjson");
        // What an earlier run left.
        let _ = fs::remove_file(&out);
        let folder = lab.path("peers");
        fs::create_dir_all(&folder)?;
        let mut command = Command::new("python3");
        command.arg(&self.script).arg(format!("{scenario}:{name}"));
        command.args(["--runs", "1"]).args(flags);
        command.arg("--tmp").arg(&folder).arg("--out").arg(&out);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status()?;
        let result: Value = serde_json::from_str(fs::read_to_string(&out)?.trim())?;
        if result["secs"].is_number() {
            return Ok(Some(result));
        }
        say(&format!(
            "{name} did not finish {scenario}: {}",
            result["error"]
        ));
        Ok(None)
    }
}

/// Whether the program, or for libtorrent a python that has it, can be run.
fn is_installed(name: &str) -> bool {
    let python = std::env::var("LT_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut probe = match name.split('-').next() {
        Some("libtorrent") => {
            let mut probe = Command::new(python);
            probe.args(["-c", "import libtorrent"]);
            probe
        }
        Some("aria2") => Command::new("aria2c"),
        _ => Command::new(name),
    };
    if !name.starts_with("libtorrent") {
        probe.arg("--version");
    }
    let ran = probe.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_here = ran.is_ok_and(|status| status.success());
    if !is_here {
        say(&format!("without {name}: not installed"));
    }
    is_here
}
