//! The clock of the benchmarks.

/// The time-stamp counter where there is one; else nanoseconds.
pub fn cycles() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86-64 processor has RDTSC; it reads a register.
        #[expect(unsafe_code, reason = "the counter is only reached through an intrinsic")]
        unsafe {
            core::arch::x86_64::_rdtsc()
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
    }
}

/// Processor time of this thread, in nanoseconds.
pub fn ran() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Disturbance of measurements: clock ticks since boot that the hypervisor took from this machine's processors (steal), and the
/// load of the last minute.
pub fn disturbance() -> (u64, f64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    // proc(5): `cpu user nice system idle iowait irq softirq steal ...`.
    let steal = stat.lines().next().and_then(|l| l.split_whitespace().nth(8)).and_then(|f| f.parse().ok());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().and_then(|f| f.parse().ok());
    (steal.unwrap_or(0), load.unwrap_or(0.0))
}

/// Transparent huge pages of this process, in KiB (proc(5), `smaps_rollup`).
pub fn huge_pages() -> u64 {
    let all = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = all.lines().find_map(|l| l.strip_prefix("AnonHugePages:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
