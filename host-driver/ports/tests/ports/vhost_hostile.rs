//! Hostile guests and VMMs: each is stopped with a reason, and other guests are not affected.

use std::fs::File;
use std::io::{IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use culvert_ports::{VhostUser, VhostUserCounters, VhostUserDrop};
use culvert_switch::SwitchPort;
use culvert_virtio::{MemoryFault, RingFault};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};

use crate::frames::{datagram, numbered};
use crate::namespace::wait_until;
use crate::test_port::TestPort;
use crate::vhost_guest::{CSUM, Guest, HEADER, INDIRECT, MERGEABLE, NEXT, SIZE, TABLE, WRITE, descriptor};
use crate::vhost_vm::{Vm, while_served};

fn counters(vm: &Vm) -> VhostUserCounters {
    vm.host.port.status().counters()
}

/// How often each fault was counted.
fn only(fault: RingFault) -> [u64; RingFault::COUNT] {
    RingFault::ALL.map(|other| u64::from(other == fault))
}

/// Checks that the port has stopped, and that it serves the next guest.
fn stopped(mut vm: Vm, fault: RingFault, other: &mut Vm) {
    assert_eq!(counters(&vm).faults, only(fault), "{fault}");
    assert!(!vm.host.port.link() && vm.host.receive().is_empty());
    assert_eq!(vm.host.send(&numbered(0..5, 60)).down, 5);
    assert!(vm.host.port.arm(), "nothing more is looked for");
    assert_eq!(vm.host.pool.free(), 4096 + 32);
    other.works();
    drop(vm.frontend);
    vm.guest = Guest::new(1, 0);
    let (guest, path) = (&vm.guest, &vm.path);
    vm.frontend = while_served(&mut vm.host, || guest.connect(path));
    vm.works();
}

/// Checks that a fault in a guest's rings stops the port, and that the frame before the fault is received.
fn stops(features: u64, fault: RingFault, spoil: impl FnOnce(&mut Guest)) {
    let (mut vm, mut other) = (Vm::new(1, features), Vm::new(1, 0));
    let before = datagram(9, 1, 60);
    vm.guest.send(&before);
    spoil(&mut vm.guest);
    assert_eq!(vm.host.receive(), [before]);
    vm.host.send(&numbered(0..1, 1900));
    stopped(vm, fault, &mut other);
}

#[test]
fn an_available_index_that_jumps() {
    for (ring, jump) in [(1, SIZE + 1), (1, u16::MAX), (0, 1), (0, u16::MAX - SIZE)] {
        let (mut vm, mut other) = (Vm::new(1, 0), Vm::new(1, 0));
        vm.guest.set_available(ring, vm.guest.rings[ring].next.wrapping_add(jump));
        assert_eq!(vm.host.receive(), [[0; 0]; 0]);
        vm.host.send(&numbered(0..1, 60));
        stopped(vm, RingFault::AvailableIndex, &mut other);
    }
}

#[test]
fn descriptors_that_do_not_exist() {
    stops(0, RingFault::DescriptorIndex, |guest| guest.make_available(1, &[SIZE]));
    stops(0, RingFault::DescriptorIndex, |guest| {
        guest.describe(1, 5, guest.buffer(1, 5), 100, NEXT, u16::MAX);
        guest.make_available(1, &[5]);
    });
}

#[test]
fn chains_without_an_end() {
    stops(0, RingFault::Loop, |guest| {
        guest.describe(1, 5, guest.buffer(1, 5), 1, NEXT, 6);
        guest.describe(1, 6, guest.buffer(1, 5), 1, NEXT, 5);
        guest.make_available(1, &[5]);
    });
    // A receive chain that links to itself.
    stops(0, RingFault::Loop, |guest| guest.describe(0, 0, guest.buffer(0, 0), 2048, NEXT | WRITE, 0));
    // Longer than the ring, by way of a table.
    stops(INDIRECT, RingFault::Loop, |guest| {
        let (first, at) = (guest.buffer(1, 200), guest.buffer_at(1, 100));
        let entries = (1..301).map(|next| descriptor(first, 1, if next < 300 { NEXT } else { 0 }, next));
        guest.buffer_area.write(at, &entries.collect::<Vec<_>>().concat());
        guest.describe(1, 5, guest.buffer(1, 100), 300 * 16, TABLE, 0);
        guest.make_available(1, &[5]);
    });
}

#[test]
fn tables_of_descriptors_that_are_wrong() {
    let table = |features, len, flags, entry: Vec<u8>| {
        stops(features, RingFault::Indirect, move |guest| {
            guest.buffer_area.write(guest.buffer_at(1, 100), &entry);
            guest.describe(1, 5, guest.buffer(1, 100), len, flags, 6);
            guest.make_available(1, &[5]);
        });
    };
    let good = descriptor(1 << 32, 100, 0, 0);
    table(0, 16, TABLE, good.clone());
    table(INDIRECT, 0, TABLE, good.clone());
    table(INDIRECT, 17, TABLE, good.clone());
    table(INDIRECT, 16, TABLE | NEXT, good);
    table(INDIRECT, 16, TABLE, descriptor(1 << 32, 16, TABLE, 0));
    stops(INDIRECT, RingFault::Memory(MemoryFault::Unmapped), |guest| {
        guest.describe(1, 5, u64::MAX - 7, 32, TABLE, 0);
        guest.make_available(1, &[5]);
    });
    stops(INDIRECT, RingFault::DescriptorIndex, |guest| {
        guest.buffer_area.write(guest.buffer_at(1, 100), &descriptor(1 << 32, 1, NEXT, 1));
        guest.describe(1, 5, guest.buffer(1, 100), 16, TABLE, 0);
        guest.make_available(1, &[5]);
    });
}

#[test]
fn buffers_in_the_wrong_order_or_place() {
    stops(0, RingFault::Order, |guest| {
        guest.describe(1, 5, guest.buffer(1, 5), 100, NEXT | WRITE, 6);
        guest.describe(1, 6, guest.buffer(1, 6), 100, 0, 0);
        guest.make_available(1, &[5]);
    });
    for address in [0, 0xdead_0000, u64::MAX - 50, (1 << 32) - 8, (1 << 32) + (1 << 20) - 50] {
        stops(0, RingFault::Memory(MemoryFault::Unmapped), |guest| {
            guest.describe(1, 5, address, 100, 0, 0);
            guest.make_available(1, &[5]);
        });
        stops(0, RingFault::Memory(MemoryFault::Unmapped), |guest| {
            guest.describe(0, 0, address, 2048, WRITE, 0);
        });
    }
    // Too short for a header, or nothing to write to at all.
    stops(0, RingFault::ShortBuffer, |guest| guest.describe(0, 0, guest.buffer(0, 0), 11, WRITE, 0));
    stops(MERGEABLE, RingFault::ShortBuffer, |guest| {
        guest.describe(0, 0, guest.buffer(0, 0), 2048, 0, 0);
    });
}

#[test]
fn invalid_frames_are_dropped_one_by_one() {
    let mut vm = Vm::new(1, CSUM);
    let frame = datagram(9, 1, 60);
    let header = |bytes: [u8; 10]| <[u8; HEADER]>::try_from([&bytes[..], &[0; 2]].concat()).unwrap();
    let wrong = [
        // Checksum start behind the frame's end, field behind it, and an offset that wraps.
        [1, 0, 0, 0, 0, 0, 200, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 34, 0, 68, 0],
        [1, 0, 0, 0, 0, 0, 255, 255, 255, 255],
        // An unknown GSO type, and those that were not negotiated.
        [1, 3, 54, 0, 120, 5, 34, 0, 16, 0],
        [1, 1, 54, 0, 120, 5, 34, 0, 16, 0],
        [1, 4, 54, 0, 120, 5, 34, 0, 16, 0],
        [1, 5, 54, 0, 120, 5, 34, 0, 16, 0],
    ];
    for bytes in wrong {
        assert!(vm.guest.send_in(1, header(bytes), &frame, 2048));
    }
    assert!(vm.guest.send_in(1, [0; HEADER], &frame[..13], 2048));
    assert!(vm.guest.send_in(1, [0; HEADER], &vec![0; (1 << 16) + 1], 2048));
    vm.guest.send(&frame);
    assert_eq!(vm.host.receive(), [frame]);
    let mut drops = [0; VhostUserDrop::COUNT];
    drops[VhostUserDrop::BadOffload as usize] = wrong.len() as u64;
    drops[VhostUserDrop::Truncated as usize] = 1;
    drops[VhostUserDrop::Oversize as usize] = 1;
    assert_eq!((counters(&vm).drops, vm.host.port.take_rx_drops()), (drops, wrong.len() as u64 + 2));
    vm.works();
    // Without VIRTIO_NET_F_CSUM a partial checksum is refused.
    let mut vm = Vm::new(1, 0);
    assert!(vm.guest.send_in(1, header([1, 0, 0, 0, 0, 0, 34, 0, 6, 0]), &datagram(9, 1, 60), 2048));
    assert!(vm.host.receive().is_empty() && counters(&vm).drops[VhostUserDrop::BadOffload as usize] == 1);
}

#[test]
fn a_memory_file_that_shrinks() {
    for buffers in [true, false] {
        let (mut vm, mut other) = (Vm::new(1, 0), Vm::new(1, 0));
        vm.works();
        vm.guest.send(&datagram(9, 1, 60));
        let area = if buffers { &vm.guest.buffer_area } else { &vm.guest.ring_area };
        ftruncate(&area.file, 0).unwrap();
        assert!(vm.host.receive().is_empty());
        stopped(vm, RingFault::Memory(MemoryFault::Shrunk), &mut other);
    }
    // The same while a frame is put into it.
    let (mut vm, mut other) = (Vm::new(1, 0), Vm::new(1, 0));
    ftruncate(&vm.guest.buffer_area.file, 0).unwrap();
    assert_eq!(vm.host.send(&numbered(0..3, 60)).down, 3);
    stopped(vm, RingFault::Memory(MemoryFault::Shrunk), &mut other);
}

#[test]
fn rings_that_change_while_they_are_read() {
    for features in [0, MERGEABLE | INDIRECT | CSUM] {
        let (mut vm, mut other) = (Vm::new(1, features), Vm::new(1, 0));
        let mut random = Random(features);
        let stop = AtomicBool::new(false);
        for round in 0..40 {
            let area = &vm.guest.ring_area;
            std::thread::scope(|scope| {
                let random = &mut random;
                let stopped = &stop;
                scope.spawn(move || {
                    while !stopped.load(Ordering::Relaxed) {
                        // Where addresses, lengths, flags and indices lie, with numbers that are often nearly right.
                        let at = (random.next() % (2 * 0x8000 / 2)) as usize * 2;
                        let word = [
                            random.next() % 4,
                            random.next() % 256,
                            random.next() % 4096,
                            random.next() % 65536,
                        ][(random.next() % 4) as usize];
                        area.store(at, word as u16);
                    }
                });
                for _ in 0..50 {
                    vm.host.receive();
                    vm.host.send(&numbered(0..8, 60 + round * 40));
                    vm.host.port.arm();
                }
                stop.store(true, Ordering::Relaxed);
            });
            stop.store(false, Ordering::Relaxed);
            assert_eq!(vm.host.pool.free(), 4096 + 32, "no buffer is lost");
            other.works();
            drop(vm.frontend);
            vm.guest = Guest::new(1, features);
            let (guest, path) = (&vm.guest, &vm.path);
            vm.frontend = while_served(&mut vm.host, || guest.connect(path));
            vm.works();
        }
        assert!(counters(&vm).faults.iter().sum::<u64>() > 0, "some of it was seen");
    }
}

#[test]
fn invalid_memory_tables_are_refused() {
    let region = |at: u64, file: &File, len: u64| VhostUserMemoryRegionInfo {
        guest_phys_addr: at,
        memory_size: len,
        userspace_addr: 0,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    };
    let memory = |len| {
        let file = File::from(memfd_create("memory", MemfdFlags::CLOEXEC).unwrap());
        ftruncate(&file, len).unwrap();
        file
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm");
    let mut host = TestPort::new(VhostUser::open(&path, 1).unwrap());
    let mut set = |regions: &[(u64, &File, u64)]| {
        let regions: Vec<_> = regions.iter().map(|(at, file, len)| region(*at, file, *len)).collect();
        while_served(&mut host, || Guest::new(1, 0).negotiate(&path).set_mem_table(&regions).is_ok())
    };
    let (short, vast) = (memory(4096), memory(1 << 43));
    assert!(set(&[(0, &short, 4096), (4096, &short, 4096), (1 << 40, &vast, 1 << 40)]));
    assert!(!set(&[(0, &short, 8192)]));
    assert!(!set(&[(0, &vast, 1 << 43)]));
    assert!(!set(&[(0, &vast, u64::MAX)]));
    assert!(!set(&[(0, &short, 4096), (4095, &short, 4096)]), "regions overlap");
    assert!(!set(&[(0, &File::open("/dev/zero").unwrap(), 4096)]));
    assert!(!set(&[(0, &File::open("/proc/self/exe").unwrap(), 4096)]));
    // One that is right but for its file system, where the program's own is another.
    let folder = std::env::current_exe().unwrap();
    if let Ok(file) = tempfile::tempfile_in(folder.parent().unwrap()) {
        ftruncate(&file, 4096).unwrap();
        let tmpfs = rustix::fs::fstatfs(&file).unwrap().f_type == 0x0102_1994;
        assert_eq!(set(&[(0, &file, 4096)]), tmpfs);
    }
}

/// Checks that the port refuses a request on an otherwise valid connection, and closes it.
fn refused(request: impl FnOnce(&Guest, &mut Frontend) -> bool + Send) {
    let mut vm = Vm::new(1, 0);
    assert!(vm.serve(request), "the request fails");
    vm.wait_disconnected();
    assert_eq!(counters(&vm).refused, 1);
    drop(vm.frontend);
    vm.guest = Guest::new(1, 0);
    let (guest, path) = (&vm.guest, &vm.path);
    vm.frontend = while_served(&mut vm.host, || guest.connect(path));
    vm.works();
}

#[test]
fn invalid_vring_settings_are_refused() {
    refused(|_, frontend| frontend.set_vring_num(1, 255).is_err());
    refused(|_, frontend| frontend.set_vring_num(1, 0).is_err());
    refused(|_, frontend| frontend.set_vring_num(1, 0x8000).is_err());
    refused(|_, frontend| frontend.set_vring_num(2, 256).is_err());
    let addresses = |change: fn(&mut VringConfigData)| {
        refused(move |guest, frontend| {
            let mut addresses = guest.addresses(1);
            change(&mut addresses);
            frontend.set_vring_addr(1, &addresses).is_err()
        });
    };
    addresses(|addresses| addresses.desc_table_addr += 8);
    addresses(|addresses| addresses.avail_ring_addr += 1);
    addresses(|addresses| addresses.used_ring_addr += 2);
    addresses(|addresses| addresses.used_ring_addr = addresses.desc_table_addr + 4092);
    addresses(|addresses| addresses.avail_ring_addr = addresses.used_ring_addr);
    addresses(|addresses| addresses.desc_table_addr = 0);
    addresses(|addresses| addresses.used_ring_addr = u64::MAX - 3);
    addresses(|addresses| addresses.avail_ring_addr += 0xc000);
}

#[test]
fn invalid_requests_close_the_connection() {
    refused(|_, frontend| frontend.set_features(1 << 40 | 1 << 32).is_err());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm");
    let port = VhostUser::open(&path, 1).unwrap();
    let (status, mut host) = (port.status(), TestPort::new(port));
    let last = |connections: u64, host: &mut TestPort<VhostUser>| {
        wait_until("the next connection can come", || {
            host.port.link();
            let now = status.counters();
            now.connections == connections && !now.connected
        });
    };
    // Files that are not eventfds, a missing file, and more than one.
    let (null, file) = (File::open("/dev/null").unwrap(), tempfile::tempfile().unwrap());
    let event = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let event = event.as_fd();
    let sets = [vec![null.as_fd()], vec![file.as_fd()], vec![], vec![event, event]];
    let mut connections = 0;
    for code in 12..15 {
        for files in &sets {
            let stream = UnixStream::connect(&path).unwrap();
            send_request(&stream, code, 1, files);
            connections += 1;
            last(connections, &mut host);
        }
    }
    assert_eq!(status.counters().refused, connections);
    let mut random = Random(1);
    for code in 0..64u32 {
        let mut stream = UnixStream::connect(&path).unwrap();
        let len = (random.next() % 100) as u32;
        let mut bytes = [code.to_ne_bytes(), 1u32.to_ne_bytes(), len.to_ne_bytes()].concat();
        bytes.extend((0..len).map(|_| random.next() as u8));
        // Some are cut short.
        bytes.truncate(bytes.len() - (code as usize / 8).min(bytes.len() - 1));
        let _sent = stream.write_all(&bytes);
        drop(stream);
        connections += 1;
        last(connections, &mut host);
    }
    let guest = Guest::new(1, 0);
    let pairs = while_served(&mut host, || guest.negotiate(&path).get_queue_num().unwrap());
    assert_eq!(pairs, 1);
}

/// Sends a request with any code, body and files.
fn send_request(stream: &UnixStream, code: u32, body: u64, files: &[BorrowedFd<'_>]) {
    let header = [code, 1, 8].map(u32::to_ne_bytes).concat();
    let bytes = [&header[..], &body.to_ne_bytes()].concat();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    assert!(files.is_empty() || beside.push(SendAncillaryMessage::ScmRights(files)));
    let sent = sendmsg(stream, &[IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL).unwrap();
    assert_eq!(sent, bytes.len());
}

/// Numbers without any pattern.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 29
    }
}
