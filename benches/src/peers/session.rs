//! How a benchmark beside Open vSwitch begins, and ends when somebody interrupts it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tempfile::TempDir;

use super::daemon::version;

/// What it needs before anything is started.
pub struct Session {
    /// What Open vSwitch says of its version.
    pub version: String,
    /// The library that makes frames in its process.
    pub source: PathBuf,
    /// A folder for all that is written, which goes with this.
    pub dir: TempDir,
    interrupted: Arc<AtomicBool>,
}

impl Session {
    /// Begins a benchmark of this name. The library is the one beside the program, unless another is named.
    ///
    /// # Errors
    /// Open vSwitch is not there, or there is no folder to be had.
    pub fn begin(name: &str, source: Option<&Path>) -> Result<Self, String> {
        // Everything is given back also when somebody interrupts this.
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted)).map_err(|e| e.to_string())?;
        }
        let beside = |exe: PathBuf| exe.with_file_name("examples").join("libovs_frames.so");
        let source = source.map(Path::to_owned).or_else(|| std::env::current_exe().ok().map(beside));
        let source = source.ok_or("where this program lies is unknown: name --source")?;
        let prefix = format!("culvert-{name}-");
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().map_err(|e| e.to_string())?;
        Ok(Session { version: version()?, source, dir, interrupted })
    }

    /// To be asked between two turns.
    ///
    /// # Errors
    /// Somebody has interrupted this.
    pub fn goes_on(&self) -> Result<(), String> {
        if self.interrupted.load(Relaxed) { Err("interrupted".into()) } else { Ok(()) }
    }
}

/// Says what went wrong.
pub fn exit(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
