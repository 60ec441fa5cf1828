//! The lock of an uplink: keeps a second daemon of this network namespace off an uplink's interface.
//!
//! The lock is an abstract UNIX socket: its name belongs to the network namespace, as the interface's does, and it ends with
//! the process, however that ends. Any process may take such a name, also a VMM: only a holder that could be a daemon counts.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use rustix::thread::CapabilitySet;

use super::interface::DatapathError;

/// Pause after an accept that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Takes the lock of an interface, until the process ends.
///
/// # Errors
/// Another daemon has it.
pub(super) fn take(interface: &str) -> Result<(), DatapathError> {
    let name = format!("culvertd-uplink-{interface}");
    match SocketAddr::from_abstract_name(&name).and_then(|name| UnixListener::bind_addr(&name)) {
        Ok(listener) => {
            // Takes the connections of those who ask whose lock it is.
            let serve = move || {
                loop {
                    if listener.accept().is_err() {
                        std::thread::sleep(PAUSE);
                    }
                }
            };
            let thread = std::thread::Builder::new().name("uplink-lock".to_owned());
            thread.spawn(serve).map_err(|e| DatapathError::unavailable(&e))?;
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match holder(&name) {
            Some(process) => Err(DatapathError::InUse { interface: interface.to_owned(), process }),
            None => {
                tracing::warn!(
                    socket = format!("@{name}"),
                    "a process without privileges has this name: cannot see whether another culvertd uses the interface"
                );
                Ok(())
            }
        },
        Err(error) => Err(DatapathError::unavailable(&error)),
    }
}

/// The process that has the lock, if it may open the interface, as a daemon may.
fn holder(name: &str) -> Option<i32> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).ok()?;
    connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes()).ok()?).ok()?;
    let peer = sockopt::socket_peercred(&socket).ok()?;
    let pid = peer.pid.as_raw_nonzero().get();
    let trusted = peer.uid == rustix::process::geteuid() || may_open_interfaces(pid);
    trusted.then_some(pid)
}

/// Whether a process has a capability that opening an interface takes.
fn may_open_interfaces(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    let enough = CapabilitySet::NET_RAW | CapabilitySet::NET_ADMIN;
    CapabilitySet::from_bits_truncate(bits).intersects(enough)
}
