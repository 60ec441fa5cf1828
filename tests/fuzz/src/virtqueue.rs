//! A VF of the board: its driver writes any register, and its queues lie in memory that holds anything.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use culvert_device::function::VF_IDENTITY;
use culvert_device::vfio_user::DmaRegion;
use culvert_device::virtio::{Checksum, NetDevice, Notifier, VfConfig};

use crate::input::{Input, counted};
use crate::target::Target;

/// The target.
pub const TARGET: Target = Target { name: "virtqueue", run, seeds };

/// Bytes of the guest's memory, whose addresses begin at 0.
const MEMORY: usize = 1 << 16;
/// What brings the memory into its first state, and no more.
const TOUCHED: usize = 1 << 13;
/// Entries of a queue, and where queue `n` lies: descriptors, available ring, used ring.
const SIZE: u16 = 16;
const QUEUE: usize = 1024;
const PARTS: [usize; 3] = [0, 256, 512];
/// Most steps of an input.
const MOST: usize = 100;

const PUT: u8 = 0;
const REGISTER: u8 = 1;
const CONFIG: u8 = 2;
const TRANSMIT: u8 = 3;
const RECEIVE: u8 = 4;
const CONTROL: u8 = 5;
const POLL: u8 = 6;
const SHRINK: u8 = 7;

/// Steps as they stand in an input: the first byte says whether the device is brought up before, the next eight which
/// features it is to have.
fn input(features: u64, steps: &[Vec<u8>]) -> Vec<u8> {
    [&[1][..], &features.to_le_bytes(), &steps.concat()].concat()
}

fn put(at: usize, bytes: &[u8]) -> Vec<u8> {
    [&[PUT][..], &(at as u16).to_le_bytes(), &counted(bytes)].concat()
}

/// A descriptor.
pub(crate) fn descriptor(address: u64, len: u32, flags: u16, next: u16) -> Vec<u8> {
    [&address.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
}

/// A queue whose `heads` are available.
pub(crate) fn available(heads: &[u16]) -> Vec<u8> {
    let heads: Vec<u8> = heads.iter().flat_map(|head| head.to_le_bytes()).collect();
    [&[0, 0][..], &((heads.len() / 2) as u16).to_le_bytes(), &heads].concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let queue = |n: usize, descriptors: &[Vec<u8>], heads: &[u16]| {
        [put(QUEUE * n, &descriptors.concat()), put(QUEUE * n + PARTS[1], &available(heads))].concat()
    };
    let kick =
        |n: u16| [&[REGISTER, 0][..], &(0x3000 + 4 * n).to_le_bytes(), &[2], &n.to_le_bytes()].concat();
    let buffers: Vec<Vec<u8>> = (0..8).map(|n| descriptor(0x4000 + 2048 * n, 2048, 2, 0)).collect();
    let receive = queue(0, &buffers, &[0, 1, 2, 3, 4, 5, 6, 7]);
    let frame =
        put(0x2000, &[&[1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0][..], &crate::frames::tenant()[0]].concat());
    let one = queue(1, &[descriptor(0x2000, 12, 1, 1), descriptor(0x200c, 49, 0, 0)], &[0]);
    let table = [put(0x1800, &descriptor(0x2000, 61, 0, 0)), queue(1, &[descriptor(0x1800, 16, 4, 0)], &[0])]
        .concat();
    let looped = queue(1, &[descriptor(0x2000, 1, 1, 0)], &[0]);
    let mac = [
        put(0x2000, &[1, 1, 2, 0, 0, 0, 0, 9]),
        queue(2, &[descriptor(0x2000, 8, 1, 1), descriptor(0x3000, 1, 2, 0)], &[0]),
    ]
    .concat();
    let all = (1 << 0)
        | (1 << 1)
        | (1 << 15)
        | (1 << 17)
        | (1 << 18)
        | (1 << 19)
        | (1 << 23)
        | (1 << 28)
        | (1 << 29);
    let (transmit, deliver, poll) = (vec![TRANSMIT], vec![RECEIVE, 200, 10], vec![POLL, 1]);
    vec![
        input(all, &[receive.clone(), deliver.clone(), poll.clone()]),
        input(0, &[receive.clone(), deliver.clone()]),
        input(all, &[frame.clone(), one.clone(), kick(1), transmit.clone(), poll]),
        input(1, &[frame.clone(), table.clone(), transmit.clone()]),
        input(1 << 28, &[frame.clone(), table, transmit.clone()]),
        input(0, &[frame.clone(), looped, transmit.clone()]),
        input(all, &[mac, kick(2), vec![CONTROL]]),
        input(0, &[frame, one, receive, vec![SHRINK, 0], transmit, deliver]),
        [&[0; 9][..], &[REGISTER, 0], &0x14u16.to_le_bytes(), &[1, 1], &[CONFIG, 4, 0, 2, 6, 0]].concat(),
    ]
}

struct Device {
    device: NetDevice,
    memory: File,
}

thread_local! {
    static DEVICE: RefCell<Device> = RefCell::new({
        let memory = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
        let notifier = Notifier::new().expect("an eventfd");
        let device = NetDevice::new(VF_IDENTITY, VfConfig::new([2, 0, 0, 0, 0, 7], 1500), notifier);
        Device { device, memory: memory.into() }
    });
}

/// Runs one input.
pub fn run(data: &[u8]) {
    DEVICE.with_borrow(|Device { device, memory }| {
        // As when a client connects.
        device.reset_function();
        device.detach();
        memory.set_len(MEMORY as u64).expect("memory");
        memory.write_all_at(&[0; TOUCHED], 0).expect("memory");
        let region = DmaRegion { iova: 0, size: MEMORY as u64, offset: 0, read: true, write: true };
        let fd = memory.try_clone().expect("a descriptor");
        device.memory().map(region, Some(fd.into())).expect("nothing else is mapped");
        let mut input = Input::new(data);
        let (up, features) = (input.byte() & 1 != 0, input.u64());
        if up {
            bring_up(device, features);
        }
        for _ in 0..MOST {
            if input.is_empty() {
                break;
            }
            step(&mut input, device, memory);
        }
        device.detach();
        assert!(!device.is_running());
    });
}

/// What a driver does first.
fn bring_up(device: &NetDevice, features: u64) {
    let write = |offset: u64, bytes: &[u8]| device.bar_write(0, offset, bytes);
    device.config_write(4, &6u16.to_le_bytes());
    for status in [0, 1, 3] {
        write(0x14, &[status]);
    }
    // Of what the device offers, as far as the driver wants it; without VERSION_1 there is no device.
    for half in 0..2u32 {
        write(0x00, &half.to_le_bytes());
        let mut offered = [0; 4];
        device.bar_read(0, 0x04, &mut offered);
        let wanted = (features | 1 << 32 | 1 << 33) >> (32 * half);
        write(0x08, &half.to_le_bytes());
        write(0x0c, &(u32::from_le_bytes(offered) & wanted as u32).to_le_bytes());
    }
    write(0x14, &[0xb]);
    for queue in 0..3u16 {
        write(0x16, &queue.to_le_bytes());
        write(0x18, &SIZE.to_le_bytes());
        for (register, part) in [0x20, 0x28, 0x30].into_iter().zip(PARTS) {
            write(register, &((QUEUE * usize::from(queue) + part) as u64).to_le_bytes());
        }
        write(0x1c, &1u16.to_le_bytes());
    }
    write(0x14, &[0xf]);
}

/// The bytes of a register access: at most eight, behind their number.
fn accessed<'a>(input: &mut Input<'a>) -> &'a [u8] {
    let len = input.byte() % 9;
    input.take(len.into())
}

fn step(input: &mut Input<'_>, device: &NetDevice, memory: &File) {
    let mut buffer = [0; 2048];
    match input.byte() % 8 {
        PUT => {
            let (at, bytes) = (usize::from(input.u16()) % TOUCHED, input.counted());
            let bytes = &bytes[..bytes.len().min(TOUCHED - at)];
            // A file that was cut short stays so.
            if memory.metadata().is_ok_and(|data| data.len() as usize >= at + bytes.len()) {
                memory.write_all_at(bytes, at as u64).expect("memory");
            }
        }
        REGISTER => {
            let (bar, offset) = (input.byte() % 6, input.u16());
            let bytes = accessed(input);
            device.bar_write(bar.into(), offset.into(), bytes);
            device.bar_read(bar.into(), offset.into(), &mut buffer[..8]);
        }
        CONFIG => {
            let (offset, bytes) = (input.u16() % 4088, accessed(input));
            device.config_write(offset.into(), bytes);
            device.config_read(offset.into(), &mut buffer[..8]);
        }
        TRANSMIT => {
            if let Some(frame) = device.tx_pop(&mut buffer) {
                assert!((14..=buffer.len()).contains(&frame.len));
                if let Checksum::Partial { start, offset } = frame.csum {
                    assert!(usize::from(start) + usize::from(offset) + 2 <= frame.len);
                }
            }
        }
        RECEIVE => {
            let (one, two) = (usize::from(input.byte()) * 8, usize::from(input.byte()));
            let _refused = device.rx_push(&[&buffer[..one], &[7; 256][..two]], two % 2 == 0);
        }
        CONTROL => device.service_control(),
        POLL => {
            device.set_polling(input.byte() & 1 != 0);
            device.has_tx();
            device.flush_interrupts();
        }
        _ => {
            let len = usize::from(input.byte()) * 256;
            memory.set_len(len.min(MEMORY) as u64).expect("memory");
        }
    }
}
