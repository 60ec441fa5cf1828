//! The firmware image: start-up and the main loop.
//!
//! Life cycle:
//! 1. `riscv-rt` sets up stack and data and calls [`main`].
//! 2. The tables are laid into the SoC's memory ([`tables`]).
//! 3. Doorbells are set up ([`doorbell`]); READY is written.
//! 4. The loop handles bursts of descriptors, mailbox requests and the heartbeat; when idle it sleeps in `wfi`.
//! 5. A trap or a panic writes its text to the panic area and halts; the board notices the missing heartbeat.
#![no_std]
#![no_main]

mod doorbell;
mod log;
mod ram;
mod rings;
mod tables;
mod trap;

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::fence;

use culvert_abi::regs::MBOX_WORDS;
use culvert_abi::soc::{self, ctrl};
use culvert_logic::Firmware;

use crate::ram::{ctrl32, ctrl64};
use crate::rings::Rings;

/// Descriptors taken at a time.
const BURST: usize = 32;
/// Polls without work before the firmware sleeps: about ten microseconds. A busy board has work sooner.
const SPIN: u32 = 200;
/// Length of a heartbeat in ticks of the 10 MHz timer.
const HEARTBEAT_TICKS: u64 = 500_000;

#[riscv_rt::entry]
fn main() -> ! {
    let epoch = ctrl32(ctrl::EPOCH).load(Acquire);
    let sizes = soc::Sizes::new(ctrl32(ctrl::FLOWS_LOG2).load(Acquire));
    let bench = ctrl32(ctrl::BENCH).load(Acquire) != 0;
    let mut firmware = match Firmware::new(tables::memory(&sizes), epoch) {
        Ok(firmware) => firmware,
        Err(error) => panic!("the tables cannot be laid out: {error:?}"),
    };
    let mut rings = Rings::new();
    let has_bell = doorbell::init();
    log::line(format_args!("culvert firmware, epoch {epoch}, {} flows", sizes.flows));
    // Before READY, upon which the board sends the first request.
    let mut mailbox = ctrl32(ctrl::MBOX_BELL).load(Acquire);
    ctrl32(ctrl::MBOX_DONE).store(mailbox, Release);
    ctrl32(ctrl::FW_ABI).store(culvert_abi::VERSION, Release);
    ctrl32(ctrl::FW_READY).store(soc::READY, Release);

    let mut next_beat = doorbell::time();
    let mut idle = 0;
    loop {
        let start = riscv::register::minstret::read64();
        let n = firmware.poll(&mut rings, BURST);
        if n > 0 {
            let counters = &firmware.datapath().counters;
            ctrl64(ctrl::FINISHED).store(counters.finished, Relaxed);
            ctrl64(ctrl::PUNTED).store(counters.punted, Relaxed);
            rings.publish();
            if bench {
                let spent = riscv::register::minstret::read64() - start;
                add(ctrl::BENCH_INSTRET, spent);
                add(ctrl::BENCH_PACKETS, n as u64);
            }
            idle = 0;
        } else {
            idle += 1;
        }
        let bell = ctrl32(ctrl::MBOX_BELL).load(Acquire);
        if bell != mailbox {
            mailbox = bell;
            let mut request = [0; MBOX_WORDS];
            for (i, word) in request.iter_mut().enumerate() {
                *word = ctrl32(ctrl::MBOX_REQUEST + 4 * i as u64).load(Relaxed);
            }
            for (i, word) in firmware.mailbox(&request).iter().enumerate() {
                ctrl32(ctrl::MBOX_REPLY + 4 * i as u64).store(*word, Relaxed);
            }
            ctrl32(ctrl::MBOX_DONE).store(mailbox, Release);
            rings.wake_board();
            idle = 0;
        }
        if doorbell::time() >= next_beat {
            next_beat = doorbell::time() + HEARTBEAT_TICKS;
            doorbell::wake_at(next_beat);
            let beat = ctrl32(ctrl::HEARTBEAT);
            beat.store(beat.load(Relaxed).wrapping_add(1), Release);
        }
        if idle > SPIN && has_bell && !bench {
            sleep(&rings, mailbox);
            idle = 0;
        }
    }
}

/// Announces sleep, checks for work once more, and sleeps until the board's doorbell or the next heartbeat.
fn sleep(rings: &Rings, mailbox: u32) {
    ctrl32(ctrl::FW_SLEEPS).store(1, SeqCst);
    fence(SeqCst);
    if !rings.has_work() && ctrl32(ctrl::MBOX_BELL).load(Acquire) == mailbox {
        riscv::asm::wfi();
        doorbell::acknowledge();
    }
    ctrl32(ctrl::FW_SLEEPS).store(0, Release);
}

fn add(at: u64, n: u64) {
    let word = ctrl64(at);
    word.store(word.load(Relaxed) + n, Release);
}
