//! Flow and table commands: sent in queue 0, answered in the completion queue.

use std::ops::ControlFlow;
use std::time::Duration;

use culvert_abi::command::{CellWrite, Op, TunnelCounters, VmqFilter};
use culvert_abi::pf::Entry;
use culvert_abi::{FlowKey, FlowRecord, Group, Peer, Tunnel, Vport};
use culvert_flow::Port;
use culvert_offload::{Scan, idle_ms};
use culvert_packet::Reason;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::batch::{Batch, per_payload};
use crate::completion::{Answer, WaitResult};
use crate::nic::Nic;
use crate::shared::Shared;
use crate::sync::lock;
use crate::{Error, Result};

/// Time limit for the answer to a command.
const LIMIT: Duration = Duration::from_secs(3);
/// Outstanding commands of a pipeline: the completion queue holds all their answers.
const WINDOW: usize = 256;

impl Shared {
    fn batch(&self) -> Batch<'_> {
        Batch { shared: self, ring: lock(&self.command) }
    }

    /// Sends a command and returns its cookie.
    pub(crate) fn send(&self, op: Op, arg0: u32, arg1: u64, payload: &[u8]) -> Result<u32> {
        let cookie = self.completions.register();
        let entry = Entry { op: op as u8, cookie, arg0, arg1, ..Entry::default() };
        let sent = self.batch().push(&entry, &[payload]);
        sent.map(|()| cookie).inspect_err(|_| self.completions.cancel(cookie))
    }

    /// Waits for the answer to a command. Fails if the firmware refused it.
    pub(crate) fn answer(&self, op: Op, cookie: u32) -> Result<Answer> {
        let device = self.name().to_owned();
        match self.completions.wait(cookie, LIMIT) {
            WaitResult::Answered(Answer { reason: Some(reason), .. }) => {
                Err(Error::Refused { device, op, reason })
            }
            WaitResult::Answered(answer) => Ok(answer),
            WaitResult::FirmwareDied => Err(Error::FirmwareDead { device }),
            WaitResult::TimedOut => Err(Error::Timeout { device, what: format!("{op:?}"), limit: LIMIT }),
        }
    }

    /// Sends a command and waits for its answer.
    pub(crate) fn command(&self, op: Op, arg0: u32, arg1: u64, payload: &[u8]) -> Result<Answer> {
        let cookie = self.send(op, arg0, arg1, payload)?;
        self.answer(op, cookie)
    }

    /// Reads a table in as many commands as it takes; each answer says where the next one begins. Shows the items of each
    /// answer with the NIC's time, until `part` breaks off.
    fn read_parts<T: FromBytes>(
        &self,
        op: Op,
        arg1: u64,
        mut part: impl FnMut(Vec<T>, u32) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut start = 0;
        loop {
            let answer = self.command(op, start, arg1, &[])?;
            if part(items(&answer.payload).collect(), answer.now).is_break() {
                return Ok(());
            }
            match answer.arg0 {
                u32::MAX => return Ok(()),
                next if next > start => start = next,
                _ => {
                    let reason = Reason::BadDescriptor;
                    return Err(Error::Refused { device: self.name().into(), op, reason });
                }
            }
        }
    }

    /// Reads a table, or its first items.
    pub(crate) fn read_table<T: FromBytes>(&self, op: Op, arg1: u64, limit: usize) -> Result<Vec<T>> {
        let mut all = Vec::new();
        if limit > 0 {
            self.read_parts(op, arg1, |items, _| {
                all.extend(items);
                if all.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        all.truncate(limit);
        Ok(all)
    }

    /// Whether the firmware has vports.
    pub(crate) fn has_vports(&self) -> Result<bool> {
        let vports: Vec<Vport> = self.read_table(Op::VportRead, 0, usize::from(Port::MAX_VPORTS))?;
        Ok(vports.iter().any(|v| v.flags & Vport::PRESENT != 0))
    }
}

impl Nic {
    /// Begins a batch of commands and packets.
    pub fn batch(&self) -> Batch<'_> {
        self.shared.batch()
    }

    /// Sends commands without waiting for each answer. Returns all answers, or the first error once all answers are in.
    fn pipeline<'p>(&self, op: Op, commands: impl Iterator<Item = (u32, &'p [u8])>) -> Result<Vec<Answer>> {
        let mut outstanding = std::collections::VecDeque::new();
        let mut answers = Vec::new();
        let mut failed = None;
        for (arg0, payload) in commands {
            if outstanding.len() == WINDOW
                && let Some(cookie) = outstanding.pop_front()
            {
                self.shared
                    .answer(op, cookie)
                    .map_or_else(|e| failed = failed.take().or(Some(e)), |a| answers.push(a));
            }
            match self.shared.send(op, arg0, 0, payload) {
                Ok(cookie) => outstanding.push_back(cookie),
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
        }
        for cookie in outstanding {
            self.shared
                .answer(op, cookie)
                .map_or_else(|e| failed = failed.take().or(Some(e)), |a| answers.push(a));
        }
        failed.map_or(Ok(answers), Err)
    }

    fn chunks<'p, T: IntoBytes + Immutable>(&self, op: Op, items: &'p [T], n: usize) -> Result<Vec<Answer>> {
        self.pipeline(op, items.chunks(n).map(|chunk: &'p [T]| (0, chunk.as_bytes())))
    }

    /// Inserts records and waits for completion. Returns how many.
    ///
    /// # Errors
    /// The firmware refuses a record, or does not answer.
    pub fn insert(&self, records: &[FlowRecord]) -> Result<u32> {
        let answers = self.chunks(Op::FlowInsert, records, per_payload::<FlowRecord>())?;
        Ok(answers.iter().map(|a| a.arg0).sum())
    }

    /// Deletes records by key. Returns how many existed.
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

    /// The records of these keys, as far as they exist.
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
    /// The firmware does not answer, or its answers do not advance through the table.
    pub fn read_all(&self, limit: usize) -> Result<Vec<FlowRecord>> {
        self.shared.read_table(Op::FlowRead, 0, limit)
    }

    /// Shows each record with the milliseconds since a packet has used it, until `each` breaks off.
    ///
    /// # Errors
    /// As [`Nic::read_all`].
    pub fn visit_records(
        &self,
        scan: Scan,
        each: &mut dyn FnMut(&FlowRecord, u32) -> ControlFlow<()>,
    ) -> Result<()> {
        let (op, ms) = match scan {
            Scan::All => (Op::FlowRead, 0),
            Scan::Idle(ms) => (Op::FlowIdle, ms),
        };
        self.shared.read_parts(op, ms.into(), |records: Vec<FlowRecord>, now| {
            // The board stamps packets and commands with the same clock.
            records.iter().try_for_each(|record| each(record, idle_ms(now, record)))
        })
    }

    /// Writes tunnels by index.
    ///
    /// # Errors
    /// An index does not exist, or the firmware does not answer.
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

    /// Writes vports by number. Their counters stay.
    ///
    /// # Errors
    /// As [`Nic::set_tunnels`].
    pub fn set_vports(&self, vports: &[(u16, Vport)]) -> Result<()> {
        self.pipeline(Op::VportSet, vports.iter().map(|(i, v)| (u32::from(*i), v.as_bytes()))).map(|_| ())
    }

    /// Replaces the table of other hosts' provider addresses.
    ///
    /// # Errors
    /// The table has no room for them, or the firmware does not answer.
    pub fn set_peers(&self, peers: &[Peer]) -> Result<()> {
        let mut chunks = peers.chunks(per_payload::<Peer>());
        let first = chunks.next().unwrap_or_default();
        self.shared.command(Op::PeersSet, 1, 0, first.as_bytes())?;
        self.pipeline(Op::PeersSet, chunks.map(|c| (0, c.as_bytes()))).map(|_| ())
    }

    /// Replaces our own provider addresses. The NIC takes the first four.
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

    /// Replaces the VMQ filters.
    ///
    /// # Errors
    /// The NIC has no room for them, or the firmware does not answer.
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

    /// Packets that the firmware dropped, indexed by the reason's number.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn firmware_drops(&self) -> Result<Vec<u64>> {
        self.shared.read_table(Op::DropsRead, 0, 256)
    }

    /// Waits until all commands and packets sent before are done.
    ///
    /// # Errors
    /// The firmware does not answer.
    pub fn fence(&self) -> Result<()> {
        self.shared.command(Op::Fence, 0, 0, &[]).map(|_| ())
    }

    /// Number of batched commands that the firmware refused, by reason.
    pub fn refused(&self) -> std::collections::HashMap<Reason, u64> {
        self.shared.completions.failures()
    }
}

/// The items of an answer's payload.
fn items<T: FromBytes>(payload: &[u8]) -> impl Iterator<Item = T> {
    payload.chunks_exact(size_of::<T>()).filter_map(|bytes| T::read_from_bytes(bytes).ok())
}
