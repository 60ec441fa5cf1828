//! The clock of the benchmarks.

use std::time::Instant;

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

/// Measures work on this thread: in cycles of the time-stamp counter and in nanoseconds, without the time that other
/// programs had the processor.
pub fn measure(work: impl FnOnce()) -> (f64, f64) {
    let used = || {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
    };
    let (start, begin, before) = (Instant::now(), cycles(), used());
    work();
    let (ns, ticks, wall) = (used() - before, cycles() - begin, start.elapsed());
    (ns * ticks as f64 / wall.as_nanos().max(1) as f64, ns)
}

/// Time that a hypervisor took from this machine's processors since it was started, in clock ticks, and the load of the
/// last minute: what a figure should be read with.
pub fn disturbance() -> (u64, f64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    // proc(5): `cpu user nice system idle iowait irq softirq steal ...`.
    let steal = stat.lines().next().and_then(|l| l.split_whitespace().nth(8)).and_then(|f| f.parse().ok());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().and_then(|f| f.parse().ok());
    (steal.unwrap_or(0), load.unwrap_or(0.0))
}

/// Huge pages of this process's own memory, in KiB (proc(5), `smaps_rollup`).
pub fn huge_pages() -> u64 {
    let all = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let line = all.lines().find_map(|l| l.strip_prefix("AnonHugePages:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
