//! The board's vfio-user sockets: a client sends any messages with any files to a VF and to the PF.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read as _;
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use culvert_device::board::State;
use culvert_device::function::{Pf, PfConfig, PfPort, Vf};
use culvert_device::virtio::{Notifier, VfConfig};

use crate::input::{Input, counted};
use crate::socket;
use crate::target::Target;

/// The target.
pub const TARGET: Target = Target { name: "vfio_server", run, seeds };

/// Most messages of an input, and bytes of one.
const MOST: usize = 40;
/// Longest that the server may take for anything.
const LIMIT: Duration = Duration::from_secs(10);
const HEADER: usize = 16;

/// Bits of the first byte: talks to the PF; has agreed on the version before.
const PF: u8 = 1;
const AGREED: u8 = 2;

const VERSION: u16 = 1;

fn message(command: u8, files: u8, body: &[u8]) -> Vec<u8> {
    [&[command, 0, files][..], &counted(body)].concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let words = |values: &[u32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let longs = |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let map = message(2, 2, &[words(&[32, 3]), longs(&[0, 0, 0x10000])].concat());
    let unmap = message(3, 0, &[words(&[24, 0]), longs(&[0, 0x10000])].concat());
    let infos = [
        message(4, 0, &[0; 16]),
        message(5, 0, &words(&[32, 0, 0, 0, 0, 0, 0, 0])),
        message(7, 0, &words(&[16, 0, 2, 0])),
    ]
    .concat();
    let irqs = message(8, 5, &words(&[20, 36, 2, 0, 4]));
    let trigger = message(8, 0, &[words(&[20, 34, 2, 0, 4]), vec![1, 0, 1, 0]].concat());
    let read = message(9, 0, &[longs(&[0]), words(&[7, 64])].concat());
    let write = message(10, 0, &[longs(&[4]), words(&[7, 2]), vec![6, 0]].concat());
    let many = message(15, 0, &[longs(&[1, 4]), words(&[7, 2]), longs(&[6])].concat());
    let reset = message(13, 0, &[]);
    let all = [map, infos, irqs, trigger, read, write.clone(), many, unmap, reset].concat();
    let json = b"\0\0\x01\0{\"capabilities\":{\"max_data_xfer_size\":1024}}\0";
    // SR-IOV capability: two VFs, enabled.
    let control = |offset: u64, value: u16| {
        message(10, 0, &[&longs(&[offset])[..], &words(&[7, 2]), &value.to_le_bytes()].concat())
    };
    let vfs = [control(0x110, 2), control(0x108, 9), control(0x108, 0)].concat();
    vec![
        [&[AGREED][..], &all].concat(),
        [&[PF | AGREED][..], &all].concat(),
        [&[PF | AGREED][..], &vfs].concat(),
        [&[0][..], &message(1, 0, json), &write].concat(),
        [&[0][..], &write, &message(1, 0, b"\x01\0\0\0")].concat(),
    ]
}

struct Board {
    paths: [PathBuf; 2],
    memory: File,
    _vf: Vf,
    _pf: Pf,
    _folder: tempfile::TempDir,
}

thread_local! {
    static BOARD: RefCell<Board> = RefCell::new({
        let folder = crate::scratch::folder();
        let paths = ["vf", "pf"].map(|name| folder.path().join(name));
        let notifier = Notifier::new().expect("an eventfd");
        let vf = Vf::start(&paths[0], VfConfig::new([2, 0, 0, 0, 0, 7], 1500), notifier.clone()).expect("a socket");
        let config = PfConfig { socket: paths[1].clone(), reset_on_disconnect: true };
        let pf = Pf::start(config, PfPort::new(), State::new(notifier.clone()), notifier).expect("a socket");
        let memory = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
        Board { paths, memory: memory.into(), _vf: vf, _pf: pf, _folder: folder }
    });
}

/// Runs one input.
pub fn run(data: &[u8]) {
    BOARD.with_borrow(|board| {
        board.memory.set_len(1 << 16).expect("memory");
        let mut input = Input::new(data);
        let first = input.byte();
        let stream = UnixStream::connect(&board.paths[usize::from(first & PF)]).expect("the board listens");
        stream
            .set_read_timeout(Some(LIMIT))
            .and_then(|()| stream.set_write_timeout(Some(LIMIT)))
            .expect("a socket");
        let mut id = 0;
        let mut send = |command: u16, flags: u8, files: u8, size: usize, body: &[u8]| {
            id += 1;
            let mut header = [0; HEADER];
            header[0..2].copy_from_slice(&u16::to_le_bytes(id));
            header[2..4].copy_from_slice(&command.to_le_bytes());
            header[4..8].copy_from_slice(&(size as u32).to_le_bytes());
            header[8] = flags;
            let files = socket::descriptors(files, &board.memory);
            let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
            socket::send(&stream, &[&header[..], body].concat(), &files)
        };
        let mut open = true;
        if first & AGREED != 0 {
            let body = b"\0\0\x01\0{}\0";
            open = send(VERSION, 0, 0, HEADER + body.len(), body);
        }
        for _ in 0..MOST {
            if input.is_empty() || !open {
                break;
            }
            let (command, flags, files) = (input.byte(), input.byte(), input.byte());
            let body = input.counted();
            // The upper bits say that the length is wrong.
            let wrong = match files >> 5 {
                0 => 0,
                n => usize::from(n) * 7,
            };
            open = send(command.into(), flags, files & 0x1f, HEADER + body.len() + wrong, body);
        }
        let _gone = stream.shutdown(Shutdown::Write);
        answers(stream, board);
    });
}

/// Reads until the server closes, which it does when it has seen our end.
fn answers(mut stream: UnixStream, board: &Board) {
    let mut answers = Vec::new();
    match stream.read_to_end(&mut answers) {
        Ok(_) => {}
        // What the server had not read was lost with the connection.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
        Err(error) => panic!("{}: {error}", board.paths[0].display()),
    }
    // The answers are whole messages.
    let mut rest = &answers[..];
    while !rest.is_empty() {
        let size = rest.get(4..8).and_then(|size| size.first_chunk()).map(|size| u32::from_le_bytes(*size));
        let size = size.expect("a header") as usize;
        assert!(size >= HEADER && size <= rest.len(), "an answer of {size} bytes with {} left", rest.len());
        rest = &rest[size..];
    }
}
