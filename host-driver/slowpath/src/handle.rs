//! Starting the slow path, and asking it things from other threads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use culvert_flow::tables::Vport;
use culvert_flow::{FlowRecord, Port};
use culvert_offload::{EventFd, NicCounters, OffloadNic, PortCounters, Scan};
use culvert_packet::Reason;
use culvert_policy::Snapshot;

use crate::connection_store::ConnectionFile;
use crate::engine::{Address, Tally};
use crate::error::{Error, Result};
use crate::next_hop::{HopId, State};
use crate::policy::{HostPolicy, Limits, Traced};
use crate::thread::Worker;

/// How long an answer may take: a policy with many tunnels is written in less.
const LIMIT: Duration = Duration::from_secs(15);
/// Commands that may wait at a time.
const COMMANDS: usize = 64;

/// What the thread is told.
pub(crate) enum Command {
    Apply(Arc<Snapshot>, Sender<Result<()>>),
    Status(Sender<Status>),
    Trace(Port, Vec<u8>, Sender<Result<Traced>>),
    Stop(Sender<()>),
}

/// What the slow path is started with.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Bounds of the connection table.
    pub limits: Limits,
    /// Interfaces, by number of the uplink, whose addresses the provider addresses are; none: we have addresses of our
    /// own.
    pub kernel: Option<Vec<String>>,
    /// File that connections are kept in for the next daemon; none: they end with this one, or the NIC's records tell of
    /// them.
    pub connections: Option<PathBuf>,
}

/// How the slow path is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Next hops with their states and how many packets wait for each.
    pub next_hops: Vec<(HopId, State, usize)>,
    /// Our provider addresses with the uplink that serves each now.
    pub addresses: Vec<Address>,
    /// Links of the MAC ports.
    pub links: [bool; 2],
    /// Connections.
    pub connections: usize,
    /// Counters.
    pub tally: Tally,
    /// Packets at the host whose NIC was restarted meanwhile.
    pub lost: u64,
    /// Whether the NIC has not yet got its tables back.
    pub recovering: bool,
}

/// The slow path of one NIC.
pub struct SlowPath {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl SlowPath {
    /// Starts the thread that owns the NIC's exceptions. Packets flow after the first policy was applied.
    ///
    /// # Errors
    /// The NIC's queues or the file of connections are in use, or there are no descriptors or threads to be had.
    pub fn start(nic: Arc<dyn OffloadNic>, settings: Settings) -> Result<Self> {
        let (sender, receiver) = sync_channel(COMMANDS);
        let wake = EventFd::new()?;
        let mut policy = HostPolicy::new(&settings.limits);
        if !nic.capabilities().is_volatile {
            policy = policy.without_records();
        }
        if let Some(path) = &settings.connections {
            match ConnectionFile::open(path, settings.limits.connections) {
                Ok(file) => policy = policy.kept_in(file),
                Err(error @ Error::ConnectionsInUse { .. }) => return Err(error),
                Err(error) => tracing::warn!(%error, "connections are not kept for the next start"),
            }
        }
        let worker = Worker::new(nic.clone(), policy, receiver, wake.clone(), settings)?;
        let thread = std::thread::Builder::new()
            .name("slow-path".into())
            .spawn(move || worker.run())
            .map_err(|source| Error::System { what: "starting the slow path's thread".into(), source })?;
        Ok(SlowPath { handle: Handle { nic, commands: sender, wake }, thread: Some(thread) })
    }

    /// A handle, to be given away and cloned.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for SlowPath {
    fn drop(&mut self) {
        // One that has ended already needs no telling; with many commands before it, this one waits its turn.
        let _ = self.handle.commands.send(Command::Stop(channel().0));
        let _ = self.handle.wake.signal();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks the slow path and its NIC things. Every call may take milliseconds, and ends by itself.
#[derive(Clone)]
pub struct Handle {
    nic: Arc<dyn OffloadNic>,
    commands: SyncSender<Command>,
    wake: EventFd,
}

impl Handle {
    fn send(&self, command: Command) -> Result<()> {
        self.commands.try_send(command).map_err(|e| match e {
            std::sync::mpsc::TrySendError::Full(_) => Error::Timeout { limit: Duration::ZERO },
            std::sync::mpsc::TrySendError::Disconnected(_) => Error::Ended,
        })?;
        self.wake.signal().map_err(|source| Error::System { what: "waking the slow path".into(), source })?;
        Ok(())
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T> {
        let (sender, answer): (Sender<T>, Receiver<T>) = channel();
        self.send(command(sender))?;
        answer.recv_timeout(LIMIT).map_err(|e| match e {
            RecvTimeoutError::Timeout => Error::Timeout { limit: LIMIT },
            RecvTimeoutError::Disconnected => Error::Ended,
        })
    }

    /// Carries a policy out in place of the one before. When it returns, no packet is served by a flow of the old one
    /// that the new one changes.
    ///
    /// # Errors
    /// The NIC refuses or does not answer. The same call may be tried again.
    pub fn apply(&self, snapshot: Arc<Snapshot>) -> Result<()> {
        self.ask(|done| Command::Apply(snapshot, done))?
    }

    /// How the slow path is.
    ///
    /// # Errors
    /// It has ended or does not answer.
    pub fn status(&self) -> Result<Status> {
        self.ask(Command::Status)
    }

    /// What would become of a frame that came in at `port`. Nothing is changed by it.
    ///
    /// # Errors
    /// The frame makes no sense, or the slow path does not answer.
    pub fn trace(&self, port: Port, frame: Vec<u8>) -> Result<Traced> {
        self.ask(|done| Command::Trace(port, frame, done))?
    }

    /// Ends the slow path. The NIC goes on forwarding.
    ///
    /// # Errors
    /// It has ended already or does not answer.
    pub fn stop(&self) -> Result<()> {
        self.ask(Command::Stop)
    }

    /// The vports that the NIC has, by number, with their counters.
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

    /// The NIC's flow records that `wanted` chooses, at most `limit`.
    ///
    /// # Errors
    /// The NIC does not answer.
    pub fn flows(&self, limit: usize, wanted: impl FnMut(&FlowRecord) -> bool) -> Result<Vec<FlowRecord>> {
        let mut wanted = wanted;
        let all = self.nic.scan(Scan::All, self.nic.capabilities().flow_records as usize)?;
        Ok(all.into_iter().filter(|r| wanted(r)).take(limit).collect())
    }

    /// Counters of the NIC.
    ///
    /// # Errors
    /// The NIC is lost.
    pub fn counters(&self) -> Result<NicCounters> {
        Ok(self.nic.counters()?)
    }

    /// Drops of board and firmware by reason. What the slow path drops is counted by the firmware.
    ///
    /// # Errors
    /// The NIC does not answer.
    pub fn drops(&self) -> Result<Vec<(Reason, u64)>> {
        Ok(self.nic.drops()?)
    }
}
