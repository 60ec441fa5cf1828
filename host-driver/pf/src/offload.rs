//! Implements the traits of `culvert_offload` for [`Nic`], so that the slow path drives it like any other NIC.
//!
//! * [`FlowTables`]: commands become one [`Batch`](crate::Batch) in queue 0; table writes are commands that wait for
//!   their answer, or VF registers.
//! * [`PacketIo`]: the upcall queue, the VMQs, and frames of VMs that have no VF.
//! * [`DeviceInfo`]: registers of the board and counters of the firmware; drops are the sum of both.
//!
//! It also converts the driver's errors and queue entries into those of `culvert_offload`.

use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};

use culvert_abi::command::{CellWrite, Op, VmqFilter};
use culvert_abi::pf::Entry;
use culvert_flow::tables::Vport;
use culvert_flow::{FlowKey, FlowRecord, Port};
use culvert_offload::{
    self as offload, Capabilities, DeviceInfo, EventQueue, FlowCommand, FlowTables, Generation,
    GenerationWrite, NicCounters, PacketIo, PortCounters, Result, Scan, TableWrite, Upcall, UpcallQueue,
    VmqFrame, VmqQueue,
};
use culvert_packet::{MacAddr, Reason, VportId};

use crate::Error;
use crate::event::Events;
use crate::nic::Nic;
use crate::queue::RxQueue;
use crate::upcall::upcall_meta;

/// Shortest complete frame: an Ethernet header.
const MIN_FRAME: usize = 14;

impl From<Error> for offload::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::FirmwareDead { device } => offload::Error::NotRunning { device },
            Error::Timeout { device, what, limit } => offload::Error::Timeout { device, what, limit },
            Error::Refused { device, op, reason } => {
                offload::Error::Refused { device, command: format!("{op:?}"), reason }
            }
            Error::TooLong { len, limit } => offload::Error::TooLong { len, limit },
            Error::NoVmq { device, vmq, count } => offload::Error::NoVmq { device, vmq, count },
            Error::System { what, source } => offload::Error::System { what, source },
            other => offload::Error::Driver(Box::new(other)),
        }
    }
}

/// The generation cell that a write names.
fn cell(write: &GenerationWrite) -> CellWrite {
    let cell = match write.of {
        Generation::Mapping(n) => u32::from(n),
        Generation::Vport(id) => CellWrite::VPORT + u32::from(id.0),
    };
    CellWrite { cell, value: write.value }
}

/// A VMQ filter as the firmware's table holds it.
fn filter(filter: &offload::VmqFilter) -> VmqFilter {
    let offload::VmqFilter { mac, vsid, vmq, vport } = *filter;
    VmqFilter { mac: mac.0, vmq, vsid, vport: u32::from(vport.0) }
}

impl FlowTables for Nic {
    fn execute(&self, commands: Vec<FlowCommand>) -> Result<()> {
        let mut batch = self.batch();
        for command in &commands {
            match command {
                FlowCommand::Insert(records) => batch.insert(records)?,
                FlowCommand::Delete(keys) => batch.delete(keys)?,
                FlowCommand::SetTunnel(index, tunnel) => batch.set_tunnel(*index, tunnel)?,
                FlowCommand::Reinject(meta, frame, _) => batch.reinject(meta, frame)?,
                FlowCommand::PacketOut(meta, to, frame) => batch.packet_out(meta, *to, &[frame])?,
                FlowCommand::Dropped(meta, reason) => batch.dropped(meta, *reason, 1)?,
            }
        }
        Ok(batch.flush()?)
    }

    fn write(&self, write: TableWrite<'_>) -> Result<()> {
        match write {
            TableWrite::RouterMac(mac) => self.set_router_mac(mac)?,
            TableWrite::LocalAddresses(addresses) => self.set_local(addresses)?,
            TableWrite::Peers(peers) => self.set_peers(peers)?,
            TableWrite::Tunnels(tunnels) => self.set_tunnels(tunnels)?,
            TableWrite::Groups(groups) => self.set_groups(groups)?,
            TableWrite::Vports(vports) => self.set_vports(vports)?,
            // The firmware has no forwarding database: flow records and VMQ filters name the vport.
            TableWrite::Fdb(_) => {}
            TableWrite::VmqFilters(filters) => {
                self.set_vmq_filters(&filters.iter().map(filter).collect::<Vec<_>>())?;
            }
            TableWrite::Generations(writes) => {
                self.set_cells(&writes.iter().map(cell).collect::<Vec<_>>())?;
            }
            TableWrite::Vf(vf, config) => self.configure_vf(vf, config)?,
        }
        Ok(())
    }

    fn insert(&self, records: &[FlowRecord]) -> Result<()> {
        Nic::insert(self, records)?;
        Ok(())
    }

    fn find(&self, keys: &[FlowKey]) -> Result<Vec<FlowRecord>> {
        Ok(self.get(keys)?)
    }

    fn visit(&self, scan: Scan, each: &mut dyn FnMut(&FlowRecord, u32) -> ControlFlow<()>) -> Result<()> {
        Ok(self.visit_records(scan, each)?)
    }

    fn fence(&self) -> Result<()> {
        Ok(Nic::fence(self)?)
    }

    fn start(&self) -> Result<()> {
        Ok(Nic::start(self)?)
    }
}

impl PacketIo for Nic {
    fn upcalls(&self) -> Option<Box<dyn UpcallQueue>> {
        Some(Box::new(Nic::upcalls(self)?))
    }

    fn vmq(&self, n: u16) -> Result<Box<dyn VmqQueue>> {
        Ok(Box::new(Nic::vmq(self, n)?))
    }

    fn enqueue(&self, vport: VportId, parts: [&[u8]; 2]) -> Result<bool> {
        Ok(Nic::enqueue(self, Port::Vport(vport), &parts)?)
    }

    fn enqueue_drops(&self, vport: VportId, reason: Reason, count: u32) -> Result<bool> {
        Ok(Nic::enqueue_drops(self, Port::Vport(vport), reason, count)?)
    }

    fn doorbell(&self) -> Result<()> {
        Ok(Nic::doorbell(self)?)
    }
}

impl DeviceInfo for Nic {
    fn capabilities(&self) -> Capabilities {
        let flow_records = self.firmware().flows;
        Capabilities {
            uplinks: self.identity().uplinks,
            flow_records,
            flow_records_per_vport: flow_records / 4,
            is_volatile: true,
        }
    }

    fn is_adopted(&self) -> bool {
        self.adopted()
    }

    fn is_alive(&self) -> bool {
        self.alive()
    }

    fn router_mac(&self) -> MacAddr {
        Nic::router_mac(self)
    }

    fn events(&self) -> Option<Box<dyn EventQueue>> {
        Some(Box::new(Nic::events(self)?))
    }

    fn links(&self) -> Result<[bool; 2]> {
        Ok(Nic::links(self)?)
    }

    fn vports(&self) -> Result<Vec<Vport>> {
        Ok(Nic::vports(self)?)
    }

    fn counters(&self) -> Result<NicCounters> {
        Ok(Nic::counters(self)?)
    }

    fn vf_counters(&self, vf: u16) -> Result<PortCounters> {
        Ok(Nic::vf_counters(self, vf)?)
    }

    fn drops(&self) -> Result<Vec<(Reason, u64)>> {
        let mut all = self.board_drops()?;
        let firmware = self.firmware_drops()?;
        for &reason in Reason::ALL {
            let n = firmware.get(reason as usize).copied().unwrap_or(0);
            match all.iter_mut().find(|(r, _)| *r == reason) {
                Some((_, count)) => *count += n,
                None if n > 0 => all.push((reason, n)),
                None => {}
            }
        }
        Ok(all)
    }
}

impl offload::RxQueue for RxQueue {
    fn repost(&mut self) -> Result<()> {
        Ok(RxQueue::repost(self)?)
    }

    fn arm(&self) -> bool {
        RxQueue::arm(self)
    }

    fn disarm(&self) {
        RxQueue::disarm(self);
        // An event that stays signalled costs one more poll of the ring.
        let _ = self.interrupt().try_clear();
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.interrupt().as_fd()
    }
}

impl UpcallQueue for RxQueue {
    fn pop(&mut self) -> Result<Option<Upcall>> {
        while let Some((entry, frame)) = RxQueue::pop(self)? {
            // The board writes only upcalls into this queue.
            debug_assert!(entry.op == Op::Upcall as u8 || entry.ticket == 0);
            if let Some(meta) = upcall_meta(&entry) {
                return Ok(Some(Upcall::parse(meta, frame.to_vec())));
            }
        }
        Ok(None)
    }
}

impl VmqQueue for RxQueue {
    fn pop(&mut self, buffer: &mut [u8]) -> Result<Option<VmqFrame>> {
        while let Some((entry, frame)) = RxQueue::pop(self)? {
            if entry.op == Op::Transmit as u8 {
                return Ok(Some(vmq_frame(&entry, frame, buffer)));
            }
        }
        Ok(None)
    }
}

/// Copies a frame of a VMQ into a buffer.
fn vmq_frame(entry: &Entry, frame: &[u8], buffer: &mut [u8]) -> VmqFrame {
    let len = frame.len();
    let n = len.min(buffer.len());
    buffer[..n].copy_from_slice(&frame[..n]);
    // If the board's buffer holds only a part of the frame, `original_len` is the frame's whole length.
    VmqFrame { len, complete: n == len && len >= MIN_FRAME && usize::from(entry.original_len) <= len }
}

impl EventQueue for Events {
    fn next(&self) -> Option<offload::Event> {
        Events::next(self)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}
