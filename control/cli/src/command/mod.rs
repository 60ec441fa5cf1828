//! The commands: each asks the daemon, or reads a file, and renders the result.

mod apply;
mod counters;
mod flows;
mod log_level;
mod policy;
mod replay;
mod trace;
mod views;
mod vports;
mod watch;

use std::time::Duration;

use clap::CommandFactory as _;
use culvert_program::manual;

use crate::args::{Cli, Command};
use crate::client::Client;
use crate::error::Error;

/// Runs a command; returns its output.
pub(crate) fn run(cli: &Cli) -> Result<String, Error> {
    let client = Client::new(&cli.host_socket, Duration::from_secs(cli.timeout));
    match &cli.command {
        Command::Policy(command) => policy::run(command, &client, cli.json),
        Command::Nic(command) => views::nic(*command, &client, cli.json),
        Command::Vport(command) => vports::run(command, &client, cli.json),
        Command::Flows(flows) => flows::run(flows, &client, cli.json),
        Command::Counters(watch) => counters::counters(*watch, &client, cli.json),
        Command::Drops(watch) => counters::drops(*watch, &client, cli.json),
        Command::Mappings => views::mappings(&client, cli.json),
        Command::Health => views::health(&client, cli.json),
        Command::Trace(packet) => trace::run(packet, &client, cli.json),
        Command::Replay(replay) => replay::run(replay, cli.json),
        Command::LogLevel { filter } => log_level::run(filter.as_deref(), &client, cli.json),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            // Writing to memory cannot fail.
            let _ = manual::completions(Cli::command(), *shell, &mut text);
            Ok(String::from_utf8_lossy(&text).into_owned())
        }
        Command::ManPages { folder } => manual::man_pages(Cli::command(), "1", folder)
            .map(|()| String::new())
            .map_err(|source| Error::File { path: folder.clone(), source }),
    }
}
