//! `Event`: a change of a NIC's state that the NIC reports.

use std::os::fd::BorrowedFd;

use culvert_flow::Port;

/// A change of the NIC's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The firmware died. Commands fail until [`Event::FirmwareReady`].
    FirmwareDied {
        /// The boot epoch that ended.
        epoch: u32,
        /// The text of its panic; empty if it did not panic.
        panic: String,
        /// The end of its log.
        log: String,
    },
    /// The board does not answer, for this reason: it is stopped or overloaded. Commands fail until
    /// [`Event::FirmwareReady`].
    Silent(String),
    /// The firmware takes commands again and is configured. Write its tables, then call
    /// [`FlowTables::start`](crate::FlowTables::start): it may have restarted, and commands may have been lost.
    FirmwareReady {
        /// Its boot epoch.
        epoch: u32,
    },
    /// The link state of each MAC port.
    Link([bool; Port::UPLINKS as usize]),
    /// The driver of a VF in a guest has started or stopped.
    Vf,
    /// The board stopped a PF queue at a fault.
    QueueStopped {
        /// Its number.
        queue: usize,
    },
    /// The device is lost, for this reason. Commands fail until [`Event::FirmwareReady`], which comes only if a NIC takes its
    /// place.
    Lost(String),
}

/// The queue of a NIC's events.
pub trait EventQueue: Send {
    /// Takes the oldest event.
    fn next(&self) -> Option<Event>;
    /// A descriptor that is readable while there may be events.
    fn fd(&self) -> BorrowedFd<'_>;
}
