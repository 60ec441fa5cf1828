//! [`Handle`]: sends commands to the slow path from other threads, and reads its NIC.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use culvert_flow::tables::Vport;
use culvert_flow::{FlowRecord, Port};
use culvert_offload::{EventFd, NicCounters, OffloadNic, PortCounters, Scan};
use culvert_packet::Reason;
use culvert_policy::Snapshot;

use crate::command::{Command, Status};
use crate::error::{Error, Result};
use crate::trace::PacketTrace;

/// Time limit of a reply: even a policy with many tunnels is written in less.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// A handle to the slow path and its NIC. Calls take up to some milliseconds, and all have a time limit.
#[derive(Clone)]
pub struct Handle {
    nic: Arc<dyn OffloadNic>,
    commands: SyncSender<Command>,
    wake: EventFd,
    /// What is wrong, as the thread last noted it.
    problems: Arc<Mutex<Vec<String>>>,
}

impl Handle {
    pub(crate) fn new(
        nic: Arc<dyn OffloadNic>,
        commands: SyncSender<Command>,
        wake: EventFd,
        problems: Arc<Mutex<Vec<String>>>,
    ) -> Self {
        Handle { nic, commands, wake, problems }
    }

    /// What is wrong with the slow path's own state, one sentence each. Does not wait for the thread.
    pub fn problems(&self) -> Vec<String> {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        let all = self.nic.scan(Scan::All, self.nic.capabilities().flow_records as usize)?;
        Ok(all.into_iter().filter(|record| filter(record)).take(limit).collect())
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
