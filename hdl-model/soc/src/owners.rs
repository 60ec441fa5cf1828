//! Which side owns each packet buffer.

use culvert_abi::soc::{BUFFER_COUNT, BoardPort};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// In the free list.
    Free,
    /// Taken out of it by the board.
    Board,
    /// The firmware's; the port that its packet came from.
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

    /// Frees a buffer that the board owns.
    pub fn free(&mut self, number: u32) {
        if self.board_owns(number) {
            self.owner[number as usize] = Owner::Free;
            self.free.push(number);
        }
    }

    /// Number of free buffers.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Whether the board has taken this one.
    pub fn board_owns(&self, number: u32) -> bool {
        self.owner.get(number as usize) == Some(&Owner::Board)
    }

    pub(super) fn firmware_owns(&self, number: u32) -> bool {
        matches!(self.owner.get(number as usize), Some(Owner::Firmware(_)))
    }

    pub(super) fn give_to_firmware(&mut self, number: u32, port: u16) {
        if let Some(owner) = self.owner.get_mut(number as usize) {
            *owner = Owner::Firmware(port);
        }
    }

    pub(super) fn give_to_board(&mut self, number: u32) {
        if let Some(owner) = self.owner.get_mut(number as usize) {
            *owner = Owner::Board;
        }
    }

    /// Frees all buffers of the firmware and returns the ports that their packets came from.
    pub(super) fn reclaim(&mut self) -> Vec<u16> {
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

    /// Number of packets that the firmware has; commands, whose port is none, do not count.
    pub fn in_firmware(&self) -> usize {
        let packet = |o: &&Owner| matches!(o, Owner::Firmware(port) if *port != BoardPort::None.bits());
        self.owner.iter().filter(packet).count()
    }
}
