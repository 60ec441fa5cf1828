//! Packets that wait for the decision on their flow.

use culvert_flow::pending::BufferId;

use crate::packet::Packet;

/// Waiting packets by number. The core's pending table has their order.
pub(super) struct PendedPackets(Vec<Option<Packet>>);

impl PendedPackets {
    /// For packets whose numbers are below `packets`.
    pub(super) fn new(packets: usize) -> Self {
        PendedPackets((0..packets).map(|_| None).collect())
    }

    /// Keeps a packet. Returns it if its number is out of range.
    pub(super) fn insert(&mut self, packet: Packet) -> Result<(), Packet> {
        match self.0.get_mut(packet.number() as usize) {
            Some(place) => {
                *place = Some(packet);
                Ok(())
            }
            None => Err(packet),
        }
    }

    /// Takes a packet out.
    pub(super) fn take(&mut self, number: BufferId) -> Option<Packet> {
        self.0.get_mut(number as usize)?.take()
    }

    /// How many packets wait.
    pub(super) fn len(&self) -> usize {
        self.0.iter().flatten().count()
    }
}
