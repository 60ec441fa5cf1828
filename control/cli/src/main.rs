//! `culvert`, the operator's tool: applies policies, and shows the state of the running host.
//!
//! Exit codes: 0 success; 1 failure, with the reason and its remedy printed; 2 the command line is wrong.

#![forbid(unsafe_code)]

mod args;
mod client;
mod command;
mod error;
mod output;
mod replay;
mod table;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let (text, code) = match command::run(&cli) {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) if cli.json => (error.json(), ExitCode::from(1)),
        Err(error) => {
            let _ = write!(std::io::stderr(), "{}", error.text());
            return ExitCode::from(1);
        }
    };
    // A reader that closed the pipe does not want the rest.
    let _ = std::io::stdout().write_all(text.as_bytes());
    code
}
