//! Output: the tables, buffers and ports that packets leave by, or are dropped and counted with.

use culvert_flow::tables::Vport;
use culvert_flow::{Actions, Datapath, Port, RecordId};
use culvert_packet::{Gso, Reason, VportId, parse_outer};

use crate::BURST;
use crate::attached_port::unreachable_reason;
use crate::handoff::Handoff;
use crate::packet::Packet;
use crate::pool::Pool;
use crate::port_table::{Egress, PortTable};
use crate::steering::{NO_VPORT, SteeringTable};
use crate::tables;

/// What a worker sends packets with.
pub(super) struct Output {
    pub(super) dp: Datapath<'static>,
    pub(super) pool: Pool,
    pub(super) ports: PortTable,
    pub(super) handoff: Handoff,
    /// This worker's packets of a burst that is divided between workers; empty between two bursts.
    own: Vec<Packet>,
}

impl Output {
    /// Without any ports.
    pub(super) fn new(dp: Datapath<'static>, pool: Pool, handoff: Handoff) -> Self {
        Output { dp, pool, ports: PortTable::new(), handoff, own: Vec::with_capacity(BURST) }
    }

    /// Counts the segments of a large packet, which the core counted as one, in its flow record and tunnel. Returns how
    /// many there are, and how many bytes of headers they add.
    pub(super) fn count_segments(&mut self, packet: &Packet, record: RecordId) -> (u64, u64) {
        if packet.offload.gso == Gso::None {
            return (1, 0);
        }
        let Some(segments) = packet.segments() else { return (1, 0) };
        let outer = parse_outer(packet.bytes()).ok().flatten().map_or(0, |outer| usize::from(outer.inner));
        let more = segments.count() as u64 - 1;
        let bytes = more * (segments.headers() - outer) as u64;
        let hot = self.dp.table.hot_mut(record);
        (hot.packets, hot.bytes) = (hot.packets + more, hot.bytes + bytes);
        let pushed = hot.actions().contains(Actions::PUSH_OUTER);
        let tunnel = usize::from(hot.tunnel);
        if let Some(tunnel) = self.dp.tunnels.get_mut(tunnel).filter(|_| pushed) {
            (tunnel.packets, tunnel.bytes) = (tunnel.packets + more, tunnel.bytes + bytes);
        }
        (more + 1, bytes)
    }

    /// Counts packets that a vport's VM sent.
    #[inline]
    pub(super) fn count_input(&mut self, input: Port, packets: u64, bytes: u64) {
        if let Some(vport) = tables::vport(&mut self.dp, input) {
            vport.rx_packets += packets;
            vport.rx_bytes += bytes;
        }
    }

    /// Where packets to a port leave, or why they cannot.
    #[inline]
    pub(super) fn egress(&self, to: Port) -> Result<Egress, Reason> {
        if let Port::Vport(VportId(n)) = to {
            match self.dp.vports.get(usize::from(n)) {
                Some(vport) if vport.is_up() => {}
                Some(vport) if vport.flags & Vport::PRESENT != 0 => return Err(Reason::VportDown),
                _ => return Err(Reason::NoVport),
            }
        }
        self.ports.egress(to).ok_or(unreachable_reason(to))
    }

    /// Queues a packet at the port that it leaves by, until the end of the burst, and counts it for the vport that sent
    /// it: packets and bytes.
    #[inline]
    pub(super) fn send(&mut self, packet: Packet, to: Port, (packets, bytes): (u64, u64)) {
        match self.egress(to) {
            Ok(egress) => {
                self.count_input(packet.input, packets, bytes);
                self.enqueue(packet, to, egress);
            }
            Err(reason) => self.drop(packet, reason),
        }
    }

    /// The vport that is charged for a packet that leaves: the one that sent it or, if it came from the wire, the one that it
    /// leaves by.
    pub(super) fn charged_vport(input: Port, to: Port) -> u16 {
        match (input, to) {
            (Port::Vport(id), _) | (_, Port::Vport(id)) => id.0.min(NO_VPORT),
            _ => NO_VPORT,
        }
    }

    /// Counts a drop of a packet that a vport is charged for.
    pub(super) fn count_drop_of(&mut self, charged_vport: u16, reason: Reason) {
        self.dp.count_drop(reason, Port::Vport(VportId(charged_vport)));
    }

    /// Queues a packet at a local port, or hands it to the worker that serves the port.
    #[inline]
    pub(super) fn enqueue(&mut self, packet: Packet, to: Port, egress: Egress) {
        match egress {
            Egress::Local(n) => self.ports.enqueue(n, packet),
            Egress::Remote(worker) => {
                let charged_vport = Self::charged_vport(packet.input, to);
                self.hand_off(packet, worker, Some(to), charged_vport);
            }
        }
    }

    /// Sends what is queued at all ports, and wakes the workers that packets were handed to.
    pub(super) fn flush(&mut self, now: u32) {
        self.ports.flush(&mut self.dp, &mut self.pool, now);
        self.handoff.publish();
        self.pool.publish_returns();
    }

    /// Counts frames that ports dropped on reception.
    pub(super) fn count_rx_drops(&mut self) {
        self.ports.count_rx_drops(&mut self.dp);
    }

    /// Drops a packet that the core has not counted.
    #[cold]
    pub(super) fn drop(&mut self, packet: Packet, reason: Reason) {
        self.dp.count_drop(reason, packet.input);
        self.pool.give(packet);
    }

    /// Replaces the steering table.
    pub(super) fn set_steering(&mut self, steering: SteeringTable) {
        self.handoff.steering = steering;
    }

    /// Hands a packet to another worker. It uses the share of `charged_vport`; without room it is dropped.
    #[inline]
    pub(super) fn hand_off(&mut self, packet: Packet, worker: u8, to: Option<Port>, charged_vport: u16) {
        if let Err(packet) = self.handoff.push(worker, packet, to, charged_vport) {
            self.count_drop_of(charged_vport, Reason::WorkerFull);
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

    /// Keeps this worker's packets of a burst from the wire, in order, and hands the others off.
    pub(super) fn hand_off_foreign(&mut self, packets: &mut Vec<Packet>) {
        let mut own = std::mem::take(&mut self.own);
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
        self.own = own;
    }

    /// Sends a packet that another worker handed to this one by a local port.
    pub(super) fn send_handed(&mut self, packet: Packet, to: Port) {
        match self.egress(to) {
            Ok(egress @ Egress::Local(_)) => self.enqueue(packet, to, egress),
            // The port has moved meanwhile.
            Ok(Egress::Remote(_)) => self.drop(packet, unreachable_reason(to)),
            Err(reason) => self.drop(packet, reason),
        }
    }
}
