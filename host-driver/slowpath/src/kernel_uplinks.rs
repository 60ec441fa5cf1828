//! Interfaces on which the kernel has our provider addresses, one for each uplink: their MACs and next hops.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use culvert_netlink::{NeighbourEvent, Neighbours};

use crate::error::{Error, Result};
use crate::underlay::{LocalPa, NextHopId};

/// Whether the policy matches the kernel's addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Addresses {
    Current,
    /// An interface has changed, or does not have its address: the policy must be applied again.
    Stale,
}

/// The interfaces of the uplinks, and the kernel's neighbours on them.
pub(crate) struct KernelUplinks {
    interfaces: Vec<String>,
    /// By number of our address.
    open: BTreeMap<u8, (LocalPa, Neighbours)>,
    addresses: Addresses,
}

impl KernelUplinks {
    /// Interfaces, by number of the uplink.
    pub(crate) fn new(interfaces: Vec<String>) -> Self {
        KernelUplinks { interfaces, open: BTreeMap::new(), addresses: Addresses::Current }
    }

    /// Gives each provider address of a policy the MAC of its interface. The VLAN is left out: the interface adds it to
    /// what a packet socket sends.
    ///
    /// # Errors
    /// An interface does not exist, or does not have the address.
    pub(crate) fn configure(&mut self, locals: &mut [LocalPa]) -> Result<()> {
        // Until all of them are configured.
        self.addresses = Addresses::Stale;
        self.open.retain(|n, (local, _)| locals.get(usize::from(*n)).is_some_and(|l| l.addr == local.addr));
        for (n, local) in locals.iter_mut().enumerate() {
            let name = self.interfaces.get(usize::from(local.uplink)).ok_or(Error::NoInterface {
                uplink: local.uplink,
                addr: local.addr,
                count: self.interfaces.len(),
            })?;
            let neighbours = match self.open.remove(&(n as u8)) {
                Some((_, neighbours)) => neighbours,
                None => Neighbours::open(name, local.addr).map_err(|source| Error::System {
                    what: format!("the interface {name} of uplink {}", local.uplink),
                    source,
                })?,
            };
            let interface = neighbours.interface();
            if !interface.holds(local.addr) {
                return Err(Error::NotOnInterface { interface: name.clone(), addr: local.addr });
            }
            (local.mac, local.vlan) = (interface.mac, None);
            self.open.insert(n as u8, (*local, neighbours));
        }
        self.addresses = Addresses::Current;
        Ok(())
    }

    /// Whether the policy must be applied again: an interface has another MAC or other addresses, or is gone.
    pub(crate) fn is_stale(&self) -> bool {
        self.addresses == Addresses::Stale
    }

    /// Asks the kernel to resolve next hops.
    pub(crate) fn resolve(&mut self, hops: &[NextHopId], now: u32) {
        for hop in hops {
            let asked = self.open.get_mut(&hop.pa).map(|(_, n)| n.resolve(IpAddr::V4(hop.addr), now));
            if let Some(Err(error)) = asked {
                tracing::warn!(next_hop = %hop.addr, %error, "cannot ask the kernel for a next hop");
            }
        }
    }

    /// The kernel's events since the last call, each with the number of our address.
    pub(crate) fn poll(&mut self, now: u32) -> Vec<(u8, NeighbourEvent)> {
        let mut all = Vec::new();
        let mut gone = Vec::new();
        for (n, (local, neighbours)) in &mut self.open {
            let events = neighbours.poll(now).unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot read next hops from the kernel");
                Vec::new()
            });
            for event in events {
                match &event {
                    NeighbourEvent::InterfaceRemoved => gone.push(*n),
                    NeighbourEvent::InterfaceChanged(i) if i.mac != local.mac || !i.holds(local.addr) => {
                        self.addresses = Addresses::Stale;
                    }
                    _ => {}
                }
                all.push((*n, event));
            }
        }
        for n in gone {
            self.open.remove(&n);
            self.addresses = Addresses::Stale;
        }
        all
    }

    /// Descriptors that are readable when [`poll`](Self::poll) has events. Those that it would not read yet are left out.
    pub(crate) fn fds(&self, now: u32) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.values().filter_map(move |(_, neighbours)| neighbours.fd(now))
    }

    /// Milliseconds until [`poll`](Self::poll) must be called even without events, at most `max_ms`.
    pub(crate) fn next_poll_ms(&self, now: u32, max_ms: u32) -> u32 {
        self.open.values().map(|(_, n)| n.timeout(now, max_ms)).min().unwrap_or(max_ms)
    }
}
