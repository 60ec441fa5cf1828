//! `cargo xtask soak`: prepares everything and starts the soak, which is a program of tests/e2e.

use std::process::Command;

use clap::Args;

use crate::failure::Result;
use crate::workspace::Workspace;
use crate::{firmware, run, setup};

/// How long, and which events.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    setup: setup::Options,
    /// How long.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Decides what happens when. The same seed gives the same events in the same order.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn execute(workspace: &Workspace, options: &Options) -> Result<()> {
    let target = setup::prepare(workspace, &options.setup)?;
    let firmware = firmware::build(workspace, &target)?;
    run::run(workspace.cargo("build").args(["--locked", "--bins"]))?;
    let mut soak = Command::new(workspace.binaries().join("culvert-soak"));
    soak.current_dir(&workspace.root).env("CULVERT_FIRMWARE", firmware);
    soak.args(["--minutes", &options.minutes.to_string(), "--seed", &options.seed.to_string()]);
    run::run(&mut soak)
}
