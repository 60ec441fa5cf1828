//! The core against the firmware in the emulated SoC.

use std::time::Duration;

use culvert_abi::regs::mailbox;
use culvert_abi::soc::Sizes;
use culvert_device::soc::Options;
use culvert_lockstep::core::Core;
use culvert_lockstep::firmware::{FirmwareEngine, Link};
use culvert_lockstep::soc::SocLink;
use culvert_lockstep::{compare, generate};

/// Log2 of the flow records: a small table, so that it overflows.
const FLOWS_LOG2: u32 = 6;

fn options() -> Options {
    Options { flows_log2: FLOWS_LOG2, ..Options::default() }
}

/// The random traces of the other engines, one firmware for all of them: `Configure` empties its tables.
#[test]
fn equal_bytes_verdicts_and_counters() {
    let sizes = Sizes::new(FLOWS_LOG2);
    let steps = generate::random_steps(&mut 7, 12_000);
    let trace = generate::trace(&mut Core::new(&sizes), &steps);
    let mut firmware = FirmwareEngine::new(SocLink::start(options()).expect("the firmware starts"));
    if let Err(difference) = compare(&trace, &mut Core::new(&sizes), &mut firmware) {
        panic!("{difference}");
    }
}

/// No wake-up is lost: requests after pauses in which the firmware sleeps.
#[test]
fn a_sleeping_firmware_wakes() {
    let mut link = SocLink::start(options()).expect("the firmware starts");
    for n in 1..400u32 {
        std::thread::sleep(Duration::from_micros(u64::from(n * 37 % 1500)));
        let mut request = [0; culvert_abi::regs::MBOX_WORDS];
        request[..2].copy_from_slice(&[mailbox::ECHO, n]);
        let reply = link.mailbox(&request).expect("an answer");
        assert_eq!(reply[1], n);
    }
    assert!(link.soc().heartbeat() > 0);
}

/// A damaged image does not run.
#[test]
fn a_damaged_image_is_refused() {
    let mut image = culvert_lockstep::soc::image().expect("the image is built");
    let middle = image.len() / 2;
    image[middle] ^= 1;
    let mut soc = culvert_device::soc::Soc::new(options()).expect("memory for the SoC");
    let error = soc.start(&image).expect_err("its checksum is wrong");
    assert!(error.to_string().contains("Crc"), "{error}");
}

/// After the firmware was killed, its buffers are taken back, and it starts again with another epoch.
#[test]
fn buffers_of_a_killed_firmware_are_taken_back() {
    let mut link = SocLink::start(options()).expect("the firmware starts");
    let soc = link.soc();
    let before = soc.owners().available();
    let pid = soc.process().expect("it runs");
    std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs");
    for _ in 0..500 {
        if !soc.is_running() {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!soc.is_running());
    let buffer = soc.owners().take().expect("a buffer");
    let lost = culvert_abi::soc::Descriptor { buffer, op: 1, port: 3, ..Default::default() };
    assert!(soc.push(&lost), "the ring has room");
    assert_eq!(soc.reclaim(), [3], "the port of the lost packet");
    assert_eq!(soc.owners().available(), before);
    soc.start(&culvert_lockstep::soc::image().expect("the image is built")).expect("it starts again");
    soc.wait_ready(Duration::from_secs(20)).expect("it is ready again");
    assert_eq!(soc.epoch(), 2);
}
