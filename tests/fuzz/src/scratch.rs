//! Folders for the files of a run, in memory where the system has such a file system.

use std::path::Path;

/// A new folder, which goes with the value.
pub(crate) fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder for files of the run")
}
