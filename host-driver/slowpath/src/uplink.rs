//! Which MAC port serves each of our provider addresses.
//!
//! An address has a home uplink. When that one's link goes down, the address moves to the other uplink with its MAC, and
//! moves back when the link returns: so other hosts' tunnels and flows live on.

use std::net::IpAddr;

use culvert_packet::{MacAddr, VlanId};

/// One of our provider addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalPa {
    /// The address.
    pub addr: IpAddr,
    /// Its MAC.
    pub mac: MacAddr,
    /// Its home.
    pub uplink: u8,
    /// VLAN of the PA network.
    pub vlan: Option<VlanId>,
}

/// Our provider addresses and the links that serve them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uplinks {
    pas: Vec<LocalPa>,
    up: [bool; 2],
    count: u8,
    /// Addresses stay at home whatever happens to it.
    fixed: bool,
}

impl Uplinks {
    /// A NIC with `count` MAC ports, of which these have a link.
    pub fn new(count: u8, up: [bool; 2]) -> Self {
        Uplinks { pas: Vec::new(), up, count: count.clamp(1, 2), fixed: false }
    }

    /// Addresses stay at their steering from now on: they are somebody else's to move.
    pub fn fix(&mut self) {
        self.fixed = true;
    }

    /// Sets the addresses, in place of the former.
    pub fn set(&mut self, pas: Vec<LocalPa>) {
        self.pas = pas;
    }

    /// Our addresses by number.
    pub fn pas(&self) -> &[LocalPa] {
        &self.pas
    }

    /// The MAC port that serves address number `pa` now.
    pub fn serving(&self, pa: u8) -> Option<u8> {
        self.pas.get(usize::from(pa)).map(|pa| self.route(pa.uplink))
    }

    /// Where what belongs to an uplink goes now. With all links down it stays where it belongs.
    pub fn route(&self, home: u8) -> u8 {
        let other = home ^ 1;
        let up = |n: u8| self.up.get(usize::from(n)).copied().unwrap_or(false);
        if !self.fixed && !up(home) && other < self.count && up(other) { other } else { home }
    }

    /// Number of one of our addresses.
    pub fn number(&self, addr: IpAddr) -> Option<u8> {
        self.pas.iter().position(|pa| pa.addr == addr).map(|n| n as u8)
    }

    /// The links are now as given. Returns the numbers of the addresses that have to be announced: those that moved and
    /// those whose wire has come back.
    pub fn links(&mut self, up: [bool; 2]) -> Vec<u8> {
        let before: Vec<(u8, bool)> = self.pas.iter().map(|pa| self.place(pa.uplink)).collect();
        self.up = up;
        let now = self.pas.iter().map(|pa| self.place(pa.uplink));
        let changed = before.into_iter().zip(now).enumerate();
        changed.filter(|(_, (before, now))| before != now && now.1).map(|(n, _)| n as u8).collect()
    }

    fn place(&self, home: u8) -> (u8, bool) {
        let at = self.route(home);
        (at, self.up[usize::from(at & 1)])
    }

    /// Which links are up.
    pub fn up(&self) -> [bool; 2] {
        self.up
    }
}

#[cfg(test)]
mod tests;
