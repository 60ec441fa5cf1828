//! A datapath's tables in the memory of this process.

use std::io;

use culvert_flow::TableSizes;
use culvert_flow::datapath::{Counters, Datapath};
use culvert_flow::pending::Pending;
use culvert_flow::table::{FlowTable, TableMemory, WAYS};
use culvert_flow::tables::{MAP_CELLS, Peers, Vport};
use culvert_flow::{HashSecret, Port};
use culvert_packet::{MacAddr, VportId};

use crate::memory::zeroed;

/// Packets that may wait for the decision on one flow.
const WAITING: u16 = 512;

/// A datapath with empty tables of these sizes, for packets whose numbers are below `packets`.
///
/// # Errors
/// Out of memory.
pub(super) fn datapath(
    sizes: &TableSizes,
    packets: usize,
    secret: HashSecret,
) -> io::Result<Datapath<'static>> {
    let flows = sizes.flows as usize;
    let table = TableMemory {
        buckets: zeroed(flows / WAYS)?,
        keys: zeroed(flows)?,
        hot: zeroed(flows)?,
        cold: zeroed(flows)?,
    };
    let table = FlowTable::new(table, secret)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, format!("{flows} flows: {e:?}")))?;
    Ok(Datapath {
        table,
        pending: Pending::new(zeroed(sizes.pending as usize)?, zeroed(packets)?, WAITING),
        tunnels: zeroed(sizes.tunnels as usize)?,
        groups: zeroed(sizes.groups as usize)?,
        peers: Peers::new(zeroed(sizes.peers as usize)?),
        vports: zeroed(sizes.vports as usize)?,
        map_cells: zeroed(MAP_CELLS)?,
        router_mac: MacAddr::ZERO,
        counters: Counters::default(),
        // On small pages, of which a vport without drops takes none.
        vport_drops: Box::leak(vec![[0; 256]; sizes.vports as usize].into_boxed_slice()),
    })
}

/// The table entry of a vport.
#[inline(always)]
pub(super) fn vport<'a>(dp: &'a mut Datapath<'static>, at: Port) -> Option<&'a mut Vport> {
    let Port::Vport(VportId(n)) = at else { return None };
    dp.vports.get_mut(usize::from(n))
}
