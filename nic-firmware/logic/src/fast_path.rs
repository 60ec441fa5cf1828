//! The fast path of the firmware: the commonest packets, from ring to ring.

use culvert_abi::command::Op;
use culvert_abi::soc::{BoardPort, Descriptor, RELEASE};
use culvert_flow::Port;
use culvert_flow::tables::Vport;
use culvert_packet::VportId;

use crate::bus::Bus;
use crate::firmware::{Firmware, VFS};
use crate::send::{CopyInfo, Place, frame_of};

impl Firmware<'_> {
    /// Forwards a packet by the core's fast path. `false`: the packet is unchanged and takes the pipeline.
    #[inline(always)]
    pub(crate) fn fast_path(&mut self, bus: &mut impl Bus, d: &Descriptor) -> bool {
        let Some(mut frame) = frame_of(bus, d) else { return false };
        match BoardPort::from_bits(d.port) {
            BoardPort::Vf(n) => {
                let id = self.vf_vport[usize::from(n) % VFS];
                let Some((to, _)) = self.datapath.fast_outbound(&mut frame, VportId(id), d.now) else {
                    return false;
                };
                let at = (frame.start(), frame.len());
                let port = match to {
                    Port::Uplink(uplink) => Some(BoardPort::Uplink(uplink)),
                    to => self.count_to_vf(to, at.1),
                };
                let Some(port) = port else {
                    let at = Place::of(&frame);
                    self.transmit(bus, d, Port::Vport(VportId(id)), to, at, 0, CopyInfo::default());
                    return true;
                };
                if let Some(vport) = self.datapath.vports.get_mut(usize::from(id)) {
                    vport.rx_packets += 1;
                    vport.rx_bytes += u64::from(d.len);
                }
                Self::send_fast(bus, d, at, (id, port, to));
            }
            BoardPort::Uplink(n) => {
                let Some((to, _)) = self.datapath.fast_inbound(&mut frame, d.offload.known_checksum(), d.now)
                else {
                    return false;
                };
                let at = (frame.start(), frame.len());
                match self.count_to_vf(Port::Vport(to), at.1) {
                    Some(port) => {
                        Self::send_fast(bus, d, at, (Port::Uplink(n).bits(), port, Port::Vport(to)));
                    }
                    None => {
                        let at = Place::of(&frame);
                        let (from, to) = (Port::Uplink(n), Port::Vport(to));
                        self.transmit(bus, d, from, to, at, 0, CopyInfo::default());
                    }
                }
            }
            BoardPort::Queue(_) | BoardPort::None => return false,
        }
        true
    }

    /// The VF that serves a vport; counts a frame of `len` bytes as sent to it. `None`: no VF serves it, or it is down.
    #[inline(always)]
    fn count_to_vf(&mut self, to: Port, len: usize) -> Option<BoardPort> {
        let Port::Vport(VportId(n)) = to else { return None };
        let vport = self.datapath.vports.get_mut(usize::from(n))?;
        if !vport.is_up() || vport.target != Vport::VF {
            return None;
        }
        vport.tx_packets += 1;
        vport.tx_bytes += len as u64;
        Some(BoardPort::Vf(vport.number as u8))
    }

    /// Sends a forwarded frame, `len` bytes from `start` on, from a port of the data path to one of the board, which
    /// serves another.
    #[inline(always)]
    fn send_fast(
        bus: &mut impl Bus,
        d: &Descriptor,
        (start, len): (usize, usize),
        (from, port, to): (u16, BoardPort, Port),
    ) {
        bus.send(&Descriptor {
            buffer: d.buffer,
            offset: start as u16,
            len: len as u16,
            op: Op::Transmit as u8,
            flags: RELEASE,
            port: port.bits(),
            target: d.port,
            now: d.now,
            vport: from,
            arg0: u32::from(to.bits()),
            offload: d.offload,
            ..Descriptor::default()
        });
    }
}
