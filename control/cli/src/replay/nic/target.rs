//! What the slow path needs of a NIC, done by the core at once.

use culvert_abi::command::{CellWrite, Op, VmqFilter};
use culvert_abi::{FlowKey, FlowRecord, Group, Peer, Tunnel, Vport};
use culvert_flow::Source;
use culvert_flow::pending::Ticket;
use culvert_packet::{MacAddr, Reason};
use culvert_pf::{Counters, Error, PortCounters, Result, Return, VfConfig};
use culvert_softpath::target::{EventSource, PacketSource};
use culvert_softpath::{OffloadTarget, Step};

use super::{Core, CoreNic};

/// A command that the firmware would refuse, too.
fn refused(op: Op, reason: Reason) -> Error {
    Error::Refused { device: "the replayed NIC".to_owned(), op, reason }
}

/// The entry of a table that a command names.
fn entry<T>(table: &mut [T], index: u16, op: Op) -> Result<&mut T> {
    table.get_mut(usize::from(index)).ok_or_else(|| refused(op, Reason::TableFull))
}

fn ticket(back: &Return) -> Option<Ticket> {
    back.ticket.and_then(|t| Ticket::from_bits(t.get()))
}

impl Core {
    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Insert(records) => {
                for record in records {
                    // A flow without a record comes to the slow path again.
                    let _refused = self.datapath.install(record, self.now);
                }
            }
            Step::Delete(keys) => {
                for key in keys {
                    self.datapath.delete(key);
                }
            }
            Step::Tunnel(index, tunnel) => self.set_tunnel(*index, tunnel)?,
            Step::Lookup(back, frame) => {
                self.packet(back.input, Source::Reinjected { ticket: ticket(back), classified: None }, frame);
                self.complete_upcall(ticket(back));
            }
            Step::Out(back, to, frame) => {
                self.send(back.input, *to, frame);
                self.complete_upcall(ticket(back));
            }
            Step::Dropped(back, reason) => {
                self.drop(back.input, *reason);
                self.complete_upcall(ticket(back));
            }
        }
        Ok(())
    }

    fn set_tunnel(&mut self, index: u16, new: &Tunnel) -> Result<()> {
        let slot = entry(self.datapath.tunnels, index, Op::TunnelSet)?;
        slot.rewrite(new);
        Ok(())
    }

    fn set_vport(&mut self, index: u16, new: &Vport) -> Result<()> {
        let slot = entry(self.datapath.vports, index, Op::VportSet)?;
        *slot = Vport { records: slot.records, drops: slot.drops, ..*new };
        Ok(())
    }

    fn records(&self, limit: usize, mut wanted: impl FnMut(&FlowRecord) -> bool) -> Vec<FlowRecord> {
        let table = &self.datapath.table;
        table.used_from(0).filter_map(|id| table.record(id)).filter(|r| wanted(r)).take(limit).collect()
    }
}

impl OffloadTarget for CoreNic {
    fn send(&self, steps: Vec<Step>) -> Result<()> {
        let mut core = self.core();
        steps.iter().try_for_each(|step| core.step(step))
    }

    fn insert(&self, records: &[FlowRecord]) -> Result<()> {
        self.send(vec![Step::Insert(records.to_vec())])
    }

    fn read_all(&self, limit: usize) -> Result<Vec<FlowRecord>> {
        Ok(self.core().records(limit, |_| true))
    }

    fn idle(&self, ms: u32, limit: usize) -> Result<Vec<FlowRecord>> {
        let core = self.core();
        let idle = |r: &FlowRecord| r.hot.pending == 0 && core.now.wrapping_sub(r.hot.last_used) >= ms;
        Ok(core.records(limit, idle))
    }

    fn get(&self, keys: &[FlowKey]) -> Result<Vec<FlowRecord>> {
        let core = self.core();
        let table = &core.datapath.table;
        Ok(keys.iter().filter_map(|key| table.record(table.find(key, table.hash(key))?)).collect())
    }

    fn set_tunnels(&self, tunnels: &[(u16, Tunnel)]) -> Result<()> {
        let mut core = self.core();
        tunnels.iter().try_for_each(|(index, tunnel)| core.set_tunnel(*index, tunnel))
    }

    fn set_groups(&self, groups: &[(u16, Group)]) -> Result<()> {
        let mut core = self.core();
        for (index, group) in groups {
            *entry(core.datapath.groups, *index, Op::GroupSet)? = *group;
        }
        Ok(())
    }

    fn set_vports(&self, vports: &[(u16, Vport)]) -> Result<()> {
        let mut core = self.core();
        vports.iter().try_for_each(|(index, vport)| core.set_vport(*index, vport))
    }

    fn set_peers(&self, peers: &[Peer]) -> Result<()> {
        let set = &mut self.core().datapath.peers;
        set.clear();
        let all = peers.iter().all(|peer| set.set(*peer));
        if all { Ok(()) } else { Err(refused(Op::PeersSet, Reason::TableFull)) }
    }

    fn set_local(&self, local: &[Peer]) -> Result<()> {
        let set = &mut self.core().datapath.peers;
        for n in 0..4 {
            set.set_local(n, local.get(n).copied().unwrap_or_default());
        }
        Ok(())
    }

    fn set_cells(&self, cells: &[CellWrite]) -> Result<()> {
        let dp = &mut self.core().datapath;
        for write in cells {
            let cell = match write.cell.checked_sub(CellWrite::VPORT) {
                Some(vport) => dp.vports.get_mut(vport as usize).map(|v| &mut v.generation),
                None => dp.map_cells.get_mut(write.cell as usize),
            };
            *cell.ok_or_else(|| refused(Op::CellsSet, Reason::BadDescriptor))? = write.value;
        }
        Ok(())
    }

    /// Vports are told apart by number here, whatever serves them.
    fn set_vmq_filters(&self, _: &[VmqFilter]) -> Result<()> {
        Ok(())
    }

    fn fence(&self) -> Result<()> {
        Ok(())
    }

    fn start(&self) -> Result<()> {
        Ok(())
    }

    fn router_mac(&self) -> MacAddr {
        self.core().datapath.router_mac
    }

    fn set_router_mac(&self, mac: MacAddr) -> Result<()> {
        let dp = &mut self.core().datapath;
        dp.table.clear();
        dp.router_mac = mac;
        Ok(())
    }

    fn configure_vf(&self, _: u16, _: &VfConfig) -> Result<()> {
        Ok(())
    }

    fn vports(&self) -> Result<Vec<Vport>> {
        Ok(self.core().datapath.vports.to_vec())
    }

    fn counters(&self) -> Result<Counters> {
        Ok(Counters::default())
    }

    fn vf_counters(&self, _: u16) -> Result<PortCounters> {
        Ok(PortCounters::default())
    }

    fn drops(&self) -> Result<Vec<(Reason, u64)>> {
        let counts = self.core().datapath.counters.drops;
        let dropped = |&reason: &Reason| (reason, counts[usize::from(reason as u8)]);
        Ok(Reason::ALL.iter().map(dropped).filter(|(_, count)| *count != 0).collect())
    }

    fn links(&self) -> Result<[bool; 2]> {
        Ok([true; 2])
    }

    fn uplinks(&self) -> u8 {
        culvert_flow::Port::UPLINKS
    }

    fn flows(&self) -> u32 {
        self.flows
    }

    fn adopted(&self) -> bool {
        false
    }

    fn alive(&self) -> bool {
        true
    }

    /// Exceptions are taken by [`CoreNic::take_exceptions`].
    fn exceptions(&self) -> Option<Box<dyn PacketSource>> {
        None
    }

    fn events(&self) -> Option<Box<dyn EventSource>> {
        None
    }

    fn vmq(&self, vmq: u16) -> Result<Box<dyn PacketSource>> {
        Err(Error::NoVmq { device: "the replayed NIC".to_owned(), vmq, count: 0 })
    }
}
