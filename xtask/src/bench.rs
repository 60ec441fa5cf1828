//! `cargo xtask bench`: builds a benchmark with optimisation and runs it.

use clap::{Args, ValueEnum};

use crate::failure::Result;
use crate::workspace::Workspace;
use crate::{firmware, run, setup};

/// Which benchmark, and its arguments.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to measure.
    #[arg(value_enum)]
    benchmark: Benchmark,
    /// Passed to the benchmark.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// The benchmarks, each a binary of the benches package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Benchmark {
    /// Guest instructions per packet of the firmware, in QEMU.
    Firmware,
    /// Cycles per packet of the match-action core on this machine.
    Core,
    /// Cycles per packet of the software path, on one core, between ports in memory.
    Soft,
}

pub(crate) fn execute(workspace: &Workspace, options: &Options) -> Result<()> {
    let name = match options.benchmark {
        Benchmark::Firmware => "firmware",
        Benchmark::Core => "core",
        Benchmark::Soft => "soft",
    };
    let mut cargo = workspace.cargo("run");
    cargo.args(["--locked", "--release", "--quiet", "--package", "culvert-benches", "--bin", name]);
    if options.benchmark == Benchmark::Firmware {
        let target = setup::prepare(workspace, &setup::Options::default())?;
        cargo.env("CULVERT_FIRMWARE", firmware::build(workspace, &target)?);
    }
    run::run(cargo.arg("--").args(&options.arguments))
}
