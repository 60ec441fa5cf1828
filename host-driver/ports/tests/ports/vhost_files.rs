//! VMMs that misuse the files they share with a port: no thread that others wait for waits for them.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::mpsc;

use culvert_switch::SwitchPort as _;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use vmm_sys_util::eventfd::EventFd;

use crate::frames::numbered;
use crate::namespace::TIMEOUT;
use crate::vhost_vm::Vm;

/// Does what a forwarding thread would do, on a thread that may hang: the test ends in time all the same.
fn within_limit<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    wait.recv_timeout(TIMEOUT).expect("the forwarding thread waits for nobody")
}

/// Makes whoever reads or writes an eventfd wait: its file is the same in all processes that share it.
fn make_blocking(event: &EventFd) -> OwnedFd {
    let this = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let fd = pidfd_getfd(this, event.as_raw_fd(), PidfdGetfdFlags::empty()).unwrap();
    let flags = fcntl_getfl(&fd).unwrap();
    fcntl_setfl(&fd, flags - OFlags::NONBLOCK).unwrap();
    fd
}

#[test]
fn a_call_eventfd_that_is_full_and_blocks_stops_nobody() {
    let (mut vm, mut other) = (Vm::new(2, 0), Vm::new(1, 0));
    for ring in &vm.guest.rings {
        // The VMM fills it after the port has taken it.
        let _signals = ring.call.read();
        let call = make_blocking(&ring.call);
        rustix::io::write(&call, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    }
    within_limit(move || {
        for round in 0..200 {
            let frames = numbered(round..round + 1, 100);
            vm.guest.send(&frames[0]);
            assert_eq!(vm.host.receive(), frames);
            assert_eq!(vm.host.send(&frames).packets, 1);
            assert!((0..4).step_by(2).any(|n| !vm.guest.receive(n).is_empty()));
            other.works();
        }
        // After the VMM's death, too: its vrings stop, and the port serves the next one.
        drop(vm.frontend);
        crate::namespace::wait_until("the connection ends", || !vm.host.port.link());
        other.works();
    });
}

#[test]
fn kick_eventfds_that_are_emptied_by_their_vmm_stop_nobody() {
    let (mut vm, mut other) = (Vm::new(1, 0), Vm::new(1, 0));
    let kick = vm.guest.rings[1].kick.try_clone().unwrap();
    make_blocking(&kick);
    within_limit(move || {
        for _ in 0..100 {
            vm.host.port.arm();
            kick.write(1).unwrap();
            // Empty when the port looks at it, and a read of it would wait.
            kick.read().unwrap();
            vm.host.port.arm();
            other.works();
        }
        vm.works();
    });
}
