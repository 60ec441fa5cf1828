//! The switch as the slow path sees it: a NIC that flows are offloaded to.

use culvert_abi::command::{CellWrite, Op, VmqFilter};
use culvert_abi::{FlowKey, FlowRecord, Group, Peer, Tunnel, Vport};
use culvert_flow::datapath::Refused;
use culvert_flow::{Port, RecordId};
use culvert_nic::{Counters, Error, PortCounters, Result, VfConfig};
use culvert_packet::{MacAddr, Reason};

use super::forwarder::Forwarder;
use super::handle::{NAME, Switch};
use crate::target::{EventSource, OffloadTarget, PacketSource, Step};

/// Records that are looked at between two bursts.
const AT_A_TIME: u32 = 4096;

impl Switch {
    /// Records that `wanted` chooses, at most `limit`. Packets do not wait for it.
    fn read(
        &self,
        limit: usize,
        wanted: impl Fn(&FlowRecord, u32) -> bool + Clone + Send + 'static,
    ) -> Result<Vec<FlowRecord>> {
        let mut found = Vec::new();
        for from in (0..self.flows()).step_by(AT_A_TIME as usize) {
            let wanted = wanted.clone();
            let more: Vec<FlowRecord> = self.ask(move |f| {
                let ids = (from..from + AT_A_TIME).map(RecordId);
                let records = ids.filter_map(|id| f.dp.table.record(id));
                records.filter(|record| wanted(record, f.now)).collect()
            })?;
            found.extend(more.into_iter().take(limit - found.len()));
            if found.len() >= limit {
                break;
            }
        }
        Ok(found)
    }

    /// Writes entries of a table by index.
    fn write<T: Clone + Send + 'static>(
        &self,
        op: Op,
        entries: &[(u16, T)],
        set: impl Fn(&mut Forwarder, usize, &T) -> bool + Send + 'static,
    ) -> Result<()> {
        let entries = entries.to_vec();
        let done = self.ask(move |f| entries.iter().all(|(n, entry)| set(f, usize::from(*n), entry)))?;
        if done { Ok(()) } else { Err(refused(op, Reason::BadDescriptor)) }
    }
}

fn refused(op: Op, reason: Reason) -> Error {
    Error::Refused { device: NAME.into(), op, reason }
}

impl OffloadTarget for Switch {
    fn send(&self, steps: Vec<Step>) -> Result<()> {
        self.tell(move |f| f.carry_out(steps))
    }

    fn insert(&self, records: &[FlowRecord]) -> Result<()> {
        let records = records.to_vec();
        let done: std::result::Result<(), Refused> = self.ask(move |f| {
            let now = f.now;
            // All are tried; the first refusal is told.
            let refused = records.iter().filter_map(|record| f.dp.install(record, now).err());
            refused.reduce(|first, _| first).map_or(Ok(()), Err)
        })?;
        done.map_err(|Refused(reason)| refused(Op::FlowInsert, reason))
    }

    fn read_all(&self, limit: usize) -> Result<Vec<FlowRecord>> {
        self.read(limit, |_, _| true)
    }

    fn idle(&self, ms: u32, limit: usize) -> Result<Vec<FlowRecord>> {
        self.read(limit, move |r, now| r.hot.pending == 0 && now.wrapping_sub(r.hot.last_used) >= ms)
    }

    fn get(&self, keys: &[FlowKey]) -> Result<Vec<FlowRecord>> {
        let keys = keys.to_vec();
        self.ask(move |f| {
            let find = |key: &FlowKey| {
                let hash = f.dp.table.hash(key);
                f.dp.table.find(key, hash).and_then(|id| f.dp.table.record(id))
            };
            keys.iter().filter_map(find).collect()
        })
    }

    fn set_tunnels(&self, tunnels: &[(u16, Tunnel)]) -> Result<()> {
        self.write(Op::TunnelSet, tunnels, |f, n, tunnel| {
            let fits = n < f.dp.tunnels.len();
            f.set_tunnel(n as u16, tunnel);
            fits
        })
    }

    fn set_groups(&self, groups: &[(u16, Group)]) -> Result<()> {
        self.write(Op::GroupSet, groups, |f, n, group| {
            f.dp.groups.get_mut(n).map(|slot| *slot = *group).is_some()
        })
    }

    fn set_vports(&self, vports: &[(u16, Vport)]) -> Result<()> {
        self.write(Op::VportSet, vports, Forwarder::set_vport)
    }

    fn set_peers(&self, peers: &[Peer]) -> Result<()> {
        let peers = peers.to_vec();
        let fits = self.ask(move |f| {
            f.dp.peers.clear();
            peers.iter().all(|peer| f.dp.peers.set(*peer))
        })?;
        if fits { Ok(()) } else { Err(refused(Op::PeersSet, Reason::TableFull)) }
    }

    fn set_local(&self, local: &[Peer]) -> Result<()> {
        let local = local.to_vec();
        self.ask(move |f| {
            for n in 0..4 {
                f.dp.peers.set_local(n, local.get(n).copied().unwrap_or_default());
            }
        })
    }

    fn set_cells(&self, cells: &[CellWrite]) -> Result<()> {
        let cells = cells.to_vec();
        let done = self.ask(move |f| {
            cells.iter().all(|write| {
                let cell = match write.cell.checked_sub(CellWrite::VPORT) {
                    Some(vport) => f.dp.vports.get_mut(vport as usize).map(|v| &mut v.generation),
                    None => f.dp.map_cells.get_mut(write.cell as usize),
                };
                cell.map(|cell| *cell = write.value).is_some()
            })
        })?;
        if done { Ok(()) } else { Err(refused(Op::CellsSet, Reason::BadDescriptor)) }
    }

    /// A switch has no VMQs: every vport has a port of its own.
    fn set_vmq_filters(&self, _: &[VmqFilter]) -> Result<()> {
        Ok(())
    }

    fn fence(&self) -> Result<()> {
        // What was told before is done before.
        self.ask(|_| ())
    }

    fn start(&self) -> Result<()> {
        Ok(())
    }

    fn router_mac(&self) -> MacAddr {
        // A switch that does not answer says so with the next question.
        self.ask(|f| f.dp.router_mac).unwrap_or(MacAddr::ZERO)
    }

    fn set_router_mac(&self, mac: MacAddr) -> Result<()> {
        self.ask(move |f| f.dp.router_mac = mac)
    }

    /// A switch has no VFs: what a port is to be is said when it is attached.
    fn configure_vf(&self, _: u16, _: &VfConfig) -> Result<()> {
        Ok(())
    }

    fn vports(&self) -> Result<Vec<Vport>> {
        self.ask(|f| f.dp.vports.to_vec())
    }

    fn counters(&self) -> Result<Counters> {
        self.ask(|f| {
            let uplink = |n| f.slot(Port::Uplink(n)).map(|n| f.slots[n].counters).unwrap_or_default();
            let (finished, punted) = (f.dp.counters.finished, f.dp.counters.punted);
            Counters { finished, punted, uplinks: [uplink(0), uplink(1)] }
        })
    }

    fn vf_counters(&self, _: u16) -> Result<PortCounters> {
        Ok(PortCounters::default())
    }

    fn drops(&self) -> Result<Vec<(Reason, u64)>> {
        self.ask(|f| {
            f.count_lost();
            let all = Reason::ALL.iter().map(|reason| (*reason, f.dp.counters.drops[*reason as usize]));
            all.filter(|(_, n)| *n > 0).collect()
        })
    }

    fn links(&self) -> Result<[bool; 2]> {
        self.ask(|f| [0, 1].map(|n| f.slot(Port::Uplink(n)).is_some_and(|n| f.slots[n].link)))
    }

    fn uplinks(&self) -> u8 {
        Port::UPLINKS
    }

    fn flows(&self) -> u32 {
        self.sizes().flows
    }

    /// A switch's tables end with its process.
    fn adopted(&self) -> bool {
        false
    }

    fn may_forget(&self) -> bool {
        false
    }

    fn alive(&self) -> bool {
        true
    }

    fn exceptions(&self) -> Option<Box<dyn PacketSource>> {
        self.take_exceptions()
    }

    fn events(&self) -> Option<Box<dyn EventSource>> {
        self.take_events()
    }

    fn vmq(&self, n: u16) -> Result<Box<dyn PacketSource>> {
        Err(Error::NoVmq { device: NAME.into(), vmq: n, count: 0 })
    }
}
