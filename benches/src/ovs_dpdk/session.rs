//! Start of a benchmark beside Open vSwitch, and its end when it is interrupted.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tempfile::TempDir;

use super::daemon::version;

/// What the benchmark needs before it starts a switch.
pub struct Session {
    /// Open vSwitch's version.
    pub version: String,
    /// The library that generates frames in its process.
    pub source: PathBuf,
    /// A folder for all files, removed when this is dropped.
    pub dir: TempDir,
    interrupted: Arc<AtomicBool>,
}

impl Session {
    /// Starts a benchmark of this name. The library is the one beside the program, unless `source` names another.
    ///
    /// # Errors
    /// Open vSwitch is not installed, or the folder cannot be created.
    pub fn begin(name: &str, source: Option<&Path>) -> Result<Self, String> {
        // After an interrupt, `Drop` still frees huge pages and ends the daemons.
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted)).map_err(|e| e.to_string())?;
        }
        let beside = |exe: PathBuf| exe.with_file_name("examples").join("libovs_frames.so");
        let source = source.map(Path::to_owned).or_else(|| std::env::current_exe().ok().map(beside));
        let source = source.ok_or("the path of this program is unknown: name --source")?;
        let prefix = format!("culvert-{name}-");
        let dir = tempfile::Builder::new().prefix(&prefix).tempdir().map_err(|e| e.to_string())?;
        Ok(Session { version: version()?, source, dir, interrupted })
    }

    /// Checks for an interrupt; to be called between two runs.
    ///
    /// # Errors
    /// The benchmark was interrupted.
    pub fn check_interrupt(&self) -> Result<(), String> {
        if self.interrupted.load(Relaxed) { Err("interrupted".into()) } else { Ok(()) }
    }
}

/// Prints an error.
pub fn exit(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
