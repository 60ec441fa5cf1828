//! The daemon's command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Parser, ValueEnum};

/// Culvert's control daemon: keeps a host's policy, and feeds its NIC or is the data path itself.
#[derive(Clone, Debug, Parser)]
#[command(name = "culvertd", version)]
#[command(group(ArgGroup::new("hardware").required(true).args(["nic", "uplink"])))]
pub struct Args {
    /// This host's name: the resourceId of its server in the policy.
    #[arg(long)]
    pub host: String,
    /// The NIC: vfio-user:SOCKET, or vfio:PCI-ADDRESS.
    #[arg(long)]
    pub nic: Option<String>,
    /// Without a Culvert NIC: the interface of the provider network, which the software path uses beside the kernel.
    /// Once or twice, for the policy's uplinks 0 and 1.
    #[arg(long, num_args = 1, value_name = "INTERFACE")]
    pub uplink: Vec<String>,
    /// Whose the provider addresses on the uplinks are.
    #[arg(long, value_enum, default_value_t, requires = "uplink")]
    pub provider_address: ProviderAddress,
    /// How the uplinks' frames are taken.
    #[arg(long, value_enum, default_value_t, requires = "uplink")]
    pub driver: Driver,
    /// Where virtual machines attach that no VF serves and whose interface in the policy does not say.
    #[arg(long, value_enum, default_value_t)]
    pub port: Port,
    /// Flow records of each thread of the software path: rounded up to a power of two. Each connection has two of them.
    #[arg(long, default_value_t = 1 << 20, requires = "uplink")]
    pub flows: u32,
    /// Threads of the software path. Each virtual machine is served by one of them. Left out: one, or one for each --core.
    #[arg(long, requires = "uplink")]
    pub workers: Option<usize>,
    /// Processors that the software path's threads stay on, one for each: 2,3. Left out: the system chooses.
    #[arg(long, value_delimiter = ',', requires = "uplink")]
    pub core: Vec<usize>,
    /// Firmware image to load into the NIC. Left out: the NIC keeps what it runs.
    #[arg(long)]
    pub firmware: Option<PathBuf>,
    /// Virtual functions to make, at most as many as the NIC can have.
    #[arg(long, default_value_t = 16)]
    pub vfs: u16,
    /// Directory of the store.
    #[arg(long, default_value = "/var/lib/culvert")]
    pub state: PathBuf,
    /// UNIX socket of the API. Without a NIC, connections are kept beside it for the next start.
    #[arg(long, default_value = "/run/culvert/culvertd.sock")]
    pub socket: PathBuf,
    /// Also serve the API on this loopback address and port.
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Log lines as JSON.
    #[arg(long)]
    pub log_json: bool,
}

/// Whose the provider addresses are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProviderAddress {
    /// The kernel's: it has them on the uplinks, resolves next hops and answers for them. All its other traffic stays.
    #[default]
    Kernel,
    /// The software path's own, beside whatever the kernel has.
    Own,
}

/// How frames of an interface are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    /// By a packet socket, on any interface.
    #[default]
    AfPacket,
    /// By XDP sockets, before the kernel makes anything of them. Needs CAP_BPF, too.
    AfXdp,
}

/// A kind of port of a virtual machine without a VF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Port {
    /// TAP interfaces.
    #[default]
    Tap,
    /// vhost-user sockets.
    VhostUser,
}
