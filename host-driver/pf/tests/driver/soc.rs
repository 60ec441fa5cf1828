//! The SoC of the tests' board: packet buffers, rings to the firmware logic, and its tables.

use culvert_abi::soc::{BUFFER_LEN, Descriptor, HEADER_LEN, NO_BUFFER, RELEASE, Sizes};
use culvert_logic::{Bus, Memory};
use zerocopy::FromZeros;

pub(crate) const BUFFERS: usize = 256;

/// Buffers and rings of the SoC.
pub(crate) struct Soc {
    pub(crate) rx: std::collections::VecDeque<Descriptor>,
    pub(crate) tx: Vec<(Descriptor, Vec<u8>)>,
    pub(crate) buffers: Vec<[u8; BUFFER_LEN as usize]>,
    pub(crate) free: Vec<u32>,
    header: [u8; HEADER_LEN as usize],
}

impl Soc {
    pub(crate) fn new() -> Self {
        Soc {
            rx: Default::default(),
            tx: Vec::new(),
            buffers: vec![[0; BUFFER_LEN as usize]; BUFFERS],
            free: (0..BUFFERS as u32).collect(),
            header: [0; HEADER_LEN as usize],
        }
    }
}

impl Bus for Soc {
    type Taken = Box<Descriptor>;

    fn receive(&mut self) -> Option<Box<Descriptor>> {
        self.rx.pop_front().map(Box::new)
    }

    fn buffer(&mut self, number: u32) -> Option<&mut [u8]> {
        self.buffers.get_mut(number as usize).map(|b| &mut b[..])
    }

    fn header(&mut self) -> &mut [u8; HEADER_LEN as usize] {
        &mut self.header
    }

    fn send(&mut self, d: &Descriptor) {
        let mut bytes = self.header[..usize::from(d.header_len)].to_vec();
        if d.buffer != NO_BUFFER {
            let (from, len) = (usize::from(d.offset), usize::from(d.len));
            bytes.extend_from_slice(&self.buffers[d.buffer as usize][from..from + len]);
            if d.flags & RELEASE != 0 {
                self.free.push(d.buffer);
            }
        }
        self.tx.push((*d, bytes));
    }
}

fn table<T: FromZeros>(n: usize) -> &'static mut [T] {
    Vec::leak((0..n).map(|_| T::new_zeroed()).collect())
}

/// Tables that live as long as the process.
pub(crate) fn tables() -> Memory<'static> {
    let sizes = Sizes::new(10);
    let flows = sizes.flows as usize;
    let table_memory = culvert_flow::table::TableMemory {
        buckets: table(flows / culvert_flow::table::WAYS),
        keys: table(flows),
        hot: table(flows),
        cold: table(flows),
    };
    Memory {
        table: table_memory,
        tunnels: table(64),
        groups: table(16),
        peers: table(256),
        vports: table(64),
        map_cells: table(culvert_flow::tables::MAP_CELLS),
        pending: table(16),
        links: table(BUFFERS),
        waiting: table(BUFFERS),
    }
}
