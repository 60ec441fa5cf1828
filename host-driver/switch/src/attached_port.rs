//! An attached port: the place of a port in a switch, which reopens it when it breaks, queues packets for it and counts.

use std::io;
use std::sync::Arc;

use culvert_flow::Port;
use culvert_offload::PortCounters;
use culvert_packet::Reason;

use crate::BURST;
use crate::packet::Packet;
use crate::pool::Pool;
use crate::port::{Opener, Sent, SwitchPort};
use crate::port_control::{Closing, OpenPort, Opening, PortControlTx};
use crate::port_state::{LengthDrops, PortState};
use crate::turn::Turn;
use crate::work;

/// Dropped frames by reason.
pub type Drops = Vec<(Reason, u64)>;

/// Milliseconds between two attempts to open a port.
const RETRY_MS: u32 = 1000;

/// A port with its queue and counters.
pub struct AttachedPort {
    at: Port,
    /// Packets that leave at the end of the burst.
    pub out: Vec<Packet>,
    /// What passed the port.
    pub counters: PortCounters,
    /// How much work its frames may still make.
    pub(super) turn: Turn,
    link: bool,
    control: PortControlTx,
    /// `None` while the port is being opened.
    open: Option<Opener>,
    opening: Option<Opening>,
    port: Option<OpenPort>,
    next_try: u32,
    /// Why the port broke or does not open, until it is open.
    problem: Option<Arc<str>>,
    /// Frames that were too long.
    too_long: u64,
    name: String,
}

impl AttachedPort {
    /// Attaches a port and has it opened, `now` being the time in milliseconds, wrapping.
    pub fn new(at: Port, open: Opener, now: u32, control: PortControlTx) -> Self {
        let mut port = AttachedPort {
            at,
            out: Vec::with_capacity(BURST),
            counters: PortCounters::default(),
            turn: Turn::default(),
            link: false,
            control,
            open: Some(open),
            opening: None,
            port: None,
            next_try: now,
            problem: None,
            too_long: 0,
            name: name(at),
        };
        port.reopen_if_due(now);
        port
    }

    /// Which port of the datapath it is.
    #[inline]
    pub fn at(&self) -> Port {
        self.at
    }

    /// Whether the link was up when it was last polled: whether there is an other side.
    pub fn link(&self) -> bool {
        self.link
    }

    /// Its state, with the link as it was when it was last polled.
    pub fn state(&self) -> PortState {
        match (&self.port, &self.problem) {
            (Some(_), _) if self.link => PortState::Up,
            (Some(_), _) => PortState::NoLink,
            (None, Some(why)) => PortState::Failed(Arc::clone(why)),
            (None, None) => PortState::Opening,
        }
    }

    /// Frames that were too long for it.
    pub fn length_drops(&self) -> LengthDrops {
        let mtu = self.port.as_ref().and_then(|open| open.port.mtu());
        LengthDrops { packets: self.too_long, mtu }
    }

    /// Takes a port that was opened, has a broken one opened if the time for another attempt has come, and polls the link.
    pub fn reopen_if_due(&mut self, now: u32) {
        // Milliseconds wrap.
        if self.port.is_none()
            && now.wrapping_sub(self.next_try) < u32::MAX / 2
            && let Some(open) = self.open.take()
        {
            self.opening = Some(self.control.open(self.at, open));
        }
        self.take_opened(now);
        self.poll_link();
    }

    /// Whether the port is just being opened.
    pub(super) fn is_opening(&self) -> bool {
        self.opening.is_some()
    }

    /// Takes the port if it was opened.
    fn take_opened(&mut self, now: u32) {
        let Some(opened) = self.opening.as_ref().and_then(|opening| opening.opened.try_recv().ok()) else {
            return;
        };
        (self.opening, self.open) = (None, Some(opened.open));
        match opened.port {
            Ok(port) => {
                if self.problem.take().is_some() {
                    tracing::info!(port = self.name, "the port is open");
                }
                self.port = Some(port);
            }
            Err(error) => {
                self.next_try = now.wrapping_add(RETRY_MS);
                self.set_problem(&error, "cannot open the port; will retry");
            }
        }
    }

    /// Notes why the port is not open. Says it once: it is tried again every second.
    fn set_problem(&mut self, error: &io::Error, what: &str) {
        let text = error.to_string();
        if self.problem.as_deref() != Some(&text) {
            tracing::warn!(port = self.name, error = text, "{what}");
            self.problem = Some(text.into());
        }
    }

    /// Polls the link.
    pub fn poll_link(&mut self) {
        self.link = self.port.as_mut().is_some_and(OpenPort::link);
    }

    fn close_broken(&mut self, error: &io::Error, now: u32) {
        self.set_problem(error, "port broken; will reopen it");
        self.close(false);
        (self.link, self.next_try) = (false, now.wrapping_add(RETRY_MS));
    }

    /// Has the port closed.
    fn close(&mut self, destroy: bool) {
        let (port, opening) =
            (self.port.take().map(Closing::Port), self.opening.take().map(Closing::Opening));
        for closing in port.into_iter().chain(opening) {
            self.control.close(self.at, closing, destroy);
        }
    }

    /// Receives packets until `packets` has `max` of them.
    #[inline]
    pub fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, max: usize, now: u32) {
        if let Some(open) = &mut self.port
            && let Err(error) = open.port.receive(pool, packets, max)
        {
            self.close_broken(&error, now);
        }
    }

    /// Sends the queued packets. Adds frames that did not leave to `drops`.
    pub fn flush(&mut self, pool: &mut Pool, now: u32, drops: &mut Drops) -> Sent {
        let count = self.out.len() as u64;
        let down = unreachable_reason(self.at);
        let Some(OpenPort { port, .. }) = &mut self.port else {
            self.out.drain(..).for_each(|packet| pool.give(packet));
            drops.push((down, count));
            self.counters.drops += count;
            return Sent::default();
        };
        match port.send(pool, &mut self.out) {
            Ok(sent) => {
                self.counters.out_packets += sent.packets;
                self.counters.out_bytes += sent.bytes;
                self.counters.drops += sent.full + sent.down + sent.refused;
                self.too_long += sent.refused;
                let all = [(Reason::RingFull, sent.full), (down, sent.down), (Reason::TooLong, sent.refused)];
                drops.extend(all.iter().filter(|(_, n)| *n > 0));
                sent
            }
            Err(error) => {
                self.close_broken(&error, now);
                drops.push((down, count));
                self.counters.drops += count;
                Sent::default()
            }
        }
    }

    /// Work of descriptors of frames received since the last call.
    #[inline]
    pub(super) fn take_rx_work(&mut self) -> u32 {
        work::of_descriptors(self.port.as_mut().map_or(0, |open| open.port.take_rx_descriptors()))
    }

    /// Frames that the port dropped on reception since the last call, by reason.
    pub fn take_rx_drops(&mut self) -> [(Reason, u64); 2] {
        let taken = |open: &mut OpenPort| (open.port.take_rx_drops(), open.port.take_rx_too_long());
        let (full, too_long) = self.port.as_mut().map_or((0, 0), taken);
        self.counters.drops += full + too_long;
        self.too_long += too_long;
        [(Reason::RingFull, full), (Reason::TooLong, too_long)]
    }

    /// Has the port removed for good, with what it made outside of this process. Nothing passes it any more; it is closed
    /// soon, in any case before another port of this name opens.
    pub fn destroy(mut self) {
        self.close(true);
    }

    /// The port, if it is open.
    pub fn port(&mut self) -> Option<&mut dyn SwitchPort> {
        self.port.as_mut().map(|open| &mut *open.port as &mut dyn SwitchPort)
    }
}

impl Drop for AttachedPort {
    fn drop(&mut self) {
        self.close(false);
    }
}

/// The reason for drops at a port that is not there.
pub(super) fn unreachable_reason(to: Port) -> Reason {
    match to {
        Port::Uplink(_) => Reason::UplinkDown,
        Port::Vport(_) => Reason::QueueStopped,
        Port::Host | Port::None => Reason::NoVport,
    }
}

/// What a port is called in messages.
fn name(at: Port) -> String {
    match at {
        Port::Vport(id) => format!("vport {}", id.0),
        Port::Uplink(n) => format!("uplink {n}"),
        Port::Host | Port::None => "no port".to_owned(),
    }
}
