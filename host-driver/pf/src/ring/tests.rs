//! The rings against a board that the test plays on the same memory.

use culvert_abi::command::Op;
use culvert_packet::Reason;

use super::*;

const LOG2: u32 = 4;

/// The board's side: the same layout, with indices of its own.
struct Board {
    ring: DmaBuffer,
    buffers: DmaBuffer,
    index: u32,
}

impl Board {
    fn host_index(&self) -> u32 {
        self.ring.atomic_u32(HOST_INDEX as usize).load(Ordering::Acquire)
    }

    fn entry_at(&self) -> usize {
        RING_HEADER as usize + (self.index % (1 << LOG2)) as usize * ENTRY
    }

    fn entry(&self) -> Entry {
        let mut bytes = [0; ENTRY];
        self.ring.read_at(self.entry_at(), &mut bytes).unwrap();
        Entry::read_from_bytes(&bytes).unwrap()
    }

    fn done(&mut self) {
        self.index = self.index.wrapping_add(1);
        self.ring.atomic_u32(NIC_INDEX as usize).store(self.index, Ordering::Release);
    }

    fn take(&mut self) -> Option<(Entry, Vec<u8>)> {
        if self.index == self.host_index() {
            return None;
        }
        let entry = self.entry();
        let mut data = vec![0; entry.len as usize];
        self.buffers.read_at((entry.addr - self.buffers.iova()) as usize, &mut data).unwrap();
        self.done();
        Some((entry, data))
    }

    fn give(&mut self, entry: Entry, data: &[u8]) -> bool {
        if self.index == self.host_index() {
            return false;
        }
        let empty = self.entry();
        assert!(empty.len as usize >= data.len());
        self.buffers.write_at((empty.addr - self.buffers.iova()) as usize, data).unwrap();
        let filled = Entry { addr: empty.addr, len: data.len() as u32, ..entry };
        self.ring.write_at(self.entry_at(), filled.as_bytes()).unwrap();
        self.done();
        true
    }

    fn set_sleeping(&self, yes: bool) {
        self.ring.atomic_u32(NIC_SLEEPS as usize).store(u32::from(yes), Ordering::Release);
    }
}

fn memory() -> (DmaBuffer, DmaBuffer) {
    let (ring, buffers) = memory_len(LOG2);
    (DmaBuffer::detached(0x10_0000, ring).unwrap(), DmaBuffer::detached(0x20_0000, buffers).unwrap())
}

fn board(memory: &(DmaBuffer, DmaBuffer)) -> Board {
    Board { ring: memory.0.clone(), buffers: memory.1.clone(), index: 0 }
}

fn entry(op: Op, cookie: u32) -> Entry {
    Entry { op: op as u8, cookie, ..Entry::default() }
}

#[test]
fn commands_arrive_in_order_and_only_once_published() {
    let memory = memory();
    let mut board = board(&memory);
    let mut ring = HostToNic::new(memory.0, memory.1, LOG2, 0);
    assert!(ring.push(&entry(Op::FlowInsert, 1), &[b"outer", b"inner"]).unwrap());
    assert!(ring.push(&entry(Op::InjectLookup, 2), &[b"frame"]).unwrap());
    assert!(board.take().is_none());
    assert!(!ring.publish());
    let (first, data) = board.take().unwrap();
    assert_eq!((first.op, first.cookie, data.as_slice()), (Op::FlowInsert as u8, 1, &b"outerinner"[..]));
    let (second, data) = board.take().unwrap();
    assert_eq!((second.cookie, data.as_slice()), (2, &b"frame"[..]));
    assert!(board.take().is_none());
}

#[test]
fn a_full_ring_accepts_nothing_until_the_board_has_taken_an_entry() {
    let memory = memory();
    let mut board = board(&memory);
    let mut ring = HostToNic::new(memory.0, memory.1, LOG2, 0);
    for round in 0..100u32 {
        let mut n = 0;
        while ring.push(&entry(Op::Fence, round), &[&round.to_le_bytes()]).unwrap() {
            n += 1;
        }
        assert_eq!((n, ring.room().unwrap()), (16, 0));
        ring.publish();
        for _ in 0..16 {
            assert_eq!(board.take().unwrap().1, round.to_le_bytes());
        }
    }
}

#[test]
fn only_a_sleeping_board_needs_the_doorbell() {
    let memory = memory();
    let board = board(&memory);
    let mut ring = HostToNic::new(memory.0, memory.1, LOG2, 0);
    board.set_sleeping(true);
    assert!(!ring.publish(), "nothing was written");
    ring.push(&entry(Op::Fence, 1), &[]).unwrap();
    assert!(ring.publish());
    board.set_sleeping(false);
    ring.push(&entry(Op::Fence, 2), &[]).unwrap();
    assert!(!ring.publish());
}

#[test]
fn a_payload_longer_than_a_buffer_is_refused() {
    let memory = memory();
    let mut ring = HostToNic::new(memory.0, memory.1, LOG2, 0);
    let long = vec![0; MAX_PAYLOAD as usize];
    assert!(ring.push(&entry(Op::InjectOut, 0), &[&long]).unwrap());
    assert!(matches!(ring.push(&entry(Op::InjectOut, 0), &[&long, &[0]]), Err(Error::TooLong { .. })));
}

#[test]
fn an_impossible_index_of_the_board_is_a_fault() {
    let memory = memory();
    let ring = memory.0.clone();
    let out = HostToNic::new(memory.0.clone(), memory.1.clone(), LOG2, 0);
    ring.atomic_u32(NIC_INDEX as usize).store(5, Ordering::Release);
    assert!(matches!(out.room(), Err(Error::QueueFault { .. })));
    let mut back = NicToHost::new(memory.0, memory.1, LOG2, 1).unwrap();
    ring.atomic_u32(NIC_INDEX as usize).store(17, Ordering::Release);
    assert!(matches!(back.pop(&mut [0; RING_BUFFER]), Err(Error::QueueFault { .. })));
}

#[test]
fn received_entries_keep_order_over_many_rounds() {
    let memory = memory();
    let mut board = board(&memory);
    let mut ring = NicToHost::new(memory.0, memory.1, LOG2, 1).unwrap();
    let mut into = [0; RING_BUFFER];
    let (mut sent, mut seen) = (0u32, 0u32);
    for round in 0..50 {
        let upcall = Entry { reason: Reason::Miss as u8, ..entry(Op::Upcall, 0) };
        while board.give(Entry { ticket: sent, ..upcall }, &sent.to_le_bytes()) {
            sent += 1;
        }
        for _ in 0..(round % 16) + 1 {
            let (got, data) = ring.pop(&mut into).unwrap().unwrap();
            assert_eq!((got.ticket, data), (seen, &seen.to_le_bytes()[..]));
            seen += 1;
        }
        ring.repost().unwrap();
    }
    while ring.pop(&mut into).unwrap().is_some() {
        seen += 1;
    }
    assert_eq!(sent, seen);
}

#[test]
fn a_length_beyond_the_buffer_is_truncated() {
    let memory = memory();
    let mut board = board(&memory);
    let mut ring = NicToHost::new(memory.0.clone(), memory.1, LOG2, 1).unwrap();
    let at = board.entry_at();
    assert!(board.give(entry(Op::Upcall, 0), b"x"));
    let wrong = Entry { len: u32::MAX, ..entry(Op::Upcall, 0) };
    memory.0.write_at(at, wrong.as_bytes()).unwrap();
    let mut into = [0; RING_BUFFER];
    assert_eq!(ring.pop(&mut into).unwrap().unwrap().1.len(), RING_BUFFER);
}

#[test]
fn the_interrupt_stays_disabled_if_an_entry_has_arrived() {
    let memory = memory();
    let mut board = board(&memory);
    let mut ring = NicToHost::new(memory.0.clone(), memory.1, LOG2, 1).unwrap();
    let sleeps = || memory.0.atomic_u32(HOST_SLEEPS as usize).load(Ordering::Acquire);
    assert!(ring.arm());
    assert_eq!(sleeps(), 1);
    ring.disarm();
    board.give(entry(Op::Upcall, 0), b"x");
    assert!(!ring.arm());
    assert_eq!(sleeps(), 0);
    ring.pop(&mut [0; RING_BUFFER]).unwrap();
    assert!(ring.arm());
}

#[test]
fn a_receive_queue_needs_the_doorbell_only_if_the_board_had_no_buffers() {
    let memory = memory();
    let mut board = board(&memory);
    let mut ring = NicToHost::new(memory.0, memory.1, LOG2, 1).unwrap();
    let mut into = [0; RING_BUFFER];
    board.set_sleeping(true);
    board.give(entry(Op::Upcall, 0), b"x");
    ring.pop(&mut into).unwrap();
    assert!(!ring.repost().unwrap());
    while board.give(entry(Op::Upcall, 0), b"x") {}
    ring.pop(&mut into).unwrap();
    assert!(ring.repost().unwrap());
}
