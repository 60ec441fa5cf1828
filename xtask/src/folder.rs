//! Creates, removes and replaces folders.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Context, Result};

/// Creates a folder and those above it.
pub(crate) fn create_dir(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).context(|| format!("cannot create the folder {}", folder.display()))
}

/// A folder beside a folder of the cache, for incomplete work.
pub(crate) fn beside(folder: &Path, suffix: &str) -> PathBuf {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    folder.with_file_name(name)
}

/// Removes a folder if it is there.
pub(crate) fn remove_dir(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Replaces a folder of the cache with a complete new one.
pub(crate) fn replace_dir(partial: &Path, folder: &Path) -> Result<()> {
    remove_dir(folder)?;
    fs::rename(partial, folder)
        .context(|| format!("cannot move {} to {}", partial.display(), folder.display()))
}
