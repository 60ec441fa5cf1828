//! Traces: events, the engines' outputs, and their comparison.

use culvert_abi::command::Op;
use culvert_abi::soc::BoardPort;
use culvert_flow::record::{FlowKey, FlowRecord};
use culvert_flow::tables::{Group, Peer, Tunnel, Vport};
use culvert_flow::{HashSecret, Port};
use culvert_packet::{MacAddr, Reason};

/// An event of a datapath.
#[derive(Clone, Debug)]
pub struct Event {
    /// Time in milliseconds.
    pub now: u32,
    /// Kind and arguments.
    pub what: What,
}

/// A received frame.
#[derive(Clone, Debug)]
pub struct Input {
    /// The port that receives it.
    pub port: BoardPort,
    /// Result of the checksum engine: a number of `Offload`.
    pub checksum: u8,
    /// The frame.
    pub bytes: Vec<u8>,
}

/// Kinds of events.
#[derive(Clone, Debug)]
pub enum What {
    /// A port receives a frame.
    Frame(Input),
    /// The host reinjects a frame, which is looked up again.
    InjectLookup(Injected),
    /// The host sends a frame out of a port.
    InjectOut(Injected, Port),
    /// The host drops packets.
    Dropped {
        /// The port that received them.
        port: Port,
        /// Their pending flow.
        ticket: u32,
        /// Their number.
        count: u32,
        /// The reason.
        reason: Reason,
    },
    /// Sets hash secret and router MAC; removes all flows.
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
    /// The local provider addresses.
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
    /// The port that received it.
    pub port: Port,
    /// Its pending flow.
    pub ticket: u32,
    /// The frame.
    pub bytes: Vec<u8>,
}

/// One output of an engine for an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// `Transmit`, `Upcall` or `Drop`.
    pub op: Op,
    /// The reason of an upcall or a drop.
    pub reason: u8,
    /// The port that sends a frame, or that received an upcall's or a dropped packet.
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

/// All readable state of an engine.
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

/// Runs traces.
pub trait Engine {
    /// Runs one event.
    ///
    /// # Errors
    /// The engine does not answer: the request.
    fn run(&mut self, event: &Event) -> Result<Vec<Output>, String>;

    /// Reads all state.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    fn dump(&mut self, now: u32) -> Result<Dump, String>;
}

/// Runs `trace` through `a` and `b`.
///
/// # Errors
/// The first difference: the event's number, the event and both outputs.
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
