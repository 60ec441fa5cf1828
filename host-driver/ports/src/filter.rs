//! Which frames a port takes from an interface.

use std::net::IpAddr;

use crate::classic_bpf;
use crate::filter_rules::{control_rules, overlay_rules, source_rules};
use crate::overlay_sources::OverlaySources;

/// The frames that a port takes.
#[derive(Clone, Debug)]
pub enum Filter {
    /// All frames: no one else uses the interface.
    Everything,
    /// The overlay's frames, all of VXLAN and GRE, to provider addresses that are ours alone, and control traffic about them:
    /// ARP, or neighbour discovery, and ICMP. An address may be served by one of several uplinks; each takes all of them.
    Own(Vec<IpAddr>),
    /// The overlay's frames from known sources to a provider address that is the kernel's, which gets all other frames.
    Kernel {
        /// The provider address.
        address: IpAddr,
        /// Who sends the frames that are taken.
        sources: OverlaySources,
    },
}

impl Filter {
    /// A program that accepts no frame.
    pub(crate) const NOTHING: [libc::sock_filter; 1] = [classic_bpf::REJECT];

    /// The program of classic BPF.
    pub(crate) fn program(&self) -> Vec<libc::sock_filter> {
        match self {
            Filter::Everything => vec![classic_bpf::ACCEPT],
            Filter::Own(addresses) => {
                let rules = addresses.iter().flat_map(|addr| [overlay_rules(*addr), control_rules(*addr)]);
                classic_bpf::compile(&rules.flatten().collect::<Vec<_>>())
            }
            Filter::Kernel { address, sources } => {
                classic_bpf::compile_sources(&source_rules(*address), &sources.current())
            }
        }
    }
}
