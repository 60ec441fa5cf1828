//! Flow commands and tables: given in queue 0, answered in the completion queue.

use std::time::Duration;

use culvert_abi::command::{CellWrite, Op, TunnelCounters, VmqFilter};
use culvert_abi::pf::Entry;
use culvert_abi::{FlowKey, FlowRecord, Group, Peer, Tunnel, Vport};
use culvert_flow::Port;
use culvert_packet::Reason;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::batch::{Batch, per_payload};
use crate::completion::{Answer, Waited};
use crate::nic::{Nic, Shared};
use crate::sync::lock;
use crate::{Error, Result};

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(3);
/// Commands under way at a time: the completion queue must hold all their answers.
const WINDOW: usize = 256;

impl Shared {
    fn batch(&self) -> Batch<'_> {
        Batch { shared: self, ring: lock(&self.command) }
    }

    pub(crate) fn send(&self, op: Op, arg0: u32, arg1: u64, payload: &[u8]) -> Result<u32> {
        let cookie = self.completions.attend();
        let entry = Entry { op: op as u8, cookie, arg0, arg1, ..Entry::default() };
        let sent = self.batch().push(&entry, &[payload]);
        sent.map(|()| cookie).inspect_err(|_| self.completions.forget(cookie))
    }

    pub(crate) fn answer(&self, op: Op, cookie: u32) -> Result<Answer> {
        let device = self.name().to_owned();
        match self.completions.wait(cookie, LIMIT) {
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

    /// Reads a table that is answered piece by piece.
    pub(crate) fn read_table<T: FromBytes>(&self, op: Op, arg1: u64, limit: usize) -> Result<Vec<T>> {
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
                    return Err(Error::Refused { device: self.name().into(), op, reason });
                }
            }
        }
        all.truncate(limit);
        Ok(all)
    }

    /// Whether somebody has set vports up.
    pub(crate) fn has_vports(&self) -> Result<bool> {
        let vports: Vec<Vport> = self.read_table(Op::VportRead, 0, usize::from(Port::MAX_VPORTS))?;
        Ok(vports.iter().any(|v| v.flags & Vport::PRESENT != 0))
    }
}

impl Nic {
    /// Begins a run of commands and packets.
    pub fn batch(&self) -> Batch<'_> {
        self.shared.batch()
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
                self.shared
                    .answer(op, cookie)
                    .map_or_else(|e| failed = failed.take().or(Some(e)), |a| answers.push(a));
            }
            match self.shared.send(op, arg0, 0, payload) {
                Ok(cookie) => under_way.push_back(cookie),
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
        }
        for cookie in under_way {
            self.shared
                .answer(op, cookie)
                .map_or_else(|e| failed = failed.take().or(Some(e)), |a| answers.push(a));
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
        self.shared.command(Op::FlowClear, 0, 0, &[]).map(|_| ())
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
        self.shared.read_table(Op::FlowRead, 0, limit)
    }

    /// Records that were not used for `ms` milliseconds, at most `limit`.
    ///
    /// # Errors
    /// As [`Nic::read_all`].
    pub fn idle(&self, ms: u32, limit: usize) -> Result<Vec<FlowRecord>> {
        self.shared.read_table(Op::FlowIdle, u64::from(ms), limit)
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
        self.shared.command(Op::PeersSet, 1, 0, first.as_bytes())?;
        self.pipeline(Op::PeersSet, chunks.map(|c| (0, c.as_bytes()))).map(|_| ())
    }

    /// Sets our own addresses, at most four, in place of the former.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn set_local(&self, local: &[Peer]) -> Result<()> {
        self.shared.command(Op::LocalSet, 0, 0, local[..local.len().min(4)].as_bytes()).map(|_| ())
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
        self.shared.command(Op::VmqFilters, 0, 0, filters.as_bytes()).map(|_| ())
    }

    /// All vports, with their counters.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn vports(&self) -> Result<Vec<Vport>> {
        self.shared.read_table(Op::VportRead, 0, usize::from(Port::MAX_VPORTS))
    }

    /// Counters of all tunnels.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn tunnel_counters(&self) -> Result<Vec<TunnelCounters>> {
        self.shared.read_table(Op::TunnelRead, 0, usize::from(u16::MAX))
    }

    /// Packets that the firmware dropped, by reason's number.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn firmware_drops(&self) -> Result<Vec<u64>> {
        self.shared.read_table(Op::DropsRead, 0, 256)
    }

    /// Returns when everything given before is done.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn fence(&self) -> Result<()> {
        self.shared.command(Op::Fence, 0, 0, &[]).map(|_| ())
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
