//! Another implementation of the protocol's client: the crate `vfio_user`.

use std::os::fd::{AsFd, AsRawFd};

use culvert_device::function::Vf;
use culvert_device::virtio::{Notifier, VfConfig};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::driver::MAC;
use crate::memory::{GuestMemory, IOVA};

fn u64_at(client: &mut vfio_user::Client, offset: u64, len: usize) -> u64 {
    let mut bytes = [0; 8];
    client.region_read(0, offset, &mut bytes[..len]).expect("read");
    u64::from_le_bytes(bytes)
}

#[test]
fn a_foreign_client_drives_the_device() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("vf");
    let notifier = Notifier::new().expect("eventfd");
    let vf = Vf::start(&path, VfConfig::new(MAC, 1500), notifier.clone()).expect("server");
    let mut client = vfio_user::Client::new(&path).expect("connect");
    assert_eq!(client.region(0).map(|region| region.size), Some(0x4000));
    assert_eq!(client.region(7).map(|region| region.size), Some(4096));
    assert_eq!(client.get_irq_info(2).expect("irq info").count, 4);
    let intx = client.get_irq_info(0).expect("irq info");
    assert_eq!((intx.count, intx.flags), (1, 7), "by eventfd, maskable, masks itself");

    let mut ids = [0; 4];
    client.region_read(7, 0, &mut ids).expect("configuration space");
    assert_eq!(ids, [0xf4, 0x1a, 0x41, 0x10]);
    client.region_write(7, 4, &[6, 0]).expect("command register");

    let memory = GuestMemory::new(1 << 20);
    client.dma_map(0, IOVA, 1 << 20, memory.file.as_raw_fd()).expect("map");
    memory.write(0x800, b"culvert");
    let mut bytes = [0; 7];
    vf.device().memory().view().read(IOVA + 0x800, &mut bytes).expect("read");
    assert_eq!(&bytes, b"culvert");

    let events: Vec<_> = (0..4).map(|_| eventfd(0, EventfdFlags::CLOEXEC).expect("eventfd")).collect();
    let raw: Vec<i32> = events.iter().map(|event| event.as_raw_fd()).collect();
    client.set_irqs(2, 4 | 32, 0, 4, &raw).expect("four eventfds");
    vf.device().endpoint().interrupt(3);
    let mut fds = [PollFd::new(&events[3], PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&Timespec { tv_sec: 5, tv_nsec: 0 })), Ok(1));

    // The virtio handshake of a driver that takes what is offered.
    for status in [0u8, 1, 3] {
        client.region_write(0, 0x14, &[status]).expect("status");
    }
    let low = u64_at(&mut client, 4, 4);
    client.region_write(0, 0, &1u32.to_le_bytes()).expect("select");
    assert_eq!(u64_at(&mut client, 4, 4), 3, "VERSION_1 and ACCESS_PLATFORM");
    for (select, half) in [(0u32, low as u32), (1, 3)] {
        client.region_write(0, 8, &select.to_le_bytes()).expect("select");
        client.region_write(0, 0xc, &half.to_le_bytes()).expect("features");
    }
    client.region_write(0, 0x14, &[0xb]).expect("status");
    assert_eq!(u64_at(&mut client, 0x14, 1), 0xb);
    assert_eq!(u64_at(&mut client, 0x12, 2), 3, "queues");

    notifier.clear();
    client.region_write(0, 0x3004, &1u16.to_le_bytes()).expect("kick");
    let borrowed = notifier.as_fd();
    let mut fds = [PollFd::from_borrowed_fd(borrowed, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&Timespec { tv_sec: 5, tv_nsec: 0 })), Ok(1), "the engine is woken");

    client.reset().expect("reset");
    assert_eq!(u64_at(&mut client, 0x14, 1), 0);
    client.dma_unmap(IOVA, 1 << 20).expect("unmap");
    assert!(!vf.device().memory().view().contains(IOVA, 1));
}
