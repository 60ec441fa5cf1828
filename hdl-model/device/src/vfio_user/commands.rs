//! The commands of a client: each parsed and checked, then passed to the function.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::channel::Message;
use super::function::{DmaRegion, Function, IrqAction, IrqSet, Region};
use super::message::{Body, MAX_TRANSFER, command, fields};
use super::{INTX_INDEX, IRQ_INDEX_COUNT, REGION_COUNT};

/// `VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI`.
const DEVICE_FLAGS: u32 = 1 | 2;
/// `VFIO_REGION_INFO_FLAG_*`.
const REGION_READ: u32 = 1;
const REGION_WRITE: u32 = 2;
const REGION_MMAP: u32 = 4;
const REGION_CAPS: u32 = 8;
/// `VFIO_REGION_INFO_CAP_SPARSE_MMAP`.
const CAP_SPARSE_MMAP: u16 = 1;
/// Length of `struct vfio_region_info`.
const REGION_INFO_LEN: u32 = 32;
/// `VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE`: the kernel's flags of MSI-X.
const IRQ_FLAGS: u32 = 1 | 8;
/// `VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED`: those of INTx.
const INTX_FLAGS: u32 = 1 | 2 | 4;
/// `VFIO_DMA_UNMAP_FLAG_ALL`.
const UNMAP_ALL: u32 = 2;
/// Bytes of one write in a `REGION_WRITE_MULTI`.
const WRITE_ONE_LEN: usize = 24;

/// An answer: its body, and a file descriptor if one goes with it.
#[derive(Default)]
pub(super) struct Reply<'a> {
    pub(super) body: Vec<u8>,
    pub(super) fd: Option<BorrowedFd<'a>>,
}

impl From<Body> for Reply<'_> {
    fn from(body: Body) -> Self {
        Self { body: body.0, fd: None }
    }
}

/// Carries out every command except `VERSION`.
pub(super) fn execute<'a>(function: &'a dyn Function, message: Message) -> Result<Reply<'a>, Errno> {
    let body = &message.body[..];
    match message.header.command {
        command::DMA_MAP => dma_map(function, body, message.fds),
        command::DMA_UNMAP => dma_unmap(function, body),
        command::DEVICE_GET_INFO => {
            fields(body, 16)?;
            Ok(Body::default().u32s(&[16, DEVICE_FLAGS, REGION_COUNT as u32, IRQ_INDEX_COUNT as u32]).into())
        }
        command::DEVICE_GET_REGION_INFO => region_info(function, body),
        // An optional short cut (ioeventfds per region): the client falls back to messages.
        command::DEVICE_GET_REGION_IO_FDS => Err(Errno::OPNOTSUPP),
        command::DEVICE_GET_IRQ_INFO => {
            let index = fields(body, 16)?.u32_at(8);
            let count = irq_count(function, index)?;
            let flags = match index {
                _ if count == 0 => 0,
                INTX_INDEX => INTX_FLAGS,
                _ => IRQ_FLAGS,
            };
            Ok(Body::default().u32s(&[16, flags, index, count]).into())
        }
        command::DEVICE_SET_IRQS => set_irqs(function, body, message.fds),
        command::REGION_READ => region_read(function, body),
        command::REGION_WRITE => {
            let request = fields(body, 16)?;
            let (offset, region, count) = (request.u64_at(0), request.u32_at(8), request.u32_at(12) as usize);
            let data = body[16..].get(..count).ok_or(Errno::INVAL)?;
            region_write(function, region, offset, data)?;
            Ok(Body::default().bytes(&body[..16]).into())
        }
        command::REGION_WRITE_MULTI => write_multi(function, body),
        command::DEVICE_RESET => {
            function.reset();
            Ok(Reply::default())
        }
        _ => Err(Errno::NOSYS),
    }
}

fn dma_map<'a>(function: &dyn Function, body: &[u8], fds: Vec<OwnedFd>) -> Result<Reply<'a>, Errno> {
    let request = fields(body, 32)?;
    let flags = request.u32_at(4);
    let region = DmaRegion {
        offset: request.u64_at(8),
        iova: request.u64_at(16),
        size: request.u64_at(24),
        read: flags & 1 != 0,
        write: flags & 2 != 0,
    };
    if flags & !3 != 0 || flags == 0 || fds.len() > 1 {
        return Err(Errno::INVAL);
    }
    if region.size == 0 || region.iova.checked_add(region.size - 1).is_none() {
        return Err(Errno::INVAL);
    }
    function.dma_map(region, fds.into_iter().next())?;
    Ok(Reply::default())
}

fn dma_unmap<'a>(function: &dyn Function, body: &[u8]) -> Result<Reply<'a>, Errno> {
    let request = fields(body, 24)?;
    let (flags, iova, size) = (request.u32_at(4), request.u64_at(8), request.u64_at(16));
    let range = match flags {
        0 if size > 0 && iova.checked_add(size - 1).is_some() => Some((iova, size)),
        UNMAP_ALL if size == 0 => None,
        0 | UNMAP_ALL => return Err(Errno::INVAL),
        _ => return Err(Errno::OPNOTSUPP),
    };
    let taken = function.dma_unmap(range)?;
    Ok(Body::default().u32s(&[24, flags]).u64s(&[iova, taken]).into())
}

fn region(function: &dyn Function, index: u32) -> Result<Region<'_>, Errno> {
    if (index as usize) < REGION_COUNT { Ok(function.region(index)) } else { Err(Errno::INVAL) }
}

fn irq_count(function: &dyn Function, index: u32) -> Result<u32, Errno> {
    if (index as usize) < IRQ_INDEX_COUNT { Ok(function.irq_count(index)) } else { Err(Errno::INVAL) }
}

fn region_info<'a>(function: &'a dyn Function, body: &[u8]) -> Result<Reply<'a>, Errno> {
    let request = fields(body, REGION_INFO_LEN as usize)?;
    let (argsz, index) = (request.u32_at(0), request.u32_at(8));
    let region = region(function, index)?;
    let mut flags = if region.size > 0 { REGION_READ | REGION_WRITE } else { 0 };
    let mut caps = Body::default();
    if let Some(mmap) = &region.mmap {
        flags |= REGION_MMAP | REGION_CAPS;
        caps = caps.u16s(&[CAP_SPARSE_MMAP, 1]).u32s(&[0, mmap.areas.len() as u32, 0]);
        for (offset, len) in mmap.areas {
            caps = caps.u64s(&[*offset, *len]);
        }
    }
    let full = REGION_INFO_LEN + caps.0.len() as u32;
    // A client that left no room learns the size and asks again; the file goes only with the whole answer.
    let fits = argsz >= full;
    let cap_offset = if caps.0.is_empty() { 0 } else { REGION_INFO_LEN };
    let info = Body::default().u32s(&[full, flags, index, cap_offset]).u64s(&[region.size, 0]);
    Ok(Reply {
        body: if fits { info.bytes(&caps.0).0 } else { info.0 },
        fd: region.mmap.filter(|_| fits).map(|mmap| mmap.fd),
    })
}

/// Whether `count` bytes at `offset` lie in region `index`.
fn check_range(function: &dyn Function, index: u32, offset: u64, count: usize) -> Result<(), Errno> {
    let end = offset.checked_add(count as u64).ok_or(Errno::INVAL)?;
    if end > region(function, index)?.size { Err(Errno::INVAL) } else { Ok(()) }
}

fn region_read<'a>(function: &dyn Function, body: &[u8]) -> Result<Reply<'a>, Errno> {
    let request = fields(body, 16)?;
    let (offset, region, count) = (request.u64_at(0), request.u32_at(8), request.u32_at(12) as usize);
    if count > MAX_TRANSFER {
        return Err(Errno::TOOBIG);
    }
    check_range(function, region, offset, count)?;
    let mut reply = Body::default().bytes(&body[..16]).0;
    reply.resize(16 + count, 0);
    function.read(region, offset, &mut reply[16..])?;
    Ok(Reply { body: reply, fd: None })
}

fn region_write(function: &dyn Function, region: u32, offset: u64, data: &[u8]) -> Result<(), Errno> {
    check_range(function, region, offset, data.len())?;
    function.write(region, offset, data)
}

/// Several small writes, in order; the first that fails ends the list. Answers how many were done.
fn write_multi<'a>(function: &dyn Function, body: &[u8]) -> Result<Reply<'a>, Errno> {
    let count = usize::try_from(fields(body, 8)?.u64_at(0)).map_err(|_| Errno::INVAL)?;
    let len = count.checked_mul(WRITE_ONE_LEN).ok_or(Errno::INVAL)?;
    let list = body[8..].get(..len).ok_or(Errno::INVAL)?;
    for one in list.chunks_exact(WRITE_ONE_LEN) {
        let request = fields(one, WRITE_ONE_LEN)?;
        let data = one[16..].get(..request.u32_at(12) as usize).ok_or(Errno::INVAL)?;
        region_write(function, request.u32_at(8), request.u64_at(0), data)?;
    }
    Ok(Body::default().u64s(&[count as u64]).into())
}

fn set_irqs<'a>(function: &dyn Function, body: &[u8], fds: Vec<OwnedFd>) -> Result<Reply<'a>, Errno> {
    const NONE: u32 = 1;
    const BOOL: u32 = 2;
    const EVENTFD: u32 = 4;
    const MASK: u32 = 8;
    const UNMASK: u32 = 16;
    const TRIGGER: u32 = 32;

    let request = fields(body, 20)?;
    let (flags, index, start, count) =
        (request.u32_at(4), request.u32_at(8), request.u32_at(12), request.u32_at(16));
    let available = irq_count(function, index)?;
    if start.checked_add(count).is_none_or(|end| end > available) {
        return Err(Errno::INVAL);
    }
    let (data, action) = (flags & 7, flags & !7);
    let chosen = || -> Result<Vec<bool>, Errno> {
        match data {
            NONE => Ok(vec![true; count as usize]),
            BOOL => {
                let values = body[20..].get(..count as usize).ok_or(Errno::INVAL)?;
                Ok(values.iter().map(|value| *value != 0).collect())
            }
            _ => Err(Errno::INVAL),
        }
    };
    let (start, count, action) = match (data, action) {
        // Without a count: the whole index is switched off.
        (NONE, TRIGGER) if count == 0 => (0, available, IrqAction::Release),
        (EVENTFD, TRIGGER) if count > 0 && fds.is_empty() => (start, count, IrqAction::Release),
        (EVENTFD, TRIGGER) if count > 0 && fds.len() == count as usize => {
            (start, count, IrqAction::Assign(fds))
        }
        (_, TRIGGER) => (start, count, IrqAction::Trigger(chosen()?)),
        (_, MASK) => (start, count, IrqAction::Mask(chosen()?)),
        (_, UNMASK) => (start, count, IrqAction::Unmask(chosen()?)),
        _ => return Err(Errno::INVAL),
    };
    function.set_irqs(IrqSet { index, start, count, action })?;
    Ok(Reply::default())
}
