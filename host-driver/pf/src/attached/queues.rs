//! Queues of a place: upcalls of whichever NIC is there, and VMQs that end with their NIC.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use culvert_offload::{Error as OffloadError, Result, Upcall, UpcallQueue, VmqFrame, VmqQueue};
use culvert_pci::Interrupt;

use super::place::Place;
use crate::Error;
use crate::queue::RxQueue;

/// The upcalls of whichever NIC is in the place. Without one it is empty, and its descriptor is never readable.
pub(super) struct AttachedUpcalls {
    place: Arc<Place>,
    queue: Option<RxQueue>,
    generation: u64,
    idle: Interrupt,
}

impl AttachedUpcalls {
    pub(super) fn new(place: Arc<Place>) -> crate::Result<Self> {
        Ok(AttachedUpcalls { place, queue: None, generation: 0, idle: Interrupt::new()? })
    }

    /// Takes the queue of the NIC that is there now.
    fn follow(&mut self) {
        let generation = self.place.generation();
        if self.generation != generation
            && let Ok(nic) = self.place.nic()
        {
            self.generation = generation;
            self.queue = nic.upcalls();
        } else if self.queue.is_some() && self.place.nic().is_err() {
            self.queue = None;
        }
    }
}

impl culvert_offload::RxQueue for AttachedUpcalls {
    fn repost(&mut self) -> Result<()> {
        self.follow();
        self.queue.as_mut().map_or(Ok(()), culvert_offload::RxQueue::repost)
    }

    fn arm(&self) -> bool {
        self.queue.as_ref().is_none_or(RxQueue::arm)
    }

    fn disarm(&self) {
        if let Some(queue) = &self.queue {
            culvert_offload::RxQueue::disarm(queue);
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.queue.as_ref().map_or(self.idle.as_fd(), |queue| queue.interrupt().as_fd())
    }
}

impl UpcallQueue for AttachedUpcalls {
    fn pop(&mut self) -> Result<Option<Upcall>> {
        self.follow();
        self.queue.as_mut().map_or(Ok(None), UpcallQueue::pop)
    }
}

/// A VMQ of the NIC that is there now. It fails once that NIC is gone.
pub(super) struct AttachedVmq {
    place: Arc<Place>,
    queue: RxQueue,
    generation: u64,
}

impl AttachedVmq {
    pub(super) fn open(place: &Arc<Place>, n: u16) -> crate::Result<Self> {
        let generation = place.generation();
        let queue = place.nic()?.vmq(n)?;
        Ok(AttachedVmq { place: place.clone(), queue, generation })
    }

    fn check(&self) -> Result<()> {
        if self.generation == self.place.generation() && self.place.nic().is_ok() {
            return Ok(());
        }
        let (device, problem) = (self.place.location.clone(), "the NIC of this VMQ is gone".into());
        Err(OffloadError::from(Error::Absent { device, problem }))
    }
}

impl culvert_offload::RxQueue for AttachedVmq {
    fn repost(&mut self) -> Result<()> {
        culvert_offload::RxQueue::repost(&mut self.queue)
    }

    fn arm(&self) -> bool {
        self.queue.arm()
    }

    fn disarm(&self) {
        culvert_offload::RxQueue::disarm(&self.queue);
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.queue.fd()
    }
}

impl VmqQueue for AttachedVmq {
    fn pop(&mut self, buffer: &mut [u8]) -> Result<Option<VmqFrame>> {
        match VmqQueue::pop(&mut self.queue, buffer)? {
            Some(frame) => Ok(Some(frame)),
            None => self.check().map(|()| None),
        }
    }
}
