//! Commands of the connection's thread to the thread that forwards packets, such as to start and stop vrings.
//!
//! The forwarding thread processes them between two bursts and never waits. It returns what a command replaces, so that the
//! connection's thread unmaps memory and closes files.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SendError, Sender};
use std::time::Duration;

use culvert_virtio::{PinnedParts, Ring};
use rustix::event::{EventfdFlags, epoll, eventfd};

use super::call_fd::CallFd;
use super::features::Features;
use super::reaper::Reaper;

/// Interval in which a sender that waits for an answer checks whether the port is being closed.
const STOP_POLL: Duration = Duration::from_millis(20);

/// A vring in use, with its settings.
pub(super) struct ActiveVring {
    pub(super) ring: Ring,
    /// Descriptor table, available and used ring in the guest's memory.
    pub(super) parts: PinnedParts,
    /// The features that were negotiated when it was started.
    pub(super) features: Features,
    /// The guest's interrupt.
    pub(super) call: Option<CallFd>,
    /// Notified of faults.
    pub(super) error: Option<CallFd>,
    /// Whether the VMM has enabled it.
    pub(super) enabled: bool,
    /// The driver has no kick eventfd: the ring must be polled.
    pub(super) polled: bool,
    /// Stopped by a fault.
    pub(super) broken: bool,
}

/// A command of the connection's thread.
pub(super) enum VringCommand {
    /// Replaces the vring of this number, by none to stop it.
    Replace(usize, Option<Box<ActiveVring>>),
    /// Enables or disables a vring.
    Enable(usize, bool),
    /// Sets the eventfd of the guest's interrupt.
    SetCall(usize, Option<CallFd>),
    /// The connection's thread has ended.
    Close,
}

/// What a command has replaced.
#[derive(Default)]
pub(super) struct Replaced {
    pub(super) vring: Option<Box<ActiveVring>>,
    /// The connection's thread closes it.
    pub(super) _call: Option<CallFd>,
}

/// The sending side, of the connection's thread.
pub(super) struct ControlTx {
    commands: Sender<VringCommand>,
    answers: Receiver<Replaced>,
    /// Set while a command waits.
    pending: Arc<AtomicBool>,
    /// Readable when a command was sent, and when a guest has kicked.
    epoll: Arc<OwnedFd>,
    /// An eventfd that `epoll` watches.
    wake: OwnedFd,
    /// Set when the port is being closed.
    stop: Arc<AtomicBool>,
}

/// The receiving side, of the thread that forwards packets.
pub(super) struct ControlRx {
    commands: Receiver<VringCommand>,
    answers: Sender<Replaced>,
    pending: Arc<AtomicBool>,
    reaper: Reaper,
}

/// Creates both sides. When `stop` is set, the sender no longer waits for answers.
pub(super) fn channel(
    epoll: &Arc<OwnedFd>,
    stop: &Arc<AtomicBool>,
) -> std::io::Result<(ControlTx, ControlRx)> {
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    watch(epoll, &wake)?;
    let ((commands, command_rx), (answer_tx, answers)) = (mpsc::channel(), mpsc::channel());
    let pending = Arc::new(AtomicBool::new(false));
    let (reaper, rx_pending) = (Reaper::start()?, Arc::clone(&pending));
    let rx = ControlRx { commands: command_rx, answers: answer_tx, pending: rx_pending, reaper };
    let (epoll, stop) = (Arc::clone(epoll), Arc::clone(stop));
    Ok((ControlTx { commands, answers, pending, epoll, wake, stop }, rx))
}

/// Makes `epoll` readable when `fd` is written to. Edge-triggered, so that `fd` need not be read: its owner could make that
/// read block.
fn watch(epoll: &OwnedFd, fd: &impl AsFd) -> rustix::io::Result<()> {
    epoll::add(epoll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN | epoll::EventFlags::ET)
}

/// Consumes all events until now. Those of a VMM that kicks faster than they are consumed stay for the next time.
pub(super) fn drain_kicks(epoll: &OwnedFd) {
    const MAX_EVENTS: usize = 64;
    const MAX_ROUNDS: usize = 4;
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut events =
        [const { epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) } };
            MAX_EVENTS];
    for _ in 0..MAX_ROUNDS {
        if !epoll::wait(epoll, &mut events[..], Some(&now)).is_ok_and(|n| n == MAX_EVENTS) {
            return;
        }
    }
}

impl ControlTx {
    /// Has a command executed, and waits for the answer. `None`: the port is being closed.
    pub(super) fn execute(&self, command: VringCommand) -> Option<Replaced> {
        self.send(command);
        loop {
            match self.answers.recv_timeout(STOP_POLL) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Timeout) if !self.stop.load(Ordering::Acquire) => {}
                Err(_) => return None,
            }
        }
    }

    fn send(&self, command: VringCommand) {
        // If the receiver is gone there is no answer.
        let _sent = self.commands.send(command);
        self.pending.store(true, Ordering::Release);
        let _woken = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Has a guest's kick wake the forwarding thread.
    pub(super) fn watch(&self, kick: &OwnedFd) -> rustix::io::Result<()> {
        watch(&self.epoll, kick)
    }

    /// Stops watching a kick eventfd.
    pub(super) fn unwatch(&self, kick: &OwnedFd) {
        // Fails only if the file was never added.
        let _removed = epoll::delete(&self.epoll, kick);
    }
}

impl ControlRx {
    /// The next command. The caller answers it before it asks for another.
    #[inline]
    pub(super) fn next(&self) -> Option<VringCommand> {
        // The flag is set after the send, so that the channel is not entered while the sender holds its lock.
        if !self.pending.load(Ordering::Relaxed) || !self.pending.swap(false, Ordering::Acquire) {
            return None;
        }
        self.commands.try_recv().ok()
    }

    /// Whether a command is waiting.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Answers a command.
    pub(super) fn answer(&self, replaced: Replaced) {
        // Fails only if the sender is gone.
        if let Err(SendError(replaced)) = self.answers.send(replaced) {
            self.reaper.discard(replaced);
        }
    }

    /// Has vrings dropped, with the guest's memory, by a thread that no packet waits for.
    pub(super) fn discard(&self, vrings: Vec<Option<Box<ActiveVring>>>) {
        self.reaper.discard(vrings);
    }
}

impl Drop for ControlRx {
    fn drop(&mut self) {
        // A vring that was not started. The sender keeps its memory until it has ended, too.
        self.commands.try_iter().for_each(|command| self.reaper.discard(command));
    }
}

impl Drop for ControlTx {
    fn drop(&mut self) {
        self.send(VringCommand::Close);
    }
}
