//! The daemon's command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Parser, ValueEnum};
use culvert_switch::SwitchSettings;

use crate::SocketGroup;

/// What `--help` and the man page say last.
const AFTER_HELP: &str = "\
Environment:
  CULVERT_LOG    which lines are logged: a level, and MODULE=LEVEL for modules, separated by commas [default: info];
                 `culvert log-level` changes it at run time
  NOTIFY_SOCKET, WATCHDOG_USEC
                 set by systemd: culvertd is ready when it forwards, and feeds the watchdog while its threads live

Exit codes:
  0   stopped by SIGTERM or SIGINT
  1   cannot start or serve; the reason and the remedy are printed
  2   the command line is wrong
  70  a thread that culvertd needs has failed; the last line of the log says which";

/// Culvert's control daemon: keeps a host's policy and applies it to the NIC or to the software datapath.
#[derive(Clone, Debug, Parser)]
#[command(name = "culvertd", version, after_help = AFTER_HELP)]
#[command(group(ArgGroup::new("clients").multiple(true)))]
#[command(group(ArgGroup::new("backend").required(true).args(["nic", "uplink"])))]
pub struct Args {
    /// This host's name: the resourceId of its server in the policy.
    #[arg(long)]
    pub host: String,
    /// The NIC: vfio-user:SOCKET, or vfio:PCI-ADDRESS.
    #[arg(long)]
    pub nic: Option<String>,
    /// Without a Culvert NIC: interface of the provider network, which the software datapath shares with the kernel.
    /// Once or twice, for the policy's uplinks 0 and 1.
    #[arg(long, num_args = 1, value_name = "INTERFACE")]
    pub uplink: Vec<String>,
    /// Who owns the provider addresses on the uplinks.
    #[arg(long, value_enum, default_value_t, requires = "uplink")]
    pub provider_address: ProviderAddress,
    /// How the uplinks send and receive frames.
    #[arg(long, value_enum, default_value_t, requires = "uplink")]
    pub driver: Driver,
    /// Kind of port for virtual machines that no VF serves, unless the policy's network interface says otherwise.
    #[arg(long, value_enum, default_value_t)]
    pub port: Port,
    /// Flow records of each worker, rounded up to a power of two. Each connection uses two.
    #[arg(long, default_value_t = SwitchSettings::DEFAULT_FLOWS, requires = "uplink")]
    pub flows: u32,
    /// Workers (threads) of the software datapath. One worker serves each virtual machine. Left out: one, or one for each
    /// --core.
    #[arg(long, requires = "uplink")]
    pub workers: Option<usize>,
    /// Processors that the workers are pinned to, one for each: 2,3. Left out: the system chooses.
    #[arg(long, value_delimiter = ',', requires = "uplink")]
    pub core: Vec<usize>,
    /// Firmware image to load into the NIC. Left out: the NIC keeps what it runs.
    #[arg(long)]
    pub firmware: Option<PathBuf>,
    /// Virtual functions to enable, at most as many as the NIC has.
    #[arg(long, default_value_t = 16)]
    pub vfs: u16,
    /// Directory of the store.
    #[arg(long, default_value = "/var/lib/culvert")]
    pub state: PathBuf,
    /// UNIX socket of the API. Without a NIC, connections are saved beside it for the next start.
    #[arg(long, default_value = "/run/culvert/culvertd.sock")]
    pub socket: PathBuf,
    /// Group whose members may use the API's socket. Left out: culvertd's own.
    #[arg(long, value_name = "GROUP")]
    pub socket_group: Option<SocketGroup>,
    /// Group whose members may open the vhost-user sockets: that of QEMU's processes. Left out: culvertd's own.
    #[arg(long, value_name = "GROUP")]
    pub vm_socket_group: Option<SocketGroup>,
    /// Also serve the API on this address and port, with TLS, to clients that have a certificate.
    #[arg(long, requires = "tls_cert", requires = "tls_key", requires = "clients")]
    pub listen: Option<SocketAddr>,
    /// A name of this daemon that requests on --listen may be for, beside its addresses; may be repeated.
    #[arg(long, value_name = "NAME", num_args = 1, requires = "listen")]
    pub listen_name: Vec<String>,
    /// Certificate of --listen, with its chain (PEM).
    #[arg(long, value_name = "FILE", requires = "listen")]
    pub tls_cert: Option<PathBuf>,
    /// Key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "listen")]
    pub tls_key: Option<PathBuf>,
    /// Authorities that sign the certificates of clients which may change the policy (PEM).
    #[arg(long, value_name = "FILE", requires = "listen", group = "clients")]
    pub tls_client_ca: Option<PathBuf>,
    /// Authorities that sign the certificates of clients which may only look (PEM).
    #[arg(long, value_name = "FILE", requires = "listen", group = "clients")]
    pub tls_reader_ca: Option<PathBuf>,
    /// Log lines as JSON.
    #[arg(long)]
    pub log_json: bool,
}

/// Owner of the provider addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProviderAddress {
    /// The kernel: it has them on the uplinks, resolves next hops and answers ARP. Its other traffic stays with it.
    #[default]
    Kernel,
    /// Culvert: its own addresses, beside those of the kernel.
    Own,
}

/// How an interface sends and receives frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// Packet sockets, on any interface.
    #[default]
    AfPacket,
    /// XDP sockets, which receive frames before the kernel's network stack. Needs CAP_BPF and CAP_PERFMON, too.
    AfXdp,
}

/// Kind of port for a virtual machine without a VF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Port {
    /// TAP interfaces.
    #[default]
    Tap,
    /// vhost-user sockets.
    VhostUser,
}
