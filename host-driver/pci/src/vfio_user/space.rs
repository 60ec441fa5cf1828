//! The memory that a vfio-user device may reach: addresses given out, and DMA_READ/DMA_WRITE requests served.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::connection::Connection;
use super::wire::{self, command, u64_at};
use crate::dma::DmaSpace;
use crate::iova::IovaSpace;
use crate::memory::SharedMemory;

/// Memory by device address, for a device that asks by message instead of mapping the file.
#[derive(Default)]
pub(super) struct Windows(Mutex<BTreeMap<u64, Arc<SharedMemory>>>);

/// An errno as the protocol carries it.
pub(super) type Errno = u32;
pub(super) const EINVAL: Errno = 22;
pub(super) const EFAULT: Errno = 14;
pub(super) const ENOSYS: Errno = 38;

impl Windows {
    pub(super) fn insert(&self, iova: u64, memory: Arc<SharedMemory>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(iova, memory);
    }

    pub(super) fn remove(&self, iova: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&iova);
    }

    /// Serves a request of the device. The answer's body, or an error number.
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
        let mut answer = body[..16].to_vec();
        if cmd == command::DMA_READ {
            answer.resize(16 + count, 0);
            memory.copy_out(offset, &mut answer[16..]);
        } else {
            memory.copy_in(offset, body.get(16..).and_then(|d| d.get(..count)).ok_or(EINVAL)?);
        }
        Ok(answer)
    }
}

/// The address space of one connection.
pub(super) struct Space {
    pub(super) iovas: IovaSpace,
    pub(super) windows: Arc<Windows>,
    pub(super) connection: Weak<Mutex<Connection>>,
}

impl DmaSpace for Space {
    fn unmap(&self, iova: u64, len: usize) {
        self.windows.remove(iova);
        let Some(connection) = self.connection.upgrade() else { return };
        let mut body = Vec::with_capacity(24);
        body.extend(24_u32.to_le_bytes());
        body.extend(0_u32.to_le_bytes());
        body.extend(iova.to_le_bytes());
        body.extend((len as u64).to_le_bytes());
        let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
        // A device that did not let go may still use the range: then the address is never given out again. The
        // memory itself is a file that lives as long as the device keeps it mapped.
        if connection.request(command::DMA_UNMAP, &[&body], &[]).is_ok() {
            self.iovas.release(iova);
        }
    }
}
