//! The main loop: takes descriptors from the board and dispatches them.

use culvert_abi::command::Op;
use culvert_abi::soc::{Descriptor, NO_BUFFER};
use culvert_packet::Reason;

use crate::bus::Bus;
use crate::firmware::Firmware;

impl Firmware<'_> {
    /// Processes up to `budget` descriptors from the board; returns how many there were.
    pub fn poll(&mut self, bus: &mut impl Bus, budget: usize) -> usize {
        let (mut n, mut forwarded) = (0, 0);
        while n < budget
            && let Some(taken) = bus.receive()
        {
            n += 1;
            if taken.op == Op::Frame as u8 && self.fast_path(bus, &taken) {
                forwarded += 1;
            } else {
                // A command may read the counters.
                self.datapath.counters.finished += core::mem::take(&mut forwarded);
                self.handle(bus, &{ *taken });
            }
        }
        self.datapath.counters.finished += forwarded;
        n
    }

    #[inline(never)]
    fn handle(&mut self, bus: &mut impl Bus, d: &Descriptor) {
        match Op::from_u8(d.op) {
            Some(Op::Frame) => self.frame(bus, d),
            Some(Op::InjectLookup) => self.inject_lookup(bus, d),
            Some(Op::InjectOut) => self.inject_out(bus, d),
            Some(Op::Dropped) => self.dropped_by_host(bus, d),
            Some(Op::Lost) if d.buffer == NO_BUFFER => self.lost(d),
            Some(op) if op.is_host() => self.command(bus, op, d),
            _ => self.drop_packet(bus, d, Reason::BadDescriptor, self.input(d)),
        }
    }
}
