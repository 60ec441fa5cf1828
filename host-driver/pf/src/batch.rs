//! `Batch`: commands and packets that enter queue 0 in one piece, in order.

use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use culvert_abi::command::Op;
use culvert_abi::pf::{Entry, MAX_PAYLOAD};
use culvert_abi::regs::{QUEUE_BELL, QUEUE_COMMAND};
use culvert_abi::{FlowKey, FlowRecord, Tunnel};
use culvert_flow::Port;
use culvert_offload::ReinjectMeta;
use culvert_packet::{Offload, Reason};
use zerocopy::{Immutable, IntoBytes};

use crate::completion::NO_ANSWER;
use crate::ring::HostToNic;
use crate::shared::Shared;
use crate::upcall::reinject_entry;
use crate::{Error, Result};

/// Time limit for a full queue 0.
const FULL_LIMIT: Duration = Duration::from_secs(1);

/// How many items of a type fit into one payload.
pub(crate) const fn per_payload<T>() -> usize {
    MAX_PAYLOAD as usize / size_of::<T>()
}

/// A batch of commands and packets. They reach the firmware in this order, and nothing else comes between them. Dropping
/// the batch publishes them to the board.
pub struct Batch<'n> {
    pub(crate) shared: &'n Shared,
    pub(crate) ring: MutexGuard<'n, HostToNic>,
}

impl Batch<'_> {
    pub(crate) fn push(&mut self, entry: &Entry, payload: &[&[u8]]) -> Result<()> {
        if !self.shared.alive() {
            return Err(Error::FirmwareDead { device: self.shared.name().into() });
        }
        if self.ring.push(entry, payload)? {
            return Ok(());
        }
        let end = Instant::now() + FULL_LIMIT;
        loop {
            self.flush()?;
            std::thread::sleep(Duration::from_micros(50));
            if !self.shared.alive() {
                return Err(Error::FirmwareDead { device: self.shared.name().into() });
            }
            if self.ring.push(entry, payload)? {
                return Ok(());
            }
            if Instant::now() > end {
                let what = "a full queue 0".into();
                return Err(Error::Timeout { device: self.shared.name().into(), what, limit: FULL_LIMIT });
            }
        }
    }

    /// Inserts records, or gives existing ones new actions. [`Nic::refused`](crate::Nic::refused) counts refusals.
    ///
    /// # Errors
    /// The firmware is dead, or queue 0 stays full.
    pub fn insert(&mut self, records: &[FlowRecord]) -> Result<()> {
        self.items(Op::FlowInsert, records)
    }

    /// Deletes records by key.
    ///
    /// # Errors
    /// As [`Batch::insert`].
    pub fn delete(&mut self, keys: &[FlowKey]) -> Result<()> {
        self.items(Op::FlowDelete, keys)
    }

    fn items<T: IntoBytes + Immutable>(&mut self, op: Op, items: &[T]) -> Result<()> {
        for chunk in items.chunks(per_payload::<T>()) {
            self.push(&Entry { op: op as u8, cookie: NO_ANSWER, ..Entry::default() }, &[chunk.as_bytes()])?;
        }
        Ok(())
    }

    /// Writes a tunnel's outer headers.
    ///
    /// # Errors
    /// As [`Batch::insert`].
    pub fn set_tunnel(&mut self, index: u16, tunnel: &Tunnel) -> Result<()> {
        let entry =
            Entry { op: Op::TunnelSet as u8, cookie: NO_ANSWER, arg0: u32::from(index), ..Entry::default() };
        self.push(&entry, &[tunnel.as_bytes()])
    }

    /// Reinjects a frame: the NIC looks its flow up.
    ///
    /// # Errors
    /// As [`Batch::insert`], or the frame is too long.
    pub fn reinject(&mut self, meta: &ReinjectMeta, frame: &[u8]) -> Result<()> {
        self.push(&reinject_entry(Op::InjectLookup, meta, Port::None), &[frame])
    }

    /// Sends a frame, given in parts, out of `target` unchanged.
    ///
    /// # Errors
    /// As [`Batch::reinject`].
    pub fn packet_out(&mut self, meta: &ReinjectMeta, target: Port, parts: &[&[u8]]) -> Result<()> {
        self.push(&reinject_entry(Op::InjectOut, meta, target), parts)
    }

    /// Reports packets that the host dropped. The firmware counts them under `reason`.
    ///
    /// # Errors
    /// As [`Batch::insert`].
    pub fn dropped(&mut self, meta: &ReinjectMeta, reason: Reason, count: u32) -> Result<()> {
        let entry = Entry {
            reason: reason as u8,
            arg0: count,
            ..reinject_entry(Op::Dropped, &ReinjectMeta { offload: Offload::default(), ..*meta }, Port::None)
        };
        self.push(&entry, &[])
    }

    /// Publishes the entries so far to the board.
    ///
    /// # Errors
    /// The device is lost.
    pub fn flush(&mut self) -> Result<()> {
        if self.ring.publish() {
            self.shared.bar.queue_write(QUEUE_COMMAND, QUEUE_BELL, 1)?;
        }
        Ok(())
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // The watchdog reports a lost device.
        let _ = self.flush();
    }
}
