//! Replication: one descriptor for each copy, with outer headers of its own in the header scratch.

use culvert_abi::command::Op;
use culvert_abi::soc::{BoardPort, Descriptor, NO_BUFFER, RELEASE};
use culvert_flow::{Port, RecordId, Replica};
use culvert_packet::Reason;

use crate::bus::Bus;
use crate::firmware::Firmware;
use crate::send::Place;

impl Firmware<'_> {
    /// Sends a copy of a frame to each member of a group. The copies share the payload; the buffer is released behind
    /// the last one, since the board reads the ring in order.
    #[cold]
    pub(crate) fn replicate(
        &mut self,
        bus: &mut impl Bus,
        d: &Descriptor,
        input: Port,
        record: RecordId,
        group: u16,
        at: Place,
    ) {
        let Some(mut copies) = self.datapath.replication(record, group, input, at.len) else {
            return self.drop_packet(bus, d, Reason::NoReceiver, input);
        };
        let base = Descriptor {
            op: Op::Transmit as u8,
            reason: 0,
            flags: 0,
            target: d.port,
            offset: at.start as u16,
            len: at.len as u16,
            vport: input.bits(),
            ..*d
        };
        let mut sent = false;
        while let Some(copy) = copies.next_copy(self.datapath.tunnels, bus.header()) {
            match copy.and_then(|copy| self.output_copy(copy, at)) {
                Ok((port, to, header_len)) => {
                    bus.send(&Descriptor { port: port.bits(), arg0: to, header_len, ..base });
                    sent = true;
                }
                Err(reason) => self.datapath.count_drop(reason, input),
            }
        }
        self.count(input, Port::None, usize::from(d.len), 0);
        if !sent {
            self.datapath.count_drop(Reason::NoReceiver, input);
        }
        if d.buffer != NO_BUFFER {
            let reason = if sent { 0 } else { Reason::NoReceiver as u8 };
            bus.send(&Descriptor { op: Op::Complete as u8, reason, flags: RELEASE, cookie: 0, ..*d });
        }
    }

    /// The board's port for a copy, which is counted there, the port that it is for, and the length of its outer headers.
    fn output_copy(&mut self, copy: Replica, at: Place) -> Result<(BoardPort, u32, u16), Reason> {
        let Replica { to, outer_len } = copy;
        let port = self.output(to, at.dst_mac)?;
        self.count(Port::None, to, 0, at.len);
        Ok((port, u32::from(to.bits()), outer_len as u16))
    }
}
