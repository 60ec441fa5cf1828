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

    /// Empties all tables.
    pub fn clear(&mut self) {
        self.buckets.fill(Bucket::default());
        self.keys.fill(FlowKey::default());
        self.hot.fill(FlowHot::default());
        self.cold.fill(FlowCold::default());
        self.tunnels.fill(Tunnel::default());
        self.groups.fill(Group::default());
        self.peers.fill(Peer::default());
        self.vports.fill(Vport::default());
        self.map_cells.fill(0);
        self.pending.fill(PendingFlow::default());
        self.links.fill(0);
        self.waiting.fill(Descriptor::default());
    }

    /// The tables as the firmware takes them.
    pub fn lend(&mut self) -> Memory<'_> {
        Memory {
            table: TableMemory {
                buckets: &mut self.buckets,
                keys: &mut self.keys,
                hot: &mut self.hot,
                cold: &mut self.cold,
            },
            tunnels: &mut self.tunnels,
            groups: &mut self.groups,
            peers: &mut self.peers,
            vports: &mut self.vports,
            map_cells: &mut self.map_cells,
            pending: &mut self.pending,
            links: &mut self.links,
            waiting: &mut self.waiting,
        }
    }

    /// The same for ever. The vectors are leaked: an engine lives as long as the program.
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
