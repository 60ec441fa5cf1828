//! The switch as the slow path sees it: a NIC that flows are offloaded to.

use std::ops::ControlFlow;
use std::sync::Arc;

use culvert_flow::datapath::Refused;
use culvert_flow::tables::Vport;
use culvert_flow::{FlowKey, FlowRecord, Port};
use culvert_offload::{
    Capabilities, DeviceInfo, Error, EventQueue, FlowCommand, FlowTables, Generation, GenerationWrite,
    NicCounters, PacketIo, PortCounters, Reading, Result, Scan, TableWrite, UpcallQueue, VmqQueue,
};
use culvert_packet::{MacAddr, Reason};

use crate::forwarder::Forwarder;
use crate::switch::{NAME, Switch};

/// Provider addresses that a datapath knows as its own.
const LOCAL_ADDRESSES: u8 = 4;

impl Switch {
    /// Changes the tables of all workers.
    fn write_all(
        &self,
        command: &str,
        reason: Reason,
        set: impl Fn(&mut Forwarder) -> bool + Clone + Send + 'static,
    ) -> Result<()> {
        let done = self.ask_all(move |f, _| set(f))?;
        if done.into_iter().all(|done| done) { Ok(()) } else { Err(refused(command, reason)) }
    }

    /// Writes entries of a table by index.
    fn write_entries<T: Clone + Send + Sync + 'static>(
        &self,
        command: &str,
        entries: &[(u16, T)],
        set: impl Fn(&mut Forwarder, usize, &T) -> bool + Clone + Send + 'static,
    ) -> Result<()> {
        let entries: Arc<[(u16, T)]> = entries.into();
        self.write_all(command, Reason::BadDescriptor, move |f| {
            entries.iter().all(|(n, entry)| set(f, usize::from(*n), entry))
        })
    }
}

fn refused(command: &str, reason: Reason) -> Error {
    Error::Refused { device: NAME.into(), command: command.into(), reason }
}

/// Sets a generation. `false`: it does not exist.
fn set_generation(f: &mut Forwarder, write: &GenerationWrite) -> bool {
    let cell = match write.of {
        Generation::Vport(id) => f.out.dp.vports.get_mut(usize::from(id.0)).map(|v| &mut v.generation),
        Generation::Mapping(n) => f.out.dp.map_cells.get_mut(usize::from(n)),
    };
    cell.map(|cell| *cell = write.value).is_some()
}

impl FlowTables for Switch {
    fn execute(&self, commands: Vec<FlowCommand>) -> Result<()> {
        let split = self.placement().split(commands);
        let mut all = split.into_iter().enumerate().filter(|(_, commands)| !commands.is_empty());
        all.try_for_each(|(worker, commands)| self.tell(worker, move |f| f.execute(commands)))
    }

    fn write(&self, write: TableWrite<'_>) -> Result<()> {
        match write {
            TableWrite::RouterMac(mac) => self.ask_all(move |f, _| f.out.dp.router_mac = mac).map(drop),
            TableWrite::LocalAddresses(addresses) => {
                let addresses = addresses.to_vec();
                self.ask_all(move |f, _| {
                    for n in 0..LOCAL_ADDRESSES {
                        let address = addresses.get(usize::from(n)).copied().unwrap_or_default();
                        f.out.dp.peers.set_local(n.into(), address);
                    }
                })
                .map(drop)
            }
            TableWrite::Peers(peers) => {
                let peers: Arc<[_]> = peers.into();
                self.write_all("PeersSet", Reason::TableFull, move |f| {
                    f.out.dp.peers.clear();
                    peers.iter().all(|peer| f.out.dp.peers.set(*peer))
                })
            }
            TableWrite::Tunnels(tunnels) => self.write_entries("TunnelSet", tunnels, |f, n, tunnel| {
                let exists = n < f.out.dp.tunnels.len();
                f.set_tunnel(n as u16, tunnel);
                exists
            }),
            TableWrite::Groups(groups) => self.write_entries("GroupSet", groups, |f, n, group| {
                f.out.dp.groups.get_mut(n).map(|entry| *entry = *group).is_some()
            }),
            TableWrite::Vports(vports) => {
                vports.iter().for_each(|(n, _)| self.note_vport(*n));
                self.write_entries("VportSet", vports, Forwarder::set_vport)
            }
            TableWrite::Fdb(fdb) => {
                // Held until all workers know, so that steering updates reach them in order.
                let mut placement = self.placement();
                placement.set_fdb(fdb);
                let steering = placement.steering.clone();
                self.ask_all(move |f, _| f.out.set_steering(steering.clone())).map(drop)
            }
            // A switch has neither VMQs nor VFs: every vport has a port of its own.
            TableWrite::VmqFilters(_) | TableWrite::Vf(..) => Ok(()),
            TableWrite::Generations(writes) => {
                let writes: Arc<[GenerationWrite]> = writes.into();
                self.write_all("CellsSet", Reason::BadDescriptor, move |f| {
                    writes.iter().all(|write| set_generation(f, write))
                })
            }
        }
    }

    fn insert(&self, records: &[FlowRecord]) -> Result<()> {
        let by_worker = self.placement().by_worker(records.to_vec(), |record| &record.key);
        for (worker, records) in by_worker {
            let done: std::result::Result<(), Refused> = self.ask(worker, move |f| {
                let now = f.now;
                // All are tried; the first refusal is returned.
                let refused = records.iter().filter_map(|record| f.out.dp.install(record, now).err());
                refused.reduce(|first, _| first).map_or(Ok(()), Err)
            })?;
            done.map_err(|Refused(reason)| refused("FlowInsert", reason))?;
        }
        Ok(())
    }

    fn find(&self, keys: &[FlowKey]) -> Result<Vec<FlowRecord>> {
        let by_worker = self.placement().by_worker(keys.to_vec(), |key| key);
        let mut found = Vec::with_capacity(keys.len());
        for (worker, keys) in by_worker {
            let more: Vec<FlowRecord> = self.ask(worker, move |f| {
                let find = |key: &FlowKey| {
                    let hash = f.out.dp.table.hash(key);
                    f.out.dp.table.find(key, hash).and_then(|id| f.out.dp.table.record(id))
                };
                keys.iter().filter_map(find).collect()
            })?;
            found.extend(more);
        }
        Ok(found)
    }

    fn visit(&self, scan: Scan, each: &mut dyn FnMut(&FlowRecord, u32) -> ControlFlow<()>) -> Result<()> {
        self.visit_flows(scan, each)
    }

    fn fence(&self) -> Result<()> {
        // A worker does its jobs in order.
        self.ask_all(|_, _| ()).map(drop)
    }

    fn start(&self) -> Result<()> {
        Ok(())
    }
}

impl PacketIo for Switch {
    fn upcalls(&self) -> Option<Box<dyn UpcallQueue>> {
        self.take_upcalls()
    }

    fn vmq(&self, n: u16) -> Result<Box<dyn VmqQueue>> {
        Err(Error::NoVmq { device: NAME.into(), vmq: n, count: 0 })
    }
}

impl DeviceInfo for Switch {
    fn capabilities(&self) -> Capabilities {
        let flows = self.sizes().flows;
        Capabilities {
            uplinks: Port::UPLINKS,
            flow_records: flows * self.workers() as u32,
            // All records of a vport are at one worker.
            flow_records_per_vport: flows / 4,
            is_volatile: false,
        }
    }

    /// A switch's tables end with its process.
    fn is_adopted(&self) -> bool {
        false
    }

    fn is_alive(&self) -> bool {
        true
    }

    fn router_mac(&self) -> MacAddr {
        // A switch that does not answer says so at the next call.
        self.ask(0, |f| f.out.dp.router_mac).unwrap_or(MacAddr::ZERO)
    }

    fn events(&self) -> Option<Box<dyn EventQueue>> {
        self.take_events()
    }

    fn links(&self) -> Result<[bool; Port::UPLINKS as usize]> {
        let all = self.ask_all(|f, _| {
            [0, 1].map(|n| f.out.ports.get(Port::Uplink(n)).is_some_and(|port| port.link()))
        })?;
        Ok([0, 1].map(|n| all.iter().any(|up| up[n])))
    }

    fn vports(&self) -> Result<Vec<Vport>> {
        let all = self.ask_all(|f, _| f.out.dp.vports.to_vec())?;
        let sum = |mut all: Vec<Vport>, more: Vec<Vport>| {
            all.iter_mut().zip(&more).for_each(|(sum, vport)| sum.add(vport));
            all
        };
        Ok(all.into_iter().reduce(sum).unwrap_or_default())
    }

    fn counters(&self) -> Result<NicCounters> {
        let all = self.ask_all(|f, _| {
            let uplink = |n| f.out.ports.get(Port::Uplink(n)).map(|port| port.counters).unwrap_or_default();
            let (finished, punted) = (f.out.dp.counters.finished, f.out.dp.counters.punted);
            NicCounters { finished, punted, uplinks: [uplink(0), uplink(1)] }
        })?;
        Ok(all.into_iter().fold(NicCounters::default(), |mut sum, more| {
            sum += more;
            sum
        }))
    }

    fn vf_counters(&self, _: u16) -> Result<PortCounters> {
        Ok(PortCounters::default())
    }

    fn drops(&self) -> Result<Vec<(Reason, u64)>> {
        let all = self.ask_all(|f, _| {
            f.out.count_rx_drops();
            f.out.dp.counters.drops
        })?;
        let sum = |reason: Reason| (reason, all.iter().map(|drops| drops[reason as usize]).sum::<u64>());
        Ok(Reason::ALL.iter().map(|reason| sum(*reason)).filter(|(_, n)| *n > 0).collect())
    }

    fn flow_count(&self) -> Result<u64> {
        Ok(self.ask_all(|f, _| u64::from(f.out.dp.table.len()))?.into_iter().sum())
    }

    fn reading(&self) -> Result<Reading> {
        self.read()
    }
}
