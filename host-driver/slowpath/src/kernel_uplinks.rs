//! The interfaces whose addresses our provider addresses are, one for each uplink.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use crate::error::{Error, Result};
use crate::next_hop::HopId;
use crate::uplink::LocalPa;
use culvert_netlink::{NeighbourEvent, Neighbours};

/// The interfaces, and what the kernel is asked on them. Next hops are asked for by number of our address.
pub(crate) struct KernelUplinks {
    interfaces: Vec<String>,
    /// By number of our address.
    open: BTreeMap<u8, (LocalPa, Neighbours)>,
    /// Something has changed for which a policy has to be carried out anew.
    stale: bool,
}

impl KernelUplinks {
    /// Interfaces by number of the uplink.
    pub(crate) fn new(interfaces: Vec<String>) -> Self {
        KernelUplinks { interfaces, open: BTreeMap::new(), stale: false }
    }

    /// Takes a policy's provider addresses for the kernel's: each gets its interface's MAC, and no VLAN, which a packet
    /// socket's interface does by itself.
    ///
    /// # Errors
    /// There is no such interface, or it does not have the address.
    pub(crate) fn take(&mut self, locals: &mut [LocalPa]) -> Result<()> {
        // Only when all is well.
        self.stale = true;
        self.open.retain(|n, (local, _)| locals.get(usize::from(*n)).is_some_and(|l| l.addr == local.addr));
        for (n, local) in locals.iter_mut().enumerate() {
            let name = self.interfaces.get(usize::from(local.uplink)).ok_or(Error::NoInterface {
                uplink: local.uplink,
                addr: local.addr,
                count: self.interfaces.len(),
            })?;
            let opened = match self.open.remove(&(n as u8)) {
                Some((_, neighbours)) => neighbours,
                None => Neighbours::open(name, local.addr).map_err(|source| Error::System {
                    what: format!("the interface {name} of uplink {}", local.uplink),
                    source,
                })?,
            };
            let interface = opened.interface();
            if !interface.holds(local.addr) {
                return Err(Error::NotTheKernels { interface: name.clone(), addr: local.addr });
            }
            (local.mac, local.vlan) = (interface.mac, None);
            self.open.insert(n as u8, (*local, opened));
        }
        self.stale = false;
        Ok(())
    }

    /// Whether a policy has to be carried out anew: an interface has another MAC or other addresses, or is gone.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale
    }

    /// Asks for next hops.
    pub(crate) fn ask(&mut self, hops: &[HopId], now: u32) {
        for hop in hops {
            let asked = self.open.get_mut(&hop.pa).map(|(_, n)| n.resolve(IpAddr::V4(hop.addr), now));
            if let Some(Err(error)) = asked {
                tracing::warn!(next_hop = %hop.addr, %error, "the kernel cannot be asked for a next hop");
            }
        }
    }

    /// What the kernel has found out, with the number of our address that it concerns.
    pub(crate) fn poll(&mut self, now: u32) -> Vec<(u8, NeighbourEvent)> {
        let mut all = Vec::new();
        let mut gone = Vec::new();
        for (n, (local, neighbours)) in &mut self.open {
            let events = neighbours.poll(now).unwrap_or_else(|error| {
                tracing::warn!(%error, "the kernel does not tell of next hops");
                Vec::new()
            });
            for event in events {
                match &event {
                    NeighbourEvent::InterfaceRemoved => gone.push(*n),
                    NeighbourEvent::InterfaceChanged(i) => {
                        self.stale |= i.mac != local.mac || !i.holds(local.addr)
                    }
                    _ => {}
                }
                all.push((*n, event));
            }
        }
        for n in gone {
            self.open.remove(&n);
            self.stale = true;
        }
        all
    }

    /// Readable when [`poll`](Self::poll) has something to do.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.values().map(|(_, neighbours)| neighbours.fd())
    }

    /// Milliseconds until there is something to do even if nothing happens, at most `most`.
    pub(crate) fn next(&self, now: u32, most: u32) -> u32 {
        self.open.values().map(|(_, n)| n.timeout(now, most)).min().unwrap_or(most)
    }
}
