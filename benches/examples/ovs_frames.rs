//! Frame source in Open vSwitch's process: a library that `bench ovs-dpdk` preloads in front of DPDK's.
//!
//! DPDK's port `net_null` returns empty buffers whenever it is polled. When Open vSwitch starts the port named in
//! `ovs_dpdk::control`, this library adds a receive callback, which writes the same frames, in the same order, as Culvert
//! is measured with. It reads what to write from the control file before each burst, so that one process serves many
//! cases. A transmit callback on the other port captures a frame on request.
//!
//! DPDK's headers are not needed: this uses only fields of the packet buffer's first cache line, which the stable ABI
//! fixes, and looks functions up in the process.
#![expect(unsafe_code, reason = "it is loaded between two C programs and writes into their buffers")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

use culvert_benches::generator::{Generator, Order};
use culvert_benches::ovs_dpdk::control::{LEN, Mode, SINK, SOURCE, Shape, VARIABLE, words};

/// The beginning of DPDK's packet buffer (`rte_mbuf_core.h` of DPDK 22.11).
#[repr(C)]
struct Mbuf {
    buffer: *mut u8,
    iova: u64,
    offset: u16,
    references: u16,
    segments: u16,
    port: u16,
    flags: u64,
    packet_type: u32,
    packet_len: u32,
    data_len: u16,
    vlan: u16,
    hash: u64,
    outer_vlan: u16,
    buffer_len: u16,
}

/// `RTE_MBUF_F_RX_L4_CKSUM_GOOD` and `RTE_MBUF_F_RX_IP_CKSUM_GOOD`: as a NIC sets them, so that Open vSwitch verifies no checksum.
const GOOD: u64 = 1 << 7 | 1 << 8;
/// `RTE_ETH_NAME_MAX_LEN`.
const NAME: usize = 64;
/// More transmit queues than Open vSwitch has threads.
const QUEUES: u16 = 64;

type Start = unsafe extern "C" fn(u16) -> c_int;
type NameOf = unsafe extern "C" fn(u16, *mut c_char) -> c_int;
type Free = unsafe extern "C" fn(*mut *mut Mbuf, u32);
type Receive = unsafe extern "C" fn(u16, u16, *mut *mut Mbuf, u16, u16, *mut c_void) -> u16;
type Transmit = unsafe extern "C" fn(u16, u16, *mut *mut Mbuf, u16, *mut c_void) -> u16;
type AddTransmit = unsafe extern "C" fn(u16, u16, Transmit, *mut c_void) -> *const c_void;
type Add = unsafe extern "C" fn(u16, u16, Receive, *mut c_void) -> *const c_void;

/// The control file.
type Words = [AtomicU64; LEN / 8];

/// The state of the port's callback.
struct Source {
    words: &'static Words,
    free: Free,
    bits: u64,
    shape: Option<Shape>,
    generator: Option<Generator>,
    order: Order,
    /// Frames still to be written with their payload, which stays in the reused buffers.
    payloads: u32,
}

/// More frames than buffers, since buffers are reused in no particular order.
const PAYLOADS: u32 = 1_000_000;

/// Replaces DPDK's function: starts the port, then adds a callback if it is the source or the sink.
///
/// # Safety
/// As DPDK's.
// SAFETY: the name is DPDK's; this library is preloaded to replace it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rte_eth_dev_start(port: u16) -> c_int {
    // SAFETY: these are the functions' types in DPDK's `rte_ethdev.h`.
    let (start, name_of) = unsafe {
        (function::<Start>(c"rte_eth_dev_start"), function::<NameOf>(c"rte_eth_dev_get_name_by_port"))
    };
    let (Some(start), Some(name_of)) = (start, name_of) else { return -1 };
    // SAFETY: the caller's promise is handed on.
    let started = unsafe { start(port) };
    let mut name = [0; NAME];
    // SAFETY: the buffer is as long as DPDK asks for.
    if started != 0 || unsafe { name_of(port, name.as_mut_ptr()) } != 0 {
        return started;
    }
    // SAFETY: DPDK ends the name with a zero, and so did the buffer from the start.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_bytes();
    let added = match name {
        name if name == SOURCE.as_bytes() => add_source(port),
        name if name == SINK.as_bytes() => add_sink(port),
        _ => Some(()),
    };
    if added.is_some() { 0 } else { -1 }
}

/// Adds the receive callback to the port's only receive queue.
fn add_source(port: u16) -> Option<()> {
    // SAFETY: these are the functions' types in DPDK's `rte_ethdev.h` and `rte_mbuf.h`.
    let (add, free) = unsafe {
        (function::<Add>(c"rte_eth_add_rx_callback")?, function::<Free>(c"rte_pktmbuf_free_bulk")?)
    };
    let (shape, generator, order) = (None, None, Order::default());
    let source = Box::new(Source { words: map()?, free, bits: 0, shape, generator, order, payloads: 0 });
    // SAFETY: the source lives as long as the process, and one thread polls the queue.
    let added = unsafe { add(port, 0, receive, Box::into_raw(source).cast()) };
    (!added.is_null()).then_some(())
}

/// Adds the transmit callback to all transmit queues of the port.
fn add_sink(port: u16) -> Option<()> {
    // SAFETY: this is the function's type in DPDK's `rte_ethdev.h`.
    let add = unsafe { function::<AddTransmit>(c"rte_eth_add_tx_callback")? };
    let words: *const Words = map()?;
    // SAFETY: the words live as long as the process and are only touched as atomics.
    let added = (0..QUEUES).filter(|queue| !unsafe { add(port, *queue, transmit, words as _) }.is_null());
    (added.count() > 0).then_some(())
}

/// Looks up a function of the libraries behind this one.
///
/// # Safety
/// `F` is the function's type.
// SAFETY: the caller names the type.
unsafe fn function<F: Copy>(name: &CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: the name is a C string.
    let at = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    // SAFETY: a function's pointer has a pointer's size, and this one is not null.
    (!at.is_null()).then(|| unsafe { std::mem::transmute_copy(&at) })
}

/// Maps the control file.
fn map() -> Option<&'static Words> {
    let file = File::options().read(true).write(true).open(std::env::var_os(VARIABLE)?).ok()?;
    if file.metadata().ok()?.len() != LEN as u64 {
        return None;
    }
    // SAFETY: a new mapping, which changes no other.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            LEN,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    // SAFETY: the mapping is permanent and a page long, and its words are only accessed as atomics.
    (at != libc::MAP_FAILED).then(|| unsafe { &*at.cast() })
}

/// DPDK's receive callback, for each burst of the port. Returns the number of buffers that Open vSwitch receives.
///
/// # Safety
/// `buffers` are `n` buffers in one segment each, and `source` is the port's [`Source`].
// SAFETY: the contract of DPDK's receive callbacks.
unsafe extern "C" fn receive(
    _port: u16,
    _queue: u16,
    buffers: *mut *mut Mbuf,
    n: u16,
    _most: u16,
    source: *mut c_void,
) -> u16 {
    // SAFETY: the pointer is that of `rte_eth_dev_start`, and only the thread that polls the queue calls this.
    let source = unsafe { &mut *source.cast::<Source>() };
    let bits = source.words[words::SHAPE].load(Relaxed);
    if bits != source.bits {
        source.bits = bits;
        let before = source.shape;
        source.shape = Shape::from_bits(bits);
        let of = |shape: Shape| (shape.kind, shape.bytes, shape.pair);
        if source.shape.map(of) != before.map(of) {
            source.payloads = PAYLOADS;
        }
        source.generator = source.shape.map(Shape::generator);
    }
    let limit = source.words[words::LIMIT].load(Relaxed);
    let allowed = limit == 0 || source.words[words::WRITTEN].load(Relaxed) + u64::from(n) <= limit;
    if let (Some(shape), Some(generator), true) = (source.shape, &source.generator, allowed) {
        // SAFETY: there are `n` buffers, which only this port uses until this function returns.
        let all = unsafe { std::slice::from_raw_parts(buffers, usize::from(n)) };
        for &buffer in all {
            // SAFETY: as above.
            let buffer = unsafe { &mut *buffer };
            let len = generator.len();
            if len > usize::from(buffer.buffer_len.saturating_sub(buffer.offset)) {
                continue;
            }
            // SAFETY: the buffer has `len` bytes after the offset.
            let frame =
                unsafe { std::slice::from_raw_parts_mut(buffer.buffer.add(usize::from(buffer.offset)), len) };
            if source.payloads > 0 {
                source.payloads -= 1;
                generator.write_payload(frame);
            }
            generator.write(source.order.next(shape.flows), frame);
            (buffer.data_len, buffer.packet_len, buffer.flags) = (len as u16, len as u32, GOOD);
        }
        let written = &source.words[words::WRITTEN];
        written.store(written.load(Relaxed) + u64::from(n), Relaxed);
        if shape.mode == Mode::Given {
            return n;
        }
    }
    // SAFETY: nothing else uses the buffers.
    unsafe { (source.free)(buffers, u32::from(n)) };
    0
}

/// DPDK's transmit callback, for each burst before it is sent.
///
/// # Safety
/// `buffers` are `n` buffers in one segment each, and `words` is the mapped control file.
// SAFETY: the contract of DPDK's transmit callbacks.
unsafe extern "C" fn transmit(
    _port: u16,
    _queue: u16,
    buffers: *mut *mut Mbuf,
    n: u16,
    words: *mut c_void,
) -> u16 {
    // SAFETY: the pointer is that of `add_sink`.
    let words = unsafe { &*words.cast::<Words>() };
    if n > 0 && words[words::TAKEN].load(Relaxed) == 0 {
        // SAFETY: there is a buffer, which only this port uses.
        let buffer = unsafe { &**buffers };
        let len = usize::from(buffer.data_len).min(LEN - words::FRAME * 8);
        // SAFETY: the frame is `len` bytes of the buffer.
        let frame = unsafe { std::slice::from_raw_parts(buffer.buffer.add(usize::from(buffer.offset)), len) };
        for (word, bytes) in words[words::FRAME..].iter().zip(frame.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(whole), Relaxed);
        }
        words[words::TAKEN].store(len as u64, Release);
    }
    n
}
