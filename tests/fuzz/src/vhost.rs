//! A vhost-user port: a VMM sends any messages with any files, and its guest's rings hold anything.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use culvert_packet::{ChecksumState, Gso, Offload};
use culvert_ports::VhostUser;
use culvert_switch::{Packet, Pool, SwitchPort as _};

use crate::input::{Input, counted};
use crate::socket;
use crate::target::Target;
use crate::virtqueue::{available, descriptor};

/// The target.
pub const TARGET: Target = Target { name: "vhost", run, seeds };

/// The guest's memory, by its own addresses, and where the VMM has it.
const MEMORY: u64 = 1 << 16;
const USER: u64 = 0x7f00_0000_0000;
/// What brings the memory into its first state, and no more.
const TOUCHED: usize = 1 << 13;
/// Entries of a ring, and where ring `n` lies: descriptors, available ring, used ring.
const SIZE: u32 = 16;
const RING: u64 = 1024;
const PARTS: [u64; 3] = [0, 256, 512];
/// Buffers of the pool.
const BUFFERS: usize = 64;
/// Most steps of an input.
const MOST: usize = 60;
/// Longest that the port may take for anything.
const LIMIT: Duration = Duration::from_secs(10);

const PUT: u8 = 0;
const MESSAGE: u8 = 1;
const RECEIVE: u8 = 2;
const SEND: u8 = 3;
const ARM: u8 = 4;
const SHRINK: u8 = 5;

/// Requests.
const GET_FEATURES: u32 = 1;
const SET_FEATURES: u32 = 2;
const SET_OWNER: u32 = 3;
const SET_MEM_TABLE: u32 = 5;
const SET_VRING_NUM: u32 = 8;
const SET_VRING_ADDR: u32 = 9;
const SET_VRING_BASE: u32 = 10;
const GET_VRING_BASE: u32 = 11;
const SET_VRING_KICK: u32 = 12;
const SET_VRING_CALL: u32 = 13;
const SET_VRING_ENABLE: u32 = 18;
const SET_PROTOCOL_FEATURES: u32 = 16;

/// The features of a whole set-up.
const FEATURES: u64 = 1 | 1 << 1 | 1 << 15 | 1 << 28 | 1 << 29 | 1 << 30 | 1 << 32;

/// Whether the rings are set up before the steps, and with which features.
fn input(features: u64, steps: &[Vec<u8>]) -> Vec<u8> {
    [&[1][..], &features.to_le_bytes(), &steps.concat()].concat()
}

fn put(at: u64, bytes: &[u8]) -> Vec<u8> {
    [&[PUT][..], &(at as u16).to_le_bytes(), &counted(bytes)].concat()
}

fn message(code: u32, files: u8, body: &[u8]) -> Vec<u8> {
    [&[MESSAGE, code as u8, 9, files][..], &counted(body)].concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let ring = |n: u64, descriptors: &[Vec<u8>], heads: &[u16]| {
        [put(RING * n, &descriptors.concat()), put(RING * n + PARTS[1], &available(heads))].concat()
    };
    let buffers: Vec<Vec<u8>> = (0..8).map(|n| descriptor(0x4000 + 2048 * n, 2048, 2, 0)).collect();
    let receive = ring(0, &buffers, &[0, 1, 2, 3, 4, 5, 6, 7]);
    let frame = put(0x1800, &[&[0; 12][..], &crate::frames::tenant()[0]].concat());
    let transmit = ring(1, &[descriptor(0x1800, 12, 1, 1), descriptor(0x180c, 49, 0, 0)], &[0]);
    let table =
        [put(0x1400, &descriptor(0x1800, 61, 0, 0)), ring(1, &[descriptor(0x1400, 16, 4, 0)], &[0])].concat();
    let looped = ring(1, &[descriptor(0x1800, 1, 1, 0)], &[0]);
    let send = vec![SEND, 3, 0, 40];
    let large = vec![SEND, 1, 1, 200];
    let memory =
        [&1u32.to_le_bytes()[..], &[0; 4], &[0, 4096, USER, 0].map(u64::to_le_bytes).concat()].concat();
    let state = |n: u32, value: u32| [n.to_le_bytes(), value.to_le_bytes()].concat();
    vec![
        input(FEATURES, &[receive.clone(), send.clone(), large, vec![ARM]]),
        input(1 << 32, &[receive.clone(), send.clone()]),
        input(FEATURES, &[frame.clone(), transmit.clone(), vec![RECEIVE, ARM]]),
        input(FEATURES, &[frame.clone(), table.clone(), vec![RECEIVE]]),
        input(1 << 32, &[frame.clone(), table, vec![RECEIVE]]),
        input(FEATURES, &[frame.clone(), looped, vec![RECEIVE]]),
        input(
            FEATURES,
            &[
                message(GET_VRING_BASE, 0, &state(1, 0)),
                message(SET_VRING_KICK, 1, &[1, 0, 0, 0, 0, 0, 0, 0]),
            ],
        ),
        input(FEATURES, &[message(SET_MEM_TABLE, 2, &memory), vec![RECEIVE], send.clone()]),
        input(
            FEATURES,
            &[
                message(SET_VRING_CALL, 0, &[0, 1, 0, 0, 0, 0, 0, 0]),
                message(SET_VRING_ENABLE, 0, &state(0, 0)),
            ],
        ),
        input(FEATURES, &[frame, transmit, receive, vec![SHRINK, 0, RECEIVE], send]),
        [
            &[0; 9][..],
            &message(SET_OWNER, 0, &[]),
            &message(SET_FEATURES, 0, &FEATURES.to_le_bytes()),
            &message(SET_MEM_TABLE, 4, &memory),
        ]
        .concat(),
        [
            &[0; 9][..],
            &message(SET_PROTOCOL_FEATURES, 0, &[9, 0, 0, 0, 0, 0, 0, 0]),
            &message(SET_VRING_NUM, 0, &state(0, 3)),
        ]
        .concat(),
    ]
}

struct Host {
    port: VhostUser,
    pool: Pool,
    memory: File,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::new({
        let folder = crate::scratch::folder();
        let path = folder.path().join("vm");
        let port = VhostUser::open(&path, 1).expect("a new socket");
        let memory = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
        Host { port, pool: Pool::new(BUFFERS, 4).expect("memory"), memory: memory.into(), path, _folder: folder }
    });
}

/// Runs one input.
pub fn run(data: &[u8]) {
    HOST.with_borrow_mut(|host| {
        host.memory.set_len(MEMORY).expect("memory");
        host.memory.write_all_at(&[0; TOUCHED], 0).expect("memory");
        let mut vmm = Vmm { stream: UnixStream::connect(&host.path).expect("the port listens"), open: true };
        vmm.stream.set_nonblocking(true).expect("a socket");
        let mut input = Input::new(data);
        let (up, features) = (input.byte() & 1 != 0, input.u64());
        if up {
            vmm.set_up(host, features);
        }
        for _ in 0..MOST {
            if input.is_empty() {
                break;
            }
            step(&mut input, host, &mut vmm);
        }
        // Also the port that was only connected to has served the connection.
        vmm.wait(host);
        drop(vmm);
        let end = Instant::now() + LIMIT;
        while host.port.link() || host.port.status().counters().connected {
            assert!(Instant::now() < end, "the port does not notice that its VMM is gone");
            std::thread::yield_now();
        }
        // Nothing of the guest is left.
        assert!(!host.port.link() && receive(host) == 0);
    });
}

struct Vmm {
    stream: UnixStream,
    open: bool,
}

impl Vmm {
    fn send(&mut self, host: &Host, code: u32, flags: u32, files: u8, body: &[u8]) {
        if self.open {
            let header = [code, flags, body.len() as u32].map(u32::to_ne_bytes).concat();
            let files = socket::descriptors(files, &host.memory);
            let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
            self.open = socket::send(&self.stream, &[&header[..], body].concat(), &files);
        }
    }

    /// Whether the port has executed all requests: it answers another one. It may also have closed the connection.
    fn wait(&mut self, host: &mut Host) {
        self.send(host, GET_FEATURES, 1, 0, &[]);
        let (mut answer, mut last) = ([0; 4096], Instant::now() + LIMIT);
        while self.open {
            assert!(Instant::now() < last, "the port does not answer");
            host.port.link();
            match self.stream.read(&mut answer) {
                Ok(0) => self.open = false,
                // All answers have the same length, and the last one is that of the last request.
                Ok(len)
                    if answer[..len].chunks(20).any(|one| one.starts_with(&GET_FEATURES.to_ne_bytes())) =>
                {
                    return;
                }
                Ok(_) => last = Instant::now() + LIMIT,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(_) => self.open = false,
            }
        }
    }

    /// Memory and rings, as QEMU sets them up.
    fn set_up(&mut self, host: &mut Host, features: u64) {
        let state = |n: u32, value: u32| [n.to_ne_bytes(), value.to_ne_bytes()].concat();
        self.send(host, SET_FEATURES, 1, 0, &(features & FEATURES).to_ne_bytes());
        let region = [0, MEMORY, USER, 0].map(u64::to_ne_bytes).concat();
        self.send(host, SET_MEM_TABLE, 1, 2, &[&1u32.to_ne_bytes()[..], &[0; 4], &region].concat());
        for n in 0..2 {
            self.send(host, SET_VRING_NUM, 1, 0, &state(n, SIZE));
            self.send(host, SET_VRING_BASE, 1, 0, &state(n, 0));
            let at = USER + RING * u64::from(n);
            let [descriptors, available, used] = PARTS.map(|part| (at + part).to_ne_bytes());
            let addresses = [&state(n, 0)[..], &descriptors, &used, &available, &[0; 8]].concat();
            self.send(host, SET_VRING_ADDR, 1, 0, &addresses);
            self.send(host, SET_VRING_CALL, 1, 1, &u64::from(n).to_ne_bytes());
            self.send(host, SET_VRING_KICK, 1, 1, &u64::from(n).to_ne_bytes());
            self.send(host, SET_VRING_ENABLE, 1, 0, &state(n, 1));
        }
        self.wait(host);
    }
}

fn step(input: &mut Input<'_>, host: &mut Host, vmm: &mut Vmm) {
    match input.byte() % 6 {
        PUT => {
            let (at, bytes) = (usize::from(input.u16()) % TOUCHED, input.counted());
            let bytes = &bytes[..bytes.len().min(TOUCHED - at)];
            // A file that was cut short stays so.
            if host.memory.metadata().is_ok_and(|data| data.len() as usize >= at + bytes.len()) {
                host.memory.write_all_at(bytes, at as u64).expect("memory");
            }
        }
        MESSAGE => {
            let (code, flags, files) = (input.byte(), input.byte(), input.byte());
            let body = input.counted();
            vmm.send(host, code.into(), flags.into(), files, body);
            vmm.wait(host);
        }
        RECEIVE => drop(receive(host)),
        SEND => send(host, input.byte() % 16, input.byte(), usize::from(input.byte()) * 32 + 14),
        ARM => {
            host.port.arm();
        }
        _ => host.memory.set_len(u64::from(input.byte()) * 256).expect("memory"),
    }
}

/// Takes the guest's frames, and returns how many there were.
fn receive(host: &mut Host) -> usize {
    let free = host.pool.free();
    let mut packets = Vec::new();
    host.port.receive(&mut host.pool, &mut packets, 32).expect("the port lives");
    assert!(packets.len() <= 32);
    let count = packets.len();
    for packet in packets {
        assert!((14..=1 << 16).contains(&packet.bytes().len()));
        host.pool.give(packet);
    }
    assert_eq!(host.pool.free(), free, "a buffer is lost");
    count
}

/// Sends frames to the guest, large ones if it is said so.
fn send(host: &mut Host, count: u8, large: u8, len: usize) {
    let free = host.pool.free();
    let mut frame = crate::frames::tenant()[usize::from(large & 4) / 4].clone();
    frame.resize(len.max(frame.len()), 7);
    let gso = if large & 1 != 0 { Gso::TcpV4 } else { Gso::None };
    let checksum = if large & 2 != 0 { ChecksumState::Verified } else { ChecksumState::None };
    let offload = Offload { checksum, gso, mss: 500, ..Offload::default() };
    let mut packets: Vec<Packet> = Vec::new();
    for _ in 0..count {
        let Some(mut packet) = host.pool.take_for(frame.len()) else { break };
        if packet.fill(&frame) {
            packet.offload = offload;
            packets.push(packet);
        } else {
            host.pool.give(packet);
        }
    }
    host.port.send(&mut host.pool, &mut packets).expect("the port lives");
    assert_eq!((packets.len(), host.pool.free()), (0, free), "a buffer is lost");
}
