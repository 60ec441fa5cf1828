//! `Completions`: the firmware's answers to commands, and the thread that delivers them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use culvert_abi::command::Op;
use culvert_abi::pf::Entry;
use culvert_packet::Reason;

use crate::queue::RxQueue;

/// The cookie of commands that nothing waits for. Only their failures are counted.
pub(crate) const NO_ANSWER: u32 = 1 << 31;
/// Longest sleep of the thread, and longest delay of its end without an interrupt.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// The answer to a command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// Why the command failed.
    pub(crate) reason: Option<Reason>,
    pub(crate) arg0: u32,
    /// The NIC's time when it executed the command: milliseconds, wrapping.
    pub(crate) now: u32,
    pub(crate) payload: Vec<u8>,
}

/// Outstanding commands.
#[derive(Default)]
pub(crate) struct Completions {
    /// Answers by cookie; `None` until one arrives.
    waiting: Mutex<HashMap<u32, Option<Answer>>>,
    changed: Condvar,
    next_cookie: AtomicU32,
    /// Failures of commands that nothing waited for, by reason.
    failed: Mutex<HashMap<Reason, u64>>,
}

/// How a wait for an answer ended.
pub(crate) enum WaitResult {
    Answered(Answer),
    FirmwareDied,
    TimedOut,
}

impl Completions {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Option<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a command and returns its cookie for [`wait`](Self::wait).
    pub(crate) fn register(&self) -> u32 {
        let mut waiting = self.lock();
        loop {
            let cookie = self.next_cookie.fetch_add(1, Ordering::Relaxed) & !NO_ANSWER;
            if cookie != 0 && !waiting.contains_key(&cookie) {
                waiting.insert(cookie, None);
                return cookie;
            }
        }
    }

    /// Stops waiting for a command.
    pub(crate) fn cancel(&self, cookie: u32) {
        self.lock().remove(&cookie);
    }

    /// Waits for the answer to a command.
    pub(crate) fn wait(&self, cookie: u32, limit: Duration) -> WaitResult {
        let end = Instant::now() + limit;
        let mut waiting = self.lock();
        loop {
            match waiting.get_mut(&cookie) {
                None => return WaitResult::FirmwareDied,
                Some(answer) => {
                    if let Some(answer) = answer.take() {
                        waiting.remove(&cookie);
                        return WaitResult::Answered(answer);
                    }
                }
            }
            let Some(remaining) = end.checked_duration_since(Instant::now()) else {
                waiting.remove(&cookie);
                return WaitResult::TimedOut;
            };
            waiting = self.changed.wait_timeout(waiting, remaining).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends all waits: the firmware died.
    pub(crate) fn fail_all(&self) {
        self.lock().retain(|_, answer| answer.is_some());
        self.changed.notify_all();
    }

    /// Failures of commands that nothing waited for, by reason.
    pub(crate) fn failures(&self) -> HashMap<Reason, u64> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn complete(&self, entry: &Entry, payload: &[u8]) {
        let reason = match entry.reason {
            0 => None,
            n => Some(Reason::from_u8(n).unwrap_or(Reason::BadDescriptor)),
        };
        if entry.cookie & NO_ANSWER != 0 {
            if let Some(reason) = reason {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
            }
            return;
        }
        // Nothing waits for an answer to a cancelled command.
        if let Some(answer) = self.lock().get_mut(&entry.cookie) {
            *answer = Some(Answer { reason, arg0: entry.arg0, now: entry.now, payload: payload.to_vec() });
        }
    }

    /// Delivers answers until `stop`. Returns if the ring has a fault; the watchdog reports it.
    pub(crate) fn run(&self, mut queue: RxQueue, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            let mut any = false;
            loop {
                match queue.pop() {
                    Ok(Some((entry, payload))) if entry.op == Op::Complete as u8 => {
                        self.complete(&entry, payload);
                        any = true;
                    }
                    Ok(Some(_)) => any = true,
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            match queue.repost() {
                // A board that does not answer for a while needs no doorbell: it looks when it runs again.
                Err(e) if !e.is_silence() => return,
                _ => {}
            }
            if any {
                self.changed.notify_all();
                continue;
            }
            if queue.arm() {
                if queue.interrupt().wait(POLL_INTERVAL).is_err() {
                    return;
                }
                queue.disarm();
            }
        }
    }
}
