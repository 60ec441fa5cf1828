//! Requests about an interface, whose argument is a `struct ifreq`: netdevice(7), tuntap.rst.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use culvert_switch::packet_thread::assert_may_wait;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::if_name::IfName;
use super::result::check;

/// A request about an interface.
#[derive(Clone, Copy, Debug)]
pub(crate) enum IfRequest {
    /// Attaches a TAP to it, with these flags.
    AttachTap,
    /// Gets its flags.
    GetFlags,
    /// Sets its flags.
    SetFlags,
    /// Gets its MTU.
    GetMtu,
    /// Sets its MTU.
    SetMtu,
    /// Sets its MAC: an address family, then six bytes.
    SetMac,
}

/// The kernel's `struct ifreq`: the argument begins at the start of `value`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C, align(8))]
struct IfReq {
    name: [u8; libc::IFNAMSIZ],
    value: [u8; 24],
}

const _: () = assert!(size_of::<IfReq>() == size_of::<libc::ifreq>());

/// Makes a request about an interface. Takes the argument and returns what the kernel left in its place.
pub(crate) fn request<const N: usize>(
    fd: BorrowedFd<'_>,
    request: IfRequest,
    name: &IfName,
    value: [u8; N],
) -> io::Result<[u8; N]> {
    const { assert!(N <= 24) };
    assert_may_wait();
    let number = match request {
        IfRequest::AttachTap => libc::TUNSETIFF,
        IfRequest::GetFlags => libc::SIOCGIFFLAGS as libc::Ioctl,
        IfRequest::SetFlags => libc::SIOCSIFFLAGS as libc::Ioctl,
        IfRequest::GetMtu => libc::SIOCGIFMTU as libc::Ioctl,
        IfRequest::SetMtu => libc::SIOCSIFMTU as libc::Ioctl,
        IfRequest::SetMac => libc::SIOCSIFHWADDR as libc::Ioctl,
    };
    let mut ifreq = IfReq { name: name.0, value: [0; 24] };
    ifreq.value[..N].copy_from_slice(&value);
    // SAFETY: each of these requests reads and writes one ifreq, which is ours and as large, and follows no pointer in it.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), number, ptr::from_mut(&mut ifreq)) })?;
    let mut answer = [0; N];
    answer.copy_from_slice(&ifreq.value[..N]);
    Ok(answer)
}
