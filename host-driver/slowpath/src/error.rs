//! Errors of the slow path.

use std::time::Duration;

use culvert_packet::Reason;

/// The result of an operation of the slow path.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the slow path could not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The NIC could not.
    #[error(transparent)]
    Nic(#[from] culvert_offload::Error),
    /// The NIC's queues are in use already.
    #[error("the {what} of the NIC is in use: start one slow path for each NIC, once")]
    InUse {
        /// Exception queue or events.
        what: &'static str,
    },
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The slow path has ended.
    #[error("the slow path has ended: restart culvertd; the NIC goes on forwarding meanwhile")]
    Ended,
    /// It did not answer.
    #[error("the slow path has not answered within {limit:?}: the machine is overloaded or the NIC hangs")]
    Timeout {
        /// How long was waited.
        limit: Duration,
    },
    /// A provider address has no interface.
    #[error(
        "the policy gives this host the provider address {addr} on uplink {uplink}, but culvertd was started with \
         {count} --uplink: name the interface with one more"
    )]
    NoInterface {
        /// The uplink.
        uplink: u8,
        /// The address.
        addr: std::net::IpAddr,
        /// How many interfaces there are.
        count: usize,
    },
    /// A provider address is not one of the kernel's.
    #[error(
        "the interface {interface} does not have the provider address {addr} of the policy: give it to the interface \
         (ip addr add {addr}/... dev {interface}), or start culvertd with --provider-address own"
    )]
    NotTheKernels {
        /// The interface.
        interface: String,
        /// The address.
        addr: std::net::IpAddr,
    },
    /// Another daemon keeps its connections there.
    #[error(
        "{} is another culvertd's file of connections: stop that one, or start this one with another --socket",
        path.display()
    )]
    ConnectionsInUse {
        /// The file.
        path: std::path::PathBuf,
    },
    /// A frame to be traced makes no sense.
    #[error("the frame cannot be traced: {}", reason.describe())]
    Frame {
        /// What is wrong with it.
        reason: Reason,
    },
}
