//! Wake-ups: an ivshmem device rings both ways (its interrupt is a message to the IMSIC), the timer wakes for heartbeats.
#![allow(unsafe_code, reason = "device registers and control registers")]

use core::arch::asm;

/// PCI configuration space (ECAM) of QEMU's `virt` machine, and a window for BARs.
const ECAM: usize = 0x3000_0000;
const BAR0: u32 = 0x4000_0000;
const BAR2: u32 = 0x4100_0000;
const MSIX_TABLE: u32 = 0x4000_1000;
/// IMSIC of hart 0, machine level.
const IMSIC: u32 = 0x2400_0000;
/// Interrupt identity of the board's bell.
const BELL: u32 = 5;
/// ivshmem: vendor and device id, offset of the doorbell register.
const IVSHMEM: u32 = 0x1110_1af4;
const DOORBELL: u32 = 0x0c;
/// Peer 0 is the board, vector 0.
const BOARD: u32 = 0;
/// CLINT: compare register of hart 0, and the time.
const MTIMECMP: usize = 0x0200_4000;
const MTIME: usize = 0x0200_bff8;

fn register(at: usize) -> *mut u32 {
    at as *mut u32
}

/// Time in ticks of 100 ns.
pub(crate) fn time() -> u64 {
    // SAFETY: a register of the CLINT, which QEMU's `virt` has at this address.
    unsafe { (MTIME as *const u64).read_volatile() }
}

/// Sets the timer: `wfi` returns at `ticks`.
pub(crate) fn wake_at(ticks: u64) {
    // SAFETY: as in `time`.
    unsafe { (MTIMECMP as *mut u64).write_volatile(ticks) }
}

/// Sets up both ways. `false`: there is no such device, so that `wfi` must not be used.
pub(crate) fn init() -> bool {
    wake_at(time());
    // SAFETY: control registers of the IMSIC (AIA 3.8): delivery on, threshold 0, identities 1 to 63 enabled. Interrupts stay
    // disabled in mstatus: an enabled pending one ends `wfi` without a trap.
    unsafe {
        asm!("csrw 0x350, {0}", "csrw 0x351, {1}", in(reg) 0x70usize, in(reg) 1usize);
        asm!("csrw 0x350, {0}", "csrw 0x351, {1}", in(reg) 0x72usize, in(reg) 0usize);
        asm!("csrw 0x350, {0}", "csrw 0x351, {1}", in(reg) 0xc0usize, in(reg) !1usize);
        riscv::register::mie::set_mext();
        riscv::register::mie::set_mtimer();
        asm!("csrw mcountinhibit, zero");
    }
    (0..32).any(|slot| find(ECAM + slot * 0x8000))
}

/// Enables the device if it is the ivshmem one.
fn find(config: usize) -> bool {
    // SAFETY: configuration space of the PCI bus; absent functions read as all ones.
    unsafe {
        let r = |o: usize| register(config + o);
        if r(0).read_volatile() != IVSHMEM {
            return false;
        }
        r(0x10).write_volatile(BAR0);
        r(0x14).write_volatile(MSIX_TABLE);
        r(0x18).write_volatile(BAR2);
        r(0x1c).write_volatile(0);
        // Memory space and bus mastering.
        r(0x04).write_volatile(r(0x04).read_volatile() | 6);
        let mut capability = (r(0x34).read_volatile() & 0xfc) as usize;
        for _ in 0..48 {
            if capability == 0 {
                return false;
            }
            let header = r(capability).read_volatile();
            if header & 0xff == 0x11 {
                let table = register(MSIX_TABLE as usize);
                table.write_volatile(IMSIC);
                table.add(1).write_volatile(0);
                table.add(2).write_volatile(BELL);
                table.add(3).write_volatile(0);
                r(capability).write_volatile(header & 0x3fff_ffff | 1 << 31);
                return true;
            }
            capability = (header >> 8 & 0xfc) as usize;
        }
        false
    }
}

/// Rings the board.
pub(crate) fn ring() {
    // SAFETY: the doorbell register of the device that `init` has found; the board only sleeps when it has it too.
    unsafe { register((BAR0 + DOORBELL) as usize).write_volatile(BOARD << 16) }
}

/// Claims the board's pending interrupts: else the next `wfi` would return at once.
pub(crate) fn acknowledge() {
    loop {
        let pending: usize;
        // SAFETY: mtopei: reading and writing it claims the foremost pending identity.
        unsafe { asm!("csrrw {0}, 0x35c, zero", out(reg) pending) };
        if pending == 0 {
            break;
        }
    }
}
