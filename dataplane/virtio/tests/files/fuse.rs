//! A file in FUSE whose server does not answer some requests, as a client may have one.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::time::Timespec;

/// Requests of the FUSE protocol (linux/fuse.h).
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
pub(crate) const READ: u32 = 15;
pub(crate) const STATFS: u32 = 17;
const RELEASE: u32 = 18;
pub(crate) const FLUSH: u32 = 25;
const INIT: u32 = 26;

/// Length of the file.
const LEN: u64 = 1 << 20;
/// `ENOSYS`.
const UNKNOWN: i32 = -38;
/// An attribute's lifetime in seconds: it is not asked for again.
const LONG: u64 = 3600;

/// The file, and its server. The server ends, and with it all that waits for it, when this value is dropped.
pub(crate) struct FuseFile {
    pub(crate) file: OwnedFd,
    /// Requests that were not answered.
    pub(crate) held: Arc<AtomicU64>,
    server: Server,
}

/// The thread that serves the file system.
struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

impl FuseFile {
    /// Opens the file of a new file system that does not answer these requests. `None`: this machine has no FUSE, or the
    /// test may not mount.
    pub(crate) fn open(hold: &'static [u32]) -> Option<Self> {
        let mounted = |error: &dyn std::fmt::Display| eprintln!("skipped: FUSE: {error}");
        let device =
            File::options().read(true).write(true).open("/dev/fuse").map_err(|e| mounted(&e)).ok()?;
        let folder = tempfile::tempdir().unwrap();
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let data = std::ffi::CString::new(data).unwrap();
        mount("client", folder.path(), "fuse", MountFlags::empty(), &*data).map_err(|e| mounted(&e)).ok()?;
        let (stop, held) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&held));
        let thread = std::thread::spawn(move || serve(device, hold, &stopped, &count));
        let server = Server { stop, thread: Some(thread) };
        let file = File::options().read(true).write(true).open(folder.path().join("mem"));
        // The open file keeps the file system; its path is no longer needed.
        unmount(folder.path(), UnmountFlags::DETACH).unwrap();
        Some(FuseFile { file: file.unwrap().into(), held, server })
    }

    /// Ends the server: whatever waits for it gets an error.
    pub(crate) fn end(&mut self) {
        self.server.end();
    }
}

impl Drop for FuseFile {
    fn drop(&mut self) {
        // Before the file is closed, which asks the server.
        self.end();
    }
}

fn serve(mut device: File, hold: &[u32], stop: &AtomicBool, held: &AtomicU64) {
    let mut request = vec![0; 1 << 20];
    while !stop.load(Ordering::Acquire) {
        let pause = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let ready = poll(&mut [PollFd::new(&device, PollFlags::IN)], Some(&pause));
        if !ready.is_ok_and(|ready| ready > 0) {
            continue;
        }
        let Ok(len) = device.read(&mut request) else { return };
        let number = |at: usize| u32::from_le_bytes(request[at..at + 4].try_into().unwrap());
        let (code, node) = (number(4), u64::from(number(16)));
        let unique = &request[8..16];
        let (error, body) = match code {
            FORGET => continue,
            code if hold.contains(&code) => {
                held.fetch_add(1, Ordering::AcqRel);
                continue;
            }
            INIT => (0, init()),
            LOOKUP if request[40..len].starts_with(b"mem\0") => {
                (0, [words(&[2, 0, LONG, LONG, 0]), attr(2)].concat())
            }
            LOOKUP => (-2, Vec::new()),
            GETATTR => (0, [words(&[LONG, 0]), attr(node)].concat()),
            OPEN => (0, words(&[1, 0])),
            STATFS => (0, vec![0; 80]),
            READ => (0, vec![7; 4096]),
            RELEASE => (0, Vec::new()),
            _ => (UNKNOWN, Vec::new()),
        };
        let len = 16 + body.len() as u32;
        let reply = [&len.to_le_bytes()[..], &i32::to_le_bytes(error), unique, &body].concat();
        let _answered = device.write_all(&reply);
    }
}

fn words(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn halves(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// `struct fuse_init_out` of version 7.31.
fn init() -> Vec<u8> {
    [halves(&[7, 31, 1 << 16, 0, 10 << 16 | 12, 1 << 17, 1, 32]), vec![0; 32]].concat()
}

/// `struct fuse_attr` of the folder or the file.
fn attr(node: u64) -> Vec<u8> {
    let (len, mode) = if node == 1 { (0, 0o40755) } else { (LEN, 0o100_666) };
    [words(&[node, len, 8, 0, 0, 0]), halves(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0])].concat()
}
