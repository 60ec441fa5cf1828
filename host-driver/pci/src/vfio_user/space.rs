//! `Space`: the DMA address space of one vfio-user connection.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::connection::Connection;
use super::dma_windows::DmaWindows;
use super::wire::command;
use crate::dma::DmaSpace;
use crate::iova::IovaSpace;

/// The address space of one connection.
pub(super) struct Space {
    pub(super) iovas: IovaSpace,
    pub(super) windows: Arc<DmaWindows>,
    pub(super) connection: Weak<Mutex<Connection>>,
    /// Time limit for a reply.
    pub(super) limit: Duration,
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
        // A device that did not unmap the range may still use it, so the address is never allocated again. The memory
        // is a file: it exists as long as the device keeps it mapped.
        if connection.request(command::DMA_UNMAP, &[&body], &[], self.limit).is_ok() {
            self.iovas.release(iova);
        }
    }
}
