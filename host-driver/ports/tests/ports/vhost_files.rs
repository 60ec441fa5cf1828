//! VMMs that misuse the files they share with a port: no thread that others wait for waits for them.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use culvert_ports::VhostUser;
use culvert_switch::SwitchPort as _;
use culvert_virtio::MAX_MAPPED;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use vhost::{VhostBackend as _, VhostUserMemoryRegionInfo};
use vmm_sys_util::eventfd::EventFd;

use crate::frames::numbered;
use crate::fuse::{FLUSH, FuseFile, READ, STATFS};
use crate::namespace::{TIMEOUT, wait_until};
use crate::test_port::TestPort;
use crate::vhost_guest::Guest;
use crate::vhost_vm::{Vm, while_served};

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
        wait_until("the connection ends", || !vm.host.port.link());
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

/// Sends a memory table of one region as a VMM would, without waiting for an answer.
fn send_table(stream: &UnixStream, file: BorrowedFd<'_>) {
    let body = [1u64, 1 << 32, 4096, 0, 0].map(u64::to_ne_bytes).concat();
    let header = [5, 1, body.len() as u32].map(u32::to_ne_bytes).concat();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let files = [file];
    assert!(beside.push(SendAncillaryMessage::ScmRights(&files)));
    let bytes = [header, body].concat();
    assert_eq!(sendmsg(stream, &[IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL), Ok(bytes.len()));
}

#[test]
fn memory_on_fuse_is_refused_though_its_server_does_not_answer() {
    let Some(fuse) = FuseFile::open(&[STATFS, READ]) else { return };
    let mut vm = Vm::new(1, 0);
    drop(vm.frontend);
    wait_until("the connection ends", || {
        vm.host.port.link();
        !vm.host.port.status().counters().connected
    });
    let stream = UnixStream::connect(&vm.path).unwrap();
    send_table(&stream, fuse.file.as_fd());
    let status = vm.host.port.status();
    wait_until("the connection is closed", || {
        vm.host.port.link();
        status.counters().refused == 1 && !status.counters().connected
    });
    assert_eq!(fuse.held.load(Ordering::Acquire), 0, "its server is asked nothing");
    // The next VMM is served.
    vm.guest = Guest::new(1, 0);
    let (guest, path) = (&vm.guest, &vm.path);
    vm.frontend = while_served(&mut vm.host, || guest.connect(path));
    vm.works();
}

#[test]
fn a_connection_that_hangs_in_a_file_server_holds_neither_port_nor_path() {
    // To close a file on FUSE asks its server, too.
    let Some(mut fuse) = FuseFile::open(&[FLUSH, STATFS]) else { return };
    let (mut vm, mut other) = (Vm::new(1, 0), Vm::new(1, 0));
    drop(vm.frontend);
    wait_until("the connection ends", || {
        vm.host.port.link();
        !vm.host.port.status().counters().connected
    });
    let stream = UnixStream::connect(&vm.path).unwrap();
    send_table(&stream, fuse.file.as_fd());
    wait_until("the connection's thread hangs", || {
        vm.host.port.link();
        other.works();
        fuse.held.load(Ordering::Acquire) > 0
    });
    drop(stream);
    // The port is detached, and attached again, while that thread hangs.
    let path = vm.path.clone();
    let mut other = within_limit(move || {
        drop(vm.host.port);
        other.works();
        let mut host = TestPort::new(VhostUser::open(&path, 1).unwrap());
        let guest = Guest::new(1, 0);
        let frontend = while_served(&mut host, || guest.connect(&path));
        assert!(host.port.link());
        drop((frontend, vm.folder));
        other
    });
    other.works();
    fuse.end();
}

#[test]
fn a_port_that_ends_does_not_wait_for_its_vmm() {
    for connected in [true, false] {
        let mut vm = Vm::new(1, 0);
        vm.works();
        // A VMM in the middle of a message, which it never completes.
        let half = UnixStream::connect(&vm.path).unwrap();
        rustix::io::write(&half, &[5; 7]).unwrap();
        if !connected {
            drop(vm.frontend);
        }
        let path = vm.path.clone();
        within_limit(move || drop(vm.host.port));
        assert!(VhostUser::wait_removed(TIMEOUT) && !path.exists());
    }
}

#[test]
fn a_vmm_may_use_up_its_own_share_only() {
    let region = |at: u64, file: &OwnedFd, len: u64| VhostUserMemoryRegionInfo {
        guest_phys_addr: at,
        memory_size: len,
        userspace_addr: 0,
        mmap_offset: at,
        mmap_handle: file.as_raw_fd(),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vm");
    let (mut host, mut other) = (TestPort::new(VhostUser::open(&path, 1).unwrap()), Vm::new(1, 0));
    let vast = rustix::fs::memfd_create("vast", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&vast, 1 << 62).unwrap();
    let frontend = while_served(&mut host, || Guest::new(1, 0).negotiate(&path));
    let mut set = |regions: &[(u64, u64)]| {
        let regions: Vec<_> = regions.iter().map(|(at, len)| region(*at, &vast, *len)).collect();
        while_served(&mut host, || frontend.set_mem_table(&regions).is_ok())
    };
    // A VM of 1 TiB, whose VMM sends its table again for each block that is plugged in.
    assert!(set(&[(0, 1 << 40)]));
    for more in 1..6 {
        assert!(set(&[(0, 1 << 40), (1 << 41, more << 30)]), "{more} GiB more");
    }
    assert!(!set(&[(0, 1 << 40), (1 << 41, MAX_MAPPED - (1 << 40) + 4096)]));
    other.works();
}

#[test]
fn a_vmm_that_reads_no_answer_holds_nobody() {
    let (mut vm, mut other) = (Vm::new(1, 0), Vm::new(1, 0));
    drop(vm.frontend);
    wait_until("the connection ends", || {
        vm.host.port.link();
        !vm.host.port.status().counters().connected
    });
    // GET_FEATURES, until the port's thread waits for room for its answers.
    let stream = UnixStream::connect(&vm.path).unwrap();
    stream.set_nonblocking(true).unwrap();
    let request = [1u32, 1, 0].map(u32::to_ne_bytes).concat();
    let mut refused = 0;
    wait_until("no request is taken any more", || {
        vm.host.port.link();
        refused += 1;
        while rustix::io::write(&stream, &request).is_ok() {
            refused = 0;
        }
        refused > 100
    });
    other.works();
    let path = vm.path.clone();
    within_limit(move || drop(vm.host.port));
    wait_until("the socket is removed", || !path.exists());
    other.works();
}
