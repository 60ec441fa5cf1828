//! A file system of the attacker's (FUSE) with one file of 16 MiB, whose pages never come. It can turn deaf to all other questions.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Length of the file.
pub const LEN: u64 = 16 << 20;
/// The file's name.
const NAME: &[u8] = b"memory";

// Operations of fuse(4), from the kernel's fuse.h.
const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const OPEN: u32 = 14;
const READ: u32 = 15;
const STATFS: u32 = 17;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
/// RELEASE, FLUSH, RELEASEDIR.
const CLOSING: [u32; 3] = [18, 25, 29];
/// Operations that are not answered to, by their nature: FORGET and BATCH_FORGET; INTERRUPT.
const SILENT: [u32; 3] = [2, 42, 36];

/// Mounts it on a folder, in a mount namespace of this process's own, and opens its file for reading and writing. From then on a
/// deaf one answers not even what the file's length and the file system's kind are.
///
/// # Errors
/// The kernel has no FUSE, or refuses the mount.
pub fn hanging_file(folder: &Path, deaf: bool) -> io::Result<File> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
    let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
    let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
    rustix::mount::mount("hostile", folder, "fuse", flags, Some(options.as_c_str()))?;
    let silent = Arc::new(AtomicBool::new(false));
    let turned = Arc::clone(&silent);
    thread::spawn(move || serve(&device, &turned));
    let file = File::options().read(true).write(true).open(folder.join("memory"))?;
    silent.store(deaf, Ordering::Relaxed);
    Ok(file)
}

fn serve(mut device: &File, deaf: &AtomicBool) {
    let mut room = vec![0; 1 << 20];
    while let Ok(len) = device.read(&mut room) {
        let Some(request) = room.get(..len).filter(|r| r.len() >= 40) else { continue };
        let word =
            |at: usize| u32::from_le_bytes([request[at], request[at + 1], request[at + 2], request[at + 3]]);
        let (operation, node) = (word(4), word(16));
        // What closes the file is answered, so that this process can end.
        let deaf = deaf.load(Ordering::Relaxed) && !CLOSING.contains(&operation);
        if operation == READ || SILENT.contains(&operation) || deaf {
            continue;
        }
        let (error, body) = answer(operation, node, &request[40..]);
        let mut reply = ((16 + body.len()) as u32).to_le_bytes().to_vec();
        reply.extend_from_slice(&(-error).to_le_bytes());
        reply.extend_from_slice(&request[8..16]);
        reply.extend_from_slice(&body);
        // The request may be gone already.
        let _ignored = device.write(&reply);
    }
}

/// Error number and body of an answer.
fn answer(operation: u32, node: u32, body: &[u8]) -> (i32, Vec<u8>) {
    let words = |all: &[u32]| all.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
    match operation {
        // Version 7.31 with the kernel's own limits.
        INIT => (0, words(&[7, 31, 1 << 16, 0, 12 | 10 << 16, 1 << 17, 1, 32, 0, 0, 0, 0, 0, 0, 0, 0])),
        LOOKUP if body.strip_suffix(&[0]) == Some(NAME) => {
            let entry = words(&[2, 0, 0, 0, 3600, 0, 0, 0, 0, 0]);
            (0, [entry, attributes(2)].concat())
        }
        LOOKUP => (2, Vec::new()),
        GETATTR | SETATTR => (0, [words(&[0, 0, 0, 0]), attributes(node)].concat()),
        OPEN | OPENDIR => (0, words(&[1, 0, 0, 0])),
        STATFS => (
            0,
            words(&[1 << 20, 0, 1 << 20, 0, 1 << 20, 0, 99, 0, 99, 0, 4096, 255, 4096, 0, 0, 0, 0, 0, 0, 0]),
        ),
        _ if CLOSING.contains(&operation) => (0, Vec::new()),
        _ => (38, Vec::new()),
    }
}

/// `struct fuse_attr`.
fn attributes(node: u32) -> Vec<u8> {
    let folder = node == 1;
    let len = if folder { 0 } else { LEN };
    let longs = [u64::from(node), len, len / 512, 0, 0, 0];
    let mode = if folder { 0o40755 } else { 0o100_666 };
    let words = [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0];
    let longs = longs.iter().flat_map(|v| v.to_le_bytes());
    longs.chain(words.iter().flat_map(|v: &u32| v.to_le_bytes())).collect()
}
