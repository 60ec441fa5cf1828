//! `cargo xtask test`: sets up, builds everything that tests start, runs them, and says which were skipped.

use std::fs;
use std::path::Path;
use std::process::Command;

use clap::Args;

use crate::failure::Result;
use crate::workspace::Workspace;
use crate::{dpdk, firmware, linux_guest, package, run, schemathesis, setup};

/// Packages whose tests run one at a time.
const SERIAL: [&str; 3] = ["culvert-e2e", "culvert-hostile", "culvert-lockstep"];

/// What to test.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    setup: setup::Options,
    /// A test that is skipped fails, as in CI.
    #[arg(long)]
    no_skip: bool,
    /// Passed to the test runner, for example a filter or `-p culvert-flow`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Options {
    /// All tests, none of them skipped.
    pub(crate) fn for_ci() -> Self {
        Options { no_skip: true, ..Options::default() }
    }
}

pub(crate) fn execute(workspace: &Workspace, options: &Options) -> Result<()> {
    let skipped = workspace.target.join("skipped-tests");
    // What an earlier run has left, if there was one.
    let _removed = fs::remove_file(&skipped);
    let result = run_tests(workspace, options, &skipped);
    report_skipped(&fs::read_to_string(&skipped).unwrap_or_default());
    result
}

/// Prints the tests that were skipped, a line for each.
fn report_skipped(lines: &str) {
    let mut lines: Vec<&str> = lines.lines().collect();
    lines.sort_unstable();
    if lines.is_empty() {
        return;
    }
    println!("{} tests skipped:", lines.len());
    for line in lines {
        println!("  {line}");
    }
}

fn run_tests(workspace: &Workspace, options: &Options, skipped: &Path) -> Result<()> {
    let target = setup::prepare(workspace, &options.setup)?;
    let firmware = firmware::build(workspace, &target)?;
    let linux_guest = linux_guest::prepare(workspace)?;
    let testpmd = match dpdk::testpmd(workspace) {
        Err(failure) if !options.no_skip => {
            eprintln!("{failure}: the test that needs it is skipped");
            None
        }
        found => Some(found?),
    };
    let schemathesis = match schemathesis::python(workspace) {
        Err(failure) if !options.no_skip => {
            eprintln!("{failure}: the test that needs it is skipped");
            None
        }
        found => Some(found?),
    };
    // Tests start boards, daemons and guests that belong to other packages than their own.
    run::run(workspace.cargo("build").args(["--locked", "--bins"]))?;
    let packages = package::build(workspace, &workspace.binaries(), &firmware, false)?;
    if options.arguments.is_empty() {
        run::run(workspace.cargo("test").args(["--locked", "--doc", "--quiet"]))?;
    }
    let run = |cargo: &mut Command, arguments: &[String]| {
        cargo.env("CULVERT_FIRMWARE", &firmware).env("CULVERT_LINUX_GUEST", &linux_guest);
        cargo.envs(packages.first().map(|package| ("CULVERT_PACKAGE", package)));
        cargo.envs(testpmd.iter().map(|path| ("CULVERT_TESTPMD", path)));
        cargo.envs(schemathesis.iter().map(|path| ("CULVERT_SCHEMATHESIS", path)));
        cargo.env(culvert_skip::REPORT, skipped);
        if options.no_skip {
            cargo.env(culvert_skip::FORBIDDEN, "1");
        }
        run::run(cargo.args(arguments))
    };
    if run::succeeds(workspace.cargo("nextest").arg("--version")) {
        return run(workspace.cargo("nextest").args(["run", "--locked"]), &options.arguments);
    }
    if !options.arguments.is_empty() {
        return run(workspace.cargo("test").arg("--locked"), &options.arguments);
    }
    // What .config/nextest.toml says about the tests that start boards, in cargo's words.
    let (serial, parallel): (Vec<&str>, Vec<&str>) =
        workspace.default_members().into_iter().partition(|name| SERIAL.contains(name));
    for (packages, threads) in [(parallel, &[][..]), (serial, &["--", "--test-threads=1"])] {
        let mut cargo = workspace.cargo("test");
        cargo.args(["--locked", "--lib", "--bins", "--tests"]);
        cargo.args(packages.iter().flat_map(|name| ["--package", name])).args(threads);
        run(&mut cargo, &[])?;
    }
    Ok(())
}
