//! The guest's file system: busybox, three modules and the init script.

use std::fs;
use std::path::Path;

use super::cpio::Archive;
use super::kernel::MODULES;
use crate::failure::{Context, Result};

/// What the guest runs.
const INIT: &str = include_str!("init.sh");

/// Makes the archive from the files that [`super::kernel`] fetched.
pub(super) fn build(files: &Path) -> Result<Vec<u8>> {
    let read = |name: &str| {
        let path = files.join(name);
        fs::read(&path).context(|| format!("cannot read {}", path.display()))
    };
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "modules", "proc", "sys", "tmp"] {
        archive.folder(folder);
    }
    // The kernel gives init these as its standard streams before /dev is mounted.
    archive.character_device("dev/console", 5, 1);
    archive.file("bin/busybox", 0o755, &read("busybox")?)?;
    archive.symlink("bin/sh", "busybox")?;
    for (name, _) in MODULES {
        let file = format!("{name}.ko");
        archive.file(&format!("modules/{file}"), 0o644, &read(&file)?)?;
    }
    archive.file("init", 0o755, INIT.as_bytes())?;
    Ok(archive.finish())
}
