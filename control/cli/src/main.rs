//! `culvert`, the operator's tool: applies policies, and shows the state of the running host.
//!
//! Exit codes: 0 success; 1 failure, with the reason and its remedy printed; 2 the command line is wrong; 3 no answer from
//! culvertd.

#![forbid(unsafe_code)]

mod args;
mod client;
mod command;
mod error;
mod output;
mod replay;
mod table;
mod text;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use culvert_program::escaped_lines;

use crate::args::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (text, code) = match command::run(&cli) {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error::Error::Shown { text }) => (text, ExitCode::from(1)),
        Err(error) if cli.json => (error.json(), ExitCode::from(error.exit_code())),
        Err(error) => {
            let _ = write!(std::io::stderr(), "{}", escaped_lines(&error.text()));
            return ExitCode::from(error.exit_code());
        }
    };
    match output::print(&text) {
        Ok(()) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: cannot write the output: {error}");
            ExitCode::FAILURE
        }
    }
}
