//! The vhost-user port.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use culvert_switch::{Packet, Pool, Sent, SwitchPort};
use culvert_virtio::EventSignal;
use rustix::event::epoll;

use super::control::{self, ControlRx};
use super::server::{self, Server};
use super::session::Session;
use super::status::{PortStatus, VhostUserStatus};
use super::vrings::Vrings;

/// The largest number of queue pairs.
const MAX_PAIRS: usize = 64;

/// A vhost-user socket with the vrings of its VM, as a port.
pub struct VhostUser {
    _server: Server,
    control: ControlRx,
    vrings: Vrings,
    epoll: Arc<OwnedFd>,
    status: Arc<PortStatus>,
}

impl VhostUser {
    /// Listens at `path` for the VMM of one VM, whose device may have up to `pairs` queue pairs, between 1 and 64. When this
    /// value is dropped, nobody can connect any more; the socket is removed soon after, by another thread. The VMM's requests are answered only while the port is used. The guest's memory
    /// must be a memfd, or a file in tmpfs or hugetlbfs: an access to any other file could block the port.
    ///
    /// # Errors
    /// `pairs` is out of range, another file or a live socket is at the path, the process may not listen there, or this
    /// machine cannot signal eventfds without waiting ([`EventSignal::check_support`]).
    pub fn open(path: &Path, pairs: usize) -> io::Result<VhostUser> {
        if !(1..=MAX_PAIRS).contains(&pairs) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{pairs} queue pairs")));
        }
        EventSignal::check_support().map_err(io::Error::other)?;
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let (status, stop) = (Arc::new(PortStatus::new(path)), Arc::new(AtomicBool::new(false)));
        let (control_tx, control) = control::channel(&epoll, &stop)?;
        let session = Session::new(control_tx, &status, pairs);
        let server = Server::start(session, Arc::clone(&status), stop)?;
        let vrings = Vrings::new(pairs, Arc::clone(&status));
        Ok(VhostUser { _server: server, control, vrings, epoll, status })
    }

    /// Waits until ports that were dropped have removed their sockets, for a program that is about to end. `false`: a
    /// connection's thread hangs, in its client's file server.
    pub fn wait_removed(limit: Duration) -> bool {
        server::wait_ended(limit)
    }

    /// A handle to the port's counters.
    pub fn status(&self) -> VhostUserStatus {
        VhostUserStatus(Arc::clone(&self.status))
    }
}

impl Drop for VhostUser {
    /// Waits for nobody: a packet thread drops it.
    fn drop(&mut self) {
        self.control.discard(self.vrings.take_all());
    }
}

impl SwitchPort for VhostUser {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, max: usize) -> io::Result<()> {
        self.vrings.process_commands(&self.control);
        self.vrings.receive(pool, packets, max);
        if self.vrings.closed { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
        self.vrings.process_commands(&self.control);
        Ok(self.vrings.send(pool, packets))
    }

    fn take_rx_drops(&mut self) -> u64 {
        std::mem::take(&mut self.vrings.rx_drops)
    }

    fn take_rx_descriptors(&mut self) -> u64 {
        std::mem::take(&mut self.vrings.rx_descriptors)
    }

    fn link(&mut self) -> bool {
        self.vrings.process_commands(&self.control);
        self.vrings.link()
    }

    fn arm(&mut self) -> bool {
        control::drain_kicks(&self.epoll);
        self.vrings.process_commands(&self.control);
        self.vrings.arm() && !self.control.is_pending()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
