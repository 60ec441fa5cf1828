//! The lock that keeps a second daemon away from a connection file.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// An exclusive lock on a file (flock(2)); released on drop and when the process ends.
pub(super) struct Lock {
    pub(super) file: File,
}

impl Lock {
    /// Takes the lock without waiting, and creates its file if there is none. `None`: another process holds it.
    ///
    /// # Errors
    /// The file cannot be created or locked.
    pub(super) fn acquire(path: &Path) -> io::Result<Option<Self>> {
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the descriptor is not enough: a child that another thread has just forked has a copy of it until it
        // calls exec, and the lock lives as long as the last copy. An explicit unlock ends it for all copies.
        if let Err(error) = self.file.unlock() {
            tracing::warn!(%error, "cannot release the lock of the connection file");
        }
    }
}
