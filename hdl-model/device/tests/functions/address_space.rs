//! A client's memory and the engine's: neither waits for the other, and a client uses up its own share only.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use culvert_device::dma::{MAX_REGIONS, Memory};
use culvert_device::vfio_user::DmaRegion;
use culvert_virtio::MAX_MAPPINGS;
use rustix::io::Errno;

use crate::fuse::{FLUSH, FuseFile, READ, STATFS};
use crate::memory::IOVA;

const LIMIT: Duration = Duration::from_secs(20);

fn memfd(len: u64) -> OwnedFd {
    let fd = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, len).unwrap();
    fd
}

fn region(iova: u64, size: u64) -> DmaRegion {
    DmaRegion { iova, size, offset: 0, read: true, write: true }
}

#[test]
fn a_view_that_lasts_holds_up_neither_its_client_nor_other_views() {
    let memory = Arc::new(Memory::new());
    memory.map(region(IOVA, 0x1000), Some(memfd(0x1000))).unwrap();
    let view = memory.view();
    let (done, wait) = mpsc::channel();
    let client = Arc::clone(&memory);
    std::thread::spawn(move || {
        let mapped = client.map(region(IOVA + 0x1000, 0x1000), Some(memfd(0x1000)));
        let seen = client.view().contains(IOVA, 0x2000);
        let begin = Instant::now();
        let unmapped = client.unmap(IOVA, 0x1000);
        done.send((mapped, seen, unmapped, begin.elapsed())).unwrap();
    });
    let (mapped, seen, unmapped, took) =
        wait.recv_timeout(LIMIT).expect("the client waits for a second at most");
    assert_eq!((mapped, seen), (Ok(()), true));
    assert_eq!(unmapped, Err(Errno::BUSY), "an access may still be under way");
    assert!(took >= Duration::from_millis(900));
    // What the view could reach it still reaches; others do not.
    view.write(IOVA, &[1; 16]).unwrap();
    assert!(!memory.view().contains(IOVA, 1));
    drop(view);
    assert_eq!(memory.unmap(IOVA + 0x1000, 0x1000), Ok(0x1000));
}

#[test]
fn changes_under_traffic_are_seen_whole() {
    let memory = Arc::new(Memory::new());
    memory.map(region(IOVA, 0x1000), Some(memfd(0x1000))).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let view = memory.view();
                    view.write(IOVA, &[1; 16]).expect("mapped all the time");
                    // Both halves of a range come and go together.
                    assert_eq!(view.contains(IOVA + 0x1000, 1), view.contains(IOVA + 0x2000, 1));
                }
            });
        }
        for _ in 0..2000 {
            memory.map(region(IOVA + 0x1000, 0x2000), Some(memfd(0x2000))).unwrap();
            assert_eq!(memory.unmap(IOVA + 0x1000, 0x2000), Ok(0x2000));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_file_on_fuse_is_refused_without_a_question_to_its_server() {
    let Some(fuse) = FuseFile::open(&[STATFS, READ, FLUSH]) else { return };
    let memory = Memory::new();
    let (done, wait) = mpsc::channel();
    std::thread::scope(|scope| {
        let (memory, file) = (&memory, fuse.file.try_clone().unwrap());
        scope.spawn(move || done.send(memory.map(region(IOVA, 0x1000), Some(file))));
        // The client's thread hangs in closing the file; the engine's does not.
        let end = Instant::now() + LIMIT;
        while fuse.held.load(Ordering::Acquire) == 0 && wait.try_recv().is_err() {
            assert!(Instant::now() < end);
            assert!(!memory.view().contains(IOVA, 1));
            std::thread::sleep(Duration::from_millis(1));
        }
        (0..1000).for_each(|_| assert!(!memory.view().contains(IOVA, 1)));
        drop(fuse);
    });
    assert_eq!(wait.try_recv(), Ok(Err(Errno::INVAL)));
    assert!(!memory.view().contains(IOVA, 1));
}

#[test]
fn one_client_does_not_use_up_the_mappings_of_others() {
    let (a, b) = (Memory::new(), Memory::new());
    let mut mapped = 0;
    let error = loop {
        match a.map(region(IOVA + mapped * 0x1000, 0x1000), Some(memfd(0x1000))) {
            Ok(()) => mapped += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((mapped, error), (MAX_MAPPINGS as u64, Errno::NOSPC));
    assert_eq!(b.map(region(IOVA, 0x1000), Some(memfd(0x1000))), Ok(()));
    // All of it comes back.
    assert_eq!(a.unmap_all(), Ok(mapped * 0x1000));
    assert_eq!(a.map(region(IOVA, 0x1000), Some(memfd(0x1000))), Ok(()));
}

#[test]
fn sparse_files_do_not_use_up_the_address_space() {
    let (a, b) = (Memory::new(), Memory::new());
    let files: Vec<OwnedFd> = (0..4).map(|_| memfd(1 << 46)).collect();
    let used = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmSize:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    };
    let before = used();
    for n in 0..MAX_MAPPINGS as u64 + 100 {
        let file = files[n as usize % files.len()].try_clone().unwrap();
        let offset = (n + 1) << 38;
        let _refused = a.map(DmaRegion { offset, ..region(IOVA + n * 0x1000, 0x1000) }, Some(file));
    }
    assert!(used() - before < 1 << 30, "only the ranges are mapped");
    assert_eq!(b.map(region(IOVA, 64 << 20), Some(memfd(64 << 20))), Ok(()));
    // A range longer than a client's share.
    assert_eq!(b.map(region(1 << 47, 1 << 42), Some(memfd(1 << 42))), Err(Errno::NOSPC));
    assert_eq!(b.map(region(1 << 47, 1 << 40), Some(memfd(1 << 40))), Ok(()), "a VM of 1 TiB");
}

#[test]
fn ranges_without_files_are_limited() {
    let memory = Memory::new();
    for n in 0..MAX_REGIONS as u64 {
        memory.map(region(n * 0x1000, 0x1000), None).unwrap();
    }
    assert_eq!(memory.map(region(1 << 40, 0x1000), None), Err(Errno::NOSPC));
    assert_eq!(memory.unmap_all(), Ok(MAX_REGIONS as u64 * 0x1000));
}
