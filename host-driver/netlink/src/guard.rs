//! Drops the overlay's packets behind a packet socket, so that the kernel does not answer each with an ICMP error.
//!
//! A packet socket only copies: the kernel also gets the packet, and has no socket on the VXLAN port and none for GRE. So a
//! table of nf_tables drops it, with a chain at the interface's ingress hook. Why that, and neither tc nor rules that the
//! `nft` program adds:
//!
//! * Our socket owns the table. When it is closed, the kernel removes the table, also after SIGKILL: nothing is left
//!   behind. An operator's `flush ruleset`, which every reload of the system's firewall does, does not touch it.
//! * It shares no rule, chain, qdisc or priority with the operator and changes none: all other packets pass the
//!   operator's rules as before. `nft list ruleset` shows the table `netdev culvert-<interface>` and its drop counters.
//! * It needs no program, and of the kernel only what every firewall needs. tc's drop action is a module that many
//!   kernels lack, and an interface has one ingress qdisc, which the operator may use.
//!
//! Consequently an operator's firewall does not see the overlay's packets; the policy decides from which addresses they are
//! accepted. The chain stays while the interface goes down and up. Kernels differ in what they do with it when the interface
//! is removed or renamed: install a guard on the next interface after this one was dropped.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use culvert_packet::{Protocol, vxlan};
use netlink_packet_core::{ErrorBuffer, NLMSG_ERROR, NetlinkBuffer};
use rustix::io::Errno;
use rustix::net::{netdevice, netlink};

use crate::netlink::Netlink;
use crate::nftables::{Batch, Match, get_table};

const CHAIN: &str = "overlay";
/// Before an operator's own chains at this hook, so that those do not count the overlay's packets.
const PRIORITY: i32 = -500;
/// How long to wait for a table whose process is ending.
const RETRY_TIME: Duration = Duration::from_millis(500);

/// Drops the overlay's packets for as long as it lives.
pub struct Guard {
    owner: Netlink,
    table: String,
}

impl Guard {
    /// Drops the packets of the overlay, VXLAN and GRE, that an interface receives for these addresses: exactly those that
    /// `Filter::Overlay` of `culvert-ports` takes. An interface has one guard. Waits up to half a second for another
    /// process that has it and may be ending.
    ///
    /// # Errors
    /// `AddrInUse`: another process has a guard on this interface. Otherwise there is no such interface, the kernel has
    /// no nf_tables or is older than 5.12, or the process lacks `CAP_NET_ADMIN`.
    pub fn install(interface: &str, addresses: &[IpAddr]) -> io::Result<Self> {
        let mut owner = Netlink::open(Some(netlink::NETFILTER), 0)?;
        // Linux 6.16 and later accept a chain for an interface that does not exist yet.
        netdevice::name_to_index(owner.fd(), interface).map_err(|error| {
            let missing = error == Errno::NODEV;
            let error = io::Error::from(error);
            let kind = if missing { io::ErrorKind::NotFound } else { error.kind() };
            io::Error::new(kind, format!("interface {interface}: {error}"))
        })?;
        let table = format!("culvert-{interface}");
        let start = Instant::now();
        loop {
            let exists = exists(&mut owner, &table)?;
            match try_install(&mut owner, &table, interface, addresses, exists) {
                Ok(()) => return Ok(Guard { owner, table }),
                // Another process owns it, or it was created or removed since `exists`.
                Err((Failed::Table, Errno::PERM | Errno::EXIST | Errno::NOENT))
                    if start.elapsed() < RETRY_TIME =>
                {
                    std::thread::sleep(RETRY_TIME / 50);
                }
                Err((Failed::Table, Errno::PERM | Errno::EXIST)) => {
                    let why = format!(
                        "the nftables table netdev {table} belongs to another process: is culvertd running already?"
                    );
                    return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
                }
                Err((_, error)) => {
                    let error = io::Error::from(error);
                    let why = format!("nftables table netdev {table}: {error}");
                    return Err(io::Error::new(error.kind(), why));
                }
            }
        }
    }
}

impl Drop for Guard {
    /// Removes the table at once: a child between fork and exec may hold the socket for a moment.
    fn drop(&mut self) {
        let mut batch = Batch::new(self.owner.next_sequence());
        batch.delete_table(&self.table);
        if let Err(error) = self.owner.send(&batch.finish().0) {
            tracing::debug!(%error, table = self.table, "cannot remove the nftables table; the kernel does when the socket is closed");
        }
    }
}

/// Which request of a batch failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Failed {
    /// Removing or creating the table.
    Table,
    /// Any other.
    Other,
}

/// Whether there is a table of this name: another process's, or one without an owner.
fn exists(owner: &mut Netlink, table: &str) -> io::Result<bool> {
    let number = owner.next_sequence();
    owner.send(&get_table(table, number))?;
    match answers(owner)?.into_iter().find_map(|(_, result)| result.err()) {
        None => Ok(true),
        Some(Errno::NOENT) => Ok(false),
        Some(error) => Err(io::Error::new(
            io::Error::from(error).kind(),
            format!("cannot read the nftables table netdev {table}: {}", io::Error::from(error)),
        )),
    }
}

fn try_install(
    owner: &mut Netlink,
    table: &str,
    interface: &str,
    addresses: &[IpAddr],
    exists: bool,
) -> Result<(), (Failed, Errno)> {
    let first = owner.next_sequence();
    let mut batch = Batch::new(first);
    if exists {
        batch.delete_table(table);
    }
    batch.new_table(table);
    batch.new_chain(table, CHAIN, interface, PRIORITY);
    for matches in addresses.iter().flat_map(|addr| rules(*addr)) {
        batch.new_rule(table, CHAIN, &matches);
    }
    let (bytes, count) = batch.finish();
    for _ in 1..count {
        owner.next_sequence();
    }
    let other = |error: io::Error| (Failed::Other, Errno::from_io_error(&error).unwrap_or(Errno::IO));
    owner.send(&bytes).map_err(other)?;
    let answers = answers(owner).map_err(other)?;
    for (number, result) in &answers {
        let of_table = number.wrapping_sub(first) <= u32::from(exists);
        result.map_err(|error| (if of_table { Failed::Table } else { Failed::Other }, error))?;
    }
    // The kernel applies all or nothing, but an answer may be missing.
    if answers.len() == count as usize { Ok(()) } else { Err((Failed::Other, Errno::IO)) }
}

/// The kernel's result of each message, by sequence number.
fn answers(owner: &mut Netlink) -> io::Result<Vec<(u32, Result<(), Errno>)>> {
    let mut answers = Vec::new();
    while let Some(messages) = owner.receive()? {
        for message in messages {
            let message = NetlinkBuffer::new(message);
            if message.message_type() == NLMSG_ERROR
                && let Ok(error) = ErrorBuffer::new_checked(message.payload())
            {
                let code = error.code().map(|code| Errno::from_raw_os_error(code.get().saturating_neg()));
                answers.push((message.sequence_number(), code.map_or(Ok(()), Err)));
            }
        }
    }
    Ok(answers)
}

/// The matches of the two rules, VXLAN and GRE, for an address: the same as the packet socket's filter.
fn rules(addr: IpAddr) -> [Vec<Match>; 2] {
    let port = vxlan::PORT.to_be_bytes().to_vec();
    let protocol = |at, protocol: Protocol| Match::Network(at, vec![protocol.0]);
    match addr {
        IpAddr::V4(addr) => {
            let to = [Match::EtherType(0x0800), Match::Network(16, addr.octets().to_vec())];
            let udp = [protocol(9, Protocol::UDP), Match::Transport(2, port)];
            [[&to[..], &udp].concat(), [&to[..], &[protocol(9, Protocol::GRE)]].concat()]
        }
        IpAddr::V6(addr) => {
            let to = [Match::EtherType(0x86dd), Match::Network(24, addr.octets().to_vec())];
            // Directly behind the fixed header, like the filter: with extension headers the packet is the kernel's.
            let udp = [protocol(6, Protocol::UDP), Match::Network(42, port)];
            [[&to[..], &udp].concat(), [&to[..], &[protocol(6, Protocol::GRE)]].concat()]
        }
    }
}
