//! DMA memory is zeroed, bounded, and shared by clones and through its file.

use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use super::*;

#[test]
fn copies_are_exact_at_every_alignment() {
    let buffer = DmaBuffer::detached(0x1000, 4096).unwrap();
    for start in 0..9 {
        for len in 0..40 {
            let data: Vec<u8> = (0..len).map(|i| i + 1 + start).collect();
            buffer.write_at(usize::from(start), &data).unwrap();
            let mut back = vec![0; usize::from(len)];
            buffer.read_at(usize::from(start), &mut back).unwrap();
            assert_eq!(back, data, "start {start} length {len}");
        }
    }
}

#[test]
fn new_memory_is_zero_and_whole_pages() {
    let buffer = DmaBuffer::detached(0, 5000).unwrap();
    assert_eq!(buffer.len(), 8192);
    let mut all = vec![1; 8192];
    buffer.read_at(0, &mut all).unwrap();
    assert!(all.iter().all(|b| *b == 0));
    assert!(DmaBuffer::detached(0, 0).is_err());
}

#[test]
fn accesses_outside_are_refused() {
    let buffer = DmaBuffer::detached(0x1000, 4096).unwrap();
    assert!(matches!(buffer.write_at(4090, &[0; 7]), Err(Error::OutOfRange { .. })));
    assert!(matches!(buffer.read_at(usize::MAX, &mut [0; 2]), Err(Error::OutOfRange { .. })));
    buffer.write_at(4090, &[0; 6]).unwrap();
}

#[test]
fn writes_of_the_device_through_the_file_are_visible() {
    let buffer = DmaBuffer::detached(0, 4096).unwrap();
    buffer.file().write_all_at(&0x1234_u16.to_le_bytes(), 2).unwrap();
    assert_eq!(u16::from_le(buffer.atomic_u16(2).load(Ordering::Acquire)), 0x1234);
    let other = buffer.clone();
    drop(buffer);
    other.atomic_u32(8).store(7_u32.to_le(), Ordering::Release);
    let mut word = [0; 4];
    other.file().read_exact_at(&mut word, 8).unwrap();
    assert_eq!(word, [7, 0, 0, 0]);
}

#[test]
fn huge_pages_are_optional() {
    let memory = allocate(4096, PageKind::PreferHuge).unwrap();
    assert!(memory.len() == 4096 || memory.len() == HUGE_PAGE);
}

/// A process that got the file, such as the board, cannot end this one by an access beyond its end (SIGBUS).
#[test]
fn nobody_can_change_the_length_of_dma_memory() {
    let buffer = DmaBuffer::detached(0, 8192).unwrap();
    for len in [0, 4096, 16_384] {
        let error = buffer.file().set_len(len).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{len}: {error}");
    }
    buffer.write_at(8000, &[1; 192]).unwrap();
}
