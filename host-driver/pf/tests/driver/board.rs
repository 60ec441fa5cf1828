//! `Board`: the device side of the tests, and what a test does to it.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard};

use culvert_abi::command::Op;
use culvert_abi::regs::{self, FirmwareState};
use culvert_abi::soc::{BoardPort, Descriptor, HEADROOM};
use culvert_pci::Interrupt;

use crate::state::State;

/// A board in this process.
pub(crate) struct Board {
    pub(crate) state: Mutex<State>,
    pub(crate) interrupts: Vec<Interrupt>,
    pub(crate) stop: AtomicBool,
}

impl Board {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
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
