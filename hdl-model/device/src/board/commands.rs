//! The host's commands and injected frames, to the firmware.

use culvert_abi::command::Op;
use culvert_abi::pf::Entry;
use culvert_abi::regs::{QUEUE_COMMAND, QUEUE_COMPLETION};
use culvert_abi::soc::{BoardPort, Descriptor, HEADROOM};
use culvert_packet::Reason;

use super::datapath::{BURST, Datapath};
use super::pf_ring::Owner;
use super::shadow::Shadow;

impl Datapath {
    /// Takes commands and injected frames from queue 0. `shadow` notes what a restarted firmware needs. Returns whether
    /// there were any.
    pub(super) fn take_commands(&mut self, shadow: &mut Shadow) -> bool {
        let mut busy = false;
        for _ in 0..BURST {
            if !self.host.takes_commands() || self.link.soc.room() == 0 {
                break;
            }
            let Some(buffer) = self.link.soc.owners().take() else { break };
            let taken = match self.link.soc.buffer(buffer) {
                Some(memory) => self.host.next_command(&mut memory[HEADROOM as usize..]),
                None => Ok(None),
            };
            match taken {
                Ok(Some(entry)) => {
                    busy = true;
                    self.command(buffer, &entry, shadow);
                }
                Ok(None) => {
                    self.link.soc.owners().free(buffer);
                    break;
                }
                Err(fault) => {
                    self.link.soc.owners().free(buffer);
                    self.host.stop(QUEUE_COMMAND, fault);
                    break;
                }
            }
        }
        busy
    }

    fn command(&mut self, buffer: u32, entry: &Entry, shadow: &mut Shadow) {
        let op = Op::from_u8(entry.op).filter(|op| op.is_host());
        let Some(op) = op else {
            self.link.soc.owners().free(buffer);
            self.registers.counters.drop(BoardPort::None, Reason::BadDescriptor, 1);
            let refused = Entry { op: Op::Complete as u8, reason: Reason::BadDescriptor as u8, ..*entry };
            if entry.cookie != 0 {
                self.host.send(QUEUE_COMPLETION, Entry { len: 0, ..refused }, &[], Owner::Host);
            }
            return;
        };
        match op {
            // A frame of a VM without a VF: no upcall returns with it.
            Op::InjectLookup | Op::Dropped if entry.arg1 == Op::OF_VM => {}
            Op::InjectLookup | Op::InjectOut | Op::Dropped => {
                let count = if op == Op::Dropped { entry.arg0.max(1) } else { 1 };
                self.shares.credit(entry.port, count);
                if entry.ticket == 0 {
                    self.shares.credit_without_ticket(entry.port, count);
                }
            }
            // The firmware counts packets with a ticket.
            Op::HostRestart => {
                for (vf, lost) in self.shares.host_restarted() {
                    let port = vf.map_or(BoardPort::None, BoardPort::Vf);
                    self.registers.counters.drop(port, Reason::HostRestart, lost.into());
                }
            }
            _ => {}
        }
        if let Some(payload) =
            self.link.soc.buffer(buffer).and_then(|b| b[HEADROOM as usize..].get(..entry.len as usize))
        {
            shadow.command(op, entry.arg0, payload);
        }
        self.link.push(Descriptor {
            buffer,
            offset: HEADROOM as u16,
            len: entry.len as u16,
            op: entry.op,
            reason: entry.reason,
            port: entry.port,
            target: entry.target,
            ticket: entry.ticket,
            cookie: entry.cookie,
            now: self.link.now(),
            arg0: entry.arg0,
            arg1: entry.arg1,
            offload: entry.offload,
            ..Descriptor::default()
        });
    }
}
