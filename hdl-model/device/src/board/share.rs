//! Each machine's share of the host's attention: packets at the host at a time. A VF that has used up its share is not read
//! until some come back, so that nothing is lost. Machines without a VF send through queue 0, which is not theirs alone:
//! what is beyond their share is dropped, and counted.

use std::collections::HashMap;

use culvert_abi::pci::TOTAL_VFS;

/// Packets that a vport without a VF may have at the host.
const WITHOUT_VF: u32 = 256;

/// Who has how many packets at the host.
pub(super) struct Shares {
    outstanding: [u32; TOTAL_VFS as usize],
    /// The host names vports; which VF each is, as exceptions have shown it.
    vf_of: HashMap<u16, u8>,
    /// Vports without a VF that have some.
    without_vf: HashMap<u16, u32>,
}

impl Shares {
    pub(super) fn new() -> Self {
        Shares { outstanding: [0; TOTAL_VFS as usize], vf_of: HashMap::new(), without_vf: HashMap::new() }
    }

    /// Nothing is at the host any more.
    pub(super) fn clear(&mut self) {
        self.outstanding.fill(0);
        self.without_vf.clear();
    }

    /// A packet of a VF goes to the host.
    pub(super) fn take(&mut self, vf: u8, vport: u16) {
        if let Some(n) = self.outstanding.get_mut(usize::from(vf)) {
            *n += 1;
            self.vf_of.insert(vport, vf);
        }
    }

    /// Whether a packet of a vport that came through queue 0 may go to the host. One of a VF may always: it was there before.
    pub(super) fn has_room(&self, vport: u16) -> bool {
        self.without_vf.get(&vport).is_none_or(|n| *n < WITHOUT_VF)
    }

    /// A packet of a vport that came through queue 0 goes to the host.
    pub(super) fn take_of_vport(&mut self, vport: u16) {
        match self.vf_of.get(&vport).copied() {
            Some(vf) => self.take(vf, vport),
            None => *self.without_vf.entry(vport).or_default() += 1,
        }
    }

    /// Packets of a vport have come back.
    pub(super) fn give_back(&mut self, vport: u16, count: u32) {
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

    /// How many packets of a VF are at the host.
    pub(super) fn used(&self, vf: usize) -> u32 {
        self.outstanding.get(vf).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
