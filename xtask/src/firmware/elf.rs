//! From a 64-bit little-endian RISC-V ELF file to the bytes that its loadable segments put into memory.

use crate::failure::Result;

/// `e_machine` of RISC-V.
const RISCV: u16 = 243;
/// `p_type` of a loadable segment.
const LOAD: u32 = 1;

/// A contiguous piece of memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Memory {
    /// Physical address of the first byte.
    pub(super) start: u64,
    /// Where execution starts.
    pub(super) entry: u64,
    /// Contents; gaps between segments are zero, memory that start-up code clears is not included.
    pub(super) bytes: Vec<u8>,
}

/// Reads the program headers and lays out the loadable segments, at most `limit` bytes in all.
pub(super) fn load(elf: &[u8], limit: usize) -> Result<Memory> {
    if elf.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err("not a 64-bit little-endian ELF file".into());
    }
    if u16_at(elf, 18)? != RISCV {
        return Err(format!("machine {} is not RISC-V", u16_at(elf, 18)?).into());
    }
    let table = u64_at(elf, 32)?;
    let (size, count) = (u64::from(u16_at(elf, 54)?), u64::from(u16_at(elf, 56)?));
    let mut segments = Vec::new();
    for index in 0..count {
        let at = size
            .checked_mul(index)
            .and_then(|offset| offset.checked_add(table))
            .ok_or("program header overflows")?;
        let at = usize::try_from(at).map_err(|_| "program header lies outside the file")?;
        let length = u64_at(elf, at + 32)?;
        if u32_at(elf, at)? == LOAD && length > 0 {
            segments.push((u64_at(elf, at + 24)?, bytes_at(elf, u64_at(elf, at + 8)?, length)?));
        }
    }
    segments.sort_by_key(|(address, _)| *address);
    let start = segments.first().ok_or("no loadable segment")?.0;
    let mut bytes = Vec::new();
    for (address, contents) in segments {
        let offset = usize::try_from(address - start).map_err(|_| "segments lie too far apart")?;
        if offset < bytes.len() {
            return Err(format!("segments overlap at {address:#x}").into());
        }
        if offset.saturating_add(contents.len()) > limit {
            return Err(format!("more than {limit} bytes to load").into());
        }
        bytes.resize(offset, 0);
        bytes.extend_from_slice(contents);
    }
    Ok(Memory { start, entry: u64_at(elf, 24)?, bytes })
}

fn bytes_at(file: &[u8], offset: u64, length: u64) -> Result<&[u8]> {
    let range = || Some(usize::try_from(offset).ok()?..usize::try_from(offset.checked_add(length)?).ok()?);
    let bytes = range().and_then(|range| file.get(range));
    bytes.ok_or_else(|| format!("{length} bytes at {offset} lie outside the file").into())
}

fn array_at<const N: usize>(file: &[u8], offset: usize) -> Result<[u8; N]> {
    let mut array = [0; N];
    array.copy_from_slice(bytes_at(file, offset as u64, N as u64)?);
    Ok(array)
}

fn u16_at(file: &[u8], offset: usize) -> Result<u16> {
    Ok(u16::from_le_bytes(array_at(file, offset)?))
}

fn u32_at(file: &[u8], offset: usize) -> Result<u32> {
    Ok(u32::from_le_bytes(array_at(file, offset)?))
}

fn u64_at(file: &[u8], offset: usize) -> Result<u64> {
    Ok(u64::from_le_bytes(array_at(file, offset)?))
}
