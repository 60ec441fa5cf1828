//! `cargo xtask fuzz`: builds the fuzz targets with libFuzzer and coverage, and runs them.
//!
//! The coverage comes from a pass of LLVM that a stable compiler runs when it is told to (`-Cpasses`), so that neither
//! cargo-fuzz nor another toolchain is needed. There is no address sanitizer, which a stable compiler does not have: what
//! is seen are panics, overflows, failed assertions, crashes, hangs and memory without bound.

mod progress;
mod target;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;

use self::target::Running;
use crate::failure::Result;
use crate::workspace::Workspace;
use crate::{run, setup};

const PACKAGE: &str = "culvert-fuzz";
/// Binaries with this prefix are fuzz targets.
const PREFIX: &str = "fuzz-";
/// What cargo-fuzz passes, too, where it uses no sanitizer.
const COVERAGE: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// Between two lines on how far it has come.
const REPORT: Duration = Duration::from_secs(10);

/// What to fuzz, and for how long.
#[derive(Debug, Default, Args)]
pub(crate) struct Options {
    /// Minutes for each target.
    #[arg(long, conflicts_with = "seconds")]
    minutes: Option<u64>,
    /// Seconds for each target. Without a time: 60.
    #[arg(long)]
    seconds: Option<u64>,
    /// How many targets run at once; as many as there are processors if it is not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Runs all targets.
    #[arg(long, conflicts_with = "targets")]
    all: bool,
    /// Runs the one target with this file only.
    #[arg(long)]
    input: Option<PathBuf>,
    /// The targets; without any, they are listed.
    targets: Vec<String>,
}

impl Options {
    /// Each target for this long.
    pub(crate) fn all_for(seconds: u64) -> Self {
        Options { seconds: Some(seconds), all: true, ..Options::default() }
    }
}

pub(crate) fn execute(workspace: &Workspace, options: &Options) -> Result<()> {
    let known = targets(workspace);
    if options.targets.is_empty() && !options.all {
        println!("targets, of which each is a module of tests/fuzz/src:");
        for name in &known {
            println!("  {name:<12} {}", first_line(workspace, name));
        }
        return Ok(());
    }
    let chosen = if options.all { &known } else { &options.targets };
    if let Some(unknown) = chosen.iter().find(|name| !known.contains(name)) {
        return Err(format!("no target {unknown}; there are {}", known.join(", ")).into());
    }
    let programs = build(workspace, chosen)?;
    if let Some(input) = &options.input {
        let [name] = &chosen[..] else { return Err("--input needs one target".into()) };
        return run::run(Command::new(programs.join(format!("{PREFIX}{name}"))).arg(input));
    }
    let seconds = options.minutes.map(|minutes| 60 * minutes).or(options.seconds).unwrap_or(60);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let folder = workspace.target.join("fuzz");
    run_all(&folder, &programs, chosen, seconds, options.jobs.unwrap_or(processors).max(1))
}

/// Names of the targets: binaries that the package has for libFuzzer.
fn targets(workspace: &Workspace) -> Vec<String> {
    let packages = workspace.metadata["packages"].as_array().into_iter().flatten();
    let ours = packages.filter(|package| package["name"] == PACKAGE);
    let binaries = ours.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let names = binaries.filter_map(|target| target["name"].as_str()?.strip_prefix(PREFIX));
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort();
    names
}

/// What the target's module says of itself.
fn first_line(workspace: &Workspace, name: &str) -> String {
    let text =
        fs::read_to_string(workspace.root.join(format!("tests/fuzz/src/{name}.rs"))).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim_start_matches("//! ").to_owned()
}

/// Builds targets and writes the inputs of all. Returns the folder of the programs.
fn build(workspace: &Workspace, names: &[String]) -> Result<PathBuf> {
    setup::prepare_fuzzing()?;
    let rustc = run::output(Command::new("rustc").arg("-vV").current_dir(&workspace.root))?;
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or("`rustc -vV` names no host")?;
    let flags: Vec<String> = COVERAGE.iter().map(|flag| format!("\"{flag}\"")).collect();
    let mut cargo = workspace.cargo("build");
    cargo.args(["--locked", "--package", PACKAGE, "--features", "libfuzzer", "--profile", "fuzz"]);
    cargo.args(names.iter().flat_map(|name| ["--bin".to_owned(), format!("{PREFIX}{name}")]));
    // With a target, build scripts and macros are built without coverage. The flags are merged with those of
    // .cargo/config.toml, which the variable would replace.
    cargo.args(["--target", host, "--config"]).arg(format!("target.{host}.rustflags=[{}]", flags.join(",")));
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    run::run(&mut cargo)?;
    // An ordinary program: one with coverage would need libFuzzer's main function.
    let mut corpus = workspace.cargo("run");
    corpus.args(["--locked", "--quiet", "--package", PACKAGE, "--"]).arg(workspace.target.join("fuzz/seeds"));
    run::run(&mut corpus)?;
    Ok(workspace.target.join(host).join("fuzz"))
}

/// Runs targets, `jobs` at a time, and says every ten seconds how far they are.
fn run_all(folder: &Path, programs: &Path, names: &[String], seconds: u64, jobs: usize) -> Result<()> {
    let mut waiting: VecDeque<&String> = names.iter().collect();
    let (mut running, mut failed): (Vec<Running>, Vec<String>) = (Vec::new(), Vec::new());
    let mut reported = Instant::now();
    while !waiting.is_empty() || !running.is_empty() {
        while running.len() < jobs
            && let Some(name) = waiting.pop_front()
        {
            let program = programs.join(format!("{PREFIX}{name}"));
            running.push(Running::start(folder, &program, name, seconds)?);
        }
        let mut still = Vec::new();
        for mut target in running {
            match target.ended()? {
                None => still.push(target),
                Some(true) => println!("{}", target.line("done")),
                Some(false) => failed.push(target.report_failure()),
            }
        }
        running = still;
        if reported.elapsed() >= REPORT {
            reported = Instant::now();
            running.iter().for_each(|target| println!("{}", target.line("running")));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("faults found by {}", failed.join(", ")).into()) }
}
