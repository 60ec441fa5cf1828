//! Packets that other workers hand to this one.

use crate::forwarder::Forwarder;

impl Forwarder {
    /// Forwards what other workers handed to this one, a turn's work from each. `true`: there was a packet, or a worker is working off its last turns.
    pub(super) fn poll_handoff(&mut self) -> bool {
        let mut any = false;
        for producer in 0..self.out.handoff.producers() {
            let mut handed = std::mem::take(&mut self.handed);
            any |= self.out.handoff.pop_turn(producer, &mut handed);
            if !handed.is_empty() {
                // The other core has these lines: all are on their way before the first is used.
                handed.iter().for_each(|handed| handed.packet.prefetch());
                let mut burst = std::mem::take(&mut self.burst);
                for handed in handed.drain(..) {
                    match handed.to {
                        None => burst.push(handed.packet),
                        Some(to) => self.out.send_handed(handed.packet, to),
                    }
                }
                self.burst(&mut burst);
                self.burst = burst;
                self.out.handoff.charge(producer, self.out.ports.take_tx_work());
            }
            self.handed = handed;
        }
        any
    }
}
