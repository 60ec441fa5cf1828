//! An honest VM on a vhost-user port, as the TCP/IP stack's network device.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use culvert_guest::{Counters, Error, FramePort, GuestConfig, NetStack, Result};

use crate::guest::{Guest, HEADER, Setup};
use crate::place::Place;
use crate::ring::{BUFFER, SIZE};
use crate::vhost_user::{PROTOCOL, VERSION_1};

/// Frames may take several buffers.
const MERGEABLE: u64 = 1 << 15;

/// The port.
pub struct VhostPort {
    guest: Guest,
    mac: [u8; 6],
    kick: [bool; 2],
    counters: Counters,
}

fn failed(source: std::io::Error) -> Error {
    Error::Io { what: "the vhost-user port".into(), source }
}

impl VhostPort {
    /// Attaches to a port.
    ///
    /// # Errors
    /// The port refuses it, or does not answer within two seconds.
    pub fn attach(place: &Place) -> Result<Self> {
        let setup = Setup { features: PROTOCOL | VERSION_1 | MERGEABLE, ..Setup::default() };
        let guest = place.guest_with(&setup).map_err(failed)?;
        let mac = place.target.ends().src_mac.0;
        Ok(VhostPort { guest, mac, kick: [false; 2], counters: Counters::default() })
    }

    /// Attaches to a port and starts a TCP/IP stack there.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn start(place: &Place) -> Result<NetStack> {
        GuestConfig::new(place.target.vport(), place.target.ends().src, 24).start_on(Self::attach(place)?)
    }
}

impl FramePort for VhostPort {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu(&self) -> u16 {
        1400
    }

    fn can_send(&mut self) -> bool {
        self.guest.has_room().unwrap_or(true)
    }

    fn send(&mut self, frame: &[u8], _: Option<(u16, u16)>) -> Result<()> {
        if !self.guest.put([0; HEADER], frame, 1).map_err(failed)? {
            return Err(Error::RingFull(Duration::ZERO));
        }
        self.kick[1] = true;
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += frame.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        for ring in [0, 1] {
            if std::mem::take(&mut self.kick[ring]) {
                self.guest.kick(ring).map_err(failed)?;
                self.counters.kicks += 1;
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        let guest = &mut self.guest;
        let Some((head, len)) = guest.rings[0].take(&guest.memory).map_err(failed)? else { return Ok(None) };
        let len = (len as usize).min(BUFFER as usize);
        let mut whole = vec![0; len.max(HEADER)];
        guest.memory.read(guest.rings[0].buffer(head), &mut whole).map_err(failed)?;
        guest.rings[0].offer(&guest.memory, [head % SIZE]).map_err(failed)?;
        self.kick[0] = true;
        self.counters.rx_frames += 1;
        self.counters.rx_bytes += (len.max(HEADER) - HEADER) as u64;
        Ok(Some(whole.split_off(HEADER)))
    }

    fn arm(&mut self, _: bool) -> bool {
        // Interrupts are always on.
        false
    }

    fn disarm(&mut self) -> Result<()> {
        for call in &self.guest.calls {
            let _empty = rustix::io::read(call, &mut [0; 8]);
        }
        Ok(())
    }

    fn events(&self) -> Vec<BorrowedFd<'_>> {
        self.guest.calls.iter().map(|call| call.as_fd()).collect()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
