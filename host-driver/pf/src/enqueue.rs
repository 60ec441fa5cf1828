//! Enqueues frames that VMs without a VF sent, as far as queue 0 has room for them.

use culvert_abi::command::Op;
use culvert_abi::pf::Entry;
use culvert_abi::regs::{QUEUE_BELL, QUEUE_COMMAND};
use culvert_flow::Port;
use culvert_packet::Reason;

use crate::Result;
use crate::nic::Nic;
use crate::sync::try_lock;

/// Queue 0 accepts a VM's frame while it holds fewer entries than this. It bounds how many frames a verdict waits for, and
/// leaves the rest of the ring to the host's own packets and commands.
const MAX_USED: u32 = 128;

impl Nic {
    /// Enqueues a frame, in parts, that the NIC treats as received from `input`, including the checks of its checksums. Does
    /// not wait. `false`: the firmware is dead, queue 0 is full enough or a batch is being written; try again. The board sees the frame after the
    /// next [`doorbell`](Self::doorbell) or the next batch.
    ///
    /// # Errors
    /// The frame is too long, or the ring has a fault.
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

    /// Reports frames from or to a VM that the host dropped. The firmware counts them under `reason` and for the vport
    /// `input`. `false`: as for [`enqueue`](Self::enqueue).
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
        // The slow path's batch may be waiting for room, for a second: the VMs of this thread do not wait with it.
        let Some(mut ring) = try_lock(&self.shared.command) else { return Ok(false) };
        if ring.used()? >= MAX_USED {
            return Ok(false);
        }
        ring.push(entry, parts)
    }

    /// Publishes enqueued frames, and rings queue 0's doorbell if the board sleeps.
    ///
    /// # Errors
    /// The device is lost.
    pub fn doorbell(&self) -> Result<()> {
        // A batch that is being written publishes what was enqueued before it.
        let Some(mut ring) = try_lock(&self.shared.command) else { return Ok(()) };
        let board_sleeps = ring.publish();
        drop(ring);
        if board_sleeps {
            self.shared.bar.queue_write(QUEUE_COMMAND, QUEUE_BELL, 1)?;
        }
        Ok(())
    }
}
