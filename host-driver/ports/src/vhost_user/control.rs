//! What the connection's thread tells the one that moves packets, which takes it between two bursts and never waits: rings
//! that begin and end. Whatever an order replaces goes back with the answer, so that memory is unmapped by who may wait.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use culvert_virtio::{PinnedParts, Ring};
use rustix::event::{EventfdFlags, epoll, eventfd};

use super::features::Features;

/// How often somebody who waits for an answer looks whether the port is going.
const TURN: Duration = Duration::from_millis(20);

/// A file to write to when a ring has something to say.
pub(super) type Notifier = Option<Arc<OwnedFd>>;

/// A ring and what belongs to it.
pub(super) struct ActiveVring {
    pub(super) ring: Ring,
    /// Where the ring is in the guest's memory.
    pub(super) parts: PinnedParts,
    /// What was agreed on when it began.
    pub(super) features: Features,
    /// The guest's interrupt.
    pub(super) call: Notifier,
    /// Told of faults.
    pub(super) error: Notifier,
    pub(super) enabled: bool,
    /// The driver has no file to kick with: it is to be looked after all the time.
    pub(super) polled: bool,
    /// A fault has stopped it.
    pub(super) broken: bool,
}

/// What is to be done.
pub(super) enum VringCommand {
    /// The ring of this number is this one from now on, or none.
    Exchange(usize, Option<Box<ActiveVring>>),
    /// Whether the ring is used.
    Enable(usize, bool),
    /// The guest's interrupt.
    Call(usize, Notifier),
    /// There are no more orders.
    End,
}

/// What was there before.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) ring: Option<Box<ActiveVring>>,
    /// Kept until it is dropped on this side.
    pub(super) _bell: Notifier,
}

/// The side that gives orders.
pub(super) struct ControlTx {
    orders: Sender<VringCommand>,
    answers: Receiver<Answer>,
    waiting: Arc<AtomicBool>,
    /// Readable when orders have come, and when a guest has kicked.
    epoll: Arc<OwnedFd>,
    notifier: OwnedFd,
    stop: Arc<AtomicBool>,
}

/// The side that takes them.
pub(super) struct ControlRx {
    orders: Receiver<VringCommand>,
    answers: Sender<Answer>,
    waiting: Arc<AtomicBool>,
}

/// Both sides. When `stop` is set, nobody waits for answers any more.
pub(super) fn pair(epoll: &Arc<OwnedFd>, stop: &Arc<AtomicBool>) -> std::io::Result<(ControlTx, ControlRx)> {
    let notifier = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    watch(epoll, &notifier)?;
    let ((orders, take), (answer, answers)) = (channel(), channel());
    let waiting = Arc::new(AtomicBool::new(false));
    let inbox = ControlRx { orders: take, answers: answer, waiting: Arc::clone(&waiting) };
    let (epoll, stop) = (Arc::clone(epoll), Arc::clone(stop));
    Ok((ControlTx { orders, answers, waiting, epoll, notifier, stop }, inbox))
}

/// Makes `epoll` readable when `fd` is written to. By the edge: so nobody has to read there, which would wait if its owner
/// liked it to.
fn watch(epoll: &OwnedFd, fd: &impl AsFd) -> rustix::io::Result<()> {
    epoll::add(epoll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN | epoll::EventFlags::ET)
}

/// Takes note of all writes until now.
pub(super) fn forget_kicks(epoll: &OwnedFd) {
    const AT_ONCE: usize = 64;
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut events =
        [const { epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) } };
            AT_ONCE];
    while epoll::wait(epoll, &mut events[..], Some(&now)).is_ok_and(|n| n == AT_ONCE) {}
}

impl ControlTx {
    /// Has an order carried out. `None`: the port is going.
    pub(super) fn give(&self, order: VringCommand) -> Option<Answer> {
        self.send(order);
        loop {
            match self.answers.recv_timeout(TURN) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Timeout) if !self.stop.load(Ordering::Acquire) => {}
                Err(_) => return None,
            }
        }
    }

    fn send(&self, order: VringCommand) {
        // Whether anybody is there to take it shows when no answer comes, and when this cannot be written.
        let _sent = self.orders.send(order);
        self.waiting.store(true, Ordering::Release);
        let _rung = rustix::io::write(&self.notifier, &1u64.to_ne_bytes());
    }

    /// Wakes whoever sleeps when a guest kicks here.
    pub(super) fn watch(&self, kick: &OwnedFd) -> rustix::io::Result<()> {
        watch(&self.epoll, kick)
    }

    /// Does so no longer.
    pub(super) fn unwatch(&self, kick: &OwnedFd) {
        // It was added, unless the guest's file cannot be waited for.
        let _removed = epoll::delete(&self.epoll, kick);
    }
}

impl ControlRx {
    /// The next order. Each is to be answered before the next is asked for.
    #[inline]
    pub(super) fn next(&self) -> Option<VringCommand> {
        // Somebody who is just sending would be waited for in the channel: who sets the flag has sent.
        if !self.waiting.load(Ordering::Relaxed) || !self.waiting.swap(false, Ordering::Acquire) {
            return None;
        }
        self.orders.try_recv().ok()
    }

    /// Whether an order is waiting.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire)
    }

    pub(super) fn answer(&self, answer: Answer) {
        // Who does not wait for it any more needs none.
        let _gone = self.answers.send(answer);
    }
}

impl Drop for ControlTx {
    fn drop(&mut self) {
        self.send(VringCommand::End);
    }
}
