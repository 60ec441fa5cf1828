//! Arguments of the views of the running host.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

/// Virtual ports.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Vport {
    /// One line each.
    List {
        /// What to print of each: wide has all that there is.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        #[command(flatten)]
        watch: Watch,
    },
    /// All about one.
    Show {
        /// Its number, or its network interface.
        #[arg(value_name = "ID|NAME")]
        vport: String,
    },
}

/// How much a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// At most 100 columns.
    Table,
    /// Everything.
    Wide,
}

/// Whether to look again and again.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Watch {
    /// Look again every so many seconds (2), and show rates, until Ctrl-C. With --json, one line each time.
    #[arg(long = "watch", value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = seconds)]
    pub(crate) interval: Option<Duration>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("use 0.1 to 3600 seconds".to_owned()),
    }
}

/// Flows, or what to do with them.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Flows {
    /// What to do with them; left out: show them.
    #[command(subcommand)]
    pub(crate) command: Option<FlowCommand>,
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// The order; left out: that of the table.
    #[arg(long, value_enum)]
    pub(crate) sort: Option<Order>,
    /// At most this many flows.
    #[arg(long, default_value_t = 1000)]
    pub(crate) limit: usize,
    /// Show the N addresses that sent most bytes (or packets, with --sort packets), in place of flows.
    #[arg(long, value_name = "N", conflicts_with = "limit")]
    pub(crate) top: Option<usize>,
    #[command(flatten)]
    pub(crate) watch: Watch,
}

/// What to do with flows.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum FlowCommand {
    /// Delete flow records: the next packet of each flow is decided anew, and makes its record again.
    Flush {
        #[command(flatten)]
        filter: Filter,
        /// All flows.
        #[arg(long, required_unless_present_any = ["vport", "vsid", "address", "port", "protocol", "state"])]
        all: bool,
    },
}

/// Which flows.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Filter {
    /// Only of the vport with this number.
    #[arg(long)]
    pub(crate) vport: Option<u16>,
    /// Only of this VSID.
    #[arg(long)]
    pub(crate) vsid: Option<u32>,
    /// Only from or to this address or prefix.
    #[arg(long)]
    pub(crate) address: Option<String>,
    /// Only from or to this port.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Only of this protocol: tcp, udp, icmp, icmpv6 or a number.
    #[arg(long)]
    pub(crate) protocol: Option<String>,
    /// Only in this state.
    #[arg(long, value_enum)]
    pub(crate) state: Option<State>,
}

/// What forwards a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    /// The host is deciding on it.
    Pending,
    /// The NIC.
    Offloaded,
    /// Software on the host.
    Software,
}

/// An order of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// Most bytes first.
    Bytes,
    /// Most packets first.
    Packets,
    /// Used last first.
    Idle,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = std::iter::once("culvert").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.command)
    }

    #[test]
    fn a_watch_has_an_interval_within_limits() {
        let interval = |line: &str| match parse(line).unwrap() {
            Command::Counters(watch) | Command::Drops(watch) => watch.interval,
            Command::Flows(flows) => flows.watch.interval,
            other => panic!("{other:?}"),
        };
        assert_eq!(interval("counters"), None);
        assert_eq!(interval("counters --watch"), Some(Duration::from_secs(2)));
        assert_eq!(interval("drops --watch 0.5"), Some(Duration::from_millis(500)));
        assert_eq!(interval("flows --watch --port 80"), Some(Duration::from_secs(2)));
        for wrong in ["0", "-1", "NaN", "inf", "x"] {
            assert!(parse(&format!("drops --watch={wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_flush_needs_a_filter_or_all() {
        assert!(parse("flows flush --all").is_ok() && parse("flows flush --port 80").is_ok());
        assert_eq!(parse("flows flush").unwrap_err().exit_code(), 2);
        assert_eq!(parse("flows --port 80 flush --all").unwrap_err().exit_code(), 2);
    }
}
