//! The VMQ bridge: moves frames between VMQs and the ports of VMs that have no VF, on a host with a Culvert NIC.
//!
//! The NIC does all work of the overlay; the bridge looks up nothing. Each vport has two ports, its VMQ and the VM's port,
//! and one thread serves all vports. It is a thread of its own, so that a VM's bulk traffic delays no decision of the slow
//! path. The NIC keeps packet order: all frames of a VM enter it through one ring, and their upcalls carry tickets as those
//! of a VF do.

#![forbid(unsafe_code)]

mod bridge;
mod vmq_port;

use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use culvert_offload::{Error, OffloadNic, Result};
use culvert_packet::VportId;
use culvert_switch::{Notifier, Opener, Pool, PortControl, poll_loop};

use crate::bridge::{Bridge, Command};

pub use crate::vmq_port::VmqReading;

/// The bridge's name in error messages.
const NAME: &str = "the VMQ bridge";
/// Time limit for an answer: a round takes microseconds, opening a VMQ milliseconds.
const LIMIT: Duration = Duration::from_secs(5);
/// Commands that can be queued.
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
    /// Opens and closes the VMs' ports. Ends after the thread.
    _port_control: PortControl,
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
        let port_control = PortControl::start()?;
        let mut bridge = Bridge::new(nic, pool, port_control.tx(&notifier));
        let wake = Arc::clone(&notifier);
        let thread = culvert_threads::spawn("vmq-bridge", move || {
            poll_loop::run(&mut bridge, &queue, &wake);
            bridge.finish();
            // Hands the VMs' ports over to be closed.
            drop(bridge);
        })
        .map_err(system("starting the thread of the VMQ bridge"))?;
        Ok(VmqBridge {
            commands: Some(commands),
            notifier,
            thread: Some(thread),
            _port_control: port_control,
        })
    }

    /// Attaches a port for the VM of a vport whose frames the NIC steers into VMQ `vmq`. The port is opened in the
    /// background, again and again until that succeeds, and reopened when it breaks.
    ///
    /// # Errors
    /// The bridge has stopped.
    pub fn attach(&self, vport: VportId, vmq: u16, open: Opener) -> Result<()> {
        self.tell(Command::Attach { vport, vmq, open })
    }

    /// Detaches a vport. When this returns, its VMQ is closed and nothing passes its port any more, which is closed in the
    /// background.
    ///
    /// # Errors
    /// The bridge has stopped.
    pub fn detach(&self, vport: VportId) -> Result<()> {
        self.ask(|done| Command::Detach(vport, done))
    }

    /// The attached vports, each with its VM's link and the frames that the bridge dropped.
    ///
    /// # Errors
    /// The bridge has stopped.
    pub fn read(&self) -> Result<Vec<VmqReading>> {
        self.ask(Command::Read)
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
        // If this fails, the thread still polls its commands ten times a second.
        let _ = self.notifier.notify();
        if let Some(thread) = self.thread.take() {
            // A thread that panics ends the process.
            let _ = thread.join();
        }
    }
}
