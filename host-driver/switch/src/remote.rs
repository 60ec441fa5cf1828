//! Packets that other workers hand to this one.

use crate::BURST;
use crate::forwarder::Forwarder;

impl Forwarder {
    /// Forwards what other workers handed to this one, a burst from each. `true`: there was a packet.
    pub(super) fn poll_handoff(&mut self) -> bool {
        let mut any = false;
        for producer in 0..self.out.handoff.producers() {
            let mut burst = std::mem::take(&mut self.burst);
            let mut found = false;
            for _ in 0..BURST {
                let Some(handed) = self.out.handoff.pop(producer) else { break };
                found = true;
                match handed.to {
                    None => {
                        handed.packet.prefetch();
                        burst.push(handed.packet);
                    }
                    Some(to) => self.out.send_handed(handed.packet, to),
                }
            }
            if found {
                self.burst(&mut burst);
            }
            self.burst = burst;
            any |= found;
        }
        any
    }
}
