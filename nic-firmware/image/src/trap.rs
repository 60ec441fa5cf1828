//! Traps: none is expected. Interrupts only wake `wfi`; they stay disabled.

use riscv::register::{mcause, mepc, mtval};

/// A trap is a defect of the firmware: reports its address and halts.
#[riscv_rt::exception(riscv::interrupt::machine::Exception::IllegalInstruction)]
fn illegal(_frame: &riscv_rt::TrapFrame) -> ! {
    report()
}

#[unsafe(export_name = "ExceptionHandler")]
extern "C" fn other(_frame: &riscv_rt::TrapFrame) -> ! {
    report()
}

fn report() -> ! {
    crate::log::die(format_args!(
        "trap: cause {:#x} at {:#x}, value {:#x}",
        mcause::read().bits(),
        mepc::read(),
        mtval::read()
    ))
}
