//! The log ring and the panic area: text for the host.

use core::fmt::{self, Write};
use core::sync::atomic::Ordering::{Relaxed, Release};

use culvert_abi::regs::{LOG_LEN, PANIC_LEN};
use culvert_abi::soc::{LOG, PANIC, ctrl};

use crate::ram::{self, ctrl64};

struct Log;

impl Write for Log {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let head = ctrl64(ctrl::LOG_HEAD);
        let at = head.load(Relaxed);
        for (n, byte) in (at..).zip(text.bytes()) {
            *ram::slot::<u8>(LOG + n % u64::from(LOG_LEN)) = byte;
        }
        head.store(at + text.len() as u64, Release);
        Ok(())
    }
}

/// Writes a line to the log.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    // Writing to the log never fails.
    let _ = Log.write_fmt(text);
    let _ = Log.write_str("\n");
}

struct Report(u64);

impl Write for Report {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if self.0 + 1 < u64::from(PANIC_LEN) {
                *ram::slot::<u8>(PANIC + self.0) = byte;
                self.0 += 1;
            }
        }
        Ok(())
    }
}

/// Writes a report to the panic area and halts.
pub(crate) fn die(text: fmt::Arguments<'_>) -> ! {
    let mut report = Report(0);
    let _ = report.write_fmt(text);
    *ram::slot::<u8>(PANIC + report.0) = 0;
    crate::ram::ctrl32(ctrl::FW_READY).store(0, Release);
    loop {
        riscv::asm::wfi();
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    die(format_args!("{info}"))
}
