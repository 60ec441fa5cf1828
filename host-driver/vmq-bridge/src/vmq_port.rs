//! `VmqPort`: one vport's VMQ and VM port, and the frames between them.

use std::io;
use std::sync::Arc;

use culvert_flow::Port;
use culvert_offload::OffloadNic;
use culvert_packet::{Reason, VportId};
use culvert_ports::NicQueue;
use culvert_switch::{
    AttachedPort, BURST, Drops, Opener, Packet, Pool, PortControlTx, PortState, Sent, SwitchPort,
};

/// Milliseconds between two attempts to open a VMQ: a NIC that returns is used again within two seconds.
const RETRY_MS: u32 = 250;
/// Drops that are reported at a time: the firmware accepts no more.
const MAX_DROPS: u64 = 1 << 16;

/// Both ports of a vport.
pub(super) struct VmqPort {
    pub(super) vport: VportId,
    vmq: u16,
    nic: Arc<dyn OffloadNic>,
    queue: Option<NicQueue>,
    next_try: u32,
    /// Why the VMQ is not open, since the attempts to open it fail.
    problem: Option<Arc<str>>,
    pub(super) vm_port: AttachedPort,
    /// Empty between two rounds.
    burst: Vec<Packet>,
    /// Drops that have not been reported to the NIC yet, one entry for each reason.
    unreported: Drops,
    /// Drops of the current round; empty between two rounds.
    drops: Drops,
    /// All drops so far, one entry for each reason.
    dropped: Drops,
}

/// What the bridge knows of a vport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmqReading {
    /// The vport.
    pub vport: VportId,
    /// Whether the link of the VM's port is up.
    pub link: bool,
    /// The state of the vport's two ports.
    pub state: PortState,
    /// Frames between NIC and VM that the bridge dropped, by reason. The NIC counts them, too.
    pub drops: Drops,
}

/// Adds to the entry of a reason.
fn add(drops: &mut Drops, reason: Reason, count: u64) {
    match drops.iter_mut().find(|(known, _)| *known == reason) {
        Some((_, sum)) => *sum += count,
        None => drops.push((reason, count)),
    }
}

impl VmqPort {
    pub(super) fn new(
        nic: &Arc<dyn OffloadNic>,
        vport: VportId,
        vmq: u16,
        open: Opener,
        now: u32,
        control: &PortControlTx,
    ) -> Self {
        let mut port = VmqPort {
            vport,
            vmq,
            nic: Arc::clone(nic),
            queue: None,
            next_try: now,
            problem: None,
            vm_port: AttachedPort::new(Port::Vport(vport), open, now, control.clone()),
            burst: Vec::with_capacity(BURST),
            unreported: Vec::new(),
            drops: Vec::new(),
            dropped: Vec::new(),
        };
        port.tick(now);
        port
    }

    /// Polls the link, has what is broken reopened, and counts drops on reception.
    pub(super) fn tick(&mut self, now: u32) {
        self.vm_port.reopen_if_due(now);
        // Milliseconds wrap.
        if self.queue.is_none() && now.wrapping_sub(self.next_try) < u32::MAX / 2 {
            self.next_try = now.wrapping_add(RETRY_MS);
            match NicQueue::open(&self.nic, self.vport, self.vmq) {
                Ok(queue) => {
                    self.queue = Some(queue);
                    self.problem = None;
                }
                Err(error) => {
                    let text = error.to_string();
                    // Said once: it is tried again several times a second.
                    if self.problem.is_none() {
                        tracing::warn!(vmq = self.vmq, error = text, "cannot open the VMQ; will retry");
                    }
                    self.problem = Some(format!("VMQ {}: {text}", self.vmq).into());
                }
            }
        }
        for (reason, dropped) in self.vm_port.take_rx_drops() {
            self.count(reason, dropped);
        }
        let truncated = self.queue.as_mut().map_or(0, SwitchPort::take_rx_drops);
        self.count(Reason::TooLong, truncated);
        self.report();
    }

    /// The state of both ports: without its VMQ, a vport passes nothing.
    fn state(&self) -> PortState {
        match &self.problem {
            Some(why) if self.queue.is_none() => PortState::Failed(Arc::clone(why)),
            _ => self.vm_port.state(),
        }
    }

    /// Moves one burst in each direction. `true`: at least one frame moved.
    pub(super) fn round(&mut self, pool: &mut Pool, now: u32) -> bool {
        let Some(queue) = &mut self.queue else {
            // The port still serves its VM's control messages.
            self.vm_port.receive(pool, &mut self.burst, 0, now);
            return false;
        };
        let done = to_vm(queue, &mut self.vm_port, pool, now, &mut self.drops).and_then(|to_vm| {
            let (vm_port, burst) = (&mut self.vm_port, &mut self.burst);
            let from_vm = from_vm(queue, vm_port, pool, burst, now, &mut self.drops)?;
            Ok(to_vm || from_vm)
        });
        while let Some((reason, count)) = self.drops.pop() {
            self.count(reason, count);
        }
        self.report();
        done.unwrap_or_else(|error| {
            tracing::warn!(vmq = self.vmq, %error, "VMQ broken; will reopen it");
            self.close_queue(pool);
            self.next_try = now.wrapping_add(RETRY_MS);
            false
        })
    }

    /// The VMQ and the VM's port, if open.
    pub(super) fn ends(&mut self) -> (Option<&mut NicQueue>, Option<&mut dyn SwitchPort>) {
        (self.queue.as_mut(), self.vm_port.port())
    }

    fn count(&mut self, reason: Reason, count: u64) {
        if count == 0 {
            return;
        }
        add(&mut self.unreported, reason, count);
        add(&mut self.dropped, reason, count);
    }

    /// The link of the VM's port, and the drops.
    pub(super) fn read(&mut self) -> VmqReading {
        self.vm_port.poll_link();
        let (link, state) = (self.vm_port.link(), self.state());
        VmqReading { vport: self.vport, link, state, drops: self.dropped.clone() }
    }

    /// Reports drops to the NIC, which counts them for the vport. They wait while the firmware does not run.
    fn report(&mut self) {
        let Some(queue) = self.queue.as_ref().filter(|_| !self.unreported.is_empty()) else { return };
        for (reason, count) in &mut self.unreported {
            let part = (*count).min(MAX_DROPS);
            if queue.count(*reason, part as u32) {
                *count -= part;
            }
        }
        self.unreported.retain(|(_, count)| *count > 0);
        // A lost NIC is reported by its events.
        let _ = self.nic.doorbell();
    }

    fn close_queue(&mut self, pool: &mut Pool) {
        let dropped = self.queue.as_mut().map_or(0, |queue| queue.drop_backlog(pool));
        // Closes the queue before it is reopened: the board has one queue of this number.
        self.queue = None;
        self.count(Reason::QueueStopped, dropped);
    }

    /// Closes the VMQ, and has the VM's port removed for good.
    pub(super) fn destroy(mut self, pool: &mut Pool) {
        self.close(pool);
        self.vm_port.destroy();
    }

    /// Drops and counts the frames between the two ports.
    pub(super) fn close(&mut self, pool: &mut Pool) {
        let mut dropped = 0;
        if let Some(queue) = &mut self.queue {
            while queue.receive(pool, &mut self.burst, BURST).is_ok() && !self.burst.is_empty() {
                dropped += self.burst.len() as u64;
                self.burst.drain(..).for_each(|packet| pool.give(packet));
            }
            dropped += queue.drop_backlog(pool);
        }
        self.burst.drain(..).for_each(|packet| pool.give(packet));
        self.count(Reason::QueueStopped, dropped);
        self.report();
    }
}

/// Moves a burst from the NIC to the VM. Frames that the VM's port does not accept are dropped, so that the NIC does not
/// wait for the VM.
fn to_vm(
    queue: &mut NicQueue,
    vm_port: &mut AttachedPort,
    pool: &mut Pool,
    now: u32,
    drops: &mut Drops,
) -> io::Result<bool> {
    let result = queue.receive(pool, &mut vm_port.out, BURST);
    let any = !vm_port.out.is_empty();
    if any {
        vm_port.flush(pool, now, drops);
    }
    result.map(|()| any)
}

/// Moves a burst from the VM to the NIC. Reads nothing from the VM while frames are backlogged, and otherwise no more than
/// the backlog can hold: it drops only frames that the NIC never accepts.
fn from_vm(
    queue: &mut NicQueue,
    vm_port: &mut AttachedPort,
    pool: &mut Pool,
    burst: &mut Vec<Packet>,
    now: u32,
    drops: &mut Drops,
) -> io::Result<bool> {
    let backlog = queue.send_backlog(pool)?;
    let large = pool.free() - pool.common();
    let max = if queue.is_backlogged() { 0 } else { BURST.min(large).min(pool.common()) };
    vm_port.receive(pool, burst, max, now);
    let any = !burst.is_empty();
    vm_port.counters.in_packets += burst.len() as u64;
    let sent = if any { queue.send(pool, burst)? } else { Sent::default() };
    drops.push((Reason::TooLong, backlog.refused + sent.refused));
    drops.push((Reason::RingFull, sent.full));
    Ok(any || backlog.packets > 0)
}
