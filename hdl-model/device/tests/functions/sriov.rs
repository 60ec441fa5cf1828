//! Configuration space of PF and VF, and VFs that come and go as the PF's SR-IOV capability says.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use culvert_device::function::{Pf, PfConfig, PfPort, Registers, vf_socket};
use culvert_device::virtio::{NetDevice, Notifier, VfConfig};

use crate::client::RawClient;

const CONFIG: u32 = 7;

#[derive(Default)]
struct Board {
    scratch: AtomicU32,
    resets: AtomicU32,
    vfs: Mutex<Vec<Arc<NetDevice>>>,
}

impl Registers for Board {
    fn read32(&self, offset: u32) -> u32 {
        if offset == 0x10 { self.scratch.load(Ordering::Relaxed) } else { offset }
    }

    fn write32(&self, offset: u32, value: u32) {
        if offset == 0x10 {
            self.scratch.store(value, Ordering::Relaxed);
        }
    }

    fn reset(&self) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }

    fn vf_config(&self, index: u16) -> VfConfig {
        VfConfig::new([2, 0, 0, 0, 1, index as u8], 1450)
    }

    fn vfs_changed(&self, vfs: &[Arc<NetDevice>]) {
        *self.vfs.lock().expect("lock") = vfs.to_vec();
    }
}

struct Served {
    dir: tempfile::TempDir,
    board: Arc<Board>,
    port: Arc<PfPort>,
    pf: Pf,
}

fn serve(reset_on_disconnect: bool) -> Served {
    let dir = tempfile::tempdir().expect("directory");
    let board = Arc::new(Board::default());
    let port = PfPort::new();
    let config = PfConfig { socket: dir.path().join("pf"), reset_on_disconnect };
    let notifier = Notifier::new().expect("eventfd");
    let pf = Pf::start(config, Arc::clone(&port), Arc::clone(&board) as Arc<dyn Registers>, notifier)
        .expect("server");
    Served { dir, board, port, pf }
}

impl Served {
    fn client(&self) -> RawClient {
        RawClient::negotiated(self.pf.socket())
    }

    fn sockets(&self) -> usize {
        std::fs::read_dir(self.dir.path()).expect("directory").count() - 1
    }
}

fn read16(client: &mut RawClient, at: u64) -> u16 {
    u16::from_le_bytes(client.read(CONFIG, at, 2).expect("read").try_into().expect("two bytes"))
}

fn read32(client: &mut RawClient, at: u64) -> u32 {
    u32::from_le_bytes(client.read(CONFIG, at, 4).expect("read").try_into().expect("four bytes"))
}

fn write16(client: &mut RawClient, at: u64, value: u16) {
    client.write(CONFIG, at, &value.to_le_bytes()).expect("write");
}

/// Offset of a capability.
fn capability(client: &mut RawClient, id: u8) -> u64 {
    let mut at = u64::from(client.read(CONFIG, 0x34, 1).expect("read")[0]);
    for _ in 0..32 {
        let header = client.read(CONFIG, at, 2).expect("read");
        if header[0] == id {
            return at;
        }
        at = u64::from(header[1]);
    }
    panic!("capability {id:#x} is missing");
}

/// Offset of an extended capability.
fn extended(client: &mut RawClient, id: u32) -> u64 {
    let mut at = 0x100;
    for _ in 0..32 {
        let header = read32(client, at);
        if header & 0xffff == id {
            return at;
        }
        at = u64::from(header >> 20);
    }
    panic!("extended capability {id:#x} is missing");
}

/// Length of the 64-bit BAR whose registers begin at `at`, found as an operating system does.
fn bar_len(client: &mut RawClient, at: u64) -> u64 {
    client.write(CONFIG, at, &[0xff; 8]).expect("write");
    let low = u64::from(read32(client, at));
    assert_eq!(low & 0xf, 4, "64-bit memory");
    let mask = low & !0xf | u64::from(read32(client, at + 4)) << 32;
    client.write(CONFIG, at, &[0; 8]).expect("write");
    (!mask).wrapping_add(1)
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_pf_describes_itself_and_its_vfs() {
    let served = serve(true);
    let mut client = served.client();
    assert_eq!((read16(&mut client, 0), read16(&mut client, 2)), (0x1af4, 0x10f0));
    assert_eq!(bar_len(&mut client, 0x10), 0x1_0000);
    assert_eq!(bar_len(&mut client, 0x18), 0x1000);
    client.write(CONFIG, 0, &[0; 4]).expect("write");
    assert_eq!(read16(&mut client, 0), 0x1af4, "read-only");
    let msix = capability(&mut client, 0x11);
    assert_eq!(read16(&mut client, msix + 2), 31, "32 vectors");
    let express = capability(&mut client, 0x10);
    assert_ne!(read32(&mut client, express + 4) & 1 << 28, 0, "FLR");
    let sriov = extended(&mut client, 0x10);
    assert_eq!((read16(&mut client, sriov + 0xc), read16(&mut client, sriov + 0xe)), (64, 64));
    assert_eq!((read16(&mut client, sriov + 0x14), read16(&mut client, sriov + 0x16)), (1, 1));
    assert_eq!(read16(&mut client, sriov + 0x1a), 0x1041);
    assert_eq!(bar_len(&mut client, sriov + 0x24), 0x4000);
    assert_eq!(bar_len(&mut client, sriov + 0x2c), 0x1000);
    extended(&mut client, 0xe);
}

#[test]
fn registers_are_whole_words() {
    let served = serve(true);
    let mut client = served.client();
    client.write(0, 0x10, &0x1234_5678u32.to_le_bytes()).expect("write");
    assert_eq!(client.read(0, 0x10, 4), Ok(vec![0x78, 0x56, 0x34, 0x12]));
    assert_eq!(client.read(0, 0x12, 4), Ok(vec![0x34, 0x12, 0x14, 0]), "parts of two");
    assert_eq!(client.write(0, 0x10, &[1, 2]), Err(22));
    assert_eq!(client.write(0, 0x12, &[0; 4]), Err(22));
}

#[test]
fn vfs_appear_and_vanish_with_vf_enable() {
    let served = serve(true);
    let mut client = served.client();
    let sriov = extended(&mut client, 0x10);
    assert_eq!(served.sockets(), 0);
    write16(&mut client, sriov + 0x10, 65);
    assert_eq!(read16(&mut client, sriov + 0x10), 0, "more than TotalVFs");
    write16(&mut client, sriov + 0x10, 3);
    assert_eq!(served.sockets(), 0, "not enabled yet");
    write16(&mut client, sriov + 8, 0x9);
    assert_eq!(served.sockets(), 3);
    assert_eq!(served.board.vfs.lock().expect("lock").len(), 3);
    write16(&mut client, sriov + 0x10, 5);
    assert_eq!(read16(&mut client, sriov + 0x10), 3, "NumVFs is locked");

    let mut vf = RawClient::negotiated(&vf_socket(served.pf.socket(), 2));
    assert_eq!((read16(&mut vf, 0), read16(&mut vf, 2)), (0x1af4, 0x1041));
    // virtio 1.2 section 4.1.2.1; OVMF's driver looks at both
    assert!(read16(&mut vf, 0x2e) >= 0x40 && read16(&mut vf, 8) & 0xff >= 1, "a modern device");
    assert_eq!(vf.read(0, 0x2000, 6), Ok(vec![2, 0, 0, 0, 1, 2]), "its address");
    write16(&mut client, sriov + 8, 0);
    assert_eq!(served.sockets(), 0);
    assert!(vf.is_closed());
    assert!(served.board.vfs.lock().expect("lock").is_empty());

    write16(&mut client, sriov + 0x10, 64);
    write16(&mut client, sriov + 8, 1);
    assert_eq!(served.sockets(), 64);
}

#[test]
fn a_function_level_reset_takes_the_vfs_away() {
    let served = serve(true);
    let mut client = served.client();
    let sriov = extended(&mut client, 0x10);
    let express = capability(&mut client, 0x10);
    write16(&mut client, 4, 6);
    write16(&mut client, sriov + 0x10, 2);
    write16(&mut client, sriov + 8, 1);
    assert!(served.port.bus_master());
    write16(&mut client, express + 8, 0x8000);
    assert_eq!(served.sockets(), 0);
    assert_eq!(served.board.resets.load(Ordering::Relaxed), 1);
    assert!(!served.port.bus_master());
    assert_eq!(read16(&mut client, sriov + 8), 0);
    assert_eq!(read16(&mut client, express + 8), 0, "Initiate FLR reads 0");
}

#[test]
fn a_vf_resets_by_itself() {
    let served = serve(true);
    let mut client = served.client();
    let sriov = extended(&mut client, 0x10);
    write16(&mut client, sriov + 0x10, 2);
    write16(&mut client, sriov + 8, 1);
    let mut first = RawClient::negotiated(&vf_socket(served.pf.socket(), 0));
    let mut second = RawClient::negotiated(&vf_socket(served.pf.socket(), 1));
    for vf in [&mut first, &mut second] {
        vf.write(0, 0x14, &[3]).expect("status");
    }
    let express = capability(&mut first, 0x10);
    write16(&mut first, express + 8, 0x8000);
    assert_eq!(first.read(0, 0x14, 1), Ok(vec![0]));
    assert_eq!(second.read(0, 0x14, 1), Ok(vec![3]), "the neighbour is not reset");
}

#[test]
fn the_pci_access_window_reaches_the_bar() {
    let served = serve(true);
    let mut client = served.client();
    let sriov = extended(&mut client, 0x10);
    write16(&mut client, sriov + 0x10, 1);
    write16(&mut client, sriov + 8, 1);
    let mut vf = RawClient::negotiated(&vf_socket(served.pf.socket(), 0));
    // The last vendor capability is virtio's type 5.
    let mut at = capability(&mut vf, 9);
    while vf.read(CONFIG, at + 3, 1) != Ok(vec![5]) {
        at = u64::from(vf.read(CONFIG, at + 1, 1).expect("read")[0]);
        assert_ne!(at, 0, "no PCI access capability");
    }
    vf.write(CONFIG, at + 4, &[0]).expect("bar");
    vf.write(CONFIG, at + 8, &0x16u32.to_le_bytes()).expect("offset");
    vf.write(CONFIG, at + 12, &2u32.to_le_bytes()).expect("length");
    vf.write(CONFIG, at + 16, &[2, 0, 0, 0]).expect("data");
    assert_eq!(vf.read(0, 0x16, 2), Ok(vec![2, 0]), "queue select");
    vf.write(0, 0x16, &[1, 0]).expect("queue select");
    assert_eq!(vf.read(CONFIG, at + 16, 4), Ok(vec![1, 0, 0, 0]));
    // A window outside of any BAR does nothing.
    vf.write(CONFIG, at + 8, &0xffff_fffeu32.to_le_bytes()).expect("offset");
    vf.write(CONFIG, at + 16, &[9; 4]).expect("data");
    assert!(vf.read(CONFIG, at + 16, 4).is_ok());
}

#[test]
fn vfs_stay_or_go_with_the_driver_as_configured() {
    for reset in [true, false] {
        let served = serve(reset);
        let mut client = served.client();
        let sriov = extended(&mut client, 0x10);
        write16(&mut client, sriov + 0x10, 2);
        write16(&mut client, sriov + 8, 1);
        let mut vf = RawClient::negotiated(&vf_socket(served.pf.socket(), 1));
        drop(client);
        if reset {
            wait_until("VFs vanish", || served.sockets() == 0);
            assert!(vf.is_closed());
        }
        let mut client = served.client();
        let expected = if reset { 0 } else { 2 };
        assert_eq!(read16(&mut client, sriov + 0x10), expected);
        if !reset {
            assert_eq!(vf.read(0, 0x2000, 6), Ok(vec![2, 0, 0, 0, 1, 1]), "the VF's own connection lives");
        }
    }
}

#[test]
fn stopping_removes_every_socket() {
    let served = serve(true);
    let mut client = served.client();
    let sriov = extended(&mut client, 0x10);
    write16(&mut client, sriov + 0x10, 4);
    write16(&mut client, sriov + 8, 1);
    let vf = vf_socket(served.pf.socket(), 0);
    let mut vf_client = RawClient::negotiated(&vf);
    served.pf.stop();
    assert!(vf_client.is_closed() && client.is_closed());
    assert_eq!(count(served.dir.path()), 0);
}

fn count(dir: &Path) -> usize {
    std::fs::read_dir(dir).expect("directory").count()
}
