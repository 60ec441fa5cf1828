//! An AIO context of the kernel, used for nothing but the eventfds that its operations signal when they complete.

#![allow(unsafe_code, reason = "the system calls of Linux AIO have no safe form in a library")]

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::{c_long, c_ulong, iocb};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::error::SignalError;

/// Eventfds that one call signals.
pub(super) const MAX_BATCH: usize = 32;

/// linux/aio_abi.h
const IOCB_CMD_PREAD: u16 = 0;
const IOCB_CMD_PWRITE: u16 = 1;
const IOCB_FLAG_RESFD: u32 = 1;

/// Completions that are discarded at once: as many as the kernel's queue of one page has.
const REAPED: usize = 128;
/// How often a submission is repeated when the queue is full. Other threads that share the context may fill it again.
const MAX_ATTEMPTS: usize = 64;

/// A completion, `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy)]
struct IoEvent {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

/// The context. The kernel's part of it is safe for use by several threads.
#[derive(Debug)]
pub(super) struct Context {
    id: c_ulong,
    /// `/dev/null`, open for reading.
    null: OwnedFd,
}

fn error() -> Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// An empty transfer on `file` that signals `eventfd` when it is complete.
fn operation(command: u16, file: RawFd, eventfd: RawFd) -> iocb {
    // SAFETY: all zeros is a valid value of the structure, which has only numbers.
    let mut operation: iocb = unsafe { std::mem::zeroed() };
    operation.aio_lio_opcode = command;
    operation.aio_fildes = file as u32;
    operation.aio_flags = IOCB_FLAG_RESFD;
    operation.aio_resfd = eventfd as u32;
    operation
}

impl Context {
    /// Creates one for `depth` operations at once.
    pub(super) fn new(depth: u32) -> Result<Self, SignalError> {
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let null = null.map_err(SignalError::System)?;
        let mut id: c_ulong = 0;
        // SAFETY: the kernel writes the context's number, which is zero before as it demands.
        let result = unsafe { libc::syscall(libc::SYS_io_setup, c_long::from(depth), &raw mut id) };
        if result == 0 {
            return Ok(Context { id, null });
        }
        Err(match error() {
            Errno::AGAIN => SignalError::LimitReached,
            errno @ (Errno::NOSYS | Errno::PERM) => SignalError::Unsupported(errno),
            errno => SignalError::System(errno),
        })
    }

    /// Submits operations and returns how many the kernel took.
    fn submit(&self, operations: &mut [iocb]) -> Result<usize, Errno> {
        let mut pointers = [ptr::null_mut::<iocb>(); MAX_BATCH];
        let count = operations.len().min(MAX_BATCH);
        for (pointer, operation) in pointers.iter_mut().zip(operations) {
            *pointer = operation;
        }
        // SAFETY: `count` pointers to operations that live during the call. Each is an empty transfer, without a buffer,
        // which is complete when the call returns.
        let result =
            unsafe { libc::syscall(libc::SYS_io_submit, self.id, count as c_long, pointers.as_mut_ptr()) };
        if result < 0 { Err(error()) } else { Ok(result as usize) }
    }

    /// Adds 1 to the counter of each eventfd, at most [`MAX_BATCH`]. All of them must be eventfds.
    pub(super) fn signal(&self, eventfds: &[RawFd]) {
        let mut operations = [operation(IOCB_CMD_PREAD, self.null.as_raw_fd(), -1); MAX_BATCH];
        for (operation, eventfd) in operations.iter_mut().zip(eventfds) {
            operation.aio_resfd = *eventfd as u32;
        }
        let mut left = &mut operations[..eventfds.len().min(MAX_BATCH)];
        for _ in 0..MAX_ATTEMPTS {
            match self.submit(left) {
                Ok(done) => left = &mut left[done..],
                Err(Errno::AGAIN) => self.reap(),
                // Cannot be: the eventfds are open and were checked. The next one is none the worse for it.
                Err(_) => left = &mut left[1..],
            }
            if left.is_empty() {
                return;
            }
        }
    }

    /// Discards completions, which fill the queue otherwise. Does not wait for any.
    fn reap(&self) {
        let mut events = [IoEvent { data: 0, object: 0, result: 0, result2: 0 }; REAPED];
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: room for as many events as we ask for, and a time limit of zero; both live during the call.
        unsafe {
            libc::syscall(
                libc::SYS_io_getevents,
                self.id,
                0 as c_long,
                REAPED as c_long,
                events.as_mut_ptr(),
                &raw const now,
            )
        };
    }

    /// Asks the kernel whether a file is an eventfd, without a signal to it: it looks at the eventfd before it refuses to
    /// write to a file that is open for reading only.
    pub(super) fn check_eventfd(&self, fd: RawFd) -> Result<(), SignalError> {
        for _ in 0..MAX_ATTEMPTS {
            match self.submit(&mut [operation(IOCB_CMD_PWRITE, self.null.as_raw_fd(), fd)]) {
                Err(Errno::BADF) => return Ok(()),
                Err(Errno::INVAL) => return Err(SignalError::NotEventFd),
                Err(Errno::AGAIN) => self.reap(),
                Err(errno) => return Err(SignalError::System(errno)),
                Ok(_) => return Err(SignalError::System(Errno::IO)),
            }
        }
        Err(SignalError::System(Errno::AGAIN))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: the context is ours and no longer used; none of its operations is under way.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.id) };
    }
}
