//! A running board, the driver on it, and waits.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use culvert_abi::image::{Header, MAGIC};
use culvert_abi::regs::{self, QUEUE_COUNT};
use culvert_abi::soc::RAM_BASE;
use culvert_packet::{MacAddr, Reason};
use culvert_pci::{Device, Interrupt};
use culvert_pf::{Config, Nic};
use zerocopy::IntoBytes;

use crate::board::Board;
use crate::fixtures::vport;
use crate::function::Function;
use crate::soc::Soc;
use crate::state::State;

pub(crate) const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xfe]);

/// A board and its thread, which ends with it.
pub(crate) struct RunningBoard {
    pub(crate) board: Arc<Board>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for RunningBoard {
    fn drop(&mut self) {
        self.board.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the board panicked");
        }
    }
}

impl std::ops::Deref for RunningBoard {
    type Target = Board;

    fn deref(&self) -> &Board {
        &self.board
    }
}

/// Starts a board.
pub(crate) fn start_board() -> RunningBoard {
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
        deaf: false,
    };
    let interrupts = (0..culvert_abi::pci::PF_VECTORS).map(|_| Interrupt::new().unwrap()).collect();
    let board = Arc::new(Board {
        state: Mutex::new(state),
        interrupts,
        stop: AtomicBool::new(false),
        fault: AtomicU8::new(0),
    });
    let running = board.clone();
    let thread = std::thread::spawn(move || {
        while !running.stop.load(Ordering::Acquire) {
            running.lock().run_once(&running.interrupts);
            std::thread::sleep(Duration::from_micros(100));
        }
    });
    RunningBoard { board, thread: Some(thread) }
}

/// A firmware image that the board accepts.
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

impl RunningBoard {
    /// The PF that the driver opens.
    pub(crate) fn device(&self) -> Box<dyn Device> {
        Box::new(Function(self.board.clone()))
    }

    /// Opens its PF, as often as it is called.
    pub(crate) fn opener(&self) -> impl Fn() -> Box<dyn Device> + Send + use<> {
        let board = self.board.clone();
        move || Box::new(Function(board.clone()))
    }

    /// Opens a driver on this board and writes a vport 0 that can have records.
    pub(crate) fn ready(&self) -> Nic {
        let nic = self.open();
        nic.set_vports(&[(0, vport(culvert_abi::Vport::VF, 0))]).unwrap();
        nic
    }

    /// Opens a driver on this board.
    pub(crate) fn open(&self) -> Nic {
        Nic::open(self.device(), &config()).unwrap()
    }
}

/// Waits until `look` finds something, at most five seconds.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "time-out: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Packets that the firmware counted as dropped for a reason.
pub(crate) fn dropped(nic: &Nic, reason: Reason) -> u64 {
    nic.firmware_drops().unwrap()[reason as usize]
}
