//! Who finds the MACs of next hops: the slow path itself, or the kernel whose addresses the provider addresses are.

use std::net::IpAddr;

use crate::decide::Policy;
use crate::engine::Engine;
use crate::next_hop::HopId;
use crate::plan::Way;
use culvert_netlink::NeighbourEvent;

/// Who finds next hops.
pub(crate) enum Resolver {
    /// The slow path, by ARP through the NIC. It answers for the provider addresses, announces and moves them.
    Own,
    /// The kernel, with these questions to it. Whatever else concerns the provider addresses is the kernel's, too: the
    /// slow path sends and answers nothing in their names.
    Kernel(Vec<HopId>),
}

impl Resolver {
    /// A tunnel as this one sees it: the kernel is asked for the other host, and knows the gateways itself.
    pub(crate) fn way(&self, way: Way) -> Way {
        match self {
            Resolver::Own => way,
            Resolver::Kernel(_) => Way { next_hop: Some(way.remote), ..way },
        }
    }
}

impl<P: Policy> Engine<P> {
    /// Leaves the provider addresses to the kernel. Next hops are then the other hosts; their MACs are those of the
    /// kernel's next hops to them.
    #[must_use]
    pub fn on_kernel_addresses(mut self) -> Self {
        self.uplinks.fix();
        self.resolver = Resolver::Kernel(Vec::new());
        self
    }

    /// Whose next hops [`Neighbours`](culvert_netlink::Neighbours) is to be asked for, once for each of them; those that
    /// were asked for before have to be said again.
    pub fn take_questions(&mut self) -> Vec<HopId> {
        match &mut self.resolver {
            Resolver::Own => Vec::new(),
            Resolver::Kernel(questions) => std::mem::take(questions),
        }
    }

    /// What the kernel has found out about the next hops of our address number `pa`. Links are told by
    /// [`links`](Self::links).
    pub fn kernel(&mut self, pa: u8, event: &NeighbourEvent, now: u32) {
        let action = match *event {
            NeighbourEvent::Resolved { remote: IpAddr::V4(addr), mac, .. } => {
                self.hops.heard(HopId { pa, addr }, mac, now)
            }
            // A hop that was reached keeps its MAC: a wrong one costs no more than none.
            NeighbourEvent::Unanswered { remote: IpAddr::V4(addr), .. }
            | NeighbourEvent::NoRoute { remote: IpAddr::V4(addr) } => {
                self.hops.unanswered(HopId { pa, addr }, now)
            }
            _ => None,
        };
        self.execute(action.into_iter().collect(), now);
    }
}

#[cfg(test)]
mod tests;
