//! The board's end of the rings to the firmware: descriptors go in order, also while the ring is full.

use std::collections::VecDeque;

use culvert_abi::command::Op;
use culvert_abi::soc::{BoardPort, Descriptor, HEADROOM, NO_BUFFER};
use culvert_packet::Reason;

use super::clock::Clock;
use super::counters::Counters;
use super::shadow::Command;
use crate::soc::Soc;

/// Room in the ring that only the host's commands may use, so that verdicts always get through.
const ROOM_FOR_HOST: u32 = 256;
/// Free packet buffers that only the host may use.
const BUFFERS_FOR_HOST: usize = 512;

/// The SoC, and descriptors that wait for room in its ring.
pub(super) struct FirmwareLink {
    pub(super) soc: Soc,
    clock: Clock,
    delayed: VecDeque<Descriptor>,
}

impl FirmwareLink {
    pub(super) fn new(soc: Soc) -> Self {
        FirmwareLink { soc, clock: Clock::start(), delayed: VecDeque::new() }
    }

    /// Time for a descriptor.
    pub(super) fn now(&self) -> u32 {
        self.clock.millis()
    }

    /// Sends a descriptor, in order; it waits if the ring is full.
    pub(super) fn push(&mut self, descriptor: Descriptor) {
        if !self.delayed.is_empty() || !self.soc.push(&descriptor) {
            self.delayed.push_back(descriptor);
        }
    }

    /// Sends descriptors that wait. Returns whether all are sent.
    pub(super) fn push_delayed(&mut self) -> bool {
        while let Some(descriptor) = self.delayed.front() {
            if !self.soc.push(descriptor) {
                return false;
            }
            self.delayed.pop_front();
        }
        true
    }

    /// Whether descriptors wait for room.
    pub(super) fn has_delayed(&self) -> bool {
        !self.delayed.is_empty()
    }

    /// Whether there is room for a frame that does not come from the host.
    pub(super) fn has_room(&mut self) -> bool {
        self.soc.room() > ROOM_FOR_HOST
            && self.soc.owners().available() > BUFFERS_FOR_HOST
            && self.delayed.is_empty()
    }

    /// Sends a command with its payload. `false`: the ring is full or no buffer is free; nothing happened.
    pub(super) fn push_command(&mut self, command: &Command) -> bool {
        if self.soc.room() == 0 {
            return false;
        }
        let Some(buffer) = self.soc.owners().take() else { return false };
        let (start, len) = (HEADROOM as usize, command.payload.len());
        if let Some(memory) = self.soc.buffer(buffer) {
            memory[start..start + len].copy_from_slice(&command.payload);
        }
        self.push(Descriptor {
            buffer,
            offset: HEADROOM as u16,
            len: len as u16,
            op: command.op as u8,
            arg0: command.arg0,
            now: self.now(),
            ..Descriptor::default()
        });
        true
    }

    /// Tells the firmware that the board has dropped a packet of a pending flow.
    pub(super) fn report_dropped(&mut self, vport: u16, ticket: u32, reason: Reason) {
        self.push(Descriptor {
            buffer: NO_BUFFER,
            op: Op::Dropped as u8,
            reason: reason as u8,
            port: vport,
            ticket,
            arg0: 1,
            now: self.now(),
            ..Descriptor::default()
        });
    }

    /// Takes all buffers back from a firmware that has stopped. Packets that it had, or that waited for it, are dropped and
    /// counted.
    pub(super) fn reclaim(&mut self, counters: &Counters, reason: Reason) {
        for port in self.soc.reclaim() {
            let port = BoardPort::from_bits(port);
            // Commands of the host have no port: the host sees the new epoch.
            if port != BoardPort::None {
                counters.drop(port, reason, 1);
            }
        }
        for descriptor in std::mem::take(&mut self.delayed) {
            self.soc.owners().free(descriptor.buffer);
        }
    }
}
