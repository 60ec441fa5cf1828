//! Frames to the firmware: from the VFs' guests and from the MAC ports.

use std::sync::Arc;

use culvert_abi::command::Op;
use culvert_abi::pf::OffloadBits;
use culvert_abi::soc::{BoardPort, Descriptor, HEADROOM};

use super::datapath::{BURST, Datapath};
use crate::virtio::Checksum;
use crate::wire::Received;

impl Datapath {
    /// Takes frames from the VFs' guests. Returns whether there were any.
    pub(super) fn take_from_vfs(&mut self) -> bool {
        let mut busy = false;
        for n in 0..self.vfs.len() {
            let vf = Arc::clone(&self.vfs[n]);
            vf.service_control();
            let share = self.registers.share(n);
            let mut budget = self.renew_budget(n);
            // What its debt keeps in the ring is work for the next turn.
            busy |= !budget.lasts() && vf.has_tx();
            while budget.lasts() && self.shares.used(n) < share && self.link.has_room() && vf.has_tx() {
                let Some(buffer) = self.link.soc.owners().take() else { break };
                let port = BoardPort::Vf(n as u8);
                let start = HEADROOM as usize;
                let taken = self.link.soc.buffer(buffer).and_then(|b| {
                    let frame = vf.tx_pop_within(&mut b[start..], &mut budget)?;
                    fill_checksum(&mut b[start..start + frame.len], frame.csum);
                    Some(frame.len)
                });
                let Some(len) = taken else {
                    self.link.soc.owners().free(buffer);
                    break;
                };
                busy = true;
                self.registers.counters.frame_in(port, len);
                // The checksum engine has just filled it in, or the guest has.
                let offload = OffloadBits { checksum: OffloadBits::VERIFIED, ..OffloadBits::default() };
                self.hand_over(buffer, len, port, offload);
            }
            self.keep_budget(n, budget);
        }
        busy
    }

    /// Takes frames from the MAC ports. Frames without room wait on the medium. Returns whether there
    /// were any.
    pub(super) fn take_from_wires(&mut self) -> bool {
        let mut busy = false;
        for n in 0..self.uplinks.len() {
            let port = BoardPort::Uplink(n as u8);
            for _ in 0..BURST {
                if !self.link.has_room() {
                    break;
                }
                let Some(buffer) = self.link.soc.owners().take() else { break };
                let start = HEADROOM as usize;
                let uplink = &mut self.uplinks[n];
                let Some(memory) = self.link.soc.buffer(buffer) else { break };
                match uplink.wire.receive(&mut memory[start..]) {
                    Received::Frame(len) => {
                        let frame = &memory[start..start + len];
                        if let Some(capture) = &mut uplink.capture {
                            capture.frame(&[], frame);
                        }
                        let offload = verify(frame);
                        busy = true;
                        self.registers.counters.frame_in(port, len);
                        self.hand_over(buffer, len, port, offload);
                    }
                    Received::Bad(reason) => {
                        self.link.soc.owners().free(buffer);
                        self.registers.counters.drop(port, reason, 1);
                        busy = true;
                    }
                    Received::Nothing => {
                        self.link.soc.owners().free(buffer);
                        break;
                    }
                }
            }
        }
        busy
    }

    fn hand_over(&mut self, buffer: u32, len: usize, port: BoardPort, offload: OffloadBits) {
        self.link.push(Descriptor {
            buffer,
            offset: HEADROOM as u16,
            len: len as u16,
            op: Op::Frame as u8,
            port: port.bits(),
            now: self.link.now(),
            offload,
            ..Descriptor::default()
        });
    }
}

/// The checksum engine, towards the wire: completes a checksum that the guest has left to the device.
fn fill_checksum(frame: &mut [u8], checksum: Checksum) {
    let Checksum::Partial { start, offset } = checksum else { return };
    let (start, at) = (usize::from(start), usize::from(start) + usize::from(offset));
    if at + 2 > frame.len() || start > frame.len() {
        return;
    }
    let sum = match culvert_packet::checksum::of(&frame[start..]) {
        // A UDP checksum of 0 would say that there is none (RFC 768); its field is six bytes into the header.
        0 if offset == 6 => 0xffff,
        sum => sum,
    };
    frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// The checksum engine, from the wire: verifies an outer UDP checksum, if there is one.
fn verify(frame: &[u8]) -> OffloadBits {
    OffloadBits::of_checksum(culvert_flow::Checksum::verify_outer(frame))
}
