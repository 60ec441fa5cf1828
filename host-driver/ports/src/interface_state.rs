//! What a port must know of its interface and only the kernel's RTNL tells. The port's monitor reads it and publishes it here.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use culvert_switch::PortMonitor;

use crate::sys::PacketSocket;

/// An interface as its monitor saw it last.
#[derive(Debug)]
pub(crate) struct InterfaceState {
    exists: AtomicBool,
    carrier: AtomicBool,
    mtu: AtomicU32,
    receive_queues: AtomicU32,
}

/// Values of an [`InterfaceState`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Seen {
    carrier: bool,
    mtu: usize,
    receive_queues: u32,
}

impl Seen {
    fn read(interface: &PacketSocket) -> io::Result<Self> {
        Ok(Seen {
            carrier: interface.has_carrier(),
            mtu: interface.mtu()?,
            receive_queues: interface.receive_queues()?,
        })
    }
}

impl InterfaceState {
    fn new(seen: Seen) -> Self {
        let state = InterfaceState {
            exists: AtomicBool::new(true),
            carrier: AtomicBool::new(false),
            mtu: AtomicU32::new(0),
            receive_queues: AtomicU32::new(0),
        };
        state.publish(seen);
        state
    }

    fn publish(&self, seen: Seen) {
        self.carrier.store(seen.carrier, Ordering::Relaxed);
        self.mtu.store(u32::try_from(seen.mtu).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.receive_queues.store(seen.receive_queues, Ordering::Relaxed);
    }

    /// Whether it exists.
    pub(crate) fn exists(&self) -> bool {
        self.exists.load(Ordering::Relaxed)
    }

    /// Whether it exists and has a carrier.
    pub(crate) fn has_carrier(&self) -> bool {
        self.exists() && self.carrier.load(Ordering::Relaxed)
    }

    /// Its MTU.
    pub(crate) fn mtu(&self) -> usize {
        self.mtu.load(Ordering::Relaxed) as usize
    }

    /// The number of its receive queues; 1 if its driver does not tell.
    pub(crate) fn receive_queues(&self) -> u32 {
        self.receive_queues.load(Ordering::Relaxed)
    }

    fn seen(&self) -> Seen {
        Seen {
            carrier: self.carrier.load(Ordering::Relaxed),
            mtu: self.mtu(),
            receive_queues: self.receive_queues(),
        }
    }
}

/// Reads the state of an interface for its port.
pub(crate) struct InterfaceMonitor {
    interface: PacketSocket,
    state: Arc<InterfaceState>,
}

impl InterfaceMonitor {
    /// Reads the state of an interface. The monitor has a socket of its own, in the network namespace of this thread, which
    /// must be the interface's.
    ///
    /// # Errors
    /// It does not exist any more, or the process is out of file descriptors.
    pub(crate) fn new(interface: &PacketSocket) -> io::Result<(Arc<InterfaceState>, Self)> {
        let interface = interface.open_another()?;
        let state = Arc::new(InterfaceState::new(Seen::read(&interface)?));
        Ok((Arc::clone(&state), InterfaceMonitor { interface, state }))
    }
}

impl PortMonitor for InterfaceMonitor {
    fn poll(&mut self) -> bool {
        match Seen::read(&self.interface) {
            Ok(seen) => {
                let changed = seen != self.state.seen();
                self.state.publish(seen);
                changed
            }
            Err(_) if self.interface.interface_exists() => false,
            Err(_) => self.state.exists.swap(false, Ordering::Relaxed),
        }
    }
}
