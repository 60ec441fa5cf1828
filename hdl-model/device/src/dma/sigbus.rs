//! Survives memory files that shrink: a SIGBUS handler that puts empty pages where a client's pages were lost.
//!
//! The kernel raises SIGBUS on the thread that touches a mapped page beyond the end of its file. The handler looks the
//! address up in a table of registered mappings, marks the mapping lost, maps anonymous memory over the rest of it and
//! returns: the access is repeated and reads zeros, or writes into nothing. Whoever copied then asks [`Slot::lost`].
//! An address that is not ours goes to the handler that was there before, which for an unregistered fault ends the
//! process as it should.
//!
//! The table is static, of fixed size and lock-free, since a handler may neither lock nor allocate. Each slot has a
//! sequence number, odd while the slot changes; a mapping's own slot is stable while anybody can touch the mapping.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence, fence};

/// Mappings at once: a board has 65 functions with a handful of files each.
const SLOTS: usize = 1024;

struct Entry {
    taken: AtomicBool,
    sequence: AtomicUsize,
    start: AtomicUsize,
    len: AtomicUsize,
    page: AtomicUsize,
    lost: AtomicBool,
}

static TABLE: [Entry; SLOTS] = [const {
    Entry {
        taken: AtomicBool::new(false),
        sequence: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        page: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    }
}; SLOTS];

/// The handler that was installed before ours.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// A registered mapping. The mapping must outlive it.
pub(super) struct Slot(&'static Entry);

impl Slot {
    /// Registers `len` bytes at `start`, mapped in pages of `page` bytes. `None` if the table is full.
    pub(super) fn register(start: usize, len: usize, page: usize) -> Option<Self> {
        install();
        let entry = TABLE.iter().find(|entry| {
            entry.taken.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })?;
        entry.change(|| {
            entry.start.store(start, Ordering::Relaxed);
            entry.len.store(len, Ordering::Relaxed);
            entry.page.store(page, Ordering::Relaxed);
            entry.lost.store(false, Ordering::Relaxed);
        });
        Some(Self(entry))
    }

    /// Whether a page of the mapping was found lost. To be asked after an access, by the thread that made it.
    pub(super) fn lost(&self) -> bool {
        // The handler runs on this thread: what it did is ordered by the program alone.
        compiler_fence(Ordering::SeqCst);
        self.0.lost.load(Ordering::Acquire)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.change(|| {
            self.0.start.store(0, Ordering::Relaxed);
            self.0.len.store(0, Ordering::Relaxed);
        });
        self.0.taken.store(false, Ordering::Release);
    }
}

impl Entry {
    fn change(&self, with: impl FnOnce()) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        with();
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// Start, length and page size, if `address` lies inside and the slot is not just changing.
    fn covers(&self, address: usize) -> Option<(usize, usize, usize)> {
        let before = self.sequence.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Relaxed);
        let len = self.len.load(Ordering::Relaxed);
        let page = self.page.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let stable = before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before;
        (stable && address.checked_sub(start).is_some_and(|offset| offset < len))
            .then_some((start, len, page))
    }
}

/// Installs the handler, once for the process.
fn install() {
    PREVIOUS.get_or_init(|| {
        let mut old = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: `new` is a valid sigaction with a handler of the SA_SIGINFO form that only calls async-signal-safe
        // functions, and `old` is large enough for the previous one, which a successful call initialises (and which is
        // all-zero, thus valid, should the call fail).
        unsafe {
            let mut new: libc::sigaction = std::mem::zeroed();
            new.sa_sigaction =
                on_sigbus as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void) as usize;
            new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut new.sa_mask);
            libc::sigaction(libc::SIGBUS, &new, old.as_mut_ptr());
            old.assume_init()
        }
    });
}

extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo, which for SIGBUS has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // BUS_ADRERR: no such page in the file. Other codes (bad memory, misalignment) are not a client's doing.
    if code == libc::BUS_ADRERR && replace(address) {
        return;
    }
    let Some(previous) = PREVIOUS.get() else { return };
    match previous.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: restores the default action; the access is repeated on return and ends the process.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: with SA_SIGINFO the field holds a function of this type; it gets what the kernel gave us.
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: without SA_SIGINFO the field holds a function of this type.
            let handler: extern "C" fn(libc::c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

/// Maps empty memory from the lost page to the end of its mapping. False if the address is not ours.
fn replace(address: usize) -> bool {
    let Some((entry, (start, len, page))) =
        TABLE.iter().find_map(|entry| entry.covers(address).map(|found| (entry, found)))
    else {
        return false;
    };
    entry.lost.store(true, Ordering::Release);
    let from = start + (address - start) / page * page;
    // SAFETY: errno belongs to this thread; the interrupted code must find it unchanged. The range lies inside a mapping
    // that is registered, thus ours and alive: its owner unregisters before it unmaps, and the faulting access is made
    // under the owner's lock. mmap is a plain system call on Linux.
    unsafe {
        let errno = *libc::__errno_location();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let at = from as *mut c_void;
        let done = libc::mmap(at, start + len - from, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        *libc::__errno_location() = errno;
        !ptr::eq(done, libc::MAP_FAILED)
    }
}
