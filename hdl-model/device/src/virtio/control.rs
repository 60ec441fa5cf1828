//! The control queue's commands (virtio 1.2, 5.1.6.5), checked against what the host allows the guest.

use std::collections::BTreeSet;

use culvert_virtio::feature;

use super::config::VfConfig;

/// Longest command that is read: two full address tables.
pub(super) const MAX_COMMAND: usize = 2 + 2 * (4 + 6 * MAX_ADDRESSES);
/// Addresses of one table; a longer one is refused.
const MAX_ADDRESSES: usize = 64;

pub(super) const OK: u8 = 0;
pub(super) const ERR: u8 = 1;

/// The guest's receive filters, as far as the host allows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RxMode {
    /// Every frame.
    pub promiscuous: bool,
    /// Every multicast frame.
    pub all_multicast: bool,
    /// Further unicast addresses.
    pub unicast: Vec<[u8; 6]>,
    /// Multicast addresses.
    pub multicast: Vec<[u8; 6]>,
    /// VLANs, tagged.
    pub vlans: BTreeSet<u16>,
}

/// A port's settings, the host's and the guest's.
pub(super) struct Port {
    pub(super) config: VfConfig,
    pub(super) mac: [u8; 6],
    pub(super) mode: RxMode,
}

impl Port {
    /// Executes one command, all bytes that the device may read, and returns its status byte.
    pub(super) fn execute(&mut self, features: u64, command: &[u8]) -> u8 {
        let done = match command {
            [0, which, value] if features & feature::CTRL_RX != 0 => self.receive(*which, *value != 0),
            [1, 0, tables @ ..] if features & feature::CTRL_RX != 0 => self.address_tables(tables),
            [1, 1, mac @ ..] if features & feature::CTRL_MAC_ADDR != 0 => self.set_address(mac),
            [2, which, low, high] if features & feature::CTRL_VLAN != 0 => {
                self.vlan(*which, u16::from_le_bytes([*low, *high]))
            }
            _ => None,
        };
        if done.is_some() { OK } else { ERR }
    }

    fn receive(&mut self, which: u8, on: bool) -> Option<()> {
        if on && !self.config.allow_promisc {
            return None;
        }
        match which {
            0 => self.mode.promiscuous = on,
            1 => self.mode.all_multicast = on,
            _ => return None,
        }
        Some(())
    }

    /// Two tables, unicast and multicast: a 32-bit count and as many addresses.
    fn address_tables(&mut self, tables: &[u8]) -> Option<()> {
        let (unicast, rest) = address_table(tables)?;
        let (multicast, rest) = address_table(rest)?;
        if !rest.is_empty() || unicast.iter().any(|mac| mac[0] & 1 != 0) {
            return None;
        }
        // Foreign unicast addresses are promiscuity by another name.
        if unicast.iter().any(|mac| *mac != self.mac)
            && !(self.config.allow_promisc || self.config.allow_mac_change)
        {
            return None;
        }
        self.mode.unicast = unicast;
        self.mode.multicast = multicast;
        Some(())
    }

    fn set_address(&mut self, mac: &[u8]) -> Option<()> {
        let mac: [u8; 6] = mac.try_into().ok()?;
        let may = mac == self.config.mac || self.config.allow_mac_change;
        if !may || mac[0] & 1 != 0 || mac == [0; 6] {
            return None;
        }
        self.mac = mac;
        Some(())
    }

    fn vlan(&mut self, which: u8, id: u16) -> Option<()> {
        match which {
            0 if self.config.vlans.allows(id) => {
                self.mode.vlans.insert(id);
            }
            1 => {
                self.mode.vlans.remove(&id);
            }
            _ => return None,
        }
        Some(())
    }
}

fn address_table(bytes: &[u8]) -> Option<(Vec<[u8; 6]>, &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok().filter(|count| *count <= MAX_ADDRESSES)?;
    let (table, rest) = rest.split_at_checked(6 * count)?;
    Some((table.as_chunks::<6>().0.to_vec(), rest))
}
