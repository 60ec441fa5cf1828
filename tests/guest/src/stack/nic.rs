//! `Nic`: smoltcp's network device on a port, with frame logs and watches.

use smoltcp::phy::{self, Checksum, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

use super::neighbour::Neighbours;
use crate::{Error, FrameLog, FramePort, Result};

/// Offset of the checksum in TCP's header.
const TCP_CHECKSUM: u16 = 16;

/// A port with its logs.
pub(super) struct Nic<P> {
    pub(super) port: P,
    /// Sent and received.
    pub(super) logs: Option<(FrameLog, FrameLog)>,
    /// Whether frames are copied to `seen`, for commands that wait for one.
    pub(super) watching: bool,
    pub(super) seen: Vec<Vec<u8>>,
    /// The first error of the port, since smoltcp's interface cannot return it.
    pub(super) failed: Option<Error>,
    /// Whether anything was sent or received since this was last cleared.
    pub(super) moved: bool,
    /// Whether smoltcp wanted to send but the ring was full.
    pub(super) blocked: bool,
    scratch: Vec<u8>,
    neighbours: Neighbours,
    /// A frame to be received after the ARP reply for its sender.
    delayed: Option<Vec<u8>>,
}

impl<P: FramePort> Nic<P> {
    pub(super) fn new(port: P, log_frames: Option<usize>, neighbours: Neighbours) -> Self {
        let logs = log_frames.map(|room| (FrameLog::new(room), FrameLog::new(room)));
        Self {
            port,
            logs,
            watching: false,
            seen: Vec::new(),
            failed: None,
            moved: false,
            blocked: false,
            scratch: Vec::new(),
            neighbours,
            delayed: None,
        }
    }

    /// Sends a frame unchanged.
    pub(super) fn send(&mut self, frame: &[u8], partial: Option<(u16, u16)>) -> Result<()> {
        self.port.send(frame, partial)?;
        self.moved = true;
        if let Some((sent, _)) = &mut self.logs {
            sent.record(frame);
        }
        Ok(())
    }

    fn room(&mut self) -> bool {
        let room = self.port.can_send();
        self.blocked |= !room;
        room
    }
}

/// A received frame.
pub(super) struct Rx(Vec<u8>);

impl phy::RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for a frame.
pub(super) struct Tx<'a, P>(&'a mut Nic<P>);

impl<P: FramePort> phy::TxToken for Tx<'_, P> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let nic = self.0;
        let mut frame = std::mem::take(&mut nic.scratch);
        frame.clear();
        frame.resize(len, 0);
        let result = f(&mut frame);
        let partial = nic.port.checksum_offload().then(|| prepare_partial(&mut frame)).flatten();
        if let Err(e) = nic.send(&frame, partial) {
            nic.failed.get_or_insert(e);
        }
        nic.scratch = frame;
        result
    }
}

/// Puts the pseudo-header's sum into a TCP frame's checksum field (virtio 1.2, 5.1.6.2). Returns where the checksum starts and
/// the field's offset from there; `None` if the frame is not TCP.
fn prepare_partial(frame: &mut [u8]) -> Option<(u16, u16)> {
    let (start, addresses) = match (u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]), frame.get(14)?) {
        (0x0800, first) => (14 + usize::from(first & 0xf) * 4, 26..34),
        (0x86dd, _) => (54, 22..54),
        _ => return None,
    };
    let protocol = if addresses.len() == 8 { frame.get(23)? } else { frame.get(20)? };
    let length = frame.len().checked_sub(start)?;
    if *protocol != 6 || length < 20 {
        return None;
    }
    let (pairs, _) = frame.get(addresses)?.as_chunks::<2>();
    let mut sum: u32 = pairs.iter().map(|p| u32::from(u16::from_be_bytes(*p))).sum();
    sum += 6 + length as u32;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let place = start + usize::from(TCP_CHECKSUM);
    frame.get_mut(place..place + 2)?.copy_from_slice(&(sum as u16).to_be_bytes());
    Some((start as u16, TCP_CHECKSUM))
}

impl<P: FramePort> phy::Device for Nic<P> {
    type RxToken<'a>
        = Rx
    where
        Self: 'a;
    type TxToken<'a>
        = Tx<'a, P>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Rx, Tx<'_, P>)> {
        // Receive a frame only if there is room to answer it.
        if !self.room() {
            return None;
        }
        if let Some(frame) = self.delayed.take() {
            return Some((Rx(frame), Tx(self)));
        }
        match self.port.receive() {
            Ok(Some(frame)) => {
                self.moved = true;
                if let Some((_, received)) = &mut self.logs {
                    received.record(&frame);
                }
                if self.watching {
                    self.seen.push(frame.clone());
                }
                if let Some(reply) = self.neighbours.arp_reply_for(&frame) {
                    self.delayed = Some(frame);
                    return Some((Rx(reply), Tx(self)));
                }
                Some((Rx(frame), Tx(self)))
            }
            Ok(None) => None,
            Err(e) => {
                self.failed.get_or_insert(e);
                None
            }
        }
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_, P>> {
        self.room().then_some(Tx(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        // smoltcp counts the Ethernet header.
        capabilities.max_transmission_unit = usize::from(self.port.mtu()) + 14;
        if self.port.checksum_offload() {
            // Still verify received checksums: the offload is part of the test.
            capabilities.checksum.tcp = Checksum::Rx;
        }
        capabilities
    }
}
