//! The queue engine's side of a device: frames out of transmit chains and into receive buffers, control commands. None of
//! it waits: queues that only messages to the client reach are left to a thread of the device (`message_thread`).

use std::sync::atomic::Ordering;

use culvert_virtio::{Chain, IovaParts, MemoryFault, ReceiveBuffers, Ring, RingFault};

use super::config::{Delivery, RxError, TxBudget, TxFrame};
use super::device::NetDevice;
use super::features::{CONTROL, QUEUES, RX, TX};
use super::slot::Queue;

/// Chains taken in one `tx_pop`, and commands executed in one `service_control`.
const MAX_ROUNDS: usize = 64;
/// Descriptors of receive buffers that a VF may have filled between two `flush_interrupts`: several times what a burst of
/// frames takes in buffers of any sane size. A guest that crumbles its buffers slows nobody else down.
const RX_DESCRIPTORS: usize = 4096;

/// One queue at work: its ring, the ring's memory, and the room for chains and buffers.
struct Work<'w> {
    ring: &'w mut Ring,
    memory: IovaParts<'w>,
    chain: &'w mut Chain,
    receive_buffers: &'w mut ReceiveBuffers,
}

impl NetDevice {
    /// Whether the guest has made a frame available.
    pub fn has_tx(&self) -> bool {
        if self.messaged.is_on() {
            return self.messaged.has_frame();
        }
        self.is_running() && self.on_queue(TX, |Work { ring, memory, .. }| Ok(ring.waiting(&memory)? > 0))
    }

    /// Takes the next frame, without its virtio header, into `buf`. `None`: there is none now.
    pub fn tx_pop(&self, buf: &mut [u8]) -> Option<TxFrame> {
        self.tx_pop_within(buf, &mut TxBudget { frames: MAX_ROUNDS, descriptors: i64::MAX, bytes: i64::MAX })
    }

    /// Takes the next frame as [`tx_pop`](Self::tx_pop), while the budget lasts, and charges it. Chains that are discarded
    /// cost as much as frames.
    pub fn tx_pop_within(&self, buf: &mut [u8], budget: &mut TxBudget) -> Option<TxFrame> {
        while budget.lasts() {
            let taken = if self.messaged.is_on() {
                self.messaged.take_frame(buf).map(|taken| (taken, 1))
            } else if self.is_running() {
                self.on_queue(TX, |Work { ring, memory, chain, .. }| {
                    let taken = self.take_chain(ring, &memory, chain, buf)?;
                    ring.publish(&memory)?;
                    Ok(taken.map(|taken| (taken, chain.readable().len() + chain.writable().len())))
                })
            } else {
                None
            };
            let (taken, descriptors) = taken?;
            budget.charge(descriptors, taken.as_ref().map_or(0, |frame| frame.len));
            match taken {
                Ok(frame) => {
                    self.counters.sent(frame.len);
                    return Some(frame);
                }
                Err(discard) => self.counters.discarded(discard),
            }
        }
        None
    }

    /// Puts a frame, in pieces, into the guest's receive buffers. `verified`: its checksums are known to be good, which
    /// the guest is told if it wants to know.
    pub fn rx_push(&self, parts: &[&[u8]], verified: bool) -> Result<Delivery, RxError> {
        let result = if !self.is_running() {
            Err(RxError::Stopped)
        } else if self.messaged.is_on() {
            self.messaged.give_frame(parts, verified)
        } else if self.rx_descriptors.load(Ordering::Relaxed) >= RX_DESCRIPTORS {
            Err(RxError::NoBuffer)
        } else {
            let done = self.on_queue(RX, |Work { ring, memory, receive_buffers: buffers, .. }| {
                let done = self.fill_buffers(ring, &memory, buffers, parts, verified)?;
                ring.publish(&memory)?;
                self.rx_descriptors.fetch_add(buffers.descriptors(), Ordering::Relaxed);
                Ok(Some(done.map(|()| Delivery::Done)))
            });
            match done {
                Some(done) => done,
                // The engine has just met memory that only messages reach.
                None if self.messaged.is_on() => self.messaged.give_frame(parts, verified),
                None => Err(RxError::Stopped),
            }
        };
        match result {
            Ok(Delivery::Done) => self.counters.received(parts.iter().map(|part| part.len()).sum()),
            Ok(Delivery::Queued) => {}
            Err(error) => self.counters.refused(error),
        }
        result
    }

    /// Executes waiting control commands. Cheap if the driver has not kicked.
    pub fn service_control(&self) {
        if !self.control_kicked.load(Ordering::Acquire) || !self.is_running() || self.messaged.is_on() {
            return;
        }
        self.control_kicked.store(false, Ordering::Release);
        for _ in 0..MAX_ROUNDS {
            let any = self.on_queue(CONTROL, |Work { ring, memory, chain, .. }| {
                self.execute_command(ring, &memory, chain)
            });
            if !any {
                return;
            }
        }
        // More than a round's worth: the rest comes with the next one.
        self.control_kicked.store(true, Ordering::Release);
    }

    /// Interrupts for what was completed since the last call, where the driver asks for them.
    pub fn flush_interrupts(&self) {
        self.rx_descriptors.store(0, Ordering::Relaxed);
        if !self.is_running() || self.messaged.is_on() {
            return;
        }
        for index in 0..QUEUES {
            let wanted = self.on_queue(index, |Work { ring, memory, .. }| ring.take_interrupt(&memory));
            if wanted {
                self.interrupt_queue(index);
            }
        }
    }

    /// Asks the driver not to kick while frames are polled for, or to kick again. After `false`, look at
    /// [`has_tx`](Self::has_tx) once more before sleeping.
    pub fn set_polling(&self, polling: bool) {
        if self.polling.swap(polling, Ordering::AcqRel) == polling
            || !self.is_running()
            || self.messaged.is_on()
        {
            return;
        }
        self.on_queue(TX, |Work { ring, memory, .. }| ring.set_notify(&memory, !polling));
    }

    /// Works on one queue, if it is enabled; a fault stops it and gives the default.
    fn on_queue<T: Default>(&self, index: usize, work: impl FnOnce(Work<'_>) -> Result<T, RingFault>) -> T {
        let result = {
            let mut guard = self.ring(index);
            let slot = &mut *guard;
            let Some(queue) = &mut slot.queue else { return T::default() };
            let result = {
                let view = self.memory.view();
                let memory = IovaParts::new(&*view, &queue.layout);
                let notify = std::mem::take(&mut queue.fresh).then(|| self.first_notify(index));
                let ready = notify.map_or(Ok(()), |notify| queue.ring.set_notify(&memory, notify));
                let (ring, chain) = (&mut queue.ring, &mut slot.chain);
                let receive_buffers = &mut slot.receive_buffers;
                ready.and_then(|()| work(Work { ring, memory, chain, receive_buffers }))
            };
            match result {
                Err(RingFault::Memory(MemoryFault::Remote)) if self.messaged.has_thread() => None,
                Err(fault) => {
                    self.stop(index, slot, fault);
                    return T::default();
                }
                Ok(value) => Some(value),
            }
        };
        result.unwrap_or_else(|| {
            // The thread never polls: it says anew when the driver is to notify.
            let take = |index| self.ring(index).queue.take().map(|queue| Queue { fresh: true, ..queue });
            self.messaged.assign(|| std::array::from_fn(take));
            T::default()
        })
    }

    /// Whether the driver of a new queue is to notify: never of receive buffers; of frames unless the engine polls.
    fn first_notify(&self, index: usize) -> bool {
        match index {
            RX => false,
            TX => !self.polling.load(Ordering::Acquire),
            _ => true,
        }
    }

    /// Frames given to the guest, or lost, since the last call, of those that [`rx_push`](Self::rx_push) has only queued.
    /// For one caller, the engine.
    pub fn take_late(&self) -> super::counters::Late {
        self.counters.new_late()
    }
}
