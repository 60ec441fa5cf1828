//! The rings of a VM: the back end of its virtio network device (vhost-user), to which its VMM connects.
//!
//! 1. [`Server`]'s thread accepts a VMM and takes its requests ([`message`]).
//! 2. [`Session`] maps the guest's [`Memory`](memory::Memory) and makes a [`Ring`](culvert_virtio::Ring) when
//!    all is known that it needs.
//! 3. It hands rings over in [`ControlTx`](control::ControlTx), which the thread that moves packets obeys between two bursts: so
//!    that never waits, and the other one knows when a ring is not touched any more.
//! 4. [`Queues`] takes frames from the rings and puts frames there.
//!
//! A guest, its driver and its VMM are not trusted. What they get wrong is counted, stops this port until the VMM sets its
//! rings up anew or connects again, and does nothing else.

mod control;
mod features;
mod frames;
mod memory;
mod message;
mod queues;
mod server;
mod session;
mod spread;
mod status;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::event::epoll;

use self::control::ControlRx;
use self::queues::Queues;
use self::server::Server;
use self::session::Session;
use self::status::Shared;
pub use self::status::{Discard, VhostUserCounters, VhostUserStatus};
use super::vnet;
use culvert_switch::{Packet, Pool, Sent, SwitchPort};

/// Most pairs of rings; the protocol numbers rings with eight bits.
const MAX_PAIRS: usize = 64;

/// The port.
pub struct VhostUser {
    // Goes first: its thread may wait for answers that nobody gives any more.
    _server: Server,
    control: ControlRx,
    queues: Queues,
    epoll: Arc<OwnedFd>,
    shared: Arc<Shared>,
}

impl VhostUser {
    /// Listens at `path` for the VMM of one VM, whose device may have up to `pairs` pairs of rings, between 1 and 64. The
    /// socket goes when this value does. Requests of the VMM are answered while the port is used. The guest's memory is a
    /// memfd, or a file in tmpfs or on huge pages: any other might have the port wait for its pages.
    ///
    /// # Errors
    /// Something else is at the path, or there is no right to listen there.
    pub fn open(path: &Path, pairs: usize) -> io::Result<VhostUser> {
        if !(1..=MAX_PAIRS).contains(&pairs) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{pairs} pairs of rings")));
        }
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let (shared, stop) = (Arc::new(Shared::new(path)), Arc::new(AtomicBool::new(false)));
        let (tx, control) = control::pair(&epoll, &stop)?;
        let session = Session::new(tx, &shared, pairs);
        let server = Server::start(session, Arc::clone(&shared), stop)?;
        let queues = Queues::new(pairs, Arc::clone(&shared));
        Ok(VhostUser { _server: server, control, queues, epoll, shared })
    }

    /// A handle of the port's counters.
    pub fn status(&self) -> VhostUserStatus {
        VhostUserStatus(Arc::clone(&self.shared))
    }
}

impl SwitchPort for VhostUser {
    fn receive(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>, most: usize) -> io::Result<()> {
        self.queues.obey(&self.control);
        self.queues.receive(pool, packets, most);
        if self.queues.ended { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }

    fn send(&mut self, pool: &mut Pool, packets: &mut Vec<Packet>) -> io::Result<Sent> {
        self.queues.obey(&self.control);
        Ok(self.queues.send(pool, packets))
    }

    fn take_rx_drops(&mut self) -> u64 {
        std::mem::take(&mut self.queues.lost)
    }

    fn link(&mut self) -> bool {
        self.queues.obey(&self.control);
        self.queues.link()
    }

    fn arm(&mut self) -> bool {
        control::forget_kicks(&self.epoll);
        self.queues.obey(&self.control);
        self.queues.arm() && !self.control.is_waiting()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
