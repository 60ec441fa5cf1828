//! The vrings of a guest, in the thread that forwards packets. The guest receives on even ones, and transmits on odd ones.

use std::sync::Arc;

use culvert_packet::Offload;
use culvert_switch::{BURST, Packet, Pool, Sent};
use culvert_virtio::{Chain, ReceiveBuffers, Reserved, RingFault, total_len};

use super::budget::Budget;
use super::call_fd::CallFd;
use super::control::{ActiveVring, ControlRx, Replaced, VringCommand};
use super::flow_hash;
use super::frame_copy::{self, GuestTx};
use super::status::PortStatus;
use crate::tx_offload::{TxFrame, for_each_frame};
use crate::vnet_hdr;

/// All vrings.
pub(super) struct Vrings {
    vrings: Vec<Option<Box<ActiveVring>>>,
    /// Numbers of the vrings on which the guest receives now.
    receivers: Vec<usize>,
    /// The queue pair that is read first, to be fair.
    next_pair: usize,
    /// Whether a vring had a fault, which stops the port.
    stopped: bool,
    /// Whether the guest was asked to kick.
    armed: bool,
    /// The chains of a burst, and their heads.
    chains: [Chain; BURST],
    heads: [u16; BURST],
    receive_buffers: ReceiveBuffers,
    /// Vrings whose guest is to be interrupted at the end of the burst.
    due: Vec<usize>,
    /// Heads of the chains to complete, with the bytes written to them: none.
    completed: Vec<(u16, u32)>,
    status: Arc<PortStatus>,
    /// Frames of the guest that were dropped.
    pub(super) rx_drops: u64,
    /// Descriptors of the guest's frames beyond one each.
    pub(super) rx_descriptors: u64,
    /// The connection's thread has ended.
    pub(super) closed: bool,
}

impl Vrings {
    /// No vrings yet, of up to `pairs` queue pairs.
    pub(super) fn new(pairs: usize, status: Arc<PortStatus>) -> Self {
        Vrings {
            vrings: std::iter::repeat_with(|| None).take(2 * pairs).collect(),
            receivers: Vec::with_capacity(pairs),
            next_pair: 0,
            stopped: false,
            armed: false,
            chains: std::array::from_fn(|_| Chain::default()),
            heads: [0; BURST],
            receive_buffers: ReceiveBuffers::default(),
            due: Vec::with_capacity(2 * pairs),
            completed: Vec::new(),
            status,
            rx_drops: 0,
            rx_descriptors: 0,
            closed: false,
        }
    }

    /// Takes all vrings out, when the port ends.
    pub(super) fn take_all(&mut self) -> Vec<Option<Box<ActiveVring>>> {
        self.receivers.clear();
        std::mem::take(&mut self.vrings)
    }

    /// Processes the commands of the connection's thread.
    #[inline]
    pub(super) fn process_commands(&mut self, control: &ControlRx) {
        while let Some(command) = control.next() {
            let replaced = self.execute(command);
            self.update_receivers();
            control.answer(replaced);
        }
    }

    fn execute(&mut self, command: VringCommand) -> Replaced {
        let mut replaced = Replaced::default();
        match command {
            VringCommand::Replace(n, vring) => {
                // A former back end may have died between a frame and its interrupt.
                if let Some(new) = &vring {
                    notify(&new.call);
                }
                if let Some(old) = self.vrings.get_mut(n) {
                    replaced.vring = std::mem::replace(old, vring);
                }
            }
            VringCommand::Enable(n, enabled) => {
                if let Some(vring) = self.vring(n) {
                    vring.enabled = enabled;
                }
            }
            VringCommand::SetCall(n, call) => {
                if let Some(vring) = self.vring(n) {
                    // The guest may have missed an interrupt on the old eventfd.
                    replaced._call = std::mem::replace(&mut vring.call, call);
                    notify(&vring.call);
                }
            }
            VringCommand::Close => self.closed = true,
        }
        replaced
    }

    fn vring(&mut self, n: usize) -> Option<&mut ActiveVring> {
        self.vrings.get_mut(n)?.as_deref_mut()
    }

    /// Updates which vrings can be used.
    fn update_receivers(&mut self) {
        self.stopped = self.vrings.iter().flatten().any(|vring| vring.broken);
        self.receivers.clear();
        let usable = |n: usize, vring: &Option<Box<ActiveVring>>| {
            !self.stopped && n.is_multiple_of(2) && vring.as_ref().is_some_and(|vring| vring.enabled)
        };
        let vrings = self.vrings.iter().enumerate();
        self.receivers.extend(vrings.filter(|(n, vring)| usable(*n, vring)).map(|(n, _)| n));
    }

    /// Stops the whole port because of a fault of one vring.
    fn stop(&mut self, n: usize, fault: RingFault) {
        self.status.count_fault(fault);
        self.stopped = true;
        self.receivers.clear();
        if let Some(vring) = self.vring(n) {
            vring.broken = true;
            notify(&vring.error);
        }
        tracing::warn!(path = %self.status.path.display(), vring = n, %fault, "stopped a vhost-user port: a vring is faulty");
    }

    /// The vring of this number, if the guest transmits on it. A disabled vring is not read, although vhost-user would have
    /// its frames dropped: frames that waited while the VMM reconnected would be lost.
    fn transmitter(&mut self, n: usize) -> Option<&mut ActiveVring> {
        let stopped = self.stopped;
        self.vring(n).filter(|vring| vring.enabled && !stopped)
    }

    /// Whether the guest can both receive and transmit.
    pub(super) fn link(&mut self) -> bool {
        !self.receivers.is_empty() && (1..self.vrings.len()).step_by(2).any(|n| self.transmitter(n).is_some())
    }

    /// Receives frames of all vrings, starting with another queue pair each time.
    pub(super) fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, max: usize) {
        if std::mem::take(&mut self.armed) {
            self.set_kicks(false);
        }
        let pairs = self.vrings.len() / 2;
        self.next_pair = (self.next_pair + 1) % pairs.max(1);
        let mut budget = Budget::receive();
        for pair in 0..pairs {
            let n = 2 * ((self.next_pair + pair) % pairs) + 1;
            if let Err(fault) = self.receive_on(n, pool, packets, max, &mut budget) {
                self.stop(n, fault);
                break;
            }
        }
        self.interrupt();
    }

    /// Interrupts the guest on the vrings for which that is due.
    fn interrupt(&mut self) {
        let calls = |n: &usize| self.vrings.get(*n)?.as_ref()?.call.as_ref();
        CallFd::notify_all(self.due.iter().filter_map(calls));
        self.due.clear();
    }

    fn receive_on(
        &mut self,
        n: usize,
        pool: &mut Pool,
        packets: &mut Vec<Packet>,
        max: usize,
        budget: &mut Budget,
    ) -> Result<(), RingFault> {
        let stopped = self.stopped;
        let vring = self.vrings.get_mut(n).and_then(Option::as_deref_mut);
        let Some(vring) = vring.filter(|vring| vring.enabled && !stopped) else { return Ok(()) };
        let (ring, parts, features) = (&mut vring.ring, &vring.parts, vring.features);
        let mut result = Ok(());
        self.completed.clear();
        // Dropped frames count too: a guest must not delay its neighbours by sending invalid ones.
        let mut left = usize::from(ring.waiting(parts)?).min(max.saturating_sub(packets.len()));
        ring.prefetch(parts, left as u16, false);
        while left > 0 && budget.is_left() && result.is_ok() {
            // Reads and prefetches all chains of a burst before it copies: the frames are in the guest's core's cache.
            let mut read = 0;
            for (head, chain) in self.heads.iter_mut().zip(&mut self.chains).take(left) {
                if !budget.is_left() {
                    break;
                }
                match ring.peek(parts, (self.completed.len() + read) as u16, chain) {
                    Ok(index) => *head = index,
                    Err(fault) => {
                        result = Err(fault);
                        break;
                    }
                }
                frame_copy::prefetch(parts, chain.readable());
                // What a driver claims to have sent counts, if it is a frame at all.
                let bytes = total_len(chain.readable()).min(frame_copy::MAX_FRAME) as usize;
                budget.take(chain.readable().len() + chain.writable().len(), bytes);
                read += 1;
            }
            left -= read;
            for (head, chain) in self.heads.iter().zip(&self.chains).take(read) {
                match frame_copy::read(parts, chain.readable(), features, pool) {
                    Ok(GuestTx::Frame(packet)) => packets.push(packet),
                    Ok(GuestTx::Dropped(reason)) => {
                        self.status.count_drop(reason);
                        self.rx_drops += 1;
                    }
                    Ok(GuestTx::NoBuffer) => {
                        left = 0;
                        break;
                    }
                    Err(fault) => {
                        result = Err(fault);
                        break;
                    }
                }
                self.rx_descriptors += chain.readable().len().saturating_sub(1) as u64;
                self.completed.push((*head, 0));
            }
        }
        // Completes the chains before a fault, too.
        if !self.completed.is_empty() {
            ring.complete(parts, &self.completed)?;
            ring.publish(parts)?;
            if ring.take_interrupt(parts)? {
                self.due.push(n);
            }
        }
        result
    }

    /// Sends packets, each to the vring of its flow.
    pub(super) fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> Sent {
        let mut sent = Sent::default();
        let each = packets.len().checked_div(self.receivers.len()).unwrap_or(0) as u16;
        for n in 0..self.receivers.len() {
            if let Some(vring) = self.receivers.get(n).and_then(|n| self.vrings.get(*n)?.as_ref()) {
                vring.ring.prefetch(&vring.parts, each, true);
            }
        }
        let mut budget = Budget::send(packets.len());
        for packet in packets.iter_mut() {
            let choice = flow_hash::select_ring(packet.bytes(), self.receivers.len());
            match self.receivers.get(choice).copied() {
                Some(n) => {
                    if let Err(fault) = self.write(n, packet, &mut budget, &mut sent) {
                        sent.down += 1;
                        // The guest gets the frames before a fault, too.
                        let _published = self.vring(n).map(|vring| vring.ring.publish(&vring.parts));
                        self.stop(n, fault);
                    }
                }
                None => sent.down += 1,
            }
        }
        // Frees the buffers after all writes to the guest, which are slow: freeing one in between would wait for them.
        packets.drain(..).for_each(|packet| pool.give(packet));
        for n in (0..self.vrings.len()).step_by(2) {
            let Some(vring) = self.vring(n).filter(|vring| !vring.broken) else { continue };
            let (ring, parts) = (&mut vring.ring, &vring.parts);
            match ring.publish(parts).and_then(|()| ring.take_interrupt(parts)) {
                Ok(true) => self.due.push(n),
                Ok(false) => {}
                Err(fault) => self.stop(n, fault),
            }
        }
        self.interrupt();
        sent
    }

    /// Sends a packet to a vring. The guest gets a large packet whole if it segments it itself.
    fn write(
        &mut self,
        n: usize,
        packet: &mut Packet,
        budget: &mut Budget,
        sent: &mut Sent,
    ) -> Result<(), RingFault> {
        let Some(vring) = self.vrings.get_mut(n).and_then(Option::as_deref_mut) else { return Ok(()) };
        let buffers = &mut self.receive_buffers;
        let offloads = vring.features.guest_offloads();
        for_each_frame(packet, offloads, sent, |frame, sent| write_frame(vring, buffers, frame, budget, sent))
    }

    /// Asks the guest to kick, or not to.
    fn set_kicks(&mut self, on: bool) {
        for n in (1..self.vrings.len()).step_by(2) {
            let Some(vring) = self.vring(n).filter(|vring| !vring.broken) else { continue };
            if let Err(fault) = vring.ring.set_notify(&vring.parts, on) {
                self.stop(n, fault);
            }
        }
    }

    /// Asks the guest to kick. `false`: a frame is waiting, or the guest cannot kick.
    pub(super) fn arm(&mut self) -> bool {
        self.armed = true;
        self.set_kicks(true);
        let mut idle = true;
        for n in (1..self.vrings.len()).step_by(2) {
            let Some(vring) = self.transmitter(n) else { continue };
            match vring.ring.waiting(&vring.parts) {
                Ok(waiting) => idle &= waiting == 0 && !vring.polled,
                Err(fault) => self.stop(n, fault),
            }
        }
        idle || self.stopped
    }
}

/// Writes a frame into a guest's receive buffers.
fn write_frame(
    vring: &mut ActiveVring,
    buffers: &mut ReceiveBuffers,
    frame: &TxFrame<'_>,
    budget: &mut Budget,
    sent: &mut Sent,
) -> Result<(), RingFault> {
    if !budget.is_left() {
        sent.full += 1;
        return Ok(());
    }
    let features = vring.features;
    // Without VIRTIO_NET_F_GUEST_CSUM the header's checksum fields are zero (5.1.6.4.1).
    let offload = if features.guest_checksum() { frame.offload } else { Offload::default() };
    let header = vnet_hdr::write(&offload, frame.header_len);
    let reserved = frame_copy::write(&mut vring.ring, &vring.parts, buffers, features, &header, frame.parts)?;
    budget.take(buffers.descriptors(), frame.len());
    match reserved {
        Reserved::Done => {
            sent.packets += 1;
            sent.bytes += frame.len() as u64;
            sent.descriptors += u64::from(buffers.count()).saturating_sub(1);
        }
        Reserved::Full => sent.full += 1,
        Reserved::TooLong => sent.refused += 1,
    }
    Ok(())
}

/// Notifies a guest or its VMM, if it has set an eventfd.
fn notify(fd: &Option<CallFd>) {
    if let Some(fd) = fd {
        fd.notify();
    }
}
