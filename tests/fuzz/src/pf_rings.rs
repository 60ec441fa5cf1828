//! The driver's side of the PF's rings against a board that writes what it likes: upcalls, completions, indices.

use std::cell::RefCell;

use culvert_abi::command::Op;
use culvert_abi::pf::{Entry, HOST_INDEX, NIC_INDEX, NIC_SLEEPS, RING_HEADER, ring_len};
use culvert_offload::Upcall;
use culvert_pci::DmaBuffer;
use culvert_pf::{HostToNic, NicToHost, RING_BUFFER, upcall_meta};
use zerocopy::IntoBytes as _;

use crate::frames;
use crate::input::{Input, counted};
use crate::target::Target;

/// The target.
pub const TARGET: Target = Target { name: "pf_rings", run, seeds };

/// Entries of a ring, as a power of two.
const LOG2: u32 = 4;
const SIZE: u32 = 1 << LOG2;
/// Most steps of an input.
const MOST: usize = 200;

/// Steps of the board: an index, bytes in a ring, bytes in a buffer; steps of the driver.
const INDEX: u8 = 0;
const IN_RING: u8 = 1;
const IN_BUFFER: u8 = 2;
const TAKE: u8 = 3;
const REPOST: u8 = 4;
const PUSH: u8 = 5;
const SLEEP: u8 = 6;

fn seeds() -> Vec<Vec<u8>> {
    let at = |n: usize| (RING_HEADER as usize + 64 * n) as u16;
    let put = |step: u8, at: u16, bytes: &[u8]| [&[step][..], &at.to_le_bytes(), &counted(bytes)].concat();
    let index = |n: u32| [&[INDEX][..], &n.to_le_bytes()].concat();
    let mut all = Vec::new();
    for (n, frame) in frames::tenant().into_iter().chain(frames::wire()).enumerate() {
        let inner = if n % 2 == 0 { 0 } else { 50 };
        let entry = Entry {
            op: Op::Upcall as u8,
            reason: n as u8,
            len: frame.len() as u32,
            ticket: 3,
            inner,
            ..Entry::default()
        };
        let upcall = [put(IN_BUFFER, 0, &frame), put(IN_RING, at(0), entry.as_bytes()), index(1)].concat();
        all.push([&upcall[..], &[TAKE, REPOST, PUSH, 40, SLEEP, 1]].concat());
    }
    all.push([&index(SIZE)[..], &[TAKE; SIZE as usize + 1], &[REPOST]].concat());
    all.push([&[PUSH; 40][..], &index(7), &[PUSH, 1], &index(u32::MAX), &[PUSH, 1, TAKE]].concat());
    all
}

/// Memory of the two rings: each a ring and its buffers.
struct Memory {
    up: [DmaBuffer; 2],
    down: [DmaBuffer; 2],
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::new({
        let buffer = |iova: u64, len: usize| DmaBuffer::detached(iova, len).expect("memory");
        let pair = |iova| [buffer(iova, ring_len(LOG2) as usize), buffer(iova + (1 << 20), RING_BUFFER << LOG2)];
        Memory { up: pair(1 << 32), down: pair(2 << 32) }
    });
}

/// Runs one input.
pub fn run(data: &[u8]) {
    MEMORY.with_borrow(|memory| {
        for buffer in memory.up.iter().chain(&memory.down) {
            buffer.write_at(0, &vec![0; buffer.len()]).expect("inside");
        }
        let [ring, buffers] = memory.up.clone();
        let mut up = NicToHost::new(ring, buffers, LOG2, 1).expect("the memory is large enough");
        let [ring, buffers] = memory.down.clone();
        let mut down = HostToNic::new(ring, buffers, LOG2, 0);
        steps(&mut Input::new(data), memory, &mut up, &mut down);
    });
}

fn steps(input: &mut Input<'_>, memory: &Memory, up: &mut NicToHost, down: &mut HostToNic) {
    // Entries taken since buffers were last given back: no board can make them more than there are.
    let mut taken = 0;
    for _ in 0..MOST {
        if input.is_empty() {
            return;
        }
        match input.byte() % 7 {
            INDEX => {
                let index = input.u32().to_le_bytes();
                for [ring, _] in [&memory.up, &memory.down] {
                    ring.write_at(NIC_INDEX as usize, &index).expect("inside");
                    ring.write_at(NIC_SLEEPS as usize, &index).expect("inside");
                }
            }
            step @ (IN_RING | IN_BUFFER) => {
                let buffer = &memory.up[usize::from(step == IN_BUFFER)];
                let (at, bytes) = (usize::from(input.u16()) % buffer.len(), input.counted());
                buffer.write_at(at, &bytes[..bytes.len().min(buffer.len() - at)]).expect("inside");
            }
            TAKE => {
                let mut room = [0; RING_BUFFER];
                if let Ok(Some((entry, bytes))) = up.pop(&mut room) {
                    taken += 1;
                    assert!(taken <= SIZE && bytes.len() == entry.len as usize && bytes.len() <= RING_BUFFER);
                    if let Some(meta) = upcall_meta(&entry) {
                        // What the slow path makes of it.
                        let _upcall = Upcall::parse(meta, bytes.to_vec());
                    }
                }
            }
            REPOST => {
                if up.repost().is_ok() {
                    taken = 0;
                }
            }
            PUSH => {
                let payload = vec![7; usize::from(input.byte()) * 16];
                let room = down.room();
                let pushed = down.push(&Entry::default(), &[&payload]);
                if let (Ok(room), Ok(pushed)) = (room, pushed) {
                    assert_eq!(pushed, room > 0);
                }
                down.publish();
            }
            _ => {
                if up.arm() && input.byte() & 1 != 0 {
                    up.disarm();
                }
            }
        }
        let mut index = [0; 4];
        memory.up[0].read_at(HOST_INDEX as usize, &mut index).expect("inside");
    }
}
