//! Survives memory files that shrink: a SIGBUS handler that puts empty pages where a guest's pages were lost.
//!
//! The kernel raises SIGBUS on the thread that touches a mapped page beyond the end of its file. The handler looks the
//! address up among the registered mappings, marks the one that has it as lost, maps anonymous memory over the rest of
//! it and returns: the access is made again and reads zeros, or writes into nothing. Whoever made the access then calls
//! [`Registration::is_lost`]. Any other address goes to the handler that was installed before, which for an unregistered
//! fault ends the process as it should.
//!
//! The table is static, of fixed size and lock-free, since a handler may neither lock nor allocate. Each entry has a sequence
//! number, odd while the entry changes; a mapping's own entry is stable while anybody can touch the mapping.

#![allow(unsafe_code, reason = "signal handlers and mappings at a fixed place have no safe form")]

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence, fence};

/// Mappings at once: the shares of 128 clients ([`MAX_MAPPINGS`](super::share::MAX_MAPPINGS)), or hundreds of VMs with a handful
/// of regions each, twice while they are exchanged.
pub(super) const ENTRIES: usize = 128 * super::share::MAX_MAPPINGS;

/// A mapping. `sequence` is odd while the rest changes.
struct Entry {
    taken: AtomicBool,
    lost: AtomicBool,
    sequence: AtomicUsize,
    start: AtomicUsize,
    len: AtomicUsize,
    page: AtomicUsize,
}

static TABLE: [Entry; ENTRIES] = [const {
    Entry {
        taken: AtomicBool::new(false),
        lost: AtomicBool::new(false),
        sequence: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        page: AtomicUsize::new(0),
    }
}; ENTRIES];

/// The handler that was installed before ours.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// A registered mapping. The mapping must outlive it.
pub(super) struct Registration(&'static Entry);

impl Registration {
    /// Registers `len` bytes at `start`, in pages of `page` bytes. All three are multiples of the page. `None`: too many
    /// mappings.
    pub(super) fn new(start: usize, len: usize, page: usize) -> Option<Self> {
        install();
        let free = |entry: &&Entry| {
            !entry.taken.load(Ordering::Relaxed) && !entry.taken.swap(true, Ordering::AcqRel)
        };
        let entry = TABLE.iter().find(free)?;
        entry.lost.store(false, Ordering::Relaxed);
        entry.set(start, len, page);
        Some(Registration(entry))
    }

    /// Whether a page of the mapping was found lost. Call it after an access, on the thread that made the access.
    #[inline]
    pub(super) fn is_lost(&self) -> bool {
        // The handler runs on this thread: what it did is ordered by the program alone.
        compiler_fence(Ordering::SeqCst);
        self.0.lost.load(Ordering::Acquire)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.0.set(0, 0, 1);
        self.0.taken.store(false, Ordering::Release);
    }
}

impl Entry {
    /// Only whoever has taken the entry calls this.
    fn set(&self, start: usize, len: usize, page: usize) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.page.store(page, Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// Start and length of the mapping from the page of `address` on. An entry that is just changing has no address that
    /// anybody could touch.
    fn rest(&self, address: usize) -> Option<(usize, usize)> {
        let before = self.sequence.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        let len = self.len.load(Ordering::Relaxed);
        let page = self.page.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let stable = before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before;
        let offset = address.checked_sub(start).filter(|offset| stable && *offset < len)?;
        let from = offset - offset.checked_rem(page)?;
        Some((start + from, len - from))
    }
}

/// Installs the handler, once for the process.
fn install() {
    PREVIOUS.get_or_init(|| {
        let mut old = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: all zeros is a valid value of the structure.
        let mut new: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void) = on_sigbus;
        new.sa_sigaction = handler as usize;
        new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: both structures live during the call; the handler has the form that the flags say, and does only what a
        // handler may.
        unsafe { libc::sigaction(libc::SIGBUS, &new, old.as_mut_ptr()) };
        // SAFETY: it was zeroed, which is valid, and perhaps written by the kernel.
        unsafe { old.assume_init() }
    });
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo, which for this signal has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // BUS_ADRERR: no such page in the file. Other codes (bad memory, misalignment) are not a guest's doing.
    if code == libc::BUS_ADRERR && replace(address) {
        return;
    }
    let Some(previous) = PREVIOUS.get() else { return };
    match previous.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: the default action, which ends the process when the access is made again.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: with this flag the field is a function of this type.
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: without the flag the field is a function of this type.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

/// Maps empty memory from the lost page to the end of its mapping. `false`: the address is not ours.
fn replace(address: usize) -> bool {
    let found = TABLE.iter().find_map(|entry| entry.rest(address).map(|rest| (entry, rest)));
    let Some((entry, (from, len))) = found else { return false };
    entry.lost.store(true, Ordering::Release);
    let (prot, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
    );
    // SAFETY: errno is this thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; who was interrupted finds it unchanged.
    let kept = unsafe { *errno };
    // SAFETY: the range is part of a mapping that is ours and alive, since a registration is dropped before its mapping,
    // and whoever makes an access has both. Nothing is borrowed from the mapping.
    let done = unsafe { libc::mmap(from as *mut c_void, len, prot, flags, -1, 0) };
    // SAFETY: as above.
    unsafe { *errno = kept };
    !ptr::eq(done, libc::MAP_FAILED)
}
