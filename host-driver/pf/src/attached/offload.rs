//! Implements the traits of `culvert_offload` for [`AttachedNic`]: each call goes to the NIC that is there, or fails.

use std::ops::ControlFlow;

use culvert_flow::tables::Vport;
use culvert_flow::{FlowKey, FlowRecord};
use culvert_offload::{
    Capabilities, DeviceInfo, EventQueue, FlowCommand, FlowTables, NicCounters, PacketIo, PortCounters,
    Result, Scan, TableWrite, UpcallQueue, VmqQueue,
};
use culvert_packet::{MacAddr, Reason, VportId};
use std::sync::atomic::Ordering;

use super::AttachedNic;
use super::queues::{AttachedUpcalls, AttachedVmq};
use crate::Error;
use crate::sync::lock;

/// What an absent NIC is taken for until it has been seen: the one that the board emulates unless told otherwise.
const UNSEEN: Capabilities =
    Capabilities { uplinks: 2, flow_records: 1 << 17, flow_records_per_vport: 1 << 15, is_volatile: true };

impl AttachedNic {
    /// The NIC, if its firmware takes commands. One that does not answer is not asked.
    fn answering(&self) -> crate::Result<std::sync::Arc<crate::Nic>> {
        let nic = self.place.nic()?;
        if nic.alive() { Ok(nic) } else { Err(Error::FirmwareDead { device: self.place.location.clone() }) }
    }
}

impl FlowTables for AttachedNic {
    fn execute(&self, commands: Vec<FlowCommand>) -> Result<()> {
        self.answering()?.execute(commands)
    }

    fn write(&self, write: TableWrite<'_>) -> Result<()> {
        if let TableWrite::RouterMac(mac) = write {
            lock(&self.place.config).router_mac = mac;
        }
        self.answering()?.write(write)
    }

    fn insert(&self, records: &[FlowRecord]) -> Result<()> {
        FlowTables::insert(&*self.answering()?, records)
    }

    fn find(&self, keys: &[FlowKey]) -> Result<Vec<FlowRecord>> {
        self.answering()?.find(keys)
    }

    fn visit(&self, scan: Scan, each: &mut dyn FnMut(&FlowRecord, u32) -> ControlFlow<()>) -> Result<()> {
        self.answering()?.visit(scan, each)
    }

    fn fence(&self) -> Result<()> {
        FlowTables::fence(&*self.answering()?)
    }

    fn start(&self) -> Result<()> {
        FlowTables::start(&*self.answering()?)
    }
}

impl PacketIo for AttachedNic {
    fn upcalls(&self) -> Option<Box<dyn UpcallQueue>> {
        if !self.place.has_upcalls.swap(false, Ordering::AcqRel) {
            return None;
        }
        Some(Box::new(AttachedUpcalls::new(self.place.clone()).ok()?))
    }

    fn vmq(&self, n: u16) -> Result<Box<dyn VmqQueue>> {
        self.answering()?;
        Ok(Box::new(AttachedVmq::open(&self.place, n)?))
    }

    fn enqueue(&self, vport: VportId, parts: [&[u8]; 2]) -> Result<bool> {
        self.place.nic().map_or(Ok(false), |nic| PacketIo::enqueue(&*nic, vport, parts))
    }

    fn enqueue_drops(&self, vport: VportId, reason: Reason, count: u32) -> Result<bool> {
        self.place.nic().map_or(Ok(false), |nic| PacketIo::enqueue_drops(&*nic, vport, reason, count))
    }

    fn doorbell(&self) -> Result<()> {
        // A board that does not answer finds what was enqueued when it does.
        self.answering().map_or(Ok(()), |nic| PacketIo::doorbell(&*nic))
    }
}

impl DeviceInfo for AttachedNic {
    fn capabilities(&self) -> Capabilities {
        match self.place.nic() {
            Ok(nic) => nic.capabilities(),
            Err(_) => match lock(&self.place.known) {
                known if known.firmware.flows > 0 => {
                    let flow_records = known.firmware.flows;
                    Capabilities { flow_records, flow_records_per_vport: flow_records / 4, ..UNSEEN }
                }
                _ => UNSEEN,
            },
        }
    }

    fn is_adopted(&self) -> bool {
        self.place.nic().is_ok_and(|nic| nic.adopted())
    }

    fn is_alive(&self) -> bool {
        self.place.is_alive()
    }

    fn router_mac(&self) -> MacAddr {
        self.place.router_mac()
    }

    fn events(&self) -> Option<Box<dyn EventQueue>> {
        Some(Box::new(lock(&self.place.events).take()?))
    }

    /// As last seen: makes no access to the NIC.
    fn links(&self) -> Result<[bool; 2]> {
        Ok(self.status().observed.links)
    }

    fn vports(&self) -> Result<Vec<Vport>> {
        Ok(self.place.read_vports(&*self.answering()?)?)
    }

    fn counters(&self) -> Result<NicCounters> {
        Ok(self.place.read_counters(&*self.answering()?)?)
    }

    fn vf_counters(&self, vf: u16) -> Result<PortCounters> {
        Ok(self.place.read_vf(&*self.answering()?, vf)?)
    }

    fn drops(&self) -> Result<Vec<(Reason, u64)>> {
        Ok(self.place.read_drops(&*self.answering()?)?)
    }
}
