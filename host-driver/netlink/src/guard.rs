//! Drops the overlay's packets behind a packet socket, so that the kernel does not answer each with an ICMP error.
//!
//! A packet socket only copies: the kernel also gets the packet, and has no socket on the VXLAN port and none for GRE, or one
//! of another tunnel. So a table of nf_tables drops it, with a chain at the interface's ingress hook. It drops what is ours
//! alone: VXLAN and NVGRE of the [sources](OverlaySource) in its sets. Other tunnels of this host, also on the same address
//! and port, do not notice. Why that, and neither tc nor rules that the `nft` program adds:
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

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use culvert_packet::{Protocol, nvgre, vxlan};
use netlink_packet_core::{ErrorBuffer, NLMSG_ERROR, NetlinkBuffer};
use rustix::io::Errno;
use rustix::net::{netdevice, netlink};

use crate::netlink::Netlink;
use crate::nftables::{Base, Batch, MAX_ELEMENTS, Match, Set, get_table};

const CHAIN: &str = "overlay";
/// Before an operator's own chains at this hook, so that those do not count the overlay's packets.
const PRIORITY: i32 = -500;
/// How long to wait for a table whose process is ending.
const RETRY_TIME: Duration = Duration::from_millis(500);

/// The sources whose outer addresses are of IPv4 or IPv6. `nft` shows a VSID as an address, of the three bytes on the wire and
/// a zero.
const SETS: [Set; 2] = [
    Set { name: "sources4", id: 1, key_type: 7 << 6 | 7, key_len: 8 },
    Set { name: "sources6", id: 2, key_type: 7 << 6 | 8, key_len: 20 },
];

/// Who sends packets of the overlay to this host, and in which virtual subnet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OverlaySource {
    /// VNI of VXLAN, upper 24 bits of NVGRE's key.
    pub vsid: u32,
    /// The outer source address.
    pub address: IpAddr,
}

impl OverlaySource {
    /// The element of a set: VSID and address, as they stand in a packet.
    fn key(&self) -> Vec<u8> {
        let mut key = (self.vsid << 8).to_be_bytes().to_vec();
        match self.address {
            IpAddr::V4(addr) => key.extend(addr.octets()),
            IpAddr::V6(addr) => key.extend(addr.octets()),
        }
        key
    }
}

/// Drops the overlay's packets for as long as it lives.
pub struct Guard {
    owner: Netlink,
    table: String,
    sources: BTreeSet<OverlaySource>,
}

impl Guard {
    /// Drops the packets of the overlay that an interface receives for these addresses from these sources: exactly those that
    /// `Filter::Kernel` of `culvert-ports` takes. An interface has one guard. Waits up to half a second for another
    /// process that has it and may be ending.
    ///
    /// # Errors
    /// `AddrInUse`: another process has a guard on this interface. Otherwise there is no such interface, the kernel has
    /// no nf_tables or is older than 5.12, or the process lacks `CAP_NET_ADMIN`.
    pub fn install(
        interface: &str,
        addresses: &[IpAddr],
        sources: &BTreeSet<OverlaySource>,
    ) -> io::Result<Self> {
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
                Ok(()) => {
                    let mut guard = Guard { owner, table, sources: BTreeSet::new() };
                    guard.set_sources(sources)?;
                    return Ok(guard);
                }
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

    /// Replaces the sources: adds the new ones, then removes those that are gone.
    ///
    /// # Errors
    /// The kernel is out of memory. The guard may have some of the new sources then; the same call, repeated, sets all.
    pub fn set_sources(&mut self, sources: &BTreeSet<OverlaySource>) -> io::Result<()> {
        let new: Vec<OverlaySource> = sources.difference(&self.sources).copied().collect();
        self.change(&new, Change::Add)?;
        let gone: Vec<OverlaySource> = self.sources.difference(sources).copied().collect();
        self.change(&gone, Change::Delete)
    }

    /// Adds or deletes sources, in batches that fit the socket's buffer.
    fn change(&mut self, sources: &[OverlaySource], change: Change) -> io::Result<()> {
        for (set, is_v4) in SETS.iter().zip([true, false]) {
            let of_family = sources.iter().copied().filter(|source| source.address.is_ipv4() == is_v4);
            for part in of_family.collect::<Vec<_>>().chunks(MAX_ELEMENTS) {
                let keys: Vec<Vec<u8>> = part.iter().map(OverlaySource::key).collect();
                let mut batch = Batch::new(self.owner.next_sequence());
                match change {
                    Change::Add => batch.add_elements(&self.table, set, &keys),
                    Change::Delete => batch.delete_elements(&self.table, set, &keys),
                }
                self.owner.send(&batch.finish().0)?;
                if let Some(error) =
                    answers(&mut self.owner)?.into_iter().find_map(|(_, result)| result.err())
                {
                    let error = io::Error::from(error);
                    let why = format!("nftables set {} of table netdev {}: {error}", set.name, self.table);
                    return Err(io::Error::new(error.kind(), why));
                }
                match change {
                    Change::Add => self.sources.extend(part),
                    Change::Delete => self.sources.retain(|source| part.binary_search(source).is_err()),
                }
            }
        }
        Ok(())
    }
}

/// What becomes of sources.
#[derive(Clone, Copy)]
enum Change {
    Add,
    Delete,
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
    SETS.iter().for_each(|set| batch.new_set(table, set));
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

/// The matches of the two rules, VXLAN and NVGRE, for an address: the same as the packet socket's filter.
fn rules(addr: IpAddr) -> [Vec<Match>; 2] {
    let port = vxlan::PORT.to_be_bytes().to_vec();
    let vni_flag = |base, at| Match::Bits(base, at, vec![vxlan::FLAG_I], vec![vxlan::FLAG_I]);
    let nvgre = |base, at| {
        let [mask, value] = [nvgre::FIRST_WORD_MASK, nvgre::FIRST_WORD];
        Match::Bits(base, at, mask.to_be_bytes().to_vec(), value.to_be_bytes().to_vec())
    };
    let protocol = |at, protocol: Protocol| Match::Bytes(Base::Network, at, vec![protocol.0]);
    match addr {
        IpAddr::V4(addr) => {
            let to = [Match::EtherType(0x0800), Match::Bytes(Base::Network, 16, addr.octets().to_vec())];
            let from = |vsid_at| {
                Match::Element(SETS[0].name, vec![(Base::Transport, vsid_at, 3), (Base::Network, 12, 4)])
            };
            let vxlan = [
                protocol(9, Protocol::UDP),
                Match::Bytes(Base::Transport, 2, port),
                vni_flag(Base::Transport, 8),
                from(12),
            ];
            let nvgre = [protocol(9, Protocol::GRE), nvgre(Base::Transport, 0), from(4)];
            [[&to[..], &vxlan].concat(), [&to[..], &nvgre].concat()]
        }
        IpAddr::V6(addr) => {
            let to = [Match::EtherType(0x86dd), Match::Bytes(Base::Network, 24, addr.octets().to_vec())];
            let from = |vsid_at| {
                Match::Element(SETS[1].name, vec![(Base::Network, vsid_at, 3), (Base::Network, 8, 16)])
            };
            // Directly behind the fixed header, like the filter: with extension headers the packet is the kernel's.
            let vxlan = [
                protocol(6, Protocol::UDP),
                Match::Bytes(Base::Network, 42, port),
                vni_flag(Base::Network, 48),
                from(52),
            ];
            let nvgre = [protocol(6, Protocol::GRE), nvgre(Base::Network, 40), from(44)];
            [[&to[..], &vxlan].concat(), [&to[..], &nvgre].concat()]
        }
    }
}
