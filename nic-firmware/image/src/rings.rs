//! The two rings between board and firmware: the logic's [`Bus`] on shared memory.

use core::hint::black_box;
use core::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use core::sync::atomic::fence;

use culvert_abi::soc::{Descriptor, HEADER_LEN, RX_RING, RX_SIZE, TX_HEADERS, TX_RING, TX_SIZE, ctrl};
use culvert_logic::Bus;

use crate::ram::{self, ctrl32};

/// The most descriptors that are sent before the index is published: the board starts while a burst is processed.
const PUBLISH: u32 = 16;

/// The firmware's indices, and what it last read of the board's.
pub(crate) struct Rings {
    rx_consumed: u32,
    rx_seen: u32,
    tx_produced: u32,
    tx_published: u32,
    tx_limit: u32,
    /// The rings, hidden from the compiler as constants: else it would compute the address of each field anew.
    rx: &'static [Descriptor; RX_SIZE as usize],
    tx: &'static mut [Descriptor; TX_SIZE as usize],
}

impl Rings {
    /// Both rings as they are after a start: empty, all indices 0.
    pub(crate) fn new() -> Self {
        ctrl32(ctrl::RX_CONSUMED).store(0, Release);
        ctrl32(ctrl::TX_PRODUCED).store(0, Release);
        Rings {
            rx_consumed: 0,
            rx_seen: 0,
            tx_produced: 0,
            tx_published: 0,
            tx_limit: TX_SIZE,
            rx: black_box(ram::slot(RX_RING)),
            tx: black_box(ram::slot(TX_RING)),
        }
    }

    /// Whether there is a descriptor from the board.
    pub(crate) fn has_work(&self) -> bool {
        ctrl32(ctrl::RX_PRODUCED).load(Acquire) != self.rx_consumed
    }

    /// Publishes both indices, and wakes the board if it sleeps.
    pub(crate) fn publish(&mut self) {
        ctrl32(ctrl::RX_CONSUMED).store(self.rx_consumed, Release);
        self.publish_sent();
    }

    fn publish_sent(&mut self) {
        if self.tx_published != self.tx_produced {
            self.tx_published = self.tx_produced;
            ctrl32(ctrl::TX_PRODUCED).store(self.tx_produced, Release);
            self.wake_board();
        }
    }

    /// Rings the board's doorbell if it sleeps.
    pub(crate) fn wake_board(&self) {
        fence(SeqCst);
        if ctrl32(ctrl::BOARD_SLEEPS).load(SeqCst) != 0 {
            crate::doorbell::ring();
        }
    }

    /// Waits until the ring to the board has room. The board empties it without waiting for the firmware.
    #[inline(always)]
    fn wait_for_room(&mut self) {
        if self.tx_produced == self.tx_limit {
            self.wait();
        }
    }

    #[cold]
    #[inline(never)]
    fn wait(&mut self) {
        while self.tx_produced == self.tx_limit {
            // Not RX_CONSUMED: the descriptor in progress must stay in its ring.
            self.publish_sent();
            self.tx_limit = ctrl32(ctrl::TX_CONSUMED).load(Acquire).wrapping_add(TX_SIZE);
            core::hint::spin_loop();
        }
    }
}

impl Bus for Rings {
    type Taken = &'static Descriptor;

    #[inline(always)]
    fn receive(&mut self) -> Option<&'static Descriptor> {
        if self.rx_consumed == self.rx_seen {
            self.rx_seen = ctrl32(ctrl::RX_PRODUCED).load(Acquire);
            if self.rx_consumed == self.rx_seen {
                return None;
            }
        }
        let descriptor = &self.rx[(self.rx_consumed % RX_SIZE) as usize];
        self.rx_consumed = self.rx_consumed.wrapping_add(1);
        Some(descriptor)
    }

    #[inline(always)]
    fn buffer(&mut self, number: u32) -> Option<&mut [u8]> {
        ram::buffer(number)
    }

    #[inline(always)]
    fn header(&mut self) -> &mut [u8; HEADER_LEN as usize] {
        self.wait_for_room();
        ram::slot(TX_HEADERS + u64::from(self.tx_produced % TX_SIZE) * u64::from(HEADER_LEN))
    }

    #[inline(always)]
    fn send(&mut self, descriptor: &Descriptor) {
        self.wait_for_room();
        self.tx[(self.tx_produced % TX_SIZE) as usize] = *descriptor;
        self.tx_produced = self.tx_produced.wrapping_add(1);
        if self.tx_produced.wrapping_sub(self.tx_published) >= PUBLISH {
            self.tx_published = self.tx_produced;
            ctrl32(ctrl::TX_PRODUCED).store(self.tx_produced, Release);
        }
    }
}
