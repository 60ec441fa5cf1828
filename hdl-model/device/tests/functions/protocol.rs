//! The vfio-user server against clients that send every command, well formed and not.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use culvert_device::function::{VF_IDENTITY, Vf};
use culvert_device::vfio_user::Server;
use culvert_device::virtio::{NetDevice, Notifier, VfConfig};

use crate::client::{
    DMA_MAP, DMA_UNMAP, GET_INFO, GET_IRQ_INFO, GET_REGION_INFO, GET_REGION_IO_FDS, REGION_READ,
    REGION_WRITE, RESET, RawClient, SET_IRQS, VERSION, WRITE_MULTI, dma_map, dma_unmap, set_irqs, u32s, u64s,
};
use crate::driver::MAC;
use crate::memory::{GuestMemory, IOVA};

const EINVAL: u32 = 22;
const E2BIG: u32 = 7;
const EEXIST: u32 = 17;
const ENOSYS: u32 = 38;
const EOPNOTSUPP: u32 = 95;
const CONFIG: u32 = 7;

struct Served {
    _dir: tempfile::TempDir,
    path: PathBuf,
    vf: Vf,
}

fn serve() -> Served {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("vf");
    let vf = Vf::start(&path, VfConfig::new(MAC, 1500), Notifier::new().expect("eventfd")).expect("server");
    Served { _dir: dir, path, vf }
}

/// The server answers a good request: it has survived whatever came before.
fn assert_alive(client: &mut RawClient) {
    assert_eq!(client.read(CONFIG, 0, 4), Ok(vec![0xf4, 0x1a, 0x41, 0x10]));
}

#[test]
fn version_is_agreed_first_and_once() {
    let served = serve();
    let mut client = RawClient::connect(&served.path);
    assert_eq!(client.call(GET_INFO, &[0; 16], &[]), Err(EINVAL), "before the version");
    assert_eq!(client.call(VERSION, &[0, 0], &[]), Err(EINVAL), "truncated");
    assert_eq!(client.call(VERSION, b"\0\0\0\0{nonsense\0", &[]), Err(EINVAL));
    let reply = client.call(VERSION, b"\0\0\x07\0", &[]).expect("version without capabilities");
    assert_eq!(reply[..4], [0, 0, 1, 0], "the lower minor number");
    let json = std::str::from_utf8(&reply[4..]).expect("text");
    for word in ["max_msg_fds", "max_data_xfer_size", "write_multiple", "pgsizes"] {
        assert!(json.contains(word), "{json}");
    }
    assert!(json.ends_with('\0'));
    assert_eq!(client.call(VERSION, b"\0\0\x01\0", &[]), Err(EINVAL), "twice");
    assert_alive(&mut client);
}

#[test]
fn another_major_version_is_refused_and_the_connection_closed() {
    let served = serve();
    let mut client = RawClient::connect(&served.path);
    assert!(client.call(VERSION, b"\x01\0\0\0", &[]).is_err());
    assert!(client.is_closed());
    assert_alive(&mut RawClient::negotiated(&served.path));
}

#[test]
fn device_regions_and_interrupts_are_described() {
    let served = serve();
    let mut client = RawClient::negotiated(&served.path);
    assert_eq!(client.call(GET_INFO, &[0; 16], &[]), Ok(u32s(&[16, 3, 9, 3])));
    let info = |client: &mut RawClient, index| {
        client.call(GET_REGION_INFO, &u32s(&[32, 0, index, 0, 0, 0, 0, 0]), &[])
    };
    assert_eq!(info(&mut client, 0), Ok([u32s(&[32, 3, 0, 0]), u64s(&[0x4000, 0])].concat()));
    assert_eq!(info(&mut client, CONFIG), Ok([u32s(&[32, 3, 7, 0]), u64s(&[4096, 0])].concat()));
    assert_eq!(info(&mut client, 1), Ok([u32s(&[32, 0, 1, 0]), u64s(&[0, 0])].concat()));
    assert_eq!(info(&mut client, 9), Err(EINVAL));
    assert_eq!(client.call(GET_REGION_INFO, &[0; 8], &[]), Err(EINVAL));
    assert_eq!(client.call(GET_IRQ_INFO, &u32s(&[16, 0, 2, 0]), &[]), Ok(u32s(&[16, 9, 2, 4])));
    assert_eq!(client.call(GET_IRQ_INFO, &u32s(&[16, 0, 0, 0]), &[]), Ok(u32s(&[16, 7, 0, 1])));
    assert_eq!(client.call(GET_IRQ_INFO, &u32s(&[16, 0, 1, 0]), &[]), Ok(u32s(&[16, 0, 1, 0])), "no MSI");
    assert_eq!(client.call(GET_IRQ_INFO, &u32s(&[16, 0, 3, 0]), &[]), Err(EINVAL));
    assert_eq!(client.call(GET_REGION_IO_FDS, &[0; 16], &[]), Err(EOPNOTSUPP));
    assert_eq!(client.call(14, &[0; 16], &[]), Err(ENOSYS), "dirty pages");
    assert_eq!(client.call(0xffff, &[], &[]), Err(ENOSYS));
    assert_alive(&mut client);
}

#[test]
fn region_accesses_are_checked() {
    let served = serve();
    let mut client = RawClient::negotiated(&served.path);
    assert_eq!(client.read(CONFIG, 4094, 4), Err(EINVAL));
    assert_eq!(client.read(CONFIG, u64::MAX, 4), Err(EINVAL));
    assert_eq!(client.read(1, 0, 4), Err(EINVAL), "no such BAR");
    assert_eq!(client.read(900, 0, 4), Err(EINVAL));
    assert_eq!(client.read(0, 0, u32::MAX), Err(E2BIG));
    assert_eq!(client.call(REGION_READ, &[0; 15], &[]), Err(EINVAL));
    let short = [u64s(&[0]), u32s(&[CONFIG, 100]), vec![0; 4]].concat();
    assert_eq!(client.call(REGION_WRITE, &short, &[]), Err(EINVAL), "less data than announced");
    assert_eq!(client.read(0, 0x18, 0), Ok(vec![]));
    client.write(0, 0x16, &[1, 0]).expect("queue select");
    assert_eq!(client.read(0, 0x16, 2), Ok(vec![1, 0]));
    let one = |offset: u64, region: u32, count: u32, data: u64| {
        [u64s(&[offset]), u32s(&[region, count]), u64s(&[data])].concat()
    };
    let two = [u64s(&[2]), one(0x16, 0, 2, 2), one(4, CONFIG, 2, 6)].concat();
    assert_eq!(client.call(WRITE_MULTI, &two, &[]), Ok(u64s(&[2])));
    assert_eq!(client.read(0, 0x16, 2), Ok(vec![2, 0]));
    assert_eq!(client.call(WRITE_MULTI, &u64s(&[1 << 60]), &[]), Err(EINVAL));
    assert_eq!(client.call(WRITE_MULTI, &[u64s(&[1]), one(0, 0, 9, 0)].concat(), &[]), Err(EINVAL));
    assert_eq!(client.call(RESET, &[], &[]), Ok(vec![]));
    assert_eq!(client.read(CONFIG, 4, 2), Ok(vec![0, 0]), "reset cleared bus mastering");
    assert_alive(&mut client);
}

#[test]
fn dma_ranges_are_checked() {
    let served = serve();
    let mut client = RawClient::negotiated(&served.path);
    let memory = GuestMemory::new(1 << 20);
    let fd = [memory.file.as_fd()];
    let map = |client: &mut RawClient, fds: &[BorrowedFd<'_>], flags, offset, iova, size| {
        client.call(DMA_MAP, &dma_map(flags, offset, iova, size), fds)
    };
    assert_eq!(map(&mut client, &fd, 3, 0, IOVA, 0), Err(EINVAL), "empty");
    assert_eq!(map(&mut client, &fd, 3, 0, u64::MAX - 4095, 8192), Err(EINVAL), "wraps around");
    assert_eq!(map(&mut client, &fd, 3, 0, IOVA + 1, 4096), Err(EINVAL), "not a page");
    assert_eq!(map(&mut client, &fd, 0, 0, IOVA, 4096), Err(EINVAL), "no rights");
    assert_eq!(map(&mut client, &fd, 0xff, 0, IOVA, 4096), Err(EINVAL), "unknown flags");
    assert_eq!(map(&mut client, &fd, 3, 0, IOVA, 2 << 20), Err(EINVAL), "longer than the file");
    assert_eq!(map(&mut client, &fd, 3, u64::MAX - 4095, IOVA, 4096), Err(EINVAL), "offset");
    assert_eq!(map(&mut client, &[fd[0], fd[0]], 3, 0, IOVA, 4096), Err(EINVAL), "two files");
    let (pipe, _end) = rustix::pipe::pipe().expect("pipe");
    assert_eq!(map(&mut client, &[pipe.as_fd()], 3, 0, IOVA, 4096), Err(EINVAL), "a pipe");
    assert_eq!(map(&mut client, &fd, 3, 0, IOVA, 1 << 20), Ok(vec![]));
    assert_eq!(map(&mut client, &fd, 3, 0, IOVA + 4096, 4096), Err(EEXIST));
    assert_eq!(map(&mut client, &fd, 1, 0, 0x1000, 4096), Ok(vec![]));

    let view = || served.vf.device().memory().view();
    assert!(view().contains(IOVA, 1 << 20) && !view().contains(IOVA, (1 << 20) + 1));
    assert!(view().write(0x1000, &[0]).is_err(), "read-only");
    assert_eq!(client.call(DMA_UNMAP, &dma_unmap(0, IOVA + 4096, 4096), &[]), Err(EINVAL), "splits a range");
    assert_eq!(client.call(DMA_UNMAP, &dma_unmap(0, IOVA, 0), &[]), Err(EINVAL));
    assert_eq!(client.call(DMA_UNMAP, &dma_unmap(1, IOVA, 4096), &[]), Err(EOPNOTSUPP), "dirty pages");
    assert_eq!(client.call(DMA_UNMAP, &dma_unmap(0, IOVA, 1 << 20), &[]), Ok(dma_unmap(0, IOVA, 1 << 20)));
    assert!(!view().contains(IOVA, 1));
    assert_eq!(client.call(DMA_UNMAP, &dma_unmap(2, 0, 0), &[]), Ok(dma_unmap(2, 0, 4096)), "all");
    assert!(!view().contains(0x1000, 1));
    assert_alive(&mut client);
}

#[test]
fn many_small_ranges_of_one_file_share_a_mapping() {
    let served = serve();
    let mut client = RawClient::negotiated(&served.path);
    let memory = GuestMemory::new(8 << 20);
    memory.write(0, &[7; 16]);
    let maps = || {
        let text = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let inode =
            std::os::unix::fs::MetadataExt::ino(&memory.file.metadata().expect("metadata")).to_string();
        text.lines().filter(|line| line.split_whitespace().nth(4) == Some(&inode)).count()
    };
    for page in 0..2000u64 {
        // Backwards, so that neighbours in I/O addresses are not neighbours in the file.
        let map = dma_map(3, (1999 - page) * 4096, IOVA + page * 4096, 4096);
        client.call(DMA_MAP, &map, &[memory.file.as_fd()]).expect("map");
    }
    assert!(maps() < 10, "the whole file once, after the first few");
    let view = served.vf.device().memory().view();
    let mut bytes = [0; 16];
    view.read(IOVA + 1999 * 4096 - 8, &mut bytes).expect("over the border of two ranges");
    assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 0, 7, 7, 7, 7, 7, 7, 7, 7]);
    drop(view);
    client.call(DMA_UNMAP, &dma_unmap(0, IOVA, 2000 * 4096), &[]).expect("unmap");
    assert_eq!(maps(), 0);
}

#[test]
fn interrupts_are_set_masked_and_triggered() {
    const NONE: u32 = 1;
    const BOOL: u32 = 2;
    const EVENTFD: u32 = 4;
    const MASK: u32 = 8;
    const UNMASK: u32 = 16;
    const TRIGGER: u32 = 32;
    let served = serve();
    let mut client = RawClient::negotiated(&served.path);
    let event = |_| rustix::event::eventfd(0, rustix::event::EventfdFlags::NONBLOCK).expect("eventfd");
    let events: Vec<_> = (0..4).map(event).collect();
    let fds: Vec<_> = events.iter().map(|fd| fd.as_fd()).collect();
    let fired = |n: usize| rustix::io::read(&events[n], &mut [0; 8]).is_ok();
    let mut set = |flags, index, start, count, data: &[u8], fds: &[BorrowedFd<'_>]| {
        client.call(SET_IRQS, &[&set_irqs(flags, index, start, count), data].concat(), fds)
    };
    assert_eq!(
        set(EVENTFD | TRIGGER, 2, 0, 4, &[], &fds),
        Ok(vec![]),
        "four file descriptors in one message"
    );
    assert_eq!(set(NONE | TRIGGER, 2, 1, 2, &[], &[]), Ok(vec![]));
    assert_eq!([fired(0), fired(1), fired(2), fired(3)], [false, true, true, false]);
    assert_eq!(set(BOOL | TRIGGER, 2, 0, 4, &[1, 0, 0, 1], &[]), Ok(vec![]));
    assert_eq!([fired(0), fired(1), fired(2), fired(3)], [true, false, false, true]);

    let msix = served.vf.device().endpoint().msix();
    assert_eq!(set(NONE | MASK, 2, 1, 1, &[], &[]), Ok(vec![]));
    msix.trigger(1);
    assert!(!fired(1), "masked");
    let mut pending = [0];
    msix.read(0x800, &mut pending);
    assert_eq!(pending, [2], "pending bit");
    assert_eq!(set(NONE | UNMASK, 2, 1, 1, &[], &[]), Ok(vec![]));
    assert!(fired(1), "delivered when unmasked");
    msix.write(16 + 12, &[1, 0, 0, 0]);
    msix.trigger(1);
    assert!(!fired(1), "masked in the table");
    msix.write(16 + 12, &[0, 0, 0, 0]);
    assert!(fired(1));

    assert_eq!(set(EVENTFD | TRIGGER, 2, 2, 1, &[], &[]), Ok(vec![]), "one released");
    msix.trigger(2);
    assert!(!fired(2));
    assert_eq!(set(NONE | TRIGGER, 2, 0, 0, &[], &[]), Ok(vec![]), "all released");
    msix.trigger(0);
    assert!(!fired(0));

    assert_eq!(set(EVENTFD | TRIGGER, 2, 3, 2, &[], &fds[..2]), Err(EINVAL), "beyond the last");
    assert_eq!(set(NONE | TRIGGER, 2, u32::MAX, 2, &[], &[]), Err(EINVAL), "wraps around");
    assert_eq!(set(EVENTFD | TRIGGER, 2, 0, 4, &[], &fds[..3]), Err(EINVAL), "fewer than announced");
    assert_eq!(set(BOOL | TRIGGER, 2, 0, 4, &[1], &[]), Err(EINVAL), "truncated data");
    assert_eq!(set(NONE | BOOL | TRIGGER, 2, 0, 1, &[1], &[]), Err(EINVAL), "two kinds of data");
    assert_eq!(set(NONE | TRIGGER | MASK, 2, 0, 1, &[], &[]), Err(EINVAL), "two actions");
    assert_eq!(set(EVENTFD | TRIGGER, 7, 0, 1, &[], &fds[..1]), Err(EINVAL), "no such index");
    assert_eq!(set(EVENTFD | TRIGGER, 1, 0, 1, &[], &fds[..1]), Err(EINVAL), "no MSI");
    assert_eq!(set(EVENTFD | TRIGGER, 0, 0, 2, &[], &fds[..2]), Err(EINVAL), "one INTx");
    let memory = GuestMemory::new(4096);
    assert_eq!(set(EVENTFD | TRIGGER, 2, 0, 1, &[], &[memory.file.as_fd()]), Err(EINVAL), "not an eventfd");
    // A client that fills the counter must not block the device.
    assert_eq!(set(EVENTFD | TRIGGER, 2, 0, 1, &[], &fds[..1]), Ok(vec![]));
    rustix::io::write(&events[0], &(u64::MAX - 1).to_ne_bytes()).expect("fill");
    msix.trigger(0);
    assert_alive(&mut client);
}

#[test]
fn too_many_file_descriptors_are_an_error_and_do_not_stay_open() {
    let served = serve();
    let mut client = RawClient::negotiated(&served.path);
    let (reader, writer) = rustix::pipe::pipe().expect("pipe");
    let fds = vec![writer.as_fd(); 40];
    assert_eq!(client.call(SET_IRQS, &set_irqs(36, 2, 0, 4), &fds), Err(EINVAL));
    drop(fds);
    drop(writer);
    // End of file only once the server holds no copy of the writing end.
    let mut poll = [rustix::event::PollFd::new(&reader, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut poll, Some(&limit)), Ok(1));
    assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0));
    assert_alive(&mut client);
}

#[test]
fn requests_without_reply_get_none() {
    let served = serve();
    let mut client = RawClient::negotiated(&served.path);
    let write = [u64s(&[0x16]), u32s(&[0, 2]), vec![2, 0]].concat();
    client.send(REGION_WRITE, 0x10, &write, &[]);
    client.send(REGION_READ, 0x10, &[], &[]);
    assert_eq!(client.read(0, 0x16, 2), Ok(vec![2, 0]), "the next reply is this one's");
}

#[test]
fn impossible_sizes_end_the_connection_and_nothing_else() {
    let served = serve();
    for size in [0, 15, 2 << 20, u32::MAX] {
        let mut client = RawClient::negotiated(&served.path);
        client.send_raw(RawClient::header(1, GET_INFO, size, 0, 0), &[], &[]);
        assert!(client.is_closed(), "size {size}");
    }
    let client = RawClient::negotiated(&served.path);
    client.send_raw(RawClient::header(1, REGION_WRITE, 100, 0, 0), &[0; 10], &[]);
    drop(client);
    let mut client = RawClient::negotiated(&served.path);
    // Replies to nothing, and types that do not exist, are passed over.
    client.send_raw(RawClient::header(9, 11, 16, 1, 0), &[], &[]);
    client.send_raw(RawClient::header(9, 11, 16, 0x21, 5), &[], &[]);
    client.send_raw(RawClient::header(9, GET_INFO, 16, 7, 0), &[], &[]);
    assert_alive(&mut client);
}

#[test]
fn random_messages_leave_the_server_alive() {
    let served = serve();
    let mut client = RawClient::negotiated(&served.path);
    let mut state = 0x1234_5678_9abc_def0u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..3000 {
        let command = (random() % 18) as u16;
        let len = (random() % 64) as usize;
        let small = random() % 2 == 0;
        let body: Vec<u8> =
            (0..len).map(|_| if small { (random() % 4) as u8 } else { random() as u8 }).collect();
        // DMA_MAP without a file would be answered, and asks the client later: left out.
        if command != DMA_MAP {
            let _ = client.call(command, &body, &[]);
        }
    }
    assert_alive(&mut client);
}

#[test]
fn a_client_may_come_back_and_finds_the_device_reset() {
    let served = serve();
    let memory = GuestMemory::new(1 << 16);
    for _ in 0..3 {
        let mut client = RawClient::negotiated(&served.path);
        assert_eq!(client.read(0, 0x14, 1), Ok(vec![0]));
        client.call(DMA_MAP, &dma_map(3, 0, IOVA, 1 << 16), &[memory.file.as_fd()]).expect("map");
        client.write(0, 0x14, &[3]).expect("status");
    }
}

#[test]
fn stopping_ends_a_live_session_in_short_time() {
    let served = serve();
    let mut client = RawClient::negotiated(&served.path);
    // In the middle of a message.
    client.send_raw(RawClient::header(1, REGION_WRITE, 100, 0, 0), &[0; 10], &[]);
    let begin = Instant::now();
    drop(served.vf);
    assert!(begin.elapsed() < Duration::from_secs(2));
    assert!(client.is_closed());
    assert!(!served.path.exists());
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("vf");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
    let start = || {
        let device = NetDevice::new(VF_IDENTITY, VfConfig::new(MAC, 1500), Notifier::new().expect("eventfd"));
        Server::start(&path, Arc::new(device))
    };
    let server = start().expect("over a stale socket");
    let error = start().expect_err("over a live socket").to_string();
    assert!(error.contains("vf") && error.contains("end the process"), "{error}");
    assert_alive(&mut RawClient::negotiated(server.path()));
}
