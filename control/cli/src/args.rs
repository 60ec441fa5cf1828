//! The command line.

mod views;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use culvert_program::manual::Shell;

/// What `--help` and the man page say last.
const AFTER_HELP: &str = "\
Exit codes:
  0  done, and all is well
  1  refused, failed or not ok; the reason and the remedy are printed
  2  the command line is wrong
  3  culvertd cannot be reached, or does not answer in time";

pub(crate) use self::views::{Filter, FlowCommand, Flows, Order, Output, State, Vport, Watch};

/// Culvert: overlay networks for passthrough virtual machines.
#[derive(Clone, Debug, Parser)]
#[command(name = "culvert", version, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// The daemon's socket.
    #[arg(long, global = true, env = "CULVERT_SOCKET", default_value = "/run/culvert/culvertd.sock")]
    pub(crate) host_socket: PathBuf,
    /// Print JSON, errors too.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Seconds to wait for the daemon.
    #[arg(long, global = true, default_value_t = 30)]
    pub(crate) timeout: u64,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The command.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Apply, show or check policies.
    #[command(subcommand)]
    Policy(Policy),
    /// The NIC and its offloads.
    #[command(subcommand)]
    Nic(Nic),
    /// Virtual ports.
    #[command(subcommand)]
    Vport(Vport),
    /// Flows: show them, those who send most, or delete their records.
    Flows(Flows),
    /// Packets and bytes by port.
    Counters(Watch),
    /// Dropped packets by reason.
    Drops(Watch),
    /// Customer addresses and their locations.
    Mappings,
    /// Show the policy's decision on a packet, layer by layer. Changes nothing.
    Trace(Trace),
    /// Replay a capture through a host's policy, without a daemon or a NIC.
    ///
    /// The frames pass, at the times of the capture, through the slow path and the switch of a host without a Culvert
    /// NIC, with the tables and limits of a live one. Frames that leave are written to a pcapng file with one interface
    /// for each port: uplink0, uplink1 and the network interfaces of the host. Every packet has a verdict (forward,
    /// replicate, reply, host, drop) and a reason: why it was dropped, or why its flow had no record, such as miss for a
    /// flow's first packet.
    ///
    /// Three things differ from a live host. All next hops of the provider network have the MAC 00:00:5e:00:53:01, since
    /// a replay cannot resolve them. The secrets of the flow hashes are always the same, and with them the UDP source
    /// ports and NVGRE FlowIDs. Both uplinks have a link, every vport is up, and no port has an MTU of its own.
    Replay(Replay),
    /// State of the daemon.
    Health,
    /// Show or change which lines the daemon's log has, until it ends.
    LogLevel {
        /// off, error, warn, info, debug or trace, and MODULE=LEVEL for modules: info,culvert_switch=debug. Left out: show it.
        filter: Option<String>,
    },
    /// Print what a shell completes this tool's command line with.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write man pages into a folder, for packages.
    #[command(hide = true)]
    ManPages {
        /// The folder.
        folder: PathBuf,
    },
}

/// Apply, show or check policies.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Policy {
    /// Make a file the host's policy.
    Apply {
        /// Bundle of resources; - for standard input.
        file: PathBuf,
        /// Keep resources that the file does not name.
        #[arg(long)]
        merge: bool,
        /// Only show what would change.
        #[arg(long)]
        dry_run: bool,
        /// Do not wait until the host carries the policy out: exit 0 once it is stored. Without this, the command waits at
        /// most --timeout seconds, says what it waits for, and exits 1 if something is not carried out then.
        #[arg(long, conflicts_with = "dry_run")]
        no_wait: bool,
        /// Leave out properties that are not known or not implemented, with a warning for each, instead of refusing them.
        #[arg(long)]
        lenient: bool,
        /// Also if it deletes more than half of the network interfaces.
        #[arg(long)]
        force: bool,
    },
    /// Print the host's policy.
    Show {
        /// Only this resource, such as /virtualNetworks/contoso.
        path: Option<String>,
    },
    /// The rules of access control lists, and how often each decided.
    Rules,
    /// Check a file, without a daemon.
    Validate {
        /// Bundle of resources; - for standard input.
        file: PathBuf,
        /// Leave out properties that are not known or not implemented, with a warning for each, instead of refusing them.
        #[arg(long)]
        lenient: bool,
    },
}

/// The NIC and its offloads.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Nic {
    /// The host's NIC in one line.
    List,
    /// Everything, with offloads and why others are missing.
    Show,
}

/// The packet to trace.
#[derive(Clone, Debug, Args)]
pub(crate) struct Trace {
    /// Where it comes in: a network interface of this host or a vport's number; or uplink0 or uplink1, for a whole
    /// frame with its outer headers.
    #[arg(long)]
    pub(crate) port: String,
    /// Destination address.
    #[arg(long, required_unless_present = "frame")]
    pub(crate) to: Option<String>,
    /// Source address; left out: the port's own.
    #[arg(long)]
    pub(crate) from: Option<String>,
    /// Protocol.
    #[arg(long, value_enum, default_value_t = Protocol::Tcp)]
    pub(crate) protocol: Protocol,
    /// Source port; left out: 49152.
    #[arg(long)]
    pub(crate) sport: Option<u16>,
    /// Destination port; TCP and UDP need one.
    #[arg(long)]
    pub(crate) dport: Option<u16>,
    /// Length of the IP packet in bytes; left out: as short as it can be.
    #[arg(long)]
    pub(crate) size: Option<u32>,
    /// Source MAC; left out: the port's own.
    #[arg(long)]
    pub(crate) src_mac: Option<String>,
    /// Destination MAC; left out: that of the address, or of the router.
    #[arg(long)]
    pub(crate) dst_mac: Option<String>,
    /// A whole frame in hexadecimal digits, instead of addresses.
    #[arg(long, conflicts_with_all = ["to", "from", "sport", "dport", "size", "src_mac", "dst_mac"])]
    pub(crate) frame: Option<String>,
}

/// The capture to replay, and where.
#[derive(Clone, Debug, Args)]
pub(crate) struct Replay {
    /// Bundle of resources; - for standard input.
    #[arg(long)]
    pub(crate) policy: PathBuf,
    /// The host: the resourceId of its server in the policy.
    #[arg(long)]
    pub(crate) host: String,
    /// The frames come from this network interface of the host.
    #[arg(long, required_unless_present = "uplink", conflicts_with = "uplink")]
    pub(crate) vport: Option<String>,
    /// The frames come from the wire, at uplink 0 or 1.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=1))]
    pub(crate) uplink: Option<u8>,
    /// Capture to read: pcap or pcapng, Ethernet.
    #[arg(long = "in", value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// Capture to write: pcapng.
    #[arg(long = "out", value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// What forwards.
    #[arg(long, value_enum, default_value_t = EngineKind::Core)]
    pub(crate) engine: EngineKind,
    /// Show the layers of the policy that were asked about each packet.
    #[arg(long)]
    pub(crate) trace: bool,
}

/// What forwards replayed packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EngineKind {
    /// The match-action core, in this process.
    Core,
}

/// Protocols that a packet can be made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// TCP, the first packet of a connection.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo request.
    Icmp,
}

impl Protocol {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("culvert").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_all_commands_stand_anywhere() {
        let cli = parse("policy apply --merge x.json --json --host-socket /tmp/s").unwrap();
        assert!(cli.json);
        assert_eq!(cli.host_socket, PathBuf::from("/tmp/s"));
        let Command::Policy(Policy::Apply { file, merge: true, dry_run: false, no_wait: false, .. }) =
            cli.command
        else {
            panic!("apply")
        };
        assert_eq!(file, PathBuf::from("x.json"));
        assert_eq!(parse("drops").unwrap().host_socket, PathBuf::from("/run/culvert/culvertd.sock"));
    }

    #[test]
    fn a_trace_needs_an_address_or_a_frame() {
        assert!(parse("trace --port a --to 10.1.1.12 --protocol udp --dport 53").is_ok());
        assert!(parse("trace --port a --frame 00ff").is_ok());
        assert_eq!(parse("trace --port a").unwrap_err().exit_code(), 2);
        assert_eq!(parse("trace --port a --to 10.1.1.12 --frame 00").unwrap_err().exit_code(), 2);
        let replay = |port: &str| parse(&format!("replay --policy p --host h {port} --in a --out b"));
        assert!(replay("--vport a").is_ok() && replay("--uplink 1").is_ok());
        for wrong in ["", "--vport a --uplink 0", "--uplink 2", "--vport a --engine firmware"] {
            assert_eq!(replay(wrong).unwrap_err().exit_code(), 2, "{wrong}");
        }
        assert_eq!(parse("flows --vport x").unwrap_err().exit_code(), 2);
    }
}
