//! Our vfio-user client against a device that lies: its answers, descriptions, files and requests are anything.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use culvert_pci::vfio_user::Client;
use culvert_pci::{Device, PageKind, capability};

use crate::input::{Input, counted};
use crate::socket;
use crate::target::Target;

/// The target.
pub const TARGET: Target = Target { name: "vfio_client", run, seeds };

/// Longest that the client waits for an answer: the device answers at once, or closes.
const LIMIT: Duration = Duration::from_secs(10);
const HEADER: usize = 16;
/// Longest request that the device reads.
const LONGEST: usize = 1 << 16;

/// What the device does with a request: answers it as it should be answered; answers with an error; answers with another
/// command, number or length; sends a request of its own first.
const RIGHT: u8 = 0;
const ERROR: u8 = 1;
const WRONG: u8 = 2;
const ASK: u8 = 3;

fn answer(kind: u8, files: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, files][..], &counted(body)].concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let words = |values: &[u32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let longs = |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let region = |size: u64| [words(&[32, 3, 0, 0]), longs(&[size, 0])].concat();
    // A region of which the client may map a part.
    let sparse = [
        words(&[80, 15, 0, 32]),
        longs(&[0x4000, 0]),
        words(&[1 | 1 << 16, 0, 1, 0]),
        longs(&[0x1000, 0x1000]),
    ]
    .concat();
    let version = answer(RIGHT, 0, b"\0\0\x01\0{\"capabilities\":{\"max_data_xfer_size\":4096}}\0");
    let connect = [
        version,
        answer(RIGHT, 0, &words(&[16, 3, 9, 5])),
        answer(RIGHT, 0, &region(4096)),
        answer(RIGHT, 0, &words(&[16, 9, 2, 4])),
        // The command register, read and written.
        answer(RIGHT, 0, &[&[0; 16][..], &[0, 0]].concat()),
        answer(RIGHT, 0, &[0; 16]),
    ]
    .concat();
    let config = answer(RIGHT, 0, &[&[0; 16][..], &[0xf4, 0x1a, 0, 0x10]].concat());
    let bar = answer(RIGHT, 0, &region(0x1000));
    let mapped = answer(RIGHT, 2, &sparse);
    let read = answer(RIGHT, 0, &[&[0; 16][..], &[1, 2, 3, 4]].concat());
    let ask = answer(ASK, 0, &[longs(&[1 << 32, 16]), vec![7; 16]].concat());
    vec![
        [&connect[..], &config, &bar, &read.repeat(4)].concat(),
        [&connect[..], &config, &mapped, &read.repeat(4), &answer(RIGHT, 0, &[])].concat(),
        [&connect[..], &ask, &config, &ask].concat(),
        [&connect[..], &answer(ERROR, 0, &[22, 0, 0, 0]), &answer(WRONG, 0, &[1, 0, 0, 0])].concat(),
        answer(RIGHT, 0, b"\x01\0\0\0"),
    ]
}

struct Scratch {
    path: PathBuf,
    scripts: Sender<Vec<u8>>,
    done: Receiver<()>,
    _folder: tempfile::TempDir,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new({
        let folder = crate::scratch::folder();
        let path = folder.path().join("device");
        let listener = UnixListener::bind(&path).expect("a new socket");
        let ((scripts, next), (tell, done)) = (channel::<Vec<u8>>(), channel());
        std::thread::spawn(move || {
            let memory: File = rustix::fs::memfd_create("bar", rustix::fs::MemfdFlags::CLOEXEC).expect("memory").into();
            for script in next {
                let (stream, _) = listener.accept().expect("the client connects");
                memory.set_len(1 << 16).expect("memory");
                play(&stream, &mut Input::new(&script), &memory);
                drop(stream);
                if tell.send(()).is_err() {
                    return;
                }
            }
        });
        Scratch { path, scripts, done, _folder: folder }
    });
}

/// Runs one input.
pub fn run(data: &[u8]) {
    SCRATCH.with_borrow(|scratch| {
        scratch.scripts.send(data.to_vec()).expect("the device lives");
        // Whatever fails, the driver's next step is tried all the same.
        if let Ok(client) = Client::connect_within(&scratch.path, LIMIT) {
            use_device(&client);
        }
        scratch.done.recv_timeout(LIMIT).expect("the device ends when its client is gone");
    });
}

/// What a driver does.
fn use_device(client: &Client) {
    let _identifiers = client.config_read(0, &mut [0; 4]);
    let _capability = capability::find(client, 0x11);
    let _extended = capability::find_extended(client, 0x10);
    for n in [0, 2] {
        let Ok(registers) = client.bar(n) else { continue };
        let end = registers.size();
        for offset in [0, 8, 0x1000, end.saturating_sub(4), end, u64::MAX - 3] {
            let _word = (registers.read32(offset), registers.read64(offset), registers.write32(offset, 1));
        }
    }
    if let Ok(buffer) = client.alloc_dma_in(4096, PageKind::Normal) {
        buffer.write_at(0, &[7; 64]).expect("inside");
        let _pending = client.serve_pending();
    }
    assert!(client.interrupt_count() <= 2048);
    let _interrupt = (client.interrupt(0), client.interrupt(client.interrupt_count()));
    let _reset = client.reset();
}

/// Answers each request by the next part of the script, and closes at its end.
fn play(mut stream: &UnixStream, script: &mut Input<'_>, memory: &File) {
    // A client that has given up closes.
    while !script.is_empty() {
        let mut header = [0; HEADER];
        if stream.read_exact(&mut header).is_err() {
            return;
        }
        let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        assert!((HEADER..=LONGEST).contains(&size), "a request of {size} bytes");
        let mut body = vec![0; size - HEADER];
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        if header[8] & 0xf == 1 {
            // The answer to our own request.
            continue;
        }
        let mut step = Step::Open;
        while step == Step::Open {
            step = script_step(stream, script, memory, &header);
        }
        // The client may take answers for the rest of a message, and wait for more: it gets all there is.
        while step == Step::Lost && !script.is_empty() {
            script_step(stream, script, memory, &header);
        }
    }
}

/// What a part of the script has done with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The client still waits for an answer, or may do so.
    Open,
    /// It is answered, or can no longer be.
    Answered,
    /// A length was wrong: no one knows where the next message begins.
    Lost,
}

/// Plays one part of the script.
fn script_step(stream: &UnixStream, script: &mut Input<'_>, memory: &File, request: &[u8; HEADER]) -> Step {
    let (kind, files) = (script.byte(), script.byte());
    let body = script.counted();
    let mut header = *request;
    header[8..16].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    let mut size = (HEADER + body.len()) as u32;
    match kind % 4 {
        ERROR => {
            header[8] |= 0x20;
            let number: [u8; 4] = body.first_chunk().copied().unwrap_or_default();
            header[12..16].copy_from_slice(&number);
        }
        WRONG => {
            let change = body.first_chunk().copied().unwrap_or_default();
            let [id, command, more, flags]: [u8; 4] = change;
            (header[0], header[2]) = (header[0] ^ id, header[2] ^ command);
            header[8] = flags;
            size = size.wrapping_add(u32::from(more) << (more & 0x1f));
        }
        ASK => {
            // DMA_READ or DMA_WRITE, or any other command.
            header[2] = if files & 0x80 == 0 { 11 + (files & 1) } else { files };
            header[8] = files & 0x10;
        }
        _ => {}
    }
    header[4..8].copy_from_slice(&size.to_le_bytes());
    let files = socket::descriptors(if kind % 4 == ASK { 0 } else { files }, memory);
    let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
    let sent = socket::send(stream, &[&header[..], body].concat(), &files);
    if size as usize != HEADER + body.len() {
        Step::Lost
    } else if sent && matches!(kind % 4, ASK | WRONG) && !script.is_empty() {
        // Whether a wrong answer was one, the device cannot know: the next comes at once.
        Step::Open
    } else {
        Step::Answered
    }
}
