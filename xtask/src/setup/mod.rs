//! `cargo xtask setup`: what the machine needs beyond rustup and git, installed or reported.

mod packages;
mod riscv;
mod services;

use clap::Args;

pub(crate) use self::riscv::RiscvTarget;
use crate::failure::Result;
use crate::workspace::Workspace;

/// How to set up.
#[derive(Clone, Debug, Default, Args)]
#[group(id = "setup")]
pub(crate) struct Options {
    /// Only report what is missing.
    #[arg(long)]
    pub(crate) no_install: bool,
}

pub(crate) fn execute(workspace: &Workspace, options: &Options) -> Result<()> {
    packages::ensure(packages::CHECKS, options.no_install)?;
    packages::ensure(packages::FUZZING, options.no_install)?;
    let target = prepare(workspace, options)?;
    println!("system packages: complete");
    println!("firmware target: {target}");
    Ok(())
}

/// Sees to the system packages and the RISC-V target.
pub(crate) fn prepare(workspace: &Workspace, options: &Options) -> Result<RiscvTarget> {
    packages::ensure(packages::NEEDS, options.no_install)?;
    riscv::ensure(workspace, options.no_install)
}

/// Sees to the system packages that checks of the sources need.
pub(crate) fn prepare_checks() -> Result<()> {
    packages::ensure(packages::CHECKS, false)
}

/// Sees to the compiler of libFuzzer's runtime.
pub(crate) fn prepare_fuzzing() -> Result<()> {
    packages::ensure(packages::FUZZING, false)
}
