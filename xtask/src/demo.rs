//! `cargo xtask demo`: prepares everything and starts the deployment, which is a program of tests/e2e.

use std::process::Command;

use clap::Args;

use crate::failure::Result;
use crate::workspace::Workspace;
use crate::{firmware, linux_guest, run, setup};

/// What to show.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    setup: setup::Options,
    /// One of the guests is a Linux VM with its own virtio-net driver.
    #[arg(long)]
    vm: bool,
    /// Both hosts have no NIC: the switch alone.
    #[arg(long, conflicts_with_all = ["vm", "mixed"])]
    software: bool,
    /// Host 1 has an emulated NIC, host 2 the switch alone.
    #[arg(long, conflicts_with = "vm")]
    mixed: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
    /// Passed to the deployment.
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn execute(workspace: &Workspace, options: &Options) -> Result<()> {
    let target = setup::prepare(workspace, &options.setup)?;
    let firmware = firmware::build(workspace, &target)?;
    run::run(workspace.cargo("build").args(["--locked", "--bins"]))?;
    let mut demo = Command::new(workspace.binaries().join("culvert-demo"));
    demo.current_dir(&workspace.root).env("CULVERT_FIRMWARE", firmware);
    if options.vm {
        demo.arg("--vm").env("CULVERT_LINUX_GUEST", linux_guest::prepare(workspace)?);
    }
    if options.software || options.mixed {
        demo.args(["--software", if options.mixed { "mixed" } else { "all" }]);
    }
    if options.json {
        demo.arg("--json");
    }
    run::run(demo.args(&options.arguments))
}
