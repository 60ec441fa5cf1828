//! The SoC's RAM: a file that the board and the emulator map.
#![allow(unsafe_code, reason = "shared memory is reached through raw pointers")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64};

use culvert_abi::soc::{BUFFER_COUNT, BUFFER_LEN, BUFFERS, CTRL, RAM_LEN};
use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};

use super::SocError;

/// Bytes of the control block.
pub(super) const CTRL_LEN: u64 = 0x1000;

/// The RAM. Offsets are from its first byte; those outside of it are a defect of the caller and panic.
///
/// Through `&Ram` the control block is reached as atomics only, and everything else is only read; writes take `&mut Ram`.
/// So no reference of this process to the memory sees it change.
pub(super) struct Ram {
    base: *mut u8,
    file: OwnedFd,
}

// SAFETY: `base` stays mapped for as long as the value lives; words that are shared are only reached as atomics.
unsafe impl Send for Ram {}
// SAFETY: through `&Ram` the control block is reached as atomics, and what lies outside of it is only read.
unsafe impl Sync for Ram {}

impl Ram {
    /// Fresh memory, all zero.
    ///
    /// # Errors
    /// The system has none.
    pub(super) fn new() -> Result<Self, SocError> {
        let failed = |what| move |e: rustix::io::Errno| SocError::System { what, source: e.into() };
        let file = rustix::fs::memfd_create("culvert-soc", MemfdFlags::CLOEXEC).map_err(failed("memfd"))?;
        rustix::fs::ftruncate(&file, RAM_LEN).map_err(failed("the SoC's memory"))?;
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address that the kernel chooses.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), RAM_LEN as usize, prot, flags, &file, 0) };
        Ok(Ram { base: base.map_err(failed("mapping the SoC's memory"))?.cast(), file })
    }

    /// A path by which another process of the same user can open it.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    #[inline]
    fn at(&self, offset: u64, len: u64) -> *mut u8 {
        assert!(offset <= RAM_LEN && len <= RAM_LEN - offset, "{offset:#x}+{len:#x} lies outside of the RAM");
        // SAFETY: within the mapping, by the check above.
        unsafe { self.base.add(offset as usize) }
    }

    /// A 32-bit word of the control block, at an offset from the block's first byte.
    #[inline]
    pub(super) fn control32(&self, offset: u64) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset < CTRL_LEN, "no word of the control block: {offset:#x}");
        // SAFETY: within the mapping, aligned, and the control block is only ever reached as atomics, or by `&mut self`.
        unsafe { AtomicU32::from_ptr(self.at(CTRL + offset, 4).cast()) }
    }

    /// A 64-bit word of the control block.
    #[inline]
    pub(super) fn control64(&self, offset: u64) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < CTRL_LEN, "no word of the control block: {offset:#x}");
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(self.at(CTRL + offset, 8).cast()) }
    }

    /// Memory outside of the control block.
    #[inline]
    fn plain(&self, offset: u64, len: u64) -> *mut u8 {
        let at = self.at(offset, len);
        assert!(
            offset >= CTRL + CTRL_LEN || offset + len <= CTRL,
            "{offset:#x}+{len:#x} is in the control block"
        );
        at
    }

    /// Copies out.
    #[inline]
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) {
        let from = self.plain(offset, out.len() as u64);
        // SAFETY: both ranges are valid and do not overlap, and nobody in this process writes while `&self` lives. The
        // firmware does not write what the board reads; if a faulty one does, the bytes are garbage that is checked
        // like any other.
        unsafe { std::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) }
    }

    /// Copies in.
    #[inline]
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let to = self.at(offset, bytes.len() as u64);
        // SAFETY: both ranges are valid and do not overlap; `&mut self` makes this the only access of this process, and
        // what the board writes is its own by the rings' indices.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Sets bytes.
    pub(super) fn fill(&mut self, offset: u64, len: u64, value: u8) {
        // SAFETY: within the mapping, by the check in `at`; `&mut self` makes this the only access of this process.
        unsafe { std::ptr::write_bytes(self.at(offset, len), value, len as usize) }
    }

    /// Memory that the firmware has handed over: a frame or a header scratch.
    #[inline]
    pub(super) fn slice(&self, offset: u64, len: u64) -> &[u8] {
        // SAFETY: within the mapping, and nobody in this process writes while `&self` lives. The firmware has handed it
        // over and leaves it alone until the ring's index is passed; a faulty one can only change bytes that nothing was
        // concluded from.
        unsafe { std::slice::from_raw_parts(self.plain(offset, len), len as usize) }
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
