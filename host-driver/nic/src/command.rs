//! Queue 0: flow commands, tables, and packets that go back to the NIC, all in the order in which they are given.

use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use culvert_abi::command::{CellWrite, Op, TunnelCounters, VmqFilter};
use culvert_abi::pf::{Entry, MAX_PAYLOAD};
use culvert_abi::regs::{QUEUE_BELL, QUEUE_COMMAND};
use culvert_abi::{FlowKey, FlowRecord, Group, Peer, Tunnel, Vport};
use culvert_flow::Port;
use culvert_packet::Reason;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::completion::{Answer, Waited};
use crate::exception::Return;
use crate::nic::{Nic, Shared, lock};
use crate::ring::HostToNic;
use crate::{Error, Result};

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(3);
/// How long queue 0 may stay full.
const FULL_LIMIT: Duration = Duration::from_secs(1);
/// Commands under way at a time: the completion queue must hold all their answers.
const WINDOW: usize = 256;

/// Items of a type that one payload holds.
const fn per_payload<T>() -> usize {
    MAX_PAYLOAD as usize / size_of::<T>()
}

/// A run of commands and packets. They reach the firmware in this order, and none of anybody else comes in between.
/// Dropping it shows them to the board.
pub struct Batch<'n> {
    shared: &'n Shared,
    ring: MutexGuard<'n, HostToNic>,
}

impl Batch<'_> {
    fn push(&mut self, entry: &Entry, payload: &[&[u8]]) -> Result<()> {
        if !self.shared.alive() {
            return Err(Error::FirmwareDead { device: self.shared.name().into() });
        }
        if self.ring.push(entry, payload)? {
            return Ok(());
        }
        let end = Instant::now() + FULL_LIMIT;
        loop {
            self.flush()?;
            std::thread::sleep(Duration::from_micros(50));
            if !self.shared.alive() {
                return Err(Error::FirmwareDead { device: self.shared.name().into() });
            }
            if self.ring.push(entry, payload)? {
                return Ok(());
            }
            if Instant::now() > end {
                let what = "room in queue 0".into();
                return Err(Error::Timeout { device: self.shared.name().into(), what, limit: FULL_LIMIT });
            }
        }
    }

    fn packet(&mut self, op: Op, back: &Return, target: Port, parts: &[&[u8]]) -> Result<()> {
        let entry = Entry {
            op: op as u8,
            port: back.input.bits(),
            target: target.bits(),
            ticket: back.ticket.map_or(0, |t| t.get()),
            offload: back.offload,
            ..Entry::default()
        };
        self.push(&entry, parts)
    }

    /// Inserts records, or gives existing ones new actions. Refusals are counted ([`Nic::refused`]).
    ///
    /// # Errors
    /// The firmware is dead, or takes nothing.
    pub fn insert(&mut self, records: &[FlowRecord]) -> Result<()> {
        self.items(Op::FlowInsert, records)
    }

    /// Deletes records by key.
    ///
    /// # Errors
    /// As [`Batch::insert`].
    pub fn delete(&mut self, keys: &[FlowKey]) -> Result<()> {
        self.items(Op::FlowDelete, keys)
    }

    fn items<T: IntoBytes + Immutable>(&mut self, op: Op, items: &[T]) -> Result<()> {
        let cookie = self.shared.completions.unattended();
        for chunk in items.chunks(per_payload::<T>()) {
            self.push(&Entry { op: op as u8, cookie, ..Entry::default() }, &[chunk.as_bytes()])?;
        }
        Ok(())
    }

    /// Writes an outer header.
    ///
    /// # Errors
    /// As [`Batch::insert`].
    pub fn set_tunnel(&mut self, index: u16, tunnel: &Tunnel) -> Result<()> {
        let cookie = self.shared.completions.unattended();
        let entry = Entry { op: Op::TunnelSet as u8, cookie, arg0: u32::from(index), ..Entry::default() };
        self.push(&entry, &[tunnel.as_bytes()])
    }

    /// Sends a frame on the way of its flow.
    ///
    /// # Errors
    /// As [`Batch::insert`]; the frame is too long.
    pub fn inject_lookup(&mut self, back: &Return, frame: &[u8]) -> Result<()> {
        self.packet(Op::InjectLookup, back, Port::None, &[frame])
    }

    /// Sends a frame, given in parts, out of `target` as it is.
    ///
    /// # Errors
    /// As [`Batch::inject_lookup`].
    pub fn inject_out(&mut self, back: &Return, target: Port, parts: &[&[u8]]) -> Result<()> {
        self.packet(Op::InjectOut, back, target, parts)
    }

    /// Reports that packets ended at the host. The firmware counts them under `reason`.
    ///
    /// # Errors
    /// As [`Batch::insert`].
    pub fn dropped(&mut self, back: &Return, reason: Reason, count: u32) -> Result<()> {
        let entry = Entry {
            op: Op::Dropped as u8,
            reason: reason as u8,
            port: back.input.bits(),
            target: Port::None.bits(),
            ticket: back.ticket.map_or(0, |t| t.get()),
            arg0: count,
            ..Entry::default()
        };
        self.push(&entry, &[])
    }

    /// Shows the board what was given so far.
    ///
    /// # Errors
    /// The device is lost.
    pub fn flush(&mut self) -> Result<()> {
        if self.ring.publish() {
            self.shared.bar.queue_write(QUEUE_COMMAND, QUEUE_BELL, 1)?;
        }
        Ok(())
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // A device that is lost is reported by the watchdog.
        let _ = self.flush();
    }
}

impl Nic {
    /// Begins a run of commands and packets.
    pub fn batch(&self) -> Batch<'_> {
        Batch { shared: &self.shared, ring: lock(&self.shared.command) }
    }

    fn send(&self, op: Op, arg0: u32, arg1: u64, payload: &[u8]) -> Result<u32> {
        let cookie = self.shared.completions.attend();
        let entry = Entry { op: op as u8, cookie, arg0, arg1, ..Entry::default() };
        let sent = self.batch().push(&entry, &[payload]);
        sent.map(|()| cookie).inspect_err(|_| self.shared.completions.forget(cookie))
    }

    fn answer(&self, op: Op, cookie: u32) -> Result<Answer> {
        let device = self.shared.name().to_owned();
        match self.shared.completions.wait(cookie, LIMIT) {
            Waited::Done(Answer { reason: Some(reason), .. }) => Err(Error::Refused { device, op, reason }),
            Waited::Done(answer) => Ok(answer),
            Waited::Lost => Err(Error::FirmwareDead { device }),
            Waited::TimedOut => Err(Error::Timeout { device, what: format!("{op:?}"), limit: LIMIT }),
        }
    }

    /// One command and its answer.
    pub(crate) fn command(&self, op: Op, arg0: u32, arg1: u64, payload: &[u8]) -> Result<Answer> {
        let cookie = self.send(op, arg0, arg1, payload)?;
        self.answer(op, cookie)
    }

    /// Many commands, pipelined. Each item is sent before the answers of those before it are there; the first error is
    /// returned when all answers are in.
    fn pipeline<'p>(&self, op: Op, commands: impl Iterator<Item = (u32, &'p [u8])>) -> Result<Vec<Answer>> {
        let mut under_way = std::collections::VecDeque::new();
        let mut answers = Vec::new();
        let mut failed = None;
        for (arg0, payload) in commands {
            if under_way.len() == WINDOW
                && let Some(cookie) = under_way.pop_front()
            {
                self.answer(op, cookie)
                    .map_or_else(|e| failed = failed.take().or(Some(e)), |a| answers.push(a));
            }
            match self.send(op, arg0, 0, payload) {
                Ok(cookie) => under_way.push_back(cookie),
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
        }
        for cookie in under_way {
            self.answer(op, cookie).map_or_else(|e| failed = failed.take().or(Some(e)), |a| answers.push(a));
        }
        failed.map_or(Ok(answers), Err)
    }

    fn chunks<'p, T: IntoBytes + Immutable>(&self, op: Op, items: &'p [T], n: usize) -> Result<Vec<Answer>> {
        self.pipeline(op, items.chunks(n).map(|chunk: &'p [T]| (0, chunk.as_bytes())))
    }

    /// Inserts records and waits until they are in. Returns how many.
    ///
    /// # Errors
    /// One is refused, or the firmware does not answer.
    pub fn insert(&self, records: &[FlowRecord]) -> Result<u32> {
        let answers = self.chunks(Op::FlowInsert, records, per_payload::<FlowRecord>())?;
        Ok(answers.iter().map(|a| a.arg0).sum())
    }

    /// Deletes records by key. Returns how many there were.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn delete(&self, keys: &[FlowKey]) -> Result<u32> {
        let answers = self.chunks(Op::FlowDelete, keys, per_payload::<FlowKey>())?;
        Ok(answers.iter().map(|a| a.arg0).sum())
    }

    /// Deletes all records that are not pending.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn clear(&self) -> Result<()> {
        self.command(Op::FlowClear, 0, 0, &[]).map(|_| ())
    }

    /// The records of keys, as far as they exist.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn get(&self, keys: &[FlowKey]) -> Result<Vec<FlowRecord>> {
        let answers = self.chunks(Op::FlowGet, keys, per_payload::<FlowRecord>())?;
        Ok(answers.iter().flat_map(|a| items(&a.payload)).collect())
    }

    /// All records, at most `limit`.
    ///
    /// # Errors
    /// The firmware does not answer, or not sensibly.
    pub fn read_all(&self, limit: usize) -> Result<Vec<FlowRecord>> {
        self.read_table(Op::FlowRead, 0, limit)
    }

    /// Records that were not used for `ms` milliseconds, at most `limit`.
    ///
    /// # Errors
    /// As [`Nic::read_all`].
    pub fn idle(&self, ms: u32, limit: usize) -> Result<Vec<FlowRecord>> {
        self.read_table(Op::FlowIdle, u64::from(ms), limit)
    }

    /// Reads a table that is answered piece by piece.
    fn read_table<T: FromBytes>(&self, op: Op, arg1: u64, limit: usize) -> Result<Vec<T>> {
        let mut all = Vec::new();
        let mut at = 0;
        while all.len() < limit {
            let answer = self.command(op, at, arg1, &[])?;
            all.extend(items::<T>(&answer.payload));
            match answer.arg0 {
                u32::MAX => break,
                next if next > at => at = next,
                _ => {
                    let reason = Reason::BadDescriptor;
                    return Err(Error::Refused { device: self.shared.name().into(), op, reason });
                }
            }
        }
        all.truncate(limit);
        Ok(all)
    }

    /// Writes outer headers by index.
    ///
    /// # Errors
    /// The index does not exist, or the firmware does not answer.
    pub fn set_tunnels(&self, tunnels: &[(u16, Tunnel)]) -> Result<()> {
        self.pipeline(Op::TunnelSet, tunnels.iter().map(|(i, t)| (u32::from(*i), t.as_bytes()))).map(|_| ())
    }

    /// Writes replication groups by index.
    ///
    /// # Errors
    /// As [`Nic::set_tunnels`].
    pub fn set_groups(&self, groups: &[(u16, Group)]) -> Result<()> {
        self.pipeline(Op::GroupSet, groups.iter().map(|(i, g)| (u32::from(*i), g.as_bytes()))).map(|_| ())
    }

    /// Writes vports by index. Their counters go on.
    ///
    /// # Errors
    /// As [`Nic::set_tunnels`].
    pub fn set_vports(&self, vports: &[(u16, Vport)]) -> Result<()> {
        self.pipeline(Op::VportSet, vports.iter().map(|(i, v)| (u32::from(*i), v.as_bytes()))).map(|_| ())
    }

    /// Sets the addresses of other hosts, in place of the former.
    ///
    /// # Errors
    /// There are too many, or the firmware does not answer.
    pub fn set_peers(&self, peers: &[Peer]) -> Result<()> {
        let mut chunks = peers.chunks(per_payload::<Peer>());
        let first = chunks.next().unwrap_or_default();
        self.command(Op::PeersSet, 1, 0, first.as_bytes())?;
        self.pipeline(Op::PeersSet, chunks.map(|c| (0, c.as_bytes()))).map(|_| ())
    }

    /// Sets our own addresses, at most four, in place of the former.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn set_local(&self, local: &[Peer]) -> Result<()> {
        self.command(Op::LocalSet, 0, 0, local[..local.len().min(4)].as_bytes()).map(|_| ())
    }

    /// Sets generation cells.
    ///
    /// # Errors
    /// A cell does not exist, or the firmware does not answer.
    pub fn set_cells(&self, cells: &[CellWrite]) -> Result<()> {
        self.chunks(Op::CellsSet, cells, per_payload::<CellWrite>()).map(|_| ())
    }

    /// Sets the VMQ filters, in place of the former.
    ///
    /// # Errors
    /// There are too many, or the firmware does not answer.
    pub fn set_vmq_filters(&self, filters: &[VmqFilter]) -> Result<()> {
        self.command(Op::VmqFilters, 0, 0, filters.as_bytes()).map(|_| ())
    }

    /// All vports, with their counters.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn vports(&self) -> Result<Vec<Vport>> {
        self.read_table(Op::VportRead, 0, usize::from(Port::MAX_VPORTS))
    }

    /// Counters of all tunnels.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn tunnel_counters(&self) -> Result<Vec<TunnelCounters>> {
        self.read_table(Op::TunnelRead, 0, usize::from(u16::MAX))
    }

    /// Packets that the firmware dropped, by reason's number.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn firmware_drops(&self) -> Result<Vec<u64>> {
        self.read_table(Op::DropsRead, 0, 256)
    }

    /// Returns when everything given before is done.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn fence(&self) -> Result<()> {
        self.command(Op::Fence, 0, 0, &[]).map(|_| ())
    }

    /// Commands of batches that the firmware refused, by reason.
    pub fn refused(&self) -> std::collections::HashMap<Reason, u64> {
        self.shared.completions.failures()
    }
}

/// The items of a reply.
fn items<T: FromBytes>(payload: &[u8]) -> impl Iterator<Item = T> {
    payload.chunks_exact(size_of::<T>()).filter_map(|bytes| T::read_from_bytes(bytes).ok())
}
