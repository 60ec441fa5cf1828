//! `State`: the board's registers, queues and firmware, and its reaction to the driver's writes.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use culvert_abi::command::Op;
use culvert_abi::image::{Header, ImageError};
use culvert_abi::pf::{Entry, HOST_INDEX, HOST_SLEEPS, NIC_INDEX, RING_HEADER};
use culvert_abi::regs::{self, FirmwareState, MBOX_WORDS, QUEUE_COUNT};
use culvert_abi::soc::{BoardPort, Descriptor, HEADROOM};
use culvert_logic::Firmware;
use culvert_pci::{DmaBuffer, Interrupt};
use zerocopy::IntoBytes;

use crate::soc::{BUFFERS, Soc, tables};

/// A PF queue as the driver programmed it.
#[derive(Default, Clone, Copy)]
pub(crate) struct Queue {
    base: u64,
    log2: u32,
    running: bool,
    index: u32,
}

/// All state of the board.
pub(crate) struct State {
    pub(crate) registers: BTreeMap<u32, u32>,
    pub(crate) memory: Vec<DmaBuffer>,
    pub(crate) next_iova: u64,
    pub(crate) queues: [Queue; QUEUE_COUNT],
    pub(crate) soc: Soc,
    pub(crate) firmware: Option<Firmware<'static>>,
    pub(crate) sent: Vec<(BoardPort, Vec<u8>)>,
    pub(crate) started: Instant,
    /// The image that was loaded.
    pub(crate) image: Vec<u8>,
    pub(crate) starts: u32,
    /// Whether the firmware leaves CONFIGURE unanswered.
    pub(crate) deaf: bool,
}

impl State {
    pub(crate) fn now(&self) -> u32 {
        self.started.elapsed().as_millis() as u32
    }

    pub(crate) fn allocate(&mut self, len: usize) -> culvert_pci::Result<DmaBuffer> {
        let memory = DmaBuffer::detached(self.next_iova, len)?;
        self.next_iova += memory.len() as u64;
        self.memory.push(memory.clone());
        Ok(memory)
    }

    pub(crate) fn set_firmware(&mut self, state: FirmwareState) {
        self.registers.insert(regs::FW_STATE, state as u32);
    }

    pub(crate) fn start(&mut self) {
        self.starts += 1;
        self.registers.insert(regs::FW_EPOCH, self.starts);
        let log = *b"booted..";
        self.registers.insert(regs::LOG_HEAD, 8);
        self.registers.insert(regs::LOG, u32::from_le_bytes([log[0], log[1], log[2], log[3]]));
        self.registers.insert(regs::LOG + 4, u32::from_le_bytes([log[4], log[5], log[6], log[7]]));
        self.soc.rx.clear();
        self.soc.free = (0..BUFFERS as u32).collect();
        self.firmware = Some(Firmware::new(tables(), self.starts).unwrap());
        self.set_firmware(FirmwareState::Ready);
    }

    fn load(&mut self) {
        let iova = u64::from(self.registers[&regs::FW_IMAGE_LOW])
            | u64::from(self.registers[&regs::FW_IMAGE_HIGH]) << 32;
        let mut image = vec![0; self.registers[&regs::FW_IMAGE_LEN] as usize];
        self.read(iova, &mut image);
        let checked = Header::parse(&image)
            .and_then(|(h, flat)| if crc32fast::hash(flat) == h.crc { Ok(()) } else { Err(ImageError::Crc) });
        match checked {
            Ok(()) => {
                self.image = image;
                self.start();
            }
            Err(reason) => {
                self.registers.insert(regs::FW_ERROR, reason as u32);
                self.set_firmware(FirmwareState::Refused);
            }
        }
    }

    fn find(&self, iova: u64) -> (&DmaBuffer, usize) {
        let holds = |m: &&DmaBuffer| (m.iova()..m.iova() + m.len() as u64).contains(&iova);
        let memory = self.memory.iter().find(holds).unwrap_or_else(|| panic!("DMA to {iova:#x}"));
        (memory, (iova - memory.iova()) as usize)
    }

    fn read(&self, iova: u64, data: &mut [u8]) {
        let (memory, at) = self.find(iova);
        memory.read_at(at, data).unwrap();
    }

    fn write(&self, iova: u64, data: &[u8]) {
        let (memory, at) = self.find(iova);
        memory.write_at(at, data).unwrap();
    }

    fn word(&self, iova: u64) -> u32 {
        let (memory, at) = self.find(iova);
        memory.atomic_u32(at).load(Ordering::Acquire)
    }

    fn set_word(&self, iova: u64, value: u32) {
        let (memory, at) = self.find(iova);
        memory.atomic_u32(at).store(value, Ordering::SeqCst);
    }

    fn entry(&self, n: usize) -> (u64, Entry) {
        let q = &self.queues[n];
        let at = q.base + RING_HEADER + u64::from(q.index % (1 << q.log2)) * 64;
        let mut entry = Entry::default();
        self.read(at, entry.as_mut_bytes());
        (at, entry)
    }

    /// Marks the next entry of a queue as done.
    fn complete_entry(&mut self, n: usize) {
        self.queues[n].index = self.queues[n].index.wrapping_add(1);
        self.set_word(self.queues[n].base + NIC_INDEX, self.queues[n].index);
    }

    fn available(&self, n: usize) -> bool {
        let q = &self.queues[n];
        q.running && self.word(q.base + HOST_INDEX) != q.index
    }

    /// Moves entries and packets between the rings and the firmware once.
    pub(crate) fn run_once(&mut self, interrupts: &[Interrupt]) {
        let Some(mut firmware) = self.firmware.take() else { return };
        let beat = self.now() / 50;
        self.registers.insert(regs::FW_HEARTBEAT, beat);
        while self.available(0) && !self.soc.free.is_empty() {
            let (_, e) = self.entry(0);
            let buffer = self.soc.free.pop().unwrap();
            let at = HEADROOM as usize;
            let mut payload = vec![0; e.len as usize];
            if e.len > 0 {
                self.read(e.addr, &mut payload);
            }
            self.soc.buffers[buffer as usize][at..at + payload.len()].copy_from_slice(&payload);
            let now = self.now();
            self.soc.rx.push_back(Descriptor {
                buffer,
                offset: HEADROOM as u16,
                len: e.len as u16,
                op: e.op,
                reason: e.reason,
                port: e.port,
                target: e.target,
                ticket: e.ticket,
                cookie: e.cookie,
                arg0: e.arg0,
                arg1: e.arg1,
                now,
                ..Default::default()
            });
            self.complete_entry(0);
        }
        firmware.poll(&mut self.soc, 1000);
        self.firmware = Some(firmware);
        for (d, bytes) in std::mem::take(&mut self.soc.tx) {
            let base = Entry { op: d.op, reason: d.reason, now: d.now, arg0: d.arg0, ..Entry::default() };
            match Op::from_u8(d.op) {
                Some(Op::Complete) if d.cookie != 0 => {
                    self.deliver(
                        regs::QUEUE_COMPLETION,
                        Entry { cookie: d.cookie, ..base },
                        &bytes,
                        interrupts,
                    );
                }
                Some(Op::Upcall) => {
                    let e = Entry {
                        port: d.vport,
                        peer: d.peer,
                        ticket: d.ticket,
                        inner: d.inner,
                        vsid: d.vsid,
                        ..base
                    };
                    self.deliver(usize::from(d.target), e, &bytes, interrupts);
                }
                Some(Op::Transmit) => match BoardPort::from_bits(d.port) {
                    BoardPort::Queue(n) => {
                        self.deliver(usize::from(n), Entry { port: d.vport, ..base }, &bytes, interrupts);
                    }
                    port => self.sent.push((port, bytes)),
                },
                _ => {}
            }
        }
    }

    /// Writes an entry to the host, and signals the interrupt if the host sleeps.
    fn deliver(&mut self, n: usize, entry: Entry, bytes: &[u8], interrupts: &[Interrupt]) {
        assert!(self.available(n), "no buffer on queue {n}");
        let (at, posted) = self.entry(n);
        assert!(posted.len as usize >= bytes.len());
        self.write(posted.addr, bytes);
        let filled = Entry { addr: posted.addr, len: bytes.len() as u32, ..entry };
        self.write(at, filled.as_bytes());
        self.complete_entry(n);
        if self.word(self.queues[n].base + HOST_SLEEPS) != 0 {
            interrupts[2 + n].signal().unwrap();
        }
    }

    pub(crate) fn write_register(&mut self, offset: u32, value: u32) {
        let end = regs::QUEUES + regs::QUEUE_STRIDE * QUEUE_COUNT as u32;
        match offset {
            regs::FW_CONTROL if value == regs::FW_START => self.load(),
            regs::MBOX_BELL => {
                self.registers.insert(offset, value);
                let Some(firmware) = &mut self.firmware else { return };
                let mut request = [0; MBOX_WORDS];
                for (i, word) in request.iter_mut().enumerate() {
                    *word = self.registers.get(&(regs::MBOX_REQUEST + 4 * i as u32)).copied().unwrap_or(0);
                }
                if self.deaf && request[0] == regs::mailbox::CONFIGURE {
                    return;
                }
                for (i, word) in firmware.mailbox(&request).into_iter().enumerate() {
                    self.registers.insert(regs::MBOX_REPLY + 4 * i as u32, word);
                }
                self.registers.insert(regs::MBOX_DONE, value);
            }
            regs::QUEUES.. if offset < end => {
                let queue = &mut self.queues[((offset - regs::QUEUES) / regs::QUEUE_STRIDE) as usize];
                match offset % regs::QUEUE_STRIDE {
                    regs::QUEUE_BASE_LOW => queue.base = queue.base >> 32 << 32 | u64::from(value),
                    regs::QUEUE_BASE_HIGH => queue.base = queue.base & 0xffff_ffff | u64::from(value) << 32,
                    regs::QUEUE_SIZE => queue.log2 = value,
                    regs::QUEUE_STATE => {
                        queue.running = value == 1;
                        queue.index = 0;
                        self.registers.insert(offset, value);
                    }
                    _ => {}
                }
            }
            _ => {
                self.registers.insert(offset, value);
            }
        }
    }

    pub(crate) fn read_register(&mut self, offset: u32) -> u32 {
        match offset {
            regs::EVENTS => self.registers.insert(offset, 0).unwrap_or(0),
            _ => self.registers.get(&offset).copied().unwrap_or(0),
        }
    }
}
