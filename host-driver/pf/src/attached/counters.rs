//! Counters that go on when a NIC or its firmware begins again at 0.

use std::collections::BTreeMap;
use std::sync::Mutex;

use culvert_flow::tables::Vport;
use culvert_offload::{NicCounters, PortCounters};
use culvert_packet::Reason;

use crate::Result;
use crate::nic::Nic;
use crate::sync::lock;

/// What counts: a NIC in the place, and a start of its firmware. A later one counts from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Instance {
    pub(super) generation: u64,
    pub(super) epoch: u32,
}

/// Counters of one kind, by name.
#[derive(Debug)]
struct Carried<K> {
    instance: Instance,
    /// What earlier instances had counted when they were last read.
    before: BTreeMap<K, u64>,
    /// What this instance had counted when it was last read.
    last: BTreeMap<K, u64>,
}

impl<K> Default for Carried<K> {
    fn default() -> Self {
        Carried { instance: Instance::default(), before: BTreeMap::new(), last: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> Carried<K> {
    /// Takes a reading of an instance. Readings of an earlier one, which was overtaken, change nothing.
    fn read(&mut self, instance: Instance, counts: impl IntoIterator<Item = (K, u64)>) {
        if instance < self.instance {
            return;
        }
        if instance > self.instance {
            self.instance = instance;
            for (name, count) in std::mem::take(&mut self.last) {
                *self.before.entry(name).or_default() += count;
            }
        }
        for (name, count) in counts {
            let last = self.last.entry(name).or_default();
            // Two readings may overtake each other.
            *last = count.max(*last);
        }
    }

    fn total(&self, name: K) -> u64 {
        let of = |counts: &BTreeMap<K, u64>| counts.get(&name).copied().unwrap_or(0);
        of(&self.before) + of(&self.last)
    }

    fn names(&self) -> impl Iterator<Item = K> + '_ {
        self.before.keys().chain(self.last.keys().filter(|name| !self.before.contains_key(*name))).copied()
    }
}

/// All counters of a NIC's place. The board's live as long as the board, the firmware's as long as its start.
#[derive(Debug, Default)]
pub(super) struct CarriedCounters {
    vports: Carried<(usize, usize)>,
    ports: Carried<(u16, usize)>,
    board_drops: Carried<Reason>,
    firmware_drops: Carried<Reason>,
    packets: Carried<usize>,
}

/// Number of the first uplink among the ports; VFs come before.
const UPLINK0: u16 = 64;

fn of_port(port: u16, counters: &PortCounters) -> [((u16, usize), u64); 5] {
    let PortCounters { in_packets, in_bytes, out_packets, out_bytes, drops } = *counters;
    let counts = [in_packets, in_bytes, out_packets, out_bytes, drops];
    std::array::from_fn(|n| ((port, n), counts[n]))
}

fn of_vport(number: usize, vport: &Vport) -> [((usize, usize), u64); 5] {
    let counts = [vport.rx_packets, vport.rx_bytes, vport.tx_packets, vport.tx_bytes, vport.drops];
    std::array::from_fn(|n| ((number, n), counts[n]))
}

impl CarriedCounters {
    fn port(&self, port: u16) -> PortCounters {
        let at = |n| self.ports.total((port, n));
        PortCounters {
            in_packets: at(0),
            in_bytes: at(1),
            out_packets: at(2),
            out_bytes: at(3),
            drops: at(4),
        }
    }

    fn vport(&self, number: usize, vport: &mut Vport) {
        let at = |n| self.vports.total((number, n));
        (vport.rx_packets, vport.rx_bytes, vport.tx_packets) = (at(0), at(1), at(2));
        (vport.tx_bytes, vport.drops) = (at(3), at(4));
    }
}

/// The board's counters of a NIC, and those of its firmware.
fn instances(generation: u64, nic: &Nic) -> [Instance; 2] {
    [0, nic.shared.epoch()].map(|epoch| Instance { generation, epoch })
}

pub(super) fn read_vports(
    counters: &Mutex<CarriedCounters>,
    generation: u64,
    nic: &Nic,
) -> Result<Vec<Vport>> {
    let [_, firmware] = instances(generation, nic);
    let mut vports = nic.vports()?;
    let mut carried = lock(counters);
    carried.vports.read(firmware, vports.iter().enumerate().flat_map(|(n, v)| of_vport(n, v)));
    vports.iter_mut().enumerate().for_each(|(n, v)| carried.vport(n, v));
    Ok(vports)
}

pub(super) fn read_counters(
    counters: &Mutex<CarriedCounters>,
    generation: u64,
    nic: &Nic,
) -> Result<NicCounters> {
    let [board, firmware] = instances(generation, nic);
    let mut read = nic.counters()?;
    let mut carried = lock(counters);
    carried.packets.read(firmware, [(0, read.finished), (1, read.punted)]);
    for (n, uplink) in (UPLINK0..).zip(&mut read.uplinks) {
        carried.ports.read(board, of_port(n, uplink));
        *uplink = carried.port(n);
    }
    (read.finished, read.punted) = (carried.packets.total(0), carried.packets.total(1));
    Ok(read)
}

pub(super) fn read_vf(
    counters: &Mutex<CarriedCounters>,
    generation: u64,
    nic: &Nic,
    vf: u16,
) -> Result<PortCounters> {
    let [board, _] = instances(generation, nic);
    let read = nic.vf_counters(vf)?;
    let mut carried = lock(counters);
    carried.ports.read(board, of_port(vf % UPLINK0, &read));
    Ok(carried.port(vf % UPLINK0))
}

pub(super) fn read_drops(
    counters: &Mutex<CarriedCounters>,
    generation: u64,
    nic: &Nic,
) -> Result<Vec<(Reason, u64)>> {
    let [board, firmware] = instances(generation, nic);
    let (by_board, by_firmware) = (nic.board_drops()?, nic.firmware_drops()?);
    let mut carried = lock(counters);
    carried.board_drops.read(board, by_board);
    let named =
        |reason: Reason| Some((reason, by_firmware.get(reason as usize).copied().filter(|n| *n > 0)?));
    carried.firmware_drops.read(firmware, Reason::ALL.iter().copied().filter_map(named));
    let mut all: Vec<(Reason, u64)> =
        carried.board_drops.names().map(|r| (r, carried.board_drops.total(r))).collect();
    for reason in carried.firmware_drops.names() {
        let count = carried.firmware_drops.total(reason);
        match all.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, sum)) => *sum += count,
            None => all.push((reason, count)),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_never_go_backwards() {
        let at = |generation, epoch| Instance { generation, epoch };
        let mut carried = Carried::default();
        carried.read(at(1, 1), [("in", 10), ("out", 4)]);
        // Two threads that read at the same time.
        carried.read(at(1, 1), [("in", 9), ("out", 5)]);
        assert_eq!((carried.total("in"), carried.total("out")), (10, 5));
        // Another firmware, then another board.
        carried.read(at(1, 2), [("in", 1)]);
        assert_eq!((carried.total("in"), carried.total("out")), (11, 5));
        carried.read(at(1, 1), [("in", 1000)]);
        assert_eq!(carried.total("in"), 11, "a reading that was overtaken");
        carried.read(at(2, 1), [("in", 20), ("out", 0)]);
        assert_eq!((carried.total("in"), carried.total("out")), (31, 5));
        assert_eq!(carried.names().collect::<Vec<_>>(), ["in", "out"]);
    }
}
