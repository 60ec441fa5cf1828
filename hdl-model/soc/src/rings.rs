//! The rings between board and firmware, from the board's side. What comes from the firmware is checked here.

use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use std::sync::atomic::fence;

use culvert_abi::command::Op;
use culvert_abi::soc::{
    BUFFER_LEN, BUFFERS, BoardPort, Descriptor, HEADER_LEN, NO_BUFFER, RELEASE, RX_RING, RX_SIZE, TX_HEADERS,
    TX_RING, TX_SIZE, ctrl,
};
use zerocopy::{FromBytes, IntoBytes};

use super::{Owners, Ram};

/// Indices of both rings.
pub struct Rings {
    rx_produced: u32,
    rx_published: u32,
    tx_consumed: u32,
}

/// A descriptor from the firmware.
#[derive(Clone, Copy, Debug)]
pub enum FromFirmware {
    /// A valid one: the firmware owns its buffer or has just released it, and its bounds lie within.
    Good {
        /// The operation.
        op: Op,
        /// The descriptor.
        descriptor: Descriptor,
        /// Its place in the ring, for its header scratch.
        index: u32,
    },
    /// An invalid one. The board owns its buffer now, if the firmware did.
    Bad(Descriptor),
}

const SIZE: u64 = size_of::<Descriptor>() as u64;

impl Rings {
    pub(super) fn new() -> Self {
        Rings { rx_produced: 0, rx_published: 0, tx_consumed: 0 }
    }

    fn word(ram: &Ram, offset: u64) -> &std::sync::atomic::AtomicU32 {
        ram.control32(offset)
    }

    pub(super) fn room(&self, ram: &Ram) -> u32 {
        let taken = Self::word(ram, ctrl::RX_CONSUMED).load(Acquire);
        // A firmware that claims more than it was given has no room.
        RX_SIZE.saturating_sub(self.rx_produced.wrapping_sub(taken))
    }

    pub(super) fn push(&mut self, ram: &mut Ram, owners: &mut Owners, descriptor: &Descriptor) -> bool {
        if self.room(ram) == 0 {
            return false;
        }
        if descriptor.buffer != NO_BUFFER {
            let frame = descriptor.op == Op::Frame as u8;
            owners.give_to_firmware(
                descriptor.buffer,
                if frame { descriptor.port } else { BoardPort::None.bits() },
            );
        }
        ram.write(RX_RING + u64::from(self.rx_produced % RX_SIZE) * SIZE, descriptor.as_bytes());
        self.rx_produced = self.rx_produced.wrapping_add(1);
        true
    }

    /// Returns whether the firmware must be woken.
    pub(super) fn publish(&mut self, ram: &Ram) -> bool {
        if self.rx_published == self.rx_produced {
            return false;
        }
        self.rx_published = self.rx_produced;
        Self::word(ram, ctrl::RX_PRODUCED).store(self.rx_produced, Release);
        fence(SeqCst);
        Self::word(ram, ctrl::FW_SLEEPS).load(SeqCst) != 0
    }

    pub(super) fn poll(&mut self, ram: &Ram, owners: &mut Owners) -> Option<FromFirmware> {
        let produced = Self::word(ram, ctrl::TX_PRODUCED).load(Acquire);
        let ahead = produced.wrapping_sub(self.tx_consumed);
        if ahead == 0 || ahead > TX_SIZE {
            return None;
        }
        let mut bytes = [0; SIZE as usize];
        let index = self.tx_consumed % TX_SIZE;
        ram.read(TX_RING + u64::from(index) * SIZE, &mut bytes);
        self.tx_consumed = self.tx_consumed.wrapping_add(1);
        let descriptor = Descriptor::read_from_bytes(&bytes).unwrap_or_default();
        let firmwares = owners.firmware_owns(descriptor.buffer);
        let in_bounds = u32::from(descriptor.offset) + u32::from(descriptor.len) <= BUFFER_LEN
            && u32::from(descriptor.header_len) <= HEADER_LEN;
        let op = Op::from_u8(descriptor.op).filter(|op| {
            let complete = *op == Op::Complete && descriptor.buffer == NO_BUFFER;
            let known = matches!(op, Op::Transmit | Op::Upcall | Op::Drop | Op::Complete);
            known && in_bounds && (firmwares || complete)
        });
        match op {
            Some(op) => {
                if descriptor.flags & RELEASE != 0 && firmwares {
                    owners.give_to_board(descriptor.buffer);
                }
                Some(FromFirmware::Good { op, descriptor, index })
            }
            None => {
                if firmwares {
                    owners.give_to_board(descriptor.buffer);
                }
                Some(FromFirmware::Bad(descriptor))
            }
        }
    }

    pub(super) fn consumed(&self, ram: &Ram) {
        Self::word(ram, ctrl::TX_CONSUMED).store(self.tx_consumed, Release);
    }

    pub(super) fn parts<'r>(&self, ram: &'r Ram, from: &FromFirmware) -> (&'r [u8], &'r [u8]) {
        let FromFirmware::Good { descriptor: d, index, .. } = from else { return (&[], &[]) };
        let scratch = TX_HEADERS + u64::from(*index) * u64::from(HEADER_LEN);
        let header = ram.slice(scratch, u64::from(d.header_len));
        if d.buffer == NO_BUFFER {
            return (header, &[]);
        }
        let at = BUFFERS + u64::from(d.buffer) * u64::from(BUFFER_LEN) + u64::from(d.offset);
        (header, ram.slice(at, u64::from(d.len)))
    }

    pub(super) fn may_sleep(&self, ram: &Ram) -> bool {
        Self::word(ram, ctrl::BOARD_SLEEPS).store(1, SeqCst);
        fence(SeqCst);
        let idle = Self::word(ram, ctrl::TX_PRODUCED).load(SeqCst) == self.tx_consumed;
        if !idle {
            Self::word(ram, ctrl::BOARD_SLEEPS).store(0, Release);
        }
        idle
    }
}
