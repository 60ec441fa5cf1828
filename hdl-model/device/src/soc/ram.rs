//! The SoC's RAM: a file that the board and the emulator map.
#![allow(unsafe_code, reason = "shared memory is reached through raw pointers")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64};

use culvert_abi::soc::{BUFFER_COUNT, BUFFER_LEN, BUFFERS, RAM_LEN};
use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

use super::SocError;

/// The RAM. Offsets are from its first byte; those outside of it are a defect of the caller and panic.
pub struct Ram {
    base: *mut u8,
    file: OwnedFd,
}

// SAFETY: `base` stays mapped for as long as the value lives; words that are shared are only reached as atomics.
unsafe impl Send for Ram {}
// SAFETY: as above; through `&Ram` only atomics and ring entries that the board owns are reached.
unsafe impl Sync for Ram {}

impl Ram {
    /// Fresh memory, all zero.
    ///
    /// # Errors
    /// The system has none.
    pub fn new() -> Result<Self, SocError> {
        let failed = |what| move |e: rustix::io::Errno| SocError::System { what, source: e.into() };
        let file = rustix::fs::memfd_create("culvert-soc", MemfdFlags::CLOEXEC).map_err(failed("memfd"))?;
        rustix::fs::ftruncate(&file, RAM_LEN).map_err(failed("the SoC's memory"))?;
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), RAM_LEN as usize, prot, flags, &file, 0) };
        Ok(Ram { base: base.map_err(failed("mapping the SoC's memory"))?.cast(), file })
    }

    /// A path by which another process of the same user can open it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    #[inline]
    fn at(&self, offset: u64, len: u64) -> *mut u8 {
        assert!(offset <= RAM_LEN && len <= RAM_LEN - offset, "{offset:#x}+{len:#x} lies outside of the RAM");
        // SAFETY: within the mapping, by the check above.
        unsafe { self.base.add(offset as usize) }
    }

    /// A 32-bit word.
    #[inline]
    pub fn atomic32(&self, offset: u64) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4));
        // SAFETY: within the mapping, aligned, and only ever reached as an atomic.
        unsafe { AtomicU32::from_ptr(self.at(offset, 4).cast()) }
    }

    /// A 64-bit word.
    #[inline]
    pub fn atomic64(&self, offset: u64) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8));
        // SAFETY: within the mapping, aligned, and only ever reached as an atomic.
        unsafe { AtomicU64::from_ptr(self.at(offset, 8).cast()) }
    }

    /// Copies out.
    #[inline]
    pub fn read(&self, offset: u64, out: &mut [u8]) {
        let from = self.at(offset, out.len() as u64);
        // SAFETY: both ranges are valid and do not overlap; the firmware does not write what the board reads, and if a
        // faulty one does, the bytes are garbage that is checked like any other.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) }
    }

    /// Copies in.
    #[inline]
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let to = self.at(offset, bytes.len() as u64);
        // SAFETY: both ranges are valid and do not overlap; what the board writes is its own by the rings' indices.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Sets bytes.
    pub fn fill(&self, offset: u64, len: u64, value: u8) {
        // SAFETY: within the mapping, by the check in `at`.
        unsafe { std::ptr::write_bytes(self.at(offset, len), value, len as usize) }
    }

    /// Memory that the firmware has handed over: a frame or a header scratch.
    #[inline]
    pub(super) fn slice(&self, offset: u64, len: u64) -> &[u8] {
        // SAFETY: within the mapping. The firmware has handed it over and leaves it alone until the ring's index is
        // passed; a faulty one can only change bytes that nothing was concluded from.
        unsafe { std::slice::from_raw_parts(self.at(offset, len), len as usize) }
    }

    /// A packet buffer that the board owns.
    #[inline]
    pub(super) fn buffer(&mut self, number: u32) -> &mut [u8] {
        assert!(number < BUFFER_COUNT);
        let at = self.at(BUFFERS + u64::from(number) * u64::from(BUFFER_LEN), u64::from(BUFFER_LEN));
        // SAFETY: within the mapping; the board owns it, as the caller has checked, and `&mut self` makes it the only
        // reference.
        unsafe { std::slice::from_raw_parts_mut(at, BUFFER_LEN as usize) }
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; nothing refers to it any more.
        let _gone = unsafe { rustix::mm::munmap(self.base.cast(), RAM_LEN as usize) };
    }
}
