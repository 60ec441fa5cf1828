//! BAR 0 of the PF, and the state that it shares with the engine.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use culvert_abi::pci::TOTAL_VFS;
use culvert_abi::regs::{self, FirmwareState, MBOX_WORDS, QUEUE_COUNT};

use super::counters::{Counters, PORTS};
use crate::function::Registers;
use crate::virtio::{NetDevice, Notifier, VfConfig};

/// Registers of a PF queue, as the driver has written them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Queue {
    pub(super) base: u64,
    pub(super) size_log2: u32,
    /// 0 stopped, [`regs::QUEUE_RUNNING`] or [`regs::QUEUE_FAULT`].
    pub(super) state: u32,
    /// Number of starts: it shows the engine a stop and a start between two of its turns.
    pub(super) starts: u32,
}

/// The driver's settings of a VF.
#[derive(Clone, Copy, Debug)]
pub(super) struct VfRegisters {
    words: [u32; 8],
}

impl Default for VfRegisters {
    fn default() -> Self {
        let mut words = [0; 8];
        words[2] = 1500;
        words[4] = DEFAULT_SHARE;
        VfRegisters { words }
    }
}

/// Share of a VF unless the driver sets another.
const DEFAULT_SHARE: u32 = 64;

/// A request of the driver to the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Request {
    /// Load the image from host memory and start it.
    Start {
        /// Where it is.
        image: u64,
        /// How long it is.
        len: u32,
    },
    /// Stop the firmware.
    Stop,
    /// Everything as after power-on.
    Reset,
}

/// The state that registers and engine share.
pub struct State {
    pub(super) counters: Counters,
    pub(super) notifier: Notifier,
    pub(super) link: AtomicU32,
    pub(super) firmware_state: AtomicU32,
    pub(super) epoch: AtomicU32,
    pub(super) heartbeat: AtomicU32,
    pub(super) error: AtomicU32,
    pub(super) finished: AtomicU64,
    pub(super) punted: AtomicU64,
    pub(super) log_head: AtomicU64,
    events: AtomicU32,
    image: Mutex<(u64, u32)>,
    requests: Mutex<Vec<Request>>,
    queues: Mutex<[Queue; QUEUE_COUNT]>,
    queues_changed: AtomicBool,
    mailbox: Mutex<Mailbox>,
    vf_registers: Mutex<Vec<VfRegisters>>,
    vfs: Mutex<Vec<Arc<NetDevice>>>,
    vfs_changed: AtomicBool,
    /// The firmware's log ring and panic text, as last read.
    texts: Mutex<(Vec<u8>, Vec<u8>)>,
}

struct Mailbox {
    request: [u32; MBOX_WORDS],
    reply: [u32; MBOX_WORDS],
    bell: u32,
    done: u32,
    taken: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// As after power-on. `notifier` wakes the engine.
    pub fn new(notifier: Notifier) -> Arc<Self> {
        Arc::new(State {
            counters: Counters::default(),
            notifier,
            link: AtomicU32::new(0),
            firmware_state: AtomicU32::new(FirmwareState::Off as u32),
            epoch: AtomicU32::new(0),
            heartbeat: AtomicU32::new(0),
            error: AtomicU32::new(0),
            finished: AtomicU64::new(0),
            punted: AtomicU64::new(0),
            log_head: AtomicU64::new(0),
            events: AtomicU32::new(0),
            image: Mutex::default(),
            requests: Mutex::default(),
            queues: Mutex::default(),
            queues_changed: AtomicBool::new(false),
            mailbox: Mutex::new(Mailbox {
                request: [0; MBOX_WORDS],
                reply: [0; MBOX_WORDS],
                bell: 0,
                done: 0,
                taken: true,
            }),
            vf_registers: Mutex::new(vec![VfRegisters::default(); usize::from(TOTAL_VFS)]),
            vfs: Mutex::default(),
            vfs_changed: AtomicBool::new(false),
            texts: Mutex::default(),
        })
    }

    pub(super) fn event(&self, bits: u32) {
        self.events.fetch_or(bits, AcqRel);
    }

    pub(super) fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut *lock(&self.requests))
    }

    fn request(&self, request: Request) {
        lock(&self.requests).push(request);
        self.notifier.notify();
    }

    /// The PF queues, if the driver has changed any.
    pub(super) fn changed_queues(&self) -> Option<[Queue; QUEUE_COUNT]> {
        self.queues_changed.swap(false, AcqRel).then(|| *lock(&self.queues))
    }

    pub(super) fn set_queue_state(&self, queue: usize, state: u32) {
        if let Some(q) = lock(&self.queues).get_mut(queue) {
            q.state = state;
        }
    }

    /// The VFs, if they have changed.
    pub(super) fn changed_vfs(&self) -> Option<Vec<Arc<NetDevice>>> {
        self.vfs_changed.swap(false, AcqRel).then(|| lock(&self.vfs).clone())
    }

    /// Packets of a VF that may be at the host.
    pub(super) fn share(&self, vf: usize) -> u32 {
        lock(&self.vf_registers).get(vf).map_or(0, |v| v.words[4])
    }

    /// A mailbox request that has not been taken yet.
    pub(super) fn take_mail(&self) -> Option<[u32; MBOX_WORDS]> {
        let mut mailbox = lock(&self.mailbox);
        (!mailbox.taken).then(|| {
            mailbox.taken = true;
            mailbox.request
        })
    }

    pub(super) fn answer_mail(&self, reply: [u32; MBOX_WORDS]) {
        let mut mailbox = lock(&self.mailbox);
        mailbox.reply = reply;
        mailbox.done = mailbox.bell;
    }

    pub(super) fn set_texts(&self, log: Vec<u8>, panic: Option<Vec<u8>>) {
        let mut texts = lock(&self.texts);
        texts.0 = log;
        if let Some(panic) = panic {
            texts.1 = panic;
        }
    }

    fn queue_register(&self, offset: u32, write: Option<u32>) -> u32 {
        let (n, register) = ((offset - regs::QUEUES) / regs::QUEUE_STRIDE, offset % regs::QUEUE_STRIDE);
        if register == regs::QUEUE_BELL {
            self.notifier.notify();
            return 0;
        }
        let mut queues = lock(&self.queues);
        let Some(queue) = queues.get_mut(n as usize) else { return 0 };
        let Some(value) = write else {
            return match register {
                regs::QUEUE_BASE_LOW => queue.base as u32,
                regs::QUEUE_BASE_HIGH => (queue.base >> 32) as u32,
                regs::QUEUE_SIZE => queue.size_log2,
                regs::QUEUE_STATE => queue.state,
                _ => 0,
            };
        };
        match register {
            regs::QUEUE_BASE_LOW => queue.base = queue.base >> 32 << 32 | u64::from(value),
            regs::QUEUE_BASE_HIGH => queue.base = queue.base & 0xffff_ffff | u64::from(value) << 32,
            regs::QUEUE_SIZE => queue.size_log2 = value,
            regs::QUEUE_STATE => {
                queue.state = if value == 1 { regs::QUEUE_RUNNING } else { 0 };
                queue.starts = queue.starts.wrapping_add(value & 1);
                self.queues_changed.store(true, Release);
                self.notifier.notify();
            }
            _ => {}
        }
        0
    }

    fn vf_register(&self, offset: u32, write: Option<u32>) -> u32 {
        let (n, register) = ((offset - regs::VFS) / regs::VF_STRIDE, offset % regs::VF_STRIDE);
        let device = lock(&self.vfs).get(n as usize).cloned();
        if register == regs::VF_DRIVER_OK {
            return u32::from(device.is_some_and(|d| d.is_running()));
        }
        let config = {
            let mut all = lock(&self.vf_registers);
            let Some(vf) = all.get_mut(n as usize) else { return 0 };
            let word = &mut vf.words[(register / 4) as usize];
            let Some(value) = write else { return *word };
            *word = value;
            config_of(vf)
        };
        // The flags are written last: a VF that is in use follows then.
        if register == regs::VF_FLAGS
            && let Some(device) = device
        {
            device.set_config(config);
        }
        0
    }

    fn counter(&self, offset: u32) -> u32 {
        let value = match offset & !4 {
            regs::FW_FINISHED => self.finished.load(Relaxed),
            regs::FW_PUNTED => self.punted.load(Relaxed),
            at if at >= regs::PORTS => {
                let (port, word) = ((at - regs::PORTS) / regs::PORT_STRIDE, at % regs::PORT_STRIDE / 8);
                self.counters.port(port as usize, word as usize)
            }
            at => self.counters.dropped(((at - regs::DROPS) / 8) as usize),
        };
        if offset & 4 == 0 { value as u32 } else { (value >> 32) as u32 }
    }

    fn text(&self, offset: u32) -> u32 {
        let texts = lock(&self.texts);
        let (text, at) = if offset < regs::PANIC {
            (&texts.0, offset - regs::LOG)
        } else {
            (&texts.1, offset - regs::PANIC)
        };
        let bytes = text.get(at as usize..at as usize + 4).map(|b| [b[0], b[1], b[2], b[3]]);
        bytes.map_or(0, u32::from_le_bytes)
    }
}

fn config_of(vf: &VfRegisters) -> VfConfig {
    let [low, high, mtu, flags, ..] = vf.words;
    let [a, b, c, d] = low.to_le_bytes();
    let [e, f, ..] = high.to_le_bytes();
    let mtu = mtu.clamp(68, 9000) as u16;
    VfConfig {
        allow_mac_change: flags & regs::VF_ALLOW_MAC != 0,
        allow_promisc: flags & regs::VF_ALLOW_PROMISC != 0,
        link_up: flags & regs::VF_LINK_UP != 0,
        ..VfConfig::new([a, b, c, d, e, f], mtu)
    }
}

const MBOX_REQUEST_END: u32 = regs::MBOX_REQUEST + 4 * MBOX_WORDS as u32;
const MBOX_REPLY_END: u32 = regs::MBOX_REPLY + 4 * MBOX_WORDS as u32;
const QUEUES_END: u32 = regs::QUEUES + regs::QUEUE_STRIDE * QUEUE_COUNT as u32;
const VFS_END: u32 = regs::VFS + regs::VF_STRIDE * TOTAL_VFS as u32;
const PORTS_END: u32 = regs::PORTS + regs::PORT_STRIDE * PORTS as u32;

impl Registers for State {
    fn read32(&self, offset: u32) -> u32 {
        match offset {
            regs::MAGIC => regs::MAGIC_VALUE,
            regs::ABI => culvert_abi::VERSION,
            regs::CAPS => 2 | u32::from(TOTAL_VFS) << 8 | (QUEUE_COUNT as u32) << 16,
            regs::LINK => self.link.load(Acquire),
            regs::FW_STATE => self.firmware_state.load(Acquire),
            regs::FW_EPOCH => self.epoch.load(Acquire),
            regs::FW_HEARTBEAT => self.heartbeat.load(Acquire),
            regs::FW_ERROR => self.error.load(Acquire),
            regs::FW_IMAGE_LOW => lock(&self.image).0 as u32,
            regs::FW_IMAGE_HIGH => (lock(&self.image).0 >> 32) as u32,
            regs::FW_IMAGE_LEN => lock(&self.image).1,
            regs::EVENTS => self.events.swap(0, AcqRel),
            regs::LOG_HEAD => self.log_head.load(Acquire) as u32,
            regs::MBOX_BELL => lock(&self.mailbox).bell,
            regs::MBOX_DONE => lock(&self.mailbox).done,
            regs::MBOX_REQUEST..MBOX_REQUEST_END => {
                lock(&self.mailbox).request[((offset - regs::MBOX_REQUEST) / 4) as usize]
            }
            regs::MBOX_REPLY..MBOX_REPLY_END => {
                lock(&self.mailbox).reply[((offset - regs::MBOX_REPLY) / 4) as usize]
            }
            regs::QUEUES..QUEUES_END => self.queue_register(offset, None),
            regs::VFS..VFS_END => self.vf_register(offset, None),
            regs::LOG..0x3200 => self.text(offset),
            regs::DROPS..PORTS_END => self.counter(offset),
            _ => 0,
        }
    }

    fn write32(&self, offset: u32, value: u32) {
        match offset {
            regs::FW_IMAGE_LOW => {
                let mut image = lock(&self.image);
                image.0 = image.0 >> 32 << 32 | u64::from(value);
            }
            regs::FW_IMAGE_HIGH => {
                let mut image = lock(&self.image);
                image.0 = image.0 & 0xffff_ffff | u64::from(value) << 32;
            }
            regs::FW_IMAGE_LEN => lock(&self.image).1 = value,
            regs::FW_CONTROL if value == regs::FW_START => {
                let (image, len) = *lock(&self.image);
                self.error.store(0, Release);
                self.firmware_state.store(FirmwareState::Booting as u32, Release);
                self.request(Request::Start { image, len });
            }
            regs::FW_CONTROL if value == regs::FW_STOP => self.request(Request::Stop),
            regs::MBOX_REQUEST..MBOX_REQUEST_END => {
                lock(&self.mailbox).request[((offset - regs::MBOX_REQUEST) / 4) as usize] = value;
            }
            regs::MBOX_BELL => {
                let mut mailbox = lock(&self.mailbox);
                mailbox.bell = value;
                mailbox.taken = false;
                drop(mailbox);
                self.notifier.notify();
            }
            regs::QUEUES..QUEUES_END => drop(self.queue_register(offset, Some(value))),
            regs::VFS..VFS_END => drop(self.vf_register(offset, Some(value))),
            _ => {}
        }
    }

    fn reset(&self) {
        lock(&self.vf_registers).fill(VfRegisters::default());
        *lock(&self.queues) = Default::default();
        self.queues_changed.store(true, Release);
        self.request(Request::Reset);
    }

    fn vf_config(&self, index: u16) -> VfConfig {
        config_of(&lock(&self.vf_registers).get(usize::from(index)).copied().unwrap_or_default())
    }

    fn vfs_changed(&self, vfs: &[Arc<NetDevice>]) {
        *lock(&self.vfs) = vfs.to_vec();
        self.vfs_changed.store(true, Release);
        self.event(regs::EVENT_VF);
        self.notifier.notify();
    }

    /// The rings lie in memory that disappears with the driver; VFs, tables and firmware keep running.
    fn disconnected(&self) {
        for queue in lock(&self.queues).iter_mut() {
            queue.state = 0;
        }
        self.queues_changed.store(true, Release);
        self.notifier.notify();
    }
}
