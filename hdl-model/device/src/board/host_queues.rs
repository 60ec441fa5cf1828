//! The PF queues in host memory: commands in; upcalls, captures and completions out.

use std::sync::Arc;

use culvert_abi::pci::{VECTOR_EVENT, VECTOR_QUEUE0};
use culvert_abi::pf::Entry;
use culvert_abi::regs::{self, QUEUE_COMMAND, QUEUE_COUNT, QUEUE_UPCALL};
use culvert_abi::soc::BoardPort;
use culvert_packet::Reason;

use super::pf_ring::{FromHost, Owner, Ring, ToHost};
use super::registers::{Queue, State};
use crate::dma::Fault;
use crate::function::PfPort;

/// The queues as the driver last set them up.
pub(super) struct HostQueues {
    registers: Arc<State>,
    port: Arc<PfPort>,
    queues: [Queue; QUEUE_COUNT],
    commands: Option<FromHost>,
    to_host: [Option<ToHost>; QUEUE_COUNT],
    /// The driver has said START since it set up its upcall queue.
    ready: bool,
}

impl HostQueues {
    /// All queues stopped.
    pub(super) fn new(registers: Arc<State>, port: Arc<PfPort>) -> Self {
        HostQueues {
            registers,
            port,
            queues: [Queue::default(); QUEUE_COUNT],
            commands: None,
            to_host: std::array::from_fn(|_| None),
            ready: false,
        }
    }

    /// The driver has said START: it knows what to do with upcalls.
    pub(super) fn start_upcalls(&mut self) {
        self.ready = true;
    }

    /// Whether the driver takes upcalls of VMs' packets. A new driver of a running NIC first counts what its predecessor has lost and gets
    /// its policy; an upcall before that would be counted as lost and then be decided, or be decided without a policy.
    pub(super) fn takes_upcalls(&self) -> bool {
        self.ready
    }

    /// Brings the queues into the state that the driver wants. Returns whether the command queue has changed.
    pub(super) fn set_up(&mut self, queues: &[Queue; QUEUE_COUNT]) -> bool {
        let mut commands = false;
        for (n, queue) in queues.iter().enumerate() {
            commands |= self.set_up_queue(n, queue) && n == QUEUE_COMMAND;
        }
        commands
    }

    /// Returns whether the queue was stopped or has another ring now.
    fn set_up_queue(&mut self, n: usize, queue: &Queue) -> bool {
        let former = std::mem::replace(&mut self.queues[n], *queue);
        if (former.state, former.starts) == (queue.state, queue.starts) {
            return false;
        }
        if n == QUEUE_UPCALL {
            self.ready = false;
        }
        let running = queue.state == regs::QUEUE_RUNNING;
        let ring = if running { Ring::new(queue.base, queue.size_log2) } else { None };
        if running && ring.is_none() {
            self.stop(n, Fault::Misaligned);
            return false;
        }
        let checked = ring.as_ref().map_or(Ok(()), |ring| ring.check(&self.port.memory().view()));
        if let Err(fault) = checked {
            self.stop(n, fault);
            return false;
        }
        if n == QUEUE_COMMAND {
            self.commands = ring.map(FromHost::new);
        } else {
            self.to_host[n] = ring.map(ToHost::new);
        }
        true
    }

    /// Stops a queue at a fault.
    pub(super) fn stop(&mut self, n: usize, fault: Fault) {
        // The board never asks for memory by messages: it would wait for a client.
        let remedy = if fault == Fault::Remote { "; its memory must be shared with the board" } else { "" };
        tracing::warn!(queue = n, "a PF queue stopped: {fault}{remedy}");
        self.registers.set_queue_state(n, regs::QUEUE_FAULT);
        self.queues[n].state = regs::QUEUE_FAULT;
        self.registers.counters.drop(BoardPort::None, Reason::DmaFault, 1);
        self.registers.event(regs::EVENT_QUEUE);
        self.port.interrupt(VECTOR_EVENT);
        if n == QUEUE_COMMAND {
            self.commands = None;
        } else {
            self.to_host[n] = None;
        }
    }

    /// Whether the command queue runs.
    pub(super) fn takes_commands(&self) -> bool {
        self.commands.is_some()
    }

    /// The next command; its payload goes to the front of `payload`.
    pub(super) fn next_command(&mut self, payload: &mut [u8]) -> Result<Option<Entry>, Fault> {
        match &mut self.commands {
            Some(queue) => queue.next(&self.port.memory().view(), payload),
            None => Ok(None),
        }
    }

    /// Hands the host an entry on a queue. `false`: that queue does not run.
    pub(super) fn send(&mut self, n: usize, entry: Entry, parts: &[&[u8]], owner: Owner) -> bool {
        let Some(queue) = self.to_host.get_mut(n).and_then(Option::as_mut) else { return false };
        let pushed = {
            let view = self.port.memory().view();
            queue.push(&view, entry, parts, owner)
        };
        match pushed {
            Ok(()) => true,
            Err(fault) => {
                self.stop(n, fault);
                false
            }
        }
    }

    /// Whether another entry of this owner may wait for the host's buffers on a queue.
    pub(super) fn has_room(&self, n: usize, owner: Owner) -> bool {
        self.to_host.get(n).and_then(Option::as_ref).is_none_or(|queue| queue.has_room(owner))
    }

    /// Publishes the queues, and interrupts a host that sleeps.
    pub(super) fn flush(&mut self) {
        let mut faults = Vec::new();
        {
            let view = self.port.memory().view();
            for (n, queue) in self.to_host.iter_mut().enumerate() {
                let Some(queue) = queue else { continue };
                match queue.drain(&view).and_then(|()| queue.publish(&view)) {
                    Ok(true) => self.port.interrupt(VECTOR_QUEUE0 + n as u16),
                    Ok(false) => {}
                    Err(fault) => faults.push((n, fault)),
                }
            }
            if let Some(queue) = &mut self.commands {
                match queue.publish(&view) {
                    Ok(true) => self.port.interrupt(VECTOR_QUEUE0),
                    Ok(false) => {}
                    Err(fault) => faults.push((QUEUE_COMMAND, fault)),
                }
            }
        }
        for (n, fault) in faults {
            self.stop(n, fault);
        }
    }

    /// Announces that the board sleeps, or no longer does. Returns whether there are commands.
    pub(super) fn set_sleeping(&self, sleeping: bool) -> bool {
        let Some(queue) = &self.commands else { return false };
        let view = self.port.memory().view();
        // The next command meets the same fault, which stops the queue.
        let _shown_again = queue.set_sleeping(&view, sleeping);
        queue.has_work(&view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfio_user::DmaRegion;
    use crate::virtio::Notifier;

    #[test]
    fn a_ring_in_memory_that_is_not_shared_or_not_there_is_refused() {
        let registers = State::new(Notifier::new().expect("eventfd"));
        let port = PfPort::new();
        let region = DmaRegion { iova: 0x10_0000, size: 0x10_0000, offset: 0, read: true, write: true };
        port.memory().map(region, None).expect("map without a file");
        let mut host = HostQueues::new(Arc::clone(&registers), port);
        for (starts, (queue, base)) in (1..).zip([
            (QUEUE_COMMAND, 0x10_0000),
            (QUEUE_UPCALL, 0x10_0000),
            (QUEUE_UPCALL, 0x40_0000),
            (QUEUE_COMMAND, u64::MAX - 63),
        ]) {
            let mut queues = [Queue::default(); QUEUE_COUNT];
            queues[queue] = Queue { base, size_log2: 6, state: regs::QUEUE_RUNNING, starts };
            host.set_up(&queues);
            assert_eq!(host.queues[queue].state, regs::QUEUE_FAULT, "queue {queue} at {base:#x}");
            assert!(!host.takes_commands() && !host.send(queue, Entry::default(), &[], Owner::Host));
        }
    }
}
