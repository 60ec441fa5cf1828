//! Uplinks: which MAC port serves each of our provider addresses.
//!
//! An address has a home uplink. When that uplink loses its link, the address moves to the other uplink with its MAC, and
//! moves back when the link returns: other hosts' tunnels and flows stay valid.

use std::net::IpAddr;

use culvert_packet::{MacAddr, VlanId};

/// One of our provider addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalPa {
    /// The address.
    pub addr: IpAddr,
    /// Its MAC.
    pub mac: MacAddr,
    /// Its home uplink.
    pub uplink: u8,
    /// VLAN of the PA network.
    pub vlan: Option<VlanId>,
}

/// A provider address of ours and the uplink that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedAddress {
    /// The address.
    pub pa: LocalPa,
    /// The uplink that serves it now.
    pub serving_uplink: u8,
}

/// Whether addresses leave a home uplink without a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Failover {
    /// They move to the other uplink.
    Enabled,
    /// They stay: the kernel owns them.
    Disabled,
}

/// Our provider addresses and the links of the uplinks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Uplinks {
    pas: Vec<LocalPa>,
    links: [bool; 2],
    count: u8,
    failover: Failover,
}

impl Uplinks {
    /// The uplinks of a NIC with `count` MAC ports.
    pub(crate) fn new(count: u8, links: [bool; 2]) -> Self {
        Uplinks { pas: Vec::new(), links, count: count.clamp(1, 2), failover: Failover::Enabled }
    }

    /// Keeps addresses on their home uplinks from now on, whatever their links do.
    pub(crate) fn disable_failover(&mut self) {
        self.failover = Failover::Disabled;
    }

    /// Replaces the addresses.
    pub(crate) fn set_pas(&mut self, pas: Vec<LocalPa>) {
        self.pas = pas;
    }

    /// Our addresses, by number.
    pub(crate) fn pas(&self) -> &[LocalPa] {
        &self.pas
    }

    /// The address with this number.
    pub(crate) fn pa(&self, number: u8) -> Option<&LocalPa> {
        self.pas.get(usize::from(number))
    }

    /// The uplink that serves the address with this number now.
    pub(crate) fn serving(&self, number: u8) -> Option<u8> {
        self.pa(number).map(|pa| self.serving_home(pa.uplink))
    }

    /// The uplink that serves the addresses of a home uplink now. With all links down it is the home uplink.
    pub(crate) fn serving_home(&self, home: u8) -> u8 {
        let other = home ^ 1;
        let up = |n: u8| self.links.get(usize::from(n)).copied().unwrap_or(false);
        let moves = self.failover == Failover::Enabled && !up(home) && other < self.count && up(other);
        if moves { other } else { home }
    }

    /// The number of one of our addresses.
    pub(crate) fn number(&self, addr: IpAddr) -> Option<u8> {
        self.pas.iter().position(|pa| pa.addr == addr).map(|n| n as u8)
    }

    /// Our addresses with the uplinks that serve them.
    pub(crate) fn served(&self) -> Vec<ServedAddress> {
        let served = |pa: &LocalPa| ServedAddress { pa: *pa, serving_uplink: self.serving_home(pa.uplink) };
        self.pas.iter().map(served).collect()
    }

    /// Which links are up.
    pub(crate) fn links(&self) -> [bool; 2] {
        self.links
    }

    /// Sets the links. Returns the numbers of the addresses to announce: those that moved, and those whose link is back.
    pub(crate) fn set_links(&mut self, links: [bool; 2]) -> Vec<u8> {
        let before: Vec<(u8, bool)> = self.pas.iter().map(|pa| self.serving_link(pa.uplink)).collect();
        self.links = links;
        let now = self.pas.iter().map(|pa| self.serving_link(pa.uplink));
        let changed = before.into_iter().zip(now).enumerate();
        changed.filter(|(_, (before, now))| before != now && now.1).map(|(n, _)| n as u8).collect()
    }

    /// The uplink that serves a home uplink's addresses, and whether its link is up.
    fn serving_link(&self, home: u8) -> (u8, bool) {
        let uplink = self.serving_home(home);
        (uplink, self.links[usize::from(uplink & 1)])
    }
}

#[cfg(test)]
mod tests;
