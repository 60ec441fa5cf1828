//! Frames that the kernel dropped because an interface's transmit queue was full (rtnetlink(7), `RTM_GETSTATS`).

use std::io;

use netlink_packet_core::NLM_F_REQUEST;
use rustix::net::netdevice;

use crate::netlink::{HEADER, Netlink, message};

/// linux/rtnetlink.h and linux/if_link.h.
const RTM_NEWSTATS: u16 = 92;
const RTM_GETSTATS: u16 = 94;
const IFLA_STATS_LINK_64: u16 = 1;
/// `struct if_stats_msg`: family, padding, index, mask of attributes.
const STATS_MSG: usize = 12;
/// `tx_dropped` is the eighth counter of `struct rtnl_link_stats64`.
const TX_DROPPED: usize = 7 * 8;

/// An interface's count of dropped frames, read in the network namespace of the thread that opened it.
pub struct TxDrops {
    netlink: Netlink,
    index: u32,
    last: u64,
}

impl TxDrops {
    /// Starts to count: what an interface has dropped before does not count.
    ///
    /// # Errors
    /// There is no such interface, or the kernel did not answer.
    pub fn open(interface: &str) -> io::Result<Self> {
        let netlink = Netlink::open(None, 0)?;
        let index = netdevice::name_to_index(netlink.fd(), interface)?;
        let mut drops = TxDrops { netlink, index, last: 0 };
        drops.last = drops.read()?.unwrap_or(0);
        Ok(drops)
    }

    /// Index of the interface.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Frames dropped since the last call; 0 if the interface is gone. Waits for the kernel's RTNL.
    pub fn take(&mut self) -> u64 {
        let Ok(Some(now)) = self.read() else { return 0 };
        now.saturating_sub(std::mem::replace(&mut self.last, now))
    }

    fn read(&mut self) -> io::Result<Option<u64>> {
        let mut request = [0; STATS_MSG];
        request[4..8].copy_from_slice(&self.index.to_ne_bytes());
        request[8..].copy_from_slice(&(1u32 << (IFLA_STATS_LINK_64 - 1)).to_ne_bytes());
        let sequence = self.netlink.next_sequence();
        self.netlink.send(&message(RTM_GETSTATS, NLM_F_REQUEST, sequence, &request))?;
        let answer = self.netlink.receive()?.and_then(|mut messages| messages.next());
        Ok(answer.and_then(tx_dropped))
    }
}

/// The counter in the kernel's answer.
fn tx_dropped(answer: &[u8]) -> Option<u64> {
    let word = |bytes: &[u8], at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    if word(answer, 4)? != RTM_NEWSTATS {
        return None;
    }
    let mut attributes = answer.get(HEADER + STATS_MSG..)?;
    loop {
        let (len, kind) = (usize::from(word(attributes, 0)?), word(attributes, 2)?);
        if kind == IFLA_STATS_LINK_64 {
            return Some(u64::from_ne_bytes(*attributes.get(4..len)?.get(TX_DROPPED..)?.first_chunk()?));
        }
        attributes = attributes.get(len.max(4).next_multiple_of(4)..)?;
    }
}
