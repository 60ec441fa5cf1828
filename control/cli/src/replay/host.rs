//! A host without a NIC: its slow path and its switch, without threads, one frame at a time, in the time of a capture.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use culvert_flow::{HashSecret, Port};
use culvert_offload::{
    DeviceInfo as _, Event, EventQueue, FlowTables as _, PacketIo as _, Upcall, UpcallMeta, UpcallQueue,
};
use culvert_packet::{MacAddr, Offload, Reason, arp, craft};
use culvert_policy::{Snapshot, TraceStep};
use culvert_slowpath::{
    AGING_INTERVAL_MS, Engine, HostPolicy, Limits, NicTables, SWEEP_INTERVAL_MS, ServedAddress,
};
use culvert_switch::{HEADROOM, LARGE_BUFFER, MemPort, Switch, SwitchSettings};
use serde::Serialize;

/// MAC address of every next hop in the provider network: a replay cannot resolve them (an address for documentation,
/// RFC 7042 section 2.1.2).
pub(crate) const NEXT_HOP: MacAddr = MacAddr([0x00, 0x00, 0x5e, 0x00, 0x53, 0x01]);

/// Agings within one gap between packets: a longer gap has longer intervals.
const MAX_AGINGS: u32 = 1000;
/// Shortest frame that a port accepts: an Ethernet header.
const MIN_FRAME: usize = 14;
/// Longest frame that a port accepts.
const MAX_FRAME: usize = LARGE_BUFFER - HEADROOM;
/// Rounds of switch and slow path for one frame. Two are enough for all that the core does.
const MAX_ROUNDS: usize = 8;

/// What happened to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// It left by one port.
    Forward,
    /// Copies left by several.
    Replicate,
    /// It was answered at its port.
    Reply,
    /// The host consumed it.
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

/// The result of a frame.
#[derive(Clone, Debug)]
pub(crate) struct Replayed {
    /// What happened to it.
    pub(crate) verdict: Verdict,
    /// Why it was dropped, or the reason of its first upcall. None: its flow had a record.
    pub(crate) reason: Option<Reason>,
    /// The frames that left, with their ports.
    pub(crate) outputs: Vec<(Port, Vec<u8>)>,
    /// The layers of the policy that decided on it.
    pub(crate) layers: Vec<TraceStep>,
}

/// Secret of the flow hash. Always the same, so that a replay can be repeated.
const SECRET: HashSecret = HashSecret([
    0x9e37_79b9_7f4a_7c15,
    0xf39c_c060_5ced_c834,
    0x1082_276b_f3a2_7251,
    0xf86c_6a11_d0c1_8e95,
    0x2767_f0b1_53d2_7b7f,
    0x0347_045b_5bf1_827f,
    0x0188_6f09_2840_3002,
    0xc1d6_4ba4_0f33_5e36,
    0xf06a_d7ae_9717_877e,
]);

/// A host with ports in memory. Tables and limits are those of a live host with one worker.
pub(crate) struct Host {
    engine: Engine<HostPolicy>,
    switch: Switch,
    upcalls: Box<dyn UpcallQueue>,
    events: Box<dyn EventQueue>,
    ports: BTreeMap<Port, MemPort>,
    /// Drops of the switch up to the last frame, by reason.
    drops: BTreeMap<Reason, u64>,
    now: u32,
    aged: u32,
    swept: u32,
}

impl Host {
    /// A host whose first policy is applied, and whose next hops are resolved.
    ///
    /// # Errors
    /// The policy needs larger tables than a switch has, or the system refuses memory.
    pub(crate) fn new(snapshot: &Arc<Snapshot>) -> Result<Self, String> {
        let settings = SwitchSettings::new(SwitchSettings::DEFAULT_FLOWS, SECRET);
        let switch = Switch::inline(&settings).map_err(|e| e.to_string())?;
        let (upcalls, events) = switch.upcalls().zip(switch.events()).ok_or("the switch is in use")?;
        let mut ports = BTreeMap::new();
        let uplinks = (0..Port::UPLINKS).map(Port::Uplink);
        for port in uplinks.chain(snapshot.vports.keys().map(|id| Port::Vport(*id))) {
            let memory = MemPort::new().map_err(|e| e.to_string())?;
            switch.attach(port, memory.opener()).map_err(|e| e.to_string())?;
            ports.insert(port, memory);
        }
        let policy = HostPolicy::new(&Limits::for_switch(SwitchSettings::DEFAULT_FLOWS, switch.workers()))
            .without_records();
        let capabilities = switch.capabilities();
        let engine = Engine::new(policy, capabilities.uplinks, [true; Port::UPLINKS as usize]);
        let (drops, now) = (BTreeMap::new(), 0);
        let mut host = Host { engine, switch, upcalls, events, ports, drops, now, aged: now, swept: now };
        let tables = NicTables::new(snapshot, capabilities.flow_records_per_vport);
        host.engine.policy().set(snapshot);
        host.engine.apply(&host.switch, &tables, &NicTables::default(), 0).map_err(|e| e.to_string())?;
        host.resolve()?;
        host.run(None);
        // The host's own announcements and solicitations.
        host.take_sent();
        host.take_dropped();
        Ok(host)
    }

    /// Answers for the next hops of the PA network.
    fn resolve(&mut self) -> Result<(), String> {
        let addresses = self.engine.addresses();
        for (hop, ..) in self.engine.next_hops() {
            let Some(ours) = addresses.get(usize::from(hop.pa)) else { continue };
            let Some(frame) = answer(ours, hop.addr.into()) else { continue };
            let meta = UpcallMeta {
                reason: Reason::Control,
                input: Port::Uplink(ours.serving_uplink),
                ticket: None,
                copy: None,
                peer: 0,
                now: 0,
                offload: Offload::default(),
            };
            self.engine.upcall(Upcall::parse(meta, frame), 0);
            self.switch.execute(self.engine.take_commands()).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// A frame arrives `ms` milliseconds after the first one. Time does not go back.
    pub(crate) fn replay(&mut self, input: Port, frame: &[u8], ms: u64, trace: bool) -> Replayed {
        self.advance(ms);
        match frame.len() {
            len if len < MIN_FRAME => return refused(Reason::Runt),
            len if len > MAX_FRAME => return refused(Reason::TooLong),
            _ => {}
        }
        let Some(port) = self.ports.get(&input) else { return refused(Reason::NoVport) };
        port.push(frame.to_vec());
        let mut layers = Vec::new();
        let asked = self.run(trace.then_some(&mut layers));
        let (sent, dropped) = (self.take_sent(), self.take_dropped());
        let verdict = match &sent[..] {
            [] if dropped.is_empty() => Verdict::Host,
            [] => Verdict::Drop,
            all if all.iter().all(|(port, _)| *port == input) => Verdict::Reply,
            [_] => Verdict::Forward,
            _ => Verdict::Replicate,
        };
        let reason = if verdict == Verdict::Drop { dropped.first().copied() } else { asked };
        Replayed { verdict, reason, outputs: sent, layers }
    }

    /// Runs switch and slow path until both are idle. Returns the reason of the first upcall, and writes the layers of its
    /// decision to `layers`.
    fn run(&mut self, mut layers: Option<&mut Vec<TraceStep>>) -> Option<Reason> {
        let mut asked = None;
        for _ in 0..MAX_ROUNDS {
            let mut any = self.switch.poll(self.now);
            while let Some(Event::Link(up)) = self.events.next() {
                self.engine.set_links(up, self.now);
            }
            // This queue always answers.
            while let Ok(Some(upcall)) = self.upcalls.pop() {
                any = true;
                if upcall.meta.copy.is_none() {
                    asked = asked.or(Some(upcall.meta.reason));
                    if let Some(layers) = layers.as_mut().filter(|layers| layers.is_empty()) {
                        **layers = self.layers(&upcall);
                    }
                }
                self.engine.upcall(upcall, self.now);
                self.execute_commands();
            }
            if !any {
                break;
            }
        }
        asked
    }

    fn layers(&mut self, upcall: &Upcall) -> Vec<TraceStep> {
        // A port that cannot be traced has no layers.
        self.engine.trace(upcall.meta.input, &upcall.frame, self.now).map_or(Vec::new(), |t| t.layers)
    }

    fn execute_commands(&mut self) {
        // The policy was applied to tables of this size: no command names what does not exist.
        let _fits = self.switch.execute(self.engine.take_commands());
    }

    fn take_sent(&mut self) -> Vec<(Port, Vec<u8>)> {
        let frames = |(port, memory): (&Port, &MemPort)| {
            let port = *port;
            let memory = memory.clone();
            std::iter::from_fn(move || memory.pop()).map(move |frame| (port, frame)).collect::<Vec<_>>()
        };
        self.ports.iter().flat_map(frames).collect()
    }

    /// The reasons for which the switch dropped frames since the last call.
    fn take_dropped(&mut self) -> Vec<Reason> {
        // A switch without threads always answers.
        let all = self.switch.drops().unwrap_or_default();
        let mut new = Vec::new();
        for (reason, count) in all {
            let before = self.drops.insert(reason, count).unwrap_or(0);
            new.extend((before..count).map(|_| reason));
        }
        new
    }

    /// Advances the time: connections and records expire as on a live host.
    fn advance(&mut self, ms: u64) {
        let now = u32::try_from(ms).unwrap_or(u32::MAX).max(self.now);
        let interval = AGING_INTERVAL_MS.max((now - self.aged) / MAX_AGINGS);
        while now - self.aged >= interval {
            self.aged += interval;
            self.switch.poll(self.aged);
            // A switch without threads always answers.
            let _answers = self.engine.age(&self.switch, self.aged);
            self.execute_commands();
        }
        if now - self.swept >= SWEEP_INTERVAL_MS {
            self.swept = now;
            let _answers = self.engine.sweep_orphans(&self.switch);
            self.execute_commands();
        }
        self.now = now;
        self.switch.poll(now);
    }
}

fn refused(reason: Reason) -> Replayed {
    Replayed { verdict: Verdict::Drop, reason: Some(reason), outputs: Vec::new(), layers: Vec::new() }
}

/// The ARP reply of a next hop to one of our addresses.
fn answer(ours: &ServedAddress, hop: IpAddr) -> Option<Vec<u8>> {
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
