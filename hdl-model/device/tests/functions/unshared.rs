//! A guest whose VMM shares no memory: a driver that works by vfio-user messages, and a client that answers the device's
//! reads and writes, or does not.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use culvert_device::function::Vf;
use culvert_device::vfio_user::RemoteDma;
use culvert_device::virtio::{Notifier, TxFrame, VfConfig};

use crate::client::{
    DMA_MAP, DMA_READ, DMA_UNMAP, DMA_WRITE, REGION_READ, REGION_WRITE, RawClient, Received, dma_map,
    dma_unmap, u32s, u64s,
};
use crate::driver::{CONTROL, MAC, NEXT, RX, SIZE, TX, WRITE, avail, buffer, desc, used};
use crate::memory::{GuestMemory, IOVA};

/// Bytes of the guest's memory.
const LEN: u64 = 2 << 20;
/// Where rings end and buffers begin.
const RINGS: u64 = 0x10_0000;
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + len) as u8).collect()
}

pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What the client's thread and the test share.
struct Client {
    memory: Mutex<Vec<u8>>,
    /// Rings that lie in shared memory instead.
    shared: Option<GuestMemory>,
    packed: bool,
    answering: AtomicBool,
    refusing: AtomicBool,
    /// A request that waits until the client answers.
    waiting: Mutex<Option<Received>>,
    requests: AtomicUsize,
}

pub(crate) struct Unshared {
    pub(crate) vf: Vf,
    client: Arc<Client>,
    stream: UnixStream,
    replies: Receiver<Received>,
    thread: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    next: u16,
    offered: [u16; 3],
    _dir: tempfile::TempDir,
}

impl Unshared {
    /// A guest whose memory is reached by messages alone. `packed`: its VMM lays them out as QEMU does.
    pub(crate) fn start(packed: bool) -> Self {
        let mut guest = Self::connect(packed, None);
        guest.map();
        guest
    }

    /// Rings in shared memory, buffers not.
    pub(crate) fn with_shared_rings() -> Self {
        let memory = GuestMemory::new(RINGS);
        let fd = memory.fd();
        let mut guest = Self::connect(false, Some(memory));
        guest.call_with(DMA_MAP, &dma_map(3, 0, IOVA, RINGS), &[fd.as_fd()]).expect("map");
        guest.call(DMA_MAP, &dma_map(3, 0, IOVA + RINGS, LEN - RINGS)).expect("map without a file");
        guest
    }

    fn connect(packed: bool, shared: Option<GuestMemory>) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let path: PathBuf = dir.path().join("vf");
        let vf =
            Vf::start(&path, VfConfig::new(MAC, 1500), Notifier::new().expect("eventfd")).expect("server");
        let raw = RawClient::negotiated(&path);
        let stream = raw.stream.try_clone().expect("dup");
        let client = Arc::new(Client {
            memory: Mutex::new(vec![0; LEN as usize]),
            shared,
            packed,
            answering: AtomicBool::new(true),
            refusing: AtomicBool::new(false),
            waiting: Mutex::default(),
            requests: AtomicUsize::new(0),
        });
        let (sender, replies) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (client, stop) = (Arc::clone(&client), Arc::clone(&stop));
            move || client.serve(raw, &sender, &stop)
        });
        Self { vf, client, stream, replies, thread: Some(thread), stop, next: 0, offered: [0; 3], _dir: dir }
    }

    /// The device's way to this client, as its thread has it.
    pub(crate) fn remote(&self) -> Arc<RemoteDma> {
        self.vf.device().remote().expect("a client")
    }

    /// Whether the client answers from now on, also what it was asked before.
    pub(crate) fn answer(&self, on: bool) {
        self.client.answering.store(on, Ordering::Release);
    }

    pub(crate) fn refuse(&self, on: bool) {
        self.client.refusing.store(on, Ordering::Release);
    }

    /// Whether the device waits for an answer.
    pub(crate) fn unanswered(&self) -> bool {
        self.client.waiting().is_some()
    }

    pub(crate) fn forget_request(&self) {
        *self.client.waiting() = None;
    }

    pub(crate) fn requests(&self) -> usize {
        self.client.requests.load(Ordering::Acquire)
    }

    pub(crate) fn map(&mut self) {
        self.call(DMA_MAP, &dma_map(3, 0, IOVA, LEN)).expect("map without a file");
    }

    pub(crate) fn unmap(&mut self) {
        self.call(DMA_UNMAP, &dma_unmap(0, IOVA, LEN)).expect("unmap");
    }

    pub(crate) fn call(&mut self, command: u16, body: &[u8]) -> Result<Vec<u8>, u32> {
        self.call_with(command, body, &[])
    }

    fn call_with(&mut self, command: u16, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Vec<u8>, u32> {
        let id = self.send_request(command, body, fds);
        let reply = self.replies.recv_timeout(LIMIT).expect("a reply");
        assert_eq!((reply.id, reply.command), (id, command));
        if reply.flags & 0x20 != 0 { Err(reply.error) } else { Ok(reply.body) }
    }

    fn send_request(&mut self, command: u16, body: &[u8], fds: &[BorrowedFd<'_>]) -> u16 {
        self.next = (self.next + 1) & 0x7fff;
        let header = RawClient::header(self.next, command, 16 + body.len() as u32, 0, 0);
        let raw = RawClient::over(self.stream.try_clone().expect("dup"));
        raw.send_raw(header, body, fds);
        self.next
    }

    pub(crate) fn read_register(&mut self, offset: u64, len: u32) -> Vec<u8> {
        let request = [u64s(&[offset]), u32s(&[0, len])].concat();
        self.call(REGION_READ, &request).expect("read")[16..].to_vec()
    }

    pub(crate) fn write_register(&mut self, offset: u64, data: &[u8]) {
        self.write_region(0, offset, data);
    }

    fn write_region(&mut self, region: u32, offset: u64, data: &[u8]) {
        let request = [&u64s(&[offset])[..], &u32s(&[region, data.len() as u32]), data].concat();
        self.call(REGION_WRITE, &request).expect("write");
    }

    /// Brings the device up with rings of `SIZE` entries.
    pub(crate) fn bring_up(&mut self, features: u64) {
        self.write_region(7, 4, &[6, 0]);
        for status in [0, 1, 3] {
            self.write_register(0x14, &[status]);
        }
        for (select, half) in [(0u32, features as u32), (1, (features >> 32) as u32)] {
            self.write_register(0x08, &select.to_le_bytes());
            self.write_register(0x0c, &half.to_le_bytes());
        }
        self.write_register(0x14, &[0xb]);
        self.offered = [0; 3];
        for queue in [RX, TX, CONTROL] {
            self.write(desc(queue), &[0; 0x3000]);
            self.write_register(0x16, &queue.to_le_bytes());
            self.write_register(0x18, &SIZE.to_le_bytes());
            for (register, at) in [(0x20, desc(queue)), (0x28, avail(queue)), (0x30, used(queue))] {
                self.write_register(register, &(IOVA + at).to_le_bytes());
            }
            self.write_register(0x1c, &1u16.to_le_bytes());
        }
        self.write_register(0x14, &[0xf]);
    }

    pub(crate) fn describe(&self, queue: u16, index: u16, at: u64, len: u32, flags: u16) {
        let next = index + 1;
        let bytes =
            [&(IOVA + at).to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()]
                .concat();
        self.write(desc(queue) + 16 * u64::from(index), &bytes);
    }

    /// Makes the chain at `head` available and kicks.
    pub(crate) fn offer(&mut self, queue: u16, head: u16) {
        let next = &mut self.offered[usize::from(queue)];
        let slot = avail(queue) + 4 + 2 * u64::from(*next % SIZE);
        *next = next.wrapping_add(1);
        let index = *next;
        self.write(slot, &head.to_le_bytes());
        self.write(avail(queue) + 2, &index.to_le_bytes());
        self.write_register(0x3000 + 4 * u64::from(queue), &queue.to_le_bytes());
    }

    pub(crate) fn send(&mut self, index: u16, frame: &[u8]) {
        let at = buffer(u64::from(index));
        self.write(at, &[&[0; 12], frame].concat());
        self.describe(TX, index, at, 12 + frame.len() as u32, 0);
        self.offer(TX, index);
    }

    pub(crate) fn post(&mut self, index: u16, len: u32) {
        self.describe(RX, index, buffer(u64::from(index)), len, WRITE);
        self.offer(RX, index);
    }

    pub(crate) fn control(&mut self, command: &[u8]) {
        self.write(buffer(100), command);
        self.write(buffer(101), &[0xff]);
        self.describe(CONTROL, 0, buffer(100), command.len() as u32, NEXT);
        self.describe(CONTROL, 1, buffer(101), 1, WRITE);
        self.offer(CONTROL, 0);
    }

    /// What the engine takes from the guest within a time.
    pub(crate) fn pop(&self, buf: &mut [u8]) -> Option<TxFrame> {
        let end = Instant::now() + if self.offered[usize::from(TX)] == 0 { Duration::ZERO } else { LIMIT };
        loop {
            match self.vf.device().tx_pop(buf) {
                None if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
                taken => return taken,
            }
        }
    }

    /// Chains that the device has given back.
    pub(crate) fn used(&self, queue: u16) -> u16 {
        let bytes = self.read(used(queue) + 2, 2);
        u16::from_le_bytes([bytes[0], bytes[1]])
    }

    pub(crate) fn read(&self, at: u64, len: usize) -> Vec<u8> {
        match &self.client.shared {
            Some(shared) if at < RINGS => shared.read(at, len),
            _ => self.client.memory()[at as usize..at as usize + len].to_vec(),
        }
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        match &self.client.shared {
            Some(shared) if at < RINGS => shared.write(at, bytes),
            _ => self.client.memory()[at as usize..at as usize + bytes.len()].copy_from_slice(bytes),
        }
    }

    /// The client reads nothing from its socket any more.
    pub(crate) fn stop_reading(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the client's thread");
        }
    }

    /// Asks for registers without reading the replies, as long as the socket takes requests.
    pub(crate) fn flood(&mut self, count: usize) {
        self.stream.set_write_timeout(Some(Duration::from_millis(200))).expect("time-out");
        let body = [u64s(&[0]), u32s(&[7, 4096])].concat();
        for n in 0..count {
            let header = RawClient::header(n as u16, REGION_READ, 16 + body.len() as u32, 0, 0);
            if self.stream.write_all(&[&header[..], &body].concat()).is_err() {
                return;
            }
        }
    }

    /// Ends VF and connection.
    pub(crate) fn end(self) {
        drop(self);
    }
}

impl Drop for Unshared {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // The session has seen the end and counted what was lost.
        let device = Arc::clone(self.vf.device());
        let end = Instant::now() + LIMIT;
        while device.remote().is_some() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Client {
    fn memory(&self) -> MutexGuard<'_, Vec<u8>> {
        self.memory.lock().expect("lock")
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Received>> {
        self.waiting.lock().expect("lock")
    }

    fn serve(&self, mut raw: RawClient, replies: &std::sync::mpsc::Sender<Received>, stop: &AtomicBool) {
        raw.stream.set_read_timeout(Some(Duration::from_millis(2))).expect("time-out");
        while !stop.load(Ordering::Acquire) {
            if self.answering.load(Ordering::Acquire) {
                let request = self.waiting().take();
                if let Some(request) = request {
                    self.reply(&raw, &request);
                }
            }
            let mut first = [0];
            match raw.stream.read(&mut first) {
                Ok(0) => return,
                Err(_) => continue,
                Ok(_) => {}
            }
            raw.stream.set_read_timeout(Some(LIMIT)).expect("time-out");
            let Ok(message) = raw.receive_after(first[0]) else { return };
            raw.stream.set_read_timeout(Some(Duration::from_millis(2))).expect("time-out");
            if message.flags & 0xf == 1 {
                let _ = replies.send(message);
                continue;
            }
            self.requests.fetch_add(1, Ordering::AcqRel);
            if self.answering.load(Ordering::Acquire) {
                self.reply(&raw, &message);
            } else {
                *self.waiting() = Some(message);
            }
        }
    }

    fn reply(&self, raw: &RawClient, request: &Received) {
        let number =
            |at: usize| u64::from_le_bytes(request.body[at..at + 8].try_into().expect("eight bytes"));
        let count = if self.packed { number(8) & 0xffff_ffff } else { number(8) };
        let data_at = if self.packed { 12 } else { 16 };
        let end = number(0).wrapping_sub(IOVA).saturating_add(count);
        let (flags, error, body) = if self.packed && count == 0 {
            (1, 0, request.body[..16].to_vec())
        } else if end > LEN || self.refusing.load(Ordering::Acquire) {
            (0x21, 14, Vec::new())
        } else {
            let range = (end - count) as usize..end as usize;
            match request.command {
                DMA_READ => {
                    let pad: &[u8] = if self.packed { &[0; 4] } else { &[] };
                    (1, 0, [&request.body[..data_at], &self.memory()[range], pad].concat())
                }
                DMA_WRITE => {
                    let data = &request.body[data_at..data_at + count as usize];
                    self.memory()[range].copy_from_slice(data);
                    (1, 0, request.body[..16.min(request.body.len())].to_vec())
                }
                other => panic!("unexpected command {other}"),
            }
        };
        let header = RawClient::header(request.id, request.command, 16 + body.len() as u32, flags, error);
        raw.send_raw(header, &body, &[]);
    }
}
