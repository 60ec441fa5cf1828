//! [`Handle`]: sends commands to the slow path from other threads, and reads its NIC.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use culvert_flow::tables::Vport;
use culvert_flow::{FlowKey, FlowRecord, Port};
use culvert_offload::{EventFd, NicCounters, OffloadNic, PortCounters, Reading, Scan};
use culvert_packet::{Reason, VportId};
use culvert_policy::Snapshot;

use crate::command::{Command, Status};
use crate::error::{Error, Result};
use crate::published::{Published, Views};
use crate::rule_hits::RuleHit;
use crate::trace::PacketTrace;

/// Time limit of a reply: even a policy with many tunnels is written in less.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);
/// Records that are deleted between two bursts.
const FLUSH: usize = 256;

/// A handle to the slow path and its NIC. Calls take up to some milliseconds, and all have a time limit.
#[derive(Clone)]
pub struct Handle {
    nic: Arc<dyn OffloadNic>,
    commands: SyncSender<Command>,
    wake: EventFd,
    /// What is wrong, as the thread last noted it.
    problems: Arc<Mutex<Vec<String>>>,
    views: Views,
}

impl Handle {
    pub(crate) fn new(
        nic: Arc<dyn OffloadNic>,
        commands: SyncSender<Command>,
        wake: EventFd,
        problems: Arc<Mutex<Vec<String>>>,
        views: Views,
    ) -> Self {
        Handle { nic, commands, wake, problems, views }
    }

    /// What is wrong with the slow path's own state, one sentence each. Does not wait for the thread.
    pub fn problems(&self) -> Vec<String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the slow path has published of itself. Does not wait for the thread.
    pub fn published(&self) -> Published {
        self.views.published.lock().clone()
    }

    /// Packets that the slow path itself dropped, by the vport that sent them and the reason. The NIC counts them, too. Does
    /// not wait for the thread.
    pub fn vport_drops(&self) -> HashMap<(VportId, Reason), u64> {
        self.views.drops.lock().clone()
    }

    /// How often each rule of the policy's lists decided. Does not wait for the thread.
    pub fn rule_hits(&self) -> Vec<RuleHit> {
        self.views.hits.all()
    }

    /// The state and the counters of the whole NIC, read at once.
    ///
    /// # Errors
    /// The NIC does not answer.
    pub fn reading(&self) -> Result<Reading> {
        Ok(self.nic.reading()?)
    }

    /// How many flow records the NIC has.
    ///
    /// # Errors
    /// The NIC does not answer.
    pub fn flow_count(&self) -> Result<u64> {
        Ok(self.nic.flow_count()?)
    }

    /// How many flow records the NIC can hold.
    pub fn flow_capacity(&self) -> u64 {
        self.nic.capabilities().flow_records.into()
    }

    fn send(&self, command: Command) -> Result<()> {
        self.commands.try_send(command).map_err(|e| match e {
            TrySendError::Full(_) => Error::Timeout { limit: Duration::ZERO },
            TrySendError::Disconnected(_) => Error::Ended,
        })?;
        self.wake.signal().map_err(|source| Error::System { what: "waking the slow path".into(), source })?;
        Ok(())
    }

    fn request<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T> {
        self.request_within(REPLY_TIMEOUT, command)
    }

    fn request_within<T>(&self, limit: Duration, command: impl FnOnce(Sender<T>) -> Command) -> Result<T> {
        let (sender, reply): (Sender<T>, Receiver<T>) = channel();
        self.send(command(sender))?;
        reply.recv_timeout(limit).map_err(|e| match e {
            RecvTimeoutError::Timeout => Error::Timeout { limit },
            RecvTimeoutError::Disconnected => Error::Ended,
        })
    }

    /// Stops the slow path without waiting for a reply. A full queue of commands delays it.
    pub(crate) fn stop_later(&self) {
        // Both fail only if the slow path has stopped already.
        let _ = self.commands.send(Command::Stop(channel().0));
        let _ = self.wake.signal();
    }

    /// Applies a policy in place of the one before. When it returns, the NIC forwards no packet by a flow of the old
    /// policy that the new one changes.
    ///
    /// # Errors
    /// The NIC refuses or does not answer. The same call may be repeated.
    pub fn apply(&self, snapshot: Arc<Snapshot>) -> Result<()> {
        self.request(|reply| Command::Apply(snapshot, reply))?
    }

    /// The slow path's status.
    ///
    /// # Errors
    /// It has stopped or does not answer.
    pub fn status(&self) -> Result<Status> {
        self.request(Command::Status)
    }

    /// The slow path's status, if it answers within `limit`: it may be busy with a large policy or a NIC that hangs.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn status_within(&self, limit: Duration) -> Result<Status> {
        self.request_within(limit, Command::Status)
    }

    /// Traces a frame as if `port` had received it, without sending it or changing anything.
    ///
    /// # Errors
    /// The port is no vport or uplink, or the slow path does not answer.
    pub fn trace(&self, port: Port, frame: Vec<u8>) -> Result<PacketTrace> {
        self.request(|reply| Command::Trace(port, frame, reply))?
    }

    /// Stops the slow path. The NIC keeps forwarding.
    ///
    /// # Errors
    /// It has stopped already or does not answer.
    pub fn stop(&self) -> Result<()> {
        self.request(Command::Stop)
    }

    /// The NIC's vports with their counters, by number.
    ///
    /// # Errors
    /// The NIC does not answer.
    pub fn vports(&self) -> Result<Vec<(u16, Vport)>> {
        let all = self.nic.vports()?.into_iter().enumerate();
        Ok(all.filter(|(_, v)| v.flags & Vport::PRESENT != 0).map(|(n, v)| (n as u16, v)).collect())
    }

    /// Links of the MAC ports.
    ///
    /// # Errors
    /// The NIC is lost.
    pub fn links(&self) -> Result<[bool; 2]> {
        Ok(self.nic.links()?)
    }

    /// Counters of a VF's port on the board.
    ///
    /// # Errors
    /// The NIC is lost.
    pub fn vf_counters(&self, vf: u16) -> Result<PortCounters> {
        Ok(self.nic.vf_counters(vf)?)
    }

    /// The NIC's flow records that match `filter`, at most `limit`.
    ///
    /// # Errors
    /// The NIC does not answer.
    pub fn flows(
        &self,
        limit: usize,
        mut filter: impl FnMut(&FlowRecord) -> bool,
    ) -> Result<Vec<FlowRecord>> {
        let mut found = Vec::new();
        if limit > 0 {
            self.visit_flows(|record, _| {
                found.extend(filter(record).then_some(*record));
                if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        Ok(found)
    }

    /// Shows each of the NIC's flow records, with the milliseconds since a packet has used it, until `each` breaks off. The
    /// NIC reads its table in parts and forwards packets in between.
    ///
    /// # Errors
    /// The NIC does not answer.
    pub fn visit_flows(&self, mut each: impl FnMut(&FlowRecord, u32) -> ControlFlow<()>) -> Result<()> {
        Ok(self.nic.visit(Scan::All, &mut each)?)
    }

    /// Deletes flow records, given by key and connection. The next packet of each flow makes its record again; the
    /// connections stay.
    ///
    /// # Errors
    /// The NIC or the slow path does not answer.
    pub fn flush_flows(&self, records: &[(FlowKey, u64)]) -> Result<()> {
        for part in records.chunks(FLUSH) {
            self.request(|reply| Command::Flush(part.to_vec(), reply))?;
        }
        Ok(self.nic.fence()?)
    }

    /// Counters of the NIC.
    ///
    /// # Errors
    /// The NIC is lost.
    pub fn counters(&self) -> Result<NicCounters> {
        Ok(self.nic.counters()?)
    }

    /// Drops of board and firmware, by reason. The firmware also counts what the slow path drops.
    ///
    /// # Errors
    /// The NIC does not answer.
    pub fn drops(&self) -> Result<Vec<(Reason, u64)>> {
        Ok(self.nic.drops()?)
    }
}
