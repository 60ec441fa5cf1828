//! The firmware's logic against hostile descriptors and mailbox requests: it answers, and gives each buffer back once.

use std::cell::RefCell;
use std::collections::VecDeque;

use culvert_abi::command::Op;
use culvert_abi::regs::MBOX_WORDS;
use culvert_abi::soc::{BUFFER_LEN, Descriptor, HEADER_LEN, HEADROOM, NO_BUFFER, RELEASE, Sizes};
use culvert_abi::{FlowRecord, Peer, Tunnel, Vport};
use culvert_lockstep::memory::Store;
use culvert_logic::{Bus, Firmware};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::frames;
use crate::input::{Input, counted};
use crate::target::Target;

/// The target.
pub const TARGET: Target = Target { name: "firmware", run, seeds };

/// Packet buffers of the board.
const BUFFERS: usize = 64;
/// Most descriptors of an input.
const MOST: usize = 100;
const DESCRIPTOR: usize = size_of::<Descriptor>();

/// Says of the next bytes: a mailbox request, or a descriptor whose frame is whole, as the board hands it over.
const MAILBOX: u8 = 0;
const WHOLE: u8 = 1;

/// A descriptor with its payload.
fn descriptor(op: Op, port: u16, arg0: u32, payload: &[u8]) -> Vec<u8> {
    let d = Descriptor { op: op as u8, port, arg0, cookie: 1, ..Descriptor::default() };
    [&[WHOLE][..], d.as_bytes(), &counted(payload)].concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let vport = Vport {
        flags: Vport::PRESENT | Vport::UP,
        target: Vport::VF,
        vsid: 5001,
        generation: 1,
        quota: 8,
        ..Vport::default()
    };
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[192, 168, 1, 10]);
    let peer = Peer { addr: address, family: 4, index: 0, reserved: 0 };
    let set_up = [
        descriptor(Op::VportSet, 0, 0, vport.as_bytes()),
        descriptor(Op::VportSet, 0, 1, Vport { number: 1, ..vport }.as_bytes()),
        descriptor(Op::LocalSet, 0, 0, peer.as_bytes()),
        descriptor(Op::PeersSet, 0, 1, peer.as_bytes()),
        descriptor(Op::TunnelSet, 0, 0, Tunnel::default().as_bytes()),
    ]
    .concat();
    let mut all = vec![[&[MAILBOX][..], &[1; 4 * MBOX_WORDS]].concat(), set_up.clone()];
    for frame in frames::tenant() {
        let frames = [descriptor(Op::Frame, 0, 0, &frame), descriptor(Op::InjectLookup, 0, 0, &frame)];
        all.push([&set_up[..], &frames.concat()].concat());
    }
    for frame in frames::wire().into_iter().take(4) {
        all.push([&set_up[..], &descriptor(Op::Frame, 0x100, 0, &frame)].concat());
    }
    let reads = [
        Op::FlowRead,
        Op::FlowIdle,
        Op::FlowGet,
        Op::VportRead,
        Op::DropsRead,
        Op::TunnelRead,
        Op::HostRestart,
    ];
    let reads: Vec<u8> = reads.iter().flat_map(|op| descriptor(*op, 0, 0, &[])).collect();
    let insert = descriptor(Op::FlowInsert, 0, 0, FlowRecord::default().as_bytes());
    all.push([set_up, insert, reads].concat());
    all
}

/// Rings and buffers of a board.
struct Board {
    rx: VecDeque<Descriptor>,
    buffers: Vec<[u8; BUFFER_LEN as usize]>,
    /// Whether the firmware has each buffer.
    held: [bool; BUFFERS],
    header: [u8; HEADER_LEN as usize],
    sent: usize,
}

impl Bus for Board {
    type Taken = Box<Descriptor>;

    fn receive(&mut self) -> Option<Box<Descriptor>> {
        self.rx.pop_front().map(Box::new)
    }

    fn buffer(&mut self, number: u32) -> Option<&mut [u8]> {
        self.buffers.get_mut(number as usize).map(|buffer| &mut buffer[..])
    }

    fn header(&mut self) -> &mut [u8; HEADER_LEN as usize] {
        &mut self.header
    }

    fn send(&mut self, d: &Descriptor) {
        self.sent += 1;
        assert!(u32::from(d.header_len) <= HEADER_LEN, "{d:?}");
        let Some(held) = self.held.get_mut(d.buffer as usize) else { return };
        assert!(u32::from(d.offset) + u32::from(d.len) <= BUFFER_LEN, "outside the buffer: {d:?}");
        assert!(*held, "a buffer that the firmware does not have: {d:?}");
        if d.flags & RELEASE != 0 {
            *held = false;
        }
    }
}

thread_local! {
    static STORE: RefCell<Store> = RefCell::new(Store::new(&sizes()));
}

fn sizes() -> Sizes {
    Sizes { pending: 6, ..Sizes::new(6) }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    STORE.with_borrow_mut(|store| {
        store.clear();
        let mut firmware = Firmware::new(store.lend(), 1).expect("sizes fit each other");
        let mut board = Board {
            rx: VecDeque::new(),
            buffers: vec![[0; BUFFER_LEN as usize]; BUFFERS],
            held: [false; BUFFERS],
            header: [0; HEADER_LEN as usize],
            sent: 0,
        };
        let mut input = Input::new(data);
        for _ in 0..MOST {
            if input.is_empty() {
                break;
            }
            let kind = input.byte();
            if kind == MAILBOX {
                firmware.mailbox(&std::array::from_fn(|_| input.u32()));
                continue;
            }
            if let Some(d) = next(&mut input, kind == WHOLE, &mut board) {
                board.rx.push_back(d);
                firmware.poll(&mut board, 8);
            }
        }
        // A host that comes back gets all that waits for it.
        board.rx.push_back(Descriptor {
            op: Op::HostRestart as u8,
            buffer: NO_BUFFER,
            cookie: 1,
            ..Descriptor::default()
        });
        firmware.poll(&mut board, 8);
        assert!(board.sent > 0);
        let held = board.held.iter().filter(|held| **held).count();
        assert_eq!(held, 0, "the firmware keeps buffers");
    });
}

/// The next descriptor, and its payload in a buffer. `None`: the board has none left.
fn next(input: &mut Input<'_>, whole: bool, board: &mut Board) -> Option<Descriptor> {
    let mut d = Descriptor::read_from_bytes(&input.array::<DESCRIPTOR>()).unwrap_or_default();
    let payload = input.counted();
    // The board sends no operation of the firmware, and names a buffer that it has.
    let free = board.held.iter().position(|held| !held)?;
    let at = HEADROOM as usize;
    let payload = &payload[..payload.len().min(BUFFER_LEN as usize - at)];
    board.buffers[free].fill(0);
    board.buffers[free][at..at + payload.len()].copy_from_slice(payload);
    if whole {
        (d.offset, d.len) = (at as u16, payload.len() as u16);
    } else {
        // What it names lies in the buffer, wherever.
        d.offset %= BUFFER_LEN as u16;
        d.len %= BUFFER_LEN as u16 + 1 - d.offset;
    }
    // The board sets these, from nothing that a host or a guest wrote.
    (d.flags, d.header_len) = (0, 0);
    if d.op == Op::Dropped as u8 {
        d.buffer = NO_BUFFER;
        d.arg0 %= 100;
    } else {
        d.buffer = free as u32;
        board.held[free] = true;
    }
    Some(d)
}
