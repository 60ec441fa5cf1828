//! The vfio-user client against the server of the crate `vfio_user`, which shares no code with it.

mod server;

use std::os::unix::net::UnixListener;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use culvert_pci::{Device, Error, FunctionAddress, capability, vfio_user::Client};
use server::{Event, TestServer};

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn configuration_space_is_read_and_written() {
    let server = TestServer::start();
    let client = Client::connect(server.path()).unwrap();
    assert_eq!(client.id().unwrap(), (0x1af4, 0x1041));
    assert_eq!(client.config_u16(4).unwrap() & 6, 6, "memory access and bus mastering are on");
    client.config_write_u32(0x40, 0x1234_5678).unwrap();
    assert_eq!(client.config_u8(0x43).unwrap(), 0x12);
    let mut all = vec![0; 4096];
    client.config_read(0, &mut all).unwrap();
    assert_eq!(all[0x40..0x44], [0x78, 0x56, 0x34, 0x12]);
    assert!(matches!(client.config_u32(4094), Err(Error::OutOfRange { .. })));
}

#[test]
fn an_error_reply_is_an_error_and_the_connection_stays_usable() {
    let server = TestServer::start();
    let client = Client::connect(server.path()).unwrap();
    let bar = client.bar(0).unwrap();
    let started = Instant::now();
    let error = bar.read32(server::REFUSED).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert!(started.elapsed() < LIMIT, "it waited for data that never comes");
    bar.write32(8, 77).unwrap();
    assert_eq!(bar.read32(8).unwrap(), 77);
}

#[test]
fn mapped_registers_and_registers_by_message_behave_the_same() {
    let server = TestServer::start();
    let client = Client::connect(server.path()).unwrap();
    let by_message = client.bar(0).unwrap();
    by_message.write64(16, 0x1122_3344_5566_7788).unwrap();
    assert_eq!(by_message.read16(18).unwrap(), 0x5566);
    assert_eq!(by_message.read8(23).unwrap(), 0x11);
    assert!(matches!(by_message.read32(18), Err(Error::OutOfRange { .. })), "not aligned");
    assert!(matches!(by_message.write32(by_message.size(), 0), Err(Error::OutOfRange { .. })));

    // BAR 4 is mapped: a write appears in the server's file without any message.
    let mapped = client.bar(4).unwrap();
    let messages = server.accesses();
    mapped.write32(0x1000, 0xfeed_beef).unwrap();
    assert_eq!(mapped.read16(0x1002).unwrap(), 0xfeed);
    assert_eq!(server.accesses(), messages);
    assert_eq!(server.shared_word(0x1000), 0xfeed_beef);
    assert!(matches!(client.bar(1), Err(Error::Missing { .. })));
    assert!(matches!(client.bar(7), Err(Error::Missing { .. })));
}

#[test]
fn the_device_reaches_dma_memory_until_it_is_dropped() {
    let server = TestServer::start();
    let client = Client::connect(server.path()).unwrap();
    let buffer = client.alloc_dma(10_000).unwrap();
    let Event::DmaMap { address, size, file } = server.next_event() else { panic!("no mapping") };
    assert_eq!((address, size), (buffer.iova(), 12_288));
    std::os::unix::fs::FileExt::write_all_at(&file, &99_u32.to_le_bytes(), 64).unwrap();
    assert_eq!(u32::from_le(buffer.atomic_u32(64).load(Ordering::Acquire)), 99);
    let second = client.alloc_dma(1).unwrap();
    assert!(second.iova() >= buffer.iova() + 12_288);
    assert!(matches!(server.next_event(), Event::DmaMap { .. }));
    let iova = buffer.iova();
    let clone = buffer.clone();
    drop(buffer);
    drop(clone);
    assert!(matches!(server.next_event(), Event::DmaUnmap { address, size: 12_288 } if address == iova));
}

#[test]
fn interrupts_arrive_and_are_not_lost() {
    let server = TestServer::start();
    let client = Client::connect(server.path()).unwrap();
    assert_eq!(client.interrupt_count(), 3);
    let interrupt = client.interrupt(2).unwrap();
    let Event::SetIrq { vector: 2, event } = server.next_event() else { panic!("no interrupt set") };
    assert!(!interrupt.wait(Duration::from_millis(5)).unwrap(), "nothing yet");
    rustix::io::write(&event, &1_u64.to_ne_bytes()).unwrap();
    assert!(interrupt.wait(LIMIT).unwrap());
    assert!(!interrupt.try_clear().unwrap(), "a wait clears it");
    assert!(matches!(client.interrupt(3), Err(Error::OutOfRange { .. })));
}

#[test]
fn a_reset_reaches_the_device_and_enables_it_again() {
    let server = TestServer::start();
    let client = Client::connect(server.path()).unwrap();
    client.reset().unwrap();
    assert!(matches!(server.next_event(), Event::Reset));
    assert_eq!(client.config_u16(4).unwrap() & 6, 6);
}

#[test]
fn vfs_are_enabled_through_the_sriov_capability() {
    let server = TestServer::start();
    let client = Client::connect(server.path()).unwrap();
    let at = capability::find_extended(&client, capability::id::SRIOV).unwrap().unwrap();
    let error = client.enable_vfs(9).unwrap_err();
    assert!(matches!(error, Error::TooManyVfs { wanted: 9, total: 8, .. }), "{error}");
    for n in 0..2 {
        std::fs::write(format!("{}.vf{n}", server.path().display()), "").unwrap();
    }
    let vfs = client.enable_vfs(2).unwrap();
    assert_eq!(client.config_u16(at + 0x10).unwrap(), 2);
    assert_eq!(client.config_u16(at + 8).unwrap(), 9, "VF Enable and VF memory");
    let expected = format!("{}.vf1", server.path().display());
    assert_eq!(vfs[1].address, FunctionAddress::Socket(expected.into()));
    assert_eq!(client.enable_vfs(0).unwrap(), []);
    assert_eq!(client.config_u16(at + 8).unwrap(), 0);
}

#[test]
fn a_dead_device_is_a_disconnect() {
    let server = TestServer::start();
    let client = Client::connect(server.path()).unwrap();
    let bar = client.bar(0).unwrap();
    assert!(bar.write32(server::DIE, 1).is_err());
    let error = bar.read32(0).unwrap_err();
    assert!(error.is_disconnect(), "{error}");
}

#[test]
fn a_refused_connection_names_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pf.sock");
    let Err(error) = Client::connect(&path) else { panic!("connected to nothing") };
    let text = error.to_string();
    assert!(text.contains("pf.sock") && text.contains("is culvert-emu running"), "{text}");
}

#[test]
fn silence_is_a_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pf.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let started = Instant::now();
    let Err(error) = Client::connect_within(&path, Duration::from_millis(50)) else {
        panic!("a silent device answered")
    };
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    assert!(started.elapsed() < LIMIT);
}

#[test]
fn addresses_are_parsed() {
    assert_eq!("/run/x.sock".parse::<FunctionAddress>().unwrap().to_string(), "/run/x.sock");
    assert_eq!("03:00.1".parse::<FunctionAddress>().unwrap(), FunctionAddress::Pci("0000:03:00.1".into()));
    assert!(matches!("eth0".parse::<FunctionAddress>(), Err(Error::Address(_))));
}
