//! Memory of a datapath on the host.

use culvert_abi::soc::{BUFFER_COUNT, Descriptor, Sizes};
use culvert_flow::pending::PendingFlow;
use culvert_flow::table::{Bucket, TableMemory, WAYS};
use culvert_flow::tables::{Group, MAP_CELLS, Peer, Tunnel, Vport};
use culvert_flow::{FlowCold, FlowHot, FlowKey};
use culvert_logic::Memory;

/// All tables, in vectors.
pub struct Store {
    buckets: Vec<Bucket>,
    keys: Vec<FlowKey>,
    hot: Vec<FlowHot>,
    cold: Vec<FlowCold>,
    tunnels: Vec<Tunnel>,
    groups: Vec<Group>,
    peers: Vec<Peer>,
    vports: Vec<Vport>,
    map_cells: Vec<u32>,
    pending: Vec<PendingFlow>,
    links: Vec<u32>,
    waiting: Vec<Descriptor>,
}

impl Store {
    /// Tables of the firmware's sizes.
    pub fn new(sizes: &Sizes) -> Self {
        let flows = sizes.flows as usize;
        Store {
            buckets: vec![Bucket::default(); flows / WAYS],
            keys: vec![FlowKey::default(); flows],
            hot: vec![FlowHot::default(); flows],
            cold: vec![FlowCold::default(); flows],
            tunnels: vec![Tunnel::default(); sizes.tunnels as usize],
            groups: vec![Group::default(); sizes.groups as usize],
            peers: vec![Peer::default(); sizes.peers as usize],
            vports: vec![Vport::default(); sizes.vports as usize],
            map_cells: vec![0; MAP_CELLS],
            pending: vec![PendingFlow::default(); sizes.pending as usize],
            links: vec![0; BUFFER_COUNT as usize],
            waiting: vec![Descriptor::default(); BUFFER_COUNT as usize],
        }
    }

    /// The tables as the firmware takes them. The vectors are leaked: an engine lives as long as the program.
    pub fn leak(self) -> Memory<'static> {
        Memory {
            table: TableMemory {
                buckets: self.buckets.leak(),
                keys: self.keys.leak(),
                hot: self.hot.leak(),
                cold: self.cold.leak(),
            },
            tunnels: self.tunnels.leak(),
            groups: self.groups.leak(),
            peers: self.peers.leak(),
            vports: self.vports.leak(),
            map_cells: self.map_cells.leak(),
            pending: self.pending.leak(),
            links: self.links.leak(),
            waiting: self.waiting.leak(),
        }
    }
}
