//! Mailbox requests: HELLO, CONFIGURE and START, through registers, one at a time.

use std::time::{Duration, Instant};

use culvert_abi::regs::{MBOX_BELL, MBOX_DONE, MBOX_REPLY, MBOX_REQUEST, mailbox};
use culvert_packet::{MacAddr, Reason};

use crate::firmware::FirmwareInfo;
use crate::registers::Bar0;
use crate::sync::lock;
use crate::{Error, Result};

/// Time limit for an answer.
const LIMIT: Duration = Duration::from_secs(3);
/// Pause between two reads of the answer's number.
const PAUSE: Duration = Duration::from_micros(500);

/// Sends a request and waits for the first `reply` words of its answer.
fn request(bar: &Bar0, device: &str, name: &'static str, words: &[u32], reply: usize) -> Result<Vec<u32>> {
    let _guard = lock(&bar.mailbox);
    for (i, word) in words.iter().enumerate() {
        bar.write(MBOX_REQUEST + 4 * i as u32, *word)?;
    }
    let number = bar.read(MBOX_BELL)?.wrapping_add(1).max(1);
    bar.write(MBOX_BELL, number)?;
    let end = Instant::now() + LIMIT;
    while bar.read(MBOX_DONE)? != number {
        if Instant::now() > end {
            let what = format!("mailbox request {name}");
            return Err(Error::Timeout { device: device.into(), what, limit: LIMIT });
        }
        std::thread::sleep(PAUSE);
    }
    let answer =
        (0..reply.max(1)).map(|i| bar.read(MBOX_REPLY + 4 * i as u32)).collect::<Result<Vec<_>>>()?;
    match answer[0] {
        0 => Ok(answer),
        code if name == "HELLO" && code == Reason::BadVersion as u32 => {
            let (found, expected) = (bar.read(MBOX_REPLY + 4)?, culvert_abi::VERSION);
            Err(Error::Abi { device: device.into(), part: "firmware", found, expected })
        }
        code => {
            let reason = u8::try_from(code).ok().and_then(Reason::from_u8);
            let reason = reason.map_or_else(|| format!("code {code}"), |r| r.describe().into());
            Err(Error::Mailbox { device: device.into(), request: name, reason })
        }
    }
}

/// Sends HELLO, which compares versions.
pub(crate) fn hello(bar: &Bar0, device: &str) -> Result<FirmwareInfo> {
    let answer = request(bar, device, "HELLO", &[mailbox::HELLO, culvert_abi::VERSION], 11)?;
    let [a, b, c, d] = answer[9].to_le_bytes();
    let [e, f, ..] = answer[10].to_le_bytes();
    Ok(FirmwareInfo {
        version: answer[1],
        flows: answer[2],
        tunnels: answer[3],
        groups: answer[4],
        vports: answer[5],
        peers: answer[6],
        pending: answer[7],
        epoch: answer[8],
        router_mac: MacAddr([a, b, c, d, e, f]),
    })
}

/// Sends CONFIGURE: hash secret and router MAC. The flow table is empty afterwards.
pub(crate) fn configure(bar: &Bar0, device: &str, secret: &[u64; 9], router: MacAddr) -> Result<()> {
    let mut words = vec![mailbox::CONFIGURE];
    for word in secret {
        words.extend([*word as u32, (*word >> 32) as u32]);
    }
    let [low, high] = mac_words(router);
    words.extend([low, high]);
    request(bar, device, "CONFIGURE", &words, 1).map(|_| ())
}

/// Sends START: the firmware begins to forward.
pub(crate) fn start(bar: &Bar0, device: &str) -> Result<()> {
    request(bar, device, "START", &[mailbox::START], 1).map(|_| ())
}

/// A MAC as two register words, its first byte in bits 7:0.
pub(crate) fn mac_words(mac: MacAddr) -> [u32; 2] {
    let m = mac.0;
    [u32::from_le_bytes([m[0], m[1], m[2], m[3]]), u32::from_le_bytes([m[4], m[5], 0, 0])]
}
