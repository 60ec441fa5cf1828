//! Requests of ethtool (linux/ethtool.h): carrier and number of receive queues.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use culvert_switch::packet_thread::assert_may_wait;

use super::if_name::IfName;
use super::result::check;

/// A command whose argument has `N` words, of which the first one is the command itself.
#[derive(Clone, Copy)]
struct EthtoolCommand<const N: usize>(u32);

/// `struct ethtool_value`.
const ETHTOOL_GLINK: EthtoolCommand<2> = EthtoolCommand(0x0a);
/// `struct ethtool_channels`.
const ETHTOOL_GCHANNELS: EthtoolCommand<9> = EthtoolCommand(0x3c);

/// Makes a request and returns the argument as the kernel has filled it in.
fn request<const N: usize>(
    socket: BorrowedFd<'_>,
    name: &IfName,
    command: EthtoolCommand<N>,
) -> io::Result<[u32; N]> {
    #[repr(C)]
    struct IfReq<const N: usize> {
        name: [u8; libc::IFNAMSIZ],
        value: *mut [u32; N],
        unused: [u64; 2],
    }
    const { assert!(size_of::<IfReq<N>>() == size_of::<libc::ifreq>()) };
    assert_may_wait();
    let mut value = [0; N];
    value[0] = command.0;
    let mut ifreq = IfReq { name: name.0, value: &raw mut value, unused: [0; 2] };
    let number = libc::SIOCETHTOOL as libc::Ioctl;
    // SAFETY: the kernel reads the request and the value that it points to, and writes the value; both are ours, and the
    // value is as long as the command has it.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), number, ptr::from_mut(&mut ifreq)) })?;
    Ok(value)
}

/// Whether an interface has a carrier.
pub(super) fn has_carrier(socket: BorrowedFd<'_>, name: &IfName) -> bool {
    request(socket, name, ETHTOOL_GLINK).is_ok_and(|[_, carrier]| carrier != 0)
}

/// The number of an interface's receive queues; 1 if its driver does not tell.
pub(super) fn receive_queues(socket: BorrowedFd<'_>, name: &IfName) -> u32 {
    // The fifth to the eighth word are the numbers of queues: receive, transmit, other, combined.
    request(socket, name, ETHTOOL_GCHANNELS)
        .map_or(1, |[_, _, _, _, _, receive, _, _, combined]| receive.saturating_add(combined).max(1))
}
