//! INTx: the interrupt of a machine without MSI-X (virtio 1.2, 4.1.4.5 and 4.1.5.3; VFIO's masking by itself).

use std::os::fd::OwnedFd;

use culvert_device::vfio_user::{Function, INTX_INDEX, IrqAction, IrqSet};
use culvert_device::virtio::VfConfig;
use rustix::event::{EventfdFlags, eventfd};

use crate::driver::{Driver, MAC};

const COMMAND: usize = 4;

struct Line {
    driver: Driver,
    event: OwnedFd,
}

impl Line {
    fn new() -> Self {
        let driver = Driver::start(VfConfig::new(MAC, 1500), 0);
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("eventfd");
        let line = Line { driver, event };
        line.set(IrqAction::Assign(vec![line.event.try_clone().expect("dup")]));
        line
    }

    fn set(&self, action: IrqAction) {
        self.driver.device.set_irqs(IrqSet { index: INTX_INDEX, start: 0, count: 1, action }).expect("irqs");
    }

    /// What a guest's interrupt controller does at the end of an interrupt.
    fn unmask(&self) {
        self.set(IrqAction::Unmask(vec![true]));
    }

    fn signals(&self) -> u64 {
        let mut bytes = [0; 8];
        rustix::io::read(&self.event, &mut bytes).map_or(0, |_| u64::from_ne_bytes(bytes))
    }

    fn change(&self, mtu: u16) {
        self.driver.device.set_config(VfConfig::new(MAC, mtu));
    }

    fn status(&self) -> u8 {
        let mut bytes = [0; 2];
        self.driver.device.config_read(6, &mut bytes);
        bytes[0] >> 3 & 1
    }

    fn read_isr(&self) -> u8 {
        self.driver.r::<1>(0x1000)[0]
    }
}

#[test]
fn the_function_has_a_pin_and_one_line_that_masks_itself() {
    let line = Line::new();
    let mut pin = [0];
    line.driver.device.config_read(0x3d, &mut pin);
    assert_eq!((pin, line.driver.device.irq_count(INTX_INDEX)), ([1], 1));
    line.change(1400);
    assert_eq!((line.signals(), line.status()), (1, 1));
    line.change(1401);
    assert_eq!(line.signals(), 0, "it has masked itself");
    // The line is still up when the guest's controller is done with it.
    line.unmask();
    assert_eq!(line.signals(), 1);
    assert_eq!(line.read_isr(), 2, "a configuration change");
    assert_eq!((line.read_isr(), line.status()), (0, 0), "reading clears");
    line.unmask();
    assert_eq!(line.signals(), 0);
    line.change(1402);
    assert_eq!(line.signals(), 1);
}

#[test]
fn the_line_is_silent_while_it_is_disabled_masked_or_msix_is_on() {
    let line = Line::new();
    line.driver.device.config_write(COMMAND, &0x0406u16.to_le_bytes());
    line.change(1400);
    assert_eq!(
        (line.signals(), line.status()),
        (0, 1),
        "Interrupt Disable; the status shows it nevertheless"
    );
    line.driver.device.config_write(COMMAND, &6u16.to_le_bytes());
    assert_eq!(line.signals(), 1);
    line.read_isr();
    line.set(IrqAction::Mask(vec![true]));
    line.change(1401);
    assert_eq!(line.signals(), 0, "masked");
    line.unmask();
    assert_eq!(line.signals(), 1);
    line.read_isr();
    line.unmask();

    let mut at = 0x40;
    let mut header = [0; 2];
    loop {
        line.driver.device.config_read(at, &mut header);
        if header[0] == 0x11 {
            break;
        }
        at = usize::from(header[1]);
        assert_ne!(at, 0, "no MSI-X capability");
    }
    line.driver.device.config_write(at + 2, &0x8000u16.to_le_bytes());
    line.change(1402);
    assert_eq!(line.signals(), 0, "MSI-X is on");
    line.driver.device.config_write(at + 2, &[0, 0]);
    assert_eq!(line.signals(), 1);
    line.driver.w(0x14, &[0]);
    assert_eq!((line.status(), line.read_isr()), (0, 0), "a reset lowers the line");
}

#[test]
fn a_frame_for_the_guest_raises_the_line() {
    let mut line = Line::new();
    line.driver.describe(crate::driver::RX, 0, crate::driver::buffer(0), 2048, crate::driver::WRITE, 0);
    line.driver.offer(crate::driver::RX, 0);
    line.driver.device.rx_push(&[&[0; 60]], false).expect("room");
    line.driver.device.flush_interrupts();
    assert_eq!((line.signals(), line.read_isr()), (1, 1));
}
