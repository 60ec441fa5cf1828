//! Results of system calls.

use std::io;

/// The result of a system call that returns -1 on failure.
pub(super) fn check(result: libc::c_int) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
