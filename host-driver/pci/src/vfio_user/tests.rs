//! Faults of the device, which the tests play on the socket, and DMA by message.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::connection::Connection;
use super::dma_windows::{DmaWindows, EFAULT, EINVAL, ENOSYS};
use super::space::Space;
use super::wire::{self, HEADER, Header, RegionInfo, command};
use crate::Error;
use crate::dma::{PageKind, allocate};

const LIMIT: Duration = Duration::from_millis(300);

/// A connection, and the device's end of its socket.
fn connect(windows: DmaWindows) -> (Connection, UnixStream) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let connection = Connection::open(&path, LIMIT, Arc::new(windows)).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    (connection, stream)
}

fn message(id: u16, command: u16, flags: u32, body: &[u8]) -> Vec<u8> {
    let header = Header { id, command, size: (HEADER + body.len()) as u32, flags, error: 0 };
    [&header.encode()[..], body].concat()
}

fn receive(stream: &mut UnixStream) -> (Header, Vec<u8>) {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).unwrap();
    let header = Header::decode(&header);
    let mut body = vec![0; header.size as usize - HEADER];
    stream.read_exact(&mut body).unwrap();
    (header, body)
}

fn windows() -> DmaWindows {
    let windows = DmaWindows::default();
    let memory = Arc::new(allocate(4096, PageKind::Normal).unwrap());
    memory.copy_in(100, b"seen by the device");
    windows.insert(0x10_0000, memory);
    windows
}

fn request(address: u64, count: u64, data: &[u8]) -> Vec<u8> {
    [&address.to_le_bytes(), &count.to_le_bytes(), data].concat()
}

#[test]
fn a_late_reply_is_not_mistaken_for_the_next_one() {
    let (mut connection, mut stream) = connect(DmaWindows::default());
    let silent = connection.request(command::DEVICE_RESET, &[], &[], LIMIT);
    assert!(matches!(silent, Err(Error::Timeout { .. })));
    // Both replies arrive now; the first belongs to the request that timed out.
    stream.write_all(&message(1, command::DEVICE_RESET, wire::REPLY, b"late")).unwrap();
    stream.write_all(&message(2, command::REGION_READ, wire::REPLY, b"right")).unwrap();
    assert_eq!(connection.request(command::REGION_READ, &[], &[], LIMIT).unwrap().body, b"right");
}

/// A device that hangs costs one wait, not one for each request; when it answers again, it is used again.
#[test]
fn a_device_that_owes_a_reply_is_not_waited_for_again() {
    let (mut connection, mut stream) = connect(DmaWindows::default());
    let mut reset = || connection.request(command::DEVICE_RESET, &[], &[], LIMIT);
    assert!(matches!(reset(), Err(Error::Timeout { .. })));
    let begun = std::time::Instant::now();
    for _ in 0..100 {
        assert!(matches!(reset(), Err(Error::Timeout { .. })));
    }
    assert!(begun.elapsed() < LIMIT, "{:?}", begun.elapsed());
    assert_eq!(receive(&mut stream).0.id, 1);
    stream.write_all(&message(1, command::DEVICE_RESET, wire::REPLY, b"late")).unwrap();
    let device = std::thread::spawn(move || {
        let (asked, _) = receive(&mut stream);
        assert_eq!(asked.id, 2, "the requests in between were not sent");
        stream.write_all(&message(2, command::DEVICE_RESET, wire::REPLY, b"in time")).unwrap();
        stream
    });
    assert_eq!(reset().unwrap().body, b"in time");
    drop(device.join().unwrap());
}

/// A stopped process accepts no connections: its queue fills up.
#[test]
fn a_full_queue_of_connections_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 1).unwrap();
    let mut open = Vec::new();
    let refused = (0..10).find_map(|_| match Connection::open(&path, LIMIT, Arc::default()) {
        Ok(connection) => {
            open.push(connection);
            None
        }
        Err(error) => Some(error),
    });
    assert!(matches!(refused, Some(Error::Connect { .. })), "{} connections", open.len());
}

#[test]
fn an_impossible_length_ends_the_connection() {
    for size in [0, 15, u32::MAX] {
        let (mut connection, mut stream) = connect(DmaWindows::default());
        let header = Header { id: 1, command: command::DEVICE_RESET, size, flags: wire::REPLY, error: 0 };
        stream.write_all(&header.encode()).unwrap();
        let error = connection.request(command::DEVICE_RESET, &[], &[], LIMIT).err().unwrap();
        assert!(error.is_disconnect(), "size {size}: {error}");
        let again = connection.request(command::DEVICE_RESET, &[], &[], LIMIT).err().unwrap();
        assert!(again.is_disconnect(), "it stays lost");
    }
}

#[test]
fn a_truncated_message_and_a_wrong_command_end_the_connection() {
    let (mut connection, mut stream) = connect(DmaWindows::default());
    stream.write_all(&message(1, command::DEVICE_RESET, wire::REPLY, b"body")[..18]).unwrap();
    assert!(connection.request(command::DEVICE_RESET, &[], &[], LIMIT).err().unwrap().is_disconnect());
    let (mut connection, mut stream) = connect(DmaWindows::default());
    stream.write_all(&message(1, command::DMA_MAP, wire::REPLY, b"")).unwrap();
    assert!(connection.request(command::DEVICE_RESET, &[], &[], LIMIT).err().unwrap().is_disconnect());
}

#[test]
fn dma_by_message_is_served_while_waiting() {
    let (mut connection, mut stream) = connect(windows());
    let device = std::thread::spawn(move || {
        let (asked, _) = receive(&mut stream);
        stream.write_all(&message(7, command::DMA_READ, 0, &request(0x10_0064, 4, &[]))).unwrap();
        let (header, body) = receive(&mut stream);
        assert_eq!((header.id, header.flags), (7, wire::REPLY));
        assert_eq!(body[16..], *b"seen");
        stream.write_all(&message(asked.id, command::REGION_WRITE, wire::REPLY, &[])).unwrap();
        // Another request, while the client waits for no reply.
        stream.write_all(&message(8, command::DMA_READ, 0, &request(0x20_0000, 4, &[]))).unwrap();
        stream
    });
    connection.request(command::REGION_WRITE, &[&[0; 16]], &[], LIMIT).unwrap();
    let mut stream = device.join().unwrap();
    connection.serve_pending().unwrap();
    let (header, _) = receive(&mut stream);
    assert_eq!((header.id, header.flags, header.error), (8, wire::REPLY | wire::ERROR, EFAULT));
}

#[test]
fn dma_by_message_stays_inside_mapped_memory() {
    let windows = windows();
    let write =
        |address, data: &[u8]| windows.serve(command::DMA_WRITE, &request(address, data.len() as u64, data));
    assert!(write(0x10_0ffc, b"fits").is_ok());
    assert_eq!(write(0x10_0ffd, b"over"), Err(EFAULT));
    assert_eq!(write(0xf_ffff, b"before"), Err(EFAULT));
    assert_eq!(windows.serve(command::DMA_WRITE, &request(0x10_0000, 8, b"short")), Err(EINVAL));
    assert_eq!(windows.serve(command::DMA_READ, &request(0x10_0000, u64::MAX, &[])), Err(EINVAL));
    assert_eq!(windows.serve(command::DMA_READ, &[0; 3]), Err(EINVAL));
    assert_eq!(windows.serve(command::REGION_READ, &[0; 16]), Err(ENOSYS));
    windows.remove(0x10_0000);
    assert_eq!(windows.serve(command::DMA_READ, &request(0x10_0000, 4, &[])), Err(EFAULT));
}

#[test]
fn a_buffer_may_outlive_its_connection() {
    let space =
        Space { iovas: Default::default(), windows: Arc::default(), connection: Weak::new(), limit: LIMIT };
    let memory = Arc::new(allocate(1, PageKind::Normal).unwrap());
    drop(crate::DmaBuffer::mapped(memory, 0, Arc::new(space)));
}

#[test]
fn malformed_region_descriptions_are_refused() {
    let mut body = vec![0; 64];
    body[0] = 64;
    body[4] = 0xc;
    body[12] = 32;
    body[16] = 0x20;
    body[32] = 1;
    body[40] = 1;
    body[48] = 8;
    body[56] = 16;
    assert_eq!(RegionInfo::decode(&body).unwrap().areas, [(8, 16)]);
    body[40] = 2;
    assert_eq!(RegionInfo::decode(&body), None, "more areas than bytes");
    body[40] = 1;
    body[36] = 32;
    assert_eq!(RegionInfo::decode(&body), None, "a list that loops");
    assert_eq!(RegionInfo::decode(&body[..20]), None);
}
