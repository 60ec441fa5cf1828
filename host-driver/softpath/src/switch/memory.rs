//! Memory that is taken once, on huge pages where there are any, and kept as long as the program runs.

use std::io;

use mmap_rs::{MmapFlags, MmapOptions};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

/// `n` items of zero bytes. Their memory is never given back: tables and packet buffers live as long as the program.
///
/// # Errors
/// There is not so much memory.
pub fn zeroed<T: FromBytes + IntoBytes + KnownLayout>(n: usize) -> io::Result<&'static mut [T]> {
    let bytes = n * size_of::<T>();
    if bytes == 0 {
        return Ok(&mut []);
    }
    let failed =
        |e: mmap_rs::Error| io::Error::new(io::ErrorKind::OutOfMemory, format!("{bytes} bytes: {e}"));
    let options = MmapOptions::new(bytes).map_err(failed)?;
    let map = options.with_flags(MmapFlags::TRANSPARENT_HUGE_PAGES).map_mut().map_err(failed)?;
    let all: &'static mut [u8] = Box::leak(Box::new(map)).as_mut_slice();
    <[T]>::mut_from_bytes(&mut all[..bytes]).map_err(|_| io::ErrorKind::InvalidInput.into())
}
