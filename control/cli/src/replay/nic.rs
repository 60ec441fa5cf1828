//! The core in the place of a NIC: takes frames and the slow path's steps, gives exceptions and what leaves.

mod target;

use std::sync::{Mutex, MutexGuard, PoisonError};

use culvert_abi::pf;
use culvert_abi::soc::{HEADROOM, Sizes};
use culvert_flow::pending::{Completion, Ticket};
use culvert_flow::table::MemoryError;
use culvert_flow::tables::Vport;
use culvert_flow::{Actions, Checksum, Datapath, Frame, OuterInfo, Port, RecordId, Replica, Source, Verdict};
use culvert_packet::{Reason, VportId};
use culvert_pf::Exception;
use culvert_softpath::Punted;

use super::memory;

/// What became of a frame and its copies, so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gone {
    /// What left, by which port.
    pub(super) sent: Vec<(Port, Vec<u8>)>,
    /// What did not, and why.
    pub(super) dropped: Vec<Reason>,
}

/// A NIC without hardware. Everything is done when a call returns.
pub(super) struct CoreNic {
    core: Mutex<Core>,
    flows: u32,
}

struct Core {
    datapath: Datapath<'static>,
    now: u32,
    exceptions: Vec<Punted>,
    gone: Gone,
}

impl CoreNic {
    pub(super) fn new() -> Result<Self, MemoryError> {
        let sizes = Sizes::new(0);
        let core = Core {
            datapath: memory::datapath(&sizes)?,
            now: 0,
            exceptions: Vec::new(),
            gone: Gone::default(),
        };
        Ok(Self { core: Mutex::new(core), flows: sizes.flows })
    }

    /// A frame comes in at a port.
    pub(super) fn frame(&self, input: Port, frame: &[u8]) {
        self.core().packet(input, Source::Port(checksum(input, frame)), frame);
    }

    /// It is now so late, in milliseconds.
    pub(super) fn set_now(&self, now: u32) {
        self.core().now = now;
    }

    /// The packets that the slow path is asked about.
    pub(super) fn take_exceptions(&self) -> Vec<Punted> {
        std::mem::take(&mut self.core().exceptions)
    }

    /// What has left, and what has not.
    pub(super) fn take_gone(&self) -> Gone {
        std::mem::take(&mut self.core().gone)
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        // One thread uses it: a panic on it ends the program.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// As the firmware does it: the core's verdict is carried out.
    fn packet(&mut self, input: Port, source: Source<'_>, bytes: &[u8]) {
        let headroom = HEADROOM as usize;
        let mut buffer = vec![0; headroom + bytes.len()];
        buffer[headroom..].copy_from_slice(bytes);
        let Some(mut frame) = Frame::new(&mut buffer, headroom, bytes.len()) else { return };
        let (dp, now) = (&mut self.datapath, self.now);
        let mut punted = None;
        let verdict = dp.process(&mut frame, input, source, 0, now, &mut punted);
        let out = frame.bytes();
        match verdict {
            Verdict::Forward { to, record, copy, .. } => {
                if copy {
                    let connection = self.datapath.table.cold(record).connection;
                    let inner = self.pushed(record);
                    let e =
                        Exception { copy, connection, inner, ..self.exception(Reason::TcpControl, input) };
                    self.exceptions.push(Punted { exception: e, frame: out.to_vec() });
                }
                self.send(input, to, out);
            }
            Verdict::Answer => self.send(input, input, out),
            Verdict::Replicate { record, group } => self.replicate(input, record, group, out),
            Verdict::Punt { reason, ticket } => {
                let outer = punted.map_or(OuterInfo::default(), |c| c.outer);
                self.punt(input, reason, ticket, outer, out);
            }
            // The core has counted it.
            Verdict::Drop { reason } => self.gone.dropped.push(reason),
            Verdict::Wait => self.drop(input, Reason::PendingOverflow),
        }
    }

    fn exception(&self, reason: Reason, input: Port) -> Exception {
        Exception {
            reason,
            input,
            ticket: None,
            copy: false,
            connection: 0,
            peer: 0,
            inner: 0,
            vsid: 0,
            now: self.now,
            offload: pf::OffloadBits::default(),
        }
    }

    fn punt(&mut self, input: Port, reason: Reason, ticket: Option<Ticket>, outer: OuterInfo, frame: &[u8]) {
        let ticket = ticket.and_then(|t| t.bits().try_into().ok());
        let OuterInfo { inner, peer, vsid, .. } = outer;
        let exception = Exception { ticket, inner, peer, vsid, ..self.exception(reason, input) };
        self.exceptions.push(Punted { exception, frame: frame.to_vec() });
    }

    /// Bytes of outer headers that a record puts on.
    fn pushed(&self, record: RecordId) -> u16 {
        let hot = self.datapath.table.hot(record);
        let pushes = hot.actions().contains(Actions::PUSH_OUTER);
        let tunnel = self.datapath.tunnels.get(usize::from(hot.tunnel)).filter(|_| pushes);
        tunnel.map_or(0, |t| t.header_len.into())
    }

    fn send(&mut self, input: Port, to: Port, frame: &[u8]) {
        match self.check(to) {
            Ok(()) => self.gone.sent.push((to, frame.to_vec())),
            Err(reason) => self.drop(input, reason),
        }
    }

    /// Whether frames may leave by a port.
    fn check(&self, to: Port) -> Result<(), Reason> {
        match to {
            Port::Uplink(_) => Ok(()),
            Port::Vport(VportId(n)) => match self.datapath.vports.get(usize::from(n)) {
                Some(vport) if vport.is_up() => Ok(()),
                Some(vport) if vport.flags & Vport::PRESENT != 0 => Err(Reason::VportDown),
                _ => Err(Reason::NoVport),
            },
            Port::Host | Port::None => Err(Reason::NoVport),
        }
    }

    fn replicate(&mut self, input: Port, record: RecordId, group: u16, frame: &[u8]) {
        let before = self.gone.sent.len();
        if let Some(mut copies) = self.datapath.replication(record, group, input, frame.len()) {
            let mut outer = [0; culvert_packet::MAX_OUTER];
            while let Some(copy) = copies.next_copy(self.datapath.tunnels, &mut outer) {
                match copy {
                    Ok(Replica { to, outer_len }) => {
                        let headers = outer.get(..outer_len).unwrap_or_default();
                        self.send(input, to, &[headers, frame].concat());
                    }
                    Err(reason) => self.drop(input, reason),
                }
            }
        }
        if self.gone.sent.len() == before {
            self.drop(input, Reason::NoReceiver);
        }
    }

    fn drop(&mut self, input: Port, reason: Reason) {
        self.datapath.count_drop(reason, input);
        self.gone.dropped.push(reason);
    }

    /// A packet of a pending flow is back. None waits for that, so that the record is live at once.
    fn complete_upcall(&mut self, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket
            && let Completion::Live(id) = self.datapath.complete_upcall(ticket, 1)
        {
            self.datapath.go_live(ticket, id);
        }
    }
}

/// What the board's checksum engine says of a frame from the wire.
fn checksum(input: Port, frame: &[u8]) -> Checksum {
    match input {
        Port::Uplink(_) => Checksum::verify_outer(frame),
        _ => Checksum::Good,
    }
}
