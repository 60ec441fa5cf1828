//! Attacks by the memory that a guest shares.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, memfd_create};

use super::frames::datagram;
use crate::fuse;
use crate::guest::{Guest, Vmm};
use crate::memory::{GUEST, Memory, NAME, USER};
use crate::place::Place;
use crate::ring::MEMORY;
use crate::target::Target;
use crate::vfio_user::{command, dma_map};
use crate::vhost_user::{addresses, request, state, table};

/// Where other memory is mapped, beside the guest's.
const OTHER: u64 = 0x40_0000_0000;
/// What `OTHER` is for the VMM.
const OTHER_USER: u64 = 0x6f00_0000_0000;

/// A connection that has agreed on what must be agreed on before memory can be mapped.
fn vmm(place: &Place) -> io::Result<Vmm> {
    Ok(if place.target == Target::Vf {
        Vmm::Vfio(place.vfio_user()?)
    } else {
        Vmm::Vhost(place.vhost_user()?)
    })
}

/// Maps a range of a file; on vhost-user it replaces all others.
fn map(vmm: &mut Vmm, fd: BorrowedFd<'_>, at: u64, len: u64, offset: u64) -> io::Result<()> {
    match vmm {
        Vmm::Vfio(client) => client.call(command::DMA_MAP, &dma_map(offset, at, len), &[fd]).map(drop),
        Vmm::Vhost(client) => {
            let user = at.wrapping_sub(OTHER).wrapping_add(OTHER_USER);
            client.call(request::SET_MEM_TABLE, &table(&[[at, len, user, offset]]), &[fd])
        }
    }
}

/// An empty folder of this process's own.
fn folder() -> io::Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("culvert-hostile-{}", std::process::id()));
    std::fs::create_dir(&path)?;
    Ok(path)
}

/// Mounts the file system, uses its file, and takes the mount away again.
fn with_hanging_file(deaf: bool, act: impl FnOnce(&File) -> io::Result<String>) -> io::Result<String> {
    let folder = folder()?;
    let done = fuse::hanging_file(&folder, deaf).and_then(|file| act(&file));
    let _gone = rustix::mount::unmount(&folder, rustix::mount::UnmountFlags::DETACH);
    let _removed = std::fs::remove_dir(&folder);
    done
}

/// Shares a file whose pages never come, and lets frames be received and sent in it.
pub fn fuse(place: &Place) -> io::Result<String> {
    share_hanging_file(place, false)
}

/// Shares a file of which not even the length can be had.
pub fn deaf_fuse(place: &Place) -> io::Result<String> {
    share_hanging_file(place, true)
}

fn share_hanging_file(place: &Place, deaf: bool) -> io::Result<String> {
    with_hanging_file(deaf, |file| {
        let mut guest = place.guest()?;
        let shared = match &mut guest.vmm {
            Vmm::Vfio(client) => {
                client.call(command::DMA_MAP, &dma_map(0, OTHER, fuse::LEN), &[file.as_fd()]).map(drop)
            }
            Vmm::Vhost(client) => {
                let regions = [[GUEST, MEMORY, USER, 0], [OTHER, fuse::LEN, OTHER_USER, 0]];
                let fds = [guest.memory.as_fd(), file.as_fd()];
                client.call(request::SET_MEM_TABLE, &table(&regions), &fds)
            }
        };
        let ring = &mut guest.rings[1];
        for n in 0..16_u16 {
            let at = OTHER + 0x8000 * u64::from(n);
            ring.describe(&guest.memory, n, [at, 200], 0, 0)?;
        }
        ring.offer(&guest.memory, 0..16)?;
        guest.kick(1)?;
        place.sit_out();
        Ok(format!("taken: {}", shared.is_ok()))
    })
}

/// Shares nothing but such a file, with the rings in it.
pub fn fuse_ring(place: &Place) -> io::Result<String> {
    with_hanging_file(false, |file| {
        let mut vmm = vmm(place)?;
        let taken = map(&mut vmm, file.as_fd(), OTHER, fuse::LEN, 0);
        if let Vmm::Vhost(client) = &mut vmm {
            let kick = rustix::event::eventfd(1, rustix::event::EventfdFlags::CLOEXEC)?;
            for n in 0..2_u32 {
                let at = OTHER_USER + 0x10_0000 * u64::from(n);
                client.send(request::SET_VRING_NUM, &state(n, 256), &[])?;
                client.send(request::SET_VRING_ADDR, &addresses(n, [at, at + 0x2000, at + 0x4000]), &[])?;
                client.send(request::SET_VRING_KICK, &u64::from(n).to_le_bytes(), &[kick.as_fd()])?;
                client.send(request::SET_VRING_ENABLE, &state(n, 1), &[])?;
            }
        } else if let Vmm::Vfio(client) = &mut vmm {
            // Common configuration, where the board has it: rings in the file, and a kick.
            let common =
                |client: &mut crate::vfio_user::Client, at: u64, data: &[u8]| client.post(0, at, data);
            client.post(crate::vfio_user::CONFIG, 4, &6_u16.to_le_bytes())?;
            for status in [0_u8, 1, 3] {
                common(client, 0x14, &[status])?;
            }
            common(client, 8, &1_u32.to_le_bytes())?;
            common(client, 12, &1_u32.to_le_bytes())?;
            common(client, 0x14, &[0x0b])?;
            for queue in 0..2_u16 {
                common(client, 0x16, &queue.to_le_bytes())?;
                common(client, 0x18, &16_u16.to_le_bytes())?;
                let at = OTHER + 0x1_0000 * u64::from(queue);
                for (register, address) in [(0x20, at), (0x28, at + 0x1000), (0x30, at + 0x2000)] {
                    common(client, register, &(address as u32).to_le_bytes())?;
                    common(client, register + 4, &((address >> 32) as u32).to_le_bytes())?;
                }
                common(client, 0x1c, &1_u16.to_le_bytes())?;
            }
            common(client, 0x14, &[0x0f])?;
            client.post(0, 0x3004, &1_u16.to_le_bytes())?;
        }
        place.sit_out();
        Ok(format!("taken: {}", taken.is_ok()))
    })
}

/// Shares files that hold no memory.
pub fn odd_files(place: &Place) -> io::Result<String> {
    let (reader, writer) = rustix::pipe::pipe()?;
    let empty = memfd_create(NAME, MemfdFlags::CLOEXEC)?;
    let read_only = {
        let file = Memory::new(MEMORY)?;
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file.as_fd()));
        OwnedFd::from(File::open(path)?)
    };
    let mut files: Vec<(&str, OwnedFd)> = vec![
        ("folder", File::open("/")?.into()),
        ("zero", File::options().read(true).write(true).open("/dev/zero")?.into()),
        ("null", File::options().read(true).write(true).open("/dev/null")?.into()),
        ("program", File::open("/proc/self/exe")?.into()),
        ("proc", File::open("/proc/self/maps")?.into()),
        ("socket", place.connection()?.into()),
        ("reader", reader),
        ("writer", writer),
        ("empty", empty),
        ("read-only", read_only),
    ];
    if let Ok(disk) = tempfile_on_disk() {
        files.push(("disk", disk.into()));
    }
    // The waiting connection must not keep the port from serving this one.
    files.retain(|(name, _)| *name != "socket");
    let mut seen = Vec::new();
    for (name, file) in &files {
        let mut vmm = vmm(place)?;
        let taken = map(&mut vmm, file.as_fd(), OTHER, 1 << 20, 0);
        seen.push(format!("{name} {}", if taken.is_ok() { "taken" } else { "refused" }));
    }
    Ok(seen.join(", "))
}

fn tempfile_on_disk() -> io::Result<File> {
    let path = PathBuf::from("/var/tmp").join(format!("culvert-hostile-{}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    file.set_len(1 << 20)?;
    Ok(file)
}

fn sparse(len: u64) -> io::Result<File> {
    let file = File::from(memfd_create(NAME, MemfdFlags::CLOEXEC)?);
    file.set_len(len)?;
    Ok(file)
}

/// Maps 4 KiB of each of many files of 64 TiB, and such files as a whole.
pub fn sparse_files(place: &Place) -> io::Result<String> {
    let mut vmm = vmm(place)?;
    let (mut taken, mut refused, mut n) = (0, 0, 0_u64);
    while !place.is_over() && refused < 50 {
        let file = sparse(1 << 46)?;
        let len = if n % 8 == 7 { 1 << 46 } else { 4096 };
        match map(&mut vmm, file.as_fd(), OTHER + (n << 12), len, 0) {
            Ok(()) => taken += 1,
            Err(_) => refused += 1,
        }
        n += 1;
    }
    Ok(format!("{taken} taken, {refused} refused"))
}

/// Maps 4 KiB as often as it is let, on vhost-user as many regions at once as a message can have.
pub fn many_maps(place: &Place) -> io::Result<String> {
    let mut vmm = vmm(place)?;
    let (mut taken, mut refused) = (0, 0);
    let file = sparse(4096)?;
    for n in 0..3000_u64 {
        if place.is_over() || refused >= 20 {
            break;
        }
        let done = match &mut vmm {
            Vmm::Vfio(_) => map(&mut vmm, file.as_fd(), OTHER + (n << 12), 4096, 0),
            Vmm::Vhost(client) => {
                let regions: Vec<[u64; 4]> =
                    (0..32).map(|r| [OTHER + (r << 12), 4096, OTHER_USER + (r << 12), 0]).collect();
                client.call(request::SET_MEM_TABLE, &table(&regions), &[file.as_fd(); 32])
            }
        };
        match done {
            Ok(()) => taken += 1,
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe || e.kind() == io::ErrorKind::UnexpectedEof => {
                break;
            }
            Err(_) => refused += 1,
        }
    }
    place.sit_out();
    Ok(format!("{taken} taken, {refused} refused"))
}

/// Maps ranges over each other, around the end of all addresses, of no bytes, and off the pages.
pub fn overlapping_maps(place: &Place) -> io::Result<String> {
    let file = sparse(1 << 20)?;
    let (mut taken, mut refused) = (0, 0);
    while !place.is_over() {
        let mut vmm = vmm(place)?;
        for _ in 0..16 {
            let mut random = place.random();
            let at = random.one_of(&[0, 1, OTHER, OTHER + 4096, u64::MAX - 4095, !4095, 1 << 63]);
            let len = random.one_of(&[0, 1, 4096, 8192, 1 << 20, 1 << 40, u64::MAX, !4095]);
            let offset = random.one_of(&[0, 0, 1, 4096, 1 << 20, !4095]);
            match map(&mut vmm, file.as_fd(), at, len, offset) {
                Ok(()) => taken += 1,
                Err(e) if e.raw_os_error().is_some() => refused += 1,
                // vhost-user closes the connection over it.
                Err(_) => {
                    refused += 1;
                    break;
                }
            }
        }
    }
    Ok(format!("{taken} taken, {refused} refused"))
}

/// Brings guests up and lets `spoil` have their memory while they send.
fn under_traffic(
    place: &Place,
    mut spoil: impl FnMut(&Place, &mut Guest) -> io::Result<()>,
) -> io::Result<String> {
    let (mut guests, mut failed) = (0, 0);
    while !place.is_over() {
        let mut guest = match place.guest() {
            Ok(guest) => guest,
            Err(e) if failed > 200 => return Err(e),
            Err(_) => {
                failed += 1;
                continue;
            }
        };
        guests += 1;
        for _ in 0..20 {
            let moved = guest.trickle(|| datagram(place, 7, 500)).and_then(|_| guest.recycle());
            // A ring that is gone cannot be used.
            if moved.is_err() | spoil(place, &mut guest).is_err() {
                break;
            }
        }
    }
    Ok(format!("{guests} guests"))
}

/// Cuts the memory short, at any place.
pub fn shrinking(place: &Place) -> io::Result<String> {
    under_traffic(place, |place, guest| {
        let len = place.random().below(MEMORY / 4096) * 4096;
        let shrunk = guest.memory.resize(len);
        guest.kick(1)?;
        guest.kick(0)?;
        std::thread::sleep(std::time::Duration::from_millis(2));
        // A device that sealed the file against it has no more to fear.
        if shrunk.is_ok() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    })
}

/// Cuts the memory short and makes it whole again, also longer than it was.
pub fn growing(place: &Place) -> io::Result<String> {
    under_traffic(place, |place, guest| {
        for _ in 0..20 {
            let len = place.random().below(MEMORY / 4096) * 4096;
            let _sealed = guest.memory.resize(len);
            guest.kick(1)?;
            let _sealed = guest.memory.resize(MEMORY << place.random().below(4));
        }
        Ok(())
    })
}

/// Frees pages of rings and buffers.
pub fn punched(place: &Place) -> io::Result<String> {
    under_traffic(place, |place, guest| {
        for _ in 0..20 {
            let at = place.random().below(MEMORY / 4096) * 4096;
            guest.memory.punch(at, 4096 * 16)?;
            guest.kick(1)?;
        }
        Ok(())
    })
}

/// Maps and unmaps the memory while its rings are used.
pub fn remapped(place: &Place) -> io::Result<String> {
    under_traffic(place, |place, guest| {
        for _ in 0..5 {
            guest.unmap()?;
            guest.kick(1)?;
            guest.map()?;
            guest.trickle(|| datagram(place, 7, 500))?;
        }
        Ok(())
    })
}
