//! Carry-less multiplication, by the instruction that the processor has for it.
#![allow(unsafe_code, reason = "the instruction is only reached through an intrinsic or inline assembly")]

/// Carry-less product of two 64-bit words: (low half, high half).
#[cfg(all(target_arch = "x86_64", target_feature = "pclmulqdq"))]
#[inline(always)]
pub(crate) fn clmul(a: u64, b: u64) -> (u64, u64) {
    use core::arch::x86_64::{
        _mm_clmulepi64_si128, _mm_cvtsi64_si128, _mm_cvtsi128_si64, _mm_unpackhi_epi64,
    };
    // SAFETY: compiled only where the target has pclmulqdq; SSE2 is part of x86-64. No memory is accessed.
    unsafe {
        let p = _mm_clmulepi64_si128::<0>(_mm_cvtsi64_si128(a as i64), _mm_cvtsi64_si128(b as i64));
        (_mm_cvtsi128_si64(p) as u64, _mm_cvtsi128_si64(_mm_unpackhi_epi64(p, p)) as u64)
    }
}

/// Carry-less product of two 64-bit words: (low half, high half).
#[cfg(target_arch = "riscv64")]
#[inline(always)]
pub(crate) fn clmul(a: u64, b: u64) -> (u64, u64) {
    let (low, high);
    // SAFETY: Zbc instructions on registers only; the firmware's target has Zbc, and so has the processor it runs on.
    unsafe {
        core::arch::asm!(
            ".option push", ".option arch, +zbc", "clmul {l}, {a}, {b}", ".option pop",
            a = in(reg) a, b = in(reg) b, l = lateout(reg) low,
            options(pure, nomem, nostack, preserves_flags));
        core::arch::asm!(
            ".option push", ".option arch, +zbc", "clmulh {h}, {a}, {b}", ".option pop",
            a = in(reg) a, b = in(reg) b, h = lateout(reg) high,
            options(pure, nomem, nostack, preserves_flags));
    }
    (low, high)
}

/// Carry-less product of two 64-bit words: (low half, high half). For processors without the instruction.
#[cfg(not(any(all(target_arch = "x86_64", target_feature = "pclmulqdq"), target_arch = "riscv64")))]
pub(crate) fn clmul(a: u64, b: u64) -> (u64, u64) {
    by_shifts(a, b)
}

/// The product by shifts and XORs.
#[cfg(any(
    test,
    not(any(all(target_arch = "x86_64", target_feature = "pclmulqdq"), target_arch = "riscv64"))
))]
pub(crate) fn by_shifts(a: u64, b: u64) -> (u64, u64) {
    let mut p = 0u128;
    for i in 0..64 {
        if b >> i & 1 == 1 {
            p ^= u128::from(a) << i;
        }
    }
    (p as u64, (p >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::{by_shifts, clmul};

    #[test]
    fn the_instruction_gives_the_product() {
        let mut x = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..1000 {
            let y = x.rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            assert_eq!(clmul(x, y), by_shifts(x, y));
            x = y ^ x >> 31;
        }
        assert_eq!(clmul(u64::MAX, 1 << 63), (1 << 63, u64::MAX >> 1));
    }
}
