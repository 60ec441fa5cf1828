//! What would become of a frame: the way that a packet takes, without doing anything.

use std::net::IpAddr;

use culvert_flow::{Checksum, Port, ProviderAddresses, accept_outer};
use culvert_offload::{Upcall, UpcallMeta};
use culvert_packet::{Offload, Reason, parse_outer};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::forward::Outcome;
use crate::policy::{HostPolicy, Traced};

impl Engine<HostPolicy> {
    /// What would become of a frame that came in at `port`: the policy's layers, the decision, the frames that leave.
    ///
    /// # Errors
    /// The port is no vport or uplink.
    pub fn trace(&mut self, port: Port, frame: &[u8], now: u32) -> Result<Traced> {
        let stopped =
            |reason| Traced { layers: Vec::new(), decision: Err(reason), outcome: Outcome::Drop(reason) };
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
            Port::Uplink(_) => match self.outer(frame) {
                Ok(peer) => meta.peer = peer,
                Err(reason) => return Ok(stopped(reason)),
            },
            Port::Host | Port::None => return Err(Error::Frame { reason: Reason::NoVport }),
        }
        let upcall = Upcall::parse(meta, frame.to_vec());
        let classified = match &upcall.packet {
            Ok(packet) => *packet,
            Err(reason) => return Ok(stopped(*reason)),
        };
        let (layers, decision) = self.policy.ask(&classified, port, upcall.inner(), now);
        let outcome = match &decision {
            Err(reason) | Ok(culvert_policy::Decision::Drop(reason)) => Outcome::Drop(*reason),
            Ok(culvert_policy::Decision::Reply(frame)) => Outcome::Send(vec![(port, frame.clone())]),
            Ok(culvert_policy::Decision::Forward(f)) => {
                self.software.forward(&f.record, &classified, (port, &Offload::default()), frame, now)
            }
        };
        Ok(Traced { layers, decision, outcome })
    }

    /// What the NIC checks of the outer headers: returns the index of the host that the frame is from.
    fn outer(&self, frame: &[u8]) -> std::result::Result<u16, Reason> {
        let outer = parse_outer(frame)?.ok_or(Reason::Control)?;
        accept_outer(self, &outer, Checksum::verify_outer(frame))
    }
}

impl ProviderAddresses for Engine<HostPolicy> {
    fn is_local(&self, family: u16, addr: &[u8; 16]) -> bool {
        self.uplinks.number(address(family, addr)).is_some()
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
