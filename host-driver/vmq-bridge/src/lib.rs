//! Ports for VMs that no VF serves, on a host with a Culvert NIC: moves frames between a vport's VMQ and its VM's port.
//!
//! The NIC does all of the overlay's work; nothing is looked up here. Each vport has two ports, a VMQ and the VM's, and one
//! thread serves all vports. It is not the slow path's thread, so that bulk traffic of a VM delays no decision. Packet order
//! stays the NIC's business: all frames of a VM enter the NIC by one ring, and upcalls for them carry tickets as for a VF.

#![forbid(unsafe_code)]

mod bridge;
mod vmq_port;

use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use culvert_offload::{Error, OffloadNic, Result};
use culvert_packet::VportId;
use culvert_switch::{Notifier, Opener, Pool, poll_loop};

use crate::bridge::{Bridge, Command};

/// The bridge's name in messages.
const NAME: &str = "the VMQ bridge";
/// How long an answer may take: rounds take microseconds, opening a port milliseconds.
const LIMIT: Duration = Duration::from_secs(5);
/// Commands that may wait.
const COMMANDS: usize = 64;
/// Buffers of common size: for each of the NIC's VMQs, two bursts and a backlog.
const BUFFERS: usize = 2048;
/// Buffers for frames that are segmented on the way to the NIC.
const LARGE_BUFFERS: usize = 128;

/// The bridge. Its thread ends when it is dropped.
pub struct VmqBridge {
    commands: Option<SyncSender<Command>>,
    notifier: Arc<Notifier>,
    thread: Option<JoinHandle<()>>,
}

impl VmqBridge {
    /// Starts a bridge without any ports.
    ///
    /// # Errors
    /// Out of memory, threads or file descriptors.
    pub fn start(nic: Arc<dyn OffloadNic>) -> Result<Self> {
        let system = |what| move |source| Error::System { what, source };
        let pool = Pool::new(BUFFERS, LARGE_BUFFERS).map_err(system("packet buffers"))?;
        let (commands, queue) = sync_channel(COMMANDS);
        let notifier = Arc::new(Notifier::new()?);
        let mut bridge = Bridge::new(nic, pool);
        let wake = Arc::clone(&notifier);
        let thread = std::thread::Builder::new()
            .name("vmq-bridge".into())
            .spawn(move || {
                poll_loop::run(&mut bridge, &queue, &wake);
                bridge.finish();
            })
            .map_err(system("starting the thread of the VMQ bridge"))?;
        Ok(VmqBridge { commands: Some(commands), notifier, thread: Some(thread) })
    }

    /// Attaches a port for the VM of a vport whose frames the NIC steers into VMQ `vmq`. The bridge's thread opens it, again
    /// and again until it opens, and reopens it when it breaks.
    ///
    /// # Errors
    /// The bridge has stopped.
    pub fn attach(&self, vport: VportId, vmq: u16, open: Opener) -> Result<()> {
        self.tell(Command::Attach { vport, vmq, open })
    }

    /// Detaches a vport. When this returns, its port and its VMQ are closed.
    ///
    /// # Errors
    /// The bridge has stopped.
    pub fn detach(&self, vport: VportId) -> Result<()> {
        self.ask(|done| Command::Detach(vport, done))
    }

    /// The attached vports, and whether the link of the VM's port is up.
    ///
    /// # Errors
    /// The bridge has stopped.
    pub fn links(&self) -> Result<Vec<(VportId, bool)>> {
        self.ask(Command::Links)
    }

    fn tell(&self, command: Command) -> Result<()> {
        match self.commands.as_ref().map(|commands| commands.send(command)) {
            Some(Ok(())) => self.notifier.notify(),
            _ => Err(Error::NotRunning { device: NAME.into() }),
        }
    }

    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T> {
        let (sender, answer) = channel();
        self.tell(command(sender))?;
        answer.recv_timeout(LIMIT).map_err(|_| Error::Timeout {
            device: NAME.into(),
            what: "a command".into(),
            limit: LIMIT,
        })
    }
}

impl Drop for VmqBridge {
    fn drop(&mut self) {
        self.commands = None;
        // The thread looks ten times a second even if it cannot be woken.
        let _ = self.notifier.notify();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}
