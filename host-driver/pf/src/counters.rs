//! The board's counters.

use culvert_abi::regs::{DROPS, FW_FINISHED, FW_PUNTED, PORT_STRIDE, PORTS};
use culvert_packet::Reason;

use crate::{Nic, Result};

/// Counters of one board port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames into the NIC.
    pub in_packets: u64,
    /// Bytes into the NIC.
    pub in_bytes: u64,
    /// Frames out of the NIC.
    pub out_packets: u64,
    /// Bytes out of the NIC.
    pub out_bytes: u64,
    /// Frames dropped.
    pub drops: u64,
}

/// What the whole NIC has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that the firmware finished by itself.
    pub finished: u64,
    /// Packets that it gave to the host.
    pub punted: u64,
    /// The two MAC ports.
    pub uplinks: [PortCounters; 2],
}

/// The uplinks' place among the board's ports.
const UPLINK0: u32 = 64;

impl Nic {
    /// Counters of the NIC and its MAC ports.
    ///
    /// # Errors
    /// The device is lost.
    pub fn counters(&self) -> Result<Counters> {
        let bar = &self.shared.bar;
        Ok(Counters {
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
