//! Interrupts to clients that do not want to be interrupted: the engine does not wait for them.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use culvert_device::vfio_user::{IrqAction, IrqSet, MSIX_INDEX};
use culvert_device::virtio::VfConfig;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::driver::{Driver, MAC};

/// How long the engine may be silent on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);
/// How long the client tries.
const ATTACK: Duration = Duration::from_secs(5);

fn assign(driver: &Driver, event: OwnedFd) -> Result<(), Errno> {
    let set = IrqSet { index: MSIX_INDEX, start: 0, count: 1, action: IrqAction::Assign(vec![event]) };
    driver.device.endpoint().msix().set(set)
}

/// Waits until the engine has interrupted again, twice: the second time began after the call.
fn goes_on(count: &AtomicU64) {
    let (before, end) = (count.load(Ordering::Relaxed), Instant::now() + LIMIT);
    while count.load(Ordering::Relaxed) < before + 2 {
        assert!(Instant::now() < end, "the engine stands still");
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn an_eventfd_that_its_client_fills_all_the_time_does_not_hold_the_engine() {
    let driver = Arc::new(Driver::bare(VfConfig::new(MAC, 1500)));
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    assign(&driver, event.try_clone().unwrap()).unwrap();
    let (count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let engine = {
        let (driver, count, stop) = (Arc::clone(&driver), Arc::clone(&count), Arc::clone(&stop));
        move || {
            while !stop.load(Ordering::Relaxed) {
                driver.device.endpoint().interrupt(0);
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    std::thread::spawn(engine);
    // Others that write to it race with the engine for the last places in the counter.
    let other = event.try_clone().unwrap();
    std::thread::spawn(move || while rustix::io::write(&other, &1u64.to_ne_bytes()).is_ok() {});
    let (filler, counted, stopped) = (event.try_clone().unwrap(), Arc::clone(&count), Arc::clone(&stop));
    std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            let _taken = rustix::io::read(&filler, &mut [0; 8]);
            let _filled = rustix::io::write(&filler, &(u64::MAX - 300).to_ne_bytes());
            std::thread::sleep(Duration::from_millis(1));
            // Once it has caught the engine it does not let go.
            let before = counted.load(Ordering::Relaxed);
            while counted.load(Ordering::Relaxed) == before && !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    });
    let end = Instant::now() + ATTACK;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
        goes_on(&count);
    }
    // The client's own thread reaches the vectors, too.
    driver.device.endpoint().msix().mask_function(true);
    goes_on(&count);
    stop.store(true, Ordering::Relaxed);
}

#[test]
fn an_eventfd_that_is_full_is_still_full_after_an_interrupt() {
    let driver = Driver::bare(VfConfig::new(MAC, 1500));
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    assign(&driver, event.try_clone().unwrap()).unwrap();
    rustix::io::write(&event, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    (0..3).for_each(|_| driver.device.endpoint().interrupt(0));
    let mut bytes = [0; 8];
    rustix::io::read(&event, &mut bytes).unwrap();
    assert!(u64::from_ne_bytes(bytes) >= u64::MAX - 1);
}

#[test]
fn files_that_are_not_eventfds_are_refused() {
    let driver = Driver::bare(VfConfig::new(MAC, 1500));
    let (pipe, _writer) = rustix::pipe::pipe().unwrap();
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let null = File::options().write(true).open("/dev/null").unwrap();
    let files: [OwnedFd; 3] = [pipe, socket.into(), null.into()];
    for file in files {
        assert_eq!(assign(&driver, file), Err(Errno::INVAL));
    }
    // The vector still has its eventfd of before.
    driver.device.endpoint().interrupt(0);
    assert_eq!(driver.take_interrupts(0), 1);
}
