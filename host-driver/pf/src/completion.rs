//! Answers of the firmware to commands: who waits for which, and the thread that hands them out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use culvert_abi::command::Op;
use culvert_abi::pf::Entry;
use culvert_packet::Reason;

use crate::queue::RxQueue;

/// Cookies with this bit are nobody's: only their failures are counted.
const UNATTENDED: u32 = 1 << 31;
/// How long the thread sleeps at most; also how long its end may take if no interrupt comes.
const TICK: Duration = Duration::from_millis(500);

/// The answer to a command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    /// Why it failed.
    pub(crate) reason: Option<Reason>,
    pub(crate) arg0: u32,
    pub(crate) payload: Vec<u8>,
}

/// Commands under way.
#[derive(Default)]
pub(crate) struct Completions {
    /// None: not answered yet.
    waiting: Mutex<HashMap<u32, Option<Answer>>>,
    changed: Condvar,
    next: AtomicU32,
    /// Failures of commands that nobody waited for, by reason.
    failed: Mutex<HashMap<Reason, u64>>,
    completed: AtomicU64,
}

/// What a wait ended with.
pub(crate) enum Waited {
    Done(Answer),
    /// The firmware died meanwhile.
    Lost,
    TimedOut,
}

impl Completions {
    fn lock(&self) -> MutexGuard<'_, HashMap<u32, Option<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cookie that somebody will wait for.
    pub(crate) fn attend(&self) -> u32 {
        let mut waiting = self.lock();
        loop {
            let cookie = self.next.fetch_add(1, Ordering::Relaxed) & !UNATTENDED;
            if cookie != 0 && !waiting.contains_key(&cookie) {
                waiting.insert(cookie, None);
                return cookie;
            }
        }
    }

    /// The cookie of a command of which only a failure is of interest.
    pub(crate) fn unattended(&self) -> u32 {
        UNATTENDED
    }

    /// Gives a cookie up.
    pub(crate) fn forget(&self, cookie: u32) {
        self.lock().remove(&cookie);
    }

    /// Waits for an answer.
    pub(crate) fn wait(&self, cookie: u32, limit: Duration) -> Waited {
        let end = Instant::now() + limit;
        let mut waiting = self.lock();
        loop {
            match waiting.get_mut(&cookie) {
                None => return Waited::Lost,
                Some(answer) => {
                    if let Some(answer) = answer.take() {
                        waiting.remove(&cookie);
                        return Waited::Done(answer);
                    }
                }
            }
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                waiting.remove(&cookie);
                return Waited::TimedOut;
            };
            waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// All commands under way are lost: the firmware died.
    pub(crate) fn lose_all(&self) {
        self.lock().retain(|_, answer| answer.is_some());
        self.changed.notify_all();
    }

    /// Failures of unattended commands, by reason.
    pub(crate) fn failures(&self) -> HashMap<Reason, u64> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn complete(&self, entry: &Entry, payload: &[u8]) {
        self.completed.fetch_add(1, Ordering::Relaxed);
        let reason = match entry.reason {
            0 => None,
            n => Some(Reason::from_u8(n).unwrap_or(Reason::BadDescriptor)),
        };
        if entry.cookie & UNATTENDED != 0 {
            if let Some(reason) = reason {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
            }
            return;
        }
        // An answer that comes after its command was given up belongs to nobody.
        if let Some(answer) = self.lock().get_mut(&entry.cookie) {
            *answer = Some(Answer { reason, arg0: entry.arg0, payload: payload.to_vec() });
        }
    }

    /// Hands answers out until `stop`. Returns at a fault of the ring, which the watchdog reports.
    pub(crate) fn serve(&self, mut queue: RxQueue, stop: &AtomicBool) {
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
            if queue.repost().is_err() {
                return;
            }
            if any {
                self.changed.notify_all();
                continue;
            }
            if queue.arm() {
                if queue.interrupt().wait(TICK).is_err() {
                    return;
                }
                queue.disarm();
            }
        }
    }
}
