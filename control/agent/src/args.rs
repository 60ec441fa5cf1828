//! The daemon's command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

/// Culvert's control daemon: keeps a host's policy and feeds its NIC.
#[derive(Clone, Debug, Parser)]
#[command(name = "culvertd", version)]
pub struct Args {
    /// This host's name: the resourceId of its server in the policy.
    #[arg(long)]
    pub host: String,
    /// The NIC: vfio-user:SOCKET, or vfio:PCI-ADDRESS.
    #[arg(long)]
    pub nic: String,
    /// Firmware image to load into the NIC. Left out: the NIC keeps what it runs.
    #[arg(long)]
    pub firmware: Option<PathBuf>,
    /// Virtual functions to make, at most as many as the NIC can have.
    #[arg(long, default_value_t = 16)]
    pub vfs: u16,
    /// Directory of the store.
    #[arg(long, default_value = "/var/lib/culvert")]
    pub state: PathBuf,
    /// UNIX socket of the API.
    #[arg(long, default_value = "/run/culvert/culvertd.sock")]
    pub socket: PathBuf,
    /// Also serve the API on this loopback address and port.
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Log lines as JSON.
    #[arg(long)]
    pub log_json: bool,
}
