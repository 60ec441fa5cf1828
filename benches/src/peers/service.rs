//! Programs of the peer: started with a log, asked with a limit, always stopped again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running program. It ends, by its own id, when this is dropped or the benchmark dies.
#[derive(Debug)]
pub struct Service {
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts a program, in a network namespace of its own if so asked, with its output in `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        program: &str,
        alone: bool,
        log: &Path,
        set: impl FnOnce(&mut Command),
    ) -> Result<Self, String> {
        let file = File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
        let errors = file.try_clone().map_err(|e| format!("{}: {e}", log.display()))?;
        // Both make what they do and then become the program: its process id is the child's.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if alone {
            command.args(["unshare", "--net", "--"]);
        }
        command.arg(program).stdin(Stdio::null()).stdout(file).stderr(errors);
        set(&mut command);
        let child = command.spawn().map_err(|e| format!("{program}: {e}"))?;
        Ok(Service { child, log: log.to_owned() })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// The program ends before, or the limit passes: with the end of its log.
    pub fn until(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<(), String> {
        let end = Instant::now() + limit;
        while !ready() {
            let why = match self.child.try_wait() {
                Ok(Some(status)) => format!("ended with {status}"),
                _ if Instant::now() > end => format!("was not ready within {} s", limit.as_secs()),
                _ => {
                    sleep(Duration::from_millis(20));
                    continue;
                }
            };
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(12)..].join("\n");
            return Err(format!("{} {why}:\n{tail}", self.log.display()));
        }
        Ok(())
    }

    /// Stops all its threads until [`go_on`](Self::go_on): it takes no cycles of ours.
    pub fn hold(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it run again.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself; what asks it next says so.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end, which it must come to within seconds by itself, and returns what it prints.
///
/// # Errors
/// It cannot be started, or fails: with what it said.
pub fn ask(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().display().to_string();
    let done = command.stdin(Stdio::null()).output().map_err(|e| format!("{program}: {e}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
    let said = String::from_utf8_lossy(&done.stderr);
    Err(format!("{program} {}: {}", args.join(" "), said.trim()))
}
