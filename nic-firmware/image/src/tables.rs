//! Lays the tables out in the SoC's RAM, in the order of `culvert_abi::soc::Sizes`.

use culvert_abi::soc::{BUFFER_COUNT, BUFFERS, Sizes, TABLES};
use culvert_flow::table::{TableMemory, WAYS};
use culvert_flow::tables::MAP_CELLS;
use culvert_logic::Memory;

use crate::ram;

/// Memory of all tables. To be called once.
pub(crate) fn memory(sizes: &Sizes) -> Memory<'static> {
    let flows = sizes.flows as usize;
    let mut at = Layout(TABLES);
    let memory = Memory {
        table: TableMemory {
            buckets: at.take(flows / WAYS),
            keys: at.take(flows),
            hot: at.take(flows),
            cold: at.take(flows),
        },
        tunnels: at.take(sizes.tunnels as usize),
        groups: at.take(sizes.groups as usize),
        peers: at.take(sizes.peers as usize),
        vports: at.take(sizes.vports as usize),
        map_cells: at.take(MAP_CELLS),
        pending: at.take(sizes.pending as usize),
        links: at.take(BUFFER_COUNT as usize),
        waiting: at.take(BUFFER_COUNT as usize),
    };
    assert!(at.0 <= BUFFERS, "the tables reach into the packet buffers");
    memory
}

/// Where the next table begins.
struct Layout(u64);

impl Layout {
    fn take<T>(&mut self, len: usize) -> &'static mut [T] {
        let table = ram::table(self.0, len);
        self.0 = (self.0 + (len * size_of::<T>()) as u64).next_multiple_of(4096);
        table
    }
}
