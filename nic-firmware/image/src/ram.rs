//! The SoC's RAM, by offset. The only place where an address becomes a reference.
#![allow(unsafe_code, reason = "fixed physical addresses can only be reached through raw pointers")]

use core::sync::atomic::{AtomicU32, AtomicU64};

use culvert_abi::soc::{BUFFER_COUNT, BUFFER_LEN, BUFFERS, CTRL, RAM_BASE, RAM_LEN};

/// A 32-bit word at an offset.
#[inline(always)]
pub(crate) fn word32(offset: u64) -> &'static AtomicU32 {
    debug_assert!(offset < RAM_LEN && offset.is_multiple_of(4));
    // SAFETY: the RAM is there for as long as the firmware runs; words that are shared are only reached as atomics.
    unsafe { AtomicU32::from_ptr((RAM_BASE + offset) as *mut u32) }
}

/// A 64-bit word at an offset.
#[inline(always)]
pub(crate) fn word64(offset: u64) -> &'static AtomicU64 {
    debug_assert!(offset < RAM_LEN && offset.is_multiple_of(8));
    // SAFETY: as in `word32`.
    unsafe { AtomicU64::from_ptr((RAM_BASE + offset) as *mut u64) }
}

/// A 32-bit word of the control block.
#[inline(always)]
pub(crate) fn ctrl32(offset: u64) -> &'static AtomicU32 {
    word32(CTRL + offset)
}

/// A 64-bit word of the control block.
#[inline(always)]
pub(crate) fn ctrl64(offset: u64) -> &'static AtomicU64 {
    word64(CTRL + offset)
}

/// A packet buffer, while the firmware owns it.
#[inline(always)]
pub(crate) fn buffer(number: u32) -> Option<&'static mut [u8]> {
    if number >= BUFFER_COUNT {
        return None;
    }
    let at = RAM_BASE + BUFFERS + u64::from(number) * u64::from(BUFFER_LEN);
    // SAFETY: the board hands each buffer to the firmware in one descriptor and does not touch it until it comes back;
    // the firmware works on one descriptor at a time, so that there is one reference.
    Some(unsafe { core::slice::from_raw_parts_mut(at as *mut u8, BUFFER_LEN as usize) })
}

/// A value in memory that only the processor that owns its ring entry touches.
#[inline(always)]
pub(crate) fn slot<T>(offset: u64) -> &'static mut T {
    debug_assert!(offset + size_of::<T>() as u64 <= RAM_LEN);
    // SAFETY: ring entries and their header scratch belong to one side at a time, by the ring's indices; entries are
    // plain data of which every bit pattern is valid.
    unsafe { &mut *((RAM_BASE + offset) as *mut T) }
}

/// `len` values from an offset on, for tables: handed out once each.
pub(crate) fn table<T>(offset: u64, len: usize) -> &'static mut [T] {
    assert!(offset + (len * size_of::<T>()) as u64 <= RAM_LEN, "a table lies outside of the RAM");
    // SAFETY: the RAM is there, the caller lays tables side by side and only once, and tables are plain data of which
    // every bit pattern is valid.
    unsafe { core::slice::from_raw_parts_mut((RAM_BASE + offset) as *mut T, len) }
}
