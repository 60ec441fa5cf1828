//! The project's task runner: `cargo xtask <command>`.
//!
//! It prepares a machine, builds what `cargo build` alone cannot (the firmware image, the Linux guest) and runs the demo,
//! the tests, the benchmarks and what CI checks. Everything it downloads or builds beside cargo's own output goes to one
//! cache folder (see [`workspace::Workspace::cache`]).
#![forbid(unsafe_code)]

mod apt_root;
mod bench;
mod ci;
mod clauses;
mod demo;
mod dpdk;
mod failure;
mod firmware;
mod folder;
mod fuzz;
mod linux_guest;
mod package;
mod run;
mod schemathesis;
mod setup;
mod soak;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Result;
use crate::workspace::Workspace;

/// Set-up, firmware, demo, tests, benchmarks and CI of Culvert.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install or report what the machine lacks: system packages and the RISC-V target.
    Setup(setup::Options),
    /// Build the NIC's firmware image.
    Firmware,
    /// Prepare the Linux guest: QEMU with vfio-user, kernel, initramfs.
    LinuxGuest(linux_guest::Options),
    /// Make Debian packages of the programs.
    Package(package::Options),
    /// Run the two-tenant deployment and print what happened.
    Demo(demo::Options),
    /// Set up, build and run all tests.
    Test(test::Options),
    /// Fuzz what reads foreign input; without a target, list them.
    Fuzz(fuzz::Options),
    /// Kill programs and change policy, links and MTUs at random under traffic, and account for every frame.
    Soak(soak::Options),
    /// Run a benchmark.
    Bench(bench::Options),
    /// List the clauses of RFCs, virtio and PCIe that comments name.
    Clauses,
    /// Compare the dependencies that the documents show with the rule, or write them anew.
    Edges(ci::EdgeOptions),
    /// Run what CI runs, step by step.
    Ci(ci::Options),
}

fn main() -> ExitCode {
    match execute(&Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn execute(task: &Task) -> Result<()> {
    let workspace = Workspace::find()?;
    match task {
        Task::Setup(options) => setup::execute(&workspace, options),
        Task::Firmware => firmware::execute(&workspace).map(|_| ()),
        Task::LinuxGuest(options) => linux_guest::execute(&workspace, options),
        Task::Package(options) => package::execute(&workspace, options),
        Task::Demo(options) => demo::execute(&workspace, options),
        Task::Test(options) => test::execute(&workspace, options),
        Task::Fuzz(options) => fuzz::execute(&workspace, options),
        Task::Soak(options) => soak::execute(&workspace, options),
        Task::Bench(options) => bench::execute(&workspace, options),
        Task::Clauses => clauses::execute(&workspace),
        Task::Edges(options) => ci::edges(&workspace, options),
        Task::Ci(options) => ci::execute(&workspace, options),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    /// clap looks for contradictions between the commands' options only when they are parsed.
    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
