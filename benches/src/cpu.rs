//! Threads and processors: pinned, undisturbed by others, and the time that threads ran.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use culvert_e2e::netns::run;

use crate::clock::cycles;

/// Threads with real-time priority (sched(7), `SCHED_FIFO`) until this is dropped: no other thread interrupts them.
#[derive(Debug)]
pub struct Undisturbed(Vec<String>);

impl Undisturbed {
    /// Raises this thread and another; `task` is the other's folder in proc.
    ///
    /// # Errors
    /// This is not root, or `chrt` is missing.
    pub fn with(task: &Path) -> Result<Self, String> {
        let other = task.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let own = rustix::thread::gettid().as_raw_nonzero().to_string();
        let threads = Undisturbed(vec![other, own]);
        for thread in &threads.0 {
            run(Command::new("chrt").args(["--fifo", "--pid", "1", thread]))?;
        }
        Ok(threads)
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        for thread in &self.0 {
            // Fails if the thread has ended.
            let _ = run(Command::new("chrt").args(["--other", "--pid", "0", thread]));
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

/// Measures the time of a thread from its creation.
pub struct Watch<'a> {
    task: &'a Path,
    cycles: u64,
    start: Instant,
    ran: u64,
}

impl<'a> Watch<'a> {
    /// Starts to measure a thread; `task` is its folder in proc.
    ///
    /// # Errors
    /// There is no such thread.
    pub fn of(task: &'a Path) -> Result<Self, String> {
        let ran = ran_of(task)?;
        Ok(Watch { task, cycles: cycles(), start: Instant::now(), ran })
    }

    /// Elapsed cycles, and the fraction of them in which the thread ran.
    ///
    /// # Errors
    /// The thread is gone.
    pub fn read(&self) -> Result<(f64, f64), String> {
        let (spent, ns) = (cycles() - self.cycles, self.start.elapsed().as_nanos() as f64);
        let ran = (ran_of(self.task)? - self.ran) as f64 / ns;
        Ok((spent as f64, ran.min(1.0)))
    }
}

/// Keeps this thread on one core until it is dropped.
#[derive(Debug)]
pub struct Pinned(CpuSet);

impl Pinned {
    /// Moves this thread to core `core`.
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
        // The old set was allowed before.
        let _ = sched_setaffinity(None, &self.0);
    }
}
