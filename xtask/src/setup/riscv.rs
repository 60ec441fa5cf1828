//! The firmware's target: from rustup, or a private sysroot built from the source of the same compiler version.
//!
//! rustup is tried first. Where its server cannot be reached, Debian's `rust-src` package of exactly this version of rustc is
//! unpacked and `core`, `alloc` and `compiler_builtins` are built once into a folder of the cache that is named after the compiler.
//! `CULVERT_SYSROOT=private` chooses the second way where the first would do.

use std::collections::hash_map::DefaultHasher;
use std::env;
use std::fmt;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::apt_root::AptRoot;
use crate::failure::{Context, Result};
use crate::folder::{beside, create_dir, remove_dir};
use crate::run;
use crate::workspace::{FIRMWARE_TARGET, Workspace};

/// The crates of the sysroot.
const CRATES: [&str; 3] = ["core", "alloc", "compiler_builtins"];

/// Where the firmware's standard library is.
#[derive(Debug)]
pub(crate) enum RiscvTarget {
    /// In the toolchain.
    Toolchain,
    /// In a sysroot of our own.
    Private(PathBuf),
}

impl fmt::Display for RiscvTarget {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Toolchain => write!(formatter, "{FIRMWARE_TARGET} of the toolchain"),
            Self::Private(folder) => write!(formatter, "{FIRMWARE_TARGET} in {}", folder.display()),
        }
    }
}

impl RiscvTarget {
    /// Adds what cargo must be told to build for the target.
    pub(crate) fn apply(&self, cargo: &mut Command) {
        cargo.args(["--target", FIRMWARE_TARGET]);
        if let Self::Private(folder) = self {
            // Merged with the flags of .cargo/config.toml, which an environment variable would replace.
            cargo
                .arg("--config")
                .arg(format!("target.{FIRMWARE_TARGET}.rustflags=[\"--sysroot={}\"]", folder.display()));
        }
    }
}

pub(super) fn ensure(workspace: &Workspace, no_install: bool) -> Result<RiscvTarget> {
    let private = env::var("CULVERT_SYSROOT").is_ok_and(|value| value == "private");
    if !private && (in_toolchain(workspace)? || (!no_install && added_by_rustup(workspace))) {
        return Ok(RiscvTarget::Toolchain);
    }
    let compiler = rustc(workspace, &["-vV"])?;
    let mut hasher = DefaultHasher::new();
    compiler.hash(&mut hasher);
    let version = compiler
        .lines()
        .find_map(|line| line.strip_prefix("release: "))
        .ok_or("`rustc -vV` names no release")?;
    let folder = workspace.cache()?.join(format!("sysroot-{version}-{:016x}", hasher.finish()));
    if !folder.is_dir() {
        if no_install {
            return Err(format!(
                "the target {FIRMWARE_TARGET} is missing: `rustup target add {FIRMWARE_TARGET}`, or without --no-install a private one is built"
            )
            .into());
        }
        let _lock = workspace.lock_cache()?;
        if !folder.is_dir() {
            build(workspace, version, &folder)?;
        }
    }
    Ok(RiscvTarget::Private(folder))
}

fn rustc(workspace: &Workspace, arguments: &[&str]) -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    run::output(Command::new(rustc).args(arguments).current_dir(&workspace.root))
}

fn in_toolchain(workspace: &Workspace) -> Result<bool> {
    let folder = rustc(workspace, &["--print", "target-libdir", "--target", FIRMWARE_TARGET])?;
    let entries = fs::read_dir(folder.trim());
    Ok(entries.is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    }))
}

fn added_by_rustup(workspace: &Workspace) -> bool {
    if run::find_program("rustup").is_none() {
        return false;
    }
    let mut command = Command::new("rustup");
    command.args(["target", "add", FIRMWARE_TARGET]).current_dir(&workspace.root);
    match run::run(&mut command) {
        Ok(()) => in_toolchain(workspace).unwrap_or(false),
        Err(failure) => {
            println!("{failure}; building a private sysroot instead");
            false
        }
    }
}

/// Builds the sysroot into a neighbour of `folder` and moves it there when it is complete.
fn build(workspace: &Workspace, version: &str, folder: &Path) -> Result<()> {
    let start = Instant::now();
    println!("building {} for {FIRMWARE_TARGET} from Debian's source of rustc {version}", CRATES.join(", "));
    let apt = AptRoot::open(workspace)?;
    let package = format!("rust-src={}", apt.version("rust-src", &format!("{version}+"))?);
    let source = beside(folder, "source");
    remove_dir(&source)?;
    apt.unpack(&[&package], &source)?;
    let library = library(&source)?;

    let work = beside(folder, "build");
    remove_dir(&work)?;
    write_crate(&work)?;
    let mut cargo = workspace.cargo("build");
    cargo.args(["--quiet", "--release", "--offline", "--target", FIRMWARE_TARGET]).current_dir(&work);
    cargo.arg(format!("-Zbuild-std={}", CRATES.join(","))).arg("-Zbuild-std-features=compiler-builtins-mem");
    cargo.arg("--config").arg("source.crates-io.replace-with=\"library\"");
    cargo.arg("--config").arg(format!("source.library.directory=\"{}\"", library.join("vendor").display()));
    // A stable compiler builds its own library this way; the flags of this workspace are not the library's.
    cargo.env("RUSTC_BOOTSTRAP", "1").env("__CARGO_TESTS_ONLY_SRC_ROOT", &library);
    cargo.env("RUSTFLAGS", "-Cembed-bitcode=yes").env("CARGO_TARGET_DIR", work.join("target"));
    run::run(&mut cargo)?;

    let output = work.join("target").join(FIRMWARE_TARGET).join("release/deps");
    let partial = beside(folder, "partial");
    remove_dir(&partial)?;
    let destination = partial.join("lib/rustlib").join(FIRMWARE_TARGET).join("lib");
    create_dir(&destination)?;
    for entry in fs::read_dir(&output).context(|| format!("cannot list {}", output.display()))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".rlib")
            && CRATES.iter().any(|crate_name| name.starts_with(&format!("lib{crate_name}-")))
        {
            fs::copy(entry.path(), destination.join(&name)).context(|| format!("cannot copy {name}"))?;
        }
    }
    fs::rename(&partial, folder).context(|| format!("cannot move {}", partial.display()))?;
    remove_dir(&work)?;
    remove_dir(&source)?;
    println!("private sysroot: {} ({:.0} s)", folder.display(), start.elapsed().as_secs_f64());
    Ok(())
}

/// The `library` folder of the unpacked source package.
fn library(source: &Path) -> Result<PathBuf> {
    let folder = source.join("usr/src");
    fs::read_dir(&folder)
        .context(|| format!("cannot list {}", folder.display()))?
        .flatten()
        .map(|entry| entry.path().join("library"))
        .find(|library| library.join("core/Cargo.toml").is_file() && library.join("vendor").is_dir())
        .ok_or_else(|| format!("no library source in {}", folder.display()).into())
}

/// An empty crate, built only for the sake of what it is built on.
fn write_crate(folder: &Path) -> Result<()> {
    create_dir(&folder.join("src"))?;
    let manifest = "[package]\nname = \"sysroot\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n\
                    [profile.release]\nopt-level = 3\npanic = \"abort\"\ndebug = 1\ncodegen-units = 1\n";
    for (name, text) in [("Cargo.toml", manifest), ("src/lib.rs", "#![no_std]\n")] {
        fs::write(folder.join(name), text)
            .context(|| format!("cannot write {name} in {}", folder.display()))?;
    }
    Ok(())
}
