//! Steering: which worker serves a vport, in both directions.

use std::sync::Arc;

use culvert_flow::{Direction, FlowKey, Port};
use culvert_offload::FdbEntry;
use culvert_packet::{MacAddr, VportId, parse_outer, peek_inner};
use hashbrown::HashMap;

use crate::packet::Packet;

/// Stands for no vport where packets are charged to vports.
pub(super) const NO_VPORT: u16 = Port::MAX_VPORTS;

/// Which worker serves which vport. Worker 0 serves everything that belongs to no vport.
#[derive(Clone, Default)]
pub(super) struct SteeringTable {
    /// The worker of each vport.
    vports: Vec<u8>,
    /// By [`fdb_key`].
    fdb: Arc<HashMap<u128, VportId>>,
}

/// VSID and MAC in one number: it is hashed for each frame from the wire.
#[inline]
fn fdb_key(vsid: u32, MacAddr([a, b, c, d, e, f]): MacAddr) -> u128 {
    u128::from(vsid) << 64 | u128::from(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}

impl SteeringTable {
    /// The same with a vport at a worker.
    pub(super) fn with(mut self, vport: VportId, worker: u8) -> Self {
        self.vports.resize(usize::from(Port::MAX_VPORTS), 0);
        if let Some(entry) = self.vports.get_mut(usize::from(vport.0)) {
            *entry = worker;
        }
        self
    }

    /// The same with another forwarding database.
    pub(super) fn with_fdb(mut self, fdb: &[FdbEntry]) -> Self {
        self.fdb = Arc::new(fdb.iter().map(|entry| (fdb_key(entry.vsid, entry.mac), entry.vport)).collect());
        self
    }

    /// The worker that serves a vport.
    #[inline]
    pub(super) fn of_vport(&self, vport: VportId) -> u8 {
        self.vports.get(usize::from(vport.0)).copied().unwrap_or(0)
    }

    #[inline]
    fn of_fdb_entry(&self, vsid: u32, mac: MacAddr) -> (u8, u16) {
        match self.fdb.get(&fdb_key(vsid, mac)) {
            Some(vport) => (self.of_vport(*vport), vport.0),
            None => (0, NO_VPORT),
        }
    }

    /// The worker that a frame from the wire belongs to, and the vport that it is for.
    #[inline]
    pub(super) fn of_frame(&self, frame: &[u8]) -> (u8, u16) {
        // Nothing of the frame is believed here: its worker parses it.
        if let Some((vsid, mac)) = peek_inner(frame) {
            return self.of_fdb_entry(vsid, mac);
        }
        let Ok(Some(outer)) = parse_outer(frame) else { return (0, NO_VPORT) };
        let mac = frame.get(usize::from(outer.inner)..).and_then(|inner| inner.first_chunk());
        mac.map_or((0, NO_VPORT), |mac| self.of_fdb_entry(outer.vsid, MacAddr(*mac)))
    }

    /// The vport that is charged for a packet: the one that sent it or, if it came from the wire, the one that it is for.
    pub(super) fn charged_vport(&self, packet: &Packet) -> u16 {
        match packet.input {
            Port::Vport(id) => id.0.min(NO_VPORT),
            Port::Uplink(_) => self.of_frame(packet.bytes()).1.min(NO_VPORT),
            Port::Host | Port::None => NO_VPORT,
        }
    }

    /// The worker that holds the record of a key.
    pub(super) fn of_key(&self, key: &FlowKey) -> u8 {
        if key.direction == Direction::Outbound as u8 {
            self.of_vport(VportId(key.source))
        } else {
            self.of_fdb_entry(key.vsid, MacAddr(key.dst_mac)).0
        }
    }
}
