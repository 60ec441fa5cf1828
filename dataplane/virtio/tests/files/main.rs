//! Files that clients give as their guests' memory: which are taken, and how much of the process a client gets.

mod fuse;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use culvert_virtio::{FileInfo, MAX_MAPPED, MAX_MAPPINGS, MapError, MappedFile, MemoryShare};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use fuse::{FLUSH, FuseFile, READ, STATFS};

fn memfd(len: u64) -> OwnedFd {
    let file = memfd_create("memory", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, len).unwrap();
    file
}

fn map(file: &OwnedFd, range: (u64, u64), share: &Arc<MemoryShare>) -> Result<MappedFile, MapError> {
    MappedFile::map(file, &FileInfo::of(file)?, range, true, share)
}

#[test]
fn memfds_are_taken_whatever_their_seals() {
    let share = MemoryShare::new();
    for seals in
        [SealFlags::empty(), SealFlags::SHRINK, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL]
    {
        let file = memfd(8192);
        fcntl_add_seals(&file, seals).unwrap();
        let mapped = map(&file, (4096, 4096), &share).unwrap();
        mapped.write(0, b"guest").unwrap();
        let mut bytes = [0; 5];
        rustix::io::pread(&file, &mut bytes, 4096).unwrap();
        assert_eq!(&bytes, b"guest", "the mapping begins where its range does");
    }
    assert_eq!((share.mappings(), share.bytes()), (0, 0), "all is given back");
}

#[test]
fn files_that_are_not_in_memory_are_refused() {
    let (pipe, _writer) = rustix::pipe::pipe().unwrap();
    let open = |path| OwnedFd::from(std::fs::File::open(path).unwrap());
    for file in [pipe, open("/dev/null"), open("/dev/zero"), open("/proc/self/exe"), open("/proc/self/maps")]
    {
        assert_eq!(FileInfo::of(&file), Err(MapError::NotInMemory));
    }
}

#[test]
fn a_file_on_fuse_is_refused_without_a_question_to_its_server() {
    let Some(fuse) = FuseFile::open(&[STATFS, READ, FLUSH]) else { return };
    assert_eq!(FileInfo::of(&fuse.file), Err(MapError::NotInMemory));
    assert_eq!(fuse.held.load(Ordering::Acquire), 0);
}

#[test]
fn ranges_must_lie_in_their_file() {
    let (file, share) = (memfd(6000), MemoryShare::new());
    for range in [(0, 0), (0, 8193), (8192, 1), (u64::MAX, 2), (4096, u64::MAX)] {
        assert_eq!(map(&file, range, &share).err(), Some(MapError::OutOfRange), "{range:?}");
    }
    // The last page is whole.
    let mapped = map(&file, (5000, 1000), &share).unwrap();
    assert_eq!((mapped.len(), mapped.position(5000, 3192)), (4096, Some(904)));
    assert_eq!((mapped.position(4095, 1), mapped.position(5000, 3193)), (None, None));
}

#[test]
fn a_client_uses_up_its_own_share_only() {
    let (file, share, other) = (memfd(4096), MemoryShare::new(), MemoryShare::new());
    let mapped: Vec<_> = (0..MAX_MAPPINGS).map(|_| map(&file, (0, 4096), &share).unwrap()).collect();
    assert_eq!(map(&file, (0, 4096), &share).err(), Some(MapError::TooManyMappings));
    assert!(map(&file, (0, 4096), &other).is_ok());
    drop(mapped);
    assert!(map(&file, (0, 4096), &share).is_ok());

    // Only the range counts, not its file.
    let vast = memfd(1 << 62);
    assert!(map(&vast, (1 << 61, 4096), &share).is_ok());
    let most = map(&vast, (0, MAX_MAPPED - 4096), &share).unwrap();
    assert_eq!(map(&vast, (0, 8192), &share).err(), Some(MapError::TooManyBytes));
    assert!(map(&vast, (0, 4096), &share).is_ok());
    drop(most);
    assert!(map(&vast, (0, MAX_MAPPED), &share).is_ok());
}

#[test]
fn shares_of_many_clients_fit_a_process() {
    let vast = memfd(1 << 62);
    let shares: Vec<_> = (0..96).map(|_| MemoryShare::new()).collect();
    let mapped: Vec<_> = shares.iter().map(|share| map(&vast, (0, MAX_MAPPED), share)).collect();
    assert!(mapped.iter().all(Result::is_ok), "{:?}", mapped.iter().find_map(|m| m.as_ref().err()));
    assert!(map(&memfd(64 << 20), (0, 64 << 20), &MemoryShare::new()).is_ok());
}
