//! The loop of a packet thread: polls while there is work, and sleeps in poll(2) when there is none.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::notifier::Notifier;
use crate::packet_thread;

/// Rounds without work after which a thread usually sleeps.
pub(super) const IDLE_ROUNDS: u32 = 64;
/// The same for a thread whose last work came from another packet thread, about a tenth of a millisecond: to be woken for each
/// burst would cost the other one more than the burst.
pub(super) const HANDOFF_IDLE_ROUNDS: u32 = 1024;
/// Commands between two rounds.
const COMMANDS: usize = 64;
/// The longest sleep; also the interval in which a loop looks at links and broken ports.
pub const TICK: Duration = Duration::from_millis(100);

/// What a packet thread does in its loop.
pub trait PollLoop {
    /// What other threads tell it to do.
    type Command;

    /// Executes a command.
    fn execute(&mut self, command: Self::Command);

    /// Does one round: one burst of each source. `true`: there was work.
    fn round(&mut self) -> bool;

    /// Rounds without work after which the thread sleeps.
    fn idle_rounds(&self) -> u32 {
        IDLE_ROUNDS
    }

    /// Accounts for the time since the last call. `worked`: there was work in it.
    fn account(&mut self, worked: bool) {
        let _ = worked;
    }

    /// Prepares all sources for a sleep, and says how long it may be. `None`: there is work already.
    fn arm(&mut self) -> Option<Duration>;

    /// Calls `add` with each descriptor that ends the sleep.
    fn wake_fds<'a>(&'a mut self, fds: &mut Vec<PollFd<'a>>);
}

/// Runs until nobody can send commands any more.
pub fn run<L: PollLoop>(this: &mut L, commands: &Receiver<L::Command>, notifier: &Notifier) {
    packet_thread::mark();
    let mut idle = 0;
    loop {
        culvert_threads::beat();
        let Some(told) = execute_pending(this, commands) else { return };
        let worked = this.round() || told;
        this.account(worked);
        if worked {
            idle = 0;
            continue;
        }
        idle += 1;
        if idle < this.idle_rounds() {
            std::hint::spin_loop();
        } else {
            idle = 0;
            sleep(this, commands, notifier);
            this.account(false);
        }
    }
}

/// Executes commands that wait. `None`: there will be no more.
fn execute_pending<L: PollLoop>(this: &mut L, commands: &Receiver<L::Command>) -> Option<bool> {
    for n in 0..COMMANDS {
        match commands.try_recv() {
            Ok(command) => this.execute(command),
            Err(TryRecvError::Empty) => return Some(n > 0),
            Err(TryRecvError::Disconnected) => return None,
        }
    }
    Some(true)
}

fn sleep<L: PollLoop>(this: &mut L, commands: &Receiver<L::Command>, notifier: &Notifier) {
    // From here on whoever gives this thread work notifies it; what was given before is looked at once more.
    notifier.sleeping();
    let limit = this.arm();
    match commands.try_recv() {
        Err(TryRecvError::Empty) => {}
        Ok(command) => {
            this.execute(command);
            return notifier.awake();
        }
        Err(TryRecvError::Disconnected) => return notifier.awake(),
    }
    let Some(limit) = limit else { return notifier.awake() };
    let mut fds = vec![poll_fd(notifier.as_fd())];
    this.wake_fds(&mut fds);
    let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(limit.subsec_nanos()) };
    // An interrupted sleep is a short one.
    let _ = poll(&mut fds, Some(&limit));
    notifier.awake();
}

/// An entry for poll(2) that waits for input.
pub fn poll_fd(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::IN)
}
