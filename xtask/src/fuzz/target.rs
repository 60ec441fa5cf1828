//! A target that is running: libFuzzer's process, its log, and what it leaves when it finds a fault.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::progress::Progress;
use crate::failure::{Context, Result};
use crate::folder::create_dir;
use crate::run;

/// Seconds after which an input counts as a hang, far above any that does not.
const TIMEOUT: u32 = 20;
/// Megabytes after which memory counts as unbounded.
const MEMORY: u32 = 2048;
/// Longest input.
const LONGEST: u32 = 16 << 10;
/// Lines of the log that a failure shows.
const SHOWN: usize = 30;

/// What the log said so far.
#[derive(Debug, Default)]
struct Seen {
    progress: Progress,
    tail: VecDeque<String>,
    /// The input that failed.
    input: Option<PathBuf>,
}

/// A running target. It ends with this value.
#[derive(Debug)]
pub(super) struct Running {
    name: String,
    child: Child,
    log: PathBuf,
    reader: Option<JoinHandle<()>>,
    seen: Arc<Mutex<Seen>>,
    started: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Running {
    /// Starts a target on its seeds and on what earlier runs have found.
    pub(super) fn start(folder: &Path, program: &Path, name: &str, seconds: u64) -> Result<Self> {
        let (corpus, seeds) = (folder_of(folder, "corpus", name)?, folder_of(folder, "seeds", name)?);
        let faults = folder_of(folder, "faults", name)?;
        let log = folder.join(format!("{name}.log"));
        let mut command = Command::new(program);
        command.arg(&corpus).arg(&seeds);
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", faults.display()));
        command.arg(format!("-timeout={TIMEOUT}")).arg(format!("-rss_limit_mb={MEMORY}"));
        command.arg(format!("-max_len={LONGEST}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context(|| format!("cannot start `{}`", run::shown(&command)))?;
        let mut file = File::create(&log).context(|| format!("cannot write {}", log.display()))?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (output, shared) = (child.stderr.take(), Arc::clone(&seen));
        let reader = std::thread::spawn(move || {
            for line in output
                .into_iter()
                .flat_map(|output| BufReader::new(output).split(b'\n'))
                .map_while(|l| l.ok())
            {
                let line = String::from_utf8_lossy(&line).into_owned();
                // A full disk costs the log, not the run.
                let _written = writeln!(file, "{line}");
                shared.lock().unwrap_or_else(PoisonError::into_inner).add(line);
            }
        });
        let name = name.to_owned();
        Ok(Running { name, child, log, reader: Some(reader), seen, started: Instant::now() })
    }

    /// Whether it has ended, and then whether without a fault.
    pub(super) fn ended(&mut self) -> Result<Option<bool>> {
        let status = self.child.try_wait().context(|| format!("waiting for {}", self.name))?;
        if status.is_some()
            && let Some(reader) = self.reader.take()
        {
            // Ends with the process's output.
            let _ended = reader.join();
        }
        Ok(status.map(|status| status.success()))
    }

    /// A line on how far it is.
    pub(super) fn line(&self, what: &str) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = self.started.elapsed().as_secs_f64();
        format!("{:<12} {what} {seconds:.0} s: {}", self.name, seen.progress)
    }

    /// Shows the end of the log and how to run the input again; returns the target's name.
    pub(super) fn report_failure(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        println!("{:<12} FAILED; its log is {}, and ends so:", self.name, self.log.display());
        for line in &seen.tail {
            println!("  {line}");
        }
        match &seen.input {
            Some(input) => {
                let (name, input) = (&self.name, input.display());
                println!("again: cargo xtask fuzz {name} --input {input}");
                println!(
                    "as a test: cargo run -p culvert-fuzz -- --hex {input} > tests/fuzz/corpus/{name}/<what-it-shows>.hex"
                );
            }
            None => println!("it left no input"),
        }
        self.name.clone()
    }
}

impl Seen {
    fn add(&mut self, line: String) {
        self.progress.read(&line);
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.input = Some(path.trim().into());
        }
        // Not the lines of its statistics.
        if line.starts_with('#') {
            return;
        }
        self.tail.push_back(line);
        if self.tail.len() > SHOWN {
            self.tail.pop_front();
        }
    }
}

/// The folder of one kind of a target's files.
fn folder_of(folder: &Path, kind: &str, name: &str) -> Result<PathBuf> {
    let path = folder.join(kind).join(name);
    create_dir(&path).context(|| format!("the {kind} of {name}"))?;
    Ok(path)
}
