//! The data path with tables: hostile frames and commands through two engines, which must agree in all they do.

use std::cell::RefCell;

use culvert_abi::soc::{BoardPort, Sizes};
use culvert_lockstep::core::Core;
use culvert_lockstep::firmware::{FirmwareEngine, Hosted};
use culvert_lockstep::memory::Store;
use culvert_lockstep::trace::{Event, Input as Received, What};
use culvert_lockstep::{compare, generate};

use crate::frames;
use crate::input::{Input, counted};
use crate::target::Target;

/// The target.
pub const TARGET: Target = Target { name: "pipeline", run, seeds };

/// Longest frame of an input: the board's buffers hold no longer one.
const LONGEST: usize = 1600;
/// Most steps of the generated part, and most frames.
const MOST: usize = 40;

/// Which engines, how many generated steps, the steps, then frames as they are.
fn seeds() -> Vec<Vec<u8>> {
    let mut random = 1;
    let mut all = Vec::new();
    for (n, frame) in (0u8..).zip(frames::tenant().into_iter().chain(frames::wire())) {
        let steps = generate::random_steps(&mut random, 30).concat();
        let port = if n < 16 { n % 3 } else { 0x80 };
        all.push(
            [&[n % 2, 30][..], &steps, &[port, 0], &counted(&frame), &[port, 1], &counted(&frame)].concat(),
        );
    }
    all
}

thread_local! {
    /// Tables of the engines: allocated once.
    static STORES: RefCell<[Store; 3]> = RefCell::new(std::array::from_fn(|_| Store::new(&sizes())));
}

fn sizes() -> Sizes {
    Sizes { pending: 6, ..Sizes::new(6) }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let engines = input.byte();
    let count = usize::from(input.byte()).min(MOST);
    let (steps, _) = input.take(3 * count).as_chunks::<3>();
    STORES.with_borrow_mut(|stores| {
        for store in stores.iter_mut() {
            store.clear();
        }
        let [generator, one, other] = stores;
        let mut trace = generate::trace(&mut Core::in_memory(generator), steps);
        let now = trace.last().map_or(0, |event| event.now);
        for _ in 0..MOST {
            if input.is_empty() {
                break;
            }
            trace.push(Event { now, what: frame(&mut input) });
        }
        let mut core = Core::in_memory(one);
        let result = if engines & 1 == 0 {
            compare(&trace, &mut core, &mut Core::in_memory(other).without_fast_path())
        } else {
            compare(&trace, &mut core, &mut FirmwareEngine::new(Hosted::in_memory(other)))
        };
        result.unwrap_or_else(|difference| panic!("{difference}"));
    });
}

/// A frame as it stands in the input.
fn frame(input: &mut Input<'_>) -> What {
    let (from, checksum) = (input.byte(), input.byte() % 4);
    let port = if from < 0x80 { BoardPort::Vf(from % 5) } else { BoardPort::Uplink(from & 1) };
    let bytes = input.counted();
    What::Frame(Received { port, checksum, bytes: bytes[..bytes.len().min(LONGEST)].to_vec() })
}
