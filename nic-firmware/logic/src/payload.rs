//! Payloads of commands: lists of fixed-size items in a packet buffer.

use culvert_abi::soc::Descriptor;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::bus::Bus;

/// Item `n` of the payload that a descriptor names, copied out. `None`: there are no more.
pub(crate) fn item<T: FromBytes + KnownLayout + Immutable>(
    bus: &mut impl Bus,
    d: &Descriptor,
    n: usize,
) -> Option<T> {
    let at = usize::from(d.offset) + n * size_of::<T>();
    let end = usize::from(d.offset) + usize::from(d.len);
    if at + size_of::<T>() > end {
        return None;
    }
    T::read_from_bytes(bus.buffer(d.buffer)?.get(at..at + size_of::<T>())?).ok()
}

/// How many items a payload has. `None`: its length is no multiple of theirs.
pub(crate) fn count<T>(d: &Descriptor) -> Option<usize> {
    let len = usize::from(d.len);
    len.is_multiple_of(size_of::<T>()).then_some(len / size_of::<T>())
}

/// Writes a reply into the buffer of a command.
pub(crate) struct Reply {
    buffer: u32,
    start: usize,
    len: usize,
}

impl Reply {
    pub(crate) fn new(d: &Descriptor) -> Self {
        Reply { buffer: d.buffer, start: usize::from(d.offset), len: 0 }
    }

    /// Adds an item. `false`: the buffer is full.
    pub(crate) fn push(&mut self, bus: &mut impl Bus, item: &(impl IntoBytes + Immutable)) -> bool {
        let bytes = item.as_bytes();
        let at = self.start + self.len;
        match bus.buffer(self.buffer).and_then(|b| b.get_mut(at..at + bytes.len())) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.len += bytes.len();
                true
            }
            None => false,
        }
    }

    /// Whether `len` more bytes fit.
    pub(crate) fn fits(&self, bus: &mut impl Bus, len: usize) -> bool {
        bus.buffer(self.buffer).is_some_and(|b| self.start + self.len + len <= b.len())
    }

    pub(crate) fn len(&self) -> u16 {
        self.len as u16
    }
}
