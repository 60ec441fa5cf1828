//! Frames for Open vSwitch, made in its own process: a library that `bench peers` loads in front of DPDK's.
//!
//! DPDK's port `net_null` hands out empty buffers as fast as it is asked. When Open vSwitch starts the port that is
//! named in `peers::control`, this library hangs a receive callback on it, which writes the same frames into the
//! buffers, in the same order, as our own path is measured with. What to write is read from a file in memory before
//! each burst, so that one process serves many cases. A transmit callback on the other port shows a frame when it is
//! asked for one.
//!
//! DPDK's headers are not needed: of its packet buffer only the first line's fields are touched, which its stable ABI
//! fixes, and functions are looked up in the process.
#![expect(unsafe_code, reason = "it stands between two C programs and writes into the buffers of one")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

use culvert_benches::generator::{Generator, Order};
use culvert_benches::peers::control::{LEN, Mode, SINK, SOURCE, Shape, VARIABLE, words};

/// DPDK's packet buffer, as far as it is touched (`rte_mbuf_core.h` of DPDK 22.11).
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

/// `RTE_MBUF_F_RX_L4_CKSUM_GOOD` and `RTE_MBUF_F_RX_IP_CKSUM_GOOD`: what a NIC says, so that nobody has to add.
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

/// What is shared with the benchmark.
type Words = [AtomicU64; LEN / 8];

/// The state of the port's callback.
struct Source {
    words: &'static Words,
    free: Free,
    bits: u64,
    shape: Option<Shape>,
    generator: Option<Generator>,
    order: Order,
    /// Frames that are yet to be written with their payload. It stays in the buffers, which are used over and over.
    payloads: u32,
}

/// More frames than there are buffers, which come back in no certain order.
const PAYLOADS: u32 = 1_000_000;

/// Takes the place of DPDK's function: starts the port, then hangs a callback on it if it is one of ours.
///
/// # Safety
/// As DPDK's.
// SAFETY: the name is DPDK's; this library is loaded to stand in front of it.
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
    let hung = match name {
        name if name == SOURCE.as_bytes() => hang_source(port),
        name if name == SINK.as_bytes() => hang_sink(port),
        _ => Some(()),
    };
    if hung.is_some() { 0 } else { -1 }
}

/// Hangs the frames' maker on the port's only receive queue.
fn hang_source(port: u16) -> Option<()> {
    // SAFETY: these are the functions' types in DPDK's `rte_ethdev.h` and `rte_mbuf.h`.
    let (add, free) = unsafe {
        (function::<Add>(c"rte_eth_add_rx_callback")?, function::<Free>(c"rte_pktmbuf_free_bulk")?)
    };
    let (shape, generator, order) = (None, None, Order::default());
    let source = Box::new(Source { words: map()?, free, bits: 0, shape, generator, order, payloads: 0 });
    // SAFETY: the source lives as long as the process, and one thread polls the queue.
    let hung = unsafe { add(port, 0, receive, Box::into_raw(source).cast()) };
    (!hung.is_null()).then_some(())
}

/// Hangs the look at frames on all transmit queues that the port has.
fn hang_sink(port: u16) -> Option<()> {
    // SAFETY: this is the function's type in DPDK's `rte_ethdev.h`.
    let add = unsafe { function::<AddTransmit>(c"rte_eth_add_tx_callback")? };
    let words: *const Words = map()?;
    // SAFETY: the words live as long as the process and are only touched as atomics.
    let added = (0..QUEUES).filter(|queue| !unsafe { add(port, *queue, transmit, words as _) }.is_null());
    (added.count() > 0).then_some(())
}

/// A function of the libraries behind this one.
///
/// # Safety
/// `F` is the function's type.
// SAFETY: the caller names the type.
unsafe fn function<F: Copy>(name: &CStr) -> Option<F> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: the name is a C string.
    let at = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    // SAFETY: a function's pointer has a pointer's size, and this one is none that is null.
    (!at.is_null()).then(|| unsafe { std::mem::transmute_copy(&at) })
}

/// Maps the file that says what to write.
fn map() -> Option<&'static Words> {
    let file = File::options().read(true).write(true).open(std::env::var_os(VARIABLE)?).ok()?;
    if file.metadata().ok()?.len() != LEN as u64 {
        return None;
    }
    // SAFETY: a new mapping, which touches nothing that is there.
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
    // SAFETY: the mapping is never undone, is a page long, and its words are only touched as atomics.
    (at != libc::MAP_FAILED).then(|| unsafe { &*at.cast() })
}

/// DPDK calls it with each burst that the port has handed out; what it returns is what Open vSwitch receives.
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
    // SAFETY: the pointer is that of `rte_eth_dev_start`, and only the thread that polls the queue comes here.
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
        // SAFETY: there are `n` buffers, each of which is the port's alone until it is handed on.
        let all = unsafe { std::slice::from_raw_parts(buffers, usize::from(n)) };
        for &buffer in all {
            // SAFETY: as above.
            let buffer = unsafe { &mut *buffer };
            let len = generator.len();
            if len > usize::from(buffer.buffer_len.saturating_sub(buffer.offset)) {
                continue;
            }
            // SAFETY: the buffer has so many bytes from there on.
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
    // SAFETY: the buffers are nobody else's.
    unsafe { (source.free)(buffers, u32::from(n)) };
    0
}

/// DPDK calls it with each burst that is about to leave.
///
/// # Safety
/// `buffers` are `n` buffers in one segment each, and `words` are what is shared.
// SAFETY: the contract of DPDK's transmit callbacks.
unsafe extern "C" fn transmit(
    _port: u16,
    _queue: u16,
    buffers: *mut *mut Mbuf,
    n: u16,
    words: *mut c_void,
) -> u16 {
    // SAFETY: the pointer is that of `hang_sink`.
    let words = unsafe { &*words.cast::<Words>() };
    if n > 0 && words[words::TAKEN].load(Relaxed) == 0 {
        // SAFETY: there is a buffer, which is the port's alone.
        let buffer = unsafe { &**buffers };
        let len = usize::from(buffer.data_len).min(LEN - words::FRAME * 8);
        // SAFETY: so many bytes of it are the frame.
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
