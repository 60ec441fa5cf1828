//! The XDP program on an interface and its map of sockets, shared by the ports of all workers.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::io::Errno;

use super::bpf::{self, Link, Mode};
use super::program;
use crate::filter::Filter;

/// Divides an interface's receive queues among the ports of several workers: part `n` of `count` has the queues whose number
/// modulo `count` is `n`. Clones refer to the same interface.
#[derive(Clone, Debug)]
pub struct AfXdpParts {
    count: u32,
    shared: Arc<Mutex<Weak<Redirect>>>,
}

impl AfXdpParts {
    /// Divides the queues among `count` ports, at least one.
    pub fn new(count: u32) -> Self {
        AfXdpParts { count: count.max(1), shared: Arc::default() }
    }

    /// The queues of a part, of `queues` that there are.
    pub(super) fn queues_of(&self, part: u32, queues: u32) -> impl Iterator<Item = u32> {
        (part..queues).step_by(self.count as usize)
    }

    /// The program that the ports share: the first port attaches it.
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

/// The attached program. It is detached when its last owner is dropped.
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
        let map = bpf::create_xskmap(queues)?;
        // The program keeps it open.
        let sources = match filter {
            Filter::Kernel { sources, .. } => Some(sources.map()?),
            Filter::Everything | Filter::Own(_) => None,
        };
        let sources = sources.as_ref().map(AsFd::as_fd);
        let program = bpf::load(&program::build(filter, map.as_fd(), sources))?;
        // Fails at once if another program is attached. Frames pass to the kernel until there are sockets.
        let (link, mode) = attach(program.as_fd(), index)?;
        Ok(Redirect { _link: link, map, index, mode, queues })
    }

    /// Redirects a queue's frames to a socket.
    pub(super) fn insert(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        bpf::insert_socket(self.map.as_fd(), queue, socket)
    }
}

fn attach(program: BorrowedFd<'_>, index: u32) -> io::Result<(Link, Mode)> {
    let native = Link::attach(program, index, Mode::Native).map(|link| (link, Mode::Native));
    let result = native.or_else(|error| {
        tracing::debug!(%error, "the driver runs no XDP programs");
        Link::attach(program, index, Mode::Generic).map(|link| (link, Mode::Generic))
    });
    result.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::BUSY | Errno::EXIST) => {
            let why =
                "another XDP program is attached to the interface: find it with `ip link`, and remove it";
            io::Error::new(io::ErrorKind::ResourceBusy, why)
        }
        _ => error,
    })
}
