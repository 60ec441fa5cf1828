//! `cargo xtask package`: Debian packages of the programs, with unit, man pages and completions.
//!
//! `dpkg-deb` makes them from a folder. It is part of every Debian and Ubuntu; cargo-deb would be one more program to build for
//! the same folder, and knows neither the firmware's image nor the pages that the programs write themselves.

mod contents;

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use crate::failure::Result;
use crate::folder::{create_dir, remove_dir};
use crate::workspace::Workspace;
use crate::{firmware, run, setup};

/// What to package.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    setup: setup::Options,
    /// Package optimized programs, not those of a debug build.
    #[arg(long)]
    release: bool,
}

pub(crate) fn execute(workspace: &Workspace, options: &Options) -> Result<()> {
    let target = setup::prepare(workspace, &options.setup)?;
    let firmware = firmware::build(workspace, &target)?;
    let mut cargo = workspace.cargo("build");
    cargo.args([
        "--locked",
        "--package",
        "culvert-agent",
        "--package",
        "culvert-cli",
        "--package",
        "culvert-device",
    ]);
    run::run(if options.release { cargo.arg("--release") } else { &mut cargo })?;
    let programs = workspace.target.join(if options.release { "release" } else { "debug" });
    for package in build(workspace, &programs, &firmware, options.release)? {
        println!("{}", package.display());
    }
    Ok(())
}

/// Packages the programs of a folder, which are built. Small packages take long; without `small` they are made fast.
pub(crate) fn build(
    workspace: &Workspace,
    programs: &Path,
    firmware: &Path,
    small: bool,
) -> Result<Vec<PathBuf>> {
    let folder = workspace.target.join("package");
    remove_dir(&folder)?;
    create_dir(&folder)?;
    let machine = run::output(Command::new("dpkg").arg("--print-architecture"))?;
    let version = contents::version(workspace)?;
    let mut packages = Vec::new();
    for package in contents::packages(workspace, programs, firmware) {
        let root = folder.join(package.name);
        package.write(&root, &version, machine.trim())?;
        let file = folder.join(format!("{}_{version}_{}.deb", package.name, machine.trim()));
        let mut make = Command::new("dpkg-deb");
        make.args(if small { &["-Zxz"][..] } else { &["-Zgzip", "-z1"] });
        make.args(["--root-owner-group", "--build"]).arg(&root).arg(&file);
        run::output(&mut make)?;
        // Twice the size of the package, for nothing.
        remove_dir(&root)?;
        packages.push(file);
    }
    Ok(packages)
}
