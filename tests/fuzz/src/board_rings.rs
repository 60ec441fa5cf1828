//! The board's side of the PF's rings: a driver that writes entries, indices and lengths as it likes, at any moment.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use culvert_abi::command::Op;
use culvert_abi::pf::{Entry, HOST_INDEX, RING_HEADER};
use culvert_device::board::exercise;
use culvert_device::dma::Memory;
use culvert_device::vfio_user::DmaRegion;
use zerocopy::IntoBytes as _;

use crate::input::{Input, counted};
use crate::target::Target;

/// The target.
pub const TARGET: Target = Target { name: "board_rings", run, seeds };

/// Bytes of the driver's memory, whose addresses begin at 0.
const MEMORY: usize = 1 << 15;
/// Where the rings lie, by default.
const RINGS: [u64; 2] = [0, 4096];
const LOG2: u8 = 4;
/// Most steps of an input.
const MOST: usize = 200;

/// Places and size of the rings, the steps, then what is written before a step: which one, where, what.
fn input(steps: &[u8], writes: &[(u8, u64, &[u8])]) -> Vec<u8> {
    let places = RINGS.map(|at| (at as u32).to_le_bytes()).concat();
    let write = |(step, at, bytes): &(u8, u64, &[u8])| {
        [&[*step][..], &(*at as u16).to_le_bytes(), &counted(bytes)].concat()
    };
    let writes: Vec<u8> = writes.iter().flat_map(write).collect();
    [&places[..], &[LOG2], &counted(steps), &writes].concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let entry = |addr: u64, len: u32| Entry { addr, len, op: Op::InjectLookup as u8, ..Entry::default() };
    let entries =
        |list: &[Entry]| list.iter().flat_map(|entry| entry.as_bytes().to_vec()).collect::<Vec<u8>>();
    let commands = entries(&[entry(0x4000, 60), entry(0x4800, 0), entry(0x5000, 1500)]);
    let posted = entries(&[entry(0x6000, 2048), entry(0x6800, 2048), entry(0x7000, 64)]);
    let three = 3u32.to_le_bytes();
    let set_up: [(u8, u64, &[u8]); 4] = [
        (0, RINGS[0] + RING_HEADER, &commands),
        (0, RINGS[0] + HOST_INDEX, &three),
        (0, RINGS[1] + RING_HEADER, &posted),
        (0, RINGS[1] + HOST_INDEX, &three),
    ];
    let all = [0, 0, 0, 0, 4, 2, 8, 14, 20, 3, 4, 5, 65];
    let jumped = [set_up[0], set_up[1], (2, RINGS[0] + HOST_INDEX, &[0xff; 4])];
    let outside = entries(&[entry(u64::MAX - 8, 60)]);
    let wild = [(0, RINGS[0] + RING_HEADER, &outside[..]), set_up[1]];
    vec![input(&all, &set_up), input(&all, &jumped), input(&all, &wild), input(&[2; 80], &[])]
}

struct Driver {
    memory: Memory,
    file: File,
}

thread_local! {
    static DRIVER: RefCell<Driver> = RefCell::new({
        let fd = rustix::fs::memfd_create("driver", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
        let file = File::from(fd);
        file.set_len(MEMORY as u64).expect("memory");
        let memory = Memory::new();
        let region = DmaRegion { iova: 0, size: MEMORY as u64, offset: 0, read: true, write: true };
        memory.map(region, Some(file.try_clone().expect("a descriptor").into())).expect("nothing else is mapped");
        Driver { memory, file }
    });
}

/// Runs one input.
pub fn run(data: &[u8]) {
    DRIVER.with_borrow(|Driver { memory, file }| {
        file.write_all_at(&[0; MEMORY], 0).expect("memory");
        let mut input = Input::new(data);
        let bases = [input.u32().into(), input.u32().into()];
        let size = input.byte().into();
        let steps = input.counted();
        let steps = &steps[..steps.len().min(MOST)];
        let (mut now, mut next) = (0u8, None);
        let passed = exercise::pf_rings(memory, bases, size, steps, |_| {
            while !input.is_empty() && *next.get_or_insert_with(|| input.byte()) <= now {
                next = None;
                let (at, bytes) = (usize::from(input.u16()) % MEMORY, input.counted());
                file.write_all_at(&bytes[..bytes.len().min(MEMORY - at)], at as u64).expect("memory");
            }
            now = now.saturating_add(1);
        });
        assert!(passed <= steps.len());
    });
}
