//! The SoC: its memory, its processor (`qemu-system-riscv64`) and the rings between board and firmware.
//!
//! [`Soc`] needs nothing of the PCIe side: the lockstep test and the benchmarks drive it directly.

mod doorbells;
mod error;
mod options;
mod owners;
mod processor;
mod ram;
mod rings;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use culvert_abi::image::{Header, ImageError};
use culvert_abi::regs::{LOG_LEN, MBOX_WORDS, PANIC_LEN};
use culvert_abi::soc::{self, CTRL, LOG, PANIC, RAM_BASE, ctrl};

use self::doorbells::Doorbells;
pub use self::error::SocError;
pub use self::options::Options;
pub use self::owners::Owners;
use self::processor::Processor;
use self::ram::{CTRL_LEN, Ram};
pub use self::rings::{FromFirmware, Rings};

/// The SoC.
pub struct Soc {
    ram: Ram,
    rings: Rings,
    owners: Owners,
    doorbells: Doorbells,
    processor: Option<Processor>,
    options: Options,
    epoch: u32,
    request: u32,
}

impl Soc {
    /// A SoC with memory, switched off.
    ///
    /// # Errors
    /// The system has no memory or no descriptors left.
    pub fn new(options: Options) -> Result<Self, SocError> {
        Ok(Soc {
            ram: Ram::new()?,
            rings: Rings::new(),
            owners: Owners::new(),
            doorbells: Doorbells::new()?,
            processor: None,
            options,
            epoch: 0,
            request: 0,
        })
    }

    /// Checks an image: header, bounds, CRC-32.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn check(image: &[u8]) -> Result<(Header, &[u8]), ImageError> {
        let (header, flat) = Header::parse(image)?;
        if crc32fast::hash(flat) != header.crc {
            return Err(ImageError::Crc);
        }
        Ok((header, flat))
    }

    /// Loads an image and starts the processor under a new epoch; rings are empty, all buffers the board's. A running
    /// processor is stopped first.
    ///
    /// # Errors
    /// The image is refused, or the emulator does not start.
    pub fn start(&mut self, image: &[u8]) -> Result<(), SocError> {
        let (header, flat) = Self::check(image).map_err(SocError::Image)?;
        self.stop();
        self.epoch += 1;
        self.ram.write(header.load - RAM_BASE, flat);
        self.ram.fill(CTRL, CTRL_LEN, 0);
        self.ram.fill(PANIC, u64::from(PANIC_LEN), 0);
        self.word(ctrl::EPOCH).store(self.epoch, Relaxed);
        self.word(ctrl::FLOWS_LOG2).store(self.options.flows_log2, Relaxed);
        self.word(ctrl::BENCH).store(u32::from(self.options.count_instructions), Release);
        self.rings = Rings::new();
        self.processor = Some(Processor::start(&self.options, &self.ram, &self.doorbells)?);
        Ok(())
    }

    /// Stops the processor. Its memory stays as it is.
    pub fn stop(&mut self) {
        self.processor = None;
    }

    /// Whether the processor runs. It does not after its process has ended.
    pub fn is_running(&mut self) -> bool {
        self.processor.as_mut().is_some_and(Processor::is_running)
    }

    /// Where its memory lies, as the processor's command line names it.
    pub fn memory_path(&self) -> String {
        self.ram.path()
    }

    /// Number of the process that emulates the processor.
    pub fn process(&self) -> Option<u32> {
        self.processor.as_ref().map(Processor::id)
    }

    /// Whether the firmware serves its rings.
    pub fn is_ready(&self) -> bool {
        self.word(ctrl::FW_READY).load(Acquire) == soc::READY
            && self.word(ctrl::FW_ABI).load(Acquire) == culvert_abi::VERSION
    }

    /// Waits until the firmware is ready.
    ///
    /// # Errors
    /// It is not within the limit, or its process ends.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<(), SocError> {
        let end = Instant::now() + limit;
        while !self.is_ready() {
            if Instant::now() > end || !self.is_running() {
                return Err(self.silent("become ready", limit));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn silent(&self, what: &'static str, limit: Duration) -> SocError {
        let panic = match self.panic_text() {
            text if text.is_empty() => text,
            text => format!(": {text}"),
        };
        SocError::Silent { what, seconds: limit.as_secs(), panic }
    }

    /// Counts up while the firmware lives.
    pub fn heartbeat(&self) -> u32 {
        self.word(ctrl::HEARTBEAT).load(Acquire)
    }

    /// Number of starts.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// A word of the control block.
    pub fn word(&self, offset: u64) -> &std::sync::atomic::AtomicU32 {
        self.ram.control32(offset)
    }

    /// A 64-bit word of the control block.
    pub fn word64(&self, offset: u64) -> u64 {
        self.ram.control64(offset).load(Acquire)
    }

    /// The packet buffers and their owners.
    pub fn owners(&mut self) -> &mut Owners {
        &mut self.owners
    }

    /// A buffer's memory. `None`: there is no such buffer, or the firmware owns it.
    pub fn buffer(&mut self, number: u32) -> Option<&mut [u8]> {
        self.owners.board_owns(number).then(|| self.ram.buffer(number))
    }

    /// Room in the ring to the firmware.
    pub fn room(&self) -> u32 {
        self.rings.room(&self.ram)
    }

    /// Puts a descriptor into the ring to the firmware, which then owns its buffer. `false`: no room, nothing happened.
    pub fn push(&mut self, descriptor: &soc::Descriptor) -> bool {
        self.rings.push(&mut self.ram, &mut self.owners, descriptor)
    }

    /// Shows the firmware what was pushed, and notifies it if it sleeps.
    pub fn publish(&mut self) {
        if self.rings.publish(&self.ram) {
            self.doorbells.notify_firmware();
        }
    }

    /// The next descriptor from the firmware, checked. The board owns a buffer that it releases; the caller passes it to
    /// [`Owners::free`] after use.
    pub fn poll(&mut self) -> Option<FromFirmware> {
        self.rings.poll(&self.ram, &mut self.owners)
    }

    /// Tells the firmware how far its ring was read.
    pub fn consumed(&self) {
        self.rings.consumed(&self.ram);
    }

    /// Header scratch and frame of a descriptor that was polled and not yet passed by [`consumed`](Self::consumed).
    pub fn parts(&self, from: &FromFirmware) -> (&[u8], &[u8]) {
        self.rings.parts(&self.ram, from)
    }

    /// Takes all buffers back that the firmware owns, and returns the ports of the packets in them.
    pub fn reclaim(&mut self) -> Vec<u16> {
        self.owners.reclaim()
    }

    /// Puts a request into the mailbox.
    pub fn send_mail(&mut self, words: &[u32]) {
        for i in 0..MBOX_WORDS {
            let value = words.get(i).copied().unwrap_or(0);
            self.word(ctrl::MBOX_REQUEST + 4 * i as u64).store(value, Relaxed);
        }
        self.request = self.request.wrapping_add(1).max(1);
        self.word(ctrl::MBOX_BELL).store(self.request, Release);
        self.doorbells.notify_firmware();
    }

    /// The answer to the last request, once it is there.
    pub fn mail_reply(&self) -> Option<[u32; MBOX_WORDS]> {
        (self.word(ctrl::MBOX_DONE).load(Acquire) == self.request)
            .then(|| std::array::from_fn(|i| self.word(ctrl::MBOX_REPLY + 4 * i as u64).load(Relaxed)))
    }

    /// A request to the mailbox, and its answer.
    ///
    /// # Errors
    /// No answer within the limit.
    pub fn mailbox(&mut self, words: &[u32], limit: Duration) -> Result<[u32; MBOX_WORDS], SocError> {
        self.send_mail(words);
        let end = Instant::now() + limit;
        loop {
            if let Some(reply) = self.mail_reply() {
                return Ok(reply);
            }
            if Instant::now() > end {
                return Err(self.silent("answer its mailbox", limit));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Announces that the board is about to sleep on [`doorbell`](Self::doorbell). `false`: there is work, it must not.
    pub fn may_sleep(&self) -> bool {
        self.rings.may_sleep(&self.ram)
    }

    /// The board is awake: the firmware need not notify it.
    pub fn awake(&self) {
        self.word(ctrl::BOARD_SLEEPS).store(0, Release);
        self.doorbells.clear();
    }

    /// Becomes readable when the firmware notifies the board.
    pub fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbells.to_board.as_fd()
    }

    /// The firmware's panic or trap message.
    pub fn panic_text(&self) -> String {
        let mut text = vec![0; PANIC_LEN as usize];
        self.ram.read(PANIC, &mut text);
        let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
        String::from_utf8_lossy(&text[..end]).into_owned()
    }

    /// Bytes ever logged, and the log ring.
    pub fn log(&self) -> (u64, Vec<u8>) {
        let mut ring = vec![0; LOG_LEN as usize];
        self.ram.read(LOG, &mut ring);
        (self.word64(ctrl::LOG_HEAD), ring)
    }
}
