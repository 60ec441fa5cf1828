//! A virtio-net device: what its driver sees in registers, its life from reset to `DRIVER_OK`, and its interrupts.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use culvert_packet::Reason;
use culvert_virtio::{Options, Ring, RingFault, feature};

use super::capabilities::add_capabilities;
use super::config::{Discard, VfConfig};
use super::control::{Port, RxMode};
use super::counters::{Counters, Live};
use super::features::{
    CONTROL, LINK_UP, MAX_QUEUE_SIZE, NO_VECTOR, OFFERED, QUEUES, RX, TX, VECTORS, bar, status,
};
use super::messaged::Messaged;
use super::notifier::Notifier;
use super::registers::{Effect, Registers};
use super::slot::{Queue, QueueSlot, lock};
use crate::dma::Memory;
use crate::pci::{Bar, Endpoint, Identity};

/// BAR 0 of every VF: the virtio structures.
pub const VIRTIO_BAR: Bar = Bar { index: 0, size: bar::LEN };
/// Bits of the ISR status.
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// A virtio-net device on PCI. See the module's page for who calls what.
///
/// Lock order: registers, then rings in ascending order, then the memory's view, then the port, then interrupts.
pub struct NetDevice {
    pub(super) pci: Endpoint,
    /// Offset of the PCI access capability.
    pub(super) window: usize,
    pub(super) memory: Memory,
    notifier: Notifier,
    pub(super) port: Mutex<Port>,
    registers: Mutex<Registers>,
    status: AtomicU8,
    /// As negotiated; 0 before `FEATURES_OK`.
    pub(super) features: AtomicU64,
    generation: AtomicU8,
    isr: AtomicU8,
    config_vector: AtomicU16,
    vectors: [AtomicU16; QUEUES],
    rings: [Mutex<QueueSlot>; QUEUES],
    pub(super) polling: AtomicBool,
    pub(super) control_kicked: AtomicBool,
    pub(super) counters: Live,
    /// Where the queues are served if only messages reach them.
    pub(crate) messaged: Messaged,
    /// Descriptors of receive buffers that the engine has filled in this turn.
    pub(super) rx_descriptors: AtomicUsize,
    warned_of_messages: AtomicBool,
}

impl std::fmt::Debug for NetDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetDevice")
            .field("status", &self.status.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

impl NetDevice {
    /// A device in reset without a client. It notifies `notifier` when its driver kicks, starts or resets it.
    pub fn new(id: Identity, config: VfConfig, notifier: Notifier) -> Self {
        let mut window = 0;
        let pci = Endpoint::new(id, &[VIRTIO_BAR], VECTORS, None, |builder| {
            window = add_capabilities(builder);
        });
        Self {
            pci,
            window,
            memory: Memory::new(),
            notifier,
            port: Mutex::new(Port { mac: config.mac, config, mode: RxMode::default() }),
            registers: Mutex::default(),
            status: AtomicU8::new(0),
            features: AtomicU64::new(0),
            generation: AtomicU8::new(0),
            isr: AtomicU8::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            vectors: [const { AtomicU16::new(NO_VECTOR) }; QUEUES],
            rings: Default::default(),
            polling: AtomicBool::new(false),
            control_kicked: AtomicBool::new(false),
            counters: Live::default(),
            messaged: Messaged::default(),
            rx_descriptors: AtomicUsize::new(0),
            warned_of_messages: AtomicBool::new(false),
        }
    }

    /// The device's PCI side.
    pub fn endpoint(&self) -> &Endpoint {
        &self.pci
    }

    /// What the client has mapped for it.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Whether the driver is running: it said so, no queue has stopped at a fault, and it may use the bus.
    pub fn is_running(&self) -> bool {
        let status = self.status.load(Ordering::Acquire);
        status & (status::DRIVER_OK | status::NEEDS_RESET) == status::DRIVER_OK && self.pci.bus_master()
    }

    /// Counters since the VF came to be.
    pub fn counters(&self) -> Counters {
        self.counters.snapshot()
    }

    /// Transmitted frames discarded since the last call, by the reason under which the board counts them. For one
    /// caller, the engine.
    pub fn take_discards(&self) -> [(Reason, u64); Discard::COUNT] {
        self.counters.new_discards()
    }

    /// Faults since the last call, likewise.
    pub fn take_faults(&self) -> [(Reason, u64); RingFault::COUNT] {
        self.counters.new_faults()
    }

    /// The host's settings.
    pub fn config(&self) -> VfConfig {
        lock(&self.port).config.clone()
    }

    /// Changes the host's settings and tells the guest. An address that the guest had set is overwritten.
    pub fn set_config(&self, config: VfConfig) {
        {
            // virtio 1.2 section 4.1.4.3.1: in the same step, so that what is read between two equal generations is whole
            let mut port = lock(&self.port);
            self.generation.fetch_add(1, Ordering::AcqRel);
            port.mac = config.mac;
            port.config = config;
        }
        self.config_changed();
    }

    /// The address in use: the host's, or the guest's where that is allowed.
    pub fn mac(&self) -> [u8; 6] {
        lock(&self.port).mac
    }

    /// The guest's receive filters, as far as the host allows them.
    pub fn rx_mode(&self) -> RxMode {
        lock(&self.port).mode.clone()
    }

    /// Reads BAR `index`.
    pub fn bar_read(&self, index: u32, offset: u64, into: &mut [u8]) {
        into.fill(0);
        if self.pci.is_msix_bar(index) {
            return self.pci.msix().read(offset, into);
        }
        let (page, at) = (offset as u32 & !(bar::PAGE - 1), offset as usize & (bar::PAGE as usize - 1));
        match page {
            bar::COMMON => {
                let image = lock(&self.registers).image(
                    self.offered(),
                    self.config_vector.load(Ordering::Relaxed),
                    self.status.load(Ordering::Acquire),
                    self.generation.load(Ordering::Acquire),
                );
                copy_from(&image, at, into);
            }
            // virtio 1.2 section 4.1.4.5: reading clears, and lowers the line
            bar::ISR if at == 0 => {
                if let Some(first) = into.first_mut() {
                    *first = self.isr.swap(0, Ordering::AcqRel);
                    self.set_line();
                }
            }
            bar::DEVICE => copy_from(&self.device_config(), at, into),
            _ => {}
        }
    }

    /// Writes BAR `index`.
    pub fn bar_write(&self, index: u32, offset: u64, from: &[u8]) {
        if self.pci.is_msix_bar(index) {
            return self.pci.msix().write(offset, from);
        }
        let (page, at) = (offset as u32 & !(bar::PAGE - 1), offset & (u64::from(bar::PAGE) - 1));
        match page {
            // A 64-bit address may be written at once or in halves (4.1.3.1).
            bar::COMMON => {
                for (i, part) in from.chunks(4).enumerate() {
                    let mut value = [0; 4];
                    value[..part.len()].copy_from_slice(part);
                    self.common_write(at + 4 * i as u64, part.len(), u32::from_le_bytes(value));
                }
            }
            bar::NOTIFY => self.kicked((at / u64::from(bar::NOTIFY_STRIDE)) as usize),
            _ => {}
        }
    }

    fn common_write(&self, offset: u64, len: usize, value: u32) {
        let mut registers = lock(&self.registers);
        match registers.write(offset, len, value) {
            Effect::None => {}
            Effect::ConfigVector(vector) => self.config_vector.store(vector, Ordering::Relaxed),
            Effect::QueueVector(index) => {
                self.vectors[index].store(registers.queues[index].vector, Ordering::Relaxed);
            }
            Effect::Status(0) => self.reset_virtio(&mut registers),
            Effect::Status(value) => self.set_status(value, registers.driver_features),
            Effect::Enable(index) => self.enable(index, &registers),
        }
    }

    fn set_status(&self, value: u8, driver_features: u64) {
        let old = self.status.load(Ordering::Acquire);
        let mut new = value;
        if new & !old & status::FEATURES_OK != 0 {
            let fits = driver_features & !self.offered() == 0 && driver_features & feature::VERSION_1 != 0;
            if fits {
                self.features.store(driver_features, Ordering::Release);
            } else {
                // The driver reads it back and gives up (3.1.1).
                new &= !status::FEATURES_OK;
            }
        }
        // Only a reset ends the need of one.
        self.status.store(new | old & status::NEEDS_RESET, Ordering::Release);
        if new & !old & status::DRIVER_OK != 0 {
            self.notifier.notify();
        }
    }

    fn enable(&self, index: usize, registers: &Registers) {
        let event_idx = self.features.load(Ordering::Acquire) & feature::EVENT_IDX != 0;
        let layout = registers.queues[index].layout;
        let mut slot = lock(&self.rings[index]);
        match layout.check(MAX_QUEUE_SIZE) {
            Ok(()) => {
                let ring = Ring::new(layout.size, Options { event_idx, indirect: false }, 0);
                slot.queue = Some(Queue { ring, layout, fresh: true });
            }
            Err(fault) => self.stop(index, &mut slot, fault),
        }
    }

    fn kicked(&self, index: usize) {
        self.counters.kick();
        if index == CONTROL {
            self.control_kicked.store(true, Ordering::Release);
        }
        if self.messaged.is_on() {
            self.messaged.note_kick();
        } else {
            self.notifier.notify();
        }
    }

    /// A frame waits for the engine.
    pub(super) fn wake_engine(&self) {
        self.notifier.notify();
    }

    /// The device's state after a reset by its driver, which is complete when this returns.
    fn reset_virtio(&self, registers: &mut Registers) {
        // Held to the end: nobody serves the queues meanwhile.
        let _server = self.messaged.withdraw(&self.counters);
        let [rx, tx, control] = &self.rings;
        let mut rings = [lock(rx), lock(tx), lock(control)];
        rings.iter_mut().for_each(|ring| ring.queue = None);
        *registers = Registers::default();
        self.features.store(0, Ordering::Release);
        self.status.store(0, Ordering::Release);
        self.isr.store(0, Ordering::Release);
        self.set_line();
        self.config_vector.store(NO_VECTOR, Ordering::Relaxed);
        self.vectors.iter().for_each(|vector| vector.store(NO_VECTOR, Ordering::Relaxed));
        self.control_kicked.store(false, Ordering::Release);
        let mut port = lock(&self.port);
        port.mac = port.config.mac;
        port.mode = RxMode::default();
        self.notifier.notify();
    }

    /// Function-level reset.
    pub fn reset_function(&self) {
        self.reset_virtio(&mut lock(&self.registers));
        self.pci.reset();
    }

    /// The client is gone: a reset, and nothing of its memory or eventfds is kept.
    pub fn detach(&self) {
        self.reset_function();
        self.messaged.end();
        self.pci.msix().release();
        self.pci.intx().release();
        self.memory.clear();
    }

    pub(super) fn ring(&self, index: usize) -> MutexGuard<'_, QueueSlot> {
        lock(&self.rings[index])
    }

    /// Stops a queue at a fault, and with it the device.
    pub(super) fn stop(&self, index: usize, ring: &mut QueueSlot, fault: RingFault) {
        ring.queue = None;
        self.fault(index, fault);
    }

    /// Notes the fault of a queue that has stopped.
    pub(super) fn fault(&self, index: usize, fault: RingFault) {
        let count = self.counters.fault(fault);
        self.status.fetch_or(status::NEEDS_RESET, Ordering::AcqRel);
        let queue = match index {
            RX => "receive",
            TX => "transmit",
            _ => "control",
        };
        // A guest can reset its device and do it again as often as it likes: it must not fill the log.
        if count.is_power_of_two() {
            let mac = lock(&self.port).config.mac.map(|byte| format!("{byte:02x}")).join(":");
            let reason = fault.reason().as_str();
            tracing::warn!(mac, queue, count, reason, "virtio queue stopped: {fault}");
        }
        self.config_changed();
    }

    /// Says once that messages carry this VF's frames, and what would be better.
    pub(super) fn warn_of_messages(&self) {
        if !self.warned_of_messages.swap(true, Ordering::Relaxed) {
            let mac = lock(&self.port).config.mac.map(|byte| format!("{byte:02x}")).join(":");
            tracing::warn!(
                mac,
                "the VM does not share its memory: each access is a message, and the VF is slow; \
                 start the VM with -object memory-backend-memfd,id=mem,size=SIZE,share=on and \
                 -machine memory-backend=mem"
            );
        }
    }

    fn config_changed(&self) {
        if self.status.load(Ordering::Acquire) & status::DRIVER_OK != 0 {
            self.raise(ISR_CONFIG, self.config_vector.load(Ordering::Relaxed));
        } else {
            self.isr.fetch_or(ISR_CONFIG, Ordering::AcqRel);
        }
    }

    pub(super) fn interrupt_queue(&self, index: usize) {
        self.raise(ISR_QUEUE, self.vectors[index].load(Ordering::Relaxed));
    }

    /// The line is up while the driver has not read what for.
    fn set_line(&self) {
        self.pci.intx().set_level(|| self.isr.load(Ordering::Acquire) != 0);
    }

    /// Interrupts by a vector, and by the line, which is switched off while MSI-X is on.
    fn raise(&self, isr: u8, vector: u16) {
        self.isr.fetch_or(isr, Ordering::AcqRel);
        self.set_line();
        if vector != NO_VECTOR {
            self.counters.interrupt();
            self.pci.interrupt(vector);
        }
    }

    fn offered(&self) -> u64 {
        let platform = if lock(&self.port).config.access_platform { feature::ACCESS_PLATFORM } else { 0 };
        OFFERED | platform
    }

    /// `virtio_net_config` (5.1.4): MAC, status, number of queue pairs, MTU.
    fn device_config(&self) -> [u8; 12] {
        let port = lock(&self.port);
        let mut out = [0; 12];
        out[..6].copy_from_slice(&port.mac);
        out[6..8].copy_from_slice(&(if port.config.link_up { LINK_UP } else { 0 }).to_le_bytes());
        out[8..10].copy_from_slice(&1u16.to_le_bytes());
        out[10..12].copy_from_slice(&port.config.mtu.to_le_bytes());
        out
    }
}

fn copy_from(image: &[u8], at: usize, into: &mut [u8]) {
    for (i, byte) in into.iter_mut().enumerate() {
        *byte = image.get(at.saturating_add(i)).copied().unwrap_or(0);
    }
}
