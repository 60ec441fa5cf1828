//! `Board`: the device side of the tests, and what a test does to it.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use culvert_abi::command::Op;
use culvert_abi::regs::{self, FirmwareState};
use culvert_abi::soc::{BoardPort, Descriptor, HEADROOM};
use culvert_pci::{Error, Interrupt};

use crate::state::State;

/// A board in this process.
pub(crate) struct Board {
    pub(crate) state: Mutex<State>,
    pub(crate) interrupts: Vec<Interrupt>,
    pub(crate) stop: AtomicBool,
    /// What becomes of the driver's accesses: [`ANSWERS`], [`SILENT`] or [`GONE`].
    pub(crate) fault: AtomicU8,
}

/// The board answers.
pub(crate) const ANSWERS: u8 = 0;
/// The board does not answer: each access fails at its time limit.
pub(crate) const SILENT: u8 = 1;
/// The board has closed the connection.
pub(crate) const GONE: u8 = 2;

impl Board {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes what becomes of the driver's accesses.
    pub(crate) fn set_fault(&self, fault: u8) {
        self.fault.store(fault, Ordering::Release);
    }

    /// The outcome of an access, as far as the board decides it.
    pub(crate) fn access(&self) -> culvert_pci::Result<()> {
        let device = || "test-board".to_owned();
        match self.fault.load(Ordering::Acquire) {
            ANSWERS => Ok(()),
            SILENT => {
                let (request, limit) = ("REGION_READ", Duration::from_secs(1));
                Err(Error::Timeout { device: device(), request, limit })
            }
            _ => Err(Error::Disconnected { device: device(), reason: "closed by the device".into() }),
        }
    }

    /// The image that the driver loaded, and how often firmware was started.
    pub(crate) fn loaded(&self) -> (Vec<u8>, u32) {
        let state = self.lock();
        (state.image.clone(), state.starts)
    }

    /// The firmware dies; its panic has this text.
    pub(crate) fn kill(&self, panic: &str) {
        let mut state = self.lock();
        state.firmware = None;
        for (i, chunk) in panic.as_bytes().chunks(4).enumerate() {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            state.registers.insert(regs::PANIC + 4 * i as u32, u32::from_le_bytes(word));
        }
        state.set_firmware(FirmwareState::Dead);
        drop(state);
        self.interrupts[0].signal().unwrap();
    }

    /// The board restarts the firmware.
    pub(crate) fn restart(&self) {
        self.lock().start();
        self.interrupts[0].signal().unwrap();
    }

    /// The board receives a frame at a port.
    pub(crate) fn frame(&self, port: BoardPort, frame: &[u8]) {
        let mut state = self.lock();
        let now = state.now();
        let buffer = state.soc.free.pop().unwrap();
        let at = HEADROOM as usize;
        state.soc.buffers[buffer as usize][at..at + frame.len()].copy_from_slice(frame);
        let (op, len) = (Op::Frame as u8, frame.len() as u16);
        let offset = HEADROOM as u16;
        state.soc.rx.push_back(Descriptor {
            buffer,
            offset,
            len,
            op,
            port: port.bits(),
            now,
            ..Default::default()
        });
    }

    /// Frames that the NIC has sent since the last call.
    pub(crate) fn sent(&self) -> Vec<(BoardPort, Vec<u8>)> {
        std::mem::take(&mut self.lock().sent)
    }

    pub(crate) fn register(&self, offset: u32) -> u32 {
        self.lock().registers.get(&offset).copied().unwrap_or(0)
    }

    pub(crate) fn set_register(&self, offset: u32, value: u32) {
        self.lock().registers.insert(offset, value);
    }

    /// The board reports events.
    pub(crate) fn event(&self, bits: u32) {
        self.set_register(regs::EVENTS, bits);
        self.interrupts[0].signal().unwrap();
    }
}
