//! Traces: events, what comes out of them, and their comparison.

use culvert_abi::command::Op;
use culvert_abi::soc::BoardPort;
use culvert_flow::record::{FlowKey, FlowRecord};
use culvert_flow::tables::{Group, Peer, Tunnel, Vport};
use culvert_flow::{HashSecret, Port};
use culvert_packet::{MacAddr, Reason};

/// One thing that happens to a data path.
#[derive(Clone, Debug)]
pub struct Event {
    /// When, milliseconds.
    pub now: u32,
    /// What.
    pub what: What,
}

/// A frame from outside.
#[derive(Clone, Debug)]
pub struct Input {
    /// Where it comes in.
    pub port: BoardPort,
    /// What the checksum engine says of it: numbers of `Offload`.
    pub checksum: u8,
    /// The frame.
    pub bytes: Vec<u8>,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum What {
    /// A frame comes in.
    Frame(Input),
    /// The host sends a frame on the way of its flow.
    InjectLookup(Injected),
    /// The host sends a frame out of a port.
    InjectOut(Injected, Port),
    /// The host drops packets.
    Dropped {
        /// Where they came in.
        port: Port,
        /// Their pending flow.
        ticket: u32,
        /// How many.
        count: u32,
        /// Why.
        reason: Reason,
    },
    /// Hash secret and router MAC; all flows go.
    Configure {
        /// The secret.
        secret: HashSecret,
        /// The router's MAC.
        router: MacAddr,
    },
    /// Records are installed.
    Insert(Vec<FlowRecord>),
    /// Records are deleted.
    Delete(Vec<FlowKey>),
    /// A tunnel is written.
    Tunnel(u16, Box<Tunnel>),
    /// A group is written.
    Group(u16, Box<Group>),
    /// The other hosts' addresses.
    Peers(Vec<Peer>),
    /// Our own addresses.
    Local(Vec<Peer>),
    /// A vport is written.
    Vport(u16, Box<Vport>),
    /// A mapping's generation.
    MapCell(u16, u32),
    /// A vport's generation.
    VportCell(u16, u32),
    /// The host has restarted.
    HostRestart,
}

/// A frame that the host sends.
#[derive(Clone, Debug)]
pub struct Injected {
    /// Where it once came in.
    pub port: Port,
    /// Its pending flow.
    pub ticket: u32,
    /// The frame.
    pub bytes: Vec<u8>,
}

/// One thing that an engine does in answer to an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// `Transmit`, `Upcall` or `Drop`.
    pub op: Op,
    /// Why: of upcalls and drops.
    pub reason: u8,
    /// Where a frame leaves, or where an upcall or dropped packet came in.
    pub port: u16,
    /// The pending flow of an upcall.
    pub ticket: u32,
    /// Upcalls from the wire: bytes of outer headers, index of the source PA, VSID.
    pub wire: (u16, u16, u32),
    /// Copies of a transmitted frame: to the host, with its connection; to the capture queue.
    pub copies: (Option<u64>, bool),
    /// The frame; nothing for a drop.
    pub bytes: Vec<u8>,
}

/// Everything that can be read out of an engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dump {
    /// Drops by reason.
    pub drops: Vec<u64>,
    /// All vports.
    pub vports: Vec<Vport>,
    /// Packets and bytes of all tunnels.
    pub tunnels: Vec<(u64, u64)>,
    /// All records, in the order of the table.
    pub records: Vec<FlowRecord>,
}

/// Something that runs traces.
pub trait Engine {
    /// Carries out one event.
    ///
    /// # Errors
    /// The engine does not answer: what it was doing.
    fn run(&mut self, event: &Event) -> Result<Vec<Output>, String>;

    /// Reads everything out.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    fn dump(&mut self, now: u32) -> Result<Dump, String>;
}

/// Runs `trace` through `a` and `b`.
///
/// # Errors
/// Where they differ: the event's number, the event and both answers.
pub fn compare(trace: &[Event], a: &mut dyn Engine, b: &mut dyn Engine) -> Result<(), String> {
    for (n, event) in trace.iter().enumerate() {
        let (left, right) = (a.run(event)?, b.run(event)?);
        if left != right {
            return Err(format!("event {n} differs\n{event:#?}\none: {left:#?}\nother: {right:#?}"));
        }
    }
    let now = trace.last().map_or(0, |e| e.now);
    let (left, right) = (a.dump(now)?, b.dump(now)?);
    for (i, (x, y)) in left.drops.iter().zip(&right.drops).enumerate() {
        if x != y {
            let reason = Reason::from_u8(i as u8).map_or("?", Reason::as_str);
            return Err(format!("drops by {reason} differ: {x} and {y}"));
        }
    }
    if left.records != right.records {
        return Err(format!("tables differ\none: {:#?}\nother: {:#?}", left.records, right.records));
    }
    if left != right {
        return Err("counters of vports or tunnels differ".to_owned());
    }
    Ok(())
}
