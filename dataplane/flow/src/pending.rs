//! Pending flows: keep a flow's packets in order while the host decides on it.
//!
//! A miss makes a pending record. Packets of its key go to the host, and are counted, until the host has decided; later
//! ones wait. Each packet that comes back (re-injected, or reported as dropped) completes one upcall. With the last one
//! the waiting packets are sent and the record goes live: a flow's packets leave in the order in which they came.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::table::RecordId;

/// A packet buffer of the engine, by number.
pub type BufferId = u32;

/// The name of a pending flow between NIC and host: slot number and its use count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ticket {
    /// The slot.
    pub slot: u16,
    /// Changes with each use of the slot; never 0 in a valid ticket.
    pub sequence: u16,
}

impl Ticket {
    /// The ticket as it is in a descriptor: slot in the low half; 0 is no ticket.
    pub fn bits(self) -> u32 {
        u32::from(self.slot) | u32::from(self.sequence) << 16
    }

    /// From a descriptor.
    pub fn from_bits(bits: u32) -> Option<Self> {
        let ticket = Ticket { slot: bits as u16, sequence: (bits >> 16) as u16 };
        (ticket.sequence != 0).then_some(ticket)
    }
}

/// One pending flow.
#[derive(Clone, Copy, Default, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PendingFlow {
    record: u32,
    /// Packets at the host.
    outstanding: u32,
    /// First and last waiting buffer, when `waiting` is not 0.
    head: u32,
    tail: u32,
    waiting: u16,
    sequence: u16,
    /// 0 free, 1 undecided, 2 decided.
    state: u16,
    reserved: u16,
}

const FREE: u16 = 0;
const UNDECIDED: u16 = 1;
const DECIDED: u16 = 2;

/// State of a pending flow after upcalls have completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completion {
    /// More upcalls are outstanding.
    Outstanding,
    /// All are complete and the host has decided: send the waiting packets, then make the record live.
    Live(RecordId),
    /// All are complete and the host has not decided: the record is deleted.
    Undecided(RecordId),
    /// The ticket is not valid, or no longer.
    Stale,
}

/// All pending flows, in memory that the caller provides.
pub struct Pending<'m> {
    slots: &'m mut [PendingFlow],
    /// For each buffer, the next in its waiting list.
    links: &'m mut [BufferId],
    next: u16,
    used: u16,
    limit: u16,
}

impl<'m> Pending<'m> {
    /// A set without pending flows. Uses at most 65,534 slots; `limit` bounds the packets that wait on one flow.
    pub fn new(slots: &'m mut [PendingFlow], links: &'m mut [BufferId], limit: u16) -> Self {
        for slot in slots.iter_mut() {
            *slot = PendingFlow { sequence: slot.sequence, ..PendingFlow::default() };
        }
        let n = slots.len().min(usize::from(u16::MAX) - 1);
        Pending { slots: &mut slots[..n], links, next: 0, used: 0, limit }
    }

    /// How many flows can be pending.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// How many flows are pending.
    pub fn len(&self) -> usize {
        usize::from(self.used)
    }

    /// Whether no flow is pending.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Opens a slot for a record, with one packet on its way to the host. `None`: all are in use.
    pub fn open(&mut self, record: RecordId) -> Option<Ticket> {
        let n = self.slots.len();
        if usize::from(self.used) >= n {
            return None;
        }
        let slot = (0..n).map(|i| (usize::from(self.next) + i) % n).find(|&i| self.slots[i].state == FREE)?;
        let sequence = self.slots[slot].sequence.wrapping_add(1).max(1);
        self.slots[slot] = PendingFlow {
            record: record.0,
            outstanding: 1,
            sequence,
            state: UNDECIDED,
            ..PendingFlow::default()
        };
        self.next = ((slot + 1) % n) as u16;
        self.used += 1;
        Some(Ticket { slot: slot as u16, sequence })
    }

    fn get(&mut self, ticket: Ticket) -> Option<&mut PendingFlow> {
        self.slots
            .get_mut(usize::from(ticket.slot))
            .filter(|s| s.state != FREE && s.sequence == ticket.sequence)
    }

    /// Adds one packet to a pending flow: the ticket, if it goes to the host; `None`, if it must wait.
    pub fn ticket(&mut self, slot: u16) -> Option<Ticket> {
        let s = self.slots.get_mut(usize::from(slot)).filter(|s| s.state == UNDECIDED)?;
        s.outstanding += 1;
        Some(Ticket { slot, sequence: s.sequence })
    }

    /// Marks the flow of a slot as decided.
    pub fn decide(&mut self, slot: u16) {
        if let Some(s) = self.slots.get_mut(usize::from(slot)).filter(|s| s.state == UNDECIDED) {
            s.state = DECIDED;
        }
    }

    /// Puts a buffer at the end of a slot's waiting list. `false`: the list is full.
    pub fn wait(&mut self, slot: u16, buffer: BufferId) -> bool {
        let limit = self.limit;
        let Some(s) = self.slots.get_mut(usize::from(slot)).filter(|s| s.state == DECIDED) else {
            return false;
        };
        if s.waiting >= limit || buffer as usize >= self.links.len() {
            return false;
        }
        if s.waiting == 0 {
            s.head = buffer;
        } else {
            self.links[s.tail as usize] = buffer;
        }
        s.tail = buffer;
        s.waiting += 1;
        true
    }

    /// The buffer that has waited longest on a slot.
    pub fn next_waiting(&mut self, slot: u16) -> Option<BufferId> {
        let s = self.slots.get_mut(usize::from(slot)).filter(|s| s.state == DECIDED && s.waiting > 0)?;
        let buffer = s.head;
        s.head = self.links[buffer as usize];
        s.waiting -= 1;
        Some(buffer)
    }

    /// The record that a ticket stands for, if the host has decided on it.
    pub fn decided(&self, ticket: Ticket) -> Option<RecordId> {
        self.slots
            .get(usize::from(ticket.slot))
            .filter(|s| s.state == DECIDED && s.sequence == ticket.sequence)
            .map(|s| RecordId(s.record))
    }

    /// Completes `count` upcalls of a flow.
    pub fn complete_upcall(&mut self, ticket: Ticket, count: u32) -> Completion {
        let Some(s) = self.get(ticket) else { return Completion::Stale };
        s.outstanding = s.outstanding.saturating_sub(count);
        match (s.outstanding, s.state) {
            (0, DECIDED) => Completion::Live(RecordId(s.record)),
            (0, _) => Completion::Undecided(RecordId(s.record)),
            _ => Completion::Outstanding,
        }
    }

    /// Frees a slot. Its waiting list must be empty.
    pub fn close(&mut self, slot: u16) {
        if let Some(s) = self.slots.get_mut(usize::from(slot)).filter(|s| s.state != FREE) {
            s.state = FREE;
            self.used -= 1;
        }
    }

    /// The first slot in use from number `from` on: slot, its record and outstanding upcalls.
    pub fn used_from(&self, from: u16) -> Option<(u16, RecordId, u32)> {
        self.slots
            .iter()
            .enumerate()
            .skip(usize::from(from))
            .find(|(_, s)| s.state != FREE)
            .map(|(i, s)| (i as u16, RecordId(s.record), s.outstanding))
    }
}
