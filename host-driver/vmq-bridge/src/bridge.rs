//! `Bridge`: the thread that moves frames between VMQs and VMs' ports, for all vports.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use culvert_offload::OffloadNic;
use culvert_packet::VportId;
use culvert_ports::NicQueue;
use culvert_switch::poll_loop::{PollLoop, TICK, poll_fd};
use culvert_switch::{Opener, Pool, PortControlTx, SwitchPort};
use rustix::event::PollFd;

use crate::vmq_port::{VmqPort, VmqReading};

/// Retry interval of a backlogged queue: no interrupt reports that the NIC has room.
const BACKLOG_RETRY: Duration = Duration::from_micros(50);
/// The same while the NIC's firmware does not run.
const DEAD_RETRY: Duration = Duration::from_millis(5);

/// A command of another thread to the bridge.
pub(super) enum Command {
    /// Attach a port for a vport's VM.
    Attach {
        /// The vport.
        vport: VportId,
        /// Number of its VMQ.
        vmq: u16,
        /// Opens the VM's port.
        open: Opener,
    },
    /// Detach a vport.
    Detach(VportId, Sender<()>),
    /// Report on all vports.
    Read(Sender<Vec<VmqReading>>),
}

/// The thread's state.
pub(super) struct Bridge {
    nic: Arc<dyn OffloadNic>,
    pool: Pool,
    ports: Vec<VmqPort>,
    control: PortControlTx,
    /// The port that has the first turn of the next round: whoever comes first finds most room in the NIC's queue.
    first: usize,
    base: Instant,
    ticked: u32,
}

impl Bridge {
    pub(super) fn new(nic: Arc<dyn OffloadNic>, pool: Pool, control: PortControlTx) -> Self {
        Bridge { nic, pool, ports: Vec::new(), control, first: 0, base: Instant::now(), ticked: 0 }
    }

    fn now(&self) -> u32 {
        self.base.elapsed().as_millis() as u32
    }

    /// Drops and counts the frames in the queues when the thread ends. The VMs' ports stay for the next bridge.
    pub(super) fn finish(&mut self) {
        self.ports.iter_mut().for_each(|port| port.close(&mut self.pool));
    }

    fn remove(&mut self, vport: VportId) {
        while let Some(n) = self.ports.iter().position(|port| port.vport == vport) {
            self.ports.swap_remove(n).destroy(&mut self.pool);
        }
    }

    fn tick(&mut self, now: u32) {
        if self.control.take_changed() || now.wrapping_sub(self.ticked) >= TICK.as_millis() as u32 {
            self.ticked = now;
            self.ports.iter_mut().for_each(|port| port.tick(now));
        }
    }
}

impl PollLoop for Bridge {
    type Command = Command;

    fn execute(&mut self, command: Command) {
        // The thread that waits for an answer may have timed out.
        match command {
            Command::Attach { vport, vmq, open } => {
                self.remove(vport);
                let now = self.now();
                self.ports.push(VmqPort::new(&self.nic, vport, vmq, open, now, &self.control));
            }
            Command::Detach(vport, done) => {
                self.remove(vport);
                let _ = done.send(());
            }
            Command::Read(answer) => {
                let _ = answer.send(self.ports.iter_mut().map(VmqPort::read).collect());
            }
        }
    }

    fn round(&mut self) -> bool {
        let now = self.now();
        self.tick(now);
        let mut any = false;
        self.first = (self.first + 1).checked_rem(self.ports.len()).unwrap_or(0);
        let (later, sooner) = self.ports.split_at_mut(self.first);
        for port in sooner.iter_mut().chain(later) {
            any |= port.round(&mut self.pool, now);
        }
        any
    }

    fn arm(&mut self) -> Option<Duration> {
        let mut limit = TICK;
        let mut quiet = !self.control.is_changed();
        for port in &mut self.ports {
            // Without the NIC's queue, the VM's frames wait too.
            let (Some(queue), vm_port) = port.ends() else { continue };
            quiet &= queue.arm();
            if queue.is_backlogged() {
                limit = if self.nic.is_alive() { BACKLOG_RETRY } else { DEAD_RETRY };
            } else if let Some(vm_port) = vm_port {
                quiet &= vm_port.arm();
            }
        }
        quiet.then_some(limit)
    }

    fn wake_fds<'a>(&'a mut self, fds: &mut Vec<PollFd<'a>>) {
        for port in &mut self.ports {
            let (Some(queue), vm_port) = port.ends() else { continue };
            let queue: &NicQueue = queue;
            fds.push(poll_fd(queue.fd()));
            if let Some(vm_port) = vm_port.filter(|_| !queue.is_backlogged()) {
                fds.push(poll_fd(vm_port.fd()));
            }
        }
    }
}
