//! Each VM's share of upcalls: its packets that may be at the host at a time. The board stops reading a VF that has used up
//! its share, so that nothing is lost. VMs without a VF send through queue 0, which they share with others: what exceeds their
//! share is dropped and counted.

use std::collections::HashMap;

use culvert_abi::pci::TOTAL_VFS;

/// Packets that a vport without a VF may have at the host.
const WITHOUT_VF: u32 = 256;

/// Packets at the host, by VF and by vport.
pub(super) struct UpcallShares {
    outstanding: [u32; TOTAL_VFS as usize],
    /// The VF of each vport, as its upcalls have shown; the host names vports.
    vf_of: HashMap<u16, u8>,
    /// Packets of vports without a VF.
    without_vf: HashMap<u16, u32>,
    /// Packets of a vport without a ticket, which the firmware does not count.
    without_ticket: HashMap<u16, u32>,
}

impl UpcallShares {
    pub(super) fn new() -> Self {
        UpcallShares {
            outstanding: [0; TOTAL_VFS as usize],
            vf_of: HashMap::new(),
            without_vf: HashMap::new(),
            without_ticket: HashMap::new(),
        }
    }

    /// No packet is at the host any more.
    pub(super) fn clear(&mut self) {
        self.outstanding.fill(0);
        self.without_vf.clear();
    }

    /// A packet of a VF goes to the host.
    pub(super) fn charge(&mut self, vf: u8, vport: u16) {
        if let Some(n) = self.outstanding.get_mut(usize::from(vf)) {
            *n += 1;
            self.vf_of.insert(vport, vf);
        }
    }

    /// The packet of a vport that goes to the host has no ticket.
    pub(super) fn charge_without_ticket(&mut self, vport: u16) {
        *self.without_ticket.entry(vport).or_default() += 1;
    }

    /// The host has returned packets without a ticket.
    pub(super) fn credit_without_ticket(&mut self, vport: u16, count: u32) {
        if let Some(n) = self.without_ticket.get_mut(&vport) {
            *n = n.saturating_sub(count);
        }
    }

    /// The host has restarted. Returns how many packets without a ticket it had, by VF where a VF has sent them.
    pub(super) fn host_restarted(&mut self) -> Vec<(Option<u8>, u32)> {
        self.clear();
        let lost = std::mem::take(&mut self.without_ticket);
        lost.into_iter().map(|(vport, n)| (self.vf_of.get(&vport).copied(), n)).collect()
    }

    /// Whether a packet of a vport that came through queue 0 may go to the host. One of a VF always may: it was there before.
    pub(super) fn has_room(&self, vport: u16) -> bool {
        self.without_vf.get(&vport).is_none_or(|n| *n < WITHOUT_VF)
    }

    /// A packet of a vport that came through queue 0 goes to the host.
    pub(super) fn charge_vport(&mut self, vport: u16) {
        match self.vf_of.get(&vport).copied() {
            Some(vf) => self.charge(vf, vport),
            None => *self.without_vf.entry(vport).or_default() += 1,
        }
    }

    /// The host has returned packets of a vport.
    pub(super) fn credit(&mut self, vport: u16, count: u32) {
        if let Some(n) = self.without_vf.get_mut(&vport) {
            *n = n.saturating_sub(count);
            if *n == 0 {
                self.without_vf.remove(&vport);
            }
        }
        if let Some(n) = self.vf_of.get(&vport).and_then(|vf| self.outstanding.get_mut(usize::from(*vf))) {
            *n = n.saturating_sub(count);
        }
    }

    /// Number of packets of a VF at the host.
    pub(super) fn used(&self, vf: usize) -> u32 {
        self.outstanding.get(vf).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
