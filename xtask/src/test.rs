//! `cargo xtask test`: sets up, builds everything that tests start, runs them.

use clap::Args;

use crate::failure::Result;
use crate::workspace::Workspace;
use crate::{firmware, linux_guest, run, setup};

/// What to test.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    setup: setup::Options,
    /// Passed to the test runner, for example a filter or `-p culvert-flow`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub(crate) fn execute(workspace: &Workspace, options: &Options) -> Result<()> {
    let target = setup::prepare(workspace, &options.setup)?;
    let firmware = firmware::build(workspace, &target)?;
    let linux_guest = linux_guest::prepare(workspace)?;
    // Tests start boards, daemons and guests that belong to other packages than their own.
    run::run(workspace.cargo("build").args(["--locked", "--bins"]))?;
    if options.arguments.is_empty() {
        run::run(workspace.cargo("test").args(["--locked", "--doc", "--quiet"]))?;
    }
    let mut cargo = if run::succeeds(workspace.cargo("nextest").arg("--version")) {
        let mut cargo = workspace.cargo("nextest");
        cargo.args(["run", "--locked"]);
        cargo
    } else {
        // Without nextest the tests of one package run in one process, those that start boards one at a time by themselves.
        let mut cargo = workspace.cargo("test");
        cargo.args(["--locked", "--lib", "--bins", "--tests"]);
        cargo
    };
    cargo.env("CULVERT_FIRMWARE", firmware).env("CULVERT_LINUX_GUEST", linux_guest);
    run::run(cargo.args(&options.arguments))
}
