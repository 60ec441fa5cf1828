//! The firmware's state, and its main loop.

use culvert_abi::command::{Op, VmqFilter};
use culvert_abi::regs::QUEUE_VMQ0;
use culvert_abi::soc::{BoardPort, Descriptor, NO_BUFFER, RELEASE};
use culvert_flow::pending::{BufferId, Pending, PendingFlow, Ticket};
use culvert_flow::table::{FlowTable, MemoryError, TableMemory};
use culvert_flow::tables::{Group, Peer, Peers, Tunnel, Vport};
use culvert_flow::{Datapath, HashSecret, Port};
use culvert_packet::{MacAddr, Reason, VportId};

use crate::bus::Bus;

/// VFs that the firmware knows.
pub(crate) const VFS: usize = culvert_abi::pci::TOTAL_VFS as usize;
/// VMQ filters at most: one for each VMQ.
pub(crate) const FILTERS: usize = culvert_abi::regs::QUEUE_COUNT - QUEUE_VMQ0;
/// Packets that may wait on one flow.
const WAITING_LIMIT: u16 = 512;

/// Memory of the firmware's tables. See [`Sizes`](culvert_abi::soc::Sizes).
pub struct Memory<'m> {
    /// The flow table.
    pub table: TableMemory<'m>,
    /// Tunnels.
    pub tunnels: &'m mut [Tunnel],
    /// Replication groups.
    pub groups: &'m mut [Group],
    /// Slots for the addresses of other hosts.
    pub peers: &'m mut [Peer],
    /// Vports.
    pub vports: &'m mut [Vport],
    /// Generations of mappings.
    pub map_cells: &'m mut [u32],
    /// Flows that wait for the host.
    pub pending: &'m mut [PendingFlow],
    /// Waiting lists: one link for each packet buffer.
    pub links: &'m mut [BufferId],
    /// Descriptors of waiting packets: one for each packet buffer.
    pub waiting: &'m mut [Descriptor],
}

/// The firmware.
pub struct Firmware<'m> {
    pub(crate) datapath: Datapath<'m>,
    pub(crate) waiting: &'m mut [Descriptor],
    pub(crate) vf_vport: [u16; VFS],
    pub(crate) filters: [VmqFilter; FILTERS],
    pub(crate) epoch: u32,
}

impl<'m> Firmware<'m> {
    /// A firmware with empty tables.
    ///
    /// # Errors
    /// The memory of the flow table is not of a shape that it can use.
    pub fn new(memory: Memory<'m>, epoch: u32) -> Result<Self, MemoryError> {
        let table = FlowTable::new(memory.table, HashSecret([0; 9]))?;
        memory.tunnels.fill(Tunnel::default());
        memory.groups.fill(Group::default());
        memory.vports.fill(Vport::default());
        memory.map_cells.fill(0);
        let datapath = Datapath {
            table,
            pending: Pending::new(memory.pending, memory.links, WAITING_LIMIT),
            tunnels: memory.tunnels,
            groups: memory.groups,
            peers: Peers::new(memory.peers),
            vports: memory.vports,
            map_cells: memory.map_cells,
            router_mac: MacAddr::ZERO,
            counters: culvert_flow::datapath::Counters::default(),
        };
        Ok(Firmware {
            datapath,
            waiting: memory.waiting,
            vf_vport: [Port::None.bits(); VFS],
            filters: [NO_FILTER; FILTERS],
            epoch,
        })
    }

    /// Takes up to `budget` descriptors from the board and does what they ask. Returns how many there were.
    pub fn poll(&mut self, bus: &mut impl Bus, budget: usize) -> usize {
        let (mut n, mut fast) = (0, 0);
        while n < budget
            && let Some(taken) = bus.receive()
        {
            n += 1;
            if taken.op == Op::Frame as u8 && self.fast_path(bus, &taken) {
                fast += 1;
            } else {
                // A command may ask for the counters.
                self.datapath.counters.finished += core::mem::take(&mut fast);
                self.handle(bus, &{ *taken });
            }
        }
        self.datapath.counters.finished += fast;
        n
    }

    /// The data path, for counters.
    pub fn datapath(&self) -> &Datapath<'m> {
        &self.datapath
    }

    #[inline(never)]
    fn handle(&mut self, bus: &mut impl Bus, d: &Descriptor) {
        match Op::from_u8(d.op) {
            Some(Op::Frame) => self.frame(bus, d),
            Some(Op::InjectLookup) => self.inject_lookup(bus, d),
            Some(Op::InjectOut) => self.inject_out(bus, d),
            Some(Op::Dropped) => self.dropped(bus, d),
            Some(op) if op.is_host() => self.command(bus, op, d),
            _ => self.drop_packet(bus, d, Reason::BadDescriptor, self.input(d)),
        }
    }

    /// The port of the data path that a frame came in by.
    #[inline(always)]
    pub(crate) fn input(&self, d: &Descriptor) -> Port {
        if d.op != Op::Frame as u8 {
            return Port::from_bits(d.port);
        }
        match BoardPort::from_bits(d.port) {
            BoardPort::Vf(n) => Port::from_bits(self.vf_vport[usize::from(n) % VFS]),
            BoardPort::Uplink(n) if n < Port::UPLINKS => Port::Uplink(n),
            _ => Port::None,
        }
    }

    /// Where a port of the data path is on the board. For a vport on VMQs, the filter for `dst_mac` says which.
    #[inline(always)]
    pub(crate) fn output(&self, port: Port, dst_mac: [u8; 6]) -> Result<BoardPort, Reason> {
        match port {
            Port::Uplink(n) => Ok(BoardPort::Uplink(n)),
            Port::Vport(VportId(n)) => match self.datapath.vports.get(usize::from(n)) {
                Some(vport) if vport.is_up() && vport.target == Vport::VF => {
                    Ok(BoardPort::Vf(vport.number as u8))
                }
                Some(vport) if vport.is_up() => Ok(self.vmq(vport, dst_mac)),
                Some(vport) if vport.flags & Vport::PRESENT != 0 => Err(Reason::VportDown),
                _ => Err(Reason::NoVport),
            },
            Port::Host | Port::None => Err(Reason::NoVport),
        }
    }

    #[cold]
    fn vmq(&self, vport: &Vport, dst_mac: [u8; 6]) -> BoardPort {
        let filter = self.filters.iter().find(|f| f.vsid == vport.vsid && f.mac == dst_mac && f.vsid != 0);
        BoardPort::Queue(QUEUE_VMQ0 as u8 + filter.map_or(vport.number, |f| f.vmq) as u8)
    }

    /// One packet of a pending flow is back: if it was the last, what waited is sent.
    pub(crate) fn complete_upcall(&mut self, bus: &mut impl Bus, ticket: u32, count: u32, now: u32) {
        let Some(ticket) = Ticket::from_bits(ticket) else { return };
        if let culvert_flow::pending::Completion::Live(id) = self.datapath.complete_upcall(ticket, count) {
            while let Some(buffer) = self.datapath.pending.next_waiting(ticket.slot) {
                let d = Descriptor { now, ..self.waiting[buffer as usize] };
                self.waited(bus, &d, id);
            }
            self.datapath.go_live(ticket, id);
        }
    }

    /// Ends a host command: the buffer goes back, with `len` bytes of reply in it.
    pub(crate) fn complete(bus: &mut impl Bus, d: &Descriptor, reason: Option<Reason>, len: u16, arg0: u32) {
        if d.cookie == 0 && d.buffer == NO_BUFFER {
            return;
        }
        bus.send(&Descriptor {
            op: Op::Complete as u8,
            reason: reason.map_or(0, |r| r as u8),
            flags: RELEASE,
            len,
            arg0,
            ..*d
        });
    }
}

const NO_FILTER: VmqFilter = VmqFilter { mac: [0; 6], vmq: 0, vsid: 0, vport: 0 };
