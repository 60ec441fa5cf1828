//! Packet, byte and drop counters that the board keeps.

use culvert_abi::regs::{DROPS, FW_FINISHED, FW_PUNTED, PORT_STRIDE, PORTS};
use culvert_offload::{NicCounters, PortCounters};
use culvert_packet::Reason;

use crate::Result;
use crate::nic::Nic;

/// Number of the first uplink among the board's ports. VFs come before it.
const UPLINK0: u32 = 64;
/// Place of frames carried by messages among a port's counters.
const BY_MESSAGE: u32 = 5;

impl Nic {
    /// Counters of the NIC and its MAC ports.
    ///
    /// # Errors
    /// The device is lost.
    pub fn counters(&self) -> Result<NicCounters> {
        let bar = &self.shared.bar;
        Ok(NicCounters {
            finished: bar.counter(FW_FINISHED)?,
            punted: bar.counter(FW_PUNTED)?,
            uplinks: [self.port(UPLINK0)?, self.port(UPLINK0 + 1)?],
        })
    }

    /// Counters of VF `vf`.
    ///
    /// # Errors
    /// The device is lost.
    pub fn vf_counters(&self, vf: u16) -> Result<PortCounters> {
        self.port(u32::from(vf) % UPLINK0)
    }

    /// Frames of VF `vf` that messages to its VMM have carried, because the VM's memory is not shared.
    ///
    /// # Errors
    /// The device is lost.
    pub fn vf_frames_by_message(&self, vf: u16) -> Result<u64> {
        self.shared.bar.counter(PORTS + u32::from(vf) % UPLINK0 * PORT_STRIDE + 8 * BY_MESSAGE)
    }

    fn port(&self, port: u32) -> Result<PortCounters> {
        let at = |n: u32| self.shared.bar.counter(PORTS + port * PORT_STRIDE + 8 * n);
        Ok(PortCounters {
            in_packets: at(0)?,
            in_bytes: at(1)?,
            out_packets: at(2)?,
            out_bytes: at(3)?,
            drops: at(4)?,
        })
    }

    /// Packets that the board dropped, by reason; only reasons that occurred.
    ///
    /// # Errors
    /// The device is lost.
    pub fn board_drops(&self) -> Result<Vec<(Reason, u64)>> {
        let mut drops = Vec::new();
        for reason in Reason::ALL {
            let n = self.shared.bar.counter(DROPS + 8 * *reason as u32)?;
            if n != 0 {
                drops.push((*reason, n));
            }
        }
        Ok(drops)
    }
}
