//! Prefetch: loads memory into the cache before it is used, where the processor has an instruction for it.
#![allow(unsafe_code, reason = "the instruction is only reached through an intrinsic")]

/// Prefetches the cache line that `item` begins in, to be read.
#[inline(always)]
pub fn prefetch<T>(item: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program could see, and never faults.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(item).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = item;
}

/// Prefetches the cache line that `item` begins in, to be written to: no other core keeps it.
#[inline(always)]
pub fn prefetch_to_write<T>(item: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above. Processors of this architecture that do not know the instruction take it for one that does nothing.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) core::ptr::from_ref(item), options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = item;
}
