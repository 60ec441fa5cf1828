//! The system call bpf(2), of which libc has the number only: creates a map, loads a program, attaches it to an interface.
#![allow(
    unsafe_code,
    reason = "bpf(2) is only reached as a raw system call, with addresses in its arguments"
)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use zerocopy::{Immutable, IntoBytes};

use super::ebpf::Instruction;

// Commands, types and flags of linux/bpf.h.
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const MAP_DELETE: libc::c_long = 3;
const PROGRAM_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const LINK_DETACH: libc::c_long = 34;
const MAP_TYPE_HASH: u32 = 1;
const MAP_TYPE_XSKMAP: u32 = 17;
/// `BPF_F_NO_PREALLOC`: elements are allocated when they are added.
const NO_PREALLOC: u32 = 1;
const PROGRAM_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// `BPF_F_XDP_HAS_FRAGS`: the program also gets frames in several buffers, of which it can read the first.
const HAS_FRAGS: u32 = 1 << 5;

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// In the driver.
    Native = 1 << 2,
    /// In the kernel, after it has allocated a buffer for the frame: works on every interface.
    Generic = 1 << 1,
}

/// # Safety
/// All addresses in `attributes` are those of memory that the command may use as it does, and outlive the call.
unsafe fn bpf<T: IntoBytes + Immutable>(command: libc::c_long, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: the kernel reads the attributes; the caller answers for what they point to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just created this file descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct NewMap {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

fn create_map(attributes: &NewMap) -> io::Result<OwnedFd> {
    // SAFETY: there are no addresses in it.
    unsafe { bpf(MAP_CREATE, attributes) }.map(owned)
}

/// Creates a map (`BPF_MAP_TYPE_XSKMAP`) for the XDP sockets of `queues` queues.
pub(super) fn create_xskmap(queues: u32) -> io::Result<OwnedFd> {
    create_map(&NewMap { kind: MAP_TYPE_XSKMAP, key_size: 4, value_size: 4, max_entries: queues, flags: 0 })
}

/// Creates a set of keys (`BPF_MAP_TYPE_HASH`, with values that mean nothing).
pub(super) fn create_hash_map(key_size: u32, max_entries: u32) -> io::Result<OwnedFd> {
    let flags = NO_PREALLOC;
    create_map(&NewMap { kind: MAP_TYPE_HASH, key_size, value_size: 4, max_entries, flags })
}

/// An element of a map.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Element {
    map: u32,
    unused: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Element {
    /// `value`: none to remove the element.
    fn new<K, V>(map: BorrowedFd<'_>, key: &K, value: Option<&V>) -> Self {
        Element {
            map: map.as_raw_fd() as u32,
            unused: 0,
            key: ptr::from_ref(key).addr() as u64,
            value: value.map_or(0, |value| ptr::from_ref(value).addr() as u64),
            flags: 0,
        }
    }
}

/// Sets the XDP socket of a queue. It stays in the map until it is closed.
pub(super) fn insert_socket(map: BorrowedFd<'_>, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    let socket = socket.as_raw_fd();
    // SAFETY: key and value have the sizes that the map was made with, and are only read.
    unsafe { bpf(MAP_UPDATE, &Element::new(map, &queue, Some(&socket))) }.map(drop)
}

/// Adds a key to a set of keys of `N` bytes.
pub(super) fn insert_key<const N: usize>(map: BorrowedFd<'_>, key: &[u8; N]) -> io::Result<()> {
    // SAFETY: key and value have the sizes that the map was made with, and are only read.
    unsafe { bpf(MAP_UPDATE, &Element::new(map, key, Some(&0u32))) }.map(drop)
}

/// Removes a key from a set of keys of `N` bytes.
pub(super) fn delete_key<const N: usize>(map: BorrowedFd<'_>, key: &[u8; N]) -> io::Result<()> {
    // SAFETY: the key has the size that the map was made with, and is only read; there is no value.
    unsafe { bpf(MAP_DELETE, &Element::new(map, key, None::<&u32>)) }.map(drop)
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

/// Loads an XDP program.
///
/// # Errors
/// The process lacks `CAP_BPF`, or the verifier refuses the program, as it does without `CAP_PERFMON`, because a pointer moves
/// by a header's length: the error has its log.
pub(super) fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    const LICENCE: &CStr = c"MIT";
    let mut attributes = Load {
        kind: PROGRAM_TYPE_XDP,
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
        // Before Linux 5.18 there is no such flag.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => attributes.flags = 0,
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Err(error),
        Err(_) => {}
        Ok(program) => return Ok(owned(program)),
    }
    // Loads it once more, to get the verifier's log.
    let mut log = vec![0u8; 1 << 16];
    (attributes.log_level, attributes.log_size) = (1, log.len() as u32);
    attributes.log = log.as_mut_ptr().expose_provenance() as u64;
    // SAFETY: program and licence outlive the call and are only read; the log is ours, and as long as `log_size` says.
    unsafe { bpf(PROGRAM_LOAD, &attributes) }.map(owned).map_err(|error| {
        let text = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy();
        io::Error::new(error.kind(), format!("the kernel refused the XDP program: {error}\n{text}"))
    })
}

/// A program's attachment to an interface (`BPF_LINK_CREATE`). It ends with this value, and with the process.
#[derive(Debug)]
pub(super) struct Link(OwnedFd);

impl Link {
    /// Attaches a program to an interface.
    ///
    /// # Errors
    /// Another program is attached (`EBUSY`), or the driver does not support the mode.
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
        // Detaches at once: a child between fork and exec may hold the descriptor for a moment.
        let attributes = self.0.as_raw_fd() as u32;
        // SAFETY: there are no addresses in it.
        let _ = unsafe { bpf(LINK_DETACH, &attributes) };
    }
}
