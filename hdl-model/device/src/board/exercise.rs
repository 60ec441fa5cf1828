//! The rings of the PF, whose types are the board's own, for the fuzz target that lets a driver write what it likes.

use culvert_abi::pf::Entry;

use super::pf_ring::{FromHost, Owner, Ring, ToHost};
use crate::dma::Memory;

/// Room for a payload, as the board has it.
const ROOM: usize = 1918;

/// Does with a ring in `memory`, in each direction, what the engine does, a step for each byte; `write` is called before
/// each, and may change the memory. Returns how many entries passed. A fault ends it, as it stops a queue.
pub fn pf_rings(
    memory: &Memory,
    bases: [u64; 2],
    size_log2: u32,
    steps: &[u8],
    mut write: impl FnMut(u8),
) -> usize {
    let [Some(commands), Some(upcalls)] = bases.map(|base| Ring::new(base, size_log2)) else { return 0 };
    let (mut commands, mut upcalls) = (FromHost::new(commands), ToHost::new(upcalls));
    let (mut payload, mut passed) = ([0; ROOM], 0);
    for step in steps {
        write(*step);
        let view = memory.view();
        let done = match step % 6 {
            0 | 1 => commands.next(&view, &mut payload).map(|entry| passed += usize::from(entry.is_some())),
            2 if upcalls.has_room(Owner::Vport(u16::from(*step) % 4)) => {
                passed += 1;
                let len = usize::from(*step) * 4;
                upcalls.push(
                    &view,
                    Entry { op: *step, ..Entry::default() },
                    &[&[7; 60][..len % 60], &payload[..len]],
                    Owner::Vport(u16::from(*step) % 4),
                )
            }
            3 => upcalls.drain(&view),
            4 => commands.publish(&view).and_then(|_| upcalls.publish(&view)).map(drop),
            _ => commands.set_sleeping(&view, *step & 64 != 0).map(|()| {
                // Only that it answers.
                let _work = commands.has_work(&view);
            }),
        };
        if done.is_err() {
            return passed;
        }
    }
    passed
}
