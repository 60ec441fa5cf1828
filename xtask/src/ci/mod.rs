//! `cargo xtask ci`: each check by name, with its time.

mod circles;
mod deny;
mod doc_paths;
mod edge_docs;
mod edges;
mod modules;
mod sizes;
mod sources;
#[cfg(test)]
mod tests;
mod typos;
mod units;
mod words;

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::failure::Result;
use crate::workspace::Workspace;
use crate::{fuzz, run, test};

/// For each fuzz target.
const FUZZ_SECONDS: u64 = 60;

/// What to check.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run all steps even if one fails.
    #[arg(long)]
    keep_going: bool,
    /// Run only these steps, in the usual order.
    #[arg(value_enum)]
    steps: Vec<Step>,
}

/// The steps, in their order: the quick ones first, the tests (whose summary should close the output) last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    /// Formatting.
    Fmt,
    /// Dependencies between the crates against the allowed edges, and these against the documents.
    Edges,
    /// Absolute paths, unsafe code, paths that documents name.
    Sources,
    /// Lengths of files and of crates.
    Sizes,
    /// Typing errors.
    Typos,
    /// Words that the field does not use.
    Words,
    /// The systemd unit and its drop-ins.
    Units,
    /// Files of a crate that import each other in a circle.
    Circles,
    /// Lints of the host's crates and of the firmware image.
    Clippy,
    /// Documentation without warnings.
    Doc,
    /// Licences, sources and duplicates of the dependencies.
    Deny,
    /// A minute of each fuzz target.
    Fuzz,
    /// Set-up, firmware, all tests; one that is skipped fails.
    Test,
}

/// What to do with the dependencies that documents show.
#[derive(Debug, Args)]
pub(crate) struct EdgeOptions {
    /// Write them anew instead of comparing.
    #[arg(long)]
    write: bool,
}

/// Compares or writes the dependencies that documents show.
pub(crate) fn edges(workspace: &Workspace, options: &EdgeOptions) -> Result<()> {
    if options.write { edge_docs::write(workspace) } else { edge_docs::check(workspace) }
}

pub(crate) fn execute(workspace: &Workspace, options: &Options) -> Result<()> {
    let mut done: Vec<(String, Duration, bool)> = Vec::new();
    for &step in Step::value_variants() {
        if !options.steps.is_empty() && !options.steps.contains(&step) {
            continue;
        }
        let name = format!("{step:?}").to_lowercase();
        println!("==> {name}");
        let start = Instant::now();
        let result = check(workspace, step);
        let time = start.elapsed();
        if let Err(failure) = &result {
            eprintln!("error: {failure}");
        }
        println!("<== {name}: {} in {:.1} s", word(result.is_ok()), time.as_secs_f64());
        done.push((name, time, result.is_ok()));
        if result.is_err() && !options.keep_going {
            break;
        }
    }
    let failed: Vec<&str> =
        done.iter().filter(|(_, _, passed)| !passed).map(|(name, ..)| name.as_str()).collect();
    let times: Vec<String> = done
        .iter()
        .map(|(name, time, passed)| format!("{name} {} ({:.1} s)", word(*passed), time.as_secs_f64()))
        .collect();
    println!("ci: {}", times.join(", "));
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

fn word(passed: bool) -> &'static str {
    if passed { "ok" } else { "FAILED" }
}

fn check(workspace: &Workspace, step: Step) -> Result<()> {
    match step {
        Step::Fmt => run::run(workspace.cargo("fmt").args(["--all", "--check"])),
        Step::Edges => edges::check(workspace).and_then(|()| edge_docs::check(workspace)),
        Step::Sources => sources::check(workspace).and_then(|()| doc_paths::check(workspace)),
        Step::Sizes => sizes::check(workspace),
        Step::Typos => typos::check(workspace),
        Step::Words => words::check(workspace),
        Step::Units => units::check(workspace),
        Step::Circles => circles::check(workspace),
        Step::Clippy => {
            run::run(workspace.cargo("clippy").args(["--locked", "--all-targets", "--", "-Dwarnings"]))?;
            crate::firmware::lint(workspace)
        }
        Step::Doc => {
            // Libraries and this task runner: a binary's pages may not overwrite those of a library of the same name.
            let doc = |arguments: &[&str]| {
                let mut cargo = workspace.cargo("doc");
                cargo.args(["--locked", "--no-deps"]).args(arguments);
                run::run(cargo.env("RUSTDOCFLAGS", "-Dwarnings"))
            };
            doc(&["--lib"])?;
            doc(&["--package", "xtask", "--document-private-items"])
        }
        Step::Deny => deny::check(workspace),
        Step::Fuzz => fuzz::execute(workspace, &fuzz::Options::all_for(FUZZ_SECONDS)),
        Step::Test => test::execute(workspace, &test::Options::for_ci()),
    }
}
