//! The programs that a deployment runs.

use std::path::{Path, PathBuf};

/// Paths of the built programs.
#[derive(Clone, Debug)]
pub struct Programs {
    dir: PathBuf,
    /// The firmware's image.
    pub firmware: PathBuf,
}

impl Programs {
    /// Finds the programs in the folder of the running program, and the firmware at `$CULVERT_FIRMWARE` or where
    /// `cargo xtask firmware` puts it.
    ///
    /// # Errors
    /// A file is missing: the message names it and the command that builds it.
    pub fn find() -> Result<Self, String> {
        let exe = std::env::current_exe().map_err(|e| format!("this program's path: {e}"))?;
        let mut dir = exe.parent().unwrap_or(Path::new(".")).to_owned();
        if dir.ends_with("deps") {
            dir.pop();
        }
        let firmware = match std::env::var_os("CULVERT_FIRMWARE") {
            Some(path) => PathBuf::from(path),
            None => dir.join("../firmware/culvert-fw.bin"),
        };
        for name in ["culvert-emu", "culvertd", "culvert", "culvert-guest"] {
            if !dir.join(name).exists() {
                return Err(format!("{} is missing: run `cargo build` first", dir.join(name).display()));
            }
        }
        if !firmware.exists() {
            return Err(format!("{} is missing: run `cargo xtask firmware` first", firmware.display()));
        }
        Ok(Programs { dir, firmware })
    }

    /// Path of a program.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}
