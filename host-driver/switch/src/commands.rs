//! Flow commands of the slow path, executed in order: records, tunnels, and reinjected packets.

use std::time::Duration;

use culvert_flow::pending::Ticket;
use culvert_flow::tables::{Tunnel, Vport};
use culvert_flow::{Checksum, Classified, Source, Verdict};
use culvert_offload::{FlowCommand, ReinjectMeta};
use culvert_packet::{ChecksumState, Reason};

use crate::forwarder::{Forwarder, RESERVE};
use crate::packet::Packet;

/// Polls for free buffers before a packet without one is dropped: other workers have a tenth of a second to return theirs.
const MAX_POLLS: usize = 2000;
/// Between two polls.
const POLL_INTERVAL: Duration = Duration::from_micros(50);
/// Commands whose records are prefetched together.
const AHEAD: usize = RESERVE;

impl Forwarder {
    /// Executes commands, in order.
    pub fn execute(&mut self, commands: Vec<FlowCommand>) {
        let mut commands = commands.into_iter();
        while !commands.as_slice().is_empty() {
            let soon = commands.as_slice().iter().take(AHEAD);
            let records = soon.filter_map(|command| match command {
                FlowCommand::Insert(records) => Some(records),
                _ => None,
            });
            self.out.dp.prefetch_install(records.flatten().map(|record| &record.key));
            self.wait_for_buffers();
            commands.by_ref().take(AHEAD).for_each(|command| self.execute_one(command));
            // Packets that were sent free their buffers for the next commands.
            self.flush();
        }
    }

    /// Waits until there are buffers for the next commands. Other workers soon return theirs, unless they wait for this
    /// one's in turn: so what they handed to this worker is forwarded meanwhile.
    fn wait_for_buffers(&mut self) {
        for _ in 0..MAX_POLLS {
            if self.out.handoff.is_alone() || self.out.pool.common() >= AHEAD {
                return;
            }
            if !self.poll_handoff() {
                std::thread::sleep(POLL_INTERVAL);
            }
            self.out.pool.take_back();
        }
    }

    fn execute_one(&mut self, command: FlowCommand) {
        let now = self.now;
        match command {
            FlowCommand::Insert(records) => {
                for record in &records {
                    // A flow without room for its record is decided again with its next packet.
                    let _ = self.out.dp.install(record, now);
                }
            }
            FlowCommand::Delete(keys) => {
                for key in &keys {
                    self.out.dp.delete(key);
                }
            }
            FlowCommand::SetTunnel(index, tunnel) => self.set_tunnel(index, &tunnel),
            FlowCommand::Reinject(meta, frame, classified) => {
                if let Some(packet) = self.import(&meta, &frame) {
                    self.reinject(packet, self.ticket_of(&meta), classified.as_ref());
                }
                self.complete_upcall(meta.input, self.ticket_of(&meta));
            }
            FlowCommand::PacketOut(meta, to, frame) => {
                if let Some(packet) = self.import(&meta, &frame) {
                    self.out.send(packet, to, (1, frame.len() as u64));
                }
                self.complete_upcall(meta.input, self.ticket_of(&meta));
            }
            FlowCommand::Dropped(meta, reason) => {
                self.out.dp.count_drop(reason, meta.input);
                self.complete_upcall(meta.input, self.ticket_of(&meta));
            }
        }
    }

    /// Writes a tunnel. Its counters stay.
    pub fn set_tunnel(&mut self, index: u16, tunnel: &Tunnel) {
        if let Some(slot) = self.out.dp.tunnels.get_mut(usize::from(index)) {
            slot.rewrite(tunnel);
        }
    }

    /// Writes a vport. Its counters stay. `false`: the number is out of range.
    pub fn set_vport(&mut self, n: usize, new: &Vport) -> bool {
        let Some(slot) = self.out.dp.vports.get_mut(n) else { return false };
        slot.rewrite(new);
        true
    }

    fn reinject(&mut self, packet: Packet, ticket: Option<Ticket>, classified: Option<&Classified>) {
        // If the vport has moved to another worker meanwhile, its record is there.
        if let Some((worker, charged_vport)) = self.out.foreign_owner(&packet) {
            return self.out.hand_off(packet, worker, None, charged_vport);
        }
        let mut packet = packet;
        let number = self.pended.next_number(|| self.out.handoff.steering.charged_vport(&packet));
        packet.number = number;
        let (input, now, len) = (packet.input, self.now, packet.bytes().len());
        let (source, mut punted) = (Source::Reinjected { ticket, classified }, None);
        let done =
            packet.edit(|frame| self.out.dp.process_pipeline(frame, input, source, number, now, &mut punted));
        match done {
            Some(mut verdict) => {
                if verdict == Verdict::Wait {
                    self.pended.reserve();
                }
                if let Verdict::Forward { copy, .. } = &mut verdict {
                    *copy &= self.copy_reinjected;
                }
                self.apply_verdict(packet, verdict, punted.as_ref(), len);
            }
            None => self.out.drop(packet, Reason::BadDescriptor),
        }
    }

    fn ticket_of(&self, meta: &ReinjectMeta) -> Option<Ticket> {
        meta.ticket.and_then(|ticket| self.upcalls.tickets.import(ticket))
    }

    /// Copies a packet of the slow path into a buffer. `None`: there is no buffer; the drop is counted.
    fn import(&mut self, meta: &ReinjectMeta, frame: &[u8]) -> Option<Packet> {
        let Some(mut packet) = self.out.pool.take_for(frame.len()) else {
            self.out.dp.count_drop(Reason::NoBuffer, meta.input);
            return None;
        };
        packet.input = meta.input;
        packet.offload = meta.offload;
        if packet.offload.checksum == ChecksumState::Verified {
            packet.checksum = Checksum::Good;
        }
        let offload = packet.offload;
        if packet.fill(frame) && offload.fill_checksum(packet.bytes_mut()) {
            return Some(packet);
        }
        self.out.drop(packet, Reason::BadDescriptor);
        None
    }
}

#[cfg(test)]
mod tests;
