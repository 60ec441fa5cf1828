//! Who resolves next hops: the slow path by ARP, or the kernel.

use super::next_hop::NextHopId;
use super::tunnel_path::TunnelPath;

/// Who resolves next hops.
pub(super) enum Resolver {
    /// The slow path, by ARP through the NIC. It answers for the provider addresses, announces and moves them.
    Own,
    /// The kernel, which has the provider addresses; these are the open requests to it. The slow path sends and answers
    /// nothing in their names.
    Kernel(Vec<NextHopId>),
}

impl Resolver {
    /// A tunnel's path for this resolver: the kernel is asked for the other host, and knows the gateways itself.
    pub(super) fn path(&self, path: TunnelPath) -> TunnelPath {
        match self {
            Resolver::Own => path,
            Resolver::Kernel(_) => TunnelPath { next_hop: Some(path.remote), ..path },
        }
    }

    /// Takes the open requests to the kernel.
    pub(super) fn take_requests(&mut self) -> Vec<NextHopId> {
        match self {
            Resolver::Own => Vec::new(),
            Resolver::Kernel(requests) => std::mem::take(requests),
        }
    }
}
