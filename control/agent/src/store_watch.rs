//! [`StoreWatch`]: whether the store's file is still the one that was opened, with room to grow.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Free bytes of the file system below which a change of the policy is at risk.
const LOW: u64 = 1 << 20;

/// Watches the store's file.
#[derive(Debug)]
pub(crate) struct StoreWatch {
    path: PathBuf,
    /// Device and inode of the file that is open; none: it could not be read.
    file: Option<(u64, u64)>,
}

impl StoreWatch {
    /// Watches an open file.
    pub(crate) fn new(path: &Path) -> Self {
        StoreWatch { path: path.to_owned(), file: identity(path).ok() }
    }

    /// What is wrong, and what to do.
    pub(crate) fn problem(&self) -> Option<String> {
        let path = self.path.display();
        if self.file.is_some() && identity(&self.path).ok() != self.file {
            return Some(format!(
                "the store {path} was deleted or replaced while culvertd has it open: changes will be lost at the next \
                 start; restart culvertd and apply the policy again"
            ));
        }
        if let Ok(free) = free(&self.path)
            && free < LOW
        {
            return Some(format!(
                "the file system of the store {path} has {} KiB left: free some, or changes of the policy fail",
                free >> 10
            ));
        }
        None
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Free bytes of a path's file system.
fn free(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_deleted_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("culvertd.redb");
        std::fs::write(&path, "x").unwrap();
        let watch = StoreWatch::new(&path);
        assert_eq!(watch.problem(), None);
        std::fs::remove_file(&path).unwrap();
        assert!(watch.problem().unwrap().contains("was deleted"), "{:?}", watch.problem());
    }
}
