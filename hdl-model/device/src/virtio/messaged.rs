//! Queues that only messages to the client reach, as engine and session see them: frames pass to and from the thread that
//! serves them (`message_thread`) through two bounded queues. The engine never waits for that thread, nor for a lock that
//! it holds while it waits for the client.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{JoinHandle, Thread};

use rtrb::{Consumer, Producer};
use rustix::io::Errno;

use super::config::{Delivery, Discard, RxError, TxFrame};
use super::counters::Live;
use super::features::QUEUES;
use super::slot::{Queue, lock};
use crate::vfio_user::RemoteDma;

/// Frames that may wait for the thread, and for the engine.
const TO_GUEST: usize = 256;
const FROM_GUEST: usize = 64;

/// A frame of the guest, or what was wrong with it.
pub(super) type Sent = (Box<[u8]>, TxFrame);
/// A frame for the guest, and whether its checksums are verified.
pub(super) type Received = (Box<[u8]>, bool);

/// The engine's ends of the queues.
struct Ends {
    from_guest: Consumer<Sent>,
    to_guest: Producer<Received>,
    thread: Thread,
}

/// The device's queues while the thread has them, and its ends of the frames' queues.
pub(super) struct Run {
    pub(super) queues: [Option<Queue>; QUEUES],
    pub(super) from_guest: Producer<Sent>,
    pub(super) to_guest: Consumer<Received>,
}

/// What the thread has to do.
#[derive(Default)]
pub(super) enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// To serve these queues.
    Assigned(Box<Run>),
    /// It does.
    Serving,
    /// It has served these to the end.
    Finished(Box<Run>),
}

/// What thread, engine and session share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) phase: Mutex<Phase>,
    pub(super) changed: Condvar,
    /// The thread is to let go of its queues.
    pub(super) withdrawn: AtomicBool,
    /// The thread is to end.
    pub(super) ended: AtomicBool,
    /// The client has mapped memory.
    pub(super) mapped: AtomicBool,
    /// The guest has kicked.
    pub(super) kicked: AtomicBool,
}

/// The thread, from the first mapping without a file to the end of the session.
pub(super) struct Server {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    remote: Arc<RemoteDma>,
}

/// Where a device is served from.
#[derive(Default)]
pub(crate) struct Messaged {
    /// The thread has the device's queues, until they are reset.
    on: AtomicBool,
    has_thread: AtomicBool,
    /// Held by the engine, and by the session to replace them; never while anybody waits.
    ends: Mutex<Option<Ends>>,
    /// Held by the session while it waits for the thread. The engine tries.
    server: Mutex<Option<Server>>,
    /// The session's way to its client's memory, and how to start a thread that uses it.
    client: Mutex<Option<Client>>,
}

/// Starts the device's thread.
pub(super) type Spawn = Box<dyn Fn(&Arc<Shared>) -> std::io::Result<JoinHandle<()>> + Send>;

struct Client {
    remote: Arc<RemoteDma>,
    spawn: Spawn,
}

impl Messaged {
    /// Whether the thread has the device's queues.
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Whether there is a thread that could take them.
    pub(super) fn has_thread(&self) -> bool {
        self.has_thread.load(Ordering::Acquire)
    }

    /// Whether a frame of the guest waits.
    pub(super) fn has_frame(&self) -> bool {
        lock(&self.ends).as_ref().is_some_and(|ends| !ends.from_guest.is_empty())
    }

    /// The next frame of the guest.
    pub(super) fn take_frame(&self, buf: &mut [u8]) -> Option<Result<TxFrame, Discard>> {
        let mut guard = lock(&self.ends);
        let ends = guard.as_mut()?;
        let (bytes, frame) = ends.from_guest.pop().ok()?;
        // It may wait for room.
        ends.thread.unpark();
        match buf.get_mut(..bytes.len()) {
            None => Some(Err(Discard::Oversize)),
            Some(buf) => {
                buf.copy_from_slice(&bytes);
                Some(Ok(frame))
            }
        }
    }

    /// Queues a frame for the guest.
    pub(super) fn give_frame(&self, parts: &[&[u8]], verified: bool) -> Result<Delivery, RxError> {
        let mut guard = lock(&self.ends);
        let ends = guard.as_mut().ok_or(RxError::Stopped)?;
        if ends.to_guest.is_full() {
            return Err(RxError::NoBuffer);
        }
        ends.to_guest.push((parts.concat().into(), verified)).map_err(|_| RxError::NoBuffer)?;
        ends.thread.unpark();
        Ok(Delivery::Queued)
    }

    fn wake(&self, note: impl FnOnce(&Shared)) {
        if let Some(server) = &*lock(&self.server) {
            note(&server.shared);
            server.thread.thread().unpark();
        }
    }

    /// Notes that the client has mapped memory, which the thread may wait for.
    pub(crate) fn note_mapping(&self) {
        self.wake(|shared| shared.mapped.store(true, Ordering::Release));
    }

    /// Notes that the guest has kicked, or has switched bus mastering.
    pub(super) fn note_kick(&self) {
        if self.has_thread() {
            self.wake(|shared| shared.kicked.store(true, Ordering::Release));
        }
    }

    /// A client has connected, whose memory `remote` reaches.
    pub(super) fn connect(&self, remote: Arc<RemoteDma>, spawn: Spawn) {
        *lock(&self.client) = Some(Client { remote, spawn });
    }

    /// The way to the client's memory, while there is a client.
    pub(super) fn remote(&self) -> Option<Arc<RemoteDma>> {
        lock(&self.client).as_ref().map(|client| Arc::clone(&client.remote))
    }

    /// The client has mapped memory without a file: from now on a thread can serve the queues.
    pub(crate) fn start(&self) -> Result<(), Errno> {
        let mut server = lock(&self.server);
        if server.is_some() {
            return Ok(());
        }
        let client = lock(&self.client);
        // Without a client nobody could answer.
        let Client { remote, spawn } = client.as_ref().ok_or(Errno::INVAL)?;
        let shared = Arc::new(Shared::default());
        let thread = spawn(&shared).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::AGAIN))?;
        *server = Some(Server { shared, thread, remote: Arc::clone(remote) });
        self.has_thread.store(true, Ordering::Release);
        Ok(())
    }

    /// The client has unmapped a range, or everything.
    pub(crate) fn give_up(&self, range: Option<(u64, u64)>) {
        let (iova, size) = range.unwrap_or((0, u64::MAX));
        if let Some(client) = &*lock(&self.client) {
            client.remote.give_up(iova, size);
        }
    }

    /// Takes the queues from the thread, which touches nothing of them when this returns, and counts the frames that were
    /// on their way. While the guard lives the engine cannot assign them again.
    pub(super) fn withdraw(&self, counters: &Live) -> MutexGuard<'_, Option<Server>> {
        let guard = lock(&self.server);
        let ends = {
            let mut ends = lock(&self.ends);
            self.on.store(false, Ordering::Release);
            ends.take()
        };
        let Some(server) = &*guard else { return guard };
        server.shared.withdrawn.store(true, Ordering::Release);
        server.remote.interrupt();
        server.thread.thread().unpark();
        let mut phase = lock(&server.shared.phase);
        while matches!(*phase, Phase::Serving) {
            phase = server.shared.changed.wait(phase).unwrap_or_else(PoisonError::into_inner);
        }
        if let Phase::Assigned(mut run) | Phase::Finished(mut run) = std::mem::take(&mut *phase) {
            while let Ok((frame, _)) = run.to_guest.pop() {
                counters.late(Err(RxError::Stopped), frame.len());
            }
        }
        drop(phase);
        if let Some(Ends { mut from_guest, .. }) = ends {
            while from_guest.pop().is_ok() {
                counters.discarded(Discard::Reset);
            }
        }
        server.shared.withdrawn.store(false, Ordering::Release);
        server.remote.resume();
        guard
    }

    /// The session is over: ends the thread. The device has been reset.
    pub(super) fn end(&self) {
        self.has_thread.store(false, Ordering::Release);
        *lock(&self.client) = None;
        let server = lock(&self.server).take();
        if let Some(server) = server {
            server.shared.ended.store(true, Ordering::Release);
            server.thread.thread().unpark();
            let _ = server.thread.join();
        }
    }

    /// The engine has met memory that only messages reach: the thread is to serve the queues, which `take` gives. Does
    /// nothing while the session resets them.
    pub(super) fn assign(&self, take: impl FnOnce() -> [Option<Queue>; QUEUES]) {
        let guard = match self.server.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let Some(server) = &*guard else { return };
        let mut phase = lock(&server.shared.phase);
        if !matches!(*phase, Phase::Idle) {
            return;
        }
        let (sent, from_guest) = rtrb::RingBuffer::new(FROM_GUEST);
        let (to_guest, received) = rtrb::RingBuffer::new(TO_GUEST);
        let thread = server.thread.thread().clone();
        *lock(&self.ends) = Some(Ends { from_guest, to_guest, thread: thread.clone() });
        *phase = Phase::Assigned(Box::new(Run { queues: take(), from_guest: sent, to_guest: received }));
        self.on.store(true, Ordering::Release);
        thread.unpark();
    }
}
