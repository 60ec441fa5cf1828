//! The server side of vfio-user: a PCI function offered over a UNIX socket.
//!
//! Implements the protocol's device side as written in the vfio-user specification 0.9 and as QEMU's client speaks it:
//! version negotiation, DMA map and unmap, device, region and interrupt information, region accesses, interrupts by
//! eventfd, reset, and DMA messages to the client for memory that it shares without a file descriptor.
//!
//! * [`Function`]: what a device implements; shared by the session's thread and the device's own.
//! * [`Server`]: a socket that serves one function to one client after another, until stopped.
//! * `message`: the wire format; `channel`: messages and file descriptors on a stream; `session`: one client's
//!   conversation; `remote`: DMA through the client.
//!
//! Trust: a client may send anything. A request that is malformed inside its frame gets an error reply; only a frame
//! whose size is impossible, after which the stream has no meaning, ends the connection. Nothing a client sends
//! allocates more than [`MAX_MESSAGE`] bytes or keeps more than [`MAX_FDS`] file descriptors a message.

#![forbid(unsafe_code)]

mod channel;
mod commands;
mod function;
mod message;
mod remote;
mod server;
mod session;

pub use function::{DmaRegion, Function, IrqAction, IrqSet, Region, SparseMmap};
pub use message::{MAX_FDS, MAX_MESSAGE, MAX_TRANSFER};
pub use remote::{RemoteAccess, RemoteDma, RemoteError};
pub use server::Server;

use std::path::PathBuf;

/// Region index of a function's configuration space; 0 to 5 are its BARs.
pub const CONFIG_REGION: u32 = 7;
/// Regions of a PCI device in VFIO: six BARs, ROM, configuration space, VGA.
pub const REGION_COUNT: usize = 9;
/// Interrupt index of INTx in VFIO.
pub const INTX_INDEX: u32 = 0;
/// Interrupt index of MSI-X in VFIO.
pub const MSIX_INDEX: u32 = 2;
/// Number of interrupt indices: INTx, MSI and MSI-X. An index for errors or removal requests that never come would have
/// QEMU warn of it at each start.
pub const IRQ_INDEX_COUNT: usize = 3;

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket could not be created.
    #[error("cannot listen on {path}: {source}; end the process that listens there, or choose another path")]
    Bind {
        /// The socket's path.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A thread, an eventfd or another resource of the system could not be had.
    #[error("cannot start serving {path}: {source}")]
    Start {
        /// The socket's path.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}
