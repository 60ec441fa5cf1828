//! A port's turn: how much work its frames may make before the next port has its turn.
//!
//! A turn has a budget of [`TURN`]. What a turn costs beyond it is debt, which the port works off, a budget each turn, before
//! it is read again. Frames that were received and have no budget left wait here, in order; one of more than
//! [`MAX_SEGMENTS`] segments is forwarded in parts. So no frame, whatever it is, takes more than [`work::MAX_PACKET`] beyond a
//! turn: 0.2 ms where each segment is a system call's message.

use std::collections::VecDeque;

use culvert_flow::Port;
use culvert_packet::Gso;
use culvert_packet::segment::MAX_HEADERS;

use crate::BURST;
use crate::packet::Packet;
use crate::pool::Pool;
use crate::work::{self, MAX_SEGMENTS, TURN};

/// The state of a port between its turns.
#[derive(Default)]
pub(super) struct Turn {
    /// Work that may still be done in this turn. Below 1, the port has no turn until it is worked off.
    credit: i64,
    /// Received packets that wait for a turn.
    waiting: VecDeque<Packet>,
    /// Segments of the first of them that are forwarded already.
    segments_done: usize,
}

impl Turn {
    /// Begins a turn. `false`: the last ones cost so much that there is none.
    #[inline]
    pub(super) fn begin(&mut self) -> bool {
        self.credit = (self.credit + i64::from(TURN)).min(TURN.into());
        self.credit > 0
    }

    /// Charges work that is not seen in the packets.
    #[inline]
    pub(super) fn charge(&mut self, work: u32) {
        self.credit -= i64::from(work);
    }

    /// Whether no received packet waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Charges a received burst, and keeps what the turn has no credit for. Nothing may be waiting.
    #[inline]
    pub(super) fn admit(&mut self, pool: &mut Pool, burst: &mut Vec<Packet>) {
        let mut admitted = 0;
        for packet in burst.iter() {
            if self.credit <= 0 || is_cut(packet) {
                break;
            }
            self.credit -= i64::from(work::of_packet(packet));
            admitted += 1;
        }
        if admitted < burst.len() {
            self.waiting.extend(burst.drain(admitted..));
            self.resume(pool, burst);
        }
    }

    /// Takes waiting packets into a burst, as far as the turn has credit.
    #[cold]
    pub(super) fn resume(&mut self, pool: &mut Pool, burst: &mut Vec<Packet>) {
        while self.credit > 0
            && burst.len() < BURST
            && let Some(packet) = self.next(pool)
        {
            self.credit -= i64::from(work::of_packet(&packet));
            burst.push(packet);
        }
    }

    /// The next waiting packet, or the next part of it. `None`: none waits, or there is no buffer for the part.
    fn next(&mut self, pool: &mut Pool) -> Option<Packet> {
        let whole = self.waiting.front()?;
        let segments = if is_cut(whole) { whole.segments() } else { None };
        let Some(segments) = segments.filter(|s| s.count() > MAX_SEGMENTS) else {
            return self.waiting.pop_front();
        };
        let mut header = [0; MAX_HEADERS];
        let (first, count) = (self.segments_done, MAX_SEGMENTS.min(segments.count() - self.segments_done));
        let (header_len, payload) = segments.part(whole.bytes(), first..first + count, &mut header);
        let parts = [&header[..header_len], &whole.bytes()[payload]];
        let len = parts[0].len() + parts[1].len();
        let mut part = pool.take_for(len)?;
        // The buffer is as long as the part.
        if part.set(0, len) {
            let (front, back) = part.bytes_mut().split_at_mut(header_len);
            front.copy_from_slice(parts[0]);
            back.copy_from_slice(parts[1]);
        }
        (part.input, part.checksum, part.offload) = (whole.input, whole.checksum, whole.offload);
        self.segments_done += count;
        if self.segments_done == segments.count() {
            self.segments_done = 0;
            self.waiting.pop_front().into_iter().for_each(|whole| pool.give(whole));
        }
        Some(part)
    }

    /// Gives up the waiting packets. Returns how many.
    pub(super) fn clear(&mut self, pool: &mut Pool) -> u64 {
        self.segments_done = 0;
        self.waiting.drain(..).map(|packet| pool.give(packet)).count() as u64
    }
}

/// Whether a packet may have to be forwarded in parts.
#[inline]
fn is_cut(packet: &Packet) -> bool {
    packet.offload.gso != Gso::None && work::segments(packet) > MAX_SEGMENTS
}

/// How many large buffers a port may fill in a turn. `None`: as many as there are. Frames of a guest wait in its ring; those
/// from the wire would be lost.
#[inline]
pub(super) fn large_buffers(at: Port) -> Option<usize> {
    matches!(at, Port::Vport(_)).then_some(work::LARGE_BUFFERS)
}
