//! What the slow path needs of a NIC, as traits: the Culvert NIC is one implementation.

use std::os::fd::BorrowedFd;

use culvert_abi::command::{CellWrite, VmqFilter};
use culvert_abi::pf::Entry;
use culvert_abi::{FlowKey, FlowRecord, Group, Peer, Tunnel, Vport};
use culvert_flow::Port;
use culvert_packet::{MacAddr, Reason, VportId};
use culvert_pf::{Counters, Event, Events, Nic, PortCounters, Result, Return, RxQueue, VfConfig};

/// One thing to be done by the NIC. Steps reach it in the order in which they are given.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Insert records, or give existing ones new actions.
    Insert(Vec<FlowRecord>),
    /// Delete records by key.
    Delete(Vec<FlowKey>),
    /// Write a tunnel's outer headers.
    Tunnel(u16, Box<Tunnel>),
    /// Send a frame on the way of its flow. With a ticket, this settles it.
    Lookup(Return, Vec<u8>),
    /// Send a frame out of a port as it is. With a ticket, this settles it.
    Out(Return, Port, Vec<u8>),
    /// A packet ended at the host. With a ticket, this settles it.
    Dropped(Return, Reason),
}

/// Which frames from the wire are a vport's: those for its MAC in its VSID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// The vport.
    pub vport: VportId,
    /// Its VSID.
    pub vsid: u32,
    /// Its MAC.
    pub mac: MacAddr,
}

/// A queue of packets from the NIC.
pub trait PacketSource: Send {
    /// The oldest entry and its bytes.
    ///
    /// # Errors
    /// The queue has stopped.
    fn pop(&mut self) -> Result<Option<(Entry, Vec<u8>)>>;
    /// The same, but the bytes are written to the front of `into`, as far as they fit there: the number is all there are.
    ///
    /// # Errors
    /// The queue has stopped.
    fn pop_into(&mut self, into: &mut [u8]) -> Result<Option<(Entry, usize)>> {
        Ok(self.pop()?.map(|(entry, bytes)| (entry, copy(&bytes, into))))
    }
    /// Gives the buffers of all entries taken out back. Called after each burst.
    ///
    /// # Errors
    /// The device is lost.
    fn repost(&mut self) -> Result<()>;
    /// Asks for an interrupt. `false`: something has come meanwhile.
    fn arm(&self) -> bool;
    /// Wants no interrupts, and clears one that came.
    fn disarm(&self);
    /// Readable while an interrupt is pending.
    fn fd(&self) -> BorrowedFd<'_>;
}

/// What a NIC reports by itself.
pub trait EventSource: Send {
    /// The oldest event.
    fn next(&self) -> Option<Event>;
    /// Readable while there may be one.
    fn fd(&self) -> BorrowedFd<'_>;
}

/// A NIC that flows are offloaded to. Errors are the driver's: the firmware is dead, refuses, or does not answer.
#[expect(clippy::missing_errors_doc, reason = "the trait's documentation says it once for all its calls")]
pub trait OffloadTarget: Send + Sync + 'static {
    /// Hands a run of steps over, in order. Does not wait for them to be done.
    fn send(&self, steps: Vec<Step>) -> Result<()>;
    /// Inserts records and waits until they are in.
    fn insert(&self, records: &[FlowRecord]) -> Result<()>;
    /// All records, at most `limit`.
    fn read_all(&self, limit: usize) -> Result<Vec<FlowRecord>>;
    /// Records that were not used for `ms` milliseconds, at most `limit`.
    fn idle(&self, ms: u32, limit: usize) -> Result<Vec<FlowRecord>>;
    /// The records of keys, as far as they exist.
    fn get(&self, keys: &[FlowKey]) -> Result<Vec<FlowRecord>>;
    /// Writes tunnels by index.
    fn set_tunnels(&self, tunnels: &[(u16, Tunnel)]) -> Result<()>;
    /// Writes replication groups by index.
    fn set_groups(&self, groups: &[(u16, Group)]) -> Result<()>;
    /// Writes vports by index.
    fn set_vports(&self, vports: &[(u16, Vport)]) -> Result<()>;
    /// Says which frames from the wire are whose, in place of what was said before. One that finds vports by its flow
    /// table alone needs not know.
    fn set_stations(&self, stations: &[Station]) -> Result<()> {
        let _ = stations;
        Ok(())
    }
    /// Sets the addresses of other hosts, in place of the former.
    fn set_peers(&self, peers: &[Peer]) -> Result<()>;
    /// Sets our own addresses, in place of the former.
    fn set_local(&self, local: &[Peer]) -> Result<()>;
    /// Sets generation cells.
    fn set_cells(&self, cells: &[CellWrite]) -> Result<()>;
    /// Sets the VMQ filters, in place of the former.
    fn set_vmq_filters(&self, filters: &[VmqFilter]) -> Result<()>;
    /// Returns when everything given before is done.
    fn fence(&self) -> Result<()>;
    /// Lets packets flow.
    fn start(&self) -> Result<()>;
    /// The router's MAC of the firmware.
    fn router_mac(&self) -> MacAddr;
    /// Gives the router another MAC. This empties the flow table.
    fn set_router_mac(&self, mac: MacAddr) -> Result<()>;
    /// What a VF is to be.
    fn configure_vf(&self, vf: u16, config: &VfConfig) -> Result<()>;
    /// All vports with their counters.
    fn vports(&self) -> Result<Vec<Vport>>;
    /// Counters of the NIC and its MAC ports.
    fn counters(&self) -> Result<Counters>;
    /// Counters of a VF.
    fn vf_counters(&self, vf: u16) -> Result<PortCounters>;
    /// Drops by reason, of board and firmware together.
    fn drops(&self) -> Result<Vec<(Reason, u64)>>;
    /// Links of the MAC ports.
    fn links(&self) -> Result<[bool; 2]>;
    /// How many MAC ports it has.
    fn uplinks(&self) -> u8;
    /// How many flow records it has room for.
    fn flows(&self) -> u32;
    /// How many of them a vport may have for which the policy names no number.
    fn share(&self) -> u32 {
        self.flows() / 4
    }
    /// Whether its tables were already written by a daemon before this one.
    fn adopted(&self) -> bool;
    /// Whether it may lose its tables while this process lives, and wants them back.
    fn may_forget(&self) -> bool {
        true
    }
    /// Whether it takes commands.
    fn alive(&self) -> bool;
    /// The exception queue, once.
    fn exceptions(&self) -> Option<Box<dyn PacketSource>>;
    /// The events, once.
    fn events(&self) -> Option<Box<dyn EventSource>>;
    /// A VMQ.
    fn vmq(&self, n: u16) -> Result<Box<dyn PacketSource>>;
    /// Gives the NIC a frame, in two parts, that came from the machine of a vport. `false`: it takes none now, and the same
    /// one may be offered again. It is looked at after [`show_offered`](Self::show_offered). One without VMQs takes none.
    fn offer(&self, _: VportId, _: [&[u8]; 2]) -> Result<bool> {
        Ok(false)
    }
    /// Has the NIC count frames for or from the machine of a vport that ended at the host. `false`: not now.
    fn offer_drops(&self, _: VportId, _: Reason, _: u32) -> Result<bool> {
        Ok(false)
    }
    /// Shows the NIC what it was offered.
    fn show_offered(&self) -> Result<()> {
        Ok(())
    }
}

fn copy(bytes: &[u8], into: &mut [u8]) -> usize {
    let n = bytes.len().min(into.len());
    into[..n].copy_from_slice(&bytes[..n]);
    bytes.len()
}

impl PacketSource for RxQueue {
    fn pop(&mut self) -> Result<Option<(Entry, Vec<u8>)>> {
        Ok(RxQueue::pop(self)?.map(|(entry, bytes)| (entry, bytes.to_vec())))
    }

    fn pop_into(&mut self, into: &mut [u8]) -> Result<Option<(Entry, usize)>> {
        Ok(RxQueue::pop(self)?.map(|(entry, bytes)| (entry, copy(bytes, into))))
    }

    fn repost(&mut self) -> Result<()> {
        RxQueue::repost(self)
    }

    fn arm(&self) -> bool {
        RxQueue::arm(self)
    }

    fn disarm(&self) {
        RxQueue::disarm(self);
        // An event that cannot be cleared costs one more look at the ring.
        let _ = self.interrupt().try_clear();
    }

    fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.interrupt().as_fd()
    }
}

impl EventSource for Events {
    fn next(&self) -> Option<Event> {
        Events::next(self)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.as_fd()
    }
}

impl OffloadTarget for Nic {
    fn send(&self, steps: Vec<Step>) -> Result<()> {
        let mut batch = self.batch();
        for step in &steps {
            match step {
                Step::Insert(records) => batch.insert(records)?,
                Step::Delete(keys) => batch.delete(keys)?,
                Step::Tunnel(index, tunnel) => batch.set_tunnel(*index, tunnel)?,
                Step::Lookup(back, frame) => batch.inject_lookup(back, frame)?,
                Step::Out(back, target, frame) => batch.inject_out(back, *target, &[frame])?,
                Step::Dropped(back, reason) => batch.dropped(back, *reason, 1)?,
            }
        }
        batch.flush()
    }

    fn insert(&self, records: &[FlowRecord]) -> Result<()> {
        Nic::insert(self, records).map(|_| ())
    }

    fn read_all(&self, limit: usize) -> Result<Vec<FlowRecord>> {
        Nic::read_all(self, limit)
    }

    fn idle(&self, ms: u32, limit: usize) -> Result<Vec<FlowRecord>> {
        Nic::idle(self, ms, limit)
    }

    fn get(&self, keys: &[FlowKey]) -> Result<Vec<FlowRecord>> {
        Nic::get(self, keys)
    }

    fn set_tunnels(&self, tunnels: &[(u16, Tunnel)]) -> Result<()> {
        Nic::set_tunnels(self, tunnels)
    }

    fn set_groups(&self, groups: &[(u16, Group)]) -> Result<()> {
        Nic::set_groups(self, groups)
    }

    fn set_vports(&self, vports: &[(u16, Vport)]) -> Result<()> {
        Nic::set_vports(self, vports)
    }

    fn set_peers(&self, peers: &[Peer]) -> Result<()> {
        Nic::set_peers(self, peers)
    }

    fn set_local(&self, local: &[Peer]) -> Result<()> {
        Nic::set_local(self, local)
    }

    fn set_cells(&self, cells: &[CellWrite]) -> Result<()> {
        Nic::set_cells(self, cells)
    }

    fn set_vmq_filters(&self, filters: &[VmqFilter]) -> Result<()> {
        Nic::set_vmq_filters(self, filters)
    }

    fn fence(&self) -> Result<()> {
        Nic::fence(self)
    }

    fn start(&self) -> Result<()> {
        Nic::start(self)
    }

    fn router_mac(&self) -> MacAddr {
        Nic::router_mac(self)
    }

    fn set_router_mac(&self, mac: MacAddr) -> Result<()> {
        Nic::set_router_mac(self, mac)
    }

    fn configure_vf(&self, vf: u16, config: &VfConfig) -> Result<()> {
        Nic::configure_vf(self, vf, config)
    }

    fn vports(&self) -> Result<Vec<Vport>> {
        Nic::vports(self)
    }

    fn counters(&self) -> Result<Counters> {
        Nic::counters(self)
    }

    fn vf_counters(&self, vf: u16) -> Result<PortCounters> {
        Nic::vf_counters(self, vf)
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

    fn links(&self) -> Result<[bool; 2]> {
        Nic::links(self)
    }

    fn uplinks(&self) -> u8 {
        self.identity().uplinks
    }

    fn flows(&self) -> u32 {
        self.firmware().flows
    }

    fn adopted(&self) -> bool {
        Nic::adopted(self)
    }

    fn alive(&self) -> bool {
        Nic::alive(self)
    }

    fn exceptions(&self) -> Option<Box<dyn PacketSource>> {
        Some(Box::new(Nic::exceptions(self)?))
    }

    fn events(&self) -> Option<Box<dyn EventSource>> {
        Some(Box::new(Nic::events(self)?))
    }

    fn vmq(&self, n: u16) -> Result<Box<dyn PacketSource>> {
        Ok(Box::new(Nic::vmq(self, n)?))
    }

    fn offer(&self, vport: VportId, parts: [&[u8]; 2]) -> Result<bool> {
        Nic::offer(self, Port::Vport(vport), &parts)
    }

    fn offer_drops(&self, vport: VportId, reason: Reason, count: u32) -> Result<bool> {
        Nic::offer_drops(self, Port::Vport(vport), reason, count)
    }

    fn show_offered(&self) -> Result<()> {
        Nic::show_offered(self)
    }
}
