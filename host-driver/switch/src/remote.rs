//! Packets of other workers: handing them off, and taking in what others hand to this worker.

use culvert_flow::Port;
use culvert_packet::{Reason, VportId};

use crate::BURST;
use crate::attached_port::unreachable_reason;
use crate::forwarder::Forwarder;
use crate::packet::Packet;
use crate::port_table::Egress;
use crate::steering::SteeringTable;
use crate::tables;

impl Forwarder {
    /// Replaces the steering table.
    pub(super) fn set_steering(&mut self, steering: SteeringTable) {
        self.handoff.steering = steering;
    }

    /// Hands a packet to another worker. It uses the share of `charged_vport`; without room it is dropped.
    #[inline]
    pub(super) fn hand_off(&mut self, packet: Packet, worker: u8, to: Option<Port>, charged_vport: u16) {
        if let Err(packet) = self.handoff.push(worker, packet, to, charged_vport) {
            self.dp.counters.drops[Reason::WorkerFull as usize] += 1;
            let vport = tables::vport(&mut self.dp, Port::Vport(VportId(charged_vport)));
            vport.into_iter().for_each(|vport| vport.drops += 1);
            self.pool.give(packet);
        }
    }

    /// The other worker that a packet belongs to, and the vport to charge. `None`: the packet is this worker's.
    pub(super) fn foreign_owner(&self, packet: &Packet) -> Option<(u8, u16)> {
        let (worker, charged_vport) = match packet.input {
            Port::Vport(id) => (self.handoff.steering.of_vport(id), id.0),
            _ => self.handoff.steering.of_frame(packet.bytes()),
        };
        (!self.handoff.is_alone() && !self.handoff.is_me(worker)).then_some((worker, charged_vport))
    }

    /// Keeps this worker's packets of a burst from the wire in place, in order, and hands the others off.
    pub(super) fn hand_off_foreign(&mut self, packets: &mut Vec<Packet>) {
        let mut own = std::mem::take(&mut self.spare);
        for packet in packets.drain(..) {
            let (worker, charged_vport) = self.handoff.steering.of_frame(packet.bytes());
            if self.handoff.is_me(worker) {
                own.push(packet);
            } else {
                self.hand_off(packet, worker, None, charged_vport);
            }
        }
        // Both lists keep their capacity.
        std::mem::swap(packets, &mut own);
        self.spare = own;
    }

    /// Forwards what other workers handed to this one, a burst from each. `true`: there was a packet.
    pub(super) fn poll_handoff(&mut self) -> bool {
        let mut any = false;
        for producer in 0..self.handoff.producers() {
            let mut burst = std::mem::take(&mut self.burst);
            let mut found = false;
            for _ in 0..BURST {
                let Some(handed) = self.handoff.pop(producer) else { break };
                found = true;
                match handed.to {
                    None => {
                        handed.packet.prefetch();
                        burst.push(handed.packet);
                    }
                    Some(to) => self.send_handed(handed.packet, to),
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

    /// Sends a packet of another worker by a port of this one.
    fn send_handed(&mut self, packet: Packet, to: Port) {
        match self.egress(to) {
            Ok(egress @ Egress::Local(_)) => self.enqueue(packet, to, egress),
            // The port has moved meanwhile.
            Ok(Egress::Remote(_)) => self.drop(packet, unreachable_reason(to)),
            Err(reason) => self.drop(packet, reason),
        }
    }
}
