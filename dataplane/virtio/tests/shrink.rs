//! A memory file that shrinks costs the access and not the process; what is left of the file stays usable elsewhere.

use std::fs::File;
use std::sync::Arc;

use culvert_virtio::{AddressSpace, FileInfo, MappedFile, MemoryFault, MemoryShare, PAGE_SIZE, Region};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

fn file(pages: u64) -> File {
    let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).expect("a memfd"));
    file.set_len(pages * PAGE_SIZE as u64).expect("its length");
    file
}

fn map(file: &File, pages: u64) -> Arc<MappedFile> {
    let info = FileInfo::of(file).expect("a regular file");
    Arc::new(
        MappedFile::map(file, &info, (0, pages * PAGE_SIZE as u64), true, &MemoryShare::new())
            .expect("a mapping"),
    )
}

#[test]
fn an_access_beyond_the_end_is_a_fault_and_other_files_are_untouched() {
    let (one, two) = (file(4), file(4));
    let (mapped, other) = (map(&one, 4), map(&two, 4));
    mapped.write(3 * PAGE_SIZE, &[7; 16]).expect("while it is there");
    ftruncate(&one, 2 * PAGE_SIZE as u64).expect("a shorter file");
    mapped.write(0, &[1; 16]).expect("what is left");
    let mut bytes = [9; 16];
    assert_eq!(mapped.read(3 * PAGE_SIZE, &mut bytes), Err(MemoryFault::Shrunk));
    assert_eq!(bytes, [0; 16]);
    assert_eq!(mapped.store_u16(2 * PAGE_SIZE, 1), Err(MemoryFault::Shrunk));
    assert_eq!(mapped.check_intact(), Err(MemoryFault::Shrunk));
    other.write(3 * PAGE_SIZE, &[7; 16]).expect("another file");
    assert_eq!(map(&one, 2).check_intact(), Ok(()), "mapped anew");
}

#[test]
fn many_threads_meet_lost_pages_at_once() {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let file = file(8);
                    let mapped = map(&file, 8);
                    ftruncate(&file, PAGE_SIZE as u64).expect("a shorter file");
                    assert_eq!(mapped.load_u16(7 * PAGE_SIZE), Err(MemoryFault::Shrunk));
                }
            });
        }
    });
}

#[test]
fn rights_and_borders_of_regions_are_kept() {
    const START: u64 = 0x10_0000;
    let file = file(4);
    let mapped = map(&file, 4);
    let mut space = AddressSpace::new();
    let page = PAGE_SIZE as u64;
    let region =
        |offset, write| Region { size: page, offset, read: true, write, file: Some(Arc::clone(&mapped)) };
    space.insert(START, region(0, true)).expect("a region");
    space.insert(START + page, region(2 * page, false)).expect("one behind it");
    space.write(START + page - 4, &[5; 4]).expect("writable");
    let mut bytes = [1; 8];
    space.read(START + page - 4, &mut bytes).expect("across regions");
    assert_eq!(bytes, [5, 5, 5, 5, 0, 0, 0, 0]);
    assert_eq!(space.write(START + page - 4, &[6; 8]), Err(MemoryFault::Denied));
    assert_eq!(space.read(START + 2 * page - 4, &mut bytes), Err(MemoryFault::Unmapped));
    assert_eq!(space.read(u64::MAX, &mut bytes), Err(MemoryFault::Unmapped));
    assert_eq!(space.load_u16(START + 1), Err(MemoryFault::Misaligned));
    assert!(space.place(START, PAGE_SIZE).is_ok());
    assert_eq!(space.place(START + 8, PAGE_SIZE).err(), Some(MemoryFault::Unmapped));
    assert_eq!(space.place(START + page, 8).err(), Some(MemoryFault::Denied));
}
