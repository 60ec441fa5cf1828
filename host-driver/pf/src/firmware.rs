//! Loads and starts the firmware; reads its state, its log and the text of its panic.

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

/// Time limit for the firmware's start: on a busy host its emulator starts slowly.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long firmware may be dead after its start: the board starts it again a few times.
const DEAD_LIMIT: Duration = Duration::from_secs(3);
/// Pause between two reads of the state.
const PAUSE: Duration = Duration::from_millis(2);

/// The firmware's version and sizes: its answer to HELLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirmwareInfo {
    /// Version of the interface.
    pub version: u32,
    /// Number of flow records.
    pub flows: u32,
    /// Number of tunnels.
    pub tunnels: u32,
    /// Number of replication groups.
    pub groups: u32,
    /// Number of vports.
    pub vports: u32,
    /// Number of other hosts' provider addresses.
    pub peers: u32,
    /// Number of flows that can be pending.
    pub pending: u32,
    /// Its boot epoch.
    pub epoch: u32,
    /// The distributed router's MAC; zero before CONFIGURE.
    pub router_mac: MacAddr,
}

/// The firmware's state as the board reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirmwareStatus {
    /// Its state.
    pub state: FirmwareState,
    /// Its boot epoch: how often the board has started it.
    pub epoch: u32,
    /// Its heartbeat.
    pub heartbeat: u32,
}

/// Checks a firmware image as the board does. Call it before a running image is replaced.
///
/// # Errors
/// [`Error::Image`] if the image is not usable.
pub fn check_image(image: &[u8]) -> Result<()> {
    let (header, flat) = Header::parse(image).map_err(|reason| Error::Image { reason })?;
    if crc32fast::hash(flat) != header.crc {
        return Err(Error::Image { reason: ImageError::Crc });
    }
    Ok(())
}

/// Reads the firmware's state.
pub(crate) fn status(bar: &Bar0) -> Result<FirmwareStatus> {
    let state = FirmwareState::from_u32(bar.read(FW_STATE)?).unwrap_or(FirmwareState::Dead);
    Ok(FirmwareStatus { state, epoch: bar.read(FW_EPOCH)?, heartbeat: bar.read(FW_HEARTBEAT)? })
}

/// Loads an image into the board and waits until its firmware is ready.
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

/// Waits until started firmware is ready.
pub(crate) fn wait_ready(device: &str, bar: &Bar0) -> Result<()> {
    let end = Instant::now() + READY_LIMIT;
    let mut dead_since = None;
    loop {
        let now = status(bar)?;
        if now.state != FirmwareState::Dead {
            dead_since = None;
        } else if dead_since.get_or_insert_with(Instant::now).elapsed() > DEAD_LIMIT {
            return Err(not_ready(device, bar, now.state, DEAD_LIMIT));
        }
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
            return Err(not_ready(device, bar, now.state, READY_LIMIT));
        }
        std::thread::sleep(PAUSE);
    }
}

fn not_ready(device: &str, bar: &Bar0, state: FirmwareState, limit: Duration) -> Error {
    // A board that does not answer now has told nothing.
    let panic = panic_text(bar).unwrap_or_default();
    Error::NotReady { device: device.into(), state: format!("{state:?}"), limit, panic }
}

/// Why the board refused an image, from its error register.
fn refusal(code: u32) -> String {
    use ImageError::{Abi, Address, Crc, Length, Magic};
    let reason = [Length, Magic, Abi, Address, Crc].into_iter().find(|e| *e as u32 == code);
    reason.map_or_else(|| format!("code {code}"), |e| image_problem(e).into())
}

/// The text of the last panic; empty if the firmware never panicked.
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
