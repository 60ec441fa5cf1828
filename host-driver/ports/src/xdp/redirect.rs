//! The program on an interface with its map of sockets: for all the workers that have a part of the interface.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::io::Errno;

use super::bpf::{self, Link, Mode};
use super::program;
use crate::filter::Filter;

/// Shares an interface's receive queues among so many ports: each is given those whose number, divided by how many there
/// are, leaves its own. Clones are of the same interface.
#[derive(Clone, Debug)]
pub struct AfXdpParts {
    count: u32,
    shared: Arc<Mutex<Weak<Redirect>>>,
}

impl AfXdpParts {
    /// For so many ports, at least one.
    pub fn new(count: u32) -> Self {
        AfXdpParts { count: count.max(1), shared: Arc::default() }
    }

    /// The queues of one of the ports, of so many that there are.
    pub(super) fn of(&self, part: u32, queues: u32) -> impl Iterator<Item = u32> {
        (part..queues).step_by(self.count as usize)
    }

    /// What the ports share: made by the first of them.
    pub(super) fn redirect(&self, index: u32, queues: u32, filter: &Filter) -> io::Result<Arc<Redirect>> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(redirect) = shared.upgrade().filter(|r| (r.index, r.queues) == (index, queues)) {
            return Ok(redirect);
        }
        let redirect = Arc::new(Redirect::new(index, queues, filter)?);
        *shared = Arc::downgrade(&redirect);
        Ok(redirect)
    }
}

/// The program. It leaves the interface with its last owner.
#[derive(Debug)]
pub(super) struct Redirect {
    _link: Link,
    map: OwnedFd,
    index: u32,
    pub(super) mode: Mode,
    pub(super) queues: u32,
}

impl Redirect {
    fn new(index: u32, queues: u32, filter: &Filter) -> io::Result<Self> {
        let map = bpf::map_of_sockets(queues)?;
        let program = bpf::load(&program::assemble(filter, map.as_fd()))?;
        // If somebody else has a program here, that shows at once. Frames pass to the kernel until there are sockets.
        let (link, mode) = attach(program.as_fd(), index)?;
        Ok(Redirect { _link: link, map, index, mode, queues })
    }

    /// Has a queue's frames go to a socket.
    pub(super) fn put(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        bpf::put_socket(self.map.as_fd(), queue, socket)
    }
}

fn attach(program: BorrowedFd<'_>, index: u32) -> io::Result<(Link, Mode)> {
    let native = Link::attach(program, index, Mode::Native).map(|link| (link, Mode::Native));
    let result = native.or_else(|error| {
        tracing::debug!(%error, "no XDP program in the driver");
        Link::attach(program, index, Mode::Generic).map(|link| (link, Mode::Generic))
    });
    result.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::BUSY | Errno::EXIST) => {
            let why =
                "there is an XDP program on the interface already: find it with `ip link`, and remove it";
            io::Error::new(io::ErrorKind::ResourceBusy, why)
        }
        _ => error,
    })
}
