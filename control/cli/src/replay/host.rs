//! A host's slow path on a NIC without hardware, one frame at a time, in the time of a capture.

use std::net::IpAddr;
use std::sync::Arc;

use culvert_abi::pf::{self, MAX_PAYLOAD};
use culvert_flow::Port;
use culvert_packet::{MacAddr, Reason, arp, craft};
use culvert_pf::Exception;
use culvert_policy::{Snapshot, Step};
use culvert_softpath::{Address, Engine, HostPolicy, Limits, OffloadTarget, Plan, Punted};
use serde::Serialize;

use super::nic::{CoreNic, Gone};

/// MAC that every next hop of the PA network is given: there is nobody to ask (one for documentation, RFC 7042 section
/// 2.1.2).
pub(crate) const NEXT_HOP: MacAddr = MacAddr([0x00, 0x00, 0x5e, 0x00, 0x53, 0x01]);

/// Milliseconds between looks at idle connections, as in a running slow path.
const SECOND: u32 = 1000;
/// Milliseconds between looks at records without a connection.
const SWEEP: u32 = 60_000;
/// Looks over one gap between packets: a longer gap has longer steps.
const LOOKS: u32 = 1000;
/// Shortest frame that a port takes: an Ethernet header.
const SHORTEST: usize = 14;
/// Times that a packet may come to the slow path. Twice is enough for all that the core does.
const ROUNDS: usize = 8;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// It left by one port.
    Forward,
    /// Copies left by several.
    Replicate,
    /// It was answered where it came from.
    Reply,
    /// The host took it for itself.
    Host,
    /// It was dropped.
    Drop,
}

impl Verdict {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Verdict::Forward => "forward",
            Verdict::Replicate => "replicate",
            Verdict::Reply => "reply",
            Verdict::Host => "host",
            Verdict::Drop => "drop",
        }
    }
}

/// A frame, treated.
#[derive(Clone, Debug)]
pub(crate) struct Treated {
    /// What became of it.
    pub(crate) verdict: Verdict,
    /// Why it was dropped, or why the NIC asked the slow path; none: its flow's record served it.
    pub(crate) reason: Option<Reason>,
    /// What left, by which port.
    pub(crate) outputs: Vec<(Port, Vec<u8>)>,
    /// The layers of the policy that were asked.
    pub(crate) layers: Vec<Step>,
}

/// A host.
pub(crate) struct Host {
    engine: Engine<HostPolicy>,
    nic: CoreNic,
    now: u32,
    aged: u32,
    swept: u32,
}

impl Host {
    /// A host whose NIC has just got its first policy, and whose next hops have answered.
    ///
    /// # Errors
    /// The policy needs larger tables than the NIC has.
    pub(crate) fn new(snapshot: &Arc<Snapshot>) -> Result<Self, String> {
        let nic = CoreNic::new().map_err(|e| format!("{e:?}"))?;
        let policy = HostPolicy::new(&Limits::default());
        let mut host =
            Self { engine: Engine::new(policy, nic.uplinks(), [true; 2]), nic, now: 0, aged: 0, swept: 0 };
        let plan = Plan::new(snapshot, host.nic.share());
        host.engine.policy().set(snapshot);
        host.engine.apply(&host.nic, snapshot.host, &plan, &Plan::default(), 0).map_err(|e| e.to_string())?;
        host.resolve()?;
        // Its own announcements and questions.
        host.nic.take_gone();
        Ok(host)
    }

    /// The next hops of the PA network answer.
    fn resolve(&mut self) -> Result<(), String> {
        let addresses = self.engine.addresses();
        for (hop, ..) in self.engine.next_hops() {
            let Some(ours) = addresses.get(usize::from(hop.pa)) else { continue };
            let Some(frame) = answer(ours, hop.addr.into()) else { continue };
            let exception = Exception {
                reason: Reason::Control,
                input: Port::Uplink(ours.serving),
                ticket: None,
                copy: false,
                connection: 0,
                peer: 0,
                inner: 0,
                vsid: 0,
                now: 0,
                offload: pf::OffloadBits::default(),
            };
            self.engine.exception(Punted { exception, frame }, 0);
            self.nic.send(self.engine.take_steps()).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// A frame comes in `ms` milliseconds after the first one. Time does not go back.
    pub(crate) fn treat(&mut self, input: Port, frame: &[u8], ms: u64, trace: bool) -> Treated {
        self.advance(ms);
        let mut layers = Vec::new();
        let mut asked = None;
        match frame.len() {
            len if len < SHORTEST => return refused(Reason::Runt),
            len if len > MAX_PAYLOAD as usize => return refused(Reason::TooLong),
            _ => self.nic.frame(input, frame),
        }
        for _ in 0..ROUNDS {
            let exceptions = self.nic.take_exceptions();
            if exceptions.is_empty() {
                break;
            }
            for punted in exceptions {
                if !punted.exception.copy {
                    asked = asked.or(Some(punted.exception.reason));
                    if trace && layers.is_empty() {
                        layers = self.layers(&punted);
                    }
                }
                self.engine.exception(punted, self.now);
                self.hand_over();
            }
        }
        // What is left of more rounds must not count for the next frame.
        self.nic.take_exceptions();
        let Gone { sent, dropped } = self.nic.take_gone();
        let verdict = match &sent[..] {
            [] if dropped.is_empty() => Verdict::Host,
            [] => Verdict::Drop,
            all if all.iter().all(|(port, _)| *port == input) => Verdict::Reply,
            [_] => Verdict::Forward,
            _ => Verdict::Replicate,
        };
        let reason = if verdict == Verdict::Drop { dropped.first().copied() } else { asked };
        Treated { verdict, reason, outputs: sent, layers }
    }

    fn layers(&mut self, punted: &Punted) -> Vec<Step> {
        // A port that cannot be traced has no layers.
        self.engine.trace(punted.exception.input, &punted.frame, self.now).map_or(Vec::new(), |t| t.layers)
    }

    fn hand_over(&mut self) {
        // Tables have the size that the policy was applied to: no step names what is not there.
        let _fits = self.nic.send(self.engine.take_steps());
    }

    /// Lets time pass: connections and records end as they would meanwhile.
    fn advance(&mut self, ms: u64) {
        let now = u32::try_from(ms).unwrap_or(u32::MAX).max(self.now);
        let step = SECOND.max((now - self.aged) / LOOKS);
        while now - self.aged >= step {
            self.aged += step;
            self.nic.set_now(self.aged);
            // This NIC always answers.
            let _answers = self.engine.age(&self.nic, self.aged);
            self.hand_over();
        }
        if now - self.swept >= SWEEP {
            self.swept = now;
            let _answers = self.engine.sweep_orphans(&self.nic);
            self.hand_over();
        }
        self.now = now;
        self.nic.set_now(now);
    }
}

fn refused(reason: Reason) -> Treated {
    Treated { verdict: Verdict::Drop, reason: Some(reason), outputs: Vec::new(), layers: Vec::new() }
}

/// The answer of a next hop to one of our addresses.
fn answer(ours: &Address, hop: IpAddr) -> Option<Vec<u8>> {
    let (IpAddr::V4(sender), IpAddr::V4(target)) = (hop, ours.pa.addr) else { return None };
    let reply = arp::Packet {
        operation: arp::Operation::REPLY,
        sender_mac: NEXT_HOP,
        sender,
        target_mac: ours.pa.mac,
        target,
    };
    let mut frame = vec![0; 64];
    let mut len = craft::arp(&mut frame, &reply).ok()?;
    if let Some(vlan) = ours.pa.vlan {
        len = craft::tag(&mut frame, len, vlan.get()).ok()?;
    }
    frame.truncate(len);
    Some(frame)
}

#[cfg(test)]
mod tests;
