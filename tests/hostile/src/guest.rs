//! A VM on a port, VMM and driver in one: brought up as the specifications want it, or a little different.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::memory::{GUEST, Memory, USER};
use crate::ring::{BUFFER, MEMORY, NEXT, Ring, SIZE, WRITE};
use crate::target::Target;
use crate::vfio_user::{CONFIG, command, dma_map, dma_unmap};
use crate::vhost_user::request;
use crate::{vfio_user, vhost_user};

/// Suppression of kicks and interrupts by indices, which the guest here does without.
const EVENT_IDX: u64 = 1 << 29;

/// Frames of a millisecond that do not fill an uplink.
const TRICKLE: u64 = 8;
/// Length of the header before a frame.
pub const HEADER: usize = 12;

/// How a guest is brought up. The default is right.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Features that are taken if they are offered.
    pub features: u64,
    /// Size of the rings.
    pub size: u32,
    /// Moves the used ring by so many bytes.
    pub used_moves: i64,
    /// Messages that may be sent; none: as many as it takes.
    pub budget: Option<u32>,
}

impl Default for Setup {
    fn default() -> Self {
        Setup { features: !EVENT_IDX, size: SIZE.into(), used_moves: 0, budget: None }
    }
}

/// Offsets in a VF's BARs, from its capabilities.
#[derive(Clone, Copy, Debug, Default)]
struct Windows {
    common: (u32, u64),
    notify: (u32, u64),
    stride: u64,
}

/// The connection of a guest.
pub enum Vmm {
    /// To a VF.
    Vfio(vfio_user::Client),
    /// To a vhost-user port.
    Vhost(vhost_user::Client),
}

/// A VM.
pub struct Guest {
    /// Its connection.
    pub vmm: Vmm,
    /// Its memory.
    pub memory: Memory,
    /// Receive, transmit and, on a VF, control ring.
    pub rings: Vec<Ring>,
    /// The interrupts of its rings.
    pub calls: Vec<OwnedFd>,
    /// What it kicks a vhost-user port by.
    pub kicks: Vec<OwnedFd>,
    windows: Windows,
    setup: Setup,
}

fn event() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

impl Guest {
    /// Brings a VM up.
    ///
    /// # Errors
    /// The port refuses a step, or does not answer within two seconds.
    pub fn bring_up(target: Target, socket: &Path, setup: &Setup) -> io::Result<Self> {
        let (vmm, rings) = if target == Target::Vf {
            (Vmm::Vfio(vfio_user::Client::negotiated_within(socket, setup.budget)?), 3)
        } else {
            let client = vhost_user::Client::negotiated_within(socket, setup.features, setup.budget)?;
            (Vmm::Vhost(client), 2)
        };
        let mut guest = Guest {
            vmm,
            memory: Memory::new(MEMORY)?,
            rings: (0..rings).map(Ring::new).collect(),
            calls: (0..rings).map(|_| event()).collect::<io::Result<_>>()?,
            kicks: (0..rings).map(|_| event()).collect::<io::Result<_>>()?,
            windows: Windows::default(),
            setup: setup.clone(),
        };
        guest.map()?;
        guest.post()?;
        guest.start()?;
        Ok(guest)
    }

    /// Makes the memory known to the device.
    ///
    /// # Errors
    /// It refuses.
    pub fn map(&mut self) -> io::Result<()> {
        let fd = self.memory.as_fd();
        match &mut self.vmm {
            Vmm::Vfio(client) => client.call(command::DMA_MAP, &dma_map(0, GUEST, MEMORY), &[fd]).map(drop),
            Vmm::Vhost(client) => {
                client.call(request::SET_MEM_TABLE, &vhost_user::table(&[[GUEST, MEMORY, USER, 0]]), &[fd])
            }
        }
    }

    /// Takes the memory from a VF again; a vhost-user port's is replaced only.
    ///
    /// # Errors
    /// It refuses.
    pub fn unmap(&mut self) -> io::Result<()> {
        match &mut self.vmm {
            Vmm::Vfio(client) => client.call(command::DMA_UNMAP, &dma_unmap(GUEST, MEMORY), &[]).map(drop),
            Vmm::Vhost(_) => Ok(()),
        }
    }

    /// Offers all buffers of the receive ring.
    fn post(&mut self) -> io::Result<()> {
        let ring = &mut self.rings[0];
        for index in 0..SIZE {
            ring.describe(&self.memory, index, [GUEST + ring.buffer(index), BUFFER], WRITE, 0)?;
        }
        ring.offer(&self.memory, 0..SIZE)
    }

    /// Sets the rings up and lets the device run.
    ///
    /// # Errors
    /// It refuses.
    pub fn start(&mut self) -> io::Result<()> {
        match &self.vmm {
            Vmm::Vfio(_) => self.start_vf(),
            Vmm::Vhost(_) => (0..self.rings.len()).try_for_each(|n| self.start_vring(n)),
        }
    }

    /// Gives a vring all its settings, which starts it.
    ///
    /// # Errors
    /// The port refuses.
    pub fn start_vring(&mut self, n: usize) -> io::Result<()> {
        let Vmm::Vhost(client) = &mut self.vmm else { return Ok(()) };
        let mut parts = self.rings[n].user_addresses();
        parts[2] = parts[2].wrapping_add_signed(self.setup.used_moves);
        let vring = n as u32;
        client.call(request::SET_VRING_NUM, &vhost_user::state(vring, self.setup.size), &[])?;
        client.call(request::SET_VRING_BASE, &vhost_user::state(vring, 0), &[])?;
        client.call(request::SET_VRING_ADDR, &vhost_user::addresses(vring, parts), &[])?;
        client.set_file(request::SET_VRING_KICK, n as u64, self.kicks[n].as_fd())?;
        client.set_file(request::SET_VRING_CALL, n as u64, self.calls[n].as_fd())?;
        client.call(request::SET_VRING_ENABLE, &vhost_user::state(vring, 1), &[])
    }

    fn start_vf(&mut self) -> io::Result<()> {
        let Vmm::Vfio(client) = &mut self.vmm else { return Ok(()) };
        self.windows = windows(client)?;
        // Memory access and bus mastering.
        client.write(CONFIG, 4, &6_u16.to_le_bytes())?;
        for (n, call) in self.calls.iter().enumerate() {
            client.set_vector(n as u32, call.as_fd())?;
        }
        let (bar, at) = self.windows.common;
        for status in [0_u8, 1, 3] {
            client.write(bar, at + 0x14, &[status])?;
        }
        for half in 0..2_u32 {
            client.write(bar, at, &half.to_le_bytes())?;
            let offered = client.read(bar, at + 4, 4)?;
            let offered = u32::from_le_bytes(offered.try_into().map_err(|_| io::ErrorKind::InvalidData)?);
            let taken = offered & (self.setup.features >> (32 * half)) as u32;
            client.write(bar, at + 8, &half.to_le_bytes())?;
            client.write(bar, at + 12, &taken.to_le_bytes())?;
        }
        client.write(bar, at + 0x14, &[0x0b])?;
        for ring in &self.rings {
            let mut parts = ring.guest_addresses();
            parts[2] = parts[2].wrapping_add_signed(self.setup.used_moves);
            client.write(bar, at + 0x16, &ring.index.to_le_bytes())?;
            client.write(bar, at + 0x18, &(self.setup.size as u16).to_le_bytes())?;
            client.write(bar, at + 0x1a, &ring.index.to_le_bytes())?;
            for (register, address) in [0x20, 0x28, 0x30].into_iter().zip(parts) {
                client.write(bar, at + register, &(address as u32).to_le_bytes())?;
                client.write(bar, at + register + 4, &((address >> 32) as u32).to_le_bytes())?;
            }
            client.write(bar, at + 0x1c, &1_u16.to_le_bytes())?;
        }
        client.write(bar, at + 0x14, &[0x0f])
    }

    /// Writes a register of a VF's common configuration, without waiting for the reply.
    ///
    /// # Errors
    /// The connection is closed.
    pub fn register(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let Vmm::Vfio(client) = &mut self.vmm else { return Ok(()) };
        let (bar, at) = self.windows.common;
        client.post(bar, at + offset, data)
    }

    /// Kicks a ring. A full eventfd was kicked already.
    ///
    /// # Errors
    /// The connection is closed.
    pub fn kick(&mut self, n: usize) -> io::Result<()> {
        match &mut self.vmm {
            Vmm::Vfio(client) => {
                let (bar, at) = self.windows.notify;
                client.post(bar, at + n as u64 * self.windows.stride, &(n as u16).to_le_bytes())
            }
            Vmm::Vhost(_) => match rustix::io::write(&self.kicks[n], &1_u64.to_ne_bytes()) {
                Err(rustix::io::Errno::AGAIN) | Ok(_) => Ok(()),
                Err(e) => Err(e.into()),
            },
        }
    }

    /// Whether a frame fits into the transmit ring.
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn has_room(&self) -> io::Result<bool> {
        Ok(self.rings[1].in_flight(&self.memory)? < SIZE)
    }

    /// Puts a frame with this header into the transmit ring, cut into pieces, without a kick. False: there is no room.
    ///
    /// # Errors
    /// The memory cannot be written.
    pub fn put(&mut self, header: [u8; HEADER], frame: &[u8], pieces: u16) -> io::Result<bool> {
        let memory = &self.memory;
        let ring = &mut self.rings[1];
        // Chains of several descriptors are sent one at a time.
        let most = if pieces > 1 { 1 } else { SIZE };
        if ring.in_flight(memory)? >= most {
            return Ok(false);
        }
        let whole = [&header[..], frame].concat();
        let first = if pieces > 1 { 0 } else { ring.offered() % SIZE };
        // A chain of one: a long frame runs on over the buffers behind it, which then belong to it.
        let at = ring.buffer(first).min(ring.buffer(0) + u64::from(SIZE) * BUFFER - whole.len() as u64);
        memory.write(at, &whole)?;
        let piece = whole.len().div_ceil(usize::from(pieces)).max(1);
        let count = whole.len().div_ceil(piece) as u16;
        for n in 0..count {
            let from = usize::from(n) * piece;
            let len = piece.min(whole.len() - from) as u64;
            let flags = if n + 1 < count { NEXT } else { 0 };
            let to = [GUEST + at + from as u64, len];
            ring.describe(memory, first + n, to, flags, (first + n + 1) % SIZE)?;
        }
        ring.offer(memory, [first])?;
        Ok(true)
    }

    /// Fills the transmit ring with frames and kicks; waits a moment where it was full already.
    ///
    /// # Errors
    /// The memory cannot be written, or the connection is closed.
    pub fn burst(&mut self, mut frame: impl FnMut() -> Vec<u8>) -> io::Result<u64> {
        let mut sent = 0;
        while sent < u64::from(SIZE) && self.put([0; HEADER], &frame(), 1)? {
            sent += 1;
        }
        self.kick(1)?;
        if sent == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(sent)
    }

    /// Sends a few frames, and waits a millisecond: traffic to a peer that answers it, which is not to fill the other host's uplink.
    ///
    /// # Errors
    /// As [`burst`](Self::burst).
    pub fn trickle(&mut self, mut frame: impl FnMut() -> Vec<u8>) -> io::Result<u64> {
        let mut sent = 0;
        while sent < TRICKLE && self.put([0; HEADER], &frame(), 1)? {
            sent += 1;
        }
        self.kick(1)?;
        std::thread::sleep(Duration::from_millis(1));
        Ok(sent)
    }

    /// Takes the received frames and offers their buffers again.
    ///
    /// # Errors
    /// The memory cannot be used, or the connection is closed.
    pub fn recycle(&mut self) -> io::Result<()> {
        let mut any = false;
        while let Some((head, _)) = self.rings[0].take(&self.memory)? {
            self.rings[0].offer(&self.memory, [head % SIZE])?;
            any = true;
        }
        if any { self.kick(0) } else { Ok(()) }
    }

    /// The connection's socket.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        match &self.vmm {
            Vmm::Vfio(client) => client.stream.as_fd(),
            Vmm::Vhost(client) => client.stream.as_fd(),
        }
    }
}

/// Finds a VF's structures by its capabilities (virtio 1.2, 4.1.4).
fn windows(client: &mut vfio_user::Client) -> io::Result<Windows> {
    let space = client.read(CONFIG, 0, 256)?;
    let byte = |at: usize| space.get(at).copied().unwrap_or(0);
    let word = |at: usize| u32::from_le_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]);
    let mut found = Windows::default();
    let mut at = usize::from(byte(0x34));
    for _ in 0..48 {
        if at == 0 {
            break;
        }
        if byte(at) == 9 {
            let place = (u32::from(byte(at + 4)), u64::from(word(at + 8)));
            match byte(at + 3) {
                1 => found.common = place,
                2 => (found.notify, found.stride) = (place, u64::from(word(at + 16))),
                _ => {}
            }
        }
        at = usize::from(byte(at + 1));
    }
    Ok(found)
}
