//! `cargo xtask bench`: builds a benchmark with optimisation and runs it.

mod ovs_dpdk;

use clap::{Args, ValueEnum};

use crate::failure::Result;
use crate::workspace::Workspace;
use crate::{firmware, linux_guest, run, setup};

/// Which benchmark, and its arguments.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to measure.
    #[arg(value_enum, allow_hyphen_values = true)]
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
    /// Cycles per packet of the software switch, on one core, between ports in memory.
    Switch,
    /// The software switch, interleaved with Open vSwitch on DPDK. As root, installs Open vSwitch where it is missing.
    OvsDpdk,
    /// The software switch, interleaved with Open vSwitch on DPDK, with guests on vhost-user ports. Installs as `ovs-dpdk` does.
    Vhost,
    /// TCP between two VMs, over the software switch and over Open vSwitch on DPDK.
    Vms,
    /// Pictures of the results of `switch` and `ovs-dpdk`.
    Plot,
    /// New connections per second of the software switch, on one core, and the cost of aging.
    Connections,
    /// Packets per second of one and of several workers of the software switch.
    Workers,
    /// What looking at a switch with 1,000 vports costs: a scrape, a list of vports, and a ping beside them.
    Scrape,
    /// What large and hostile documents cost the daemon, and a change of one rule of many.
    Api,
}

pub(crate) fn execute(workspace: &Workspace, options: &Options) -> Result<()> {
    let name = match options.benchmark {
        Benchmark::Firmware => "firmware",
        Benchmark::Core => "core",
        Benchmark::Switch => "switch",
        Benchmark::OvsDpdk => "ovs_dpdk",
        Benchmark::Vhost => "vhost",
        Benchmark::Vms => "vms",
        Benchmark::Plot => "plot",
        Benchmark::Connections => "connections",
        Benchmark::Workers => "workers",
        Benchmark::Scrape => "scrape",
        Benchmark::Api => "api",
    };
    let package = ["--locked", "--release", "--quiet", "--package", "culvert-benches"];
    let mut cargo = workspace.cargo("run");
    cargo.args(package).args(["--bin", name]);
    if matches!(options.benchmark, Benchmark::Firmware | Benchmark::Scrape) {
        let target = setup::prepare(workspace, &setup::Options::default())?;
        cargo.env("CULVERT_FIRMWARE", firmware::build(workspace, &target)?);
    }
    if matches!(options.benchmark, Benchmark::OvsDpdk | Benchmark::Vhost | Benchmark::Vms) {
        ovs_dpdk::prepare()?;
        // The frame source in Open vSwitch's process; cargo puts it beside the benchmark.
        run::quietly(workspace.cargo("build").args(package).args(["--example", "ovs_frames"]))?;
    }
    if options.benchmark == Benchmark::Scrape {
        // The daemon runs as a process of its own.
        run::quietly(workspace.cargo("build").args(["--locked", "--release", "--quiet", "--bins"]))?;
    }
    if options.benchmark == Benchmark::Vms {
        cargo.env("CULVERT_LINUX_GUEST", linux_guest::prepare(workspace)?);
    }
    // The output of `--json` may only contain data.
    run::quietly(cargo.arg("--").args(&options.arguments))
}
