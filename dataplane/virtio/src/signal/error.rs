//! Why an eventfd cannot be signalled.

use rustix::io::Errno;

/// Why a client's file cannot be used as an eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// It is another kind of file, whose reads and writes could wait for its owner.
    #[error("the file is not an eventfd")]
    NotEventFd,
    /// The kernel has no asynchronous I/O, or a filter of system calls forbids it.
    #[error(
        "this kernel offers no asynchronous I/O ({0}), by which guests are interrupted without waiting for them: \
         use a kernel with CONFIG_AIO=y, and allow io_setup, io_submit and io_getevents where system calls are filtered"
    )]
    Unsupported(Errno),
    /// The machine's limit is used up.
    #[error(
        "the machine's limit of asynchronous I/O is used up: compare fs.aio-nr with fs.aio-max-nr and raise the \
         latter (sysctl fs.aio-max-nr=1048576)"
    )]
    LimitReached,
    /// The system's own error.
    #[error("asynchronous I/O on /dev/null failed: {0}")]
    System(Errno),
}
