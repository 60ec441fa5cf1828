//! Frames that the kernel could not hand over to us on a TAP, by its own count of the interface (rtnetlink(7)).

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, send, socket_with,
};

/// linux/rtnetlink.h and linux/if_link.h.
const RTM_NEWSTATS: u16 = 92;
const RTM_GETSTATS: u16 = 94;
const NLM_F_REQUEST: u16 = 1;
const IFLA_STATS_LINK_64: u16 = 1;
/// Message header and `struct if_stats_msg`.
const HEADERS: usize = 16 + 12;
/// `tx_dropped` is the eighth counter of `struct rtnl_link_stats64`.
const TX_DROPPED: usize = 7 * 8;

/// The count. It is asked for in the network namespace in which this was made.
pub(super) struct Drops {
    socket: OwnedFd,
    index: u32,
    before: u64,
}

impl Drops {
    /// Of an interface; what was dropped before now does not count. `socket` is any of the interface's namespace.
    pub(super) fn of(socket: BorrowedFd<'_>, interface: &str) -> io::Result<Self> {
        let index = netdevice::name_to_index(socket, interface)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Protocol 0 of this family is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        let mut drops = Drops { socket, index, before: 0 };
        drops.before = drops.ask()?.unwrap_or(0);
        Ok(drops)
    }

    /// How many since the last time; 0 if the interface is gone.
    pub(super) fn since_last(&mut self) -> u64 {
        let Ok(Some(now)) = self.ask() else { return 0 };
        now.saturating_sub(std::mem::replace(&mut self.before, now))
    }

    /// The kernel answers before the request's system call returns.
    fn ask(&self) -> io::Result<Option<u64>> {
        let mut request = [0; HEADERS];
        request[..4].copy_from_slice(&(HEADERS as u32).to_ne_bytes());
        request[4..6].copy_from_slice(&RTM_GETSTATS.to_ne_bytes());
        request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
        request[20..24].copy_from_slice(&self.index.to_ne_bytes());
        request[24..].copy_from_slice(&(1u32 << (IFLA_STATS_LINK_64 - 1)).to_ne_bytes());
        send(&self.socket, &request, SendFlags::empty())?;
        let mut answer = [0; 1024];
        let (len, _) = recv(&self.socket, &mut answer[..], RecvFlags::DONTWAIT)?;
        Ok(dropped(&answer[..len]))
    }
}

/// The counter out of the kernel's answer.
fn dropped(answer: &[u8]) -> Option<u64> {
    let word = |bytes: &[u8], at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    if word(answer, 4)? != RTM_NEWSTATS {
        return None;
    }
    let mut attributes = answer.get(HEADERS..)?;
    loop {
        let (len, kind) = (usize::from(word(attributes, 0)?), word(attributes, 2)?);
        if kind == IFLA_STATS_LINK_64 {
            return Some(u64::from_ne_bytes(*attributes.get(4..len)?.get(TX_DROPPED..)?.first_chunk()?));
        }
        attributes = attributes.get(len.max(4).next_multiple_of(4)..)?;
    }
}
