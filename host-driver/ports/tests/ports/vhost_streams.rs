//! Two kernels exchange streams through the vrings of a guest. The guest's driver copies between a TAP and the vrings, with the
//! kernel's `virtio_net_hdr` one way and the port's the other way. So both kernels check the offloads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use culvert_ports::{AfPacket, AfPacketOptions, Tap, VhostUser};
use culvert_switch::SwitchPort;
use culvert_virtio::RingFault;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};
use rustix::time::Timespec;

use crate::namespace::{Namespace, can_use_taps};
use crate::port_bridge::{Encapsulation, PortBridge};
use crate::streams::{check_counters, talk};
use crate::test_port::TestPort;
use crate::vhost_guest::{
    CSUM, EVENT_IDX, GUEST_CSUM, GUEST_TSO, Guest, HEADER, HOST_TSO, INDIRECT, MERGEABLE, USO,
};
use crate::vhost_vm::while_served;

/// A guest whose kernel is a namespace's.
struct Driver {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Driver {
    /// Moves frames between rings and TAP.
    fn start(mut guest: Guest, tap: Tap) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; HEADER + (1 << 16)];
            while !stopped.load(Ordering::Acquire) {
                let mut idle = true;
                for pair in 0..guest.rings.len() / 2 {
                    for (header, frame) in guest.receive(2 * pair) {
                        // The kernel refuses an invalid header.
                        let whole = [&header[..], &frame].concat();
                        assert_eq!(write(tap.fd(), &whole).unwrap(), whole.len());
                        idle = false;
                    }
                }
                let n = match read(tap.fd(), &mut buffer) {
                    Ok(n) => n,
                    Err(error) => {
                        assert_eq!(error, Errno::AGAIN);
                        if idle {
                            let mut fds = [PollFd::from_borrowed_fd(tap.fd(), PollFlags::IN)];
                            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 200_000 })).unwrap();
                        }
                        continue;
                    }
                };
                // All of a flow by the same ring: here, all of a family.
                let ring = 1 + 2 * (usize::from(buffer[HEADER + 12] == 8) % (guest.rings.len() / 2));
                let header = *buffer.first_chunk().unwrap();
                while !guest.send_in(ring, header, &buffer[HEADER..n], 1500)
                    && !stopped.load(Ordering::Acquire)
                {
                    std::thread::yield_now();
                }
            }
        });
        Driver { stop, thread }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap();
    }
}

fn two_kernels(pairs: usize, features: u64) {
    if !can_use_taps() {
        return;
    }
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect("wire", &there, "far");
    let tap = here.within(move || Tap::open("vm", 1400, None).unwrap());
    let wire = here.within(|| AfPacket::open("wire", &AfPacketOptions::default()).unwrap());
    here.run("ip addr add 10.0.0.1/24 dev vm");
    here.run("ip addr add fd00::1/64 dev vm");
    there.run("ip addr add 10.0.0.2/24 dev far");
    there.run("ip addr add fd00::2/64 dev far");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm");
    let mut host = TestPort::new(VhostUser::open(&path, pairs).unwrap());
    let guest = Guest::new(pairs, features);
    let frontend = while_served(&mut host, || guest.connect(&path));
    let status = host.port.status();
    let driver = Driver::start(guest, tap);
    let bridge = PortBridge::new(host.port, wire, Encapsulation::None);
    talk(&here, &there);
    let [out, mut back] = bridge.end();
    driver.end();
    // A ring has buffers for eight large frames: TCP sends again what found none.
    back.sent.full = 0;
    check_counters([out, back], true);
    assert_eq!(status.counters().faults, [0; RingFault::COUNT]);
    drop(frontend);
}

const OFFLOADS: u64 = CSUM | GUEST_CSUM | HOST_TSO | GUEST_TSO | MERGEABLE;

#[test]
fn two_kernels_talk_through_a_guests_rings() {
    two_kernels(1, OFFLOADS);
}

#[test]
fn two_kernels_talk_through_many_rings_with_event_indices_and_large_datagrams() {
    two_kernels(2, OFFLOADS | EVENT_IDX | INDIRECT | USO);
}
