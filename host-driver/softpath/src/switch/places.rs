//! Where ports are: in a slot of this worker, or at another worker.

use culvert_flow::Port;
use culvert_flow::tables::Vport;
use culvert_packet::{Reason, VportId};

use super::forwarder::Forwarder;
use super::homes::NOBODY;
use super::packet::Packet;
use super::slot::{Opener, Slot};
use super::steps::name;

/// No port.
const NOWHERE: u16 = u16::MAX;
/// The port of worker 0; those of others follow. All that is less is a slot.
const AWAY: u16 = 0xff00;

/// Where each port is.
pub(super) struct Places {
    vports: Vec<u16>,
    uplinks: [u16; Port::UPLINKS as usize],
}

/// Where packets to a port leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By a slot of this worker.
    Slot(usize),
    /// By a port of another worker.
    Worker(u8),
}

impl Places {
    pub(super) fn new() -> Self {
        let vports = vec![NOWHERE; usize::from(Port::MAX_VPORTS)];
        Places { vports, uplinks: [NOWHERE; Port::UPLINKS as usize] }
    }

    fn place(&mut self, at: Port) -> Option<&mut u16> {
        match at {
            Port::Vport(id) => self.vports.get_mut(usize::from(id.0)),
            Port::Uplink(n) => self.uplinks.get_mut(usize::from(n)),
            Port::Host | Port::None => None,
        }
    }

    #[inline]
    fn get(&self, at: Port) -> Option<Way> {
        let n = match at {
            Port::Vport(id) => self.vports.get(usize::from(id.0)),
            Port::Uplink(n) => self.uplinks.get(usize::from(n)),
            Port::Host | Port::None => None,
        };
        match *n? {
            slot @ 0..AWAY => Some(Way::Slot(usize::from(slot))),
            NOWHERE => None,
            away => Some(Way::Worker((away - AWAY) as u8)),
        }
    }
}

impl Forwarder {
    /// Attaches a port, where another may have been. See [`Switch::attach`](super::Switch::attach).
    pub fn attach(&mut self, at: Port, open: Opener) {
        // Closed first: not every port can be open twice.
        self.detach(at);
        let slot = Slot::new(at, name(at), open, self.now);
        let n = self.slots.len() as u16;
        if let Some(place) = self.places.place(at) {
            *place = n;
            self.slots.push(slot);
            self.moved = true;
        }
    }

    /// Another worker has a port.
    pub(super) fn lead(&mut self, at: Port, worker: u8) {
        self.detach(at);
        self.exceptions.forget(at);
        if let Some(place) = self.places.place(at) {
            *place = AWAY + u16::from(worker);
        }
    }

    /// Takes a port away. What waits to leave by it is sent before.
    pub fn detach(&mut self, at: Port) {
        self.flush();
        let place = self.places.place(at).map(|place| std::mem::replace(place, NOWHERE));
        let Some(n) = place.filter(|n| *n < AWAY) else { return };
        self.slots.swap_remove(usize::from(n)).retire();
        self.moved = true;
        if let Some(moved) = self.slots.get(usize::from(n)).map(|slot| slot.at)
            && let Some(place) = self.places.place(moved)
        {
            *place = n;
        }
    }

    /// The slot of a port.
    pub(super) fn slot(&self, at: Port) -> Option<&Slot> {
        match self.places.get(at)? {
            Way::Slot(n) => self.slots.get(n),
            Way::Worker(_) => None,
        }
    }

    /// Where packets to a port leave.
    #[inline]
    pub(super) fn way(&self, to: Port) -> Result<Way, Reason> {
        if let Port::Vport(VportId(n)) = to {
            match self.dp.vports.get(usize::from(n)) {
                Some(vport) if vport.is_up() => {}
                Some(vport) if vport.flags & Vport::PRESENT != 0 => return Err(Reason::VportDown),
                _ => return Err(Reason::NoVport),
            }
        }
        self.places.get(to).ok_or(nobody(to))
    }

    /// Puts a packet to what leaves by a port at the end of the burst.
    #[inline]
    pub(super) fn put(&mut self, packet: Packet, to: Port, way: Way) {
        match way {
            Way::Slot(n) => {
                let out = &mut self.slots[n].out;
                if out.is_empty() {
                    self.dirty.push(n as u16);
                }
                out.push(packet);
            }
            Way::Worker(worker) => {
                let payer = match (packet.input, to) {
                    (Port::Vport(id), _) | (_, Port::Vport(id)) => id.0,
                    _ => NOBODY,
                };
                self.pass(packet, worker, Some(to), payer);
            }
        }
    }

    /// Whether a port is listened to: its packets have room wherever they may go.
    #[inline]
    pub(super) fn is_heard(&mut self, at: Port) -> bool {
        match at {
            Port::Vport(id) => !self.exceptions.is_used_up(at) && self.crossing.has_room(id.0),
            _ => true,
        }
    }
}

/// Why a packet does not leave by a port that is not there.
pub(super) fn nobody(to: Port) -> Reason {
    match to {
        Port::Uplink(_) => Reason::UplinkDown,
        Port::Vport(_) => Reason::QueueStopped,
        Port::Host | Port::None => Reason::NoVport,
    }
}
