//! The port table: which ports this worker serves, and which ports other workers serve.

use culvert_flow::{Datapath, Port};

use crate::attached_port::{AttachedPort, Drops};
use crate::packet::Packet;
use crate::pool::Pool;
use crate::port::Opener;
use crate::port_control::PortControlTx;
use crate::tables;
use crate::work;

/// An entry for a port that no worker serves.
const UNBOUND: u16 = u16::MAX;
/// The entry for a port of worker 0; those for other workers follow. Entries below are indices of local ports.
const REMOTE_BASE: u16 = 0xff00;

/// Where packets to a port leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Egress {
    /// By a port of this worker.
    Local(usize),
    /// By a port of another worker.
    Remote(u8),
}

/// All ports, as one worker knows them.
pub(super) struct PortTable {
    /// Ports that this worker serves.
    local: Vec<AttachedPort>,
    /// By vport number.
    vports: Vec<u16>,
    uplinks: [u16; Port::UPLINKS as usize],
    /// Local ports with packets to send.
    dirty: Vec<u16>,
    /// Whether a port was attached or detached since the last [`take_changed`](Self::take_changed).
    changed: bool,
    /// Opens and closes the local ports.
    control: PortControlTx,
    /// Empty between two flushes.
    drops: Drops,
    /// Work of descriptors that delivery took since the last [`take_tx_work`](Self::take_tx_work).
    tx_work: u32,
}

impl PortTable {
    pub(super) fn new() -> Self {
        PortTable {
            local: Vec::new(),
            vports: vec![UNBOUND; usize::from(Port::MAX_VPORTS)],
            uplinks: [UNBOUND; Port::UPLINKS as usize],
            dirty: Vec::with_capacity(usize::from(Port::MAX_VPORTS)),
            changed: false,
            control: PortControlTx::default(),
            drops: Vec::new(),
            tx_work: 0,
        }
    }

    /// Has ports opened and closed by other threads from now on.
    pub(super) fn set_control(&mut self, control: PortControlTx) {
        self.control = control;
    }

    fn entry(&mut self, at: Port) -> Option<&mut u16> {
        match at {
            Port::Vport(id) => self.vports.get_mut(usize::from(id.0)),
            Port::Uplink(n) => self.uplinks.get_mut(usize::from(n)),
            Port::Host | Port::None => None,
        }
    }

    /// Where packets to a port leave. `None`: no worker serves it.
    #[inline]
    pub(super) fn egress(&self, at: Port) -> Option<Egress> {
        let n = match at {
            Port::Vport(id) => self.vports.get(usize::from(id.0)),
            Port::Uplink(n) => self.uplinks.get(usize::from(n)),
            Port::Host | Port::None => None,
        };
        match *n? {
            local @ 0..REMOTE_BASE => Some(Egress::Local(usize::from(local))),
            UNBOUND => None,
            remote => Some(Egress::Remote((remote - REMOTE_BASE) as u8)),
        }
    }

    /// Attaches a local port. The port must be detached before, so that it is closed before it opens again: not every port
    /// can be open twice.
    pub(super) fn attach(&mut self, at: Port, open: Opener, now: u32) {
        let n = self.local.len() as u16;
        if let Some(entry) = self.entry(at) {
            *entry = n;
            self.local.push(AttachedPort::new(at, open, now, self.control.clone()));
            self.changed = true;
        }
    }

    /// Notes that another worker serves a port.
    pub(super) fn set_remote(&mut self, at: Port, worker: u8) {
        if let Some(entry) = self.entry(at) {
            *entry = REMOTE_BASE + u16::from(worker);
        }
    }

    /// Forgets a port, and has it closed if it is local. Its packets must be flushed before.
    pub(super) fn detach(&mut self, at: Port) {
        let old = self.entry(at).map(|entry| std::mem::replace(entry, UNBOUND));
        let Some(n) = old.filter(|n| *n < REMOTE_BASE) else { return };
        self.local.swap_remove(usize::from(n)).destroy();
        self.changed = true;
        if let Some(moved) = self.local.get(usize::from(n)).map(AttachedPort::at)
            && let Some(entry) = self.entry(moved)
        {
            *entry = n;
        }
    }

    /// Whether a port was attached, detached or opened, or a link has changed, since the last call.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed) | self.control.take_changed()
    }

    /// The same, without forgetting it.
    pub(super) fn is_changed(&self) -> bool {
        self.changed || self.control.is_changed()
    }

    /// Gives up the frames of a local port that wait for a turn. Returns how many.
    pub(super) fn clear_turn(&mut self, at: Port, pool: &mut Pool) -> u64 {
        match self.egress(at) {
            Some(Egress::Local(n)) => self.local.get_mut(n).map_or(0, |port| port.turn.clear(pool)),
            _ => 0,
        }
    }

    /// A local port by port name.
    pub(super) fn get(&self, at: Port) -> Option<&AttachedPort> {
        match self.egress(at)? {
            Egress::Local(n) => self.local.get(n),
            Egress::Remote(_) => None,
        }
    }

    /// The local ports.
    pub(super) fn local(&self) -> &[AttachedPort] {
        &self.local
    }

    /// The local ports, to be polled and armed.
    pub(super) fn local_mut(&mut self) -> &mut [AttachedPort] {
        &mut self.local
    }

    /// Queues a packet at a local port, until the end of the burst.
    #[inline]
    pub(super) fn enqueue(&mut self, n: usize, packet: Packet) {
        let out = &mut self.local[n].out;
        if out.is_empty() {
            self.dirty.push(n as u16);
        }
        out.push(packet);
    }

    /// Sends what is queued at all local ports, and counts it.
    pub(super) fn flush(&mut self, dp: &mut Datapath<'static>, pool: &mut Pool, now: u32) {
        while let Some(n) = self.dirty.pop() {
            let Some(port) = self.local.get_mut(usize::from(n)) else { continue };
            let sent = port.flush(pool, now, &mut self.drops);
            self.tx_work = self.tx_work.saturating_add(work::of_descriptors(sent.descriptors));
            if let Some(vport) = tables::vport(dp, port.at()) {
                vport.tx_packets += sent.packets;
                vport.tx_bytes += sent.bytes;
            }
            self.drops.drain(..).for_each(|(reason, count)| dp.count_drops(reason, port.at(), count));
        }
    }

    /// Work of descriptors that delivery took since the last call.
    #[inline]
    pub(super) fn take_tx_work(&mut self) -> u32 {
        std::mem::take(&mut self.tx_work)
    }

    /// Counts frames that local ports dropped on reception.
    pub(super) fn count_rx_drops(&mut self, dp: &mut Datapath<'static>) {
        for port in &mut self.local {
            for (reason, dropped) in port.take_rx_drops() {
                dp.count_drops(reason, port.at(), dropped);
            }
        }
    }
}
