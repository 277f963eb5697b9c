//! Where measures are taken: the built binary, a folder for its files, and processes that end with the measure.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Result;
use crate::process::{Run, measure};

/// The binary beside this example's folder, and a folder that is removed at the end.
pub(crate) struct Lab {
    pub(crate) binary: PathBuf,
    folder: tempfile::TempDir,
    /// Where processes on loopback listen.
    listen: &'static str,
}

/// A process that is killed when dropped.
pub(crate) struct Guard(pub(crate) Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A seeder on loopback.
pub(crate) struct Seeder {
    pub(crate) process: Guard,
    pub(crate) link: String,
}

impl Lab {
    /// Over TCP; its files in a folder in `work`, or where temporary files are.
    pub(crate) fn new(work: Option<&Path>) -> Result<Self> {
        let folder = match work {
            Some(work) => tempfile::tempdir_in(work)?,
            None => tempfile::tempdir()?,
        };
        let ourselves = std::env::current_exe()?;
        let build = ourselves.parent().and_then(Path::parent);
        let binary = build
            .ok_or("the example lies in a build folder")?
            .join("shoal");
        Ok(Self {
            binary,
            folder,
            listen: "/ip4/127.0.0.1/tcp/0",
        })
    }

    /// The same, over QUIC alone.
    pub(crate) fn over_quic(self) -> Self {
        Self {
            listen: "/ip4/127.0.0.1/udp/0/quic-v1",
            ..self
        }
    }

    /// A path in the folder of the lab.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `shoal` on loopback, all processes of one home.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args);
        command.args(["--quiet", "--no-mdns", "--listen", self.listen, "--home"]);
        command.arg(self.path("home"));
        command.stdin(Stdio::null()).stderr(Stdio::inherit());
        command
    }

    pub(crate) fn seed(&self, path: &Path) -> Result<Seeder> {
        let path = path.to_str().ok_or("the path is text")?;
        let mut command = self.command(&["seed", path]);
        let mut process = Guard(command.stdout(Stdio::piped()).spawn()?);
        let stdout = process.0.stdout.take().ok_or("stdout is a pipe")?;
        let mut link = String::new();
        BufReader::new(stdout).read_line(&mut link)?;
        if link.is_empty() {
            return Err("the seeder ended early".into());
        }
        let link = link.trim().to_owned();
        Ok(Seeder { process, link })
    }

    /// Fetches into a new folder and leaves at once.
    pub(crate) fn fetch(&self, link: &str) -> Result<(Run, PathBuf)> {
        let into = self.path("out");
        if into.exists() {
            fs::remove_dir_all(&into)?;
        }
        let folder = into.to_str().ok_or("the path is text")?;
        let mut command = self.command(&["fetch", link, "--linger", "0", "--dir", folder]);
        Ok((measure(command.stdout(Stdio::null()))?, into))
    }

    /// Where runs are kept: `bench/runs.ndjson` in the build folder.
    pub(crate) fn kept(&self) -> Result<PathBuf> {
        let build = self.binary.ancestors().nth(2);
        let build = build.ok_or("the binary lies in a build folder")?;
        Ok(build.join("bench/runs.ndjson"))
    }
}

/// Writes bytes that no compressor shrinks, others for each name (xorshift).
pub(crate) fn write_noise(path: &Path, len: u64) -> Result<()> {
    let mut file = std::io::BufWriter::with_capacity(1 << 20, File::create(path)?);
    let name = path
        .file_name()
        .ok_or("a path of a file")?
        .as_encoded_bytes();
    let mut state = name.iter().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    for _ in 0..len / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.write_all(&state.to_le_bytes())?;
    }
    file.write_all(&state.to_le_bytes()[..(len % 8) as usize])?;
    file.flush()?;
    Ok(())
}
