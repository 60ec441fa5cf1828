//! Who sends the overlay's packets to an address that is the kernel's: what ports take there, and leave to the kernel.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use culvert_netlink::{Guard, OverlaySource};

use crate::classic_bpf;
use crate::filter_rules::source_rules;
use crate::sys::PacketSocket;
use crate::xdp::SourceMap;

/// The sources of the overlay's packets, shared with the ports that take them. Clones refer to the same sources.
///
/// A change reaches the filters of packet sockets, [guards](Guard) and the map of XDP programs, on the thread that makes it:
/// no packet thread waits for the kernel. To replace sources without losing a packet, [add](Self::add) the new ones, change
/// what decides on packets, then [set](Self::set) them.
#[derive(Clone, Debug, Default)]
pub struct OverlaySources(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Locked as long as guards change, which may take the kernel some time. Locked before `state`.
    guards: Mutex<Vec<Weak<Mutex<Guard>>>>,
}

#[derive(Debug, Default)]
struct State {
    sources: Arc<BTreeSet<OverlaySource>>,
    /// Packet sockets with their addresses.
    sockets: Vec<(Weak<PacketSocket>, IpAddr)>,
    /// For XDP programs, once there is one.
    map: Option<SourceMap>,
}

/// A guard whose sources follow.
pub(crate) type SharedGuard = Arc<Mutex<Guard>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OverlaySources {
    /// The largest number of sources.
    pub const MAX: usize = 1 << 17;

    /// Adds sources.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn add(&self, sources: &BTreeSet<OverlaySource>) -> io::Result<()> {
        let all = self.current().union(sources).copied().collect();
        self.replace(all)
    }

    /// Replaces the sources.
    ///
    /// # Errors
    /// There are more than [`MAX`](Self::MAX), or the kernel refuses. Some ports may have the new sources then; the same call,
    /// repeated, gives them to all.
    pub fn set(&self, sources: BTreeSet<OverlaySource>) -> io::Result<()> {
        if sources.len() > Self::MAX {
            let why = format!(
                "{} pairs of virtual subnet and provider address may send to this host: with the kernel's address at most \
                 {} can",
                sources.len(),
                Self::MAX
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        self.replace(sources)
    }

    /// Ports take a source before guards keep it from the kernel, and the kernel gets it back before ports leave it.
    fn replace(&self, sources: BTreeSet<OverlaySource>) -> io::Result<()> {
        let mut guards = lock(&self.0.guards);
        let union = self.current().union(&sources).copied().collect();
        self.change_ports(union)?;
        guards.retain(|guard| guard.strong_count() > 0);
        for guard in guards.iter().filter_map(Weak::upgrade) {
            lock(&guard).set_sources(&sources)?;
        }
        self.change_ports(sources)
    }

    fn change_ports(&self, sources: BTreeSet<OverlaySource>) -> io::Result<()> {
        let mut state = lock(&self.0.state);
        let State { sources: current, sockets, map } = &mut *state;
        if let Some(map) = map {
            map.set(&sources)?;
        }
        sockets.retain(|(socket, _)| socket.strong_count() > 0);
        if **current != sources {
            for (socket, address) in sockets {
                if let Some(socket) = socket.upgrade() {
                    socket.attach_filter(&classic_bpf::compile_sources(&source_rules(*address), &sources))?;
                }
            }
        }
        *current = Arc::new(sources);
        Ok(())
    }

    /// The sources now.
    pub(crate) fn current(&self) -> Arc<BTreeSet<OverlaySource>> {
        lock(&self.0.state).sources.clone()
    }

    /// Attaches the filter for an address to a socket, now and after each change.
    pub(crate) fn attach(&self, socket: &Arc<PacketSocket>, address: IpAddr) -> io::Result<()> {
        let mut state = lock(&self.0.state);
        let program = classic_bpf::compile_sources(&source_rules(address), &state.sources);
        socket.attach_filter(&program)?;
        state.sockets.push((Arc::downgrade(socket), address));
        Ok(())
    }

    /// Installs a guard for an address.
    pub(crate) fn install_guard(&self, interface: &str, address: IpAddr) -> io::Result<SharedGuard> {
        let mut guards = lock(&self.0.guards);
        let guard = Arc::new(Mutex::new(Guard::install(interface, &[address], &self.current())?));
        guards.push(Arc::downgrade(&guard));
        Ok(guard)
    }

    /// The map of the sources for XDP programs.
    pub(crate) fn map(&self) -> io::Result<OwnedFd> {
        let mut state = lock(&self.0.state);
        let sources = state.sources.clone();
        let map = match &mut state.map {
            Some(map) => map,
            none => {
                let mut map = SourceMap::new(Self::MAX as u32)?;
                map.set(&sources)?;
                none.insert(map)
            }
        };
        map.as_fd().try_clone_to_owned()
    }
}
