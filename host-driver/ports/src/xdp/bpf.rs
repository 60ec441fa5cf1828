//! The system call bpf(2), of which rustix and libc have but the number: a map, a program, and its place on an interface.
#![allow(
    unsafe_code,
    reason = "bpf(2) is only reached as a raw system call, with addresses in its arguments"
)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use zerocopy::{Immutable, IntoBytes};

use super::assemble::Instruction;

// Commands, types and flags of linux/bpf.h.
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const PROGRAM_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const LINK_DETACH: libc::c_long = 34;
const MAP_OF_XDP_SOCKETS: u32 = 17;
const PROGRAM_OF_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// The program also sees frames that do not lie in one piece, the first of which it can read.
const HAS_FRAGS: u32 = 1 << 5;

/// How a program gets frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// From the driver.
    Native = 1 << 2,
    /// From the kernel, when it has made its own buffer of the frame: works on every interface.
    Generic = 1 << 1,
}

/// # Safety
/// All addresses in `attributes` are those of memory that the command may use as it does, and outlive the call.
unsafe fn bpf<T: IntoBytes + Immutable>(command: libc::c_long, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads the attributes, and what they point to is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just made this file for us, close-on-exec as all of bpf(2) are.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A map (`BPF_MAP_TYPE_XSKMAP`) with room for the sockets of `queues` queues.
pub(super) fn map_of_sockets(queues: u32) -> io::Result<OwnedFd> {
    #[derive(IntoBytes, Immutable)]
    #[repr(C)]
    struct Attributes {
        kind: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
    }
    let attributes = Attributes { kind: MAP_OF_XDP_SOCKETS, key_size: 4, value_size: 4, max_entries: queues };
    // SAFETY: there are no addresses in it.
    unsafe { bpf(MAP_CREATE, &attributes) }.map(owned)
}

/// Makes `socket` the one of `queue`. It stays in the map until it is closed.
pub(super) fn put_socket(map: BorrowedFd<'_>, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    #[derive(IntoBytes, Immutable)]
    #[repr(C)]
    struct Attributes {
        map: u32,
        unused: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let (key, value) = (queue, socket.as_raw_fd());
    let attributes = Attributes {
        map: map.as_raw_fd() as u32,
        unused: 0,
        key: (&raw const key).addr() as u64,
        value: (&raw const value).addr() as u64,
        flags: 0,
    };
    // SAFETY: key and value have the sizes that the map was made with, and are only read.
    unsafe { bpf(MAP_UPDATE, &attributes) }.map(drop)
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// Has the kernel verify a program for XDP.
///
/// # Errors
/// No right to do so, or the verifier's words when it refuses the program.
pub(super) fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    const LICENCE: &CStr = c"MIT";
    let mut attributes = Load {
        kind: PROGRAM_OF_XDP,
        count: program.len() as u32,
        instructions: program.as_ptr().addr() as u64,
        licence: LICENCE.as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: HAS_FRAGS,
        name: *b"culvert_overlay\0",
        interface: 0,
        attach_type: ATTACH_XDP,
    };
    // SAFETY: program and licence outlive the call and are only read; there is no log.
    match unsafe { bpf(PROGRAM_LOAD, &attributes) } {
        // Frames in pieces are known since Linux 5.18.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => attributes.flags = 0,
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Err(error),
        Err(_) => {}
        Ok(program) => return Ok(owned(program)),
    }
    // A program that the verifier refuses is refused again, and this time it says why.
    let mut log = vec![0u8; 1 << 16];
    (attributes.log_level, attributes.log_size) = (1, log.len() as u32);
    attributes.log = log.as_mut_ptr().expose_provenance() as u64;
    // SAFETY: program and licence outlive the call and are only read; the log is ours, and as long as `log_size` says.
    unsafe { bpf(PROGRAM_LOAD, &attributes) }.map(owned).map_err(|error| {
        let text = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy();
        io::Error::new(error.kind(), format!("the kernel refuses the XDP program: {error}\n{text}"))
    })
}

/// A program's place on an interface. The program goes with this value, and with the process.
#[derive(Debug)]
pub(super) struct Link(OwnedFd);

impl Link {
    /// Puts a program on an interface.
    ///
    /// # Errors
    /// There is a program on the interface already (`EBUSY`), or its driver has no such mode.
    pub(super) fn attach(program: BorrowedFd<'_>, index: u32, mode: Mode) -> io::Result<Link> {
        #[derive(IntoBytes, Immutable)]
        #[repr(C)]
        struct Attributes {
            program: u32,
            interface: u32,
            attach_type: u32,
            flags: u32,
        }
        let attributes = Attributes {
            program: program.as_raw_fd() as u32,
            interface: index,
            attach_type: ATTACH_XDP,
            flags: mode as u32,
        };
        // SAFETY: there are no addresses in it.
        unsafe { bpf(LINK_CREATE, &attributes) }.map(|fd| Link(owned(fd)))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Closing is not enough at once while a child that is about to become another program has the file, too.
        let attributes = self.0.as_raw_fd() as u32;
        // SAFETY: there are no addresses in it.
        let _ = unsafe { bpf(LINK_DETACH, &attributes) };
    }
}
