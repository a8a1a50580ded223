//! What the kernel knows of a process: processor time and peak memory.

use anyhow::{Context, Result};

/// Clock ticks of `/proc/PID/stat` in a second; Linux shows user space this many on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time of a process, user and system, in seconds.
pub fn cpu_s(pid: u32) -> Result<f64> {
    Ok(ticks(&pid.to_string(), UTIME)? / TICKS_PER_SECOND)
}

/// Processor time of this process, in seconds.
pub fn own_cpu_s() -> Result<f64> {
    Ok(ticks("self", UTIME)? / TICKS_PER_SECOND)
}

/// Processor time of the children of this process that have ended, in seconds.
pub fn ended_children_cpu_s() -> Result<f64> {
    Ok(ticks("self", CUTIME)? / TICKS_PER_SECOND)
}

/// The most memory a process ever had resident, in bytes.
pub fn peak_rss_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).context("no VmHWM")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}

/// Places in `stat` counted from behind the command's name; the system time follows the user's.
const UTIME: usize = 11;
const CUTIME: usize = 13;

fn ticks(process: &str, place: usize) -> Result<f64> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    // The command's name stands in parentheses and may hold anything.
    let (_, rest) = text.rsplit_once(')').context("no command in stat")?;
    let two = rest.split_whitespace().skip(place).take(2);
    two.map(|n| n.parse::<f64>().context("stat holds no number")).sum()
}
