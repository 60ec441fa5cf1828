//! The firmware as the driver sees it: its image, its start, its state, its last words.

use std::time::{Duration, Instant};

use culvert_abi::image::{Header, ImageError};
use culvert_abi::regs::{
    FW_CONTROL, FW_EPOCH, FW_ERROR, FW_HEARTBEAT, FW_IMAGE_HIGH, FW_IMAGE_LEN, FW_IMAGE_LOW, FW_START,
    FW_STATE, FirmwareState, LOG, LOG_HEAD, LOG_LEN, PANIC, PANIC_LEN,
};
use culvert_packet::MacAddr;
use culvert_pci::Device;

use crate::error::image_problem;
use crate::registers::Bar0;
use crate::{Error, Result};

/// How long firmware may take to get ready: its emulator has to start on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(2);

/// What the firmware says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirmwareInfo {
    /// Version of the interface.
    pub version: u32,
    /// Flow records.
    pub flows: u32,
    /// Tunnels.
    pub tunnels: u32,
    /// Replication groups.
    pub groups: u32,
    /// Vports.
    pub vports: u32,
    /// Slots for addresses of other hosts.
    pub peers: u32,
    /// Flows that can wait for the host.
    pub pending: u32,
    /// Its boot epoch.
    pub epoch: u32,
    /// The distributed router's MAC that it was configured with; zero before.
    pub router_mac: MacAddr,
}

/// What the board says of the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirmwareStatus {
    /// Its state.
    pub state: FirmwareState,
    /// How often it was started.
    pub epoch: u32,
    /// Its heartbeat.
    pub heartbeat: u32,
}

/// Checks a firmware image as the board does, so that a wrong one is refused before it replaces a running one.
///
/// # Errors
/// What is wrong with it.
pub fn check_image(image: &[u8]) -> Result<()> {
    let (header, flat) = Header::parse(image).map_err(|reason| Error::Image { reason })?;
    if crc32fast::hash(flat) != header.crc {
        return Err(Error::Image { reason: ImageError::Crc });
    }
    Ok(())
}

pub(crate) fn status(bar: &Bar0) -> Result<FirmwareStatus> {
    let state = FirmwareState::from_u32(bar.read(FW_STATE)?).unwrap_or(FirmwareState::Dead);
    Ok(FirmwareStatus { state, epoch: bar.read(FW_EPOCH)?, heartbeat: bar.read(FW_HEARTBEAT)? })
}

/// Hands the image over and waits until the firmware is ready.
pub(crate) fn load(device: &dyn Device, bar: &Bar0, image: &[u8]) -> Result<()> {
    check_image(image)?;
    let memory = device.alloc_dma(image.len())?;
    memory.write_at(0, image)?;
    let iova = memory.iova();
    bar.write(FW_IMAGE_LOW, iova as u32)?;
    bar.write(FW_IMAGE_HIGH, (iova >> 32) as u32)?;
    bar.write(FW_IMAGE_LEN, image.len() as u32)?;
    bar.write(FW_CONTROL, FW_START)?;
    wait_ready(device.name(), bar)
}

/// Waits until firmware that was started is ready.
pub(crate) fn wait_ready(device: &str, bar: &Bar0) -> Result<()> {
    let end = Instant::now() + READY_LIMIT;
    loop {
        let now = status(bar)?;
        match now.state {
            FirmwareState::Ready => return Ok(()),
            FirmwareState::Refused => {
                return Err(Error::ImageRefused {
                    device: device.into(),
                    reason: refusal(bar.read(FW_ERROR)?),
                });
            }
            FirmwareState::Off | FirmwareState::Booting | FirmwareState::Dead => {}
        }
        if Instant::now() > end {
            let (state, limit) = (format!("{:?}", now.state), READY_LIMIT);
            return Err(Error::NotReady { device: device.into(), state, limit, panic: panic_text(bar)? });
        }
        std::thread::sleep(PAUSE);
    }
}

fn refusal(code: u32) -> String {
    use ImageError::{Abi, Address, Crc, Length, Magic};
    let known = [Length, Magic, Abi, Address, Crc].into_iter().find(|e| *e as u32 == code);
    known.map_or_else(|| format!("code {code}"), |e| image_problem(e).into())
}

/// Text of the last panic; empty if there was none.
pub(crate) fn panic_text(bar: &Bar0) -> Result<String> {
    let bytes = bar.bytes(PANIC, PANIC_LEN)?;
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    Ok(printable(&bytes[..end]))
}

/// The end of the firmware's log.
pub(crate) fn log_text(bar: &Bar0) -> Result<String> {
    const TAIL: u32 = 1024;
    let head = bar.read(LOG_HEAD)?;
    let len = head.min(TAIL);
    let window = bar.bytes(LOG, LOG_LEN)?;
    let from = head.wrapping_sub(len);
    let bytes: Vec<u8> = (0..len).map(|i| window[(from.wrapping_add(i) % LOG_LEN) as usize]).collect();
    Ok(printable(&bytes))
}

fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| *c == '\n' || !c.is_control()).collect()
}
