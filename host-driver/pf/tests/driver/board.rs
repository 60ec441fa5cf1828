//! A board in this process: what the driver sees of it, and what a test may do to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use culvert_abi::command::Op;
use culvert_abi::image::{Header, MAGIC};
use culvert_abi::regs::{self, FirmwareState, QUEUE_COUNT};
use culvert_abi::soc::{BoardPort, Descriptor, HEADROOM, RAM_BASE};
use culvert_packet::{MacAddr, Reason};
use culvert_pci::{Device, Interrupt};
use culvert_pf::{Config, Nic};
use zerocopy::IntoBytes;

use crate::function::Function;
use crate::soc::Soc;
use crate::state::State;

pub(crate) const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);

pub(crate) struct Board {
    state: Mutex<State>,
    pub(crate) interrupts: Vec<Interrupt>,
    stop: AtomicBool,
}

/// The board while a test runs it. Its thread ends with it.
pub(crate) struct Running {
    pub(crate) board: Arc<Board>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.board.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the board panicked");
        }
    }
}

impl std::ops::Deref for Running {
    type Target = Board;

    fn deref(&self) -> &Board {
        &self.board
    }
}

/// A board that is switched on.
pub(crate) fn board() -> Running {
    let registers = [
        (regs::MAGIC, regs::MAGIC_VALUE),
        (regs::ABI, culvert_abi::VERSION),
        (regs::CAPS, 2 | 64 << 8 | (QUEUE_COUNT as u32) << 16),
        (regs::LINK, 3),
    ];
    let state = State {
        registers: registers.into(),
        memory: Vec::new(),
        next_iova: 1 << 32,
        queues: Default::default(),
        soc: Soc::new(),
        firmware: None,
        sent: Vec::new(),
        started: Instant::now(),
        image: Vec::new(),
        starts: 0,
    };
    let interrupts = (0..culvert_abi::pci::PF_VECTORS).map(|_| Interrupt::new().unwrap()).collect();
    let board = Arc::new(Board { state: Mutex::new(state), interrupts, stop: AtomicBool::new(false) });
    let runs = board.clone();
    let thread = std::thread::spawn(move || {
        while !runs.stop.load(Ordering::Acquire) {
            runs.lock().turn(&runs.interrupts);
            std::thread::sleep(Duration::from_micros(100));
        }
    });
    Running { board, thread: Some(thread) }
}

/// An image that boards take.
pub(crate) fn image() -> Vec<u8> {
    let flat = b"firmware";
    let (load, len) = (RAM_BASE, flat.len() as u32);
    let crc = crc32fast::hash(flat);
    let header = Header { magic: MAGIC, abi: culvert_abi::VERSION, load, entry: load, len, crc };
    [header.as_bytes(), flat].concat()
}

pub(crate) fn config() -> Config {
    Config::new(image(), ROUTER).unwrap()
}

impl Running {
    /// What the driver opens.
    pub(crate) fn device(&self) -> Box<dyn Device> {
        Box::new(Function(self.board.clone()))
    }

    /// A driver on this board, and a vport 0 that may have records.
    pub(crate) fn ready(&self) -> Nic {
        let nic = self.open();
        nic.set_vports(&[(0, crate::commands::vport(culvert_abi::Vport::VF, 0))]).unwrap();
        nic
    }

    /// A driver on this board.
    pub(crate) fn open(&self) -> Nic {
        Nic::open(self.device(), &config()).unwrap()
    }
}

impl Board {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What the driver loaded, and how often firmware was started.
    pub(crate) fn loaded(&self) -> (Vec<u8>, u32) {
        let state = self.lock();
        (state.image.clone(), state.starts)
    }

    /// The firmware dies with these last words.
    pub(crate) fn kill(&self, words: &str) {
        let mut state = self.lock();
        state.firmware = None;
        for (i, chunk) in words.as_bytes().chunks(4).enumerate() {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            state.registers.insert(regs::PANIC + 4 * i as u32, u32::from_le_bytes(word));
        }
        state.set_firmware(FirmwareState::Dead);
        drop(state);
        self.interrupts[0].signal().unwrap();
    }

    /// The board starts the firmware again.
    pub(crate) fn restart(&self) {
        self.lock().start();
        self.interrupts[0].signal().unwrap();
    }

    /// A frame comes in at a port.
    pub(crate) fn frame(&self, port: BoardPort, frame: &[u8]) {
        let mut state = self.lock();
        let now = state.now();
        let buffer = state.soc.free.pop().unwrap();
        let at = HEADROOM as usize;
        state.soc.buffers[buffer as usize][at..at + frame.len()].copy_from_slice(frame);
        let (op, len) = (Op::Frame as u8, frame.len() as u16);
        let offset = HEADROOM as u16;
        state.soc.rx.push_back(Descriptor {
            buffer,
            offset,
            len,
            op,
            port: port.bits(),
            now,
            ..Default::default()
        });
    }

    /// What the NIC has sent out since the last call.
    pub(crate) fn sent(&self) -> Vec<(BoardPort, Vec<u8>)> {
        std::mem::take(&mut self.lock().sent)
    }

    pub(crate) fn register(&self, offset: u32) -> u32 {
        self.lock().registers.get(&offset).copied().unwrap_or(0)
    }

    pub(crate) fn set_register(&self, offset: u32, value: u32) {
        self.lock().registers.insert(offset, value);
    }

    /// The board reports something.
    pub(crate) fn event(&self, bits: u32) {
        self.set_register(regs::EVENTS, bits);
        self.interrupts[0].signal().unwrap();
    }
}

/// Waits for something, at most five seconds.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Packets that the firmware counted as dropped for a reason.
pub(crate) fn dropped(nic: &Nic, reason: Reason) -> u64 {
    nic.firmware_drops().unwrap()[reason as usize]
}
