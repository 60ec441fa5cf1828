//! What the slow path wants done, in order: records, tunnels, and its packets back on their way.

use std::time::Duration;

use culvert_flow::pending::Ticket;
use culvert_flow::tables::{Tunnel, Vport};
use culvert_flow::{Checksum, OuterInfo, Port, Source, Verdict};
use culvert_packet::{ChecksumState, Reason};
use culvert_pf::Return;

use super::forwarder::{Forwarder, RESERVE};
use super::packet::Packet;
use crate::software::known;
use crate::target::Step;

/// Looks for buffers, a moment apart, after which what finds none is dropped: the others have had a tenth of a second.
const LOOKS: usize = 2000;
const SOON: Duration = Duration::from_micros(50);
/// Steps whose memory is called for together.
const AHEAD: usize = RESERVE;

impl Forwarder {
    /// Carries steps out.
    pub fn carry_out(&mut self, steps: Vec<Step>) {
        let mut steps = steps.into_iter();
        while !steps.as_slice().is_empty() {
            let soon = steps.as_slice().iter().take(AHEAD);
            let records = soon.filter_map(|step| match step {
                Step::Insert(records) => Some(records),
                _ => None,
            });
            self.dp.prefetch_install(records.flatten().map(|record| &record.key));
            self.wait_for_buffers();
            steps.by_ref().take(AHEAD).for_each(|step| self.step(step));
            // What has left gives its buffer to those that come.
            self.flush();
        }
    }

    /// Waits until there are buffers for what comes next. Those that are with other workers soon come home, unless they
    /// wait for ours in turn: so what they have passed here is carried out meanwhile.
    fn wait_for_buffers(&mut self) {
        for _ in 0..LOOKS {
            if self.crossing.is_alone() || self.pool.common() >= AHEAD {
                return;
            }
            if !self.take_passed() {
                std::thread::sleep(SOON);
            }
            self.pool.take_back();
        }
    }

    fn step(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Insert(records) => {
                for record in &records {
                    // One that finds no room is decided again with its next packet.
                    let _ = self.dp.install(record, now);
                }
            }
            Step::Delete(keys) => {
                for key in &keys {
                    self.dp.delete(key);
                }
            }
            Step::Tunnel(index, tunnel) => self.set_tunnel(index, &tunnel),
            Step::Lookup(back, frame) => {
                if let Some(packet) = self.own(&back, &frame) {
                    self.look_up(packet, self.ticket_of(&back));
                }
                self.returned(back.input, self.ticket_of(&back));
            }
            Step::Out(back, to, frame) => {
                if let Some(packet) = self.own(&back, &frame) {
                    self.send(packet, to, (1, frame.len() as u64));
                }
                self.returned(back.input, self.ticket_of(&back));
            }
            Step::Dropped(back, reason) => {
                self.dp.count_drop(reason, back.input);
                self.returned(back.input, self.ticket_of(&back));
            }
        }
    }

    /// Writes a tunnel; its counters go on.
    pub fn set_tunnel(&mut self, index: u16, tunnel: &Tunnel) {
        if let Some(slot) = self.dp.tunnels.get_mut(usize::from(index)) {
            slot.rewrite(tunnel);
        }
    }

    /// Writes a vport; its counters go on. `false`: there is no such number.
    pub fn set_vport(&mut self, n: usize, new: &Vport) -> bool {
        let Some(slot) = self.dp.vports.get_mut(n) else { return false };
        slot.rewrite(new);
        true
    }

    fn look_up(&mut self, packet: Packet, ticket: Option<Ticket>) {
        // Its vport has moved to another worker meanwhile, and its record is there.
        if let Some((worker, payer)) = self.elsewhere(&packet) {
            return self.pass(packet, worker, None, payer);
        }
        let mut packet = packet;
        let (input, number, now, len) = (packet.input, packet.number(), self.now, packet.bytes().len());
        let (source, mut punted) = (Source::Reinjected { ticket, classified: None }, None);
        let done =
            packet.edit(|frame| self.dp.process_pipeline(frame, input, source, number, now, &mut punted));
        match done {
            Some(mut verdict) => {
                if let Verdict::Forward { copy, .. } = &mut verdict {
                    *copy &= self.show_returned;
                }
                let outer = punted.map_or(OuterInfo::default(), |c| c.outer);
                self.settle(packet, (verdict, outer), len);
            }
            None => self.drop(packet, Reason::BadDescriptor),
        }
    }

    fn ticket_of(&self, back: &Return) -> Option<Ticket> {
        back.ticket.and_then(|bits| self.ticket(bits.get()))
    }

    /// A packet of the slow path in a buffer of ours. `None`: there is none, which is counted.
    fn own(&mut self, back: &Return, frame: &[u8]) -> Option<Packet> {
        let Some(mut packet) = self.pool.take_for(frame.len()) else {
            self.dp.count_drop(Reason::NoBuffer, back.input);
            return None;
        };
        packet.input = back.input;
        packet.offload = known(&back.offload);
        if packet.offload.checksum == ChecksumState::Verified {
            packet.checksum = Checksum::Good;
        }
        let offload = packet.offload;
        if packet.fill(frame) && offload.fill_checksum(packet.bytes_mut()) {
            return Some(packet);
        }
        self.drop(packet, Reason::BadDescriptor);
        None
    }
}

/// What a port of the data path is called in messages.
pub(super) fn name(at: Port) -> String {
    match at {
        Port::Vport(id) => format!("vport {}", id.0),
        Port::Uplink(n) => format!("uplink {n}"),
        Port::Host | Port::None => "no port".to_owned(),
    }
}

#[cfg(test)]
mod tests;
