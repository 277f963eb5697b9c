//! What the kernel says about running processes. Source: proc(5).

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Result;

/// One finished process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run {
    /// Seconds from start to end.
    pub(crate) wall: f64,
    /// User and system seconds.
    pub(crate) cpu: f64,
    /// Most resident memory.
    pub(crate) peak_mib: f64,
}

/// Runs a process to its end.
pub(crate) fn measure(command: &mut Command) -> Result<Run> {
    let began = Instant::now();
    let mut child = command.spawn()?;
    let mut run = Run::default();
    loop {
        run.peak_mib = peak_of(child.id()).unwrap_or(run.peak_mib);
        run.cpu = cpu_of(child.id())?;
        if let Some(status) = child.try_wait()? {
            run.wall = began.elapsed().as_secs_f64();
            if !status.success() {
                return Err(format!("{command:?} ended with {status}").into());
            }
            return Ok(run);
        }
        nap(Duration::from_millis(2));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a measuring loop without a runtime looks again a little later"
)]
pub(crate) fn nap(span: Duration) {
    std::thread::sleep(span);
}

/// Peak resident memory so far in MiB; `None` once the process has ended.
pub(crate) fn peak_of(process: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

/// Hosts that have a connection of TCP over IPv4 with anybody in the network namespace of the process.
pub(crate) fn neighbours_of(process: u32) -> Result<usize> {
    let table = fs::read_to_string(format!("/proc/{process}/net/tcp"))?;
    let established = |line: &str| {
        let mut fields = line.split_whitespace().skip(2);
        let (remote, state) = (fields.next()?, fields.next()?);
        (state == "01").then(|| remote.split(':').next().map(str::to_owned))?
    };
    let hosts: BTreeSet<String> = table.lines().skip(1).filter_map(established).collect();
    Ok(hosts.len())
}

/// User and system seconds so far, as the kernel counts them in hundredths.
pub(crate) fn cpu_of(process: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after_name = stat.rsplit(')').next().ok_or("a stat line")?;
    Ok(ticks(after_name, &[11, 12]) / 100.0)
}

/// Seconds of all processors so far: at work, and altogether.
pub(crate) fn machine_cpu() -> Result<(f64, f64)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("cpu "));
    let line = line.ok_or("a line for all processors")?;
    // user, nice, system, idle, iowait, irq, softirq, steal
    let busy = ticks(line, &[0, 1, 2, 5, 6, 7]);
    Ok((busy / 100.0, (busy + ticks(line, &[3, 4])) / 100.0))
}

fn ticks(line: &str, fields: &[usize]) -> f64 {
    let values: Vec<f64> = line
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    fields.iter().filter_map(|at| values.get(*at)).sum()
}
