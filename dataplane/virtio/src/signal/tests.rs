//! Signals reach eventfds, whatever their owner does to them.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, read, write};

use super::{EventSignal, SignalError, check_eventfd, signal_all};

/// How long a call may take that must not wait for anybody.
const LIMIT: Duration = Duration::from_secs(20);

fn event(flags: EventfdFlags) -> (EventSignal, OwnedFd) {
    let fd = eventfd(0, EventfdFlags::CLOEXEC | flags).unwrap();
    (EventSignal::new(fd.try_clone().unwrap()).unwrap(), fd)
}

/// The counter, which is 0 afterwards.
fn take(fd: &OwnedFd) -> u64 {
    let mut bytes = [0; 8];
    match read(fd, &mut bytes) {
        Ok(_) => u64::from_ne_bytes(bytes),
        Err(errno) => {
            assert_eq!(errno, Errno::AGAIN);
            0
        }
    }
}

#[test]
fn a_full_eventfd_that_blocks_does_not_hold_its_signaller() {
    let (signal, fd) = event(EventfdFlags::empty());
    write(&fd, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || {
        (0..1000).for_each(|_| signal.signal());
        done.send(()).unwrap();
    });
    wait.recv_timeout(LIMIT).expect("no signal waits for a reader");
    assert!(take(&fd) >= u64::MAX - 1, "the counter stays full");
}

#[test]
fn only_eventfds_are_taken_and_they_are_not_signalled_by_the_check() {
    let (pipe, _other) = rustix::pipe::pipe().unwrap();
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let null = File::open("/dev/null").unwrap();
    let timer = rustix::time::timerfd_create(
        rustix::time::TimerfdClockId::Monotonic,
        rustix::time::TimerfdFlags::CLOEXEC,
    );
    let others: [OwnedFd; 4] = [pipe, socket.into(), null.into(), timer.unwrap()];
    for other in others {
        assert_eq!(EventSignal::new(other).err(), Some(SignalError::NotEventFd));
    }
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    (0..1000).for_each(|_| check_eventfd(&fd).unwrap());
    assert_eq!(take(&fd), 0);
}

#[test]
fn threads_that_signal_the_same_eventfd_lose_nothing() {
    let (signal, fd) = event(EventfdFlags::NONBLOCK);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5000).for_each(|_| signal.signal()));
        }
    });
    assert_eq!(take(&fd), 20_000);
}

#[test]
fn the_shared_context_serves_threads_that_have_no_own() {
    let (_signal, fd) = event(EventfdFlags::NONBLOCK);
    let context = super::shared().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
            scope.spawn(move || (0..2000).for_each(|_| context.signal(&[raw, raw])));
        }
    });
    assert_eq!(take(&fd), 16_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Each eventfd of a batch of any length gets as many signals as the batch names it.
    #[test]
    fn a_batch_signals_each_as_often_as_it_is_named(names in prop::collection::vec(0..8usize, 0..200)) {
        let events: Vec<_> = (0..8).map(|_| event(EventfdFlags::NONBLOCK)).collect();
        signal_all(names.iter().map(|n| &events[*n].0));
        for (n, (_, fd)) in events.iter().enumerate() {
            prop_assert_eq!(take(fd), names.iter().filter(|name| **name == n).count() as u64);
        }
    }
}
