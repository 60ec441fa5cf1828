//! A function's memory as a thread of that function alone reaches it: files at once, other memory by messages to the client,
//! which may take as long as the client likes.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use culvert_virtio::{GuestMemory, MemoryFault, PAGE_SIZE, WordMemory};

use super::Memory;
use crate::vfio_user::{RemoteAccess, RemoteDma, RemoteError};

/// Memory that is reached by messages where it has no file. No view of the mappings is held during a message: an unmap
/// does not wait for the client that asks for it.
pub struct ByMessage<'m> {
    memory: &'m Memory,
    remote: &'m RemoteDma,
    given_up: Cell<bool>,
}

impl<'m> ByMessage<'m> {
    /// Access to what is mapped in `memory`, and through `remote`.
    pub fn new(memory: &'m Memory, remote: &'m RemoteDma) -> Self {
        Self { memory, remote, given_up: Cell::new(false) }
    }

    /// Whether an access since the last call was given up: its range was unmapped before the client answered, or the
    /// function is being reset. What it was for has not happened, and may be tried again.
    pub fn take_given_up(&self) -> bool {
        self.given_up.take()
    }

    /// Pieces of a range that lie in one page each, and so in one region.
    fn pieces(address: u64, len: usize) -> impl Iterator<Item = Result<(u64, Range<usize>), MemoryFault>> {
        let mut from = 0;
        std::iter::from_fn(move || {
            (from < len).then(|| {
                let at = address.checked_add(from as u64).ok_or(MemoryFault::Unmapped)?;
                let n = (PAGE_SIZE - (at % PAGE_SIZE as u64) as usize).min(len - from);
                let piece = from..from + n;
                from += n;
                Ok((at, piece))
            })
        })
    }

    /// Tries a piece in the function's own mappings, and by message if the client has it.
    fn access(
        &self,
        at: u64,
        len: usize,
        mut local: impl FnMut() -> Result<(), MemoryFault>,
        message: impl FnOnce(&RemoteAccess<'_>) -> Result<(), RemoteError>,
    ) -> Result<(), MemoryFault> {
        match local() {
            Err(MemoryFault::Remote) => {}
            done => return done,
        }
        let access = self.remote.begin(at, len).map_err(|_| MemoryFault::Remote)?;
        // It may have been unmapped since; from here on an unmap gives the access up.
        match local() {
            Err(MemoryFault::Remote) => {}
            done => return done,
        }
        message(&access).map_err(|error| {
            if error == RemoteError::GivenUp {
                self.given_up.set(true);
            }
            MemoryFault::Remote
        })
    }
}

impl GuestMemory for ByMessage<'_> {
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), MemoryFault> {
        for piece in Self::pieces(address, into.len()) {
            let (at, range) = piece?;
            let part = RefCell::new(&mut into[range.clone()]);
            self.access(
                at,
                range.len(),
                || self.memory.view().read(at, &mut part.borrow_mut()),
                |access| access.read(&mut part.borrow_mut()),
            )?;
        }
        Ok(())
    }

    fn write(&self, address: u64, from: &[u8]) -> Result<(), MemoryFault> {
        for piece in Self::pieces(address, from.len()) {
            let (at, range) = piece?;
            let part = &from[range.clone()];
            self.access(at, range.len(), || self.memory.view().write(at, part), |access| access.write(part))?;
        }
        Ok(())
    }

    fn prefetch(&self, _: u64, _: u32, _: bool) {}
}

impl WordMemory for ByMessage<'_> {
    fn load_u16(&self, address: u64) -> Result<u16, MemoryFault> {
        // A word in a file is read whole; one that a message brings is whole, too.
        let word = self.memory.view().load_u16(address);
        match word {
            Err(MemoryFault::Remote) => {}
            word => return word,
        }
        let mut bytes = [0; 2];
        self.read(address, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn store_u16(&self, address: u64, value: u16) -> Result<(), MemoryFault> {
        let stored = self.memory.view().store_u16(address, value);
        match stored {
            Err(MemoryFault::Remote) => self.write(address, &value.to_le_bytes()),
            stored => stored,
        }
    }
}
