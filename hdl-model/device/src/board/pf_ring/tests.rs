//! Rings that a driver places anywhere, and the shares of a queue to the host.

use super::*;
use crate::dma::Memory;
use crate::vfio_user::DmaRegion;

/// Whatever the driver writes into a queue's registers is a ring or none.
#[test]
fn a_ring_lies_within_all_addresses() {
    let len = ring_len(4);
    for base in [0, 64, 1 << 32, (u64::MAX - len) & !63] {
        assert!(Ring::new(base, 4).is_some(), "{base:#x}");
    }
    for base in [!63, u64::MAX - 64 + 1, (u64::MAX - len + 64) & !63, 1, u64::MAX] {
        assert!(Ring::new(base, 4).is_none(), "{base:#x}");
    }
    for size in [0, 3, 13, 31, 32, 63, 64, u32::MAX] {
        assert!(Ring::new(0, size).is_none(), "{size}");
    }
}

#[test]
fn one_vport_leaves_the_others_their_places() {
    let fd = rustix::fs::memfd_create("host", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    rustix::fs::ftruncate(&fd, 0x4000).expect("length");
    let memory = Memory::new();
    let region = DmaRegion { iova: 0x1_0000, size: 0x4000, offset: 0, read: true, write: true };
    memory.map(region, Some(fd)).expect("map");
    let view = memory.view();
    // The host has posted no buffer: everything waits.
    let mut queue = ToHost::new(Ring::new(0x1_0000, 6).expect("ring"));
    let (one, other) = (Owner::Vport(1), Owner::Vport(2));
    while queue.has_room(one) {
        queue.push(&view, Entry::default(), &[&[0; 60]], one).expect("push");
    }
    assert_eq!(queue.held.len(), HELD_SHARE);
    assert!(queue.has_room(other) && queue.has_room(Owner::Vsid(1)));
    queue.push(&view, Entry::default(), &[], other).expect("push");
    // What the host takes makes room again.
    view.store_u32(0x1_0000 + HOST_INDEX, 1).expect("index");
    queue.drain(&view).expect("drain");
    assert!(queue.has_room(one));
    assert_eq!(queue.shares.get(&one), Some(&(HELD_SHARE - 1)));
}
