//! From ELF file to image.

use culvert_abi::image::Header;
use culvert_abi::soc::RAM_BASE;

use super::{elf, flat};

/// An ELF file with these loadable segments (physical address, contents) and one that holds nothing.
fn file(entry: u64, segments: &[(u64, &[u8])]) -> Vec<u8> {
    let count = segments.len() + 1;
    let mut head = b"\x7fELF\x02\x01\x01".to_vec();
    head.resize(16, 0);
    head.extend([2u16, 243].map(u16::to_le_bytes).concat());
    head.extend(1u32.to_le_bytes());
    head.extend([entry, 64, 0].map(u64::to_le_bytes).concat());
    head.extend(0u32.to_le_bytes());
    head.extend([64u16, 56, u16::try_from(count).unwrap(), 0, 0, 0].map(u16::to_le_bytes).concat());
    let mut contents = Vec::new();
    for (address, bytes) in segments.iter().chain(&[(RAM_BASE + 0x10_0000, &[][..])]) {
        let offset = 64 + 56 * count + contents.len();
        head.extend([1u32, 5].map(u32::to_le_bytes).concat());
        // The virtual address differs on purpose: what counts is where the bytes are loaded.
        let length = bytes.len() as u64;
        head.extend(
            [offset as u64, 0xdead_0000, *address, length, length + 64, 8].map(u64::to_le_bytes).concat(),
        );
        contents.extend_from_slice(bytes);
    }
    [head, contents].concat()
}

#[test]
fn segments_are_laid_out_by_physical_address_with_gaps_zeroed() {
    let elf = file(RAM_BASE + 4, &[(RAM_BASE + 16, b"data"), (RAM_BASE, b"code")]);
    let memory = elf::load(&elf, 1 << 20).unwrap();
    assert_eq!((memory.start, memory.entry), (RAM_BASE, RAM_BASE + 4));
    assert_eq!(memory.bytes, b"code\0\0\0\0\0\0\0\0\0\0\0\0data");
}

#[test]
fn the_image_passes_the_boards_checks() {
    let image = flat(&file(RAM_BASE, &[(RAM_BASE, b"firmware")])).unwrap();
    let (header, bytes) = Header::parse(&image).unwrap();
    assert_eq!(bytes, b"firmware");
    assert_eq!(header.crc, crc32fast::hash(b"firmware"));
}

#[test]
fn an_image_that_the_board_would_refuse_is_refused_here() {
    let failure = flat(&file(0x1000, &[(0x1000, b"low")])).unwrap_err();
    assert!(failure.to_string().contains("Address"), "{failure}");
}

#[test]
fn damaged_files_are_refused_without_a_panic() {
    let elf = file(RAM_BASE, &[(RAM_BASE, b"code"), (RAM_BASE + 16, b"data")]);
    for length in 0..elf.len() {
        assert!(elf::load(&elf[..length], 1 << 20).is_err(), "cut to {length} bytes");
    }
    for at in 0..elf.len() {
        let mut damaged = elf.clone();
        damaged[at] ^= 0xff;
        let _ = elf::load(&damaged, 1 << 20);
    }
    let far = file(RAM_BASE, &[(RAM_BASE, b"code"), (RAM_BASE + (1 << 40), b"far")]);
    assert!(elf::load(&far, 1 << 20).is_err());
}
