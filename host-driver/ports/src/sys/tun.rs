//! Settings of a TAP (tuntap.rst).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use culvert_switch::packet_thread::assert_may_wait;

use super::result::check;

/// A setting of a TAP.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TunSetting {
    /// Length of the `virtio_net_hdr` in front of each frame.
    VnetHeaderLen(i32),
    /// Bytes of written frames that the kernel may hold before a write returns `EAGAIN`.
    SendBuffer(i32),
    /// Whether the interface outlives the file descriptor.
    Persistent(bool),
    /// Offloads that the kernel may leave to the reader: `TUN_F_...`.
    Offloads(u32),
}

/// Changes a setting of a TAP.
pub(crate) fn set_tun(tap: BorrowedFd<'_>, setting: TunSetting) -> io::Result<()> {
    assert_may_wait();
    let (request, number) = match setting {
        TunSetting::VnetHeaderLen(len) => (libc::TUNSETVNETHDRSZ, len),
        TunSetting::SendBuffer(bytes) => (libc::TUNSETSNDBUF, bytes),
        TunSetting::Persistent(persistent) => {
            return set_by_value(tap, libc::TUNSETPERSIST, persistent.into());
        }
        TunSetting::Offloads(flags) => return set_by_value(tap, libc::TUNSETOFFLOAD, flags.into()),
    };
    // SAFETY: both requests read one int.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), request, ptr::from_ref(&number)) }).map(drop)
}

/// A request whose argument is a number, not a pointer.
fn set_by_value(tap: BorrowedFd<'_>, request: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the number is the argument itself: no memory is read or written.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), request, value) }).map(drop)
}
