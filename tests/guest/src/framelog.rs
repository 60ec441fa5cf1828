//! Frame accounting: logs of the frames that one guest sent and another received, and their comparison.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::io::{BufRead, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Key of a flow: the inner 5-tuple. For ICMP the ports are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowKey {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, protocol, source_port, destination_port } = self;
        write!(f, "{source}:{source_port} -> {destination}:{destination_port} protocol {protocol}")
    }
}

/// Loss and order of one flow's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossOrder {
    /// Frames sent.
    pub sent: u64,
    /// Frames sent that never arrived.
    pub missing: u64,
    /// Frames that arrived after one that was sent later.
    pub inverted: u64,
    /// Frames that arrived but were never sent, or more often than sent.
    pub unexpected: u64,
}

impl LossOrder {
    /// Whether every frame arrived, once and in order.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        (self.missing, self.inverted, self.unexpected) == (0, 0, 0)
    }
}

/// A bounded log of IP frames, in their order.
///
/// A frame is identified by a hash of its packet without the fields that a router or an offload changes: MAC addresses,
/// TTL, ECN, checksums. Other frames (ARP) are not recorded, since the network answers them.
#[derive(Clone, Debug)]
pub struct FrameLog {
    flows: HashMap<FlowKey, u32>,
    /// Flow number and hash.
    frames: Vec<(u32, u64)>,
    room: usize,
    full: bool,
}

impl FrameLog {
    /// A log for this number of frames.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self { flows: HashMap::new(), frames: Vec::new(), room, full: false }
    }

    /// Records a frame.
    pub fn record(&mut self, frame: &[u8]) {
        let Some((flow, hash)) = identify(frame) else { return };
        if self.frames.len() >= self.room {
            self.full = true;
            return;
        }
        self.push(flow, hash);
    }

    fn push(&mut self, flow: FlowKey, hash: u64) {
        let next = self.flows.len() as u32;
        let number = *self.flows.entry(flow).or_insert(next);
        self.frames.push((number, hash));
    }

    /// Number of recorded frames.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether no frame is recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The recorded flows, in the order of their keys.
    #[must_use]
    pub fn flows(&self) -> Vec<FlowKey> {
        let mut flows: Vec<_> = self.flows.keys().copied().collect();
        flows.sort_unstable();
        flows
    }

    /// The hashes of a flow's frames, in order.
    fn of(&self, flow: &FlowKey) -> impl Iterator<Item = u64> {
        let number = self.flows.get(flow).copied();
        self.frames.iter().filter(move |(n, _)| Some(*n) == number).map(|(_, hash)| *hash)
    }

    /// Writes the log as JSON lines: its flows in the order of their numbers, then `[flow number, hash]` per frame.
    ///
    /// # Errors
    /// [`Error::LogFull`]; what the writer reports.
    pub fn save(&self, mut out: impl Write) -> Result<()> {
        if self.full {
            return Err(Error::LogFull(self.room));
        }
        let mut flows: Vec<_> = self.flows.iter().map(|(flow, number)| (*number, *flow)).collect();
        flows.sort_unstable();
        let flows: Vec<_> = flows.into_iter().map(|(_, flow)| flow).collect();
        let io = |source| Error::Io { what: "writing a frame log".into(), source };
        serde_json::to_writer(&mut out, &flows).map_err(|e| io(e.into()))?;
        for (flow, hash) in &self.frames {
            write!(out, "\n[{flow},{hash}]").map_err(io)?;
        }
        writeln!(out).and_then(|()| out.flush()).map_err(io)
    }

    /// Reads a log that [`FrameLog::save`] wrote.
    ///
    /// # Errors
    /// The file is not a frame log.
    pub fn load(input: impl BufRead) -> Result<Self> {
        let io = |source| Error::Io { what: "reading a frame log".into(), source };
        let mut lines = input.lines();
        let first = lines.next().unwrap_or_else(|| Ok("[]".into())).map_err(io)?;
        let flows: Vec<FlowKey> = serde_json::from_str(&first).map_err(|e| io(e.into()))?;
        let mut log = Self::new(usize::MAX);
        log.flows = flows.iter().zip(0..).map(|(flow, number)| (*flow, number)).collect();
        for line in lines {
            let frame: (u32, u64) = serde_json::from_str(&line.map_err(io)?).map_err(|e| io(e.into()))?;
            log.frames.push(frame);
        }
        Ok(log)
    }
}

/// Compares the frames of a flow that one guest sent with those that another received. Of frames with equal content
/// (retransmissions), the n-th sent one is the n-th received one.
///
/// # Errors
/// [`Error::LogFull`] if a log was too small.
pub fn compare(sent: &FrameLog, received: &FrameLog, flow: &FlowKey) -> Result<LossOrder> {
    for log in [sent, received] {
        if log.full {
            return Err(Error::LogFull(log.room));
        }
    }
    // For each content, the places at which it was sent, last one first.
    let mut places: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut result = LossOrder::default();
    for hash in sent.of(flow) {
        places.entry(hash).or_default().push(result.sent);
        result.sent += 1;
    }
    places.values_mut().for_each(|list| list.reverse());
    let mut arrived = 0;
    let mut latest = None;
    for hash in received.of(flow) {
        let Some(place) = places.get_mut(&hash).and_then(Vec::pop) else {
            result.unexpected += 1;
            continue;
        };
        arrived += 1;
        if latest.is_some_and(|latest| place < latest) {
            result.inverted += 1;
        }
        latest = latest.max(Some(place));
    }
    result.missing = result.sent - arrived;
    Ok(result)
}

/// The flow of an IP frame and the hash of its unchanged fields. `None` for other or truncated frames.
fn identify(frame: &[u8]) -> Option<(FlowKey, u64)> {
    let mut at = 12;
    let mut ethertype = u16_at(frame, at)?;
    while matches!(ethertype, 0x8100 | 0x88a8) {
        at += 4;
        ethertype = u16_at(frame, at)?;
    }
    let packet = frame.get(at + 2..)?;
    let mut hash = DefaultHasher::new();
    let (source, destination, protocol, payload): (IpAddr, IpAddr, u8, &[u8]) = match ethertype {
        0x0800 => {
            let header = usize::from(*packet.first()? & 0xf) * 4;
            let total = usize::from(u16_at(packet, 2)?);
            let packet = packet.get(..total)?;
            // Identification and fragment, the rest of the header is in the key or changes.
            hash.write(packet.get(4..8)?);
            let source = Ipv4Addr::from(*packet.get(12..)?.first_chunk::<4>()?);
            let destination = Ipv4Addr::from(*packet.get(16..)?.first_chunk::<4>()?);
            (source.into(), destination.into(), packet[9], packet.get(header..)?)
        }
        0x86dd => {
            let total = 40 + usize::from(u16_at(packet, 4)?);
            let packet = packet.get(..total)?;
            let source = Ipv6Addr::from(*packet.get(8..)?.first_chunk::<16>()?);
            let destination = Ipv6Addr::from(*packet.get(24..)?.first_chunk::<16>()?);
            (source.into(), destination.into(), packet[6], packet.get(40..)?)
        }
        _ => return None,
    };
    // The checksum's place; the device may complete it on the way.
    let checksum = match protocol {
        6 => Some(16),
        17 => Some(6),
        _ => None,
    };
    let ports = if checksum.is_some() { (u16_at(payload, 0)?, u16_at(payload, 2)?) } else { (0, 0) };
    match checksum.filter(|at| at + 2 <= payload.len()) {
        Some(at) => {
            hash.write(&payload[..at]);
            hash.write(&payload[at + 2..]);
        }
        None => hash.write(payload),
    }
    let (source_port, destination_port) = ports;
    Some((FlowKey { source, destination, protocol, source_port, destination_port }, hash.finish()))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

#[cfg(test)]
mod tests;
