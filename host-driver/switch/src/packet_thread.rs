//! Marks packet threads, so that debug builds notice when one of them is about to wait.

use std::cell::Cell;

thread_local! {
    static MARKED: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as one that forwards packets.
pub(crate) fn mark() {
    MARKED.set(true);
}

/// Called before what may wait for the kernel's RTNL, for a file system or for another process: on a packet thread it would
/// stop the traffic of all VMs, so there it panics in debug builds.
#[inline]
#[track_caller]
pub fn assert_may_wait() {
    debug_assert!(!MARKED.get(), "a packet thread is about to wait");
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(debug_assertions)]
    fn a_packet_thread_may_not_wait_and_others_may() {
        super::assert_may_wait();
        let packet_thread = std::thread::spawn(|| {
            super::mark();
            super::assert_may_wait();
        });
        assert!(packet_thread.join().is_err());
    }
}
