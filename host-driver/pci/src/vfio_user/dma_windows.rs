//! `DmaWindows`: memory by device address, for a device that reads and writes it by message (DMA_READ, DMA_WRITE).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::wire::{self, command, u64_at};
use crate::memory::SharedMemory;

/// The memory that a device may reach, by the device's address.
#[derive(Default)]
pub(super) struct DmaWindows(Mutex<BTreeMap<u64, Arc<SharedMemory>>>);

/// An errno as the protocol carries it.
pub(super) type Errno = u32;
pub(super) const EINVAL: Errno = 22;
pub(super) const EFAULT: Errno = 14;
pub(super) const ENOSYS: Errno = 38;

impl DmaWindows {
    /// Makes memory reachable at an address.
    pub(super) fn insert(&self, iova: u64, memory: Arc<SharedMemory>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(iova, memory);
    }

    /// Removes the memory at an address.
    pub(super) fn remove(&self, iova: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&iova);
    }

    /// Executes a device's request. Returns the reply's body, or an error number.
    pub(super) fn serve(&self, cmd: u16, body: &[u8]) -> Result<Vec<u8>, Errno> {
        if !matches!(cmd, command::DMA_READ | command::DMA_WRITE) {
            return Err(ENOSYS);
        }
        let address = u64_at(body, 0).ok_or(EINVAL)?;
        let count = u64_at(body, 8).filter(|n| *n <= u64::from(wire::MAX_TRANSFER)).ok_or(EINVAL)?;
        let count = usize::try_from(count).map_err(|_| EINVAL)?;
        let windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, memory) = windows.range(..=address).next_back().ok_or(EFAULT)?;
        let offset = usize::try_from(address - start).map_err(|_| EFAULT)?;
        if !memory.contains(offset, count) {
            return Err(EFAULT);
        }
        let mut reply = body[..16].to_vec();
        if cmd == command::DMA_READ {
            reply.resize(16 + count, 0);
            memory.copy_out(offset, &mut reply[16..]);
        } else {
            memory.copy_in(offset, body.get(16..).and_then(|d| d.get(..count)).ok_or(EINVAL)?);
        }
        Ok(reply)
    }
}
