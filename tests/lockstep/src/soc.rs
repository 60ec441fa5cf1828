//! The firmware in the emulated SoC, as a link.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use culvert_abi::regs::MBOX_WORDS;
use culvert_abi::soc::{Descriptor, HEADROOM, NO_BUFFER, RELEASE};
use culvert_device::soc::{FromFirmware, Options, Soc};

use crate::firmware::{Answer, Link};

/// Limit for any answer.
const LIMIT: Duration = Duration::from_secs(20);

/// A running SoC.
pub struct SocLink {
    soc: Soc,
}

/// The firmware's image, from `$CULVERT_FIRMWARE` or where `cargo xtask firmware` puts it.
///
/// # Errors
/// It is missing: how to build it.
pub fn image() -> Result<Vec<u8>, String> {
    let path = match std::env::var_os("CULVERT_FIRMWARE") {
        Some(path) => PathBuf::from(path),
        None => {
            let exe = std::env::current_exe().map_err(|e| e.to_string())?;
            let target = exe.ancestors().find(|p| p.join("firmware").is_dir());
            target.unwrap_or(&exe).join("firmware/culvert-fw.bin")
        }
    };
    std::fs::read(&path).map_err(|e| format!("{}: {e}: run `cargo xtask firmware` first", path.display()))
}

impl SocLink {
    /// Starts the firmware with room for `1 << flows_log2` flows.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(options: Options) -> Result<Self, String> {
        let mut soc = Soc::new(options).map_err(|e| e.to_string())?;
        soc.start(&image()?).map_err(|e| e.to_string())?;
        soc.wait_ready(LIMIT).map_err(|e| e.to_string())?;
        Ok(SocLink { soc })
    }

    /// The SoC itself.
    pub fn soc(&mut self) -> &mut Soc {
        &mut self.soc
    }

    /// The next descriptor, without waiting.
    pub fn try_receive(&mut self) -> Option<Answer> {
        let from = self.soc.poll()?;
        let FromFirmware::Good { descriptor, .. } = from else {
            panic!("the firmware sent an invalid descriptor: {from:?}");
        };
        let (header, bytes) = self.soc.parts(&from);
        let answer = Answer { descriptor, header: header.to_vec(), bytes: bytes.to_vec() };
        if descriptor.flags & RELEASE != 0 {
            self.soc.owners().free(descriptor.buffer);
        }
        self.soc.consumed();
        Some(answer)
    }

    /// Writes a descriptor to the ring without waking the firmware. `None`: the ring or the pool is full.
    pub fn push(&mut self, descriptor: &Descriptor, payload: Option<&[u8]>) -> Option<()> {
        let mut d = Descriptor { buffer: NO_BUFFER, ..*descriptor };
        if let Some(bytes) = payload {
            if self.soc.room() == 0 {
                return None;
            }
            let offset = HEADROOM as usize;
            d.buffer = self.soc.owners().take()?;
            d.offset = offset as u16;
            d.len = bytes.len() as u16;
            self.soc.buffer(d.buffer)?.get_mut(offset..offset + bytes.len())?.copy_from_slice(bytes);
        }
        self.soc.push(&d).then_some(())
    }
}

impl Link for SocLink {
    fn send(&mut self, descriptor: Descriptor, payload: Option<&[u8]>) -> Result<(), String> {
        self.push(&descriptor, payload).ok_or("the ring to the firmware is full")?;
        self.soc.publish();
        Ok(())
    }

    fn receive(&mut self) -> Option<Answer> {
        let end = Instant::now() + LIMIT;
        let mut polls = 0u32;
        loop {
            if let Some(answer) = self.try_receive() {
                return Some(answer);
            }
            polls += 1;
            if polls.is_multiple_of(64) {
                if Instant::now() > end || !self.soc.is_running() {
                    return None;
                }
                std::thread::yield_now();
            }
        }
    }

    fn mailbox(&mut self, request: &[u32; MBOX_WORDS]) -> Result<[u32; MBOX_WORDS], String> {
        self.soc.mailbox(request, LIMIT).map_err(|e| e.to_string())
    }
}
