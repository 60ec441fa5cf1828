//! Keeps the overlay's packets to our addresses from the kernel, which would answer each with an ICMP error.
//!
//! A packet socket only copies: what it takes goes on into the kernel, where nobody listens on the VXLAN port or for GRE.
//! So it is dropped behind the packet socket: by a table of nf_tables, whose chain sits at the interface's ingress hook.
//! Why that, and neither tc nor rules that the `nft` program makes:
//!
//! * The table belongs to our socket. When that is closed, the kernel removes the table, also after SIGKILL: nothing is
//!   ever left behind. An operator's `flush ruleset`, which every reload of the system's firewall does, leaves it alone.
//! * No rule, chain, qdisc or priority of the operator is shared, and none changes: whatever else comes in goes to
//!   theirs as before. `nft list ruleset` shows the table `netdev culvert-<interface>` with what it has dropped.
//! * It needs no program, and of the kernel only what every firewall needs. tc's drop action is a module that many
//!   kernels lack, and an ingress qdisc of the operator's is in the way of another.
//!
//! Consequently an operator's firewall sees nothing of the overlay's packets; from which addresses they are taken is
//! decided by the policy. The chain stays while the interface goes down and up. When the interface is gone, or has got
//! another name, kernels differ in what they do with it: a guard on the next interface is made after this one ended.

use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use culvert_packet::{Protocol, vxlan};
use netlink_packet_core::{ErrorBuffer, NLMSG_ERROR, NetlinkBuffer};
use rustix::io::Errno;
use rustix::net::{netdevice, netlink};

use crate::netlink::Netlink;
use crate::nftables::{Batch, Check, get_table};

const CHAIN: &str = "overlay";
/// Before an operator's own chains at this hook, so that theirs do not count what is not the kernel's.
const PRIORITY: i32 = -500;
/// How long a process that is just ending may take: until then its table counts as one that vanishes.
const PATIENCE: Duration = Duration::from_millis(500);

/// The drop, which ends with this value.
pub struct Guard {
    owner: Netlink,
    table: String,
}

impl Guard {
    /// Drops the overlay's packets, VXLAN and GRE, to these addresses, of those that come in at an interface: exactly
    /// those that [`Filter::Overlay`](crate::switch::ports::Filter) takes. An interface has one guard. Waits for half a
    /// second if another process has it, which may be ending.
    ///
    /// # Errors
    /// `AddrInUse`: another process has a guard on this interface. Otherwise there is no such interface, the kernel has
    /// no nf_tables or is older than 5.12, or this is not allowed here.
    pub fn install(interface: &str, addresses: &[IpAddr]) -> io::Result<Self> {
        let mut owner = Netlink::open(Some(netlink::NETFILTER), 0)?;
        // Linux 6.16 and later take a chain for an interface that is yet to come.
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
                // Another's, or it came or went since it was looked for.
                Err((FlowCommand::Table, Errno::PERM | Errno::EXIST | Errno::NOENT))
                    if start.elapsed() < PATIENCE =>
                {
                    std::thread::sleep(PATIENCE / 50);
                }
                Err((FlowCommand::Table, Errno::PERM | Errno::EXIST)) => {
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
    /// Removes the table at once: a child that has not yet started its program holds the socket, too, for a moment.
    fn drop(&mut self) {
        let mut batch = Batch::new(self.owner.sequence());
        batch.delete_table(&self.table);
        if let Err(error) = self.owner.send(&batch.finish().0) {
            tracing::debug!(%error, table = self.table, "the table goes with its socket");
        }
    }
}

/// What an error is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FlowCommand {
    /// Removing or making the table.
    Table,
    /// Anything else.
    Rest,
}

/// Whether there is such a table. Ours are gone with their processes; it may be one that somebody made by hand.
fn exists(owner: &mut Netlink, table: &str) -> io::Result<bool> {
    let number = owner.sequence();
    owner.send(&get_table(table, number))?;
    match answers(owner)?.into_iter().find_map(|(_, result)| result.err()) {
        None => Ok(true),
        Some(Errno::NOENT) => Ok(false),
        Some(error) => Err(io::Error::new(
            io::Error::from(error).kind(),
            format!("asking for the nftables table netdev {table}: {}", io::Error::from(error)),
        )),
    }
}

fn try_install(
    owner: &mut Netlink,
    table: &str,
    interface: &str,
    addresses: &[IpAddr],
    exists: bool,
) -> Result<(), (FlowCommand, Errno)> {
    let first = owner.sequence();
    let mut batch = Batch::new(first);
    if exists {
        batch.delete_table(table);
    }
    batch.new_table(table);
    batch.new_chain(table, CHAIN, interface, PRIORITY);
    for rule in addresses.iter().flat_map(|addr| rules(*addr)) {
        batch.new_rule(table, CHAIN, &rule);
    }
    let (bytes, count) = batch.finish();
    for _ in 1..count {
        owner.sequence();
    }
    let rest = |error: io::Error| (FlowCommand::Rest, Errno::from_io_error(&error).unwrap_or(Errno::IO));
    owner.send(&bytes).map_err(rest)?;
    let answers = answers(owner).map_err(rest)?;
    for (number, result) in &answers {
        let of_table = number.wrapping_sub(first) <= u32::from(exists);
        result.map_err(|error| (if of_table { FlowCommand::Table } else { FlowCommand::Rest }, error))?;
    }
    // All or nothing: but nothing may also mean that nobody said so.
    if answers.len() == count as usize { Ok(()) } else { Err((FlowCommand::Rest, Errno::IO)) }
}

/// What the kernel says of each message, by number.
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

/// What of an address the packet socket's filter takes.
fn rules(addr: IpAddr) -> [Vec<Check>; 2] {
    let port = vxlan::PORT.to_be_bytes().to_vec();
    let protocol = |at, protocol: Protocol| Check::Network(at, vec![protocol.0]);
    match addr {
        IpAddr::V4(addr) => {
            let to = [Check::EtherType(0x0800), Check::Network(16, addr.octets().to_vec())];
            let udp = [protocol(9, Protocol::UDP), Check::Transport(2, port)];
            [[&to[..], &udp].concat(), [&to[..], &[protocol(9, Protocol::GRE)]].concat()]
        }
        IpAddr::V6(addr) => {
            let to = [Check::EtherType(0x86dd), Check::Network(24, addr.octets().to_vec())];
            // Directly behind the fixed header, where the filter looks: behind others the packet is the kernel's.
            let udp = [protocol(6, Protocol::UDP), Check::Network(42, port)];
            [[&to[..], &udp].concat(), [&to[..], &[protocol(6, Protocol::GRE)]].concat()]
        }
    }
}
