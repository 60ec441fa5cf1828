//! Frames of virtual machines that the host has in its hands, given to the NIC as far as there is room for them.

use culvert_abi::command::Op;
use culvert_abi::pf::Entry;
use culvert_abi::regs::{QUEUE_BELL, QUEUE_COMMAND};
use culvert_flow::Port;
use culvert_packet::Reason;

use crate::Result;
use crate::nic::Nic;
use crate::sync::lock;

/// Entries of queue 0 that may be under way when one of a virtual machine joins them: so many at most a verdict finds
/// before it, and the rest of the ring is there for the host's own packets and commands.
pub(crate) const SHARE: u32 = 128;

impl Nic {
    /// Gives the NIC a frame, in parts, to be treated as if it had come in at `input`, checksums and all. `false`:
    /// nothing is taken now, the firmware being dead or its queue long enough; the same frame may be offered again. Nothing
    /// here waits. The board sees it at the next [`doorbell`](Self::doorbell), or with what others send.
    ///
    /// # Errors
    /// The frame is too long, or the ring makes no sense any more.
    pub fn enqueue(&self, input: Port, parts: &[&[u8]]) -> Result<bool> {
        let entry = Entry {
            op: Op::InjectLookup as u8,
            port: input.bits(),
            target: Port::None.bits(),
            arg1: Op::OF_VM,
            ..Entry::default()
        };
        self.enqueue_entry(&entry, parts)
    }

    /// Reports that frames for or from a virtual machine ended at the host: the firmware counts them under `reason`, and for
    /// the vport `input`. `false`: as for [`enqueue`](Self::enqueue).
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue).
    pub fn enqueue_drops(&self, input: Port, reason: Reason, count: u32) -> Result<bool> {
        let entry = Entry {
            op: Op::Dropped as u8,
            reason: reason as u8,
            port: input.bits(),
            target: Port::None.bits(),
            arg0: count,
            arg1: Op::OF_VM,
            ..Entry::default()
        };
        self.enqueue_entry(&entry, &[])
    }

    fn enqueue_entry(&self, entry: &Entry, parts: &[&[u8]]) -> Result<bool> {
        if !self.shared.alive() {
            return Ok(false);
        }
        let mut ring = lock(&self.shared.command);
        if ring.used()? >= SHARE {
            return Ok(false);
        }
        ring.push(entry, parts)
    }

    /// Shows the board what it was offered.
    ///
    /// # Errors
    /// The device is lost.
    pub fn doorbell(&self) -> Result<()> {
        let asleep = lock(&self.shared.command).publish();
        if asleep {
            self.shared.bar.queue_write(QUEUE_COMMAND, QUEUE_BELL, 1)?;
        }
        Ok(())
    }
}
