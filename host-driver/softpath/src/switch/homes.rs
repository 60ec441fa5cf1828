//! Who does what: all that concerns a vport, both directions of it, is one worker's.

use std::sync::Arc;

use culvert_flow::{Direction, FlowKey, Port};
use culvert_packet::{MacAddr, VportId, parse_outer};
use hashbrown::HashMap;

use crate::target::Station;

/// Whoever is nobody in particular, where vports are counted.
pub(super) const NOBODY: u16 = Port::MAX_VPORTS;

/// Who does what, as every worker knows it. What is nobody's, and what is not for a vport, is worker 0's.
#[derive(Clone, Default)]
pub(super) struct Homes {
    /// The worker of each vport that is placed.
    vports: Vec<u8>,
    stations: Arc<HashMap<(u32, MacAddr), VportId>>,
}

impl Homes {
    /// The same with a vport placed.
    pub(super) fn with(mut self, vport: VportId, worker: u8) -> Self {
        self.vports.resize(usize::from(Port::MAX_VPORTS), 0);
        if let Some(place) = self.vports.get_mut(usize::from(vport.0)) {
            *place = worker;
        }
        self
    }

    /// The same with other stations.
    pub(super) fn with_stations(mut self, stations: &[Station]) -> Self {
        self.stations = Arc::new(stations.iter().map(|s| ((s.vsid, s.mac), s.vport)).collect());
        self
    }

    #[inline]
    pub(super) fn of_vport(&self, vport: VportId) -> u8 {
        self.vports.get(usize::from(vport.0)).copied().unwrap_or(0)
    }

    fn of_station(&self, vsid: u32, mac: MacAddr) -> (u8, u16) {
        match self.stations.get(&(vsid, mac)) {
            Some(vport) => (self.of_vport(*vport), vport.0),
            None => (0, NOBODY),
        }
    }

    /// The worker of a frame from the wire, and the vport that it is for.
    #[inline]
    pub(super) fn of_frame(&self, frame: &[u8]) -> (u8, u16) {
        let Ok(Some(outer)) = parse_outer(frame) else { return (0, NOBODY) };
        let mac = frame.get(usize::from(outer.inner)..).and_then(|inner| inner.first_chunk());
        mac.map_or((0, NOBODY), |mac| self.of_station(outer.vsid, MacAddr(*mac)))
    }

    /// The worker that has the record of a key.
    pub(super) fn of_key(&self, key: &FlowKey) -> u8 {
        if key.direction == Direction::Outbound as u8 {
            self.of_vport(VportId(key.source))
        } else {
            self.of_station(key.vsid, MacAddr(key.dst_mac)).0
        }
    }
}
