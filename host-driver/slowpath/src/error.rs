//! Errors of the slow path.

use std::time::Duration;

use culvert_packet::Reason;

/// The result of an operation of the slow path.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation of the slow path failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The NIC refused or did not answer.
    #[error(transparent)]
    Nic(#[from] culvert_offload::Error),
    /// Another slow path has the NIC's queues.
    #[error("the {what} of the NIC is in use: start one slow path for each NIC")]
    InUse {
        /// Upcall queue or event queue.
        what: &'static str,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// The operation that failed.
        what: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The slow path has stopped.
    #[error("the slow path has stopped: restart culvertd; the NIC keeps forwarding meanwhile")]
    Ended,
    /// The slow path did not answer in time.
    #[error("the slow path has not answered within {limit:?}: the machine is overloaded or the NIC hangs")]
    Timeout {
        /// The time limit.
        limit: Duration,
    },
    /// A provider address has no interface.
    #[error(
        "the policy gives this host the provider address {addr} on uplink {uplink}, but culvertd was started with \
         {count} --uplink: add one --uplink that names its interface"
    )]
    NoInterface {
        /// The uplink.
        uplink: u8,
        /// The address.
        addr: std::net::IpAddr,
        /// Number of interfaces.
        count: usize,
    },
    /// The kernel does not have a provider address on the uplink's interface.
    #[error(
        "the interface {interface} does not have the provider address {addr} of the policy: add it \
         (ip addr add {addr}/... dev {interface}), or start culvertd with --provider-address own"
    )]
    NotOnInterface {
        /// The interface.
        interface: String,
        /// The address.
        addr: std::net::IpAddr,
    },
    /// Another daemon uses the connection file.
    #[error(
        "another culvertd uses the connection file {}: stop that one, or start this one with another --socket",
        path.display()
    )]
    ConnectionsInUse {
        /// The file.
        path: std::path::PathBuf,
    },
    /// A frame cannot be traced.
    #[error("the frame cannot be traced: {}", reason.describe())]
    Frame {
        /// What is wrong with it.
        reason: Reason,
    },
}
