//! A fault in the service of one client ends that client's session, and nothing else.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use culvert_device::vfio_user::{DmaRegion, Function, IrqSet, Region, RemoteDma, Server};
use rustix::io::Errno;

use crate::client::RawClient;

/// The offset whose access is a fault of ours.
const FAULT: u64 = 8;

/// A function with one register that panics.
#[derive(Default)]
struct Faulty {
    disconnects: AtomicU32,
}

impl Function for Faulty {
    fn region(&self, _: u32) -> Region<'_> {
        Region { size: 16, mmap: None }
    }

    fn irq_count(&self, _: u32) -> u32 {
        0
    }

    fn read(&self, _: u32, offset: u64, data: &mut [u8]) -> Result<(), Errno> {
        assert_ne!(offset, FAULT, "a fault");
        data.fill(7);
        Ok(())
    }

    fn write(&self, _: u32, _: u64, _: &[u8]) -> Result<(), Errno> {
        Ok(())
    }

    fn dma_map(&self, _: DmaRegion, _: Option<OwnedFd>) -> Result<(), Errno> {
        Ok(())
    }

    fn dma_unmap(&self, _: Option<(u64, u64)>) -> Result<u64, Errno> {
        Ok(0)
    }

    fn set_irqs(&self, _: IrqSet) -> Result<(), Errno> {
        Ok(())
    }

    fn reset(&self) {}

    fn connected(self: Arc<Self>, _: Arc<RemoteDma>) {}

    fn disconnected(&self) {
        self.disconnects.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_fault_in_a_session_ends_that_session_only() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("vf");
    let function = Arc::new(Faulty::default());
    let server = Server::start(&path, Arc::clone(&function) as Arc<dyn Function>).expect("server");
    for n in 1..4 {
        let mut client = RawClient::negotiated(&path);
        assert_eq!(client.read(0, 0, 4), Ok(vec![7; 4]), "client {n} is served");
        let request = [&FAULT.to_le_bytes()[..], &[0; 4], &4_u32.to_le_bytes()].concat();
        client.send(crate::client::REGION_READ, 0, &request, &[]);
        assert!(client.receive().is_err(), "its session has ended");
    }
    assert!(function.disconnects.load(Ordering::SeqCst) >= 2, "what a session had is given back");
    server.stop();
}
