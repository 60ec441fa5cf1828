//! The map in which an XDP program looks up the sources of the overlay's packets.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use culvert_netlink::OverlaySource;
use rustix::io::Errno;

use super::bpf;

/// Bytes of a key: VSID, family, address; an IPv4 address with zeros behind it.
pub(super) const KEY: usize = 20;

/// The map, and what is in it.
#[derive(Debug)]
pub(crate) struct SourceMap {
    fd: OwnedFd,
    sources: BTreeSet<OverlaySource>,
}

impl SourceMap {
    /// Creates an empty map with room for `max` sources.
    pub(crate) fn new(max: u32) -> io::Result<Self> {
        Ok(SourceMap { fd: bpf::create_hash_map(KEY as u32, max)?, sources: BTreeSet::new() })
    }

    /// Replaces the sources: adds the new ones, then removes those that are gone.
    pub(crate) fn set(&mut self, sources: &BTreeSet<OverlaySource>) -> io::Result<()> {
        let new: Vec<OverlaySource> = sources.difference(&self.sources).copied().collect();
        for source in new {
            bpf::insert_key(self.fd.as_fd(), &key(&source))?;
            self.sources.insert(source);
        }
        let gone: Vec<OverlaySource> = self.sources.difference(sources).copied().collect();
        for source in gone {
            match bpf::delete_key(self.fd.as_fd(), &key(&source)) {
                Err(error) if Errno::from_io_error(&error) != Some(Errno::NOENT) => return Err(error),
                _ => self.sources.remove(&source),
            };
        }
        Ok(())
    }
}

impl AsFd for SourceMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The number in a key that stands for an address's family.
pub(super) fn family(is_ipv4: bool) -> u8 {
    if is_ipv4 { 4 } else { 6 }
}

fn key(source: &OverlaySource) -> [u8; KEY] {
    let mut key = [0; KEY];
    let (vsid, address) = key.split_at_mut(4);
    let [_, a, b, c] = source.vsid.to_be_bytes();
    vsid.copy_from_slice(&[a, b, c, family(source.address.is_ipv4())]);
    match source.address {
        IpAddr::V4(addr) => address[..4].copy_from_slice(&addr.octets()),
        IpAddr::V6(addr) => address.copy_from_slice(&addr.octets()),
    }
    key
}
