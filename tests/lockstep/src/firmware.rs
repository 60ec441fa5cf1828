//! The firmware as an engine: events become descriptors, descriptors become outputs.

use std::collections::VecDeque;

use culvert_abi::command::{CellWrite, Op, TunnelCounters};
use culvert_abi::pf::OffloadBits;
use culvert_abi::regs::{MBOX_WORDS, mailbox};
use culvert_abi::soc::{
    BUFFER_COUNT, BUFFER_LEN, CAPTURE, COPY, Descriptor, HEADER_LEN, HEADROOM, NO_BUFFER, RELEASE, Sizes,
};
use culvert_flow::record::{FlowKey, FlowRecord};
use culvert_flow::tables::Vport;
use culvert_logic::{Bus, Firmware, Memory};
use zerocopy::{FromBytes, IntoBytes};

use crate::memory::Store;
use crate::trace::{Dump, Engine, Event, Injected, Input, Output, What};

/// A descriptor from the firmware, with its header and its frame or payload.
pub struct Answer {
    /// The descriptor.
    pub descriptor: Descriptor,
    /// Its header scratch, `header_len` bytes.
    pub header: Vec<u8>,
    /// The frame or payload.
    pub bytes: Vec<u8>,
}

/// A connection to a running firmware.
pub trait Link {
    /// Sends a descriptor to the firmware, with a buffer if it has a payload or needs room for a reply.
    ///
    /// # Errors
    /// The firmware does not accept it.
    fn send(&mut self, descriptor: Descriptor, payload: Option<&[u8]>) -> Result<(), String>;

    /// The next descriptor from the firmware; `None` after the link's time limit.
    fn receive(&mut self) -> Option<Answer>;

    /// A request to the mailbox.
    ///
    /// # Errors
    /// No answer.
    fn mailbox(&mut self, request: &[u32; MBOX_WORDS]) -> Result<[u32; MBOX_WORDS], String>;
}

/// The firmware behind a link.
pub struct FirmwareEngine<L> {
    link: L,
    cookie: u32,
}

impl<L: Link> FirmwareEngine<L> {
    /// An engine on a firmware whose tables are empty.
    pub fn new(link: L) -> Self {
        FirmwareEngine { link, cookie: 0 }
    }

    /// Sends a descriptor and a fence, and collects outputs until the fence's completion.
    fn exchange(
        &mut self,
        now: u32,
        descriptor: Descriptor,
        payload: Option<&[u8]>,
    ) -> Result<(Vec<Output>, Option<Answer>), String> {
        self.cookie += 2;
        let (own, fence) = (self.cookie, self.cookie + 1);
        let wants_completion = Op::from_u8(descriptor.op).is_some_and(|op| op as u8 >= Op::FlowInsert as u8);
        let cookie = if wants_completion { own } else { 0 };
        self.link.send(Descriptor { now, cookie, ..descriptor }, payload)?;
        let fence_descriptor = Descriptor {
            op: Op::Fence as u8,
            cookie: fence,
            buffer: NO_BUFFER,
            now,
            ..Descriptor::default()
        };
        self.link.send(fence_descriptor, None)?;
        let (mut outputs, mut completion) = (Vec::new(), None);
        loop {
            let answer = self.link.receive().ok_or_else(|| format!("no answer to {descriptor:?}"))?;
            let d = &answer.descriptor;
            match Op::from_u8(d.op) {
                Some(Op::Complete) if d.cookie == fence => return Ok((outputs, completion)),
                Some(Op::Complete) if d.cookie == own => completion = Some(answer),
                Some(Op::Complete) => {}
                Some(op) => outputs.push(output(op, &answer)),
                None => return Err(format!("not an operation: {d:?}")),
            }
        }
    }

    fn command(&mut self, now: u32, op: Op, arg0: u32, payload: &[u8]) -> Result<Vec<Output>, String> {
        let descriptor = Descriptor { op: op as u8, arg0, ..Descriptor::default() };
        self.exchange(now, descriptor, Some(payload)).map(|(outputs, _)| outputs)
    }

    /// Reads a whole table, in several commands.
    fn read<T: FromBytes>(&mut self, now: u32, op: Op) -> Result<Vec<T>, String> {
        let (mut all, mut from) = (Vec::new(), 0);
        while from != u32::MAX {
            let descriptor = Descriptor { op: op as u8, arg0: from, ..Descriptor::default() };
            let (_, completion) = self.exchange(now, descriptor, Some(&[]))?;
            let answer = completion.ok_or("a read was not completed")?;
            let next = answer.descriptor.arg0;
            if next <= from {
                return Err(format!("{op:?} does not advance from {from}"));
            }
            from = next;
            for chunk in answer.bytes.chunks_exact(size_of::<T>()) {
                all.push(T::read_from_bytes(chunk).map_err(|_| "an item of the wrong size")?);
            }
        }
        Ok(all)
    }

    fn configure(&mut self, secret: &culvert_flow::HashSecret, router: [u8; 6]) -> Result<(), String> {
        let mut request = [0; MBOX_WORDS];
        request[0] = mailbox::CONFIGURE;
        for (i, word) in secret.0.iter().enumerate() {
            request[1 + 2 * i] = *word as u32;
            request[2 + 2 * i] = (*word >> 32) as u32;
        }
        request[19] = u32::from_le_bytes([router[0], router[1], router[2], router[3]]);
        request[20] = u32::from_le_bytes([router[4], router[5], 0, 0]);
        let reply = self.link.mailbox(&request)?;
        if reply[0] == 0 {
            Ok(())
        } else {
            Err(format!("the firmware refuses its configuration: {}", reply[0]))
        }
    }
}

fn output(op: Op, answer: &Answer) -> Output {
    let d = &answer.descriptor;
    let transmit = op == Op::Transmit;
    let upcall = op == Op::Upcall;
    Output {
        op,
        reason: d.reason,
        port: d.port,
        ticket: if upcall { d.ticket } else { 0 },
        wire: if upcall { (d.inner, d.peer, d.vsid) } else { (0, 0, 0) },
        copies: ((transmit && d.flags & COPY != 0).then_some(d.arg1), transmit && d.flags & CAPTURE != 0),
        bytes: if op == Op::Drop { Vec::new() } else { [&answer.header[..], &answer.bytes[..]].concat() },
    }
}

impl<L: Link> Engine for FirmwareEngine<L> {
    fn run(&mut self, event: &Event) -> Result<Vec<Output>, String> {
        let now = event.now;
        let packet = |op: Op, port: u16| Descriptor { op: op as u8, port, ..Descriptor::default() };
        let (descriptor, bytes): (Descriptor, &[u8]) = match &event.what {
            What::Frame(Input { port, checksum, bytes }) => {
                let offload = OffloadBits { checksum: *checksum, ..OffloadBits::default() };
                (Descriptor { offload, ..packet(Op::Frame, port.bits()) }, bytes)
            }
            What::InjectLookup(Injected { port, ticket, bytes }) => {
                (Descriptor { ticket: *ticket, ..packet(Op::InjectLookup, port.bits()) }, bytes)
            }
            What::InjectOut(Injected { port, ticket, bytes }, target) => {
                let target = target.bits();
                (Descriptor { ticket: *ticket, target, ..packet(Op::InjectOut, port.bits()) }, bytes)
            }
            What::Dropped { port, ticket, count, reason } => {
                let reason = *reason as u8;
                let d = packet(Op::Dropped, port.bits());
                let d = Descriptor { ticket: *ticket, arg0: *count, reason, buffer: NO_BUFFER, ..d };
                return self.exchange(now, d, None).map(|(outputs, _)| outputs);
            }
            What::Configure { secret, router } => {
                self.configure(secret, router.0)?;
                return Ok(Vec::new());
            }
            What::Insert(records) => {
                let mut all = Vec::new();
                for batch in records.chunks(9) {
                    all.extend(self.command(now, Op::FlowInsert, 0, batch.as_bytes())?);
                }
                return Ok(all);
            }
            What::Delete(keys) => return self.command(now, Op::FlowDelete, 0, keys.as_bytes()),
            What::Tunnel(index, new) => {
                return self.command(now, Op::TunnelSet, u32::from(*index), new.as_bytes());
            }
            What::Group(index, new) => {
                return self.command(now, Op::GroupSet, u32::from(*index), new.as_bytes());
            }
            What::Peers(peers) => return self.command(now, Op::PeersSet, 1, peers.as_bytes()),
            What::Local(peers) => return self.command(now, Op::LocalSet, 0, peers.as_bytes()),
            What::Vport(index, new) => {
                return self.command(now, Op::VportSet, u32::from(*index), new.as_bytes());
            }
            What::MapCell(cell, value) => {
                let write = CellWrite { cell: u32::from(*cell), value: *value };
                return self.command(now, Op::CellsSet, 0, write.as_bytes());
            }
            What::VportCell(vport, value) => {
                let write = CellWrite { cell: CellWrite::VPORT + u32::from(*vport), value: *value };
                return self.command(now, Op::CellsSet, 0, write.as_bytes());
            }
            What::HostRestart => return self.command(now, Op::HostRestart, 0, &[]),
        };
        self.exchange(now, descriptor, Some(bytes)).map(|(outputs, _)| outputs)
    }

    fn dump(&mut self, now: u32) -> Result<Dump, String> {
        let tunnels: Vec<TunnelCounters> = self.read(now, Op::TunnelRead)?;
        Ok(Dump {
            drops: self.read(now, Op::DropsRead)?,
            vports: self.read::<Vport>(now, Op::VportRead)?,
            tunnels: tunnels.iter().map(|t| (t.packets, t.bytes)).collect(),
            records: self.read::<FlowRecord>(now, Op::FlowRead)?,
        })
    }
}

impl<L: Link> FirmwareEngine<L> {
    /// The records of up to 30 keys, by the firmware's lookup.
    ///
    /// # Errors
    /// No answer.
    pub fn get(&mut self, now: u32, keys: &[FlowKey]) -> Result<Vec<FlowRecord>, String> {
        let descriptor = Descriptor { op: Op::FlowGet as u8, ..Descriptor::default() };
        let (_, completion) = self.exchange(now, descriptor, Some(keys.as_bytes()))?;
        let answer = completion.ok_or("the read was not completed")?;
        let records = answer.bytes.chunks_exact(size_of::<FlowRecord>());
        records.map(|c| FlowRecord::read_from_bytes(c).map_err(|_| "wrong size".to_owned())).collect()
    }
}

/// The firmware's logic, on this machine: rings are queues, buffers a vector.
pub struct Hosted<'m> {
    firmware: Firmware<'m>,
    bus: VecBus,
}

impl Hosted<'static> {
    /// A firmware with empty tables, which live as long as the program.
    pub fn new(sizes: &Sizes) -> Self {
        Self::with(Store::new(sizes).leak())
    }
}

impl<'m> Hosted<'m> {
    /// A firmware with tables in this memory, which are empty.
    pub fn in_memory(memory: &'m mut Store) -> Self {
        Self::with(memory.lend())
    }

    fn with(memory: Memory<'m>) -> Self {
        Hosted { firmware: Firmware::new(memory, 1).expect("sizes fit each other"), bus: VecBus::new() }
    }
}

impl Link for Hosted<'_> {
    fn send(&mut self, descriptor: Descriptor, payload: Option<&[u8]>) -> Result<(), String> {
        let d = match payload {
            Some(bytes) => self.bus.fill(descriptor, bytes).ok_or("out of buffers")?,
            None => Descriptor { buffer: NO_BUFFER, ..descriptor },
        };
        self.bus.rx.push_back(d);
        self.firmware.poll(&mut self.bus, 32);
        Ok(())
    }

    fn receive(&mut self) -> Option<Answer> {
        let (descriptor, header, bytes) = self.bus.tx.pop_front()?;
        Some(Answer { descriptor, header, bytes })
    }

    fn mailbox(&mut self, request: &[u32; MBOX_WORDS]) -> Result<[u32; MBOX_WORDS], String> {
        Ok(self.firmware.mailbox(request))
    }
}

struct VecBus {
    rx: VecDeque<Descriptor>,
    tx: VecDeque<(Descriptor, Vec<u8>, Vec<u8>)>,
    buffers: Vec<u8>,
    free: Vec<u32>,
    held: Vec<bool>,
    header: [u8; HEADER_LEN as usize],
}

impl VecBus {
    fn new() -> Self {
        VecBus {
            rx: VecDeque::new(),
            tx: VecDeque::new(),
            buffers: vec![0; (BUFFER_COUNT * BUFFER_LEN) as usize],
            free: (0..BUFFER_COUNT).rev().collect(),
            held: vec![false; BUFFER_COUNT as usize],
            header: [0; HEADER_LEN as usize],
        }
    }

    fn fill(&mut self, d: Descriptor, bytes: &[u8]) -> Option<Descriptor> {
        let number = self.free.pop()?;
        self.held[number as usize] = true;
        let offset = HEADROOM as usize;
        let buffer = self.buffer(number)?;
        buffer.get_mut(offset..offset + bytes.len())?.copy_from_slice(bytes);
        Some(Descriptor { buffer: number, offset: offset as u16, len: bytes.len() as u16, ..d })
    }
}

impl Bus for VecBus {
    type Taken = Box<Descriptor>;

    fn receive(&mut self) -> Option<Box<Descriptor>> {
        self.rx.pop_front().map(Box::new)
    }

    fn buffer(&mut self, number: u32) -> Option<&mut [u8]> {
        let at = number as usize * BUFFER_LEN as usize;
        self.buffers.get_mut(at..at + BUFFER_LEN as usize)
    }

    fn header(&mut self) -> &mut [u8; HEADER_LEN as usize] {
        &mut self.header
    }

    fn send(&mut self, d: &Descriptor) {
        let at = usize::from(d.offset);
        let bytes = match self.buffer(d.buffer) {
            Some(buffer) => buffer[at..at + usize::from(d.len)].to_vec(),
            None => Vec::new(),
        };
        let header = self.header[..usize::from(d.header_len)].to_vec();
        self.tx.push_back((*d, header, bytes));
        if d.flags & RELEASE != 0 && d.buffer != NO_BUFFER {
            assert!(
                std::mem::take(&mut self.held[d.buffer as usize]),
                "buffer {} was released twice",
                d.buffer
            );
            self.free.push(d.buffer);
        }
    }
}
