//! Memory for the core's tables, of the sizes that the firmware has.

use culvert_abi::soc::Sizes;
use culvert_flow::datapath::{Counters, Datapath};
use culvert_flow::pending::{Pending, PendingFlow};
use culvert_flow::table::{Bucket, FlowTable, MemoryError, TableMemory, WAYS};
use culvert_flow::tables::{Group, MAP_CELLS, Peer, Peers, Tunnel, Vport};
use culvert_flow::{FlowCold, FlowHot, FlowKey, HashSecret};
use culvert_packet::MacAddr;

/// Secret of the flow hash. A capture is nobody's way into a live table, and results should be the same each time.
const SECRET: HashSecret = HashSecret([
    0x9e37_79b9_7f4a_7c15,
    0xf39c_c060_5ced_c834,
    0x1082_276b_f3a2_7251,
    0xf86c_6a11_d0c1_8e95,
    0x2767_f0b1_53d2_7b7f,
    0x0347_045b_5bf1_827f,
    0x0188_6f09_2840_3002,
    0xc1d6_4ba4_0f33_5e36,
    0xf06a_d7ae_9717_877e,
]);

/// A data path with empty tables. Their memory lives as long as the program: it is used to its end.
pub(super) fn datapath(sizes: &Sizes) -> Result<Datapath<'static>, MemoryError> {
    let flows = sizes.flows as usize;
    let memory = TableMemory {
        buckets: vec![Bucket::default(); flows / WAYS].leak(),
        keys: vec![FlowKey::default(); flows].leak(),
        hot: vec![FlowHot::default(); flows].leak(),
        cold: vec![FlowCold::default(); flows].leak(),
    };
    Ok(Datapath {
        table: FlowTable::new(memory, SECRET)?,
        // Each packet is settled before the next one comes: none waits.
        pending: Pending::new(vec![PendingFlow::default(); sizes.pending as usize].leak(), &mut [], 0),
        tunnels: vec![Tunnel::default(); sizes.tunnels as usize].leak(),
        groups: vec![Group::default(); sizes.groups as usize].leak(),
        peers: Peers::new(vec![Peer::default(); sizes.peers as usize].leak()),
        vports: vec![Vport::default(); sizes.vports as usize].leak(),
        map_cells: vec![0; MAP_CELLS].leak(),
        router_mac: MacAddr::ZERO,
        counters: Counters::default(),
    })
}
