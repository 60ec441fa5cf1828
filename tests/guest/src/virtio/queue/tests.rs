//! The ring against a device played on the same memory, written from the specification's layout.

use culvert_pci::DmaBuffer;

use super::*;

const SIZE: u16 = 8;

/// The device's side: addresses from the driver, its own indices.
struct DeviceSide {
    memory: DmaBuffer,
    desc: usize,
    avail: usize,
    used: usize,
    seen: u16,
    done: u16,
}

impl DeviceSide {
    fn u16(&self, at: usize) -> u16 {
        u16::from_le(self.memory.atomic_u16(at).load(Ordering::Acquire))
    }

    fn set16(&self, at: usize, value: u16) {
        self.memory.atomic_u16(at).store(value.to_le(), Ordering::Release);
    }

    /// The next available chain's first descriptor: number, address, length, flags.
    fn next(&mut self) -> Option<(u16, u64, u32, u16)> {
        if self.u16(self.avail + 2) == self.seen {
            return None;
        }
        let head = self.u16(self.avail + 4 + 2 * usize::from(self.seen % SIZE));
        self.seen = self.seen.wrapping_add(1);
        let at = self.desc + 16 * usize::from(head);
        let address = u64::from_le(self.memory.atomic_u64(at).load(Ordering::Relaxed));
        let len = u32::from_le(self.memory.atomic_u32(at + 8).load(Ordering::Relaxed));
        Some((head, address, len, self.u16(at + 12)))
    }

    fn finish(&mut self, head: u32, len: u32) {
        let at = self.used + 4 + 8 * usize::from(self.done % SIZE);
        self.memory.atomic_u32(at).store(head.to_le(), Ordering::Relaxed);
        self.memory.atomic_u32(at + 4).store(len.to_le(), Ordering::Relaxed);
        self.done = self.done.wrapping_add(1);
        self.set16(self.used + 2, self.done);
    }

    fn used_event(&self) -> u16 {
        self.u16(self.avail + 4 + 2 * usize::from(SIZE))
    }

    fn set_avail_event(&self, index: u16) {
        self.set16(self.used + 4 + 8 * usize::from(SIZE), index);
    }
}

fn pair(event_idx: bool) -> (SplitQueue, DeviceSide) {
    let memory = DmaBuffer::detached(0x5_0000_0000, SplitQueue::bytes(SIZE)).unwrap();
    let queue = SplitQueue::new("test", memory.clone(), SIZE, event_idx);
    let [desc, avail, used] = queue.addresses().map(|a| (a - memory.iova()) as usize);
    (queue, DeviceSide { memory, desc, avail, used, seen: 0, done: 0 })
}

#[test]
fn the_layout_is_aligned_and_does_not_overlap() {
    for size in [1_u16, 2, 256, 32_768] {
        let memory = DmaBuffer::detached(0, SplitQueue::bytes(size)).unwrap();
        let [desc, avail, used] = SplitQueue::new("test", memory, size, true).addresses();
        let n = u64::from(size);
        assert!(avail >= desc + 16 * n && used >= avail + 6 + 2 * n);
        assert!(SplitQueue::bytes(size) as u64 >= used + 6 + 8 * n);
        assert!(desc.is_multiple_of(16) && avail.is_multiple_of(2) && used.is_multiple_of(4));
    }
}

#[test]
fn buffers_go_round_past_the_end_of_the_indices() {
    let (mut queue, mut device) = pair(false);
    for round in 0..70_000_u32 {
        let index = (round % 8) as u16;
        queue.describe(index, 0x1000 + u64::from(round), 100, round % 2 == 0, None);
        queue.offer(index);
        assert!(queue.publish(), "the device did not ask for silence");
        let (head, address, len, flags) = device.next().unwrap();
        assert_eq!((head, address, len), (index, 0x1000 + u64::from(round), 100));
        assert_eq!(flags, if round % 2 == 0 { DESC_WRITE } else { 0 });
        assert_eq!(queue.take().unwrap(), None);
        device.finish(head.into(), round);
        assert_eq!(queue.take().unwrap(), Some(Used { head, len: round }));
    }
}

#[test]
fn nothing_is_seen_before_it_is_published() {
    let (mut queue, mut device) = pair(false);
    for i in 0..3 {
        queue.describe(i, 0, 1, false, None);
        queue.offer(i);
    }
    assert_eq!(device.next(), None);
    assert_eq!(queue.unpublished(), 3);
    assert!(queue.publish());
    assert_eq!((0..3).map_while(|_| device.next()).count(), 3);
    assert!(!queue.publish(), "one notification for the batch");
}

#[test]
fn chains_are_linked() {
    let (mut queue, mut device) = pair(false);
    queue.describe(0, 0, 2, false, Some(1));
    queue.describe(1, 0, 1, true, None);
    queue.offer(0);
    queue.publish();
    let (_, _, _, flags) = device.next().unwrap();
    assert_eq!((flags, device.u16(device.desc + 14)), (DESC_NEXT, 1));
}

#[test]
fn flags_suppress_both_ways() {
    let (mut queue, mut device) = pair(false);
    device.set16(device.used, USED_NO_NOTIFY);
    queue.offer(0);
    assert!(!queue.publish());
    queue.suppress_interrupts();
    assert_eq!(device.u16(device.avail), AVAIL_NO_INTERRUPT);
    assert!(!queue.want_interrupt());
    assert_eq!(device.u16(device.avail), 0);
    device.finish(0, 0);
    assert!(queue.want_interrupt(), "what came before must not be slept over");
}

#[test]
fn event_indices_suppress_both_ways() {
    let (mut queue, mut device) = pair(true);
    // The device wants to hear of the third buffer.
    device.set_avail_event(2);
    let mut kicks = Vec::new();
    for i in 0..5 {
        queue.offer(i);
        kicks.push(queue.publish());
    }
    assert_eq!(kicks, [false, false, true, false, false]);
    // And of any in a batch that passes its index.
    device.set_avail_event(6);
    (5..8).for_each(|i| queue.offer(i));
    assert!(queue.publish());
    assert!(!queue.want_interrupt());
    assert_eq!(device.used_event(), 0);
    device.finish(0, 0);
    assert!(queue.want_interrupt());
    queue.take().unwrap();
    queue.suppress_interrupts();
    assert_ne!(device.used_event(), 1, "no interrupt for the next one");
}

#[test]
fn a_device_that_breaks_the_ring_is_caught() {
    let (mut queue, mut device) = pair(false);
    device.finish(0, 0);
    assert!(matches!(queue.take(), Err(Error::BrokenQueue { .. })), "used without any available");
    let (mut queue, mut device) = pair(false);
    queue.offer(0);
    queue.publish();
    device.finish(SIZE.into(), 0);
    assert!(matches!(queue.take(), Err(Error::BrokenQueue { .. })), "no such descriptor");
    let (mut queue, mut device) = pair(false);
    queue.offer(0);
    queue.publish();
    device.finish(0x1_0000, 0);
    assert!(matches!(queue.take(), Err(Error::BrokenQueue { .. })), "not the low 16 bits alone");
}
