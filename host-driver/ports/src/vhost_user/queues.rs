//! The rings of a guest in the hands of the thread that moves packets. Even numbers are those on which the guest receives.

use std::sync::Arc;

use culvert_packet::{ChecksumState, Gso, Offload};
use culvert_virtio::{Chain, ReceiveBuffers, Reserved, RingFault};

use super::control::{ActiveVring, Answer, ControlRx, Notifier, VringCommand};
use super::frames::{self, Taken};
use super::spread;
use super::status::Shared;
use super::vnet;
use culvert_packet::segment::{MAX_HEADERS, Segmentation};
use culvert_switch::{BURST, Packet, Pool, Sent};

/// All rings.
pub(super) struct Queues {
    rings: Vec<Option<Box<ActiveVring>>>,
    /// Numbers of those on which the guest receives now.
    receivers: Vec<usize>,
    /// The pair whose turn it is to be asked first for frames.
    turn: usize,
    /// A fault was found in one of the rings.
    stopped: bool,
    /// Whether guests were asked to kick.
    armed: bool,
    /// The chains of a burst, and their heads.
    chains: [Chain; BURST],
    heads: [u16; BURST],
    receive_buffers: ReceiveBuffers,
    taken: Vec<(u16, u32)>,
    shared: Arc<Shared>,
    /// Frames that were discarded.
    pub(super) lost: u64,
    /// Nobody serves connections any more.
    pub(super) ended: bool,
}

impl Queues {
    pub(super) fn new(pairs: usize, shared: Arc<Shared>) -> Self {
        Queues {
            rings: std::iter::repeat_with(|| None).take(2 * pairs).collect(),
            receivers: Vec::with_capacity(pairs),
            turn: 0,
            stopped: false,
            armed: false,
            chains: std::array::from_fn(|_| Chain::default()),
            heads: [0; BURST],
            receive_buffers: ReceiveBuffers::default(),
            taken: Vec::new(),
            shared,
            lost: 0,
            ended: false,
        }
    }

    /// Does what the connection's thread wants done.
    #[inline]
    pub(super) fn obey(&mut self, inbox: &ControlRx) {
        while let Some(order) = inbox.next() {
            let answer = self.execute(order);
            self.look();
            inbox.answer(answer);
        }
    }

    fn execute(&mut self, order: VringCommand) -> Answer {
        let mut answer = Answer::default();
        match order {
            VringCommand::Exchange(n, ring) => {
                // Who had the ring before may have died between a frame and its interrupt.
                if let Some(new) = &ring {
                    ring_bell(&new.call);
                }
                if let Some(place) = self.rings.get_mut(n) {
                    answer.ring = std::mem::replace(place, ring);
                }
            }
            VringCommand::Enable(n, enabled) => {
                if let Some(ring) = self.ring(n) {
                    ring.enabled = enabled;
                }
            }
            VringCommand::Call(n, bell) => {
                if let Some(ring) = self.ring(n) {
                    // What the old file was not told of, the new one is.
                    answer._bell = std::mem::replace(&mut ring.call, bell);
                    ring_bell(&ring.call);
                }
            }
            VringCommand::End => self.ended = true,
        }
        answer
    }

    fn ring(&mut self, n: usize) -> Option<&mut ActiveVring> {
        self.rings.get_mut(n)?.as_deref_mut()
    }

    /// Looks which rings can be used.
    fn look(&mut self) {
        self.stopped = self.rings.iter().flatten().any(|ring| ring.broken);
        self.receivers.clear();
        let usable = |n: usize, ring: &Option<Box<ActiveVring>>| {
            !self.stopped && n.is_multiple_of(2) && ring.as_ref().is_some_and(|ring| ring.enabled)
        };
        let rings = self.rings.iter().enumerate();
        self.receivers.extend(rings.filter(|(n, ring)| usable(*n, ring)).map(|(n, _)| n));
    }

    /// What is wrong with one ring stops the whole port.
    fn stop(&mut self, n: usize, fault: RingFault) {
        self.shared.fault(fault);
        self.stopped = true;
        self.receivers.clear();
        if let Some(ring) = self.ring(n) {
            ring.broken = true;
            ring_bell(&ring.error);
        }
        tracing::warn!(path = %self.shared.path.display(), ring = n, %fault, "the port of a VM has stopped: a ring cannot be used");
    }

    /// The ring of this number, if its guest sends on it. One that is not enabled is left alone, although vhost-user would
    /// have its frames discarded: those that waited while the VMM reconnected would be lost.
    fn transmitter(&mut self, n: usize) -> Option<&mut ActiveVring> {
        let stopped = self.stopped;
        self.ring(n).filter(|ring| ring.enabled && !stopped)
    }

    /// Whether a guest has set up what is needed to talk.
    pub(super) fn link(&mut self) -> bool {
        !self.receivers.is_empty() && (1..self.rings.len()).step_by(2).any(|n| self.transmitter(n).is_some())
    }

    /// Takes frames of all rings, beginning with another one each time.
    pub(super) fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, most: usize) {
        if std::mem::take(&mut self.armed) {
            self.notify(false);
        }
        let pairs = self.rings.len() / 2;
        self.turn = (self.turn + 1) % pairs.max(1);
        for pair in 0..pairs {
            let n = 2 * ((self.turn + pair) % pairs) + 1;
            if let Err(fault) = self.receive_on(n, pool, packets, most) {
                return self.stop(n, fault);
            }
        }
    }

    fn receive_on(
        &mut self,
        n: usize,
        pool: &mut Pool,
        packets: &mut Vec<Packet>,
        most: usize,
    ) -> Result<(), RingFault> {
        let stopped = self.stopped;
        let running = self.rings.get_mut(n).and_then(Option::as_deref_mut);
        let Some(running) = running.filter(|ring| ring.enabled && !stopped) else { return Ok(()) };
        let (ring, parts, features) = (&mut running.ring, &running.parts, running.features);
        let mut result = Ok(());
        self.taken.clear();
        // What is discarded counts too: a guest does not hold up its neighbours by sending nonsense.
        let mut left = usize::from(ring.waiting(parts)?).min(most.saturating_sub(packets.len()));
        ring.prefetch(parts, left as u16, false);
        while left > 0 && result.is_ok() {
            // All chains of a burst first: their frames are on their way from the guest's core while others are copied.
            let mut read = 0;
            for (head, chain) in self.heads.iter_mut().zip(&mut self.chains).take(left) {
                match ring.peek(parts, (self.taken.len() + read) as u16, chain) {
                    Ok(index) => *head = index,
                    Err(fault) => {
                        result = Err(fault);
                        break;
                    }
                }
                frames::prefetch(parts, chain.readable());
                read += 1;
            }
            left -= read;
            for (head, chain) in self.heads.iter().zip(&self.chains).take(read) {
                match frames::take(parts, chain.readable(), features, pool) {
                    Ok(Taken::Frame(packet)) => packets.push(packet),
                    Ok(Taken::Discarded(why)) => {
                        self.shared.discard(why);
                        self.lost += 1;
                    }
                    Ok(Taken::NoBuffer) => {
                        left = 0;
                        break;
                    }
                    Err(fault) => {
                        result = Err(fault);
                        break;
                    }
                }
                self.taken.push((*head, 0));
            }
        }
        // What was taken is given back also before a fault.
        if !self.taken.is_empty() {
            ring.complete(parts, &self.taken)?;
            ring.publish(parts)?;
            if ring.take_interrupt(parts)? {
                ring_bell(&running.call);
            }
        }
        result
    }

    /// Sends frames, each to the ring of its flow.
    pub(super) fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> Sent {
        let mut sent = Sent::default();
        let each = packets.len().checked_div(self.receivers.len()).unwrap_or(0) as u16;
        for n in 0..self.receivers.len() {
            if let Some(running) = self.receivers.get(n).and_then(|n| self.rings.get(*n)?.as_ref()) {
                running.ring.prefetch(&running.parts, each, true);
            }
        }
        for packet in packets.iter_mut() {
            let choice = spread::choose(packet.bytes(), self.receivers.len());
            match self.receivers.get(choice).copied() {
                Some(n) => {
                    if let Err(fault) = self.write(n, packet, &mut sent) {
                        sent.down += 1;
                        // What went before is the guest's also after a fault.
                        let _published = self.ring(n).map(|running| running.ring.publish(&running.parts));
                        self.stop(n, fault);
                    }
                }
                None => sent.down += 1,
            }
        }
        // Behind all writes to the guest, which take their time: buffers that go back between them would wait for each.
        packets.drain(..).for_each(|packet| pool.give(packet));
        for n in (0..self.rings.len()).step_by(2) {
            let Some(running) = self.ring(n).filter(|ring| !ring.broken) else { continue };
            match running
                .ring
                .publish(&running.parts)
                .and_then(|()| running.ring.take_interrupt(&running.parts))
            {
                Ok(true) => ring_bell(&running.call),
                Ok(false) => {}
                Err(fault) => self.stop(n, fault),
            }
        }
        sent
    }

    /// Sends a frame. One that is yet to be segmented stays whole for a guest that takes it so.
    fn write(&mut self, n: usize, packet: &mut Packet, sent: &mut Sent) -> Result<(), RingFault> {
        let Some(features) = self.ring(n).map(|ring| ring.features) else { return Ok(()) };
        let offload = packet.offload;
        if offload.gso == Gso::None {
            if !features.guest_checksum() && !offload.fill_checksum(packet.bytes_mut()) {
                sent.refused += 1;
                return Ok(());
            }
            return self.put(n, &offload, 0, [packet.bytes(), &[]], sent);
        }
        let Some(cut) = Segmentation::of(packet.bytes(), &offload) else {
            sent.refused += 1;
            return Ok(());
        };
        if features.guest_takes(offload.gso) && !cut.is_encapsulated() {
            let (offload, headers) = cut.leave_whole(packet.bytes_mut(), &offload);
            return self.put(n, &offload, headers, [packet.bytes(), &[]], sent);
        }
        let whole = Offload { checksum: ChecksumState::Verified, ..Offload::default() };
        let mut header = [0; MAX_HEADERS];
        for segment in 0..cut.count() {
            let (len, payload) = cut.segment(packet.bytes(), segment, &mut header);
            self.put(n, &whole, 0, [&header[..len], &packet.bytes()[payload]], sent)?;
        }
        Ok(())
    }

    fn put(
        &mut self,
        n: usize,
        offload: &Offload,
        headers: u16,
        pieces: [&[u8]; 2],
        sent: &mut Sent,
    ) -> Result<(), RingFault> {
        let Some(running) = self.rings.get_mut(n).and_then(Option::as_deref_mut) else { return Ok(()) };
        let features = running.features;
        // A guest that has not agreed to be told of checksums finds nothing in its headers.
        let told = if features.guest_checksum() { *offload } else { Offload::default() };
        let header = vnet::write(&told, headers);
        let (ring, parts, buffers) = (&mut running.ring, &running.parts, &mut self.receive_buffers);
        match frames::put(ring, parts, buffers, features, &header, pieces)? {
            Reserved::Done => {
                sent.packets += 1;
                sent.bytes += (pieces[0].len() + pieces[1].len()) as u64;
            }
            Reserved::Full => sent.full += 1,
            Reserved::TooLong => sent.refused += 1,
        }
        Ok(())
    }

    fn notify(&mut self, on: bool) {
        for n in (1..self.rings.len()).step_by(2) {
            let Some(running) = self.ring(n).filter(|ring| !ring.broken) else { continue };
            if let Err(fault) = running.ring.set_notify(&running.parts, on) {
                self.stop(n, fault);
            }
        }
    }

    /// Asks guests to kick. `false`: a frame is there, or there is one who cannot.
    pub(super) fn arm(&mut self) -> bool {
        self.armed = true;
        self.notify(true);
        let mut quiet = true;
        for n in (1..self.rings.len()).step_by(2) {
            let Some(running) = self.transmitter(n) else { continue };
            match running.ring.waiting(&running.parts) {
                Ok(waiting) => quiet &= waiting == 0 && !running.polled,
                Err(fault) => self.stop(n, fault),
            }
        }
        quiet || self.stopped
    }
}

/// Writes to a file that was made not to wait. A counter that is full has not been read: nothing is lost.
fn ring_bell(bell: &Notifier) {
    if let Some(bell) = bell {
        let _rung = rustix::io::write(bell, &1u64.to_ne_bytes());
    }
}
