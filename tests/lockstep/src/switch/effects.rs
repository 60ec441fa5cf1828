//! Effects of events, in the same terms for the core and for the switch.

use std::collections::BTreeMap;

use culvert_abi::command::Op;
use culvert_packet::Reason;

use crate::trace::Output;

/// The effects of an event or a burst: sent frames by port, upcalls, drops by reason.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Effects {
    pub(super) sent: BTreeMap<u16, Vec<Vec<u8>>>,
    pub(super) upcalls: Vec<Upcall>,
    pub(super) drops: BTreeMap<&'static str, u64>,
}

/// A packet, or a copy of one, for the host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Upcall {
    pub(super) reason: u8,
    pub(super) ticket: u32,
    pub(super) wire: (u16, u16, u32),
    pub(super) connection: Option<u64>,
    pub(super) bytes: Vec<u8>,
}

/// Drops by reason between two readings of the counters.
pub(super) fn delta(before: &[u64], after: &[u64]) -> BTreeMap<&'static str, u64> {
    let of = |reason: &Reason| after[*reason as usize] - before[*reason as usize];
    Reason::ALL.iter().map(|r| (r.as_str(), of(r))).filter(|(_, n)| *n > 0).collect()
}

/// The effects in the core's outputs, without drops.
pub(super) fn effects_of(outputs: Vec<Output>) -> Effects {
    let mut effects = Effects::default();
    for output in outputs {
        let Output { op, reason, port, ticket, wire, copies, bytes } = output;
        if let Some(connection) = copies.0 {
            let (reason, connection) = (Reason::TcpControl as u8, Some(connection));
            effects.upcalls.push(Upcall {
                reason,
                ticket: 0,
                wire: (0, 0, 0),
                connection,
                bytes: bytes.clone(),
            });
        }
        match op {
            Op::Transmit => effects.sent.entry(port).or_default().push(bytes),
            Op::Upcall => effects.upcalls.push(Upcall { reason, ticket, wire, connection: None, bytes }),
            _ => {}
        }
    }
    effects
}
