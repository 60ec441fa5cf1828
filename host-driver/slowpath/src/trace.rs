//! Packet traces: decides on a frame and forwards it in software, without sending it or changing anything.

use std::net::IpAddr;

use culvert_flow::{Checksum, Port, ProviderAddresses, accept_outer};
use culvert_offload::{Upcall, UpcallMeta};
use culvert_packet::{Offload, Reason, parse_outer};
use culvert_policy::{Decision, TraceStep};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::forward::ForwardOutcome;
use crate::host_policy::HostPolicy;

/// The trace of a packet.
#[derive(Clone, Debug)]
pub struct PacketTrace {
    /// The layers of the policy that were evaluated.
    pub layers: Vec<TraceStep>,
    /// The decision; `Err`: the packet is dropped before the policy.
    pub decision: std::result::Result<Decision, Reason>,
    /// The frames that would leave, or why there are none. A reply is the frame that goes back to the port.
    pub outcome: ForwardOutcome,
}

impl Engine<HostPolicy> {
    /// Traces a frame as if `port` had received it: the policy's layers, the decision, the frames that would leave.
    ///
    /// # Errors
    /// The port is no vport or uplink.
    pub fn trace(&mut self, port: Port, frame: &[u8], now: u32) -> Result<PacketTrace> {
        let dropped = |reason| PacketTrace {
            layers: Vec::new(),
            decision: Err(reason),
            outcome: ForwardOutcome::Drop(reason),
        };
        let mut meta = UpcallMeta {
            reason: Reason::Miss,
            input: port,
            ticket: None,
            copy: None,
            peer: 0,
            now,
            offload: Offload::default(),
        };
        match port {
            Port::Vport(_) => {}
            Port::Uplink(_) => match self.check_outer(frame) {
                Ok(peer) => meta.peer = peer,
                Err(reason) => return Ok(dropped(reason)),
            },
            Port::Host | Port::None => return Err(Error::Frame { reason: Reason::NoVport }),
        }
        let upcall = Upcall::parse(meta, frame.to_vec());
        let classified = match &upcall.packet {
            Ok(packet) => *packet,
            Err(reason) => return Ok(dropped(*reason)),
        };
        let (layers, decision) = self.policy.evaluate(&classified, port, upcall.inner(), now);
        let outcome = match &decision {
            Err(reason) | Ok(Decision::Drop(reason)) => ForwardOutcome::Drop(*reason),
            Ok(Decision::Reply(frame)) => ForwardOutcome::Send(vec![(port, frame.clone())]),
            Ok(Decision::Forward(f)) => {
                self.forwarder.forward(&f.record, &classified, (port, &Offload::default()), frame, now)
            }
        };
        Ok(PacketTrace { layers, decision, outcome })
    }

    /// Checks the outer headers as the NIC does. Returns the number of the host that sent the frame.
    fn check_outer(&self, frame: &[u8]) -> std::result::Result<u16, Reason> {
        let outer = parse_outer(frame)?.ok_or(Reason::Control)?;
        accept_outer(self, &outer, Checksum::verify_outer(frame))
    }
}

impl ProviderAddresses for Engine<HostPolicy> {
    fn is_local(&self, family: u16, addr: &[u8; 16]) -> bool {
        self.underlay.is_local(address(family, addr))
    }

    fn peer(&self, family: u16, addr: &[u8; 16]) -> Option<u16> {
        self.policy.peer(address(family, addr))
    }
}

fn address(family: u16, addr: &[u8; 16]) -> IpAddr {
    match addr {
        [a, b, c, d, ..] if family == 4 => IpAddr::from([*a, *b, *c, *d]),
        _ => IpAddr::from(*addr),
    }
}
