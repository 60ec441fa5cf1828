//! Packets that are another worker's, and those that others pass here.

use culvert_flow::Port;
use culvert_packet::{Reason, VportId};

use super::BURST;
use super::forwarder::Forwarder;
use super::homes::Homes;
use super::packet::Packet;
use super::places::{Way, nobody};
use super::tables;

impl Forwarder {
    /// Who does what, from now on.
    pub(super) fn set_homes(&mut self, homes: Homes) {
        self.crossing.homes = homes;
    }

    /// Passes a packet to another worker, on the account of a vport.
    #[inline]
    pub(super) fn pass(&mut self, packet: Packet, worker: u8, to: Option<Port>, payer: u16) {
        if let Err(packet) = self.crossing.give(worker, packet, to, payer) {
            self.dp.counters.drops[Reason::WorkerFull as usize] += 1;
            let vport = tables::vport(&mut self.dp, Port::Vport(VportId(payer)));
            vport.into_iter().for_each(|vport| vport.drops += 1);
            self.pool.give(packet);
        }
    }

    /// The other worker that a packet belongs to, and the vport that pays the way.
    pub(super) fn elsewhere(&self, packet: &Packet) -> Option<(u8, u16)> {
        let (worker, payer) = match packet.input {
            Port::Vport(id) => (self.crossing.homes.of_vport(id), id.0),
            _ => self.crossing.homes.of_frame(packet.bytes()),
        };
        (!self.crossing.is_alone() && worker != self.crossing.me).then_some((worker, payer))
    }

    /// Keeps of what has come from the wire what is this worker's, and passes the rest on.
    pub(super) fn keep_own(&mut self, packets: &mut Vec<Packet>) {
        let mut kept = std::mem::take(&mut self.kept);
        for packet in packets.drain(..) {
            let (worker, payer) = self.crossing.homes.of_frame(packet.bytes());
            if worker == self.crossing.me {
                kept.push(packet);
            } else {
                self.pass(packet, worker, None, payer);
            }
        }
        // Both keep their room.
        std::mem::swap(packets, &mut kept);
        self.kept = kept;
    }

    /// Takes what other workers have passed here, a burst from each. `true`: there was something.
    pub(super) fn take_passed(&mut self) -> bool {
        let mut any = false;
        for from in 0..self.crossing.others() {
            let mut burst = std::mem::take(&mut self.burst);
            let mut came = false;
            for _ in 0..BURST {
                let Some(passed) = self.crossing.take(from) else { break };
                came = true;
                match passed.to {
                    None => {
                        passed.packet.prefetch();
                        burst.push(passed.packet);
                    }
                    Some(to) => self.leave(passed.packet, to),
                }
            }
            if came {
                self.burst(&mut burst);
            }
            self.burst = burst;
            any |= came;
        }
        any
    }

    /// Sends a packet of another worker by a port of this one.
    fn leave(&mut self, packet: Packet, to: Port) {
        match self.way(to) {
            Ok(way @ Way::Slot(_)) => self.put(packet, to, way),
            // The port has moved meanwhile.
            Ok(Way::Worker(_)) => self.drop(packet, nobody(to)),
            Err(reason) => self.drop(packet, reason),
        }
    }
}
