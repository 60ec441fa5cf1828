//! Packets that take the core's pipeline, and packets that come back from the host.

use culvert_abi::soc::{CAPTURE, COPY, Descriptor};
use culvert_flow::pending::{Completion, Ticket};
use culvert_flow::{Classified, OuterInfo, Port, RecordId, Source, Verdict};
use culvert_packet::Reason;

use crate::bus::Bus;
use crate::firmware::Firmware;
use crate::send::{CopyInfo, Place, frame_of};

impl Firmware<'_> {
    /// A frame from a VF or from the wire that the fast path has not taken.
    pub(crate) fn frame(&mut self, bus: &mut impl Bus, d: &Descriptor) {
        let verdict = self.process(bus, d, Source::Port(d.offload.known_checksum()));
        if !matches!(verdict, None | Some(Verdict::Punt { .. } | Verdict::Wait)) {
            self.datapath.counters.finished += 1;
        }
    }

    /// A packet that the host re-injects: it takes the record of its flow.
    pub(crate) fn inject_lookup(&mut self, bus: &mut impl Bus, d: &Descriptor) {
        let ticket = Ticket::from_bits(d.ticket);
        self.process(bus, d, Source::Reinjected { ticket, classified: None });
        self.complete_upcall(bus, d.ticket, 1, d.now);
    }

    /// A packet that the host sends out of a port as it is.
    pub(crate) fn inject_out(&mut self, bus: &mut impl Bus, d: &Descriptor) {
        let input = self.input(d);
        match frame_of(bus, d) {
            Some(frame) => {
                let at = Place::of(&frame);
                self.transmit(bus, d, input, Port::from_bits(d.target), at, 0, CopyInfo::default());
            }
            None => self.drop_packet(bus, d, Reason::BadDescriptor, input),
        }
        self.complete_upcall(bus, d.ticket, 1, d.now);
    }

    /// Packets that the host has dropped.
    pub(crate) fn dropped_by_host(&mut self, bus: &mut impl Bus, d: &Descriptor) {
        let reason = Reason::from_u8(d.reason).unwrap_or(Reason::BadDescriptor);
        let input = self.input(d);
        let count = d.arg0.max(1);
        // Bounds the work of one descriptor; a flow's count does not go below zero.
        for _ in 0..count.min(1 << 16) {
            self.datapath.count_drop(reason, input);
        }
        self.complete_upcall(bus, d.ticket, count, d.now);
        Self::complete(bus, d, None, 0, 0);
    }

    /// `count` packets of a pending flow have come back from the host. With the last one the waiting packets are sent.
    fn complete_upcall(&mut self, bus: &mut impl Bus, ticket: u32, count: u32, now: u32) {
        let Some(ticket) = Ticket::from_bits(ticket) else { return };
        if let Completion::Live(id) = self.datapath.complete_upcall(ticket, count) {
            while let Some(buffer) = self.datapath.pending.next_waiting(ticket.slot) {
                let d = Descriptor { now, ..self.waiting[buffer as usize] };
                self.send_waiting(bus, &d, id);
            }
            self.datapath.go_live(ticket, id);
        }
    }

    /// A packet that has waited for its flow's record.
    fn send_waiting(&mut self, bus: &mut impl Bus, d: &Descriptor, record: RecordId) {
        let source = Source::Pended { record, checksum: d.offload.known_checksum() };
        if self.process(bus, d, source).is_some() {
            self.datapath.counters.finished += 1;
        }
    }

    /// Takes a packet through the core's pipeline and executes the verdict. `None`: the descriptor names no frame.
    #[inline(always)]
    fn process(&mut self, bus: &mut impl Bus, d: &Descriptor, source: Source<'_>) -> Option<Verdict> {
        let input = self.input(d);
        let Some(mut frame) = frame_of(bus, d) else {
            self.drop_packet(bus, d, Reason::BadDescriptor, input);
            return None;
        };
        let mut punted = None;
        let verdict = self.datapath.process_pipeline(&mut frame, input, source, d.buffer, d.now, &mut punted);
        let at = Place::of(&frame);
        self.execute(bus, d, input, verdict, &punted, at);
        Some(verdict)
    }

    /// Executes the core's verdict on a packet.
    #[inline(never)]
    fn execute(
        &mut self,
        bus: &mut impl Bus,
        d: &Descriptor,
        input: Port,
        verdict: Verdict,
        punted: &Option<Classified>,
        at: Place,
    ) {
        match verdict {
            Verdict::Forward { to, record, copy, capture } => {
                let mut flags = 0;
                let mut info = CopyInfo::default();
                if copy {
                    flags |= COPY;
                    info = self.copy_info(record);
                }
                if capture {
                    flags |= CAPTURE;
                }
                self.transmit(bus, d, input, to, at, flags, info);
            }
            Verdict::Answer => self.transmit(bus, d, input, input, at, 0, CopyInfo::default()),
            Verdict::Punt { reason, ticket } => {
                let outer = punted.as_ref().map_or(OuterInfo::default(), |c| c.outer);
                self.upcall(bus, d, input, reason, ticket, outer);
            }
            Verdict::Wait => {
                if let Some(kept) = self.waiting.get_mut(d.buffer as usize) {
                    *kept = *d;
                }
            }
            Verdict::Drop { reason } => Self::send_drop(bus, d, reason),
            Verdict::Replicate { record, group } => self.replicate(bus, d, input, record, group, at),
        }
    }
}
