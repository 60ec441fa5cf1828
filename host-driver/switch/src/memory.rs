//! Memory that is allocated once, on huge pages if possible, and kept as long as the program runs.

use std::io;

use mmap_rs::{MmapFlags, MmapOptions};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

/// Size of a huge page.
const HUGE: usize = 2 << 20;

/// Allocates `n` items of zero bytes, and never frees them: tables and packet buffers live as long as the program.
///
/// # Errors
/// Out of memory.
pub fn zeroed<T: FromBytes + IntoBytes + KnownLayout>(n: usize) -> io::Result<&'static mut [T]> {
    let bytes = n * size_of::<T>();
    if bytes == 0 {
        return Ok(&mut []);
    }
    let failed =
        |e: mmap_rs::Error| io::Error::new(io::ErrorKind::OutOfMemory, format!("{bytes} bytes: {e}"));
    let taken = |bytes, flags| MmapOptions::new(bytes)?.with_flags(flags).map_mut();
    // Reserved huge pages are usually meant for VMs: they are not used where the kernel makes huge pages by itself.
    let settings = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    let reserved = settings.is_ok_and(|text| text.contains("[never]"));
    let huge = || taken(bytes.next_multiple_of(HUGE), MmapFlags::HUGE_PAGES);
    let map = match reserved.then(huge) {
        Some(Ok(map)) => map,
        _ => taken(bytes, MmapFlags::TRANSPARENT_HUGE_PAGES).map_err(failed)?,
    };
    let all: &'static mut [u8] = Box::leak(Box::new(map)).as_mut_slice();
    <[T]>::mut_from_bytes(&mut all[..bytes]).map_err(|_| io::ErrorKind::InvalidInput.into())
}
