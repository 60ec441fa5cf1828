//! What a measurement takes of the machine: huge pages, given back afterwards, and one core.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::service::ask;
use crate::clock::cycles;

/// Where the kernel is told how many huge pages of 2 MiB to keep.
const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
/// Where it says how many of them nobody uses.
const FREE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";

/// Huge pages of 2 MiB that were put aside. The number that was there before comes back when this is dropped.
#[derive(Debug)]
pub struct HugePages(Option<u64>);

impl HugePages {
    /// Sees that `wanted` of them are free.
    ///
    /// # Errors
    /// The kernel has none, or this is not root.
    pub fn reserve(wanted: u64) -> Result<Self, String> {
        let (all, free) = (read(PAGES)?, read(FREE)?);
        if free >= wanted {
            return Ok(HugePages(None));
        }
        fs::write(PAGES, (all + wanted - free).to_string())
            .map_err(|e| format!("{PAGES}: {e}; DPDK needs {wanted} huge pages: run this as root"))?;
        let pages = HugePages(Some(all));
        if read(FREE)? < wanted {
            // Memory is in pieces. Where the kernel does not join them when asked, what follows says so.
            let _joined = fs::write("/proc/sys/vm/compact_memory", "1");
            let _once_more = fs::write(PAGES, (all + wanted - free).to_string());
        }
        match read(FREE)? {
            free if free >= wanted => Ok(pages),
            free => Err(format!("{wanted} huge pages of 2 MiB are needed, the kernel found {free}")),
        }
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        if let Some(Err(e)) = self.0.map(|before| fs::write(PAGES, before.to_string())) {
            eprintln!("{PAGES}: {e}");
        }
    }
}

/// Threads that no other thread may interrupt (sched(7), `SCHED_FIFO`), until this is dropped.
#[derive(Debug)]
pub struct Undisturbed(Vec<String>);

impl Undisturbed {
    /// This thread, and another of which `task` is the folder in proc.
    ///
    /// # Errors
    /// This is not root, or `chrt` is missing.
    pub fn with(task: &Path) -> Result<Self, String> {
        let other = task.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let own = rustix::thread::gettid().as_raw_nonzero().to_string();
        let threads = Undisturbed(vec![other, own]);
        for thread in &threads.0 {
            ask(Command::new("chrt").args(["--fifo", "--pid", "1", thread]))?;
        }
        Ok(threads)
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        for thread in &self.0 {
            // One that has ended needs nothing.
            let _ = ask(Command::new("chrt").args(["--other", "--pid", "0", thread]));
        }
    }
}

/// Nanoseconds that a thread has run (proc(5), `schedstat`), to the last tick; `task` is its folder in proc.
///
/// # Errors
/// There is no such thread.
pub fn ran_of(task: &Path) -> Result<u64, String> {
    let text = fs::read_to_string(task.join("schedstat")).map_err(|e| format!("{}: {e}", task.display()))?;
    let field = text.split_whitespace().next().and_then(|n| n.parse().ok());
    field.ok_or_else(|| format!("{}: no scheduler statistics", task.display()))
}

/// Time that a thread has spent since the clocks were read.
pub struct Watch<'a> {
    task: &'a Path,
    cycles: u64,
    start: Instant,
    ran: u64,
}

impl<'a> Watch<'a> {
    /// Reads the clocks of a thread; `task` is its folder in proc.
    ///
    /// # Errors
    /// There is no such thread.
    pub fn of(task: &'a Path) -> Result<Self, String> {
        let ran = ran_of(task)?;
        Ok(Watch { task, cycles: cycles(), start: Instant::now(), ran })
    }

    /// Cycles that passed, and the part of them in which the thread ran.
    ///
    /// # Errors
    /// The thread is gone.
    pub fn read(&self) -> Result<(f64, f64), String> {
        let (spent, ns) = (cycles() - self.cycles, self.start.elapsed().as_nanos() as f64);
        let ran = (ran_of(self.task)? - self.ran) as f64 / ns;
        Ok((spent as f64, ran.min(1.0)))
    }
}

fn read(path: &str) -> Result<u64, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{path}: {e}; this kernel has no such pages"))?;
    text.trim().parse().map_err(|e| format!("{path}: {e}"))
}

/// This thread kept on one core, until it is dropped.
#[derive(Debug)]
pub struct Pinned(CpuSet);

impl Pinned {
    /// Keeps it on core `core`.
    ///
    /// # Errors
    /// There is no such core.
    pub fn to(core: usize) -> io::Result<Self> {
        let before = sched_getaffinity(None)?;
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set)?;
        Ok(Pinned(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // It was allowed there before.
        let _ = sched_setaffinity(None, &self.0);
    }
}
