//! The board's end of the rings to the firmware: descriptors go in order, also while the ring is full.

use std::collections::{BTreeMap, VecDeque};

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

/// Frames and their bytes.
type Frames = (u64, u64);

/// The SoC, and descriptors that wait for room in its ring.
pub(super) struct FirmwareLink {
    pub(super) soc: Soc,
    clock: Clock,
    delayed: VecDeque<Descriptor>,
    /// Frames that did not reach their vport, of which the firmware is still to be told.
    lost: BTreeMap<u16, Frames>,
}

impl FirmwareLink {
    pub(super) fn new(soc: Soc) -> Self {
        FirmwareLink { soc, clock: Clock::start(), delayed: VecDeque::new(), lost: BTreeMap::new() }
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

    /// Notes frames that the firmware has sent to a vport and that did not reach it.
    pub(super) fn lose(&mut self, vport: u16, frames: u64, bytes: u64) {
        if frames > 0 {
            let lost = self.lost.entry(vport).or_default();
            *lost = (lost.0 + frames, lost.1 + bytes);
        }
    }

    /// Tells the firmware of frames that were lost, which it has counted as sent. One descriptor for each vport.
    pub(super) fn report_lost(&mut self) {
        while self.delayed.is_empty()
            && self.soc.room() > 0
            && let Some((vport, (frames, bytes))) = self.lost.pop_first()
        {
            self.push(Descriptor {
                buffer: NO_BUFFER,
                op: Op::Lost as u8,
                port: vport,
                arg0: u32::try_from(frames).unwrap_or(u32::MAX),
                arg1: bytes,
                now: self.now(),
                ..Descriptor::default()
            });
        }
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
        // The next firmware has not counted them as sent.
        self.lost.clear();
    }
}
