//! The engine's dealings with the host: commands in, exceptions and completions out.

use culvert_abi::command::Op;
use culvert_abi::pci::VECTOR_QUEUE0;
use culvert_abi::pf::Entry;
use culvert_abi::regs::{self, QUEUE_COMMAND};
use culvert_abi::soc::{Descriptor, HEADROOM, NO_BUFFER};
use culvert_packet::Reason;

use super::engine::{BURST, Engine};
use super::pf_ring::{FromHost, Ring, ToHost};
use super::registers::Queue;
use crate::dma::Fault;

impl Engine {
    /// Brings a queue into the state that the driver wants.
    pub(super) fn set_up_queue(&mut self, n: usize, queue: &Queue) {
        let former = std::mem::replace(&mut self.queues[n], *queue);
        if (former.state, former.starts) == (queue.state, queue.starts) {
            return;
        }
        let ring =
            if queue.state == regs::QUEUE_RUNNING { Ring::new(queue.base, queue.size_log2) } else { None };
        if queue.state == regs::QUEUE_RUNNING && ring.is_none() {
            return self.queue_fault(n, Fault::Misaligned);
        }
        if n == QUEUE_COMMAND {
            // What was at the host is lost with it; the firmware counts it when the next host says so.
            self.shares.clear();
            self.from_host = ring.map(FromHost::new);
        } else {
            self.to_host[n] = ring.map(ToHost::new);
        }
    }

    fn queue_fault(&mut self, n: usize, fault: Fault) {
        tracing::warn!(queue = n, "a PF queue stopped: {fault}");
        self.state.set_queue_state(n, regs::QUEUE_FAULT);
        self.queues[n].state = regs::QUEUE_FAULT;
        self.state.counters.drop(culvert_abi::soc::BoardPort::None, Reason::DmaFault, 1);
        self.state.event(regs::EVENT_QUEUE);
        self.port.interrupt(culvert_abi::pci::VECTOR_EVENT);
        if n == QUEUE_COMMAND {
            self.from_host = None;
        } else {
            self.to_host[n] = None;
        }
    }

    /// Takes commands and injected frames from queue 0.
    pub(super) fn commands(&mut self) -> bool {
        while let Some(descriptor) = self.delayed.front() {
            if !self.soc.push(descriptor) {
                return false;
            }
            self.delayed.pop_front();
        }
        if !self.soc.is_ready() || self.is_restoring() {
            return false;
        }
        let mut busy = false;
        for _ in 0..BURST {
            let Some(mut queue) = self.from_host.take() else { break };
            if self.soc.room() == 0 {
                self.from_host = Some(queue);
                break;
            }
            let Some(buffer) = self.soc.owners().take() else {
                self.from_host = Some(queue);
                break;
            };
            let taken = {
                let view = self.port.memory().view();
                match self.soc.buffer(buffer) {
                    Some(memory) => queue.next(&view, &mut memory[HEADROOM as usize..]),
                    None => Ok(None),
                }
            };
            self.from_host = Some(queue);
            match taken {
                Ok(Some(entry)) => {
                    busy = true;
                    self.command(buffer, &entry);
                }
                Ok(None) => {
                    self.soc.owners().free(buffer);
                    break;
                }
                Err(fault) => {
                    self.soc.owners().free(buffer);
                    self.queue_fault(QUEUE_COMMAND, fault);
                    break;
                }
            }
        }
        busy
    }

    fn command(&mut self, buffer: u32, entry: &Entry) {
        let op = Op::from_u8(entry.op).filter(|op| op.is_host());
        let Some(op) = op else {
            self.soc.owners().free(buffer);
            self.state.counters.drop(culvert_abi::soc::BoardPort::None, Reason::BadDescriptor, 1);
            let refused = Entry { op: Op::Complete as u8, reason: Reason::BadDescriptor as u8, ..*entry };
            if entry.cookie != 0 {
                self.send_to_host(regs::QUEUE_COMPLETION, Entry { len: 0, ..refused }, &[]);
            }
            return;
        };
        match op {
            // What a machine sends that the host serves was not at the host before.
            Op::InjectLookup | Op::Dropped if entry.arg1 == Op::OF_VM => {}
            Op::InjectLookup | Op::InjectOut => self.shares.give_back(entry.port, 1),
            Op::Dropped => self.shares.give_back(entry.port, entry.arg0.max(1)),
            Op::HostRestart => self.shares.clear(),
            _ => {}
        }
        if let Some(payload) =
            self.soc.buffer(buffer).and_then(|b| b[HEADROOM as usize..].get(..entry.len as usize))
        {
            self.supervisor.shadow.command(op, entry.arg0, payload);
        }
        self.push(Descriptor {
            buffer,
            offset: HEADROOM as u16,
            len: entry.len as u16,
            op: entry.op,
            reason: entry.reason,
            port: entry.port,
            target: entry.target,
            ticket: entry.ticket,
            cookie: entry.cookie,
            now: self.now(),
            arg0: entry.arg0,
            arg1: entry.arg1,
            offload: entry.offload,
            ..Descriptor::default()
        });
    }

    /// Hands the host an entry on a queue. `false`: that queue does not run.
    pub(super) fn send_to_host(&mut self, n: usize, entry: Entry, parts: &[&[u8]]) -> bool {
        let Some(queue) = self.to_host.get_mut(n).and_then(Option::as_mut) else { return false };
        let pushed = {
            let view = self.port.memory().view();
            queue.push(&view, entry, parts)
        };
        match pushed {
            Ok(()) => true,
            Err(fault) => {
                self.queue_fault(n, fault);
                false
            }
        }
    }

    /// Packets that wait for the host's buffers on a queue.
    pub(super) fn held(&self, n: usize) -> usize {
        self.to_host[n].as_ref().map_or(0, ToHost::held)
    }

    /// Shows the host what was done, and interrupts it where it sleeps; interrupts the guests.
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
            if let Some(queue) = &mut self.from_host {
                match queue.publish(&view) {
                    Ok(true) => self.port.interrupt(VECTOR_QUEUE0),
                    Ok(false) => {}
                    Err(fault) => faults.push((QUEUE_COMMAND, fault)),
                }
            }
        }
        for (n, fault) in faults {
            self.queue_fault(n, fault);
        }
        for vf in &self.vfs {
            vf.flush_interrupts();
        }
    }

    /// A command towards the firmware that the board itself gives: a packet of a pending flow has ended here.
    pub(super) fn report_dropped(&mut self, vport: u16, ticket: u32, reason: Reason) {
        self.push(Descriptor {
            buffer: NO_BUFFER,
            op: Op::Dropped as u8,
            reason: reason as u8,
            port: vport,
            ticket,
            arg0: 1,
            now: self.now(),
            ..Descriptor::default()
        });
    }
}
