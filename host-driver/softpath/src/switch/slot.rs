//! A port in its place: opened anew when it breaks, with what waits to be sent and what it has counted.

use std::io;

use culvert_flow::Port;
use culvert_packet::Reason;
use culvert_pf::PortCounters;

use super::packet::{Packet, Pool};
use super::port::{Sent, SwitchPort};

/// Opens a port, as often as it breaks. It is called on the worker's thread and should take little time.
pub type Opener = Box<dyn FnMut() -> io::Result<Box<dyn SwitchPort>> + Send>;

/// Milliseconds between tries to open a port.
const RETRY: u32 = 1000;

/// The place of a port.
pub(super) struct Slot {
    /// What the data path calls it.
    pub(super) at: Port,
    /// What waits for the end of the burst.
    pub(super) out: Vec<Packet>,
    pub(super) counters: PortCounters,
    /// Whether somebody is on the other side, as it was last seen.
    pub(super) link: bool,
    open: Opener,
    port: Option<Box<dyn SwitchPort>>,
    next_try: u32,
    name: String,
}

/// Frames of a port that went nowhere, and why.
pub(super) type Lost = Vec<(Reason, u64)>;

impl Slot {
    pub(super) fn new(at: Port, name: String, open: Opener, now: u32) -> Self {
        let mut slot = Slot {
            at,
            out: Vec::with_capacity(super::BURST),
            counters: PortCounters::default(),
            link: false,
            open,
            port: None,
            next_try: now,
            name,
        };
        slot.revive(now);
        slot
    }

    /// Opens a broken port, now and then. `true`: it is there.
    pub(super) fn revive(&mut self, now: u32) -> bool {
        // Milliseconds wrap.
        if self.port.is_none() && now.wrapping_sub(self.next_try) < u32::MAX / 2 {
            self.next_try = now.wrapping_add(RETRY);
            match (self.open)() {
                Ok(port) => self.port = Some(port),
                Err(error) => tracing::warn!(port = self.name, %error, "cannot be opened; trying again"),
            }
        }
        self.look();
        self.port.is_some()
    }

    /// Looks whether there is a link.
    pub(super) fn look(&mut self) {
        self.link = self.port.as_mut().is_some_and(|port| port.link());
    }

    fn broken(&mut self, error: &io::Error, now: u32) {
        tracing::warn!(port = self.name, %error, "port broken; opening it anew");
        (self.port, self.link, self.next_try) = (None, false, now.wrapping_add(RETRY));
    }

    /// Takes what has come.
    #[inline]
    pub(super) fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, most: usize, now: u32) {
        if let Some(port) = &mut self.port
            && let Err(error) = port.receive(pool, packets, most)
        {
            self.broken(&error, now);
        }
    }

    /// Sends what waits. What did not leave is told by reason in `lost`.
    pub(super) fn flush(&mut self, pool: &mut Pool, now: u32, lost: &mut Lost) -> Sent {
        let count = self.out.len() as u64;
        let nobody = match self.at {
            Port::Uplink(_) => Reason::UplinkDown,
            _ => Reason::QueueStopped,
        };
        let Some(port) = &mut self.port else {
            self.out.drain(..).for_each(|packet| pool.give(packet));
            lost.push((nobody, count));
            self.counters.drops += count;
            return Sent::default();
        };
        match port.send(pool, &mut self.out) {
            Ok(sent) => {
                self.counters.out_packets += sent.packets;
                self.counters.out_bytes += sent.bytes;
                self.counters.drops += sent.full + sent.down + sent.refused;
                let all =
                    [(Reason::RingFull, sent.full), (nobody, sent.down), (Reason::TooLong, sent.refused)];
                lost.extend(all.iter().filter(|(_, n)| *n > 0));
                sent
            }
            Err(error) => {
                self.broken(&error, now);
                lost.push((nobody, count));
                self.counters.drops += count;
                Sent::default()
            }
        }
    }

    /// Frames lost on the way in since this was asked last.
    pub(super) fn lost(&mut self) -> u64 {
        let lost = self.port.as_mut().map_or(0, |port| port.lost());
        self.counters.drops += lost;
        lost
    }

    /// The place is given up.
    pub(super) fn retire(mut self) {
        if let Some(port) = &mut self.port {
            port.retire();
        }
    }

    /// The port, if it is open.
    pub(super) fn port(&mut self) -> Option<&mut dyn SwitchPort> {
        self.port.as_deref_mut().map(|port| port as &mut dyn SwitchPort)
    }
}
