//! The switch as the slow path sees it: a NIC that flows are offloaded to.

use std::sync::Arc;

use culvert_abi::command::{CellWrite, Op, VmqFilter};
use culvert_abi::{FlowKey, FlowRecord, Group, Peer, Tunnel, Vport};
use culvert_flow::datapath::Refused;
use culvert_flow::{Port, RecordId};
use culvert_packet::{MacAddr, Reason};
use culvert_pf::{Counters, Error, PortCounters, Result, VfConfig};

use super::forwarder::Forwarder;
use super::handle::{NAME, Switch, add};
use crate::target::{EventSource, OffloadTarget, PacketSource, Station, Step};

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
        let parts = (0..self.sizes().flows).step_by(AT_A_TIME as usize);
        for (from, worker) in parts.flat_map(|from| (0..self.workers()).map(move |worker| (from, worker))) {
            let wanted = wanted.clone();
            let more: Vec<FlowRecord> = self.ask(worker, move |f| {
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

    /// Changes the tables of all workers. `Err`: one of them has no such entry.
    fn write(
        &self,
        op: Op,
        reason: Reason,
        set: impl Fn(&mut Forwarder) -> bool + Clone + Send + 'static,
    ) -> Result<()> {
        let done = self.ask_all(move |f, _| set(f))?;
        if done.into_iter().all(|done| done) { Ok(()) } else { Err(refused(op, reason)) }
    }

    /// Writes entries of a table by index.
    fn write_entries<T: Clone + Send + Sync + 'static>(
        &self,
        op: Op,
        entries: &[(u16, T)],
        set: impl Fn(&mut Forwarder, usize, &T) -> bool + Clone + Send + 'static,
    ) -> Result<()> {
        let entries: Arc<[(u16, T)]> = entries.into();
        self.write(op, Reason::BadDescriptor, move |f| {
            entries.iter().all(|(n, entry)| set(f, usize::from(*n), entry))
        })
    }
}

fn refused(op: Op, reason: Reason) -> Error {
    Error::Refused { device: NAME.into(), op, reason }
}

impl OffloadTarget for Switch {
    fn send(&self, steps: Vec<Step>) -> Result<()> {
        let split = self.placement().split(steps);
        let mut all = split.into_iter().enumerate().filter(|(_, steps)| !steps.is_empty());
        all.try_for_each(|(worker, steps)| self.tell(worker, move |f| f.carry_out(steps)))
    }

    fn insert(&self, records: &[FlowRecord]) -> Result<()> {
        let by_home = self.placement().by_home(records.to_vec(), |record| &record.key);
        for (worker, records) in by_home {
            let done: std::result::Result<(), Refused> = self.ask(worker, move |f| {
                let now = f.now;
                // All are tried; the first refusal is told.
                let refused = records.iter().filter_map(|record| f.dp.install(record, now).err());
                refused.reduce(|first, _| first).map_or(Ok(()), Err)
            })?;
            done.map_err(|Refused(reason)| refused(Op::FlowInsert, reason))?;
        }
        Ok(())
    }

    fn read_all(&self, limit: usize) -> Result<Vec<FlowRecord>> {
        self.read(limit, |_, _| true)
    }

    fn idle(&self, ms: u32, limit: usize) -> Result<Vec<FlowRecord>> {
        self.read(limit, move |r, now| r.hot.pending == 0 && now.wrapping_sub(r.hot.last_used) >= ms)
    }

    fn get(&self, keys: &[FlowKey]) -> Result<Vec<FlowRecord>> {
        let by_home = self.placement().by_home(keys.to_vec(), |key| key);
        let mut found = Vec::with_capacity(keys.len());
        for (worker, keys) in by_home {
            let more: Vec<FlowRecord> = self.ask(worker, move |f| {
                let find = |key: &FlowKey| {
                    let hash = f.dp.table.hash(key);
                    f.dp.table.find(key, hash).and_then(|id| f.dp.table.record(id))
                };
                keys.iter().filter_map(find).collect()
            })?;
            found.extend(more);
        }
        Ok(found)
    }

    fn set_tunnels(&self, tunnels: &[(u16, Tunnel)]) -> Result<()> {
        self.write_entries(Op::TunnelSet, tunnels, |f, n, tunnel| {
            let fits = n < f.dp.tunnels.len();
            f.set_tunnel(n as u16, tunnel);
            fits
        })
    }

    fn set_groups(&self, groups: &[(u16, Group)]) -> Result<()> {
        self.write_entries(Op::GroupSet, groups, |f, n, group| {
            f.dp.groups.get_mut(n).map(|slot| *slot = *group).is_some()
        })
    }

    fn set_vports(&self, vports: &[(u16, Vport)]) -> Result<()> {
        self.write_entries(Op::VportSet, vports, Forwarder::set_vport)
    }

    fn set_stations(&self, stations: &[Station]) -> Result<()> {
        // Held until all have been told, as when a port is attached.
        let mut placement = self.placement();
        placement.set_stations(stations);
        let homes = placement.homes.clone();
        self.ask_all(move |f, _| f.set_homes(homes.clone())).map(drop)
    }

    fn set_peers(&self, peers: &[Peer]) -> Result<()> {
        let peers: Arc<[Peer]> = peers.into();
        self.write(Op::PeersSet, Reason::TableFull, move |f| {
            f.dp.peers.clear();
            peers.iter().all(|peer| f.dp.peers.set(*peer))
        })
    }

    fn set_local(&self, local: &[Peer]) -> Result<()> {
        let local = local.to_vec();
        self.ask_all(move |f, _| {
            for n in 0..4 {
                f.dp.peers.set_local(n, local.get(n).copied().unwrap_or_default());
            }
        })
        .map(drop)
    }

    fn set_cells(&self, cells: &[CellWrite]) -> Result<()> {
        let cells: Arc<[CellWrite]> = cells.into();
        self.write(Op::CellsSet, Reason::BadDescriptor, move |f| {
            cells.iter().all(|write| {
                let cell = match write.cell.checked_sub(CellWrite::VPORT) {
                    Some(vport) => f.dp.vports.get_mut(vport as usize).map(|v| &mut v.generation),
                    None => f.dp.map_cells.get_mut(write.cell as usize),
                };
                cell.map(|cell| *cell = write.value).is_some()
            })
        })
    }

    /// A switch has no VMQs: every vport has a port of its own.
    fn set_vmq_filters(&self, _: &[VmqFilter]) -> Result<()> {
        Ok(())
    }

    fn fence(&self) -> Result<()> {
        // What was told before is done before.
        self.ask_all(|_, _| ()).map(drop)
    }

    fn start(&self) -> Result<()> {
        Ok(())
    }

    fn router_mac(&self) -> MacAddr {
        // A switch that does not answer says so with the next question.
        self.ask(0, |f| f.dp.router_mac).unwrap_or(MacAddr::ZERO)
    }

    fn set_router_mac(&self, mac: MacAddr) -> Result<()> {
        self.ask_all(move |f, _| f.dp.router_mac = mac).map(drop)
    }

    /// A switch has no VFs: what a port is to be is said when it is attached.
    fn configure_vf(&self, _: u16, _: &VfConfig) -> Result<()> {
        Ok(())
    }

    fn vports(&self) -> Result<Vec<Vport>> {
        let all = self.ask_all(|f, _| f.dp.vports.to_vec())?;
        let sum = |mut all: Vec<Vport>, more: Vec<Vport>| {
            all.iter_mut().zip(&more).for_each(|(sum, vport)| sum.add(vport));
            all
        };
        Ok(all.into_iter().reduce(sum).unwrap_or_default())
    }

    fn counters(&self) -> Result<Counters> {
        let all = self.ask_all(|f, _| {
            let uplink = |n| f.slot(Port::Uplink(n)).map(|slot| slot.counters).unwrap_or_default();
            let (finished, punted) = (f.dp.counters.finished, f.dp.counters.punted);
            Counters { finished, punted, uplinks: [uplink(0), uplink(1)] }
        })?;
        let sum = |mut sum: Counters, more: Counters| {
            (sum.finished, sum.punted) = (sum.finished + more.finished, sum.punted + more.punted);
            sum.uplinks.iter_mut().zip(&more.uplinks).for_each(|(sum, more)| add(sum, more));
            sum
        };
        Ok(all.into_iter().reduce(sum).unwrap_or_default())
    }

    fn vf_counters(&self, _: u16) -> Result<PortCounters> {
        Ok(PortCounters::default())
    }

    fn drops(&self) -> Result<Vec<(Reason, u64)>> {
        let all = self.ask_all(|f, _| {
            f.count_lost();
            f.dp.counters.drops
        })?;
        let sum = |reason: Reason| (reason, all.iter().map(|drops| drops[reason as usize]).sum::<u64>());
        Ok(Reason::ALL.iter().map(|reason| sum(*reason)).filter(|(_, n)| *n > 0).collect())
    }

    fn links(&self) -> Result<[bool; 2]> {
        let all =
            self.ask_all(|f, _| [0, 1].map(|n| f.slot(Port::Uplink(n)).is_some_and(|slot| slot.link)))?;
        Ok([0, 1].map(|n| all.iter().any(|up| up[n])))
    }

    fn uplinks(&self) -> u8 {
        Port::UPLINKS
    }

    fn flows(&self) -> u32 {
        self.sizes().flows * self.workers() as u32
    }

    /// A vport's records are all at one worker.
    fn share(&self) -> u32 {
        self.sizes().flows / 4
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
