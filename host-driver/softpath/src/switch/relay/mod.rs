//! Ports for machines that no VF serves, on a host with a Culvert NIC: frames go across between a vport's VMQ and its port.
//!
//! The NIC does all of the overlay's work, so that nothing is looked up here: each vport is a [`Pair`](pair::Pair) of two
//! ports, and one thread serves all pairs. It is not the slow path's thread: what a machine sends in bulk delays no
//! decision. Nor does it change any order, since all frames of a vport's machine pass here and enter the NIC by one ring, and
//! what the NIC then gives to the slow path comes back with a ticket as from any VF.

mod pair;
mod worker;

use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use culvert_packet::VportId;
use culvert_pf::{Error, Result};

use self::worker::Worker;
use super::bell::Bell;
use super::packet::Pool;
use super::slot::Opener;
use crate::target::OffloadTarget;

/// What it is called in messages.
const NAME: &str = "the relay of VMQs";
/// How long an answer may take: rounds take microseconds, opening a port milliseconds.
const LIMIT: Duration = Duration::from_secs(5);
/// Orders that may wait at a time.
const ORDERS: usize = 64;
/// Buffers of common size: for each of the NIC's VMQs, two bursts and some that wait.
const BUFFERS: usize = 2048;
/// Buffers for frames that are yet to be cut.
const LARGE_BUFFERS: usize = 128;

/// What the thread is told.
enum Order {
    Attach { vport: VportId, vmq: u16, open: Opener },
    Detach(VportId, Sender<()>),
    Links(Sender<Vec<(VportId, bool)>>),
}

/// The relay. Its thread ends when it is dropped.
pub struct Relay {
    orders: Option<SyncSender<Order>>,
    wake: Arc<Bell>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts it, without any ports.
    ///
    /// # Errors
    /// There is not so much memory, or no thread or descriptor to be had.
    pub fn start(nic: Arc<dyn OffloadTarget>) -> Result<Self> {
        let system = |what| move |source| Error::System { what, source };
        let pool = Pool::new(BUFFERS, LARGE_BUFFERS).map_err(system("packet buffers"))?;
        let (orders, told) = sync_channel(ORDERS);
        let wake = Arc::new(Bell::new()?);
        let worker = Worker::new(nic, pool, told, Arc::clone(&wake));
        let thread = std::thread::Builder::new()
            .name("relay".into())
            .spawn(move || worker.run())
            .map_err(system("the relay's thread"))?;
        Ok(Relay { orders: Some(orders), wake, thread: Some(thread) })
    }

    /// Puts a port into place for the machine of a vport whose frames the NIC steers into VMQ `vmq`. It is opened on the
    /// relay's thread, again and again until it opens, and anew when it breaks.
    ///
    /// # Errors
    /// The relay has ended.
    pub fn attach(&self, vport: VportId, vmq: u16, open: Opener) -> Result<()> {
        self.tell(Order::Attach { vport, vmq, open })
    }

    /// Takes a port away, and stops its VMQ. When it returns, both are closed.
    ///
    /// # Errors
    /// The relay has ended.
    pub fn detach(&self, vport: VportId) -> Result<()> {
        self.ask(|done| Order::Detach(vport, done))
    }

    /// The vports that have a port, and whether somebody is on its other side.
    ///
    /// # Errors
    /// The relay has ended.
    pub fn links(&self) -> Result<Vec<(VportId, bool)>> {
        self.ask(Order::Links)
    }

    fn tell(&self, order: Order) -> Result<()> {
        match self.orders.as_ref().map(|orders| orders.send(order)) {
            Some(Ok(())) => self.wake.ring(),
            _ => Err(Error::FirmwareDead { device: NAME.into() }),
        }
    }

    fn ask<T>(&self, order: impl FnOnce(Sender<T>) -> Order) -> Result<T> {
        let (sender, answer) = channel();
        self.tell(order(sender))?;
        answer.recv_timeout(LIMIT).map_err(|_| Error::Timeout {
            device: NAME.into(),
            what: "a question".into(),
            limit: LIMIT,
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.orders = None;
        // The thread looks ten times a second even if it cannot be woken.
        let _ = self.wake.ring();
        if let Some(thread) = self.thread.take() {
            // A thread that has panicked has said so.
            let _ = thread.join();
        }
    }
}
