//! A guest's memory: a memfd, written with pwrite so that the test needs no mapping of its own.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use culvert_device::vfio_user::DmaRegion;

/// Where the memory lies for the device.
pub(crate) const IOVA: u64 = 0x1_0000_0000;

pub(crate) struct GuestMemory {
    pub(crate) file: File,
    pub(crate) len: u64,
}

impl GuestMemory {
    pub(crate) fn new(len: u64) -> Self {
        let fd = rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
        let file = File::from(fd);
        file.set_len(len).expect("memfd length");
        Self { file, len }
    }

    pub(crate) fn fd(&self) -> OwnedFd {
        self.file.try_clone().expect("dup").into()
    }

    pub(crate) fn region(&self) -> DmaRegion {
        DmaRegion { iova: IOVA, size: self.len, offset: 0, read: true, write: true }
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, at).expect("guest memory");
    }

    pub(crate) fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at).expect("guest memory");
        bytes
    }

    pub(crate) fn write_u16(&self, at: u64, value: u16) {
        self.write(at, &value.to_le_bytes());
    }

    pub(crate) fn read_u16(&self, at: u64) -> u16 {
        u16::from_le_bytes(self.read(at, 2).try_into().expect("two bytes"))
    }
}
