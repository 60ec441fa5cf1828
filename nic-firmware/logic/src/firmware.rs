//! The firmware's state: tables, waiting packets, and which port of the data path is which port of the board.

use culvert_abi::command::{Op, VmqFilter};
use culvert_abi::regs::QUEUE_VMQ0;
use culvert_abi::soc::{BoardPort, Descriptor};
use culvert_flow::pending::{BufferId, Pending, PendingFlow};
use culvert_flow::table::{FlowTable, MemoryError, TableMemory};
use culvert_flow::tables::{Group, Peer, Peers, Tunnel, Vport};
use culvert_flow::{Datapath, HashSecret, Port};
use culvert_packet::{MacAddr, Reason, VportId};

/// How many VFs there are.
pub(crate) const VFS: usize = culvert_abi::pci::TOTAL_VFS as usize;
/// VMQ filters at most: one for each VMQ.
pub(crate) const FILTERS: usize = culvert_abi::regs::QUEUE_COUNT - QUEUE_VMQ0;
/// How many packets may wait on one pending flow.
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
    /// Pending flows.
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
    /// The slices of the flow table do not fit each other.
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
            // The SoC has no memory for them.
            vport_drops: &mut [],
        };
        Ok(Firmware {
            datapath,
            waiting: memory.waiting,
            vf_vport: [Port::None.bits(); VFS],
            filters: [NO_FILTER; FILTERS],
            epoch,
        })
    }

    /// The data path, for its counters.
    pub fn datapath(&self) -> &Datapath<'m> {
        &self.datapath
    }

    /// The port of the data path that a packet came in by.
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

    /// The board's port for a port of the data path. For a vport on VMQs, the filter for `dst_mac` selects the queue.
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
}

const NO_FILTER: VmqFilter = VmqFilter { mac: [0; 6], vmq: 0, vsid: 0, vport: 0 };
