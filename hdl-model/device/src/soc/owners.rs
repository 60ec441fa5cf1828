//! Who has which packet buffer.

use culvert_abi::soc::{BUFFER_COUNT, BoardPort};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// In the free list.
    Free,
    /// Taken out of it by the board.
    Board,
    /// Handed to the firmware; the port that its packet came in by.
    Firmware(u16),
}

/// The packet buffers.
pub struct Owners {
    owner: Vec<Owner>,
    free: Vec<u32>,
}

impl Owners {
    pub(super) fn new() -> Self {
        Owners { owner: vec![Owner::Free; BUFFER_COUNT as usize], free: (0..BUFFER_COUNT).rev().collect() }
    }

    /// Takes a free buffer.
    pub fn take(&mut self) -> Option<u32> {
        let number = self.free.pop()?;
        self.owner[number as usize] = Owner::Board;
        Some(number)
    }

    /// Gives a buffer back that the board has.
    pub fn free(&mut self, number: u32) {
        if self.is_boards(number) {
            self.owner[number as usize] = Owner::Free;
            self.free.push(number);
        }
    }

    /// How many are free.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Whether the board has taken this one.
    pub fn is_boards(&self, number: u32) -> bool {
        self.owner.get(number as usize) == Some(&Owner::Board)
    }

    pub(super) fn is_firmwares(&self, number: u32) -> bool {
        matches!(self.owner.get(number as usize), Some(Owner::Firmware(_)))
    }

    pub(super) fn hand_over(&mut self, number: u32, port: u16) {
        if let Some(owner) = self.owner.get_mut(number as usize) {
            *owner = Owner::Firmware(port);
        }
    }

    pub(super) fn receive(&mut self, number: u32) {
        if let Some(owner) = self.owner.get_mut(number as usize) {
            *owner = Owner::Board;
        }
    }

    /// Frees all that the firmware has; where their packets came in.
    pub(super) fn take_back(&mut self) -> Vec<u16> {
        let mut ports = Vec::new();
        for (number, owner) in self.owner.iter_mut().enumerate() {
            if let Owner::Firmware(port) = *owner {
                *owner = Owner::Free;
                self.free.push(number as u32);
                ports.push(port);
            }
        }
        ports
    }

    /// How many the firmware has of packets (not of commands, whose port is none).
    pub fn in_firmware(&self) -> usize {
        let packet = |o: &&Owner| matches!(o, Owner::Firmware(port) if *port != BoardPort::None.bits());
        self.owner.iter().filter(packet).count()
    }
}
