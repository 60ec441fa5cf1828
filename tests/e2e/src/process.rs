//! Programs of a deployment: each writes a log file and ends when its [`Service`] is dropped.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::wait::poll;

/// A running program. It is killed, by its own id, when this is dropped.
pub struct Service {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts a program with its output in `<dir>/<name>.log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(name: &str, command: &mut Command, dir: &Path) -> Result<Self, String> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.map_err(|e| format!("{}: {e}", log.display()))?;
        let errors = file.try_clone().map_err(|e| format!("{}: {e}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        die_with_parent(command);
        let program = command.get_program().display().to_string();
        let child = command.spawn().map_err(|e| format!("{program}: {e}"))?;
        Ok(Service { name: name.to_owned(), child, log })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of its log, for messages.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Waits until `ready`.
    ///
    /// # Errors
    /// The program ends before, or the limit passes: the end of its log.
    pub fn until(
        &mut self,
        limit: Duration,
        what: &str,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), String> {
        let held = poll(limit, Duration::from_millis(20), || match (ready(), self.child.try_wait()) {
            (true, _) => Ok(true),
            (false, Ok(Some(status))) => Err(status),
            (false, _) => Ok(false),
        });
        match held {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(format!("{}: not {what} within {} s:\n{}", self.name, limit.as_secs(), self.tail()))
            }
            Err(status) => Err(format!("{} ended ({status}) before {what}:\n{}", self.name, self.tail())),
        }
    }

    /// Terminates it (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// It does not end within the limit, and is killed then, or it says by its exit code that it failed.
    pub fn stop(mut self, limit: Duration) -> Result<(), String> {
        if !self.terminate(limit) {
            return Err(format!("{} does not end:\n{}", self.name, self.tail()));
        }
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            status => Err(format!("{} ends with {status:?}:\n{}", self.name, self.tail())),
        }
    }

    /// Terminates it; returns whether it ended within the limit.
    fn terminate(&mut self, limit: Duration) -> bool {
        self.signal("TERM");
        let ended = || Ok::<_, String>(matches!(self.child.try_wait(), Ok(Some(_))));
        poll(limit, Duration::from_millis(10), ended) == Ok(true)
    }

    /// Kills it without warning.
    pub fn kill(mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }

    /// Stops all threads of the program until [`resume`](Self::resume).
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it run again.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let _sent = Command::new("kill").args(["-s", name, &self.id().to_string()]).status();
    }

    /// Processor time of the program.
    pub fn cpu(&self) -> Duration {
        cpu_of(self.id())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.terminate(Duration::from_secs(3));
        }
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Runs a command to its end, with its output.
///
/// # Errors
/// It cannot be started, or does not end within the limit; it is killed then.
pub fn output_within(command: &mut Command, limit: Duration) -> Result<Output, String> {
    let program = command.get_program().display().to_string();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|e| format!("{program}: {e}"))?;
    let id = Pid::from_child(&child);
    let (done, ended) = std::sync::mpsc::channel();
    let watch = std::thread::spawn(move || {
        let late = ended.recv_timeout(limit).is_err();
        if late {
            let _gone = rustix::process::kill_process(id, Signal::KILL);
        }
        late
    });
    let output = child.wait_with_output().map_err(|e| format!("{program}: {e}"));
    let _in_time = done.send(());
    if watch.join().unwrap_or(true) {
        return Err(format!("{program} does not end within {} s", limit.as_secs()));
    }
    output
}

/// Lets the kernel kill a program when the thread that started it ends.
pub fn die_with_parent(command: &mut Command) {
    let set = || rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into);
    // SAFETY: between fork and exec this makes one system call and touches no memory of the parent.
    #[expect(unsafe_code, reason = "code between fork and exec is only reached this way")]
    unsafe {
        command.pre_exec(set);
    }
}

/// Processor time of a process, from its stat file, in ticks of 10 ms.
pub fn cpu_of(id: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

/// Direct children of a process.
pub fn children_of(id: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<u32>>())
        .collect()
}
