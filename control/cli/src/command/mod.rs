//! The commands: each asks the daemon, or reads a file, and renders the result.

mod policy;
mod replay;
mod trace;
mod views;

use std::time::Duration;

use crate::args::{Cli, Command};
use crate::client::Client;
use crate::error::Error;

/// Runs a command; returns its output.
pub(crate) fn run(cli: &Cli) -> Result<String, Error> {
    let client = Client::new(&cli.host_socket, Duration::from_secs(cli.timeout));
    match &cli.command {
        Command::Policy(command) => policy::run(command, &client, cli.json),
        Command::Nic(command) => views::nic(*command, &client, cli.json),
        Command::Vport(_) => views::vports(&client, cli.json),
        Command::Flows(query) => views::flows(query, &client, cli.json),
        Command::Counters => views::counters(&client, cli.json),
        Command::Drops => views::drops(&client, cli.json),
        Command::Mappings => views::mappings(&client, cli.json),
        Command::Health => views::health(&client, cli.json),
        Command::Trace(packet) => trace::run(packet, &client, cli.json),
        Command::Replay(replay) => replay::run(replay, cli.json),
    }
}
