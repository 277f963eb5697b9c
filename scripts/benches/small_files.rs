//! `small-files`: a folder of many files, beside `tar` through a plain TCP pipe.

use std::fs;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::Result;
use crate::lab::{Lab, write_noise};
use crate::report::{median, say, spread};

const FILE_LEN: u64 = 4096;

/// Files in one folder.
const FOLDER_LEN: u32 = 1000;

pub(crate) fn run(lab: &Lab, count: u32, runs: usize) -> Result<Vec<Value>> {
    let input = lab.path("many");
    for number in 0..count {
        let folder = input.join(format!("{:04}", number / FOLDER_LEN));
        if number % FOLDER_LEN == 0 {
            fs::create_dir_all(&folder)?;
        }
        write_noise(&folder.join(format!("{number:06}")), FILE_LEN)?;
    }
    let seeder = lab.seed(&input)?;
    let (mut ours, mut tars, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..=runs {
        let (fetch, into) = lab.fetch(&seeder.link)?;
        if number == 0 {
            let same = Command::new("diff")
                .arg("-r")
                .arg(into.join("many"))
                .arg(&input)
                .status()?;
            if !same.success() {
                return Err("the copy differs".into());
            }
        }
        fs::remove_dir_all(&into)?;
        let tar = tar(&input, &lab.path("tar"))?;
        fs::remove_dir_all(lab.path("tar"))?;
        if number > 0 {
            lines.push(json!({ "bench": "small-files", "count": count, "secs": fetch.wall, "cpu": fetch.cpu, "tar_secs": tar }));
            ours.push(fetch.wall);
            tars.push(tar);
        }
    }
    say(&format!(
        "{count} files of {FILE_LEN} bytes, {runs} runs: {} s",
        spread(&ours)
    ));
    say(&format!(
        "tar through TCP: {} s; Shoal has {:.2} of its speed",
        spread(&tars),
        median(&tars) / median(&ours)
    ));
    Ok(lines)
}

/// `tar c | TCP | tar x`; gives seconds.
fn tar(from: &Path, to: &Path) -> Result<f64> {
    fs::create_dir_all(to)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let began = Instant::now();
    let mut packing = Command::new("tar")
        .arg("cf")
        .arg("-")
        .arg("-C")
        .arg(from)
        .arg(".")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut packed = packing.stdout.take().ok_or("stdout is a pipe")?;
    let sender =
        std::thread::spawn(move || io::copy(&mut packed, &mut TcpStream::connect(address)?));
    let mut unpacking = Command::new("tar")
        .arg("xf")
        .arg("-")
        .arg("-C")
        .arg(to)
        .stdin(Stdio::piped())
        .spawn()?;
    let mut unpacked = unpacking.stdin.take().ok_or("stdin is a pipe")?;
    io::copy(&mut listener.accept()?.0, &mut unpacked)?;
    drop(unpacked);
    sender.join().map_err(|_| "the sender panicked")??;
    if !(packing.wait()?.success() && unpacking.wait()?.success()) {
        return Err("tar failed".into());
    }
    Ok(began.elapsed().as_secs_f64())
}
