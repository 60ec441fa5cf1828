//! The paths of the workspace, cargo's output, the cache, and cargo itself.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::failure::{Context, Result};
use crate::folder::create_dir;
use crate::run;

/// The target of the firmware.
pub(crate) const FIRMWARE_TARGET: &str = "riscv64gc-unknown-none-elf";

/// The workspace and its folders.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The folder of the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Cargo's output folder.
    pub(crate) target: PathBuf,
    /// `cargo metadata` of the workspace, without its dependencies.
    pub(crate) metadata: Value,
}

impl Workspace {
    /// Finds the workspace by `cargo metadata`.
    pub(crate) fn find() -> Result<Self> {
        // Cargo sets it for what it runs; the value at build time could be another clone's with the same output folder.
        let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest).parent().map(Path::to_owned).unwrap_or_default();
        let mut command = Command::new(cargo_program());
        command.args(["metadata", "--format-version=1", "--no-deps"]).current_dir(&root);
        let metadata: Value =
            serde_json::from_str(&run::output(&mut command)?).context(|| "output of `cargo metadata`")?;
        let target =
            metadata["target_directory"].as_str().ok_or("cargo metadata names no target directory")?;
        Ok(Self { root, target: target.into(), metadata })
    }

    /// `cargo <subcommand>` in the workspace.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(cargo_program());
        command.arg(subcommand).current_dir(&self.root);
        command
    }

    /// The folder for what is downloaded or built once per machine: `$CULVERT_CACHE`, or `culvert` in the user's cache folder,
    /// or a folder in cargo's output. It may be deleted at any time.
    pub(crate) fn cache(&self) -> Result<PathBuf> {
        let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let folder = absolute("CULVERT_CACHE")
            .or_else(|| absolute("XDG_CACHE_HOME").map(|path| path.join("culvert")))
            .or_else(|| absolute("HOME").map(|path| path.join(".cache/culvert")))
            .unwrap_or_else(|| self.target.join("culvert-cache"));
        create_dir(&folder)?;
        Ok(folder)
    }

    /// Waits until no other task prepares something in the cache; the lock ends with the returned file.
    pub(crate) fn lock_cache(&self) -> Result<File> {
        let path = self.cache()?.join("lock");
        let file = File::create(&path).context(|| format!("cannot create {}", path.display()))?;
        file.lock().context(|| format!("cannot lock {}", path.display()))?;
        Ok(file)
    }

    /// Folder of the binaries that `cargo build` makes.
    pub(crate) fn binaries(&self) -> PathBuf {
        self.target.join("debug")
    }

    /// Names of the packages that cargo builds when none is named.
    pub(crate) fn default_members(&self) -> Vec<&str> {
        let list = |key: &str| self.metadata[key].as_array().map(Vec::as_slice).unwrap_or_default();
        let members = list("workspace_default_members");
        let packages = list("packages").iter().filter(|package| members.contains(&package["id"]));
        packages.filter_map(|package| package["name"].as_str()).collect()
    }

    /// Text files that git tracks or would track, relative to the root.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>> {
        let mut command = Command::new("git");
        command
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(&self.root);
        let listing = run::output(&mut command)?;
        let mut files: Vec<PathBuf> =
            listing.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect();
        files.sort();
        files.dedup();
        files.retain(|file| self.root.join(file).is_file());
        Ok(files)
    }
}

/// The cargo that runs this task, so that a chosen toolchain stays chosen.
fn cargo_program() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}
